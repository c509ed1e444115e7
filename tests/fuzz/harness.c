/* libFuzzer's entry: gives each input to fuzz_one of tests/decoders.py, with the extension
   compiled into this program, so that the sanitizers watch it. Built and run by
   scripts/fuzz. */

#include "../../dualdb/protocol/_row_decoder.c"

static PyObject *fuzz_one;

static void
give_up(void)
{
    PyErr_Print();
    abort();
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    PyImport_AppendInittab("_row_decoder", PyInit__row_decoder);
    Py_Initialize();
    PyObject *module;
    if (PyRun_SimpleString("import sys, _row_decoder\n"
                           "sys.modules['dualdb.protocol._row_decoder'] = _row_decoder\n"
                           "import dualdb.protocol\n"
                           "dualdb.protocol._row_decoder = _row_decoder\n") < 0
        || (module = PyImport_ImportModule("decoders")) == NULL
        || (fuzz_one = PyObject_GetAttrString(module, "fuzz_one")) == NULL) {
        give_up();
    }
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *made = PyObject_CallFunction(fuzz_one, "y#", (const char *)data, (Py_ssize_t)size);
    if (made == NULL) {
        give_up();
    }
    Py_DECREF(made);
    return 0;
}
