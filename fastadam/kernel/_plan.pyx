# cython: language_level=3, cdivision=True
"""The plan: the arrays of one optimizer, checked once and laid out as segments, and the one call that steps them all.
It knows no algorithm: a `Kernel` brings the loops (sweeps) and the function of a step's scalars.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.pythread cimport PyThread_get_thread_ident
from libc.float cimport FLT_MIN
from libc.math cimport INFINITY, fabs, isfinite, ldexp, sqrt
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

import _signal  # without signal's functions in Python, within which handlers could run
import os
from functools import partial
from _thread import get_ident
from threading import main_thread

import numpy as np

from ..rules import clip_factor
from . import checks

cnp.import_array()

include "built.pxi"  # BUILT_ISAS: what setup.py built sweeps for

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
ctypedef void (*scalars_t)(double t, const double* hyper, double* out) noexcept nogil

# codecs.h: a run of elements from memory to a tile and back, and the sum of a tile's squares
ctypedef void (*load_t)(Py_ssize_t n, const char* data, Py_ssize_t stride, void* tile) noexcept nogil
ctypedef void (*store_t)(
    Py_ssize_t n, char* data, Py_ssize_t stride, const void* tile, uint64_t key, uint64_t place
) noexcept nogil
ctypedef void (*squares_t)(Py_ssize_t n, const void* tile, double scale, double* sum) noexcept nogil

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

cdef extern from "signals.h":
    ctypedef struct disposition_t:
        pass
    void disposition_read(int number, disposition_t* kept)
    void disposition_restore(int number, const disposition_t* kept)

SIGNALS = sorted(_signal.valid_signals())

#: the most that a step uses: 1 where the build has no threads
MAX_THREADS = POOL_MAX_HELPERS + 1

cdef enum:
    MAX_OPERANDS = 16       # p, g, up to 13 states, and the parameter of a master weight
    TILE = 8192             # elements that a thread takes at a time, across the borders of arrays and groups
    ALONE = 30_000          # a plan of fewer elements stays on the caller: what helpers could save is too little
    LARGE = 1 << 20         # a plan with more bytes of parameters than this is worth waking sleeping helpers for
    CHUNK = 1024            # elements loaded at a time where an array is not plain contiguous memory
    PYTHON_CHUNK = 32768    # elements a Python sweep takes at a time: few calls, temporaries that stay in cache
    FACTOR = 0              # places of what a step brings, in front of a group's hyper-parameters:
    CLIP_VALUE = 1          # rules.OF_THE_STEP
    N_OF_THE_STEP = 2

cdef struct Codec:          # how numbers are stored
    Py_ssize_t itemsize
    bint plain              # as they are computed
    load_t load
    store_t store

cdef Codec FLOAT16, BFLOAT16, BFLOAT16_RANDOM, FLOAT32, FLOAT64, DOUBLE  # the last alone is computed in float64
cdef squares_t squares32, squares64


def use_codecs(dict addresses):
    """Take the functions of codecs.h from the instruction set that was chosen: their names and addresses."""
    global FLOAT16, BFLOAT16, BFLOAT16_RANDOM, FLOAT32, FLOAT64, DOUBLE, squares32, squares64
    FLOAT16 = codec(2, False, addresses["load_float16"], addresses["store_float16"])
    BFLOAT16 = codec(2, False, addresses["load_bfloat16"], addresses["store_bfloat16"])
    BFLOAT16_RANDOM = codec(2, False, addresses["load_bfloat16"], addresses["store_bfloat16_random"])
    FLOAT32 = codec(4, True, addresses["load_float32"], addresses["store_float32"])
    FLOAT64 = codec(8, False, addresses["load_float64"], addresses["store_float64"])
    DOUBLE = codec(8, True, addresses["load_double"], addresses["store_double"])
    squares32 = <squares_t> <size_t> addresses["squares_float32"]
    squares64 = <squares_t> <size_t> addresses["squares_float64"]


cdef Codec codec(Py_ssize_t itemsize, bint plain, size_t load, size_t store):
    return Codec(itemsize, plain, <load_t> load, <store_t> store)


def to_bfloat16(const float[::1] source, uint16_t[::1] bits):
    """float32 numbers rounded to nearest even, as the bits of bfloat16."""
    cdef Py_ssize_t n = source.shape[0]
    need_as_many(n, bits.shape[0])
    if n > 0:
        with nogil:
            BFLOAT16.store(n, <char*> &bits[0], 2, &source[0], 0, 0)


@cython.boundscheck(False)
@cython.wraparound(False)
def add_bfloat16(const uint16_t[::1] bits, float[::1] target):
    """Add bfloat16 numbers, given as bits, to float32 numbers."""
    cdef float tile[CHUNK]
    cdef float* sums
    cdef Py_ssize_t first = 0, k, n
    need_as_many(target.shape[0], bits.shape[0])
    with nogil:
        while first < target.shape[0]:
            n = min(target.shape[0] - first, <Py_ssize_t> CHUNK)
            sums = &target[first]
            BFLOAT16.load(n, <const char*> &bits[first], 2, tile)
            for k in range(n):
                sums[k] += tile[k]
            first += n


cdef int need_as_many(Py_ssize_t expected, Py_ssize_t came) except -1:
    if came != expected:
        raise ValueError(f"expected {expected} elements, got {came}")
    return 0


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


cdef struct Group:
    void* kernel            # a Kernel, borrowed: the plan holds the reference
    sweep_t sweep32
    sweep_t sweep64
    double* hyper
    double* scalars64
    float* scalars32
    int64_t begun           # steps that the plan had done before the group was added

cdef struct Operand:
    char* data
    Py_ssize_t* strides     # by the segment's axes, in bytes
    bint uniform            # element k lies at data + k * step
    Py_ssize_t step
    const Codec* codec
    bint contiguous         # uniform, its step the size of an element
    bint direct             # contiguous, aligned and plain: the sweep runs on it where it lies

cdef struct Segment:        # one parameter with its gradient and states
    Group* group
    Py_ssize_t place        # among the segments
    Py_ssize_t first        # which element of the plan is its first
    Py_ssize_t n
    Py_ssize_t whole        # what random bits hang on: the number of the parameter that it is (a part of),
    Py_ssize_t offset       # and how many of that parameter's elements stand before it
    Py_ssize_t itemsize     # of what it is computed in, and the type
    int typenum
    int grad_typenum        # of the gradient that was last looked at closely
    int ndim                # of the segment: axes of more or less than one element
    void* p                 # the parameter, borrowed: the plan holds the reference
    int p_ndim
    int p_typenum
    Py_ssize_t* p_shape
    bint others_direct      # all operands but the gradient are direct
    bint direct             # all operands are
    int n_operands          # of the sweep
    bint has_master         # the sweep's p is a master weight; operand n_operands is the parameter, stored from it
    Py_ssize_t* shape       # by axis of the segment, slowest first in p's memory
    Py_ssize_t* axes        # the axis of the arrays that stands at each place
    Operand* operands       # p, g, states

cdef struct Extent:         # a range of addresses that a step writes
    char* low
    char* high

cdef struct Layout:         # all that a thread needs to work on a tile
    void (*work)(Layout*, Segment*, Py_ssize_t, Py_ssize_t, char*, int64_t) noexcept nogil  # on a part of a segment
    Segment* segments
    Py_ssize_t n_segments
    Py_ssize_t n_elements
    Py_ssize_t begin            # the elements that are worked on: all of the plan's, or a part
    Py_ssize_t end
    Py_ssize_t n_bytes          # of the parameters
    Py_ssize_t* tile_segment    # the segment in which each tile begins
    char* buffers               # MAX_OPERANDS * CHUNK elements for each thread
    uint64_t noise              # of this step
    bint keeps_denormals        # in this step, for a factor or a clip value that is one
    bint zero_grads             # leave zeros in the gradients
    double* sums                # of each tile's squares: high and low parts
    double scale                # of what is squared


cdef int64_t process = 1  # a number for this process: a forked child has another


def in_child():
    """Know that this process is a forked child now."""
    global process
    process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=in_child)


cdef void* allocate(size_t count, size_t size) except NULL:
    cdef void* memory = PyMem_Calloc(count or 1, size)
    if memory is NULL:
        raise MemoryError
    return memory


@cython.final
cdef class Plan:
    """The arrays of one optimizer and the compiled call that steps them.

    `groups` is a list of ``(kernel, params, states)``: `params` a list of arrays, `states` for each of them a list of
    arrays of the same shape, one for each of the kernel's states, and one more where the parameter has a master weight.
    float64 parameters are computed in float64, others in float32; states are of that dtype or, rounded
    stochastically by `seed`, bfloat16. `names` are the parameters' names, for messages. The caller has checked params
    and states (`checks.parameter`); gradients are checked here, at each step.
    """

    cdef Group* groups
    cdef Layout layout
    cdef Extent* extents            # of parameters and states, sorted, those that meet joined
    cdef Py_ssize_t n_extents
    cdef readonly Py_ssize_t n_groups
    cdef readonly int n_threads
    cdef public long long t         # steps done
    cdef public unsigned long long seed
    cdef public long long skipped   # steps that were left out, for a gradient that was not finite
    cdef readonly object grad_norm  # of the last step's gradients, where it was measured
    cdef readonly list params, names
    cdef list kernels, states
    cdef tuple bound
    cdef list doubtful              # numbers of gradients whose extent meets that of an array that is written
    cdef list converted             # arrays made of gradients that are NumPy scalars, kept alive for the step
    cdef bint grads_apart           # whether these gradients were seen to be apart from one another
    cdef int64_t holder             # the process that a thread holds the plan in, or 0
    cdef unsigned long holding_thread
    cdef public int64_t changes     # how often the arrays were changed
    cdef public bint retired        # whether another plan has taken this one's place
    cdef bint compiled
    cdef public bint torn           # whether a sweep was begun and not ended: arrays may be of two steps

    def __cinit__(self):
        self.groups = NULL
        self.extents = NULL
        memset(&self.layout, 0, sizeof(Layout))

    def __init__(self, list groups, list names, long long t=0, int n_threads=1, unsigned long long seed=0):
        if self.groups is not NULL:
            raise RuntimeError("a Plan is initialised once")
        self.t = t
        self.seed = seed
        self.n_threads = n_threads
        self.names = names
        self.kernels = [kernel for kernel, _, _ in groups]
        self.params = [p for _, params, _ in groups for p in params]
        self.states = [s for _, _, states in groups for s in states]
        self.groups = <Group*> allocate(len(groups), sizeof(Group))
        self.n_groups = len(groups)
        self.layout.segments = <Segment*> allocate(len(self.params), sizeof(Segment))
        self.layout.n_segments = len(self.params)
        self.compiled = True
        self.doubtful, self.converted = [], []
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
        cdef list axes = [axis for axis in memory_order(p) if cnp.PyArray_DIM(p, axis) != 1]
        cdef int n_states = (<Kernel> group.kernel).n_operands - 2
        if not n_states <= len(states) <= n_states + 1:
            raise ValueError(f"expected {n_states} states a parameter, got {len(states)}")
        segment.group = group
        segment.place = segment - self.layout.segments
        name = f"a state of {self.names[segment.place]}"
        for state in states:
            checks.state(name, state, p)
        segment.whole = segment.place
        segment.first = self.layout.n_elements
        segment.n = cnp.PyArray_SIZE(p)
        segment.typenum = cnp.NPY_DOUBLE if cnp.PyArray_TYPE(p) == cnp.NPY_DOUBLE else cnp.NPY_FLOAT
        segment.itemsize = 8 if segment.typenum == cnp.NPY_DOUBLE else 4
        segment.p_ndim = ndim
        segment.p_typenum = segment.grad_typenum = cnp.PyArray_TYPE(p)
        segment.ndim = len(axes)
        segment.n_operands = 2 + n_states
        segment.has_master = len(states) > n_states
        segment.p_shape = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        segment.shape = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        segment.axes = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        segment.operands = <Operand*> allocate(segment.n_operands + segment.has_master, sizeof(Operand))
        for k in range(segment.n_operands + segment.has_master):
            segment.operands[k].strides = <Py_ssize_t*> allocate(ndim, sizeof(Py_ssize_t))
        for k in range(ndim):
            segment.p_shape[k] = cnp.PyArray_DIM(p, k)
        for k, axis in enumerate(axes):
            segment.axes[k] = axis
            segment.shape[k] = cnp.PyArray_DIM(p, axis)
        place(segment, segment.n_operands if segment.has_master else 0, p)
        place(segment, 1, p)  # the layout that a gradient most likely has
        segment.operands[1].data = NULL
        if segment.has_master:
            place(segment, 0, states[n_states])
        for i in range(n_states):
            place(segment, 2 + i, states[i])
            if segment.operands[2 + i].codec == &BFLOAT16:
                segment.operands[2 + i].codec = &BFLOAT16_RANDOM
        segment.p = <void*> p
        segment.others_direct = not segment.has_master
        for k in range(segment.n_operands):
            segment.others_direct &= k == 1 or segment.operands[k].direct
        self.layout.n_elements += segment.n
        self.layout.n_bytes += segment.n * segment.itemsize
        return 0

    cdef int note_extents(self) except -1:
        joined = []
        meet = False
        cdef Py_ssize_t i
        cdef Segment* segment
        cdef Extent extent
        found = []
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            for which in range(segment.n_operands + segment.has_master):
                if which != 1 and segment.n > 0:
                    extent = extent_of(segment, which)
                    found.append((<size_t> extent.low, <size_t> extent.high))
        for low, high in sorted(found):
            if joined and low < joined[-1][1]:
                meet = True
                joined[-1][1] = max(high, joined[-1][1])
            else:
                joined.append([low, high])
        self.extents = <Extent*> allocate(len(joined), sizeof(Extent))
        self.n_extents = len(joined)
        for k, (low, high) in enumerate(joined):
            self.extents[k].low = <char*> <size_t> low
            self.extents[k].high = <char*> <size_t> high
        if meet:
            states = [f"a state of {name}" for name, arrays in zip(self.names, self.states) for _ in arrays]
            checks.parameters(self.names + states, self.written())
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
        self.layout.sums = <double*> allocate(self.layout.n_elements // TILE + 1, 2 * sizeof(double))
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
                for k in range(segment.n_operands + segment.has_master):
                    PyMem_Free(segment.operands[k].strides)
            PyMem_Free(segment.operands)
            PyMem_Free(segment.p_shape)
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
        PyMem_Free(self.layout.sums)
        PyMem_Free(self.groups)
        PyMem_Free(self.extents)

    def set_hyper(self, Py_ssize_t group, values):
        """The hyper-parameters of a group, in the order of its rule's `hyper`; they hold from the next step on."""
        cdef Kernel kernel = self.kernels[self.number(group)]
        cdef Py_ssize_t i
        values = [float(value) for value in values]
        if N_OF_THE_STEP + len(values) != kernel.n_hyper:
            raise ValueError(f"rule {kernel.rule.name!r} takes {kernel.rule.hyper}, got {len(values)} values")
        for i in range(len(values)):
            self.groups[group].hyper[N_OF_THE_STEP + i] = values[i]

    def hyper(self, Py_ssize_t group):
        """The hyper-parameters that a group has now."""
        cdef Kernel kernel = self.kernels[self.number(group)]
        cdef Py_ssize_t i
        return [self.groups[group].hyper[i] for i in range(N_OF_THE_STEP, kernel.n_hyper)]

    def set_origins(self, list origins):
        """Say of which parameter each segment is a part, and how many elements of that stand before it: so that random
        bits are those that the whole parameter would have."""
        cdef Py_ssize_t i
        for i in range(self.layout.n_segments):
            self.layout.segments[i].whole, self.layout.segments[i].offset = origins[i]

    def set_steps(self, Py_ssize_t group, long long steps):
        """How many steps this group has done: of the plan's t, all but those before it was added."""
        self.groups[self.number(group)].begun = self.t - steps

    def steps(self, Py_ssize_t group):
        """How many steps this group has done."""
        return self.t - self.groups[self.number(group)].begun

    cdef Py_ssize_t number(self, Py_ssize_t group) except -1:
        if not 0 <= group < self.n_groups:
            raise IndexError(f"group: expected 0 … {self.n_groups - 1}, got {group}")
        return group

    cdef int hold(self) except -1:
        if self.holder or self.retired:
            self.refuse()
        self.holder = process
        self.holding_thread = PyThread_get_thread_ident()
        return 0

    cdef int refuse(self) except -1:
        if self.retired:
            raise RuntimeError(
                "another thread has changed which arrays this optimizer steps; give each thread its own, or a lock"
            )
        if self.holder != process:
            raise RuntimeError(
                "this process was forked while another thread was inside a step of this optimizer, or read or changed "
                "it: its arrays may be of two steps here; make a new one, from a checkpoint"
            )
        if self.holding_thread == PyThread_get_thread_ident():
            raise RuntimeError(
                "this thread is inside a step of this optimizer already, or a load: what runs meanwhile, a schedule or "
                "a signal's handler, cannot step, save, load or copy it"
            )
        raise RuntimeError("another thread is inside a step of this optimizer; give each thread its own, or a lock")

    cdef void release(self) noexcept:
        self.holder = 0

    def need_whole(self):
        """Refuse arrays that a rule in Python, by an error in the middle of a sweep, has left half stepped."""
        if self.torn:
            raise RuntimeError(
                "a step failed half-way, so parameters and states are of two steps; load a checkpoint, or make a new "
                "optimizer"
            )

    def __enter__(self):
        """Keep steps out until `__exit__`: for who reads or changes the arrays between steps."""
        self.hold()
        return self

    def __exit__(self, *error):
        self.release()

    def writes(self, cnp.ndarray array):
        """Whether an array may share memory with one that a step writes."""
        low, high = np.lib.array_utils.byte_bounds(array)
        return self.meets_written(<char*> <size_t> low, <char*> <size_t> high)

    def bind(self, grads):
        """Check these gradients now and read them at every `step` that is given none."""
        self.hold()
        try:
            given = tuple(grads)
            self.admit_all(given)
            self.bound = given
        finally:
            self.release()

    def step(
        self,
        grads=None,
        before=None,
        double factor=1.0,
        double clip_value=INFINITY,
        max_norm=None,
        bint skip_nonfinite=False,
        bint zero_grads=False,
        exchange=None,
    ):
        """One step of every array, t counted up: either all of it happens or, when an error is raised, nothing.
        (A sweep in Python, of a rule of one's own, can fail within: then `torn` stays set.)

        `before` is called first, when no other thread can be inside.

        Gradients are multiplied by `factor`; then, if their norm, over all arrays, is above `max_norm`, by what brings
        it down to that; then each element is clipped to ±`clip_value`. With `skip_nonfinite` a NaN or an infinity in
        any gradient makes it no step, which `skipped` counts. `zero_grads` leaves zeros in the gradients.

        Where the arrays are one process's share of a step, `exchange` stands between it and the others: ``begin()`` is
        called when nothing is wrong here, ``arrive()`` returns when all gradients have come, ``total(high, low)`` adds
        up such sums of all processes. ``parts()`` yields numbers of segments: the gradients of those before have come,
        and they are stepped before the next number is asked for.
        """
        if self.compiled or exchange is not None:
            self.hold_and_step(grads, before, factor, clip_value, max_norm, skip_nonfinite, zero_grads, exchange)
        else:  # in Python, where handlers of signals run: they may step or save, when it is done
            how = (grads, before, factor, clip_value, max_norm, skip_nonfinite, zero_grads)
            uninterrupted(partial(self.step_in_python, how))

    def step_in_python(self, tuple how):
        grads, before, factor, clip_value, max_norm, skip_nonfinite, zero_grads = how
        self.hold_and_step(grads, before, factor, clip_value, max_norm, skip_nonfinite, zero_grads, None)

    cdef int hold_and_step(
        self, grads, before, double factor, double clip_value, max_norm, bint skip_nonfinite, bint zero_grads, exchange
    ) except -1:
        cdef Py_ssize_t first = 0, last
        cdef tuple given = self.bound if grads is None else tuple(grads)  # keeps them alive, whoever changes a list
        self.hold()
        try:
            if self.torn:
                self.need_whole()
            if before is not None:
                before()
            self.admit_all(given)
            if zero_grads:
                self.admit_zeroing(given)
            if exchange is not None:
                self.prepare_scalars(factor, clip_value)  # may raise, as below: now, while others do not count on it
                exchange.begin()
            grad_norm = None
            if max_norm is not None or skip_nonfinite:
                if exchange is not None:
                    exchange.arrive()
                finite, norm = self.measure(exchange)
                grad_norm = abs(factor) * norm
                if skip_nonfinite and not finite:
                    self.grad_norm = grad_norm
                    self.skipped += 1
                    return 0
                if max_norm is not None:
                    factor *= clip_factor(grad_norm, max_norm)
            self.prepare_scalars(factor, clip_value)  # where it is Python, it may raise
            self.grad_norm = grad_norm
            self.changes += 1
            self.layout.work = sweep_range
            self.layout.zero_grads = zero_grads
            self.layout.noise = mixed(mixed(self.seed) + <uint64_t> self.t)
            self.torn = True
            if exchange is None:
                self.sweep(0, self.layout.n_segments)
            else:
                for last in exchange.parts():
                    self.sweep(first, last)
                    first = last
            self.t += 1
            self.torn = False
        finally:
            self.release()
        return 0

    def step_at(self, const int64_t[::1] addresses):
        """A plain step whose gradients lie at these addresses, each laid out as its segment's last one.

        False, and nothing has changed, where only a closer look can tell that they fit: `step` takes it.
        """
        cdef Py_ssize_t i
        cdef char* data
        cdef Extent extent
        cdef Operand* operand
        cdef Segment* segment
        cdef bint gathers = False
        self.hold()
        try:
            if self.torn:
                self.need_whole()
            if not self.compiled or addresses.shape[0] != self.layout.n_segments:
                return False
            for i in range(self.layout.n_segments):
                segment = &self.layout.segments[i]
                operand = &segment.operands[1]
                data = <char*> <size_t> addresses[i]
                if operand.data is NULL or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> segment.p):
                    return False
                if data != operand.data:
                    extent = extent_at(segment, operand, data)
                    if <size_t> data % operand.codec.itemsize:
                        return False
                    if segment.n > 0 and self.meets_written(extent.low, extent.high):
                        return False
                    self.grads_apart = False
                    operand.data = data
                    operand.direct = operand.contiguous and operand.codec.plain
                segment.direct = segment.others_direct and operand.direct
                gathers |= not segment.direct
            if gathers and self.layout.buffers is NULL:
                return False
            self.prepare_scalars(1.0, INFINITY)
            self.grad_norm = None
            self.changes += 1
            self.layout.work = sweep_range
            self.layout.zero_grads = False
            self.layout.noise = mixed(mixed(self.seed) + <uint64_t> self.t)
            self.torn = True
            self.sweep(0, self.layout.n_segments)
            self.t += 1
            self.torn = False
        finally:
            self.release()
        return True

    cdef tuple measure(self, exchange):
        """Whether all gradients are finite, and their norm over all arrays: the same for any number of threads."""
        cdef int exponent = 0
        cdef double high = self.sum_of_squares(1.0, exchange)
        if not isfinite(high) or high < ldexp(1.0, -900):  # of float64, squares overflow and vanish before numbers do
            exponent = -700 if high < 1 else 600
            high = self.sum_of_squares(ldexp(1.0, -exponent), exchange)
        return bool(isfinite(high)), ldexp(sqrt(high), exponent)

    cdef double sum_of_squares(self, double scale, exchange):
        cdef double high = 0.0, low = 0.0, total, part
        cdef int64_t tile
        self.layout.begin, self.layout.end = 0, self.layout.n_elements
        self.layout.work = measure_range
        self.layout.keeps_denormals = False
        self.layout.scale = scale
        memset(self.layout.sums, 0, (self.layout.n_elements // TILE + 1) * 2 * sizeof(double))
        with nogil:
            run(&self.layout, self.n_threads)
        for tile in range(n_tiles(&self.layout)):
            total = high + self.layout.sums[2 * tile]
            part = total - high
            low += (high - (total - part)) + (self.layout.sums[2 * tile] - part) + self.layout.sums[2 * tile + 1]
            high = total
        if exchange is not None:
            return exchange.total(high, low)
        return high + low if isfinite(high) else high

    cdef int admit_zeroing(self, tuple grads) except -1:
        """Refuse gradients that cannot be left zero: read-only, or sharing memory, so that one's zeros are read."""
        cdef Py_ssize_t i
        cdef bint good = True
        for i in range(self.layout.n_segments):
            good &= cnp.PyArray_Check(grads[i]) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> grads[i])
        if good and self.grads_apart:
            return 0
        if not (good and self.grads_lie_apart()):
            checks.parameters([f"gradient of {name}" for name in self.names], list(grads))
        self.grads_apart = True
        return 0

    cdef bint grads_lie_apart(self) except -1:
        """Whether all gradients are contiguous and no two meet; False calls for a closer look."""
        cdef Py_ssize_t i
        cdef bint apart = True
        cdef Segment* segment
        cdef Extent* found = <Extent*> allocate(self.layout.n_segments, sizeof(Extent))
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            apart &= segment.operands[1].contiguous
            if segment.n > 0:
                found[i] = extent_of(segment, 1)
        qsort(found, self.layout.n_segments, sizeof(Extent), by_low)
        for i in range(self.layout.n_segments - 1):
            apart &= found[i].high <= found[i + 1].low
        PyMem_Free(found)
        return apart

    cdef int admit_all(self, tuple grads) except -1:
        cdef Py_ssize_t i
        cdef bint gathers
        if self.groups is NULL:
            raise RuntimeError("a Plan is initialised before it steps")
        if len(grads) != self.layout.n_segments:
            raise ValueError(f"grads: expected {self.layout.n_segments} gradients, one a parameter, got {len(grads)}")
        if self.converted:
            self.converted = []
        if self.doubtful:
            self.doubtful = []
        try:
            gathers = self.admit_each(grads)
            if self.doubtful:
                names, doubtful = [self.names[i] for i in self.doubtful], [np.asarray(grads[i]) for i in self.doubtful]
                checks.apart(names, doubtful, self.written())
        except BaseException:
            for i in self.doubtful:  # look at them again
                self.layout.segments[i].operands[1].data = NULL
            raise
        if gathers and self.layout.buffers is NULL:
            self.layout.buffers = <char*> allocate(self.n_threads * MAX_OPERANDS * CHUNK, sizeof(double))
        return 0

    cdef int admit_each(self, tuple grads) except -1:
        """Admit the gradients one by one; whether any array is to be gathered."""
        cdef Py_ssize_t i
        cdef bint gathers = False
        cdef Segment* segment
        for i in range(self.layout.n_segments):
            segment = &self.layout.segments[i]
            g = grads[i]
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> segment.p):
                checks.parameter(self.names[i], self.params[i])
            if (
                cnp.PyArray_TYPE(<cnp.ndarray> segment.p) != segment.p_typenum
                or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> segment.p)
            ):
                dtype = self.params[i].dtype
                raise TypeError(f"{self.names[i]}: its dtype was changed to {dtype}; make a new optimizer")
            if not self.admit(segment, g):
                self.look_closer(i, g)
            segment.direct = segment.others_direct and segment.operands[1].direct
            gathers |= not segment.direct
        return gathers

    cdef inline bint admit(self, Segment* segment, object g) noexcept:
        """True if `g` is beyond doubt a gradient that fits, laid out as the last one; False calls for a closer look."""
        cdef int k
        cdef char* data
        cdef Extent extent
        cdef Operand* operand = &segment.operands[1]
        if not cnp.PyArray_CheckExact(g):
            return False
        if (
            cnp.PyArray_TYPE(<cnp.ndarray> g) != segment.grad_typenum
            or cnp.PyArray_NDIM(<cnp.ndarray> g) != segment.p_ndim
            or not cnp.PyArray_ISALIGNED(<cnp.ndarray> g)
            or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> g)
        ):
            return False
        for k in range(segment.p_ndim):
            if cnp.PyArray_DIM(<cnp.ndarray> g, k) != segment.p_shape[k]:
                return False
        for k in range(segment.ndim):
            if cnp.PyArray_STRIDE(<cnp.ndarray> g, <int> segment.axes[k]) != operand.strides[k]:
                return False
        data = cnp.PyArray_BYTES(<cnp.ndarray> g)
        if data == operand.data:
            return True  # the memory that was looked at in the last step
        extent = extent_at(segment, operand, data)
        if segment.n > 0 and self.meets_written(extent.low, extent.high):
            return False
        self.grads_apart = False
        operand.data = data
        operand.direct = operand.contiguous and operand.codec.plain
        return True

    cdef int look_closer(self, Py_ssize_t i, g) except -1:
        """Admit a gradient in any layout, or say what is wrong with it."""
        cdef Segment* segment = &self.layout.segments[i]
        cdef int k
        cdef cnp.ndarray p = self.params[i]
        for k in range(segment.p_ndim):
            if cnp.PyArray_NDIM(p) != segment.p_ndim or cnp.PyArray_DIM(p, k) != segment.p_shape[k]:
                shape = self.params[i].shape
                raise ValueError(f"{self.names[i]}: its shape was changed to {shape}; make a new optimizer")
        if isinstance(g, np.generic):  # what arithmetic makes of arrays without axes
            g = np.asarray(g)
            self.converted.append(g)
        checks.gradient(self.names[i], g, p)
        if segment.n > 0 and self.writes(g):
            self.doubtful.append(i)
        self.grads_apart = False
        segment.grad_typenum = cnp.PyArray_TYPE(<cnp.ndarray> g)
        place(segment, 1, g)
        return 0

    cdef int prepare_scalars(self, double factor, double clip_value) except -1:
        """Every group's scalars of its next step: computed in float64, and rounded once for the float32 sweeps."""
        cdef Py_ssize_t i, k
        cdef Group* group
        cdef Kernel kernel
        self.layout.keeps_denormals = fabs(factor) < FLT_MIN or clip_value < FLT_MIN
        for i in range(self.n_groups):
            group = &self.groups[i]
            kernel = <Kernel> group.kernel
            group.hyper[FACTOR] = factor
            group.hyper[CLIP_VALUE] = clip_value
            if kernel.python_sweep is None:
                kernel.scalars(self.t - group.begun + 1, group.hyper, group.scalars64)
            else:
                values = [group.hyper[k] for k in range(kernel.n_hyper)]
                values = kernel.python_scalars(self.t - group.begun + 1, values)
                if len(values) != kernel.n_scalars:
                    name, t = kernel.rule.name, self.t - group.begun + 1
                    raise ValueError(f"scalars of {name!r} at t = {t}: expected {kernel.n_scalars}, got {len(values)}")
                for k in range(kernel.n_scalars):
                    group.scalars64[k] = values[k]
            for k in range(kernel.n_scalars):
                group.scalars32[k] = <float> group.scalars64[k]
        return 0

    cdef int sweep(self, Py_ssize_t first, Py_ssize_t last) except -1:
        """Step the segments first … last; where kernels are Python, these are called with arrays that view chunks."""
        cdef Py_ssize_t i
        cdef uint64_t mode
        cdef Segment* segment
        if first >= last:
            return 0
        if self.compiled:
            segment = &self.layout.segments[last - 1]
            self.layout.begin, self.layout.end = self.layout.segments[first].first, segment.first + segment.n
            if self.layout.begin < self.layout.end:
                with nogil:
                    run(&self.layout, self.n_threads)
            return 0
        mode = enter(&self.layout)
        try:
            for i in range(first, last):
                sweep_in_python(&self.layout, &self.layout.segments[i], self.layout.buffers)
        finally:
            leave(&self.layout, mode)
        return 0


