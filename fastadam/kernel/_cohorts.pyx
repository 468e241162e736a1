# cython: language_level=3, cdivision=True
"""Before a step: the scalars of each cohort. After a step: the step counts of its parameters."""

from libc.float cimport FLT_MIN
from libc.math cimport fabs
from libc.stdint cimport INT64_MAX, int64_t

from . cimport _flush, _layout, _strips
from ._entry cimport atomic_set
from ._layout cimport CLIP_VALUE, FACTOR
from ._segments cimport Bundle, Cohort, Segment


cdef int need_room(const int64_t* count) except -1:
    """Refuse a step after which a count would not fit into 64 bits."""
    if count[T] == INT64_MAX or count[SKIPPED] == INT64_MAX:
        raise OverflowError("t, skipped: expected counts of steps < 2**63; call reset(), or make a new optimizer")
    return 0


cdef int prepare_scalars(
    Layout layout, const int64_t* count, unsigned long long seed, double factor, double clip_value
) except -1:
    """Compute the scalars of each cohort's next step in float64, and round them once for the float32 sweeps."""
    cdef Py_ssize_t i, k
    cdef int64_t t
    cdef Cohort* cohort
    cdef Bundle* bundle
    layout.job.keeps_denormals = fabs(factor) < FLT_MIN or clip_value < FLT_MIN
    for i in range(layout.n_cohorts):
        cohort = &layout.cohorts[i]
        bundle = cohort.bundle
        t = count[STEPS + cohort.first] + 1
        cohort.noise = _strips.noise_of(_strips.mixed(seed), t - 1)
        bundle.hyper[FACTOR] = factor
        bundle.hyper[CLIP_VALUE] = clip_value
        if bundle.scalars is not NULL:
            bundle.scalars(<double> t, bundle.hyper, cohort.scalars64)
        else:
            call_python(cohort, t)
        for k in range(bundle.n_scalars):
            cohort.scalars32[k] = <float> cohort.scalars64[k]
    return 0


cdef int call_python(Cohort* cohort, int64_t t) except -1:
    """The scalars of a rule that is run in Python."""
    cdef Bundle* bundle = cohort.bundle
    cdef _layout.Kernel kernel = <_layout.Kernel> bundle.kernel
    cdef Py_ssize_t k
    values = kernel.python_scalars(t, [bundle.hyper[k] for k in range(bundle.n_hyper)])
    if len(values) != bundle.n_scalars:
        name = kernel.rule.name
        raise ValueError(f"scalars of {name!r} at t = {t}: expected {bundle.n_scalars}, got {len(values)}")
    for k in range(bundle.n_scalars):
        cohort.scalars64[k] = values[k]
    return 0


cdef void count_step(Layout layout, int64_t* count) noexcept:
    """Count a step of the parameters that had gradients. A cohort with other parameters is split."""
    cdef Py_ssize_t i
    cdef bint is_split = False
    cdef Segment* segments = layout.job.segments
    if layout.logs is not None:
        _flush.end_step(layout)
    atomic_set(&count[T], count[T] + 1)
    for i in range(layout.job.n_segments):
        count[STEPS + i] += not segments[i].absent
        is_split |= segments[i].absent != segments[segments[i].cohort.first].absent
    if is_split:
        layout.form_cohorts(count + STEPS)
