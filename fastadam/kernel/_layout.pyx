# cython: language_level=3, cdivision=True
"""`Layout`: the checked arrays of one plan, as segments cut into tiles.

It is made in two passes. The first checks each array (usual ones in C, others by `checks`), and counts the memory that
is needed. The second fills this memory. All memory is in two blocks, which the next layout uses again.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memset

from ._codecs cimport BFLOAT16, BFLOAT16_RANDOM, BLOCK, FLOAT32, Codec, bytes_of_blocks
from ._segments cimport (
    ALL_IN_16, CHUNK, MASTER_AND_STATES_IN_16, MASTER_IN_32, MAX_OPERANDS, STATES_IN_16, TILE, Operand, extent_of,
    fill_axes, fill_row, set_operand, sort_extents,
)

from ..rules import COMPILED
from . import checks

cnp.import_array()


cdef class Kernel:
    """A rule's sweeps and its function of scalars, as addresses of C functions or as Python functions.

    `sweeps` maps the dtypes "float32" and "float64" to addresses. `scalars` is an address. `packed` has the addresses
    of the packed sweeps, or 0. `idle` has those of its fading and of its idle sweeps. Alternatively `python` has a pair
    of Python functions, ``(sweep(scalars, *arrays), scalars(t, hyper))``. `owner` is kept alive.
    """

    def __init__(
        self, rule, sweeps=None, size_t scalars=0, python=None, owner=None, packed=(0,) * N_PACKED, idle=(0, 0, 0)
    ):
        cdef int k
        self.rule, self.is_built_in = rule, is_built_in(rule)
        self.fading = <fading_t> <size_t> idle[0]
        self.idle32, self.idle64 = <sweep_t> <size_t> idle[1], <sweep_t> <size_t> idle[2]
        for k in range(N_PACKED):
            self.packed[k] = <packed_t> <size_t> packed[k]
        self.owner = owner
        self.n_operands = 2 + len(rule.states)
        self.n_hyper = N_OF_THE_STEP + len(rule.hyper)
        self.n_scalars = rule.n_scalars
        if self.n_operands >= MAX_OPERANDS:
            raise ValueError(f"rule {rule.name!r}: expected at most {MAX_OPERANDS - 3} states, got {len(rule.states)}")
        if python is None:
            self.sweep32 = <sweep_t> <size_t> sweeps["float32"]
            self.sweep64 = <sweep_t> <size_t> sweeps["float64"]
            self.scalars = <scalars_t> scalars
        else:
            self.python_sweep, self.python_scalars = python


def is_built_in(rule):
    """Whether a rule belongs to this library, and is not a user's own."""
    return COMPILED.get(rule.name) is rule


cdef int reserve(Block* block, size_t size) except -1:
    """Make the block have `size` unused bytes, all zero."""
    if size > block.size:
        PyMem_Free(block.memory)
        block.size = 0
        block.memory = <char*> PyMem_Malloc(size)
        if block.memory is NULL:
            raise MemoryError
        block.size = size
    block.used = 0
    memset(block.memory, 0, size)
    return 0


cdef inline void* take(Block* block, size_t count, size_t size) noexcept:
    """Take the next bytes of the block. `padded` says how many."""
    cdef char* memory = block.memory + block.used
    block.used += padded(count, size)
    return memory


cdef inline size_t padded(size_t count, size_t size) noexcept:
    return (count * size + 15) & ~<size_t> 15


