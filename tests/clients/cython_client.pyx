# cython: language_level=3, boundscheck=False, wraparound=False
# A client of fastadam in Cython: it cimports the functions and steps all rules in a loop without the GIL.
# tests/adapters/test_embedding.py builds it and compares it with the Python classes.

from libc.stdint cimport int64_t

from fastadam.capi cimport (
    FASTADAM_VERSION,
    fastadam_adadelta_f32, fastadam_adadelta_f64,
    fastadam_adagrad_f32, fastadam_adagrad_f64,
    fastadam_adam_f32, fastadam_adam_f64,
    fastadam_adamax_f32, fastadam_adamax_f64,
    fastadam_amsgrad_f32, fastadam_amsgrad_f64,
    fastadam_average_f32, fastadam_average_f64,
    fastadam_options,
    fastadam_rmsprop_centered_f32, fastadam_rmsprop_centered_f64,
    fastadam_rmsprop_centered_momentum_f32, fastadam_rmsprop_centered_momentum_f64,
    fastadam_rmsprop_f32, fastadam_rmsprop_f64,
    fastadam_rmsprop_momentum_f32, fastadam_rmsprop_momentum_f64,
)

ctypedef fused real:
    float
    double

RULES = [
    "adam", "amsgrad", "adamax", "adagrad",
    "rmsprop", "rmsprop_momentum", "rmsprop_centered", "rmsprop_centered_momentum", "adadelta", "average",
]
VERSION = FASTADAM_VERSION
SIZE = sizeof(fastadam_options)


cdef int one(int rule, const fastadam_options* o, int64_t t, int64_t n, real* p, real* g, real** s) noexcept nogil:
    if real is float:
        if rule == 0:
            return fastadam_adam_f32(o, t, n, p, g, s[0], s[1])
        if rule == 1:
            return fastadam_amsgrad_f32(o, t, n, p, g, s[0], s[1], s[2])
        if rule == 2:
            return fastadam_adamax_f32(o, t, n, p, g, s[0], s[1])
        if rule == 3:
            return fastadam_adagrad_f32(o, t, n, p, g, s[0])
        if rule == 4:
            return fastadam_rmsprop_f32(o, t, n, p, g, s[0])
        if rule == 5:
            return fastadam_rmsprop_momentum_f32(o, t, n, p, g, s[0], s[1])
        if rule == 6:
            return fastadam_rmsprop_centered_f32(o, t, n, p, g, s[0], s[1])
        if rule == 7:
            return fastadam_rmsprop_centered_momentum_f32(o, t, n, p, g, s[0], s[1], s[2])
        if rule == 8:
            return fastadam_adadelta_f32(o, t, n, p, g, s[0], s[1])
        return fastadam_average_f32(o, t, n, p, g)
    else:
        if rule == 0:
            return fastadam_adam_f64(o, t, n, p, g, s[0], s[1])
        if rule == 1:
            return fastadam_amsgrad_f64(o, t, n, p, g, s[0], s[1], s[2])
        if rule == 2:
            return fastadam_adamax_f64(o, t, n, p, g, s[0], s[1])
        if rule == 3:
            return fastadam_adagrad_f64(o, t, n, p, g, s[0])
        if rule == 4:
            return fastadam_rmsprop_f64(o, t, n, p, g, s[0])
        if rule == 5:
            return fastadam_rmsprop_momentum_f64(o, t, n, p, g, s[0], s[1])
        if rule == 6:
            return fastadam_rmsprop_centered_f64(o, t, n, p, g, s[0], s[1])
        if rule == 7:
            return fastadam_rmsprop_centered_momentum_f64(o, t, n, p, g, s[0], s[1], s[2])
        if rule == 8:
            return fastadam_adadelta_f64(o, t, n, p, g, s[0], s[1])
        return fastadam_average_f64(o, t, n, p, g)


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
    options.lr, options.weight_decay, options.decoupled, options.maximize = members[:4]
    options.beta1, options.beta2, options.eps, options.eps_hat, options.lr_decay = members[4:9]
    options.alpha, options.eps_in_sqrt, options.momentum, options.accumulate_lr = members[9:13]
    options.decay, options.equal = members[13:]
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
    options = fastadam_options(size=sizeof(fastadam_options), lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
    with nogil:
        for t in range(1, count + 1):
            fastadam_adam_f32(&options, t, p.shape[0], &p[0], &g[0], &m[0], &v[0])
