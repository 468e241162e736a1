/* A client of fastadam in C: a Python extension that includes fastadam.h and steps all rules without the GIL.
 * tests/adapters/test_embedding.py builds it and compares it with the Python classes. */
#include <fastadam.h>
#include <string.h>

/* Lines for all rules, which setup.py writes. */
static int one_f32(const char *rule, const fastadam_options *o, int64_t t, int64_t n, float *p, const float *g,
                   float **s) {
#include "rules_f32.inc"
    return 1;
}

static int one_f64(const char *rule, const fastadam_options *o, int64_t t, int64_t n, double *p, const double *g,
                   double **s) {
#include "rules_f64.inc"
    return 1;
}

#define ALL_STEPS(real, suffix)                                                                                  \
    static int all_##suffix(const char *rule, const fastadam_options *o, int64_t t, int64_t n, real *p, real *g, \
                            real *states, int64_t width, int64_t count, int null) {                              \
        real *s[3] = {states, states + width, states + 2 * width};                                               \
        int code = 0;                                                                                            \
        if (null >= 2) s[null - 2] = NULL;                                                                       \
        for (int64_t k = 0; k < count && !code; k++)                                                             \
            code = one_##suffix(rule, null == -1 ? NULL : o, t + k, n, null == 0 ? NULL : p,                     \
                                null == 1 ? NULL : g + k * width, s);                                            \
        return code;                                                                                             \
    }

ALL_STEPS(float, f32)
ALL_STEPS(double, f64)

/* steps(rule, p, gradients, states, members, t, n, size, null): as in cython_client.pyx */
static PyObject *steps(PyObject *self, PyObject *args) {
    const char *rule;
    PyObject *given[3], *members;
    Py_buffer views[3];
    fastadam_options o;
    long long t, n;
    Py_ssize_t size;
    int null, code = 0, taken = 0;
    memset(&o, 0, sizeof o);
    if (!PyArg_ParseTuple(args, "sOOOO!LLni", &rule, &given[0], &given[1], &given[2], &PyTuple_Type, &members, &t, &n,
                          &size, &null))
        return NULL;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(members); k++)
        (&o.lr)[k] = PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(members, k));
    o.size = (size_t)size;
    while (taken < 3 &&
           !PyObject_GetBuffer(given[taken], &views[taken], PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT))
        taken++;
    if (taken == 3) {
        int64_t width = views[0].shape[0], count = views[1].shape[0];
        int is_double = !strcmp(views[0].format, "d");
        void *p = views[0].buf, *g = views[1].buf, *s = views[2].buf;
        Py_BEGIN_ALLOW_THREADS
        code = is_double ? all_f64(rule, &o, t, n, p, g, s, width, count, null)
                         : all_f32(rule, &o, t, n, p, g, s, width, count, null);
        Py_END_ALLOW_THREADS
    }
    for (int k = 0; k < taken; k++) PyBuffer_Release(&views[k]);
    return taken == 3 ? PyLong_FromLong(code) : NULL;
}

static PyMethodDef methods[] = {{"steps", steps, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "c_client", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_c_client(void) {
    if (import_fastadam() < 0) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module && (PyModule_AddIntConstant(module, "VERSION", FASTADAM_VERSION) < 0 ||
                   PyModule_AddIntConstant(module, "SIZE", sizeof(fastadam_options)) < 0))
        Py_CLEAR(module);
    return module;
}
