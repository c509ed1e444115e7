/* Decodes rows of the text protocol: the compiled twin of row_decoder.py.

   It converts what looks as a server always writes it. A value that looks otherwise goes
   to the column's Python converter, and a row that cannot be read at all goes, with what
   follows it, to the Python decoder ("fallback"), which raises the error or decodes it. So
   errors are raised in one place, and nothing here has to word one.

   A RowReader is immutable once it is made and there is no static or module state, so that
   one may be used by several threads at once, also without the GIL. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <datetime.h>
#include <limits.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030A0000
static inline PyObject *
Py_NewRef(PyObject *object)
{
    Py_INCREF(object);
    return object;
}
#endif

/* How a column's text becomes its value. */
enum kind {
    BYTES,    /* bytes, as they are */
    UTF8,     /* str */
    ASCII,    /* str */
    ENCODED,  /* str, in the column's encoding */
    INTEGER,  /* int; otherwise, and for all below: convert(bytes) */
    FLOAT,    /* float */
    DATETIME, /* datetime.datetime */
    DATE,     /* datetime.date */
    TIME,     /* datetime.timedelta */
    CONVERT,  /* convert(bytes) */
    CONVERT_ASCII, /* convert(str), as of a Decimal */
    KINDS
};

typedef struct {
    enum kind kind;
    PyObject *name;       /* borrowed from RowReader.names */
    PyObject *convert;    /* borrowed from RowReader.codecs */
    const char *encoding; /* borrowed from RowReader.codecs; NULL where it is not needed */
} Column;

typedef struct {
    PyObject_HEAD
    PyObject *names;    /* tuple of str */
    PyObject *codecs;   /* tuple of (kind, encoding, convert) */
    PyObject *fallback; /* the Python decoder's read */
    PyObject *template; /* a dict with all names; NULL if rows are tuples */
    PyObject *capsule;  /* owns the struct behind datetime */
    PyDateTime_CAPI *datetime;
    Py_ssize_t count;
    Column *columns;
} RowReader;

/* A value's or a row's text: the bytes from position to stop, which lie in the buffer. */
typedef struct {
    const unsigned char *position;
    const unsigned char *stop;
} Span;

/* Values. Each returns NULL without an exception if the text is not of the usual form. */

/* The number of so many digits, or -1. */
static int
digits(const unsigned char *text, int count)
{
    int number = 0;
    for (int i = 0; i < count; i++) {
        unsigned int digit = (unsigned int)text[i] - '0';
        if (digit > 9) {
            return -1;
        }
        number = number * 10 + (int)digit;
    }
    return number;
}

/* The microseconds of "", ".1" to ".123456", or -1. */
static int
microseconds(const unsigned char *text, Py_ssize_t size)
{
    if (size == 0) {
        return 0;
    }
    if (size < 2 || size > 7 || text[0] != '.') {
        return -1;
    }
    int number = digits(text + 1, (int)size - 1);
    for (Py_ssize_t i = size; number >= 0 && i < 7; i++) {
        number *= 10;
    }
    return number;
}

static PyObject *
integer(const unsigned char *text, Py_ssize_t size)
{
    int negative = size > 0 && text[0] == '-';
    if (size - negative < 1 || size - negative > 19) { /* 19 digits always fit */
        return NULL;
    }
    uint64_t number = 0;
    for (Py_ssize_t i = negative; i < size; i++) {
        unsigned int digit = (unsigned int)text[i] - '0';
        if (digit > 9) {
            return NULL;
        }
        number = number * 10 + digit;
    }
    if (!negative) {
        return PyLong_FromUnsignedLongLong(number);
    }
    if (number > (uint64_t)LLONG_MAX) {
        return NULL;
    }
    return PyLong_FromLongLong(-(long long)number);
}

