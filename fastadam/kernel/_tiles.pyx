# cython: language_level=3, cdivision=True
"""The work on a layout's tiles, by this thread and helpers: the sweep of all segments, the squares of their gradients,
and the exchange of two operands.
"""

cimport numpy as cnp
from libc.math cimport ldexp
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ._codecs cimport bytes_of_blocks, squares32, squares64, squares_t
from ._layout cimport Kernel, Layout
from ._segments cimport CHUNK, MAX_OPERANDS, TILE, Job, Operand, Segment

cnp.import_array()

cdef extern from "denormals.h":
    uint64_t denormals_off() nogil
    void denormals_restore(uint64_t mode) nogil

cdef uint64_t call_denormals_off() noexcept nogil:
    return denormals_off()

cdef void call_denormals_restore(uint64_t mode) noexcept nogil:
    denormals_restore(mode)

#: addresses of functions that set the mode of the kernels for the calling thread, and put it back
DENORMALS = (<size_t> &call_denormals_off, <size_t> &call_denormals_restore)

cdef extern from "pool.h":
    enum: POOL_MAX_HELPERS
    void pool_run(
        void (*work)(void*, int, int64_t) noexcept nogil, void* context, int64_t n_tiles, int helpers, bint large
    ) nogil

#: the most that a step uses: 1 where the build has no threads
MAX_THREADS = POOL_MAX_HELPERS + 1

cdef enum:
    SHORT = 4096            # fewer elements are stepped sooner than the GIL is released and taken again
    ALONE = 30_000          # a plan of fewer elements stays on the caller: what helpers could save is too little
    LARGE = 1 << 20         # a plan with more bytes of parameters than this is worth waking sleeping helpers for
    STRIP = 256             # elements gathered at a time for a compiled sweep: few, so that memory is read on meanwhile
    PYTHON_CHUNK = 32768    # elements a Python sweep takes at a time: few calls, temporaries that stay in cache

#: the fewest elements that more than one thread steps
FEWEST_SHARED = ALONE


