# cython: language_level=3, boundscheck=False, wraparound=False
# A client of fastadam in Cython: it cimports the functions and steps all rules in a loop without the GIL.
# tests/adapters/test_embedding.py builds it and compares it with the Python classes.

from libc.stdint cimport int64_t

from fastadam.capi cimport FASTADAM_VERSION, fastadam_adam_defaults, fastadam_adam_f32, fastadam_options

ctypedef fused real:
    float
    double

include "rules.pxi"  # the rules' names, and a function that calls one of them: written by setup.py

VERSION = FASTADAM_VERSION
SIZE = sizeof(fastadam_options)


def steps(
    name, real[::1] p, real[:, ::1] gradients, real[:, ::1] states, members, int64_t t, int64_t n, size, int null
):
    """Steps t, t + 1, … with a row of `gradients` each; returns the first code that is not 0, or 0.

    `states` has a row for each state, `members` are the options after their size in the header's order. `null` is
    what to pass as NULL: 0 p, 1 g, 2, … a state, -1 the options, -2 nothing.
    """
    cdef fastadam_options options
    cdef const fastadam_options* o = NULL if null == -1 else &options
    cdef int rule = RULES.index(name), code = 0
    cdef real* s[3]
    cdef real* params = NULL if null == 0 else &p[0]
    cdef Py_ssize_t k
    options.size = size
    for k in range(len(members)):
        (&options.lr)[k] = members[k]
    for k in range(3):
        s[k] = NULL if null == k + 2 or k >= states.shape[0] else &states[k, 0]
    with nogil:
        for k in range(gradients.shape[0]):
            code = one(rule, o, t + k, n, params, NULL if null == 1 else &gradients[k, 0], s)
            if code:
                break
    return code


def repeat(int count, float[::1] p, float[::1] g, float[::1] m, float[::1] v):
    """`count` steps of Adam with one gradient: what bench/embedding.py times."""
    cdef fastadam_options options
    cdef int64_t t
    fastadam_adam_defaults(&options, sizeof(options))
    with nogil:
        for t in range(1, count + 1):
            fastadam_adam_f32(&options, t, p.shape[0], &p[0], &g[0], &m[0], &v[0])
