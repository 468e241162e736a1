# cython: language_level=3, cdivision=True
"""The work on a layout's tiles, by this thread and helper threads: the sweep of all segments, the squares of their
gradients, and the exchange of two operands.
"""

from cpython.ref cimport Py_DECREF
from libc.math cimport ldexp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from ._codecs cimport squares32, squares64, squares_t
from ._lag cimport make_up
from ._layout cimport Layout
from ._segments cimport CHUNK, MAX_OPERANDS, TILE, Job, Segment
from ._strips cimport Strip, cut_strip, exchange_strip, gradient_of, leave_zeros, step_strip

cdef extern from "denormals.h":
    uint64_t denormals_off() nogil
    void denormals_restore(uint64_t mode) nogil

cdef uint64_t call_denormals_off() noexcept nogil:
    return denormals_off()

cdef void call_denormals_restore(uint64_t mode) noexcept nogil:
    denormals_restore(mode)

#: addresses of functions that set the kernels' floating-point mode for the calling thread, and restore it
DENORMALS = (<size_t> &call_denormals_off, <size_t> &call_denormals_restore)

cdef extern from "pool.h":
    enum: POOL_MAX_HELPERS
    void pool_run(
        void (*work)(void*, int, int64_t) noexcept nogil, void* context, int64_t n_tiles, int helpers, bint large
    ) nogil
    void pool_expect(int helpers) nogil

#: the most threads of a step: 1 if the build has no threads
MAX_THREADS = POOL_MAX_HELPERS + 1

cdef enum:
    SHORT = 4096            # stepping fewer elements takes less time than releasing the GIL
    ALONE = 30_000          # fewer elements are stepped by the calling thread alone: helpers would save too little
    LARGE = 1 << 20         # with at least so many bytes of parameters, it is worth waking sleeping helpers

#: the fewest elements for which more than one thread is used
FEWEST_SHARED = ALONE


