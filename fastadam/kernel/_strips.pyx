# cython: language_level=3, cdivision=True
"""Strips: the elements of a segment that a sweep steps at a time. They are loaded into a buffer, swept, and stored
back. Operands that already have the storage that the sweep needs are swept in place.

If the gradient is an array, a strip is one run of elements. If it has only some rows, a strip is a row, or parts of
several rows.
"""

cimport numpy as cnp
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memset

from ._codecs cimport add32, add64, add_t, bytes_of_blocks
from ._layout cimport Kernel
from ._segments cimport CHUNK, MAX_OPERANDS, PYTHON_STRIP, STRIP, Grouped

cnp.import_array()

cdef extern from "prefetch.h":
    void prefetch(const void* address, Py_ssize_t n_bytes) nogil

ctypedef fused word:        # a number, as bits
    uint32_t
    uint64_t

cdef enum:
    AHEAD = 4               # how many rows ahead of the stepped one are fetched from memory


# ---------------------------------------------------------------- the elements of a strip


cdef void cut_strip(Segment* segment, Py_ssize_t begin, Py_ssize_t end, bint whole, Strip* strip) noexcept nogil:
    """The first strip of the work's elements begin … end. For an array it may be all of them (`whole`)."""
    cdef Py_ssize_t most = PYTHON_STRIP if segment.sweep is NULL else STRIP, n, row, within
    cdef Run* run = strip.runs
    if segment.rows.n < 0:
        run.at, run.n = begin, end - begin if whole else min(end - begin, most)
        strip.n_runs, strip.n = 1, run.n
        return
    strip.n = strip.n_runs = 0
    row = begin // segment.width
    within = begin - row * segment.width
    while begin < end and strip.n < most:
        n = take_run(segment, row, within, min(end - begin, most - strip.n), &strip.runs[strip.n_runs])
        begin += n
        within += n
        if within == segment.width:
            row, within = row + 1, 0
        strip.n += n
        strip.n_runs += 1
        if segment.rows_alone:
            break
    if segment.rows_alone and segment.inner == segment.width:
        fetch_ahead(segment, strip.runs)


cdef inline Py_ssize_t take_run(
    Segment* segment, Py_ssize_t row, Py_ssize_t within, Py_ssize_t most, Run* run
) noexcept nogil:
    """The run that begins with element `within` of a row of the work. Return its length."""
    cdef Py_ssize_t behind
    run.row, run.within = row, within
    row = number_of(segment, row)
    if segment.inner == segment.width:
        run.at = row * segment.width + within
        run.n = min(segment.width - within, most)
    else:
        behind = within // segment.inner
        run.at = (behind * segment.n_rows + row) * segment.inner + within - behind * segment.inner
        run.n = min((behind + 1) * segment.inner - within, most)
    return run.n


cdef Py_ssize_t number_of(Segment* segment, Py_ssize_t row) noexcept nogil:
    """The number of a row of the work. If all rows are the work, the place of a row is its number."""
    return segment.rows.row[row] if segment.rows.row is not NULL else row


cdef inline void fetch_ahead(Segment* segment, Run* run) noexcept nogil:
    """Prefetch a row that comes soon. Rows may be anywhere in memory, so no processor can predict them."""
    cdef Py_ssize_t row = run.row + AHEAD
    cdef Operand* operand
    cdef int k
    if row >= segment.rows.n:
        return
    for k in range(segment.n_operands):
        if k != 1:
            operand = &segment.operands[k]
            prefetch(
                operand.data + (number_of(segment, row) * segment.width + run.within) * operand.step,
                run.n * operand.codec.itemsize,
            )


# ---------------------------------------------------------------- a step


