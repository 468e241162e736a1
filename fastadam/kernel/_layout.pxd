cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t

from ._codecs cimport Codec

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
ctypedef void (*scalars_t)(double t, const double* hyper, double* out) noexcept nogil

cdef enum:
    MAX_OPERANDS = 16       # p, g, up to 13 states, and the parameter of a master weight
    TILE = 8192             # elements that a thread takes at a time, across the borders of arrays and groups
    MAX_DIMS = 64           # of NumPy's arrays
    CHUNK = 1024            # elements loaded at a time where an array is not plain contiguous memory
    FACTOR = 0              # places of what a step brings, in front of a group's hyper-parameters:
    CLIP_VALUE = 1          # rules.OF_THE_STEP
    N_OF_THE_STEP = 2

cdef class Kernel:
    cdef readonly object rule
    cdef object python_sweep, python_scalars, owner
    cdef sweep_t sweep32, sweep64
    cdef scalars_t scalars
    cdef readonly int n_operands, n_hyper, n_scalars

cdef struct Bundle:         # the parameters that share a kernel and its hyper-parameters: a group's
    void* kernel            # a Kernel, borrowed: the layout holds the reference
    double* hyper
    Py_ssize_t begin        # its segments
    Py_ssize_t end

cdef struct Cohort:         # parameters of a bundle that have done equally many steps: they share a step's scalars
    Bundle* bundle
    Py_ssize_t first        # one of its segments
    double* scalars64
    float* scalars32

cdef struct Operand:
    char* data
    Py_ssize_t* strides     # by the segment's axes, in bytes
    bint uniform            # element k lies at data + k * step
    Py_ssize_t step
    const Codec* codec
    bint contiguous         # uniform, its step the size of an element
    bint direct             # contiguous, aligned and plain: the sweep runs on it where it lies

cdef struct Segment:        # one parameter with its gradient and states
    Cohort* cohort
    sweep_t sweep           # for what it is computed in; NULL where the kernel is Python
    Py_ssize_t first        # which element of the plan is its first
    Py_ssize_t n
    Py_ssize_t whole        # what random bits hang on: the number of the parameter that it is (a part of),
    Py_ssize_t offset       # and how many of that parameter's elements stand before it
    Py_ssize_t itemsize     # of what it is computed in, and the type
    int typenum
    int grad_typenum        # of the gradient that was last looked at closely
    int ndim                # of the segment: axes of more or less than one element
    void* p                 # the parameter, borrowed: the layout holds the reference
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

cdef struct Extent:         # a range of addresses
    char* low
    char* high

cdef struct Job:            # all that a thread needs to work on a tile
    void (*work)(Job*, Segment*, Py_ssize_t, Py_ssize_t, char*, int64_t) noexcept nogil  # on a part of a segment
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

cdef struct Block:          # memory that is kept for the next layout
    char* memory
    size_t size
    size_t used

cdef class Layout:
    cdef Job job
    cdef Bundle* bundles
    cdef Py_ssize_t n_bundles
    cdef Cohort* cohorts
    cdef Py_ssize_t n_cohorts
    cdef int max_scalars
    cdef char* scalars          # of all cohorts
    cdef Extent* extents        # of parameters and states, sorted, those that meet joined
    cdef Py_ssize_t n_extents
    cdef Block heads, pieces    # where bundles, cohorts and segments lie, and what hangs on segments
    cdef list kernels, params, states, names  # states one after another
    cdef bint compiled          # no kernel is Python
    cdef list doubtful          # numbers of gradients whose extent meets that of an array that is written
    cdef list converted         # arrays made of gradients that are NumPy scalars, kept alive for the step
    cdef bint grads_apart       # whether these gradients were seen to be apart from one another

    cdef int make(self, list groups, list names, origins) except -1
    cdef int take_heads(self, list groups) except -1
    cdef int admit_group(self, Bundle* bundle, Kernel kernel, params, states) except -1
    cdef int admit_segment(self, Kernel kernel, p, states) except -1
    cdef int take_pieces(self) except -1
    cdef int fill_segment(self, Py_ssize_t i, Py_ssize_t state) except -1
    cdef int set_origins(self, origins) except -1
    cdef void cut_tiles(self) noexcept
    cdef int note_extents(self) except -1
    cdef list state_names(self)
    cdef void clear(self) noexcept
    cdef void form_cohorts(self, const int64_t* steps) noexcept
    cdef int need_buffers(self, int n_threads) except -1
    cdef list written(self)
    cdef bint meets_written(self, char* low, char* high) noexcept

cdef void set_operand(Segment* segment, int which, cnp.ndarray array) noexcept
cdef Extent extent_of(Segment* segment, int which) noexcept
cdef Extent extent_at(Segment* segment, Operand* operand, char* data) noexcept
cdef void sort_extents(Extent* extents, Py_ssize_t n) noexcept
