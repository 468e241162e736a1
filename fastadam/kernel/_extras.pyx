# cython: language_level=3
"""`Extras`: the arguments of a step after the gradients (scaling, clipping, skipping, zeroing), read and checked."""

from cpython.bool cimport PyBool_Check
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.math cimport INFINITY, NAN

from . import checks

cdef double LEAST_SCALE = 2.0**-126, LARGEST_SCALE = 2.0**126
PLAIN = Extras(1.0, NO_NORM, INFINITY, INFINITY, False, False)


cdef int read_extras(
    Extras* extras, double factor, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each
) except -1:
    """Read the arguments of `checks.of_step`, in its order. Usual values are checked in C, others by that function."""
    cdef double scale = number(grad_scale), of_all = number(max_norm), of_each = number(max_norm_each)
    extras.clip_value = number(clip_value)
    if not (
        LEAST_SCALE <= scale <= LARGEST_SCALE
        and of_all > 0
        and of_each > 0
        and extras.clip_value > 0
        and PyBool_Check(skip_nonfinite)
        and PyBool_Check(zero_grads)
        and (max_norm is None or max_norm_each is None)
    ):
        checked = checks.of_step(grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)
        return read_named(extras, factor, checked)
    extras.factor = factor / scale
    extras.clips_by = OF_ALL if max_norm is not None else NO_NORM if max_norm_each is None else OF_EACH
    extras.max_norm = min(of_all, of_each)
    extras.skip_nonfinite = skip_nonfinite is True
    extras.zero_grads = zero_grads is True
    return 0


cdef int read_named(Extras* extras, double factor, dict named) except -1:
    """The same for arguments by name."""
    grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each = checks.of_step(**named).values()
    return read_extras(extras, factor, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)


cdef inline double number(value) noexcept:
    """A float as it is, infinity for None, and NaN for a value that `checks.of_step` has to check."""
    if value is None:
        return INFINITY
    return PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else NAN
