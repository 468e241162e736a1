# cython: language_level=3, cdivision=True
"""The plan: the arrays of one optimizer, checked once and laid out as segments, and the one call that steps them all.
It knows no algorithm: a `Kernel` brings the loops (sweeps) and the function of a step's scalars.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t
from libc.string cimport memcpy

import numpy as np

from . import checks

cnp.import_array()

include "built.pxi"  # BUILT_ISAS: what setup.py built sweeps for

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
ctypedef void (*scalars_t)(double t, const double* hyper, double* out) noexcept nogil

cdef extern from "pool.h":
    enum: POOL_MAX_HELPERS
    void pool_run(
        void (*work)(void*, int, int64_t) noexcept nogil, void* context, int64_t n_tiles, int helpers, bint large
    ) nogil

cdef enum:
    MAX_OPERANDS = 16       # p, g and up to 14 states
    TILE = 8192             # elements that a thread takes at a time, across the borders of arrays and groups
    ALONE = 30_000          # a plan of fewer elements stays on the caller: what helpers could save is too little
    LARGE = 1 << 20         # a plan with more bytes of parameters than this is worth waking sleeping helpers for
    CHUNK = 1024            # elements gathered at a time where an array is not plain contiguous memory
    PYTHON_CHUNK = 32768    # elements a Python sweep takes at a time: few calls, temporaries that stay in cache


cdef class Kernel:
    """A rule made runnable: its sweeps and step scalars, as addresses of C functions or as Python functions.

    `sweeps` maps the dtypes "float32" and "float64" to addresses; `scalars` is one. Python functions take their place
    in `python`: a pair ``(sweep(scalars, *arrays), scalars(t, hyper))``. `owner` is kept alive.
    """

    cdef readonly object rule
    cdef object python_sweep, python_scalars, owner
    cdef sweep_t sweep32, sweep64
    cdef scalars_t scalars
    cdef readonly int n_operands, n_hyper, n_scalars

    def __init__(self, rule, sweeps=None, size_t scalars=0, python=None, owner=None):
        self.rule = rule
        self.owner = owner
        self.n_operands = 2 + len(rule.states)
        self.n_hyper = len(rule.hyper)
        self.n_scalars = rule.n_scalars
        if self.n_operands > MAX_OPERANDS:
            raise ValueError(f"rule {rule.name!r}: expected at most {MAX_OPERANDS - 2} states, got {len(rule.states)}")
        if python is None:
            self.sweep32 = <sweep_t> <size_t> sweeps["float32"]
            self.sweep64 = <sweep_t> <size_t> sweeps["float64"]
            self.scalars = <scalars_t> scalars
        else:
            self.python_sweep, self.python_scalars = python


cdef struct Group:
    void* kernel            # a Kernel, borrowed: the plan holds the reference
    sweep_t sweep32
    sweep_t sweep64
    double* hyper
    double* scalars64
    float* scalars32

cdef struct Operand:
    char* data
    Py_ssize_t* strides     # by the segment's axes, in bytes; unused where `direct`
    bint direct             # element k lies at data + k * itemsize

cdef struct Segment:        # one parameter with its gradient and states
    Group* group
    Py_ssize_t first        # which element of the plan is its first
    Py_ssize_t n
    Py_ssize_t itemsize
    int typenum
    int ndim
    void* p                 # the parameter, borrowed: the plan holds the reference
    bint others_direct      # all operands but the gradient are direct
    bint direct             # all operands are: the sweep runs on them where they lie
    int n_operands
    Py_ssize_t* shape       # by axis, slowest first in p's memory
    Py_ssize_t* axes        # the axis of the arrays that stands at each place
    Operand* operands       # p, g, states

cdef struct Extent:         # a range of addresses that a step writes
    char* low
    char* high

cdef struct Layout:         # all that a thread needs to step a tile
    Segment* segments
    Py_ssize_t n_segments
    Py_ssize_t n_elements
    Py_ssize_t n_bytes          # of the parameters
    Py_ssize_t* tile_segment    # the segment in which each tile begins
    char* buffers               # MAX_OPERANDS * CHUNK elements for each thread


cdef void* allocate(size_t count, size_t size) except NULL:
    cdef void* memory = PyMem_Calloc(count or 1, size)
    if memory is NULL:
        raise MemoryError
    return memory


cdef class Plan:
    """The arrays of one optimizer and the compiled call that steps them.

    `groups` is a list of ``(kernel, params, states)``: `params` a list of arrays, `states` for each of them a list of
    arrays of the same shape and dtype, one for each of the kernel's states. `names` are the parameters' names, for
    messages. The caller has checked params and states (`checks.parameter`); gradients are checked here, at each step.
    """

    cdef Group* groups
    cdef Layout layout
    cdef Extent* extents            # of parameters and states, sorted, those that meet joined
    cdef Py_ssize_t n_extents
    cdef readonly Py_ssize_t n_groups
    cdef readonly int n_threads
    cdef public long long t         # steps done
    cdef readonly list params, names
    cdef list kernels, states
    cdef tuple bound
    cdef bint bound_is_placed       # whether the segments point at the bound gradients
    cdef bint busy, compiled

    def __cinit__(self):
        self.groups = NULL
        self.extents = NULL
        self.layout = Layout(NULL, 0, 0, 0, NULL, NULL)

    def __init__(self, list groups, list names, long long t=0, int n_threads=1):
        if self.groups is not NULL:
            raise RuntimeError("a Plan is initialised once")
        self.t = t
        self.n_threads = min(n_threads, POOL_MAX_HELPERS + 1)
        self.names = names
        self.kernels = [kernel for kernel, _, _ in groups]
        self.params = [p for _, params, _ in groups for p in params]
        self.states = [s for _, _, states in groups for s in states]
        self.groups = <Group*> allocate(len(groups), sizeof(Group))
        self.n_groups = len(groups)
        self.layout.segments = <Segment*> allocate(len(self.params), sizeof(Segment))
        self.layout.n_segments = len(self.params)
        self.compiled = True
        cdef Py_ssize_t k = 0
        for i, (kernel, params, states) in enumerate(groups):
            self.add_group(&self.groups[i], kernel)
            for p, s in zip(params, states, strict=True):
                self.add_segment(&self.layout.segments[k], &self.groups[i], p, s)
                k += 1
        self.cut_tiles()
        self.note_extents()

    cdef int add_group(self, Group* group, Kernel kernel) except -1:
        group.kernel = <void*> kernel
        group.sweep32 = kernel.sweep32
        group.sweep64 = kernel.sweep64
        group.hyper = <double*> allocate(kernel.n_hyper, sizeof(double))
        group.scalars64 = <double*> allocate(kernel.n_scalars, sizeof(double))
        group.scalars32 = <float*> allocate(kernel.n_scalars, sizeof(float))
        if kernel.python_sweep is not None:
            self.compiled = False
        return 0

    cdef int add_segment(self, Segment* segment, Group* group, cnp.ndarray p, list states) except -1:
        cdef int i, k
        cdef int ndim = cnp.PyArray_NDIM(p)
        for state in states:
            checks.like("a state", state, p)
        if 2 + len(states) != (<Kernel> group.kernel).n_operands:
            raise ValueError(f"expected {(<Kernel> group.kernel).n_operands - 2} states a parameter, got {len(states)}")
        segment.group = group
        segment.first = self.layout.n_elements
        segment.n = cnp.PyArray_SIZE(p)
        segment.itemsize = cnp.PyArray_ITEMSIZE(p)
        segment.typenum = cnp.PyArray_TYPE(p)
        segment.ndim = ndim
        segment.n_operands = 2 + len(states)
        segment.shape = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        segment.axes = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        segment.operands = <Operand*> allocate(segment.n_operands, sizeof(Operand))
        for k in range(segment.n_operands):
            segment.operands[k].strides = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        for k, axis in enumerate(memory_order(p)):
            segment.axes[k] = axis
            segment.shape[k] = cnp.PyArray_DIM(p, axis)
        place(segment, 0, p)
        for i, state in enumerate(states):
            place(segment, 2 + i, state)
        segment.p = <void*> p
        segment.others_direct = True
        for k in range(segment.n_operands):
            segment.others_direct &= k == 1 or segment.operands[k].direct
        self.layout.n_elements += segment.n
        self.layout.n_bytes += segment.n * segment.itemsize
        return 0

    cdef int note_extents(self) except -1:
        joined = []
        cdef Py_ssize_t i
        cdef Segment* segment
        cdef Extent extent
        found = []
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            for which in range(segment.n_operands):
                if which != 1 and segment.n > 0:
                    extent = extent_of(segment, which)
                    found.append((<size_t> extent.low, <size_t> extent.high))
        for low, high in sorted(found):
            if joined and low < joined[-1][1]:
                joined[-1][1] = max(high, joined[-1][1])
            else:
                joined.append([low, high])
        self.extents = <Extent*> allocate(len(joined), sizeof(Extent))
        self.n_extents = len(joined)
        for k, (low, high) in enumerate(joined):
            self.extents[k].low = <char*> <size_t> low
            self.extents[k].high = <char*> <size_t> high
        return 0

    cdef list written(self):
        """All arrays that a step writes."""
        return self.params + [state for states in self.states for state in states]

    cdef bint meets_written(self, char* low, char* high) noexcept:
        """Whether a range of addresses meets the extent of an array that a step writes."""
        cdef Py_ssize_t first = 0, last = self.n_extents, middle
        while first < last:  # the first extent that ends behind `low`
            middle = (first + last) // 2
            if self.extents[middle].high <= low:
                first = middle + 1
            else:
                last = middle
        return first < self.n_extents and self.extents[first].low < high

    cdef int cut_tiles(self) except -1:
        cdef Py_ssize_t k, tile = 0
        cdef Segment* segment
        self.layout.tile_segment = <Py_ssize_t*> allocate(self.layout.n_elements // TILE + 1, sizeof(Py_ssize_t))
        for k in range(self.layout.n_segments):
            segment = &self.layout.segments[k]
            while tile * TILE < segment.first + segment.n:
                self.layout.tile_segment[tile] = k
                tile += 1
        return 0

    def __dealloc__(self):
        cdef Py_ssize_t i, k
        cdef Segment* segment
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            if segment.operands is not NULL:
                for k in range(segment.n_operands):
                    PyMem_Free(segment.operands[k].strides)
            PyMem_Free(segment.operands)
            PyMem_Free(segment.shape)
            PyMem_Free(segment.axes)
        if self.groups is not NULL:
            for i in range(self.n_groups):
                PyMem_Free(self.groups[i].hyper)
                PyMem_Free(self.groups[i].scalars64)
                PyMem_Free(self.groups[i].scalars32)
        PyMem_Free(self.layout.segments)
        PyMem_Free(self.layout.tile_segment)
        PyMem_Free(self.layout.buffers)
        PyMem_Free(self.groups)
        PyMem_Free(self.extents)

    def set_hyper(self, Py_ssize_t group, values):
        """The hyper-parameters of a group, in the order of its rule's `hyper`; they hold from the next step on."""
        if not 0 <= group < self.n_groups:
            raise IndexError(f"group: expected 0 … {self.n_groups - 1}, got {group}")
        cdef Kernel kernel = self.kernels[group]
        values = [float(value) for value in values]
        if len(values) != kernel.n_hyper:
            raise ValueError(f"rule {kernel.rule.name!r} takes {kernel.rule.hyper}, got {len(values)} values")
        for i in range(kernel.n_hyper):
            self.groups[group].hyper[i] = values[i]

    def bind(self, grads):
        """Check these gradients now and read them at every `step` that is given none."""
        if self.busy:
            raise RuntimeError("another thread is inside a step of this optimizer")
        self.bound = tuple(grads)
        self.bound_is_placed = False
        self.admit_all(self.bound)
        self.bound_is_placed = True

    def step(self, grads=None):
        """One step of every array, t counted up: either all of it happens or, when an error is raised, nothing."""
        cdef tuple given = self.bound if grads is None else tuple(grads)  # keeps them alive, whoever changes a list
        if self.busy:
            raise RuntimeError("another thread is inside a step of this optimizer; give each thread its own, or a lock")
        self.busy = True
        try:
            if grads is not None or not self.bound_is_placed:
                self.bound_is_placed = False
                self.admit_all(given)
                self.bound_is_placed = grads is None
            self.prepare_scalars()
            if self.compiled:
                with nogil:
                    sweep_plan(&self.layout, self.n_threads)
            else:
                self.sweep_python()
            self.t += 1
        finally:
            self.busy = False

    cdef int admit_all(self, tuple grads) except -1:
        cdef Py_ssize_t i
        cdef bint gathers = False
        cdef Segment* segment
        if len(grads) != self.layout.n_segments:
            raise ValueError(f"expected {self.layout.n_segments} gradients, one a parameter, got {len(grads)}")
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            g = grads[i]
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> segment.p):
                checks.parameter(self.names[i], self.params[i])
            if not self.admit(segment, g):
                self.look_closer(i, g)
            segment.direct = segment.others_direct and segment.operands[1].direct
            gathers |= not segment.direct
        if gathers and self.layout.buffers is NULL:
            self.layout.buffers = <char*> allocate(self.n_threads * MAX_OPERANDS * CHUNK, sizeof(double))
        return 0

    cdef inline bint admit(self, Segment* segment, object g) noexcept:
        """True if `g` is beyond doubt a plain gradient that fits; False calls for a closer look."""
        cdef int k
        cdef char* data
        if not cnp.PyArray_CheckExact(g):
            return False
        if (
            cnp.PyArray_TYPE(<cnp.ndarray> g) != segment.typenum
            or cnp.PyArray_NDIM(<cnp.ndarray> g) != segment.ndim
            or not cnp.PyArray_CHKFLAGS(<cnp.ndarray> g, cnp.NPY_ARRAY_CARRAY_RO)
            or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> g)
        ):
            return False
        for k in range(segment.ndim):
            if segment.axes[k] != k or cnp.PyArray_DIM(<cnp.ndarray> g, k) != segment.shape[k]:
                return False
        data = cnp.PyArray_BYTES(<cnp.ndarray> g)
        if segment.operands[1].direct and data == segment.operands[1].data:
            return True  # the memory that was looked at in the last step
        if self.meets_written(data, data + segment.n * segment.itemsize):
            return segment.n == 0
        segment.operands[1].data = data
        segment.operands[1].direct = True
        return True

    cdef int look_closer(self, Py_ssize_t i, g) except -1:
        """Admit a gradient in any layout, or say what is wrong with it."""
        cdef Segment* segment = &self.layout.segments[i]
        cdef int k
        cdef cnp.ndarray p = self.params[i]
        for k in range(segment.ndim):
            if cnp.PyArray_NDIM(p) != segment.ndim or cnp.PyArray_DIM(p, <int> segment.axes[k]) != segment.shape[k]:
                shape = self.params[i].shape
                raise ValueError(f"{self.names[i]}: its shape was changed to {shape}; make a new optimizer")
        checks.gradient(self.names[i], g, p)
        place(segment, 1, g)
        cdef Extent extent = extent_of(segment, 1)
        if segment.n > 0 and self.meets_written(extent.low, extent.high):
            segment.operands[1].direct = False  # the next step looks again, whatever comes
            checks.apart(self.names[i], g, self.written())
            place(segment, 1, g)
        return 0

    cdef int prepare_scalars(self) except -1:
        """Every group's scalars of step t + 1: computed in float64, and rounded once for the float32 sweeps."""
        cdef Py_ssize_t i, k
        cdef Group* group
        cdef Kernel kernel
        for i in range(self.n_groups):
            group = &self.groups[i]
            kernel = <Kernel> group.kernel
            if kernel.python_sweep is None:
                kernel.scalars(self.t + 1, group.hyper, group.scalars64)
            else:
                values = kernel.python_scalars(self.t + 1, [group.hyper[k] for k in range(kernel.n_hyper)])
                for k in range(kernel.n_scalars):
                    group.scalars64[k] = values[k]
            for k in range(kernel.n_scalars):
                group.scalars32[k] = <float> group.scalars64[k]
        return 0

    cdef int sweep_python(self) except -1:
        """The same step where kernels are Python: their sweeps are called with arrays that view the chunks."""
        cdef Py_ssize_t i
        cdef Segment* segment
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            sweep_in_python(segment, <Kernel> segment.group.kernel, self.layout.buffers)
        return 0