@cython.final
cdef class Layout:
    """The arrays of one plan, as segments, extents and tiles. `make` fills it, and `clear` empties it."""

    def __cinit__(self):
        memset(&self.job, 0, sizeof(Job))
        memset(&self.heads, 0, sizeof(Block))
        memset(&self.pieces, 0, sizeof(Block))
        self.clear()

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self.heads.memory)
        PyMem_Free(self.pieces.memory)
        PyMem_Free(self.job.buffers)

    cdef void clear(self) noexcept:
        """Drop all arrays."""
        cdef Py_ssize_t i
        for i in range(self.job.n_segments):
            PyMem_Free(self.job.segments[i].rows.memory)
        self.job.n_segments = self.job.n_elements = self.job.n_bytes = 0
        self.n_bundles = self.n_cohorts = self.n_extents = 0
        self.held = self.names = self.listed = self.logs = None
        self.doubtful = self.converted = None
        self.grads_apart = False

    cdef int make(self, list groups, list names, origins, logs) except -1:
        """Check the arrays of all groups, and lay them out. After an error the caller must call `clear`."""
        cdef Py_ssize_t i
        self.held, self.names = [], names
        self.compiled, self.is_cut = True, False
        self.take_heads(groups)
        for i in range(self.n_bundles):
            kernel, params, states = groups[i]
            self.admit_group(&self.bundles[i], <Kernel?> kernel, params, states)
        self.take_pieces()
        for i in range(self.job.n_segments):
            self.fill_segment(i)
        if origins is not None:
            self.set_origins(origins)
        if logs is not None:
            self.set_logs(logs)
        self.cut()
        self.note_extents()
        return 0

    # The first pass: the structures of fixed size, and the checks.

    cdef int take_heads(self, list groups) except -1:
        """Take the memory of bundles, segments and cohorts, for the greatest possible number of cohorts."""
        cdef Py_ssize_t i, n_segments = 0, n_params
        cdef Kernel kernel
        cdef size_t size = padded(len(groups), sizeof(Bundle))
        self.max_scalars = 0
        for made, params, _ in groups:
            kernel = <Kernel?> made
            n_segments += len(params)
            size += padded(kernel.n_hyper, sizeof(double))
            self.max_scalars = max(self.max_scalars, kernel.n_scalars)
        if len(self.names) != n_segments:
            raise ValueError(f"names: expected {n_segments}, one a parameter, got {len(self.names)}")
        size += padded(n_segments, sizeof(Segment)) + padded(n_segments, sizeof(Cohort))
        reserve(&self.heads, size + padded(n_segments * self.max_scalars, 2 * sizeof(double) + sizeof(float)))
        self.bundles = <Bundle*> take(&self.heads, len(groups), sizeof(Bundle))
        self.job.segments = <Segment*> take(&self.heads, n_segments, sizeof(Segment))
        self.cohorts = <Cohort*> take(&self.heads, n_segments, sizeof(Cohort))
        self.n_bundles = len(groups)
        n_segments = 0
        for i in range(self.n_bundles):
            made, params, _ = groups[i]
            kernel, n_params = <Kernel?> made, len(params)
            self.bundles[i].hyper = <double*> take(&self.heads, kernel.n_hyper, sizeof(double))
            self.bundles[i].begin = n_segments
            n_segments += n_params
            self.bundles[i].end = n_segments
        self.scalars = <char*> take(&self.heads, n_segments * self.max_scalars, 2 * sizeof(double) + sizeof(float))
        return 0

    cdef int admit_group(self, Bundle* bundle, Kernel kernel, params, states) except -1:
        cdef Py_ssize_t i, n = bundle.end - bundle.begin
        cdef list all_params = params if type(params) is list else list(params)
        cdef list all_states = states if type(states) is list else list(states)
        if len(all_params) != n or len(all_states) != n:
            raise ValueError(f"states: expected {n} lists, one a parameter, got {len(all_states)}")
        bundle.kernel = <void*> kernel
        self.held.append(kernel)
        if kernel.python_sweep is not None:
            self.compiled = False
        for i in range(n):
            self.admit_segment(kernel, all_params[i], all_states[i])
        return 0

    cdef int admit_segment(self, Kernel kernel, p, states) except -1:
        """Check a parameter and its states, and note their sizes."""
        cdef Py_ssize_t i = self.job.n_segments
        cdef Segment* segment = &self.job.segments[i]
        cdef int n_states = kernel.n_operands - 2
        cdef bint is_wide
        if not is_usual(p):
            checks.parameter(self.names[i], p)
        segment.p = <void*> p
        segment.p_ndim = cnp.PyArray_NDIM(<cnp.ndarray> p)
        segment.p_typenum = segment.grad_typenum = cnp.PyArray_TYPE(<cnp.ndarray> p)
        is_wide = segment.p_typenum == cnp.NPY_DOUBLE or segment.p_typenum == cnp.NPY_CDOUBLE
        segment.typenum = cnp.NPY_DOUBLE if is_wide else cnp.NPY_FLOAT
        segment.is_complex = cnp.PyTypeNum_ISCOMPLEX(segment.p_typenum)
        segment.itemsize = 8 if segment.typenum == cnp.NPY_DOUBLE else 4
        segment.sweep = kernel.sweep64 if segment.typenum == cnp.NPY_DOUBLE else kernel.sweep32
        segment.all_packed, segment.n_scalars, segment.fading = kernel.packed, kernel.n_scalars, kernel.fading
        segment.idle = kernel.idle64 if segment.typenum == cnp.NPY_DOUBLE else kernel.idle32
        for state in states:
            segment.in_blocks |= cnp.PyArray_Check(state) and cnp.PyArray_TYPE(<cnp.ndarray> state) == cnp.NPY_UINT8
        segment.n = segment.work = n_reals(segment, <cnp.ndarray> p)
        segment.rows.n = -1
        segment.n_operands = 2 + n_states
        segment.has_master = len(states) > n_states
        if not n_states <= len(states) <= n_states + 1:
            raise ValueError(f"expected {n_states} states a parameter, got {len(states)}")
        segment.held = len(self.held)
        self.held.append(p)
        for state in states:
            if not (
                is_usual(state)
                and cnp.PyArray_TYPE(<cnp.ndarray> state) == segment.typenum
                and not segment.is_complex
                and same_shape(<cnp.ndarray> state, <cnp.ndarray> p)
            ):
                checks.state(f"a state of {self.names[i]}", state, p, bytes_of_blocks(segment.n))
            self.held.append(state)
        self.job.n_segments += 1
        self.job.n_elements = first_of(segment, self.job.n_elements) + segment.n
        return 0

    # The second pass: the structures whose size depends on the segments.

    cdef int take_pieces(self) except -1:
        cdef Py_ssize_t i, n_operands, n_written = 0, n_empty = 0, n_tiles = self.job.n_elements // TILE + 1
        cdef Segment* segment
        cdef size_t size = padded(n_tiles, sizeof(Py_ssize_t)) + padded(self.n_slots(), 2 * sizeof(double))
        for i in range(self.job.n_segments):
            segment = &self.job.segments[i]
            n_operands = segment.n_operands + segment.has_master
            n_written += n_operands - 1
            n_empty += n_operands - 1 if segment.n == 0 else 0
            size += padded(n_operands, sizeof(Operand))
            size += padded(most_axes(segment) * (4 + n_operands), sizeof(Py_ssize_t))
        if self.n_bundles + n_written != len(self.held):
            raise RuntimeError("the lists of states were changed while they were laid out")
        self.n_extents = n_written - n_empty
        reserve(&self.pieces, size + padded(2 * n_written + 1, sizeof(Extent)))  # sorting needs twice the room
        self.job.tile_segment = <Py_ssize_t*> take(&self.pieces, n_tiles, sizeof(Py_ssize_t))
        self.job.sums = <double*> take(&self.pieces, self.n_slots(), 2 * sizeof(double))
        self.extents = <Extent*> take(&self.pieces, 2 * n_written + 1, sizeof(Extent))
        return 0

    cdef int fill_segment(self, Py_ssize_t i) except -1:
        """Set the operands of a segment."""
        cdef Segment* segment = &self.job.segments[i]
        cdef cnp.ndarray p = <cnp.ndarray> segment.p, array
        cdef int k, ndim = most_axes(segment), n_operands = segment.n_operands + segment.has_master
        cdef Py_ssize_t* numbers
        segment.operands = <Operand*> take(&self.pieces, n_operands, sizeof(Operand))
        numbers = <Py_ssize_t*> take(&self.pieces, ndim * (4 + n_operands), sizeof(Py_ssize_t))
        if cnp.PyArray_NDIM(p) != segment.p_ndim or n_reals(segment, p) != segment.n:
            raise RuntimeError(f"{self.names[i]}: its shape was changed while it was laid out")
        segment.p_shape, segment.shape, segment.axes = numbers, numbers + ndim, numbers + 2 * ndim
        segment.row_shape = numbers + 3 * ndim
        for k in range(n_operands):
            segment.operands[k].strides = numbers + (4 + k) * ndim
        fill_axes(segment, p)
        fill_row(segment)
        segment.whole = i
        segment.own_scalars = <double*> self.scalars + (self.job.n_segments + i) * self.max_scalars
        set_operand(segment, segment.n_operands if segment.has_master else 0, p, segment.shape)
        set_operand(segment, 1, p, segment.shape)  # a gradient probably has the layout of its parameter
        segment.operands[1].data = NULL
        for k in range(2, segment.n_operands + segment.has_master):
            array = self.held[segment.held + k - 1]
            if cnp.PyArray_TYPE(array) != cnp.NPY_UINT8 and not same_shape(array, p):
                raise RuntimeError(f"a state of {self.names[i]}: its shape was changed while it was laid out")
            set_operand(segment, k if k < segment.n_operands else 0, array, segment.shape)
            if k < segment.n_operands and segment.operands[k].codec == &BFLOAT16:
                segment.operands[k].codec = &BFLOAT16_RANDOM
        segment.others_direct = not segment.has_master
        for k in range(segment.n_operands):
            segment.others_direct &= k == 1 or segment.operands[k].direct
        self.choose_packed(segment)
        return 0

    cdef void choose_packed(self, Segment* segment) noexcept:
        """Choose the packed sweep that can step the operands in place, if any. The gradient is checked later."""
        cdef const Codec* own = segment.operands[segment.n_operands if segment.has_master else 0].codec
        cdef int k, number = packing(own, codec_of_states(segment), segment.has_master)
        if segment.others_direct:
            return
        for k in range(segment.n_operands + segment.has_master):
            if k != 1 and not segment.operands[k].in_place:
                number = N_PACKED
        if number != N_PACKED:
            segment.packed, segment.packed_gradient = segment.all_packed[number], own

    cdef int set_logs(self, logs) except -1:
        """Set the logs of rows that lag: ``(visits, history)`` for each parameter, or None."""
        cdef Py_ssize_t i
        cdef Segment* segment
        for i in range(self.job.n_segments):
            if logs[i] is not None:
                segment = &self.job.segments[i]
                visits, history = logs[i]
                segment.visits = <int64_t*> cnp.PyArray_DATA(<cnp.ndarray?> visits)
                segment.history = <char*> cnp.PyArray_DATA(<cnp.ndarray?> history)
        self.logs = list(logs)
        return 0

    cdef int set_origins(self, origins) except -1:
        """Set the whole parameter that each segment is a part of, and the number of its elements before the segment.
        Then the random bits are those of the whole parameter."""
        cdef Py_ssize_t i
        if len(origins) != self.job.n_segments:
            raise ValueError(f"origins: expected {self.job.n_segments}, one a parameter, got {len(origins)}")
        for i in range(self.job.n_segments):
            self.job.segments[i].whole, self.job.segments[i].offset = origins[i]
        return 0

    cdef void cut(self) noexcept:
        """Put the work of all segments in a row, and cut the row into tiles."""
        cdef Py_ssize_t k, tile = 0
        cdef Segment* segment
        if self.is_cut:
            return
        self.is_cut = True
        self.job.n_elements = self.job.n_bytes = 0
        for k in range(self.job.n_segments):
            segment = &self.job.segments[k]
            segment.first = first_of(segment, self.job.n_elements)
            self.job.n_elements = segment.first + segment.work
            self.job.n_bytes += bytes_of(segment)
            while tile * TILE < self.job.n_elements:
                self.job.tile_segment[tile] = k
                tile += 1

    cdef void cut_whole(self) noexcept:
        """The same for all elements of all segments, independent of the last step."""
        cdef Py_ssize_t i
        for i in range(self.job.n_segments):
            self.job.segments[i].rows.n = -1
            self.set_work(&self.job.segments[i], self.job.segments[i].n)
        self.cut()

    cdef void set_work(self, Segment* segment, Py_ssize_t n) noexcept:
        """Set the number of elements of a segment to work on. The caller then calls `cut`."""
        self.is_cut &= segment.work == n
        segment.work = n

    cdef int note_extents(self) except -1:
        """Note the addresses that a step writes. Refuse arrays that share memory."""
        cdef Py_ssize_t i, n = 0
        cdef int which = 0
        cdef bint meet = False
        cdef Segment* segment
        cdef Extent* last
        while n < self.n_extents:  # all parameters, then all first states, …: arrays of one kind often lie in order
            for i in range(self.job.n_segments):
                segment = &self.job.segments[i]
                if which != 1 and which < segment.n_operands + segment.has_master:
                    self.extents[n] = extent_of(segment, which)
                    n += segment.n > 0
            which += 1
        sort_extents(self.extents, self.extents + n, n)
        self.n_extents = min(n, 1)
        for i in range(1, n):
            last = &self.extents[self.n_extents - 1]
            if self.extents[i].low < last.high:
                meet = True
                last.high = max(last.high, self.extents[i].high)
            else:
                self.extents[self.n_extents] = self.extents[i]
                self.n_extents += 1
        if meet:
            checks.parameters(self.names + self.state_names(), self.written())
        return 0

    cdef list state_names(self):
        cdef Py_ssize_t i
        cdef list names = []
        for i in range(self.job.n_segments):
            segment = &self.job.segments[i]
            names += [f"a state of {self.names[i]}"] * (segment.n_operands - 2 + segment.has_master)
        return names

    # Methods for other modules.

    cdef void form_cohorts(self, const int64_t* steps) noexcept:
        """Let the parameters of a bundle with equal step counts share their scalars."""
        cdef Py_ssize_t b, i, k, begin
        cdef Bundle* bundle
        cdef Cohort* cohort
        self.n_cohorts = 0
        for b in range(self.n_bundles):
            bundle = &self.bundles[b]
            begin = self.n_cohorts
            for i in range(bundle.begin, bundle.end):
                k = self.n_cohorts - 1
                while k >= begin and steps[self.cohorts[k].first] != steps[i]:
                    k -= 1
                if k < begin:
                    k = self.n_cohorts
                    self.n_cohorts += 1
                    cohort = &self.cohorts[k]
                    cohort.bundle, cohort.first = bundle, i
                    cohort.scalars64 = <double*> self.scalars + k * self.max_scalars
                    cohort.scalars32 = (
                        <float*> (<double*> self.scalars + 2 * self.job.n_segments * self.max_scalars)
                        + k * self.max_scalars
                    )
                self.job.segments[i].cohort = &self.cohorts[k]

    cdef int need_buffers(self, int n_threads) except -1:
        """Make buffers for `n_threads`. All calls for a layout have the same number."""
        if self.job.buffers is NULL:
            self.job.buffers = <char*> PyMem_Malloc(n_threads * MAX_OPERANDS * CHUNK * sizeof(double))
            if self.job.buffers is NULL:
                raise MemoryError
        return 0

    cdef Py_ssize_t n_slots(self) noexcept:
        """The greatest number of sums of squares; see `_tiles.slot`."""
        return self.job.n_elements // TILE + 1 + self.job.n_segments

    cdef list written(self):
        """All arrays that a step writes: the parameters, then the states."""
        cdef Py_ssize_t i
        cdef Segment* segment
        cdef list arrays = list(self.params())
        for i in range(self.job.n_segments):
            segment = &self.job.segments[i]
            arrays += self.held[segment.held + 1 : segment.held + segment.n_operands - 1 + segment.has_master]
        return arrays

    cdef list params(self):
        """The list of the parameters, made at the first call."""
        cdef Py_ssize_t i
        if self.listed is None:
            self.listed = [<object> self.job.segments[i].p for i in range(self.job.n_segments)]
        return self.listed

    cdef bint meets_written(self, char* low, char* high) noexcept:
        """Whether a range of addresses overlaps the extent of an array that a step writes."""
        cdef Py_ssize_t first = 0, last = self.n_extents, middle
        while first < last:  # find the first extent that ends after `low`
            middle = (first + last) // 2
            if self.extents[middle].high <= low:
                first = middle + 1
            else:
                last = middle
        return first < self.n_extents and self.extents[first].low < high


