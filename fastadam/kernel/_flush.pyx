# cython: language_level=3
"""Rows that lag, of all parameters: when to apply the steps that they missed, and what to note about each step."""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t

from . cimport _lag
from ._rows cimport group
from ._segments cimport HISTORY, Job, Segment
from ._tiles cimport run_segments, scalars_of

cnp.import_array()


cdef int make_up_before(Layout layout, bint all_rows, numbers, int n_threads) except -1:
    """Apply the steps that rows have missed.

    With `all_rows`, do so for the rows of all parameters. Otherwise, only for a parameter whose coming step has a
    gradient of all rows, or whose `history` has no room for that step.

    `numbers` may be a list with an entry for each parameter. Then only the rows of these numbers are updated, and no
    rows if the entry is None. The caller has checked the numbers.
    """
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
        make_up_all(layout, kept, all_rows, numbers, n_threads)
    finally:
        PyMem_Free(kept)
    return 0


cdef int make_up_all(Layout layout, Segment* kept, bint all_rows, numbers, int n_threads) except -1:
    """The same. `kept` has room for the segments as the coming step needs them. They are restored at the end."""
    cdef Py_ssize_t i, n_kept = 0
    cdef Segment* segment
    try:
        for i in range(layout.job.n_segments):
            have_make_up(layout, i, &kept[i], all_rows, numbers)
            n_kept += 1
        layout.cut()
        layout.job.work = make_up_range
        layout.job.keeps_denormals = True
        run_segments(layout, 0, layout.job.n_segments, n_threads)
        for i in range(n_kept):
            if layout.job.segments[i].work:
                note_made_up(&layout.job.segments[i])
    finally:
        for i in range(n_kept):
            segment = &layout.job.segments[i]
            layout.set_work(segment, kept[i].work)
            segment.rows, segment.absent = kept[i].rows, kept[i].absent
        layout.cut()
    return 0


cdef int have_make_up(Layout layout, Py_ssize_t i, Segment* kept, bint all_rows, numbers) except -1:
    """Set the rows of a segment to update as its work, if there are any. Store the old segment in `kept`."""
    cdef Segment* segment = &layout.job.segments[i]
    cdef bint had_rows = segment.rows.n >= 0
    cdef bint is_behind = segment.visits is not NULL and must_make_up(segment, all_rows)
    is_behind = is_behind and (numbers is None or numbers[i] is not None)
    if is_behind and numbers is not None:
        group(&segment.rows, <cnp.ndarray?> numbers[i], segment.n_rows, layout.names[i])
    kept[0] = segment[0]
    if is_behind and numbers is None:
        segment.rows.n, segment.rows.row = segment.n_rows, NULL  # all rows, in order
    elif is_behind:  # the rows of the last gradient are lost: others were grouped in their memory
        kept.rows.n = 0 if had_rows else -1
        kept.work = 0 if had_rows else kept.work
    segment.absent &= not is_behind
    layout.set_work(segment, segment.rows.n * segment.width if is_behind else 0)
    return 0


cdef inline void note_made_up(Segment* segment) noexcept:
    """Note that the updated rows, all or some, do not lag any more."""
    cdef Py_ssize_t k
    if segment.rows.row is NULL:
        segment.visits[segment.n_rows] = 0
        return
    for k in range(segment.rows.n):
        segment.visits[segment.rows.row[k]] = segment.done


cdef inline bint must_make_up(Segment* segment, bint all_rows) noexcept:
    if not segment.visits[segment.n_rows]:
        return False
    return all_rows or not segment.absent and (segment.rows.n < 0 or segment.done - segment.oldest >= HISTORY)


cdef void make_up_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    _lag.make_up(job, segment, begin, end, buffer)


cdef void note_step(Layout layout, Py_ssize_t first, Py_ssize_t last) noexcept:
    """Note the scalars of the coming step of the segments first … last, for the rows that it leaves out."""
    cdef Py_ssize_t i
    cdef Segment* segment
    for i in range(first, last):
        segment = &layout.job.segments[i]
        if not layout.job.clips_each:
            segment.keeps_denormals = layout.job.keeps_denormals
        if segment.visits is not NULL and not segment.absent:
            _lag.note_step(segment, scalars_of(&layout.job, segment))
    layout.job.keeps_denormals = True  # for code outside of the ranges; each range sets its own mode (`sweep_apart`)


cdef void end_step(Layout layout) noexcept:
    """Note that the rows of the gradient have done the step."""
    cdef Py_ssize_t i, k
    cdef Segment* segment
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        if segment.visits is not NULL and not segment.absent:
            for k in range(segment.rows.n):
                segment.visits[segment.rows.row[k]] = segment.done + 1


cdef void forget(Layout layout) noexcept:
    """Note that no row lags. Missed steps are dropped."""
    cdef Py_ssize_t i
    cdef Segment* segment
    for i in range(layout.job.n_segments if layout.logs is not None else 0):
        segment = &layout.job.segments[i]
        if segment.visits is not NULL:
            segment.visits[segment.n_rows] = 0
