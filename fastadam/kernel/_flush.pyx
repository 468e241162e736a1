# cython: language_level=3
"""Rows that lag, of all parameters: what is noted of each step, and when they make up for those that they missed."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t

from . cimport _lag
from ._segments cimport HISTORY, Job, Segment
from ._tiles cimport run_segments, scalars_of


cdef int make_up_before(Layout layout, bint all_rows, int n_threads) except -1:
    """Have all rows of a parameter make up for what they missed: of all parameters, or where the step that comes has
    a gradient of all rows, or `history` has no room for it."""
    cdef Py_ssize_t i
    cdef Segment* segment
    cdef Segment* kept
    cdef bint any = False
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        if segment.visits is NULL:
            continue
        if not segment.knows_history:
            _lag.know_history(segment)
        any |= must_make_up(segment, all_rows)
    if not any:
        return 0
    kept = <Segment*> PyMem_Malloc(layout.job.n_segments * sizeof(Segment))
    if kept is NULL:
        raise MemoryError
    try:
        layout.need_buffers(n_threads)
        make_up_all(layout, kept, all_rows, n_threads)
    finally:
        PyMem_Free(kept)
    return 0


cdef int make_up_all(Layout layout, Segment* kept, bint all_rows, int n_threads) except -1:
    """The same, given room for the segments as the step that comes has them."""
    cdef Py_ssize_t i
    cdef Segment* segment
    cdef bint is_behind
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        kept[i] = segment[0]
        is_behind = segment.visits is not NULL and must_make_up(segment, all_rows)
        if is_behind:
            segment.rows.n, segment.rows.row = segment.n_rows, NULL  # each, in order
            segment.absent = False
        layout.set_work(segment, segment.n if is_behind else 0)
    layout.cut()
    layout.job.work = make_up_range
    layout.job.keeps_denormals = True
    try:
        run_segments(layout, 0, layout.job.n_segments, n_threads)
    finally:
        for i in range(layout.job.n_segments):
            segment = &layout.job.segments[i]
            if segment.work:
                segment.visits[segment.n_rows] = 0
            layout.set_work(segment, kept[i].work)
            segment.rows, segment.absent = kept[i].rows, kept[i].absent
        layout.cut()
    return 0


cdef inline bint must_make_up(Segment* segment, bint all_rows) noexcept:
    if not segment.visits[segment.n_rows]:
        return False
    return all_rows or not segment.absent and (segment.rows.n < 0 or segment.done - segment.oldest >= HISTORY)


cdef void make_up_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    _lag.make_up(job, segment, begin, end, buffer)


cdef void note_step(Layout layout) noexcept:
    """Note the scalars of the step that comes, for the rows that it leaves out."""
    cdef Py_ssize_t i
    cdef Segment* segment
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        if not layout.job.clips_each:
            segment.keeps_denormals = layout.job.keeps_denormals
        if segment.visits is not NULL and not segment.absent:
            _lag.note_step(segment, scalars_of(&layout.job, segment))
    layout.job.keeps_denormals = True  # outside of the ranges


cdef void end_step(Layout layout) noexcept:
    """The rows that the step brought have done it."""
    cdef Py_ssize_t i, k
    cdef Segment* segment
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        if segment.visits is not NULL and not segment.absent:
            for k in range(segment.rows.n):
                segment.visits[segment.rows.row[k]] = segment.done + 1


cdef void forget(Layout layout) noexcept:
    """No row lags: none is to make up for anything."""
    cdef Py_ssize_t i
    cdef Segment* segment
    for i in range(layout.job.n_segments if layout.logs is not None else 0):
        segment = &layout.job.segments[i]
        if segment.visits is not NULL:
            segment.visits[segment.n_rows] = 0