cdef const Codec* codec_of_states(Segment* segment) noexcept:
    """The codec of all states of a segment, or NULL if they differ. Without states it is BFLOAT16_RANDOM."""
    cdef int k
    for k in range(3, segment.n_operands):
        if segment.operands[k].codec != segment.operands[2].codec:
            return NULL
    return &BFLOAT16_RANDOM if segment.n_operands == 2 else segment.operands[2].codec


cdef int packing(const Codec* own, const Codec* states, bint has_master) noexcept:
    """The number of the packed sweep for a parameter and states with this storage; N_PACKED if there is none."""
    if own == &FLOAT32 and states == &BFLOAT16_RANDOM:
        return STATES_IN_16
    if own == &BFLOAT16 and states == &BFLOAT16_RANDOM:
        return MASTER_AND_STATES_IN_16 if has_master else ALL_IN_16
    return MASTER_IN_32 if own == &BFLOAT16 and states == &FLOAT32 and has_master else N_PACKED


cdef inline Py_ssize_t first_of(Segment* segment, Py_ssize_t end) noexcept:
    """Where a segment begins after another one. Blocks begin where tiles may be cut."""
    return (end + BLOCK - 1) // BLOCK * BLOCK if segment.in_blocks and segment.work > 0 else end


cdef inline int most_axes(Segment* segment) noexcept:
    """The greatest number of axes of a segment: for a complex parameter one more than the parameter has."""
    return segment.p_ndim + segment.is_complex


cdef inline Py_ssize_t n_reals(Segment* segment, cnp.ndarray p) noexcept:
    return cnp.PyArray_SIZE(p) * (2 if segment.is_complex else 1)


cdef inline bint is_usual(array) noexcept:
    """Whether this is clearly an array that can be written in place: contiguous, of float32 or float64."""
    if not cnp.PyArray_CheckExact(array):
        return False
    cdef int typenum = cnp.PyArray_TYPE(<cnp.ndarray> array)
    return (
        (typenum == cnp.NPY_FLOAT or typenum == cnp.NPY_DOUBLE)
        and cnp.PyArray_ISCARRAY(<cnp.ndarray> array)  # contiguous, aligned, writeable, in this machine's byte order
    )


cdef inline bint same_shape(cnp.ndarray one, cnp.ndarray other) noexcept:
    cdef int k
    if cnp.PyArray_NDIM(one) != cnp.PyArray_NDIM(other):
        return False
    for k in range(cnp.PyArray_NDIM(one)):
        if cnp.PyArray_DIM(one, k) != cnp.PyArray_DIM(other, k):
            return False
    return True