cdef int sweep(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1:
    """Step the segments first … last."""
    cdef Job* job = &layout.job
    job.work = sweep_apart if job.clips_each or layout.logs is not None else sweep_range
    return run_segments(layout, first, last, n_threads)


cdef int run_segments(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1:
    """Work on the segments first … last, as they are cut. An exception in a Python sweep is raised."""
    cdef Job* job = &layout.job
    if first >= last:
        return 0
    begin_at(job, first, last)
    if job.begin < job.end:
        call_run(job, n_threads if layout.compiled else 1)
    if job.failed is not NULL:
        error = <object> job.failed
        job.failed = NULL
        Py_DECREF(error)
        raise error
    return 0


cdef int exchange(Layout layout, Py_ssize_t first, Py_ssize_t last, int which, int n_threads) except -1:
    """Exchange the contents of the parameters of the segments first … last with those of operand `which`.

    Both have the dtype of computation, so that no bit is lost. There must be buffers for `n_threads`.
    """
    cdef Job* job = &layout.job
    layout.cut_whole()
    job.work = exchange_range
    job.which = which
    job.keeps_denormals = True
    return run_segments(layout, first, last, n_threads)


cdef int sum_squares(Layout layout, Py_ssize_t first, Py_ssize_t last, bint again, int n_threads) except -1:
    """Sum the squares of the gradients first … last, in parts. With `again`, only of those whose exponent is not 0."""
    cdef Job* job = &layout.job
    cdef double* begin
    if first >= last:
        return 0
    begin_at(job, first, last)
    job.work = measure_scaled if again else measure_range
    job.keeps_denormals = False
    begin = slot(job, &job.segments[first], job.begin // TILE)
    memset(begin, 0, <size_t> <char*> (slot(job, &job.segments[last - 1], job.end // TILE) + 2) - <size_t> begin)
    if job.begin < job.end:
        call_run(job, n_threads)
    return 0


cdef inline void begin_at(Job* job, Py_ssize_t first, Py_ssize_t last) noexcept:
    """Work on the elements of the segments first … last, as they are cut."""
    job.begin, job.end = job.segments[first].first, job.segments[last - 1].first + job.segments[last - 1].work
    job.first_segment = first


cdef void expect(Py_ssize_t n_elements, int n_threads) noexcept:
    """Wake sleeping helpers for a step of about `n_elements` that comes soon, after its rows are grouped."""
    if n_elements * sizeof(float) >= LARGE:
        pool_expect(n_threads - 1)


cdef double* slot(Job* job, Segment* segment, int64_t tile) noexcept nogil:
    """The place of the sum over the part of a segment on a tile. From one part to the next, in the order of the plan,
    the tile, the segment or both increase by one, so places are unique."""
    return &job.sums[2 * (tile + (segment - job.segments))]


cdef int64_t n_tiles(Job* job) noexcept nogil:
    """The number of tiles with the elements begin … end."""
    return (job.end + TILE - 1) // TILE - job.begin // TILE


cdef inline int call_run(Job* job, int n_threads) except -1:
    if job.end - job.begin < SHORT:
        run(job, 1)
    else:
        with nogil:
            run(job, n_threads)
    return 0


cdef void run(Job* job, int n_threads) noexcept nogil:
    """Work on every tile: on this thread alone if there is little to do, else with helpers."""
    cdef int64_t tile
    if n_threads > 1 and job.end - job.begin >= ALONE:
        pool_run(
            work_on_tile,
            job,
            n_tiles(job),
            <int> min(<int64_t> n_threads - 1, n_tiles(job) // 2),
            job.n_bytes >= LARGE,
        )
        return
    for tile in range(n_tiles(job)):
        work_on_tile(job, 0, tile)


cdef void work_on_tile(void* context, int worker, int64_t tile) noexcept nogil:
    """Work on the plan's elements of one tile: a part of an array, or parts of several."""
    cdef Job* job = <Job*> context
    cdef char* buffer = NULL
    cdef Py_ssize_t begin, end
    cdef Segment* segment
    cdef uint64_t mode = enter(job.keeps_denormals)
    tile += job.begin // TILE
    begin, end = max(tile * TILE, job.begin), min((tile + 1) * TILE, job.end)
    segment = &job.segments[max(job.tile_segment[tile], job.first_segment)]
    while segment.first + segment.work <= begin:
        segment += 1
    if job.buffers is not NULL:
        buffer = job.buffers + <Py_ssize_t> worker * MAX_OPERANDS * CHUNK * sizeof(double)
    while begin < end:
        begin = max(begin, segment.first)  # before a segment with blocks there may be a gap
        if begin < end and not segment.absent:
            job.work(job, segment, begin - segment.first, min(end - segment.first, segment.work), buffer, tile)
        begin = segment.first + segment.work
        segment += 1
    leave(job.keeps_denormals, mode)


cdef inline uint64_t enter(bint keeps_denormals) noexcept nogil:
    return 0 if keeps_denormals else denormals_off()


cdef inline void leave(bint keeps_denormals, uint64_t mode) noexcept nogil:
    if not keeps_denormals:
        denormals_restore(mode)


cdef void sweep_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Step a segment's elements begin … end with its cohort's scalars."""
    sweep_by(scalars_of(job, segment), job, segment, begin, end, buffer)


cdef void sweep_apart(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """The same if segments have their own scalars, or if rows have missed steps: each with its floating-point mode."""
    cdef uint64_t mode
    if segment.visits is not NULL and segment.rows.n >= 0:
        make_up(job, segment, begin, end, buffer)
    mode = enter(segment.keeps_denormals)
    sweep_by(scalars_of(job, segment), job, segment, begin, end, buffer)
    leave(segment.keeps_denormals, mode)


cdef inline void sweep_by(
    const void* scalars, Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer
) noexcept nogil:
    """Step in place if all operands are direct, or if there is a packed sweep for them; else strip by strip."""
    cdef Strip strip
    while begin < end:
        cut_strip(segment, begin, end, segment.direct or segment.packs, &strip)
        step_strip(job, segment, &strip, scalars, segment.cohort.noise, NULL, buffer)
        if job.zero_grads:
            leave_zeros(segment, &strip, buffer)
        begin += strip.n


cdef void exchange_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Exchange the elements begin … end of two operands."""
    cdef Strip strip
    while begin < end:
        cut_strip(segment, begin, end, False, &strip)
        exchange_strip(segment, job.which, &strip, buffer)
        begin += strip.n


cdef const void* scalars_of(Job* job, Segment* segment) noexcept nogil:
    """The scalars of a segment's step, in the type of computation."""
    if job.clips_each:
        return segment.own_scalars
    return <const void*> segment.cohort.scalars32 if segment.itemsize == 4 else <const void*> segment.cohort.scalars64


cdef void measure_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Sum the squares of the gradient's elements begin … end."""
    cdef squares_t squares = squares32 if segment.itemsize == 4 else squares64
    cdef double scale = ldexp(1.0, -<int> segment.squares.exponent)
    cdef Strip strip
    while begin < end:
        cut_strip(segment, begin, end, segment.operands[1].direct, &strip)
        squares(strip.n, gradient_of(segment, &strip, buffer), scale, slot(job, segment, tile))
        begin += strip.n


cdef void measure_scaled(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    if segment.squares.exponent != 0:
        measure_range(job, segment, begin, end, buffer, tile)
