# cython: language_level=3
"""What a step does to its gradients, beside stepping by them: read from what a caller says, checked."""

from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.math cimport INFINITY

from . import checks

cdef double LEAST_SCALE = 2.0**-126, LARGEST_SCALE = 2.0**126


cdef int read_extras(
    Extras* extras, double factor, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each
) except -1:
    """Read what `checks.of_step` takes, in its order: in C what is beyond doubt, by that what is not."""
    cdef bint is_clipped = max_norm is not None or clip_value is not None or max_norm_each is not None
    if not is_clipped and skip_nonfinite is False and zero_grads is False and is_within(grad_scale, 1, 1):
        extras[0] = PLAIN
        extras.factor = factor
        return 0
    if not (
        is_within(grad_scale, LEAST_SCALE, LARGEST_SCALE)
        and are_norms(max_norm, clip_value, max_norm_each)
        and PyBool_Check(skip_nonfinite)
        and PyBool_Check(zero_grads)
    ):
        checked = checks.of_step(grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)
        return read_named(extras, factor, checked)
    extras.factor = factor / PyFloat_AS_DOUBLE(grad_scale)
    extras.clips_by = OF_ALL if max_norm is not None else NO_NORM if max_norm_each is None else OF_EACH
    extras.max_norm = or_infinity(max_norm if max_norm_each is None else max_norm_each)
    extras.clip_value = or_infinity(clip_value)
    extras.skip_nonfinite = skip_nonfinite is True
    extras.zero_grads = zero_grads is True
    return 0


cdef int read_named(Extras* extras, double factor, dict named) except -1:
    """The same, given by names."""
    grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each = checks.of_step(**named).values()
    return read_extras(extras, factor, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)


cdef inline bint is_within(value, double low, double high) noexcept:
    return PyFloat_CheckExact(value) and low <= PyFloat_AS_DOUBLE(value) <= high


cdef inline bint are_norms(max_norm, clip_value, max_norm_each) noexcept:
    """Whether each may be what it is, and all together."""
    if max_norm is not None and max_norm_each is not None:
        return False
    return is_norm(max_norm) and is_norm(clip_value) and is_norm(max_norm_each)


cdef inline bint is_norm(value) noexcept:
    return value is None or (PyFloat_CheckExact(value) and PyFloat_AS_DOUBLE(value) > 0)


cdef inline double or_infinity(value) noexcept:
    return INFINITY if value is None else PyFloat_AS_DOUBLE(value)


PLAIN = Extras(1.0, NO_NORM, INFINITY, INFINITY, False, False)
