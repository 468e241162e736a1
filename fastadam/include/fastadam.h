/* fastadam's C interface: one step of contiguous arrays, on the calling thread, without the GIL.
 * Call import_fastadam() once, with the GIL, in each file that includes this; it returns 0, or -1 and sets an exception.
 *
 * While a function runs, denormal numbers count as zero; the thread's floating-point mode is put back.
 *
 * Promise: functions and members of the options are only ever added, at the end; a program compiled against an older
 * header runs with a newer fastadam.
 */
#ifndef FASTADAM_H
#define FASTADAM_H

#include <Python.h>
#include <stdint.h>

#define FASTADAM_VERSION 1

/* What a function returns; unless it is FASTADAM_OK, nothing was touched. */
#define FASTADAM_OK 0
#define FASTADAM_BAD_OPTIONS (-1)  /* NULL, or of a size that this fastadam does not know */
#define FASTADAM_BAD_LENGTH (-2)   /* n < 0 */
#define FASTADAM_NULL_POINTER (-3) /* an array is NULL, and n > 0 */
#define FASTADAM_BAD_STEP (-4)     /* t < 1 */

/* The hyper-parameters of all algorithms. Zero it, set size, then what the algorithm uses; there are no defaults. */
typedef struct {
    size_t size; /* sizeof(fastadam_options) */
    double lr, weight_decay, beta1, beta2, eps, lr_decay, alpha, momentum;
    double maximize, decoupled, eps_hat, eps_in_sqrt; /* flags: zero or not */
} fastadam_options;

/* Step t = 1, 2, … of n elements. Adadelta takes its rho as beta1 and beta2; AdamW is adam with decoupled set. */
#define FASTADAM_FUNCTIONS(X, real, suffix)                                      \
    X(adam_##suffix, (FASTADAM_ARGS(real), real *m, real *v))                    \
    X(amsgrad_##suffix, (FASTADAM_ARGS(real), real *m, real *v, real *v_max))    \
    X(adamax_##suffix, (FASTADAM_ARGS(real), real *m, real *u))                  \
    X(adagrad_##suffix, (FASTADAM_ARGS(real), real *v))                          \
    X(rmsprop_##suffix, (FASTADAM_ARGS(real), real *v))                          \
    X(rmsprop_momentum_##suffix, (FASTADAM_ARGS(real), real *v, real *b))        \
    X(rmsprop_centered_##suffix, (FASTADAM_ARGS(real), real *v, real *m))        \
    X(rmsprop_centered_momentum_##suffix, (FASTADAM_ARGS(real), real *v, real *m, real *b)) \
    X(adadelta_##suffix, (FASTADAM_ARGS(real), real *v, real *d))
#define FASTADAM_ARGS(real) const fastadam_options *options, int64_t t, int64_t n, real *p, const real *g

#ifndef FASTADAM_NO_IMPORT /* a Cython module cimports the functions from fastadam.capi instead */

#define FASTADAM_DECLARE(name, arguments) static int(*fastadam_##name) arguments;
FASTADAM_FUNCTIONS(FASTADAM_DECLARE, float, f32)
FASTADAM_FUNCTIONS(FASTADAM_DECLARE, double, f64)
#undef FASTADAM_DECLARE

static inline void *fastadam_find(PyObject *table, const char *name) {
    PyObject *capsule = PyDict_GetItemString(table, name);
    if (capsule) return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
    PyErr_Format(PyExc_ImportError, "the installed fastadam has no %s: it is older than this header", name);
    return NULL;
}

static inline int import_fastadam(void) {
    PyObject *module = PyImport_ImportModule("fastadam.capi");
    PyObject *table = module ? PyObject_GetAttrString(module, "__pyx_capi__") : NULL;
    int found = table != NULL;
#define FASTADAM_FIND(name, arguments) \
    found = found && (*(void **)&fastadam_##name = fastadam_find(table, "fastadam_" #name)) != NULL;
    FASTADAM_FUNCTIONS(FASTADAM_FIND, float, f32)
    FASTADAM_FUNCTIONS(FASTADAM_FIND, double, f64)
#undef FASTADAM_FIND
    Py_XDECREF(table);
    Py_XDECREF(module); /* the interpreter keeps it, and with it the functions */
    return found ? 0 : -1;
}

#endif
#endif
