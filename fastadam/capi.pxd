# The C interface for Cython: cimport these functions and compile with include_dirs=[fastadam.get_include()].
# They need no GIL; fastadam.h says what they take and return. tests/test_embedding.py holds this file against rules.py.

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #define FASTADAM_NO_IMPORT
    """

cdef extern from "fastadam.h":
    enum:
        FASTADAM_VERSION
        FASTADAM_OK
        FASTADAM_BAD_OPTIONS
        FASTADAM_BAD_LENGTH
        FASTADAM_NULL_POINTER
        FASTADAM_BAD_STEP

    ctypedef struct fastadam_options:
        size_t size
        double lr, weight_decay, beta1, beta2, eps, lr_decay, alpha, momentum
        double maximize, decoupled, eps_hat, eps_in_sqrt

cdef int fastadam_adam_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* m, float* v
) noexcept nogil
cdef int fastadam_amsgrad_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* m, float* v, float* v_max
) noexcept nogil
cdef int fastadam_adamax_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* m, float* u
) noexcept nogil
cdef int fastadam_adagrad_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* v
) noexcept nogil
cdef int fastadam_rmsprop_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* v
) noexcept nogil
cdef int fastadam_rmsprop_momentum_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* v, float* b
) noexcept nogil
cdef int fastadam_rmsprop_centered_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* v, float* m
) noexcept nogil
cdef int fastadam_rmsprop_centered_momentum_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* v, float* m, float* b
) noexcept nogil
cdef int fastadam_adadelta_f32(
    const fastadam_options* options, int64_t t, int64_t n, float* p, const float* g, float* v, float* d
) noexcept nogil
cdef int fastadam_adam_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* m, double* v
) noexcept nogil
cdef int fastadam_amsgrad_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* m, double* v, double* v_max
) noexcept nogil
cdef int fastadam_adamax_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* m, double* u
) noexcept nogil
cdef int fastadam_adagrad_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* v
) noexcept nogil
cdef int fastadam_rmsprop_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* v
) noexcept nogil
cdef int fastadam_rmsprop_momentum_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* v, double* b
) noexcept nogil
cdef int fastadam_rmsprop_centered_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* v, double* m
) noexcept nogil
cdef int fastadam_rmsprop_centered_momentum_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* v, double* m, double* b
) noexcept nogil
cdef int fastadam_adadelta_f64(
    const fastadam_options* options, int64_t t, int64_t n, double* p, const double* g, double* v, double* d
) noexcept nogil