cdef void step_strip(
    Job* job, Segment* segment, Strip* strip, const void* scalars, uint64_t noise, void* gradient, char* buffer
) noexcept nogil:
    """Step a strip with these scalars. By default its own gradient is used; `gradient` may be another of equal size."""
    cdef void* arrays[MAX_OPERANDS]
    cdef int k
    if gradient is NULL:
        if segment.packs and segment.rows.n < 0:
            gradient = segment.operands[1].data + strip.runs[0].at * segment.operands[1].step
        else:
            gradient = gradient_of(segment, strip, buffer)
    if segment.packs and strip.n_runs == 1:
        step_packed(segment, &strip.runs[0], scalars, noise, gradient)
        return
    for k in range(segment.n_operands):
        arrays[k] = gradient if k == 1 else view(segment, k, strip, buffer)
    if segment.has_master:
        let_master_follow(segment, strip, buffer, <uint32_t*> arrays[0])
    if segment.sweep is not NULL:
        segment.sweep(strip.n, arrays, scalars)
    else:
        sweep_in_python(job, segment, strip.n, arrays, scalars)
    for k in range(segment.n_operands):
        if k != 1 and not lies_as_swept(segment, k, strip):
            copy_out(segment, k, strip, <char*> arrays[k], key_of(segment, k, noise))
    if segment.has_master:
        copy_out(segment, segment.n_operands, strip, <char*> arrays[0], 0)


