# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: infer_types=True, embedsignature=False
"""Generated from fastadam/rules.py by fastadam/kernel/generate.py: do not edit."""
from libc.math cimport fabs, fabsf, sqrt as sqrt_f64, sqrtf

cdef extern from *:
    """
    #if defined(_MSC_VER)
      #define RESTRICT __restrict
    #else
      #define RESTRICT __restrict__
    #endif
    typedef float *RESTRICT floats;
    typedef double *RESTRICT doubles;
    """
    ctypedef float* floats
    ctypedef double* doubles

ctypedef fused real:
    float
    double

cdef inline real sqrt(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt_f64(x)

cdef inline real absolute(real x) noexcept nogil:
    if real is float:
        return fabsf(x)
    else:
        return fabs(x)

cdef inline real maximum(real a, real b) noexcept nogil:
    return a if a >= b or a != a else b  # NaN propagates, as in numpy.maximum

cdef inline real where(real condition, real a, real b) noexcept nogil:
    return a if condition else b


cdef inline double bias_correction(double beta, long long t) noexcept nogil:
    total = 0.0
    b = 1.0 - beta
    while t > 0:
        if t % 2 == 1:
            total = total + b * (1.0 - total)
        b = b * (2.0 - b)
        t = t // 2
    return total

cdef inline (double, double, double) prepare_scalars(double lr, double weight_decay, double decoupled, double maximize) noexcept nogil:
    sign = -1.0 if maximize else 1.0
    coupled = 0.0 if decoupled else weight_decay
    shrink = 1.0 - lr * weight_decay if decoupled else 1.0
    return (sign, coupled, shrink)

cdef inline (double, double, double, double, double, double) adam_scalars(long long t, double lr, double beta1, double beta2, double eps, double beta_decay, double eps_hat) noexcept nogil:
    decay = 1.0 - bias_correction(beta_decay, t)
    beta1 = beta1 * decay
    beta2 = beta2 * decay
    root = sqrt(bias_correction(beta2, t))
    step_size = lr * root / bias_correction(beta1, t)
    eps = eps if eps_hat else eps * root
    return (step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps)

cdef inline (double, double, double, double, double) adamax_scalars(long long t, double lr, double beta1, double beta2, double eps) noexcept nogil:
    return (lr / bias_correction(beta1, t), beta1, 1.0 - beta1, beta2, eps)

cdef inline (double, double) adagrad_scalars(long long t, double lr, double lr_decay, double eps) noexcept nogil:
    return (lr / (1.0 + (t - 1) * lr_decay), eps)

cdef inline (double, double, double, double, double) rmsprop_scalars(long long t, double lr, double alpha, double eps, double eps_in_sqrt) noexcept nogil:
    eps_in = eps if eps_in_sqrt else 0.0
    return (lr, alpha, 1.0 - alpha, eps_in, eps - eps_in)

cdef inline (double, double, double, double, double, double) rmsprop_momentum_scalars(long long t, double lr, double alpha, double eps, double eps_in_sqrt, double momentum) noexcept nogil:
    lr, alpha, one_minus_alpha, eps_in, eps_out = rmsprop_scalars(t, lr, alpha, eps, eps_in_sqrt)
    return (lr, alpha, one_minus_alpha, eps_in, eps_out, momentum)

cdef inline (double, double, double, double, double, double, double) adadelta_scalars(long long t, double lr, double beta1, double beta2, double eps, double accumulate_lr) noexcept nogil:
    accumulated = lr if accumulate_lr else 1.0
    return (lr, accumulated, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps)

cdef inline (real, real) prepare(real p, real g, real sign, real weight_decay, real shrink) noexcept nogil:
    g = sign * g
    if weight_decay:
        g = g + weight_decay * p
    p = shrink * p
    return (p, g)

cdef inline (real, real, real) adam(real p, real g, real m, real v, real step_size, real beta1, real one_minus_beta1, real beta2, real one_minus_beta2, real eps) noexcept nogil:
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * (g * g)
    p = p - step_size * m / (sqrt(v) + eps)
    return (p, m, v)

cdef inline (real, real, real, real) amsgrad(real p, real g, real m, real v, real v_max, real step_size, real beta1, real one_minus_beta1, real beta2, real one_minus_beta2, real eps) noexcept nogil:
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * (g * g)
    v_max = maximum(v_max, v)
    p = p - step_size * m / (sqrt(v_max) + eps)
    return (p, m, v, v_max)

cdef inline (real, real, real) adamax(real p, real g, real m, real u, real step_size, real beta1, real one_minus_beta1, real beta2, real eps) noexcept nogil:
    m = beta1 * m + one_minus_beta1 * g
    u = maximum(beta2 * u, absolute(g) + eps)
    p = p - step_size * where(u, m / u, u)
    return (p, m, u)

cdef inline (real, real) adagrad(real p, real g, real v, real step_size, real eps) noexcept nogil:
    v = v + g * g
    p = p - step_size * g / (sqrt(v) + eps)
    return (p, v)

cdef inline (real, real) rmsprop(real p, real g, real v, real lr, real alpha, real one_minus_alpha, real eps_in, real eps_out) noexcept nogil:
    v = alpha * v + one_minus_alpha * (g * g)
    p = p - lr * g / (sqrt(v + eps_in) + eps_out)
    return (p, v)

cdef inline (real, real, real) rmsprop_momentum(real p, real g, real v, real b, real lr, real alpha, real one_minus_alpha, real eps_in, real eps_out, real momentum) noexcept nogil:
    v = alpha * v + one_minus_alpha * (g * g)
    b = momentum * b + g / (sqrt(v + eps_in) + eps_out)
    p = p - lr * b
    return (p, v, b)

cdef inline (real, real, real) rmsprop_centered(real p, real g, real v, real m, real lr, real alpha, real one_minus_alpha, real eps_in, real eps_out) noexcept nogil:
    v = alpha * v + one_minus_alpha * (g * g)
    m = alpha * m + one_minus_alpha * g
    variance = absolute(v - m * m)
    p = p - lr * g / (sqrt(variance + eps_in) + eps_out)
    return (p, v, m)

cdef inline (real, real, real, real) rmsprop_centered_momentum(real p, real g, real v, real m, real b, real lr, real alpha, real one_minus_alpha, real eps_in, real eps_out, real momentum) noexcept nogil:
    v = alpha * v + one_minus_alpha * (g * g)
    m = alpha * m + one_minus_alpha * g
    variance = absolute(v - m * m)
    b = momentum * b + g / (sqrt(variance + eps_in) + eps_out)
    p = p - lr * b
    return (p, v, m, b)

cdef inline (real, real, real) adadelta(real p, real g, real v, real d, real lr, real accumulated, real beta1, real one_minus_beta1, real beta2, real one_minus_beta2, real eps) noexcept nogil:
    v = beta2 * v + one_minus_beta2 * (g * g)
    step = sqrt(d + eps) / sqrt(v + eps) * g
    p = p - lr * step
    step = accumulated * step
    d = beta1 * d + one_minus_beta1 * (step * step)
    return (p, v, d)

cdef void adam_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats m = <floats> arrays[2]
    cdef floats v = <floats> arrays[3]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_step_size = s[3]
    cdef float own_beta1 = s[4]
    cdef float own_one_minus_beta1 = s[5]
    cdef float own_beta2 = s[6]
    cdef float own_one_minus_beta2 = s[7]
    cdef float own_eps = s[8]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], m[i], v[i] = adam(p_, g_, m[i], v[i], own_step_size, own_beta1, own_one_minus_beta1, own_beta2, own_one_minus_beta2, own_eps)