static PyObject *
floating(const unsigned char *text, Py_ssize_t size)
{
    char copy[48]; /* a server writes at most 24; the copy ends with a NUL */
    if (size < 1 || size >= (Py_ssize_t)sizeof(copy)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned char c = text[i];
        if ((c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e') {
            return NULL;
        }
        copy[i] = (char)c;
    }
    copy[size] = 0;
    char *end;
    double number = PyOS_string_to_double(copy, &end, NULL);
    if (number == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return NULL;
    }
    return end == copy + size ? PyFloat_FromDouble(number) : NULL;
}

/* A date that does not exist, such as 0000-00-00, is given as its text. */
static PyObject *
unless_invalid(PyObject *made, const unsigned char *text, Py_ssize_t size)
{
    if (made != NULL || (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ValueError))) {
        return made;
    }
    PyErr_Clear();
    return PyUnicode_DecodeASCII((const char *)text, size, NULL);
}

/* Reads YYYY-MM-DD; whether it is of this form. */
static int
calendar(const unsigned char *text, int *year, int *month, int *day)
{
    *year = digits(text, 4);
    *month = digits(text + 5, 2);
    *day = digits(text + 8, 2);
    return text[4] == '-' && text[7] == '-' && *year >= 0 && *month >= 0 && *day >= 0;
}

static PyObject *
date(const PyDateTime_CAPI *api, const unsigned char *text, Py_ssize_t size)
{
    int year, month, day;
    if (size != 10 || !calendar(text, &year, &month, &day)) {
        return NULL;
    }
    PyObject *made = NULL;
    if (month > 0) { /* or there would be an exception for each 0000-00-00 */
        made = api->Date_FromDate(year, month, day, api->DateType);
    }
    return unless_invalid(made, text, size);
}

static PyObject *
date_and_time(const PyDateTime_CAPI *api, const unsigned char *text, Py_ssize_t size)
{
    int year, month, day;
    if (size < 19 || !calendar(text, &year, &month, &day)) {
        return NULL;
    }
    int hour = digits(text + 11, 2), minute = digits(text + 14, 2), second = digits(text + 17, 2);
    int micro = microseconds(text + 19, size - 19);
    if (text[10] != ' ' || text[13] != ':' || text[16] != ':' || hour < 0 || minute < 0
        || second < 0 || micro < 0) {
        return NULL;
    }
    PyObject *made = NULL;
    if (month > 0) {
        made = api->DateTime_FromDateAndTime(
            year, month, day, hour, minute, second, micro, Py_None, api->DateTimeType);
    }
    return unless_invalid(made, text, size);
}

static PyObject *
duration(const PyDateTime_CAPI *api, const unsigned char *text, Py_ssize_t size)
{
    int sign = 1;
    if (size > 0 && text[0] == '-') {
        sign = -1;
        text++;
        size--;
    }
    if (size < 8) {
        return NULL;
    }
    int places = text[2] == ':' ? 2 : 3; /* of the hours, which go up to 838 */
    if (size < places + 6 || text[places] != ':' || text[places + 3] != ':') {
        return NULL;
    }
    int hours = digits(text, places), minutes = digits(text + places + 1, 2);
    int seconds = digits(text + places + 4, 2);
    int micro = microseconds(text + places + 6, size - places - 6);
    if (hours < 0 || minutes < 0 || seconds < 0 || micro < 0) {
        return NULL;
    }
    int total = sign * (hours * 3600 + minutes * 60 + seconds);
    return api->Delta_FromDelta(0, total, sign * micro, 1, api->DeltaType);
}