cdef inline void step_packed(
    Segment* segment, Run* run, const void* scalars, uint64_t noise, void* gradient
) noexcept nogil:
    """Step a run with the packed sweep, which decodes what it reads and encodes what it writes."""
    cdef void* arrays[MAX_OPERANDS]
    cdef uint64_t keys[MAX_OPERANDS]
    cdef int k
    for k in range(segment.n_operands + segment.has_master):
        arrays[k] = gradient if k == 1 else segment.operands[k].data + run.at * segment.operands[k].step
    for k in range((segment.n_operands - 1) // 2):
        keys[k] = key_of(segment, 2 + 2 * k, noise)
    segment.packed(run.n, arrays, scalars, keys, segment.offset + run.at)


cdef void sweep_in_python(
    Job* job, Segment* segment, cnp.npy_intp n, void** arrays, const void* scalars
) noexcept with gil:
    """The same with a Python function, for arrays that view these. An exception is kept, and then nothing is called any
    more."""
    cdef Kernel kernel = <Kernel> segment.cohort.bundle.kernel
    cdef bint is_float = segment.itemsize == 4  # the scalars were rounded before denormals counted as zero
    cdef int k
    if job.failed is not NULL:
        return
    try:
        kernel.python_sweep(
            [(<float*> scalars)[k] if is_float else (<double*> scalars)[k] for k in range(kernel.n_scalars)],
            *[cnp.PyArray_SimpleNewFromData(1, &n, segment.typenum, arrays[k]) for k in range(segment.n_operands)],
        )
    except BaseException as error:
        Py_INCREF(error)
        job.failed = <void*> error


cdef uint64_t noise_of(uint64_t seed, uint64_t steps) noexcept nogil:
    """The seed of the random bits in a parameter's next step, from the mixed seed and the number of its steps."""
    return mixed(seed + steps)


cdef inline uint64_t key_of(Segment* segment, int which, uint64_t noise) noexcept nogil:
    """The key of the random bits of a state. Each two states share a key, except for its lowest bit."""
    return mixed(noise + segment.whole * MAX_OPERANDS + which // 2) & ~<uint64_t> 1 | which % 2


# ---------------------------------------------------------------- gradients


cdef void* gradient_of(Segment* segment, Strip* strip, char* buffer) noexcept nogil:
    """The gradient of a strip, in the type of computation: in place, or in the buffer."""
    cdef char* sums = buffer + CHUNK * sizeof(double)
    cdef Grouped* rows = &segment.rows
    cdef Operand* values = &segment.operands[1]
    cdef Run* run = strip.runs
    cdef int k
    if rows.n < 0:
        return view(segment, 1, strip, buffer)
    if strip.n_runs == 1 and values.direct and rows.begin[run.row + 1] - rows.begin[run.row] == 1:
        return values.data + rows.order[rows.begin[run.row]] * rows.stride + run.within * segment.itemsize
    for k in range(strip.n_runs):
        sum_rows(segment, &strip.runs[k], sums)
        sums += strip.runs[k].n * segment.itemsize
    return buffer + CHUNK * sizeof(double)


cdef void sum_rows(Segment* segment, Run* run, char* sums) noexcept nogil:
    """Sum the values of one row's run, in the given order."""
    cdef Grouped* rows = &segment.rows
    cdef Operand* values = &segment.operands[1]
    cdef add_t add = add32 if segment.itemsize == 4 else add64
    cdef const Py_ssize_t* order = &rows.order[rows.begin[run.row]]
    cdef Py_ssize_t k, n = rows.begin[run.row + 1] - rows.begin[run.row]
    cdef char* more = sums + PYTHON_STRIP * sizeof(double)
    move(segment, values, values.data + order[0] * rows.stride, run.within, run.n, sums, False, 0)
    if values.direct:
        add(run.n, sums, values.data + run.within * segment.itemsize, rows.stride, order + 1, n - 1)
        return
    for k in range(1, n):
        move(segment, values, values.data + order[k] * rows.stride, run.within, run.n, more, False, 0)
        add(run.n, sums, more, 0, order, 1)


cdef void leave_zeros(Segment* segment, Strip* strip, char* buffer) noexcept nogil:
    """Set the gradient of a strip to zero."""
    cdef Grouped* rows = &segment.rows
    cdef Operand* operand = &segment.operands[1]
    cdef char* zeros = buffer + CHUNK * sizeof(double)
    cdef Run* run
    cdef Py_ssize_t i
    cdef int k
    if rows.n < 0 and operand.in_place:
        memset(operand.data + strip.runs[0].at * operand.step, 0, strip.n * operand.step)
        return
    memset(zeros, 0, strip.n * segment.itemsize)
    if rows.n < 0:
        copy_out(segment, 1, strip, zeros, 0)
        return
    for k in range(strip.n_runs):
        run = &strip.runs[k]
        for i in range(rows.begin[run.row], rows.begin[run.row + 1]):
            move(segment, operand, operand.data + rows.order[i] * rows.stride, run.within, run.n, zeros, True, 0)


# ---------------------------------------------------------------- an exchange


cdef void exchange_strip(Segment* segment, int which, Strip* strip, char* buffer) noexcept nogil:
    """Exchange a strip of two operands. A parameter is then stored from its new master weight."""
    cdef char* one = buffer
    cdef char* other = buffer + which * CHUNK * sizeof(double)
    copy_in(segment, 0, strip, one)
    copy_in(segment, which, strip, other)
    if segment.has_master:
        let_master_follow(segment, strip, buffer, <uint32_t*> one)
        copy_out(segment, segment.n_operands, strip, other, 0)
    copy_out(segment, 0, strip, other, 0)
    copy_out(segment, which, strip, one, 0)


# ---------------------------------------------------------------- between memory and buffer


cdef inline bint lies_as_swept(Segment* segment, int which, Strip* strip) noexcept nogil:
    return strip.n_runs == 1 and segment.operands[which].direct


cdef inline void* view(Segment* segment, int which, Strip* strip, char* buffer) noexcept nogil:
    """A contiguous strip of an operand: in place, or loaded into the buffer."""
    cdef char* chunk = buffer + which * CHUNK * sizeof(double)
    if lies_as_swept(segment, which, strip):
        return segment.operands[which].data + strip.runs[0].at * segment.itemsize
    copy_in(segment, which, strip, chunk)
    return chunk


cdef void* parameter_of(Segment* segment, Strip* strip, char* buffer) noexcept nogil:
    """The numbers that a step of a strip starts from, after the master weight has followed the parameter."""
    cdef void* p = view(segment, 0, strip, buffer)
    if segment.has_master:
        let_master_follow(segment, strip, buffer, <uint32_t*> p)
        if not lies_as_swept(segment, 0, strip):
            copy_out(segment, 0, strip, <char*> p, 0)
    return p


cdef void let_master_follow(Segment* segment, Strip* strip, char* buffer, uint32_t* master) noexcept nogil:
    """If a parameter differs from its rounded master weight, other code has changed it: copy it to the master weight.

    A slot of the buffer holds two chunks of float32. That of the master has room for its rounded bits. That of the
    parameter has room for the numbers of these bits, and of the parameter's bits.
    """
    cdef Operand* operand = &segment.operands[segment.n_operands]
    cdef char* bits = buffer + CHUNK * sizeof(float)
    cdef uint32_t* now = <uint32_t*> (buffer + segment.n_operands * CHUNK * sizeof(double))
    cdef uint32_t* stepped = now + CHUNK
    cdef Py_ssize_t k, n = strip.n
    operand.codec.store(n, bits, operand.codec.itemsize, <char*> master, 0, 0)
    if strip.n_runs == 1 and operand.contiguous:
        if memcmp(bits, operand.data + strip.runs[0].at * operand.step, n * operand.step) == 0:
            return
    copy_in(segment, segment.n_operands, strip, <char*> now)
    operand.codec.load(n, bits, operand.codec.itemsize, <char*> stepped)
    for k in range(n):
        master[k] = master[k] if stepped[k] == now[k] else now[k]


cdef inline void copy_in(Segment* segment, int which, Strip* strip, char* chunk) noexcept nogil:
    """Load a strip of an operand."""
    copy(segment, which, strip, chunk, False, 0)


cdef inline void copy_out(Segment* segment, int which, Strip* strip, char* chunk, uint64_t key) noexcept nogil:
    """Store a strip of an operand. The key is that of the random bits."""
    copy(segment, which, strip, chunk, True, key)


cdef inline void copy(
    Segment* segment, int which, Strip* strip, char* chunk, bint out, uint64_t key
) noexcept nogil:
    cdef Operand* operand = &segment.operands[which]
    cdef int k
    if operand.direct and strip.n_runs > 1:
        copy_runs(segment, operand.data, strip, chunk, out)
        return
    for k in range(strip.n_runs):
        move(segment, operand, operand.data, strip.runs[k].at, strip.runs[k].n, chunk, out, key)
        chunk += strip.runs[k].n * segment.itemsize


cdef inline void copy_runs(Segment* segment, char* data, Strip* strip, char* chunk, bint out) noexcept nogil:
    """The same for many short runs of a plain operand, where a call for each run would take longer."""
    cdef int k
    for k in range(strip.n_runs):
        if segment.itemsize == 4:
            copy_words(strip.runs[k].n, <uint32_t*> data + strip.runs[k].at, <uint32_t*> chunk, out)
        else:
            copy_words(strip.runs[k].n, <uint64_t*> data + strip.runs[k].at, <uint64_t*> chunk, out)
        chunk += strip.runs[k].n * segment.itemsize


cdef inline void copy_words(Py_ssize_t n, word* data, word* chunk, bint out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if out:
            data[i] = chunk[i]
        else:
            chunk[i] = data[i]


cdef void move(
    Segment* segment, Operand* operand, char* base, Py_ssize_t begin, Py_ssize_t n, char* chunk, bint out, uint64_t key
) noexcept nogil:
    """Load or store elements begin … begin + n of an operand at `base`, all at once or in runs along its last axis."""
    cdef int last = segment.ndim - 1
    cdef Py_ssize_t row, run = n, step = operand.step
    cdef char* data = base + begin * step
    cdef int k
    while n > 0:
        if not operand.uniform:
            step = operand.strides[last]
            row = begin // operand.shape[last]
            run = min(n, (row + 1) * operand.shape[last] - begin)
            data = base + (begin - row * operand.shape[last]) * step
            for k in range(last - 1, -1, -1):
                data += row % operand.shape[k] * operand.strides[k]
                row = row // operand.shape[k]
        elif operand.codec.in_blocks:
            data = base + bytes_of_blocks(begin)
        if out:
            operand.codec.store(run, data, step, chunk, key, segment.offset + begin)
        else:
            operand.codec.load(run, data, step, chunk)
        chunk += run * segment.itemsize
        begin += run
        n -= run


cdef uint64_t mixed(uint64_t x) noexcept nogil:
    """A hash of x (the final mixing of SplitMix64)."""
    x += 0x9E3779B97F4A7C15ULL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)