def uninterrupted(work):
    """Call `work`, whole: what a signal's handler raises meanwhile, as KeyboardInterrupt, is raised when it is done.

    Python runs handlers in the main thread alone, between two lines of Python. So there, while `work` runs, those that
    are Python functions stand aside for one that notes the signal.
    """
    cdef dict aside = {}, came = {}
    cdef object failed = None
    if get_ident() != main_thread().ident:
        work()
        return
    try:
        try:
            stand_aside(aside, came)
            work()
        except BaseException as error:
            failed = error
        put_handlers_back(aside, came)
    except BaseException as interrupt:
        raise interrupt from failed
    if failed is not None:
        raise failed


cdef int stand_aside(dict aside, dict came) except -1:
    def note(number, frame):
        came[number] = frame

    for number in SIGNALS:
        handler = _signal.getsignal(number)
        if callable(handler):
            aside[number] = handler
            try:
                set_handler(number, note)
            except ValueError:  # a sub-interpreter, where no handlers run
                del aside[number]
                return 0
    return 0


cdef int put_handlers_back(dict aside, dict came) except -1:
    """And call those whose signals came. (Another signal of that kind would be told to set_wakeup_fd's reader, too.)"""
    cdef object raised = None
    for number, handler in aside.items():
        while _signal.getsignal(number) is not handler:
            try:
                set_handler(number, handler)
            except BaseException as error:  # of another signal's handler, which Python runs before it sets this one
                raised = error
    for number, frame in came.items():
        try:
            aside[number](number, frame)
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised
    return 0