static PyObject *
converted(const Column *column, const char *text, Py_ssize_t size)
{
    PyObject *argument = column->kind == CONVERT_ASCII
        ? PyUnicode_DecodeASCII(text, size, NULL)
        : PyBytes_FromStringAndSize(text, size);
    if (argument == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_CallOneArg(column->convert, argument);
    Py_DECREF(argument);
    return value;
}

/* A new reference; NULL with an exception. */
static PyObject *
column_value(const RowReader *self, const Column *column, Span span)
{
    const unsigned char *bytes = span.position;
    const char *text = (const char *)bytes;
    Py_ssize_t size = span.stop - bytes;
    PyObject *value = NULL;
    switch (column->kind) {
    case BYTES:
        return PyBytes_FromStringAndSize(text, size);
    case UTF8:
        return PyUnicode_DecodeUTF8(text, size, NULL);
    case ASCII:
        return PyUnicode_DecodeASCII(text, size, NULL);
    case ENCODED:
        return PyUnicode_Decode(text, size, column->encoding, NULL);
    case INTEGER:
        value = integer(bytes, size);
        break;
    case FLOAT:
        value = floating(bytes, size);
        break;
    case DATETIME:
        value = date_and_time(self->datetime, bytes, size);
        break;
    case DATE:
        value = date(self->datetime, bytes, size);
        break;
    case TIME:
        value = duration(self->datetime, bytes, size);
        break;
    default:
        break;
    }
    if (value != NULL || PyErr_Occurred()) {
        return value;
    }
    return converted(column, text, size);
}

/* Rows. */

/* Reads the length of a value of more than 250 bytes; false if the row ends before. */
static int
long_length(Span *row, unsigned char first, uint64_t *length)
{
    int size = first == 252 ? 2 : first == 253 ? 3 : first == 254 ? 8 : 0;
    if (size == 0 || row->stop - row->position < size) {
        return 0;
    }
    *length = 0;
    for (int i = size - 1; i >= 0; i--) {
        *length = *length << 8 | row->position[i];
    }
    row->position += size;
    return 1;
}

/* The next value of a row, which moves on. NULL with an exception if it cannot be converted,
   and without one if the row is malformed. */
static PyObject *
next_value(const RowReader *self, const Column *column, Span *row)
{
    if (row->position >= row->stop) {
        return NULL;
    }
    unsigned char first = *row->position++;
    if (first == 251) {
        return Py_NewRef(Py_None);
    }
    uint64_t length = first;
    if (first > 251 && !long_length(row, first, &length)) {
        return NULL;
    }
    if (length > (uint64_t)(row->stop - row->position)) {
        return NULL;
    }
    Span span = {row->position, row->position + length};
    row->position = span.stop;
    return column_value(self, column, span);
}

static PyObject *
tuple_row(const RowReader *self, Span *row)
{
    PyObject *made = PyTuple_New(self->count);
    for (Py_ssize_t i = 0; made != NULL && i < self->count; i++) {
        PyObject *value = next_value(self, &self->columns[i], row);
        if (value == NULL) {
            Py_CLEAR(made);
        }
        else {
            PyTuple_SET_ITEM(made, i, value);
        }
    }
    return made;
}

static PyObject *
dict_row(const RowReader *self, Span *row)
{
    /* A copy has its room from the start. */
    PyObject *made = PyDict_Copy(self->template);
    for (Py_ssize_t i = 0; made != NULL && i < self->count; i++) {
        const Column *column = &self->columns[i];
        PyObject *value = next_value(self, column, row);
        if (value == NULL || PyDict_SetItem(made, column->name, value) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(value);
    }
    return made;
}

/* What decode_rows stopped at. */
enum end {
    INCOMPLETE, /* what is left is no whole packet, or not of this sequence, or of 16 MiB */
    NO_ROW,     /* the packet that ends the rows, or an error */
    UNREADABLE, /* a row for the fallback, with or without an exception */
};

/* Decodes the rows that lie whole in the buffer; where it stopped is in buffer and number. */
static enum end
decode_rows(const RowReader *self, Span *buffer, unsigned int *number, PyObject *rows)
{
    while (buffer->stop - buffer->position >= 4) {
        const unsigned char *header = buffer->position;
        Py_ssize_t length = header[0] | header[1] << 8 | header[2] << 16;
        if (header[3] != *number || length == 0xFFFFFF
            || length > buffer->stop - header - 4) {
            return INCOMPLETE;
        }
        Span row = {header + 4, header + 4 + length};
        if (length == 0) {
            return UNREADABLE;
        }
        unsigned char first = *row.position;
        if (first == 255 || (first == 254 && length < 9)) {
            return NO_ROW;
        }
        if (first > 251 && length < 9) {
            return UNREADABLE;
        }
        PyObject *made = self->template == NULL ? tuple_row(self, &row) : dict_row(self, &row);
        if (made == NULL) {
            return UNREADABLE;
        }
        if (row.position != row.stop || PyList_Append(rows, made) < 0) {
            Py_DECREF(made);
            return UNREADABLE;
        }
        Py_DECREF(made);
        buffer->position = row.stop;
        *number = (*number + 1) & 255;
    }
    return INCOMPLETE;
}

PyDoc_STRVAR(read_doc,
"read(buffer, position, end, number, rows)\n--\n\n"
"Append the rows of the whole packets in ``buffer[position:end]`` to ``rows``.\n\n"
"Args:\n"
"    buffer: What was received, as bytes.\n"
"    position: Where the first packet begins.\n"
"    end: Where to stop.\n"
"    number: The sequence number that the first packet must have.\n"
"    rows: A list.\n\n"
"Returns:\n"
"    Where it stopped, the next sequence number, and True if the packet there is no row;\n"
"    False if it is incomplete, out of sequence, or of 16 MiB.\n\n"
"Raises:\n"
"    Exception: Whatever the fallback raises for a row that cannot be read.\n");

static PyObject *
read_rows(RowReader *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "read takes buffer, position, end, number and rows");
        return NULL;
    }
    Py_ssize_t position = PyLong_AsSsize_t(args[1]);
    Py_ssize_t end = PyLong_AsSsize_t(args[2]);
    unsigned long number = PyLong_AsUnsignedLong(args[3]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!PyList_Check(args[4])) {
        PyErr_SetString(PyExc_TypeError, "rows must be a list");
        return NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (position < 0 || end < position || end > view.len || number > 255) {
        PyErr_SetString(PyExc_ValueError, "position, end or number out of range");
        PyBuffer_Release(&view);
        return NULL;
    }
    const unsigned char *bytes = view.buf;
    Span buffer = {bytes + position, bytes + end};
    unsigned int next = (unsigned int)number;
    enum end stopped = decode_rows(self, &buffer, &next, args[4]);
    position = buffer.position - bytes;
    PyBuffer_Release(&view);
    if (stopped != UNREADABLE) {
        return Py_BuildValue("nIO", position, next, stopped == NO_ROW ? Py_True : Py_False);
    }
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)
            || PyErr_ExceptionMatches(PyExc_MemoryError)) {
            return NULL;
        }
        PyErr_Clear();
    }
    return PyObject_CallFunction(
        self->fallback, "OnnIO", args[0], position, end, next, args[4]);
}

