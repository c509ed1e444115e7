/* Asks what has happened on a socket, without waiting.

   The function behind select.poll() gives the GIL to other threads around the system call.
   For a question that is answered at once, before each use of a connection, that costs more
   than the question: the thread has to wait until it has the GIL again. */

#define _GNU_SOURCE /* for POLLRDHUP */
#include <Python.h>

#include <errno.h>
#include <poll.h>

#ifdef POLLRDHUP
#define ASKED (POLLIN | POLLRDHUP)
#else
#define ASKED POLLIN
#endif

PyDoc_STRVAR(events_doc,
"events(descriptor)\n--\n\n"
"Return what poll() reports of a descriptor: 0 if nothing has happened.\n\n"
"Raises:\n"
"    ValueError: The descriptor is negative.\n"
"    OSError: The system cannot tell.\n");

static PyObject *
events(PyObject *module, PyObject *descriptor)
{
    int number = PyObject_AsFileDescriptor(descriptor);
    if (number < 0) {
        return NULL;
    }
    struct pollfd asked = {.fd = number, .events = ASKED};
    int found;
    do {
        found = poll(&asked, 1, 0);
    } while (found < 0 && errno == EINTR);
    if (found < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(found ? asked.revents : 0);
}

static PyMethodDef methods[] = {
    {"events", events, METH_O, events_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dualdb._poll",
    .m_doc = "Asks what has happened on a socket.",
    .m_methods = methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__poll(void)
{
    return PyModuleDef_Init(&module_definition);
}