cdef void adam_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles m = <doubles> arrays[2]
    cdef doubles v = <doubles> arrays[3]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_step_size = s[3]
    cdef double own_beta1 = s[4]
    cdef double own_one_minus_beta1 = s[5]
    cdef double own_beta2 = s[6]
    cdef double own_one_minus_beta2 = s[7]
    cdef double own_eps = s[8]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], m[i], v[i] = adam(p_, g_, m[i], v[i], own_step_size, own_beta1, own_one_minus_beta1, own_beta2, own_one_minus_beta2, own_eps)

cdef void adam_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7], out[8] = adam_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6], hyper[7], hyper[8])

cdef void amsgrad_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats m = <floats> arrays[2]
    cdef floats v = <floats> arrays[3]
    cdef floats v_max = <floats> arrays[4]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_step_size = s[3]
    cdef float own_beta1 = s[4]
    cdef float own_one_minus_beta1 = s[5]
    cdef float own_beta2 = s[6]
    cdef float own_one_minus_beta2 = s[7]
    cdef float own_eps = s[8]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], m[i], v[i], v_max[i] = amsgrad(p_, g_, m[i], v[i], v_max[i], own_step_size, own_beta1, own_one_minus_beta1, own_beta2, own_one_minus_beta2, own_eps)

cdef void amsgrad_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles m = <doubles> arrays[2]
    cdef doubles v = <doubles> arrays[3]
    cdef doubles v_max = <doubles> arrays[4]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_step_size = s[3]
    cdef double own_beta1 = s[4]
    cdef double own_one_minus_beta1 = s[5]
    cdef double own_beta2 = s[6]
    cdef double own_one_minus_beta2 = s[7]
    cdef double own_eps = s[8]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], m[i], v[i], v_max[i] = amsgrad(p_, g_, m[i], v[i], v_max[i], own_step_size, own_beta1, own_one_minus_beta1, own_beta2, own_one_minus_beta2, own_eps)