cdef int sweep(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1:
    """Step the segments first … last; where kernels are Python, these are called with arrays that view chunks."""
    cdef Py_ssize_t i
    cdef Job* job = &layout.job
    cdef Segment* segment
    if first >= last:
        return 0
    if layout.compiled:
        segment = &job.segments[last - 1]
        job.work = sweep_clipped if job.clips_each else sweep_range
        job.begin, job.end = job.segments[first].first, segment.first + segment.n
        if job.begin < job.end:
            call_run(job, n_threads)
        return 0
    for i in range(first, last):
        if not job.segments[i].absent:
            sweep_in_python(job, &job.segments[i])
    return 0


cdef int exchange(Layout layout, Py_ssize_t first, Py_ssize_t last, int which, int n_threads) except -1:
    """Exchange what the parameters of the segments first … last hold with what another operand of each holds.

    Both are stored as they are computed, so that no bit is lost. There are buffers for so many threads.
    """
    cdef Job* job = &layout.job
    if first >= last:
        return 0
    job.work = exchange_range
    job.which = which
    job.keeps_denormals = True
    job.begin, job.end = job.segments[first].first, job.segments[last - 1].first + job.segments[last - 1].n
    if job.begin < job.end:
        call_run(job, n_threads)
    return 0


cdef int sum_squares(Layout layout, bint again, int n_threads) except -1:
    """Sum the squares of each gradient, in parts; `again`: of those alone that have another exponent than 0."""
    cdef Job* job = &layout.job
    job.begin, job.end = 0, job.n_elements
    job.work = measure_scaled if again else measure_range
    job.keeps_denormals = False
    memset(job.sums, 0, layout.n_slots() * 2 * sizeof(double))
    call_run(job, n_threads)
    return 0


cdef double* slot(Job* job, Segment* segment, int64_t tile) noexcept nogil:
    """Where the sum over the part of a segment on a tile is: of one part and the next, in the order of the plan,
    the tile or the segment is the next one, or both."""
    return &job.sums[2 * (tile + (segment - job.segments))]


cdef int64_t n_tiles(Job* job) noexcept nogil:
    """The number of tiles that hold the elements begin … end."""
    return (job.end + TILE - 1) // TILE - job.begin // TILE


cdef inline int call_run(Job* job, int n_threads) except -1:
    if job.end - job.begin < SHORT:
        run(job, 1)
    else:
        with nogil:
            run(job, n_threads)
    return 0


cdef void run(Job* job, int n_threads) noexcept nogil:
    """Work on every tile: on this thread alone where there is little to do, else with helpers."""
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
    segment = &job.segments[job.tile_segment[tile]]
    while segment.first + segment.n <= begin:
        segment += 1
    if job.buffers is not NULL:
        buffer = job.buffers + <Py_ssize_t> worker * MAX_OPERANDS * CHUNK * sizeof(double)
    while begin < end:
        begin = max(begin, segment.first)  # where blocks begin there may be a gap before it
        if begin < end and not segment.absent:
            job.work(job, segment, begin - segment.first, min(end - segment.first, segment.n), buffer, tile)
        begin = segment.first + segment.n
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
    """Step the elements begin … end of a segment by its cohort's scalars."""
    sweep_by(scalars_of_cohort(segment), job, segment, begin, end, buffer)


cdef void sweep_clipped(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """The same by its own."""
    cdef uint64_t mode = enter(segment.keeps_denormals)
    sweep_by(segment.own_scalars, job, segment, begin, end, buffer)
    leave(segment.keeps_denormals, mode)


cdef inline void sweep_by(
    const void* scalars, Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer
) noexcept nogil:
    """In place where all operands are direct or a packed sweep is there for them, else chunk by chunk."""
    cdef void* arrays[MAX_OPERANDS]
    cdef Py_ssize_t n
    if segment.packs:
        sweep_packed(scalars, job, segment, begin, end - begin)
        return
    while begin < end:
        n = end - begin if segment.direct else min(end - begin, <Py_ssize_t> STRIP)
        views(segment, begin, n, buffer, arrays)
        segment.sweep(n, arrays, scalars)
        put_back(job, segment, begin, n, arrays)
        begin += n


cdef void sweep_packed(
    const void* scalars, Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t n
) noexcept nogil:
    """Step n elements by the sweep that decodes and encodes them."""
    cdef void* arrays[MAX_OPERANDS]
    cdef uint64_t keys[MAX_OPERANDS]
    cdef int k
    for k in range(segment.n_operands + segment.has_master):
        arrays[k] = segment.operands[k].data + begin * segment.operands[k].step
    for k in range((segment.n_operands - 1) // 2):
        keys[k] = key_of(segment, 2 + 2 * k)
    segment.packed(n, arrays, scalars, keys, segment.offset + begin)
    if job.zero_grads:
        memset(arrays[1], 0, n * segment.operands[1].step)


cdef inline uint64_t key_of(Segment* segment, int which) noexcept nogil:
    """Of the random bits of an operand, a state: two states share a key but for its lowest bit."""
    return mixed(segment.cohort.noise + segment.whole * MAX_OPERANDS + which // 2) & ~<uint64_t> 1 | which % 2


cdef void exchange_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Exchange the elements begin … end of two operands; a parameter is stored from its new master weight."""
    cdef char* other = buffer + job.which * CHUNK * sizeof(double)
    cdef Py_ssize_t n
    while begin < end:
        n = min(end - begin, <Py_ssize_t> CHUNK)
        if segment.operands[0].direct and segment.operands[job.which].direct and not segment.has_master:
            exchange_bytes(
                segment.operands[0].data + begin * segment.itemsize,
                segment.operands[job.which].data + begin * segment.itemsize,
                buffer,
                n * segment.itemsize,
            )
            begin += n
            continue
        copy_in(segment, 0, begin, n, buffer)
        copy_in(segment, job.which, begin, n, other)
        if segment.has_master:
            let_master_follow(segment, begin, n, buffer, <uint32_t*> buffer)
            copy_out(segment, segment.n_operands, begin, n, other, 0)
        copy_out(segment, 0, begin, n, other, 0)
        copy_out(segment, job.which, begin, n, buffer, 0)
        begin += n


cdef inline void exchange_bytes(char* one, char* other, char* spare, Py_ssize_t n) noexcept nogil:
    memcpy(spare, one, n)
    memcpy(one, other, n)
    memcpy(other, spare, n)


cdef inline const void* scalars_of_cohort(Segment* segment) noexcept nogil:
    """In the type that the segment is computed in."""
    return <const void*> segment.cohort.scalars32 if segment.itemsize == 4 else <const void*> segment.cohort.scalars64


cdef int sweep_in_python(Job* job, Segment* segment) except -1:
    cdef void* arrays[MAX_OPERANDS]
    cdef Py_ssize_t begin = 0
    cdef cnp.npy_intp n
    cdef int k
    cdef Kernel kernel = <Kernel> segment.cohort.bundle.kernel
    cdef bint is_float = segment.typenum == cnp.NPY_FLOAT32  # rounded before, where no denormal was zero yet
    cdef const void* given = segment.own_scalars
    cdef bint keeps_denormals = segment.keeps_denormals if job.clips_each else job.keeps_denormals
    cdef uint64_t mode
    if not job.clips_each:
        given = scalars_of_cohort(segment)
    scalars = [(<float*> given)[k] if is_float else (<double*> given)[k] for k in range(kernel.n_scalars)]
    mode = enter(keeps_denormals)
    try:
        while begin < segment.n:
            n = min(segment.n - begin, <Py_ssize_t> (PYTHON_CHUNK if segment.direct else CHUNK))
            views(segment, begin, n, job.buffers, arrays)
            kernel.python_sweep(
                scalars,
                *[cnp.PyArray_SimpleNewFromData(1, &n, segment.typenum, arrays[k]) for k in range(segment.n_operands)],
            )
            put_back(job, segment, begin, n, arrays)
            begin += n
    finally:
        leave(keeps_denormals, mode)
    return 0


cdef void measure_range(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Sum the squares of the gradient's elements begin … end."""
    cdef squares_t squares = squares32 if segment.itemsize == 4 else squares64
    cdef double scale = ldexp(1.0, -<int> segment.squares.exponent)
    cdef Py_ssize_t n
    while begin < end:
        n = end - begin if segment.operands[1].direct else min(end - begin, <Py_ssize_t> CHUNK)
        squares(n, view(segment, 1, begin, n, buffer), scale, slot(job, segment, tile))
        begin += n


cdef void measure_scaled(
    Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    if segment.squares.exponent != 0:
        measure_range(job, segment, begin, end, buffer, tile)


cdef inline void views(Segment* segment, Py_ssize_t begin, Py_ssize_t n, char* buffer, void** arrays) noexcept nogil:
    cdef int k
    for k in range(segment.n_operands):
        arrays[k] = view(segment, k, begin, n, buffer)
    if segment.has_master:
        let_master_follow(segment, begin, n, buffer, <uint32_t*> arrays[0])


cdef void let_master_follow(
    Segment* segment, Py_ssize_t begin, Py_ssize_t n, char* buffer, uint32_t* master
) noexcept nogil:
    """Where a parameter is not its master weight, rounded, others have changed it: the master weight becomes it.

    A slot of the buffer holds two chunks of float32: the master's has room for its rounded bits, the parameter's for
    what these bits and those of the parameter mean.
    """
    cdef Operand* operand = &segment.operands[segment.n_operands]
    cdef char* bits = buffer + CHUNK * sizeof(float)
    cdef uint32_t* now = <uint32_t*> (buffer + segment.n_operands * CHUNK * sizeof(double))
    cdef uint32_t* stepped = now + CHUNK
    cdef Py_ssize_t k
    operand.codec.store(n, bits, operand.codec.itemsize, <char*> master, 0, 0)
    if operand.contiguous and memcmp(bits, operand.data + begin * operand.step, n * operand.step) == 0:
        return
    copy_in(segment, segment.n_operands, begin, n, <char*> now)
    operand.codec.load(n, bits, operand.codec.itemsize, <char*> stepped)
    for k in range(n):
        master[k] = master[k] if stepped[k] == now[k] else now[k]


cdef inline void* view(Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* buffer) noexcept nogil:
    """Contiguous elements begin … begin + n of an operand: itself where direct, else loaded into the buffer."""
    cdef char* chunk
    if segment.operands[which].direct:
        return segment.operands[which].data + begin * segment.itemsize
    chunk = buffer + which * CHUNK * sizeof(double)
    copy_in(segment, which, begin, n, chunk)
    return chunk


cdef inline void put_back(Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t n, void** arrays) noexcept nogil:
    """Store what the sweep wrote, where that is not where it lies; and zeros as gradient, where asked for."""
    cdef int k
    if job.zero_grads:
        memset(arrays[1], 0, n * segment.itemsize)
    if segment.direct:
        return
    for k in range(segment.n_operands):
        if not segment.operands[k].direct and (k != 1 or job.zero_grads):
            copy_out(segment, k, begin, n, <char*> arrays[k], key_of(segment, k))
    if segment.has_master:
        copy_out(segment, segment.n_operands, begin, n, <char*> arrays[0], 0)


cdef inline void copy_in(Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* chunk) noexcept nogil:
    """Load elements begin … begin + n of an operand."""
    move(segment, which, begin, n, chunk, False, 0)


cdef inline void copy_out(
    Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* chunk, uint64_t key
) noexcept nogil:
    """Store them; random bits hang on the key."""
    move(segment, which, begin, n, chunk, True, key)


cdef void move(
    Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* chunk, bint out, uint64_t key
) noexcept nogil:
    """Elements begin … begin + n of an operand, run by run of its last axis or all at once."""
    cdef Operand* operand = &segment.operands[which]
    cdef int last = segment.ndim - 1
    cdef Py_ssize_t row, run = n, step = operand.step
    cdef char* data = operand.data + begin * step
    cdef int k
    while n > 0:
        if not operand.uniform:
            step = operand.strides[last]
            row = begin // segment.shape[last]
            run = min(n, (row + 1) * segment.shape[last] - begin)
            data = operand.data + (begin - row * segment.shape[last]) * step
            for k in range(last - 1, -1, -1):
                data += row % segment.shape[k] * operand.strides[k]
                row = row // segment.shape[k]
        elif operand.codec.in_blocks:
            data = operand.data + bytes_of_blocks(begin)
        if out:
            operand.codec.store(run, data, step, chunk, key, segment.offset + begin)
        else:
            operand.codec.load(run, data, step, chunk)
        chunk += run * segment.itemsize
        begin += run
        n -= run


cdef uint64_t mixed(uint64_t x) noexcept nogil:
    """A number that has nothing to do with x, and the same one always (the finish of SplitMix64)."""
    x += 0x9E3779B97F4A7C15ULL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)