cdef int set_handler(int number, handler) except -1:
    """What Python calls at a signal, and nothing else."""
    cdef disposition_t kept
    disposition_read(number, &kept)
    _signal.signal(number, handler)
    disposition_restore(number, &kept)
    return 0


cdef int64_t n_tiles(Layout* layout) noexcept nogil:
    """The number of tiles that hold the elements begin … end."""
    return (layout.end + TILE - 1) // TILE - layout.begin // TILE


cdef void run(Layout* layout, int n_threads) noexcept nogil:
    """Work on every tile: on this thread alone where there is little to do, else with helpers."""
    cdef int64_t tile
    if n_threads > 1 and layout.end - layout.begin >= ALONE:
        pool_run(
            work_on_tile,
            layout,
            n_tiles(layout),
            <int> min(<int64_t> n_threads - 1, n_tiles(layout) // 2),
            layout.n_bytes >= LARGE,
        )
        return
    for tile in range(n_tiles(layout)):
        work_on_tile(layout, 0, tile)


cdef void work_on_tile(void* context, int worker, int64_t tile) noexcept nogil:
    """Work on the plan's elements of one tile: a part of an array, or parts of several."""
    cdef Layout* layout = <Layout*> context
    cdef char* buffer = NULL
    cdef Py_ssize_t begin, end
    cdef Segment* segment
    cdef uint64_t mode = enter(layout)
    tile += layout.begin // TILE
    begin, end = max(tile * TILE, layout.begin), min((tile + 1) * TILE, layout.end)
    segment = &layout.segments[layout.tile_segment[tile]]
    while segment.first + segment.n <= begin:
        segment += 1
    if layout.buffers is not NULL:
        buffer = layout.buffers + <Py_ssize_t> worker * MAX_OPERANDS * CHUNK * sizeof(double)
    while begin < end:
        layout.work(layout, segment, begin - segment.first, min(end - segment.first, segment.n), buffer, tile)
        begin = segment.first + segment.n
        segment += 1
    leave(layout, mode)


cdef inline uint64_t enter(Layout* layout) noexcept nogil:
    return 0 if layout.keeps_denormals else denormals_off()


cdef inline void leave(Layout* layout, uint64_t mode) noexcept nogil:
    if not layout.keeps_denormals:
        denormals_restore(mode)


def state_like(cnp.ndarray p, dtype=None, allocate=np.zeros):
    """A new array of p's shape, its elements in the order in which p's lie in memory.

    Its dtype is what p is computed in, unless given; `allocate(shape, dtype)` brings the memory.
    """
    axes = memory_order(p)
    shape = tuple([cnp.PyArray_DIM(p, axis) for axis in axes])
    state = allocate(shape, checks.computed_in(p) if dtype is None else dtype)
    return state.transpose(np.argsort(axes)) if axes else state


cdef list memory_order(cnp.ndarray p):
    """p's axes from the slowest to the fastest in memory; C order where strides do not tell."""
    cdef int k
    strides = [abs(cnp.PyArray_STRIDE(p, k)) if cnp.PyArray_DIM(p, k) > 1 else 0 for k in range(cnp.PyArray_NDIM(p))]
    if cnp.PyArray_IS_C_CONTIGUOUS(p):
        return list(range(len(strides)))
    return sorted(range(len(strides)), key=lambda k: -strides[k])


cdef const Codec* codec_of(Segment* segment, cnp.ndarray array):
    """How the elements of an array are stored; it has passed `checks.array`, so any other type is bfloat16."""
    cdef int typenum = cnp.PyArray_TYPE(array)
    if segment.typenum == cnp.NPY_DOUBLE:
        return &DOUBLE
    if typenum == cnp.NPY_FLOAT:
        return &FLOAT32
    if typenum == cnp.NPY_DOUBLE:
        return &FLOAT64
    return &BFLOAT16 if cnp.PyTypeNum_ISUSERDEF(typenum) else &FLOAT16


cdef void place(Segment* segment, int which, cnp.ndarray array):
    """Where the elements of an operand lie, in the order of the segment's axes, and how they are stored."""
    cdef Operand* operand = &segment.operands[which]
    cdef Py_ssize_t reach = 0  # the stride that would continue the faster axes; 0 while there is none
    cdef bint is_first = True
    cdef int k
    operand.data = cnp.PyArray_BYTES(array)
    operand.codec = codec_of(segment, array)
    operand.uniform = True
    operand.step = operand.codec.itemsize
    for k in range(segment.ndim - 1, -1, -1):
        operand.strides[k] = cnp.PyArray_STRIDE(array, <int> segment.axes[k])
        if is_first:
            operand.step = operand.strides[k]
        elif operand.strides[k] != reach:
            operand.uniform = False
        is_first = False
        reach = operand.strides[k] * segment.shape[k]
    operand.contiguous = operand.uniform and operand.step == operand.codec.itemsize
    operand.direct = operand.contiguous and operand.codec.plain and cnp.PyArray_ISALIGNED(array)


cdef Extent extent_of(Segment* segment, int which) noexcept:
    """The addresses between which an operand's elements lie."""
    return extent_at(segment, &segment.operands[which], segment.operands[which].data)


cdef Extent extent_at(Segment* segment, Operand* operand, char* data) noexcept:
    """The same, if the operand lay at `data`."""
    cdef Extent extent = Extent(data, data + operand.codec.itemsize)
    cdef Py_ssize_t reach
    cdef int k
    for k in range(segment.ndim):
        reach = operand.strides[k] * (segment.shape[k] - 1)
        if reach < 0:
            extent.low += reach
        else:
            extent.high += reach
    return extent


cdef int by_low(const void* one, const void* other) noexcept nogil:
    cdef char* low = (<const Extent*> one).low
    cdef char* other_low = (<const Extent*> other).low
    return (low > other_low) - (low < other_low)


cdef void sweep_range(
    Layout* layout, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Step the elements begin … end of a segment: in place where all operands are direct, else chunk by chunk."""
    cdef void* arrays[MAX_OPERANDS]
    cdef sweep_t sweep = segment.group.sweep32 if segment.itemsize == 4 else segment.group.sweep64
    cdef const void* scalars = (
        <const void*> segment.group.scalars32 if segment.itemsize == 4 else <const void*> segment.group.scalars64
    )
    cdef Py_ssize_t n
    while begin < end:
        n = end - begin if segment.direct else min(end - begin, <Py_ssize_t> CHUNK)
        views(segment, begin, n, buffer, arrays)
        sweep(n, arrays, scalars)
        put_back(layout, segment, begin, n, arrays)
        begin += n


cdef int sweep_in_python(Layout* layout, Segment* segment, char* buffer) except -1:
    cdef void* arrays[MAX_OPERANDS]
    cdef Py_ssize_t begin = 0
    cdef cnp.npy_intp n
    cdef int k
    cdef Group* group = segment.group
    cdef Kernel kernel = <Kernel> group.kernel
    cdef bint is_float = segment.typenum == cnp.NPY_FLOAT32  # rounded before, where no denormal was zero yet
    scalars = [group.scalars32[k] if is_float else group.scalars64[k] for k in range(kernel.n_scalars)]
    while begin < segment.n:
        n = min(segment.n - begin, <Py_ssize_t> (PYTHON_CHUNK if segment.direct else CHUNK))
        views(segment, begin, n, buffer, arrays)
        kernel.python_sweep(
            scalars,
            *[cnp.PyArray_SimpleNewFromData(1, &n, segment.typenum, arrays[k]) for k in range(segment.n_operands)],
        )
        put_back(layout, segment, begin, n, arrays)
        begin += n
    return 0


cdef void measure_range(
    Layout* layout, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer, int64_t tile
) noexcept nogil:
    """Add the squares of the gradient's elements begin … end to the tile's sum."""
    cdef squares_t squares = squares32 if segment.itemsize == 4 else squares64
    cdef Py_ssize_t n
    while begin < end:
        n = end - begin if segment.operands[1].direct else min(end - begin, <Py_ssize_t> CHUNK)
        squares(n, view(segment, 1, begin, n, buffer), layout.scale, &layout.sums[2 * tile])
        begin += n


cdef inline void views(Segment* segment, Py_ssize_t begin, Py_ssize_t n, char* buffer, void** arrays) noexcept nogil:
    cdef int k
    for k in range(segment.n_operands):
        arrays[k] = view(segment, k, begin, n, buffer)


cdef inline void* view(Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* buffer) noexcept nogil:
    """Contiguous elements begin … begin + n of an operand: itself where direct, else loaded into the buffer."""
    cdef char* tile
    if segment.operands[which].direct:
        return segment.operands[which].data + begin * segment.itemsize
    tile = buffer + which * CHUNK * sizeof(double)
    move(segment, which, begin, n, tile, False, 0)
    return tile


cdef inline void put_back(
    Layout* layout, Segment* segment, Py_ssize_t begin, Py_ssize_t n, void** arrays
) noexcept nogil:
    """Store what the sweep wrote, where that is not where it lies; and zeros as gradient, where asked for."""
    cdef int k
    if layout.zero_grads:
        memset(arrays[1], 0, n * segment.itemsize)
    if segment.direct:
        return
    for k in range(segment.n_operands):
        if not segment.operands[k].direct and (k != 1 or layout.zero_grads):
            move(segment, k, begin, n, <char*> arrays[k], True, mixed(layout.noise + segment.whole * MAX_OPERANDS + k))
    if segment.has_master:
        move(segment, segment.n_operands, begin, n, <char*> arrays[0], True, 0)


cdef void move(
    Segment* segment, int which, Py_ssize_t begin, Py_ssize_t n, char* tile, bint back, uint64_t key
) noexcept nogil:
    """Load elements begin … begin + n of an operand into the tile, or store them `back`: run by run of its last axis,
    or all at once."""
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
        if back:
            operand.codec.store(run, data, step, tile, key, segment.offset + begin)
        else:
            operand.codec.load(run, data, step, tile)
        tile += run * segment.itemsize
        begin += run
        n -= run


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    """A number that has nothing to do with x, and the same one always (the finish of SplitMix64)."""
    x += 0x9E3779B97F4A7C15ULL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)


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