cdef void amsgrad_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7], out[8] = adam_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6], hyper[7], hyper[8])

cdef void adamax_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats m = <floats> arrays[2]
    cdef floats u = <floats> arrays[3]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_step_size = s[3]
    cdef float own_beta1 = s[4]
    cdef float own_one_minus_beta1 = s[5]
    cdef float own_beta2 = s[6]
    cdef float own_eps = s[7]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], m[i], u[i] = adamax(p_, g_, m[i], u[i], own_step_size, own_beta1, own_one_minus_beta1, own_beta2, own_eps)

cdef void adamax_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles m = <doubles> arrays[2]
    cdef doubles u = <doubles> arrays[3]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_step_size = s[3]
    cdef double own_beta1 = s[4]
    cdef double own_one_minus_beta1 = s[5]
    cdef double own_beta2 = s[6]
    cdef double own_eps = s[7]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], m[i], u[i] = adamax(p_, g_, m[i], u[i], own_step_size, own_beta1, own_one_minus_beta1, own_beta2, own_eps)

cdef void adamax_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7] = adamax_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6])

cdef void adagrad_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats v = <floats> arrays[2]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_step_size = s[3]
    cdef float own_eps = s[4]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i] = adagrad(p_, g_, v[i], own_step_size, own_eps)

cdef void adagrad_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles v = <doubles> arrays[2]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_step_size = s[3]
    cdef double own_eps = s[4]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i] = adagrad(p_, g_, v[i], own_step_size, own_eps)

cdef void adagrad_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4] = adagrad_scalars(t, hyper[0], hyper[4], hyper[5])

cdef void rmsprop_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats v = <floats> arrays[2]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_lr = s[3]
    cdef float own_alpha = s[4]
    cdef float own_one_minus_alpha = s[5]
    cdef float own_eps_in = s[6]
    cdef float own_eps_out = s[7]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i] = rmsprop(p_, g_, v[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out)

cdef void rmsprop_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles v = <doubles> arrays[2]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_lr = s[3]
    cdef double own_alpha = s[4]
    cdef double own_one_minus_alpha = s[5]
    cdef double own_eps_in = s[6]
    cdef double own_eps_out = s[7]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i] = rmsprop(p_, g_, v[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out)

cdef void rmsprop_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7] = rmsprop_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6])

cdef void rmsprop_momentum_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats v = <floats> arrays[2]
    cdef floats b = <floats> arrays[3]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_lr = s[3]
    cdef float own_alpha = s[4]
    cdef float own_one_minus_alpha = s[5]
    cdef float own_eps_in = s[6]
    cdef float own_eps_out = s[7]
    cdef float own_momentum = s[8]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], b[i] = rmsprop_momentum(p_, g_, v[i], b[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out, own_momentum)

cdef void rmsprop_momentum_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles v = <doubles> arrays[2]
    cdef doubles b = <doubles> arrays[3]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_lr = s[3]
    cdef double own_alpha = s[4]
    cdef double own_one_minus_alpha = s[5]
    cdef double own_eps_in = s[6]
    cdef double own_eps_out = s[7]
    cdef double own_momentum = s[8]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], b[i] = rmsprop_momentum(p_, g_, v[i], b[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out, own_momentum)

cdef void rmsprop_momentum_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7], out[8] = rmsprop_momentum_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6], hyper[7])

cdef void rmsprop_centered_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats v = <floats> arrays[2]
    cdef floats m = <floats> arrays[3]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_lr = s[3]
    cdef float own_alpha = s[4]
    cdef float own_one_minus_alpha = s[5]
    cdef float own_eps_in = s[6]
    cdef float own_eps_out = s[7]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], m[i] = rmsprop_centered(p_, g_, v[i], m[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out)

cdef void rmsprop_centered_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles v = <doubles> arrays[2]
    cdef doubles m = <doubles> arrays[3]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_lr = s[3]
    cdef double own_alpha = s[4]
    cdef double own_one_minus_alpha = s[5]
    cdef double own_eps_in = s[6]
    cdef double own_eps_out = s[7]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], m[i] = rmsprop_centered(p_, g_, v[i], m[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out)

cdef void rmsprop_centered_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7] = rmsprop_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6])

