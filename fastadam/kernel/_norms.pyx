# cython: language_level=3, cdivision=True
"""The norms of gradients, over all of them and of each, and the clipping of each gradient by its own norm.

Squares are summed in twice the precision, in the order of the plan, so norms do not depend on the number of threads.
"""

cimport numpy as cnp
from libc.float cimport FLT_MIN
from libc.math cimport fabs, isfinite, ldexp, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from ._layout cimport FACTOR, Kernel, Layout
from ._segments cimport TILE, Cohort, Job, Segment, Squares
from ._tiles cimport slot, sum_squares

import numpy as np

cnp.import_array()

include "clip_factors.pxi"  # of rule.py, by setup.py

cdef enum:                  # exponents of the scale for numbers whose squares would under- or overflow
    LEAST = -700
    LARGEST = 600

cdef double SMALL = ldexp(1.0, -900), LARGE = ldexp(1.0, 900)
cdef Squares NOTHING = Squares(0.0, 0.0, LEAST)


cdef int measure(Layout layout, int n_threads, exchange, bint each, Squares* total) except -1:
    """Sum the squares of all gradients. With `each`, also write the sum of each parameter into its segments.

    With an exchange, the sums are over all processes. A parameter may have parts in several processes, and several
    segments in one process.
    """
    cdef Py_ssize_t i
    cdef Segment* segment
    cdef Squares* sums
    measure_segments(layout, 0, layout.job.n_segments, n_threads)
    if exchange is None:
        add_all(layout, total)
        return 0
    total[0] = NOTHING
    shared = np.full((exchange.n_params if each else 1, 3), (0.0, 0.0, LEAST))
    sums = <Squares*> cnp.PyArray_DATA(<cnp.ndarray> shared)
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        add(&sums[segment.whole if each else 0], &segment.squares)
    exchange.add_up(shared)
    for i in range(len(shared)):
        add(total, &sums[i])
    if each:
        for i in range(layout.job.n_segments):
            segment = &layout.job.segments[i]
            segment.squares = sums[segment.whole]
    return 0


cdef void add_all(Layout layout, Squares* total) noexcept:
    """Add up the squares of all gradients, after they were measured."""
    cdef Py_ssize_t i
    total[0] = NOTHING
    for i in range(layout.job.n_segments):
        if not layout.job.segments[i].absent:
            add(total, &layout.job.segments[i].squares)


cdef int measure_segments(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1:
    """Sum the squares of each gradient first … last. Gradients too small or too large to be squared are read again."""
    cdef Job* job = &layout.job
    cdef bint again = False
    cdef Py_ssize_t i
    for i in range(first, last):
        job.segments[i].squares.exponent = 0
    sum_squares(layout, first, last, False, n_threads)
    for i in range(first, last):
        collect(job, &job.segments[i])
        again |= rescale(&job.segments[i])
    if again:
        sum_squares(layout, first, last, True, n_threads)
    for i in range(first, last):
        if job.segments[i].squares.exponent != 0:
            collect(job, &job.segments[i])
        if job.segments[i].squares.high == 0:
            job.segments[i].squares = NOTHING
    return 0


cdef void collect(Job* job, Segment* segment) noexcept:
    """Add up the parts of a segment's sum."""
    cdef int64_t tile = segment.first // TILE
    cdef double* part
    segment.squares.high = segment.squares.low = 0
    while tile * TILE < segment.first + segment.work:
        part = slot(job, segment, tile)
        add_parts(&segment.squares, part[0], part[1])
        tile += 1


cdef bint rescale(Segment* segment) noexcept:
    """Whether the gradient must be squared at another scale, which is then set. float32 never needs this."""
    cdef double high = segment.squares.high
    if segment.itemsize == 4 or segment.absent or segment.work == 0 or SMALL <= high <= LARGE:
        return False
    segment.squares.exponent = LEAST if high < 1 else LARGEST
    return True


cdef void add(Squares* total, const Squares* more) noexcept:
    """Add a sum of squares to another, at the larger of both scales, at which no sum overflows."""
    cdef Squares other = more[0]
    cdef double exponent = max(total.exponent, other.exponent)
    bring_to(total, exponent)
    bring_to(&other, exponent)
    add_parts(total, other.high, other.low)


cdef void bring_to(Squares* squares, double exponent) noexcept:
    cdef int shift = 2 * <int> (squares.exponent - exponent)
    if shift != 0:
        squares.high, squares.low, squares.exponent = ldexp(squares.high, shift), ldexp(squares.low, shift), exponent


cdef void add_parts(Squares* total, double high, double low) noexcept:
    """Add high + low. The rounding error of the high part goes to the low part. A sum that is not finite stays so."""
    cdef double sum = total.high + high, part = sum - total.high
    total.low += (total.high - (sum - part)) + (high - part) + low
    total.high = sum
    if not isfinite(sum):
        total.low = 0


cdef double norm(const Squares* squares) noexcept:
    """The square root of a sum of squares, without its scale."""
    return ldexp(sqrt(squares.high + squares.low), <int> squares.exponent)


cdef void clip_each(Layout layout, Py_ssize_t first, Py_ssize_t last, double factor, double max_norm) noexcept:
    """Give each segment first … last its own scalars, so that its gradient times `factor` has a norm of at most
    `max_norm`."""
    cdef Py_ssize_t i
    cdef Segment* segment
    cdef Cohort* cohort
    cdef int n_scalars
    cdef double own
    for i in range(first, last):
        segment = &layout.job.segments[i]
        cohort = segment.cohort
        n_scalars = (<Kernel> cohort.bundle.kernel).n_scalars
        own = cohort.scalars64[FACTOR] * own_clip_factor(fabs(factor) * norm(&segment.squares), max_norm)
        if segment.itemsize == 4:
            memcpy(segment.own_scalars, cohort.scalars32, n_scalars * sizeof(float))
            (<float*> segment.own_scalars)[FACTOR] = <float> own
        else:
            memcpy(segment.own_scalars, cohort.scalars64, n_scalars * sizeof(double))
            (<double*> segment.own_scalars)[FACTOR] = own
        segment.keeps_denormals = layout.job.keeps_denormals or fabs(own) < FLT_MIN
    layout.job.keeps_denormals = True  # for code outside of the ranges