/* The type and the module. */

static int
set_column(RowReader *self, Py_ssize_t index)
{
    Column *column = &self->columns[index];
    int kind;
    PyObject *codec = PyTuple_GET_ITEM(self->codecs, index);
    column->name = PyTuple_GET_ITEM(self->names, index);
    if (!PyUnicode_CheckExact(column->name) || !PyTuple_Check(codec)) {
        PyErr_SetString(PyExc_TypeError, "a name must be str and a codec must be a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(codec, "izO", &kind, &column->encoding, &column->convert)) {
        return -1;
    }
    if (kind < 0 || kind >= KINDS || (kind == ENCODED && column->encoding == NULL)) {
        PyErr_SetString(PyExc_ValueError, "no such kind of column, or it lacks its encoding");
        return -1;
    }
    column->kind = (enum kind)kind;
    if (self->template == NULL) {
        return 0;
    }
    return PyDict_SetItem(self->template, column->name, Py_None);
}

static PyObject *
RowReader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"names", "codecs", "fallback", "tuples", NULL};
    PyObject *names, *codecs, *fallback;
    int tuples;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!Op", keywords, &PyTuple_Type, &names,
                                     &PyTuple_Type, &codecs, &fallback, &tuples)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    if (count == 0 || count != PyTuple_GET_SIZE(codecs)) {
        PyErr_SetString(PyExc_ValueError, "each column needs one name and one codec");
        return NULL;
    }
    RowReader *self = (RowReader *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->names = Py_NewRef(names);
    self->codecs = Py_NewRef(codecs);
    self->fallback = Py_NewRef(fallback);
    self->columns = PyMem_Calloc((size_t)count, sizeof(Column));
    if (self->columns == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    self->template = tuples ? NULL : PyDict_New();
    if (self->template == NULL && !tuples) {
        goto failed;
    }
    PyObject *module = PyImport_ImportModule("datetime");
    if (module == NULL) {
        goto failed;
    }
    self->capsule = PyObject_GetAttrString(module, "datetime_CAPI");
    Py_DECREF(module);
    if (self->capsule == NULL) {
        goto failed;
    }
    self->datetime = PyCapsule_GetPointer(self->capsule, PyDateTime_CAPSULE_NAME);
    if (self->datetime == NULL) {
        goto failed;
    }
    for (self->count = 0; self->count < count; self->count++) {
        if (set_column(self, self->count) < 0) {
            goto failed;
        }
    }
    if (self->template != NULL && PyDict_GET_SIZE(self->template) != count) {
        PyErr_SetString(PyExc_ValueError, "two columns have one name");
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

/* There is no tp_clear: as with a tuple, a cycle is broken at another of its objects. */
static int
RowReader_traverse(RowReader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->names);
    Py_VISIT(self->codecs);
    Py_VISIT(self->fallback);
    Py_VISIT(self->template);
    Py_VISIT(self->capsule);
    return 0;
}

static void
RowReader_dealloc(RowReader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->names);
    Py_XDECREF(self->codecs);
    Py_XDECREF(self->fallback);
    Py_XDECREF(self->template);
    Py_XDECREF(self->capsule);
    PyMem_Free(self->columns);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef RowReader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))read_rows, METH_FASTCALL, read_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(RowReader_doc,
"RowReader(names, codecs, fallback, tuples)\n--\n\n"
"Decodes the rows of a result with these columns.\n\n"
"Args:\n"
"    names: The keys of a row.\n"
"    codecs: For each column its kind, its encoding or None, and its converter.\n"
"    fallback: The Python decoder's ``read``, called for a row that cannot be read here.\n"
"    tuples: Rows are tuples, not dicts.\n");