cdef void rmsprop_centered_momentum_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats v = <floats> arrays[2]
    cdef floats m = <floats> arrays[3]
    cdef floats b = <floats> arrays[4]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_lr = s[3]
    cdef float own_alpha = s[4]
    cdef float own_one_minus_alpha = s[5]
    cdef float own_eps_in = s[6]
    cdef float own_eps_out = s[7]
    cdef float own_momentum = s[8]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], m[i], b[i] = rmsprop_centered_momentum(p_, g_, v[i], m[i], b[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out, own_momentum)

cdef void rmsprop_centered_momentum_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles v = <doubles> arrays[2]
    cdef doubles m = <doubles> arrays[3]
    cdef doubles b = <doubles> arrays[4]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_lr = s[3]
    cdef double own_alpha = s[4]
    cdef double own_one_minus_alpha = s[5]
    cdef double own_eps_in = s[6]
    cdef double own_eps_out = s[7]
    cdef double own_momentum = s[8]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], m[i], b[i] = rmsprop_centered_momentum(p_, g_, v[i], m[i], b[i], own_lr, own_alpha, own_one_minus_alpha, own_eps_in, own_eps_out, own_momentum)

cdef void rmsprop_centered_momentum_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7], out[8] = rmsprop_momentum_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6], hyper[7])

cdef void adadelta_float32(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef floats p = <floats> arrays[0]
    cdef floats g = <floats> arrays[1]
    cdef floats v = <floats> arrays[2]
    cdef floats d = <floats> arrays[3]
    cdef const float* s = <const float*> scalars
    cdef float shared_sign = s[0]
    cdef float shared_weight_decay = s[1]
    cdef float shared_shrink = s[2]
    cdef float own_lr = s[3]
    cdef float own_accumulated = s[4]
    cdef float own_beta1 = s[5]
    cdef float own_one_minus_beta1 = s[6]
    cdef float own_beta2 = s[7]
    cdef float own_one_minus_beta2 = s[8]
    cdef float own_eps = s[9]
    cdef float p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], d[i] = adadelta(p_, g_, v[i], d[i], own_lr, own_accumulated, own_beta1, own_one_minus_beta1, own_beta2, own_one_minus_beta2, own_eps)

cdef void adadelta_float64(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    cdef doubles p = <doubles> arrays[0]
    cdef doubles g = <doubles> arrays[1]
    cdef doubles v = <doubles> arrays[2]
    cdef doubles d = <doubles> arrays[3]
    cdef const double* s = <const double*> scalars
    cdef double shared_sign = s[0]
    cdef double shared_weight_decay = s[1]
    cdef double shared_shrink = s[2]
    cdef double own_lr = s[3]
    cdef double own_accumulated = s[4]
    cdef double own_beta1 = s[5]
    cdef double own_one_minus_beta1 = s[6]
    cdef double own_beta2 = s[7]
    cdef double own_one_minus_beta2 = s[8]
    cdef double own_eps = s[9]
    cdef double p_, g_
    cdef Py_ssize_t i
    for i in range(n):
        p_, g_ = prepare(p[i], g[i], shared_sign, shared_weight_decay, shared_shrink)
        p[i], v[i], d[i] = adadelta(p_, g_, v[i], d[i], own_lr, own_accumulated, own_beta1, own_one_minus_beta1, own_beta2, own_one_minus_beta2, own_eps)

cdef void adadelta_step(long long t, const double* hyper, double* out) noexcept nogil:
    out[0], out[1], out[2] = prepare_scalars(hyper[0], hyper[1], hyper[2], hyper[3])
    out[3], out[4], out[5], out[6], out[7], out[8], out[9] = adadelta_scalars(t, hyper[0], hyper[4], hyper[5], hyper[6], hyper[7])

#: name of the rule -> addresses of its step's scalars and of its sweeps
ADDRESSES = {
    "adam": (<size_t> &adam_step, <size_t> &adam_float32, <size_t> &adam_float64),
    "amsgrad": (<size_t> &amsgrad_step, <size_t> &amsgrad_float32, <size_t> &amsgrad_float64),
    "adamax": (<size_t> &adamax_step, <size_t> &adamax_float32, <size_t> &adamax_float64),
    "adagrad": (<size_t> &adagrad_step, <size_t> &adagrad_float32, <size_t> &adagrad_float64),
    "rmsprop": (<size_t> &rmsprop_step, <size_t> &rmsprop_float32, <size_t> &rmsprop_float64),
    "rmsprop_momentum": (<size_t> &rmsprop_momentum_step, <size_t> &rmsprop_momentum_float32, <size_t> &rmsprop_momentum_float64),
    "rmsprop_centered": (<size_t> &rmsprop_centered_step, <size_t> &rmsprop_centered_float32, <size_t> &rmsprop_centered_float64),
    "rmsprop_centered_momentum": (<size_t> &rmsprop_centered_momentum_step, <size_t> &rmsprop_centered_momentum_float32, <size_t> &rmsprop_centered_momentum_float64),
    "adadelta": (<size_t> &adadelta_step, <size_t> &adadelta_float32, <size_t> &adadelta_float64),
}