cdef void sweep_plan(Layout* layout, int n_threads) noexcept nogil:
    """Step every segment: on this thread alone where there is little to do, else tile by tile with helpers."""
    cdef Py_ssize_t i
    cdef int helpers
    cdef int64_t n_tiles = (layout.n_elements + TILE - 1) // TILE
    if n_threads > 1 and layout.n_elements >= ALONE:
        helpers = <int> min(<int64_t> n_threads - 1, n_tiles // 2)
        pool_run(sweep_tile, layout, n_tiles, helpers, layout.n_bytes >= LARGE)
        return
    for i in range(layout.n_segments):
        sweep_range(&layout.segments[i], 0, layout.segments[i].n, layout.buffers)


cdef void sweep_tile(void* context, int worker, int64_t tile) noexcept nogil:
    """Step the plan's elements of one tile: a part of an array, or parts of several."""
    cdef Layout* layout = <Layout*> context
    cdef char* buffer = NULL
    cdef Py_ssize_t begin = tile * TILE
    cdef Py_ssize_t end = min(begin + TILE, layout.n_elements)
    cdef Segment* segment = &layout.segments[layout.tile_segment[tile]]
    if layout.buffers is not NULL:
        buffer = layout.buffers + <Py_ssize_t> worker * MAX_OPERANDS * CHUNK * sizeof(double)
    while begin < end:
        sweep_range(segment, begin - segment.first, min(end - segment.first, segment.n), buffer)
        begin = segment.first + segment.n
        segment += 1


def state_like(cnp.ndarray p, value):
    """A new array of p's shape and dtype full of `value`, its elements in the order in which p's lie in memory."""
    axes = memory_order(p)
    state = np.zeros([cnp.PyArray_DIM(p, axis) for axis in axes], p.dtype)
    if value:
        state.fill(value)
    return state.transpose(np.argsort(axes)) if axes else state


cdef list memory_order(cnp.ndarray p):
    """p's axes from the slowest to the fastest in memory; C order where strides do not tell."""
    cdef int k
    strides = [abs(cnp.PyArray_STRIDE(p, k)) if cnp.PyArray_DIM(p, k) > 1 else 0 for k in range(cnp.PyArray_NDIM(p))]
    if cnp.PyArray_IS_C_CONTIGUOUS(p):
        return list(range(len(strides)))
    return sorted(range(len(strides)), key=lambda k: -strides[k])


cdef void place(Segment* segment, int which, cnp.ndarray array) noexcept:
    """Where the elements of an operand lie, in the order of the segment's axes."""
    cdef Operand* operand = &segment.operands[which]
    cdef Py_ssize_t expected = segment.itemsize
    cdef int k
    operand.data = cnp.PyArray_BYTES(array)
    operand.direct = cnp.PyArray_ISALIGNED(array)
    for k in range(segment.ndim - 1, -1, -1):
        operand.strides[k] = cnp.PyArray_STRIDE(array, <int> segment.axes[k])
        if segment.shape[k] != 1 and operand.strides[k] != expected:
            operand.direct = False
        expected *= segment.shape[k]


cdef Extent extent_of(Segment* segment, int which) noexcept:
    """The addresses between which an operand's elements lie."""
    cdef Operand* operand = &segment.operands[which]
    cdef Extent extent = Extent(operand.data, operand.data + segment.itemsize)
    cdef Py_ssize_t reach
    cdef int k
    for k in range(segment.ndim):
        reach = operand.strides[k] * (segment.shape[k] - 1)
        if reach < 0:
            extent.low += reach
        else:
            extent.high += reach
    return extent


cdef inline void sweep_range(Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer) noexcept nogil:
    """Step the elements begin … end of a segment: in place where all operands are direct, else chunk by chunk."""
    cdef void* arrays[MAX_OPERANDS]
    cdef sweep_t sweep = segment.group.sweep32 if segment.itemsize == 4 else segment.group.sweep64
    cdef const void* scalars = (
        <const void*> segment.group.scalars32 if segment.itemsize == 4 else <const void*> segment.group.scalars64
    )
    cdef Py_ssize_t n
    if segment.direct:
        views(segment, begin, end - begin, NULL, arrays)
        sweep(end - begin, arrays, scalars)
        return
    while begin < end:
        n = min(end - begin, <Py_ssize_t> CHUNK)
        views(segment, begin, n, buffer, arrays)
        sweep(n, arrays, scalars)
        put_back(segment, begin, n, arrays)
        begin += n


cdef int sweep_in_python(Segment* segment, Kernel kernel, char* buffer) except -1:
    cdef void* arrays[MAX_OPERANDS]
    cdef Py_ssize_t begin = 0
    cdef cnp.npy_intp n
    cdef int k
    cdef Group* group = segment.group
    scalars = [group.scalars64[k] for k in range(kernel.n_scalars)]
    while begin < segment.n:
        n = min(segment.n - begin, <Py_ssize_t> (PYTHON_CHUNK if segment.direct else CHUNK))
        views(segment, begin, n, buffer, arrays)
        kernel.python_sweep(
            scalars,
            *[cnp.PyArray_SimpleNewFromData(1, &n, segment.typenum, arrays[k]) for k in range(segment.n_operands)],
        )
        put_back(segment, begin, n, arrays)
        begin += n
    return 0


cdef inline void views(Segment* segment, Py_ssize_t begin, Py_ssize_t n, char* buffer, void** arrays) noexcept nogil:
    """Contiguous elements begin … begin + n of each operand: itself where direct, else gathered into the buffer."""
    cdef int k
    for k in range(segment.n_operands):
        if segment.operands[k].direct:
            arrays[k] = segment.operands[k].data + begin * segment.itemsize
        else:
            arrays[k] = buffer + k * CHUNK * sizeof(double)
            move(segment, k, begin, n, <char*> arrays[k], False)


cdef inline void put_back(Segment* segment, Py_ssize_t begin, Py_ssize_t n, void** arrays) noexcept nogil:
    """Scatter what the sweep wrote: the parameter and the states, not the gradient."""
    cdef int k
    for k in range(segment.n_operands):
        if k != 1 and not segment.operands[k].direct:
            move(segment, k, begin, n, <char*> arrays[k], True)


cdef void move(Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* buffer, bint back) noexcept nogil:
    """Copy elements begin … begin + n of a strided operand to the buffer, or `back`, run by run of the last axis."""
    cdef Operand* operand = &segment.operands[which]
    cdef int last = segment.ndim - 1
    cdef Py_ssize_t itemsize = segment.itemsize
    cdef Py_ssize_t row, run, stride
    cdef char* data
    cdef int k
    if last < 0:
        copy_run(buffer, operand.data, 1, itemsize, itemsize, back)
        return
    stride = operand.strides[last]
    while n > 0:
        row = begin // segment.shape[last]
        run = min(n, (row + 1) * segment.shape[last] - begin)
        data = operand.data + (begin - row * segment.shape[last]) * stride
        for k in range(last - 1, -1, -1):
            data += row % segment.shape[k] * operand.strides[k]
            row = row // segment.shape[k]
        copy_run(buffer, data, run, stride, itemsize, back)
        buffer += run * itemsize
        begin += run
        n -= run


cdef inline void copy_run(
    char* buffer, char* data, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t itemsize, bint back
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):  # memcpy of a constant size is one move, and right for a misaligned address
        if itemsize == 4:
            if back:
                memcpy(data + i * stride, buffer + i * 4, 4)
            else:
                memcpy(buffer + i * 4, data + i * stride, 4)
        elif back:
            memcpy(data + i * stride, buffer + i * 8, 8)
        else:
            memcpy(buffer + i * 8, data + i * stride, 8)


def cpu_supports_v3() -> bool:
    """Whether this CPU and its operating system run x86-64-v3 code (AVX2)."""
    return bool(has_v3())


def cpu_supports_v4() -> bool:
    """Whether this CPU and its operating system run x86-64-v4 code (AVX-512)."""
    return bool(has_v4())


cdef extern from *:
    """
    #if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
      #define HAS(feature) (__builtin_cpu_supports(feature) != 0)
      static int has_v3(void) {
          __builtin_cpu_init();
          return HAS("avx2") && HAS("fma") && HAS("bmi") && HAS("bmi2");
      }
      static int has_v4(void) {
          return has_v3() && HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl");
      }
    #else
      static int has_v3(void) { return 0; }
      static int has_v4(void) { return 0; }
    #endif
    """
    int has_v3()
    int has_v4()