static PyType_Slot RowReader_slots[] = {
    {Py_tp_doc, (void *)RowReader_doc},
    {Py_tp_new, RowReader_new},
    {Py_tp_traverse, RowReader_traverse},
    {Py_tp_dealloc, RowReader_dealloc},
    {Py_tp_methods, RowReader_methods},
    {0, NULL},
};

static PyType_Spec RowReader_spec = {
    .name = "dualdb.protocol._row_decoder.RowReader",
    .basicsize = sizeof(RowReader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = RowReader_slots,
};

static int
execute(PyObject *module)
{
    (void)PyDateTimeAPI; /* of the header, which is static and may be of another interpreter */
    static const struct {
        const char *name;
        enum kind kind;
    } kinds[] = {
        {"BYTES", BYTES},       {"UTF8", UTF8},       {"ASCII", ASCII},
        {"ENCODED", ENCODED},   {"INTEGER", INTEGER}, {"FLOAT", FLOAT},
        {"DATETIME", DATETIME}, {"DATE", DATE},       {"TIME", TIME},
        {"CONVERT", CONVERT},   {"CONVERT_ASCII", CONVERT_ASCII},
    };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (PyModule_AddIntConstant(module, kinds[i].name, kinds[i].kind) < 0) {
            return -1;
        }
    }
    PyObject *type = PyType_FromSpec(&RowReader_spec);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dualdb.protocol._row_decoder",
    .m_doc = "Decodes rows of the text protocol.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__row_decoder(void)
{
    return PyModuleDef_Init(&module_definition);
}
