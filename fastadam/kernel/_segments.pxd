cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t

from ._codecs cimport Codec

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
# over operands as they are stored, in place: a key of random bits for each two states, and the first element's place
ctypedef void (*packed_t)(
    Py_ssize_t n, void** arrays, const void* scalars, const uint64_t* keys, uint64_t place
) noexcept nogil

cdef enum:                  # the packed sweeps of a rule, in the order of generate.PACKED
    STATES_IN_16
    ALL_IN_16
    MASTER_IN_32
    MASTER_AND_STATES_IN_16
    N_PACKED

cdef enum:
    MAX_OPERANDS = 16       # p, g, up to 13 states, and the parameter of a master weight
    TILE = 8192             # elements that a thread takes at a time, across the borders of arrays and groups
    MAX_DIMS = 64           # of NumPy's arrays
    CHUNK = 1024            # elements of a buffer, where an array is not plain contiguous memory

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
    uint64_t noise          # of their next step, where states are rounded stochastically

cdef struct Operand:
    char* data
    Py_ssize_t* strides     # by the segment's axes, in bytes
    bint uniform            # element k lies at data + k * step
    Py_ssize_t step
    const Codec* codec
    bint contiguous         # uniform, its step the size of an element
    bint in_place           # contiguous and aligned: a sweep of its type can run on it where it lies
    bint direct             # and plain: the usual sweep can

cdef struct Squares:        # a sum of squares of numbers times 2 ** -exponent, in twice the precision
    double high
    double low
    double exponent

cdef struct Segment:        # one parameter with its gradient and states
    Cohort* cohort
    sweep_t sweep           # for what it is computed in; NULL where the kernel is Python
    Py_ssize_t first        # which element of the plan is its first
    Py_ssize_t n            # real numbers
    Py_ssize_t whole        # what random bits hang on: the number of the parameter that it is (a part of),
    Py_ssize_t offset       # and how many of that parameter's elements stand before it
    Py_ssize_t itemsize     # of what it is computed in, and the type
    int typenum
    bint is_complex         # each element is two real numbers, along a last axis of its own
    bint absent             # it has no gradient, so a step leaves it out
    int grad_typenum        # of the gradient that was last looked at closely
    int ndim                # of the segment: axes of more or less than one element
    void* p                 # the parameter, borrowed: the layout holds the reference
    Py_ssize_t held         # its place among what the layout holds; its states follow it there
    int p_ndim
    int p_typenum
    Py_ssize_t* p_shape
    bint others_direct      # all operands but the gradient are direct
    bint direct             # all operands are
    packed_t* all_packed    # its rule's packed sweeps
    packed_t packed         # the sweep that reads and writes operands as they are stored, in place; NULL where none does
    const Codec* packed_gradient    # how it expects the gradient
    bint packs              # and the gradient is so
    int n_operands          # of the sweep
    bint has_master         # the sweep's p is a master weight; operand n_operands is the parameter, stored from it
    Py_ssize_t* shape       # by axis of the segment, slowest first in p's memory
    Py_ssize_t* axes        # the axis of the arrays that stands at each place; -1: the parts of complex numbers
    Operand* operands       # p, g, states
    Squares squares         # of its gradient, where they were measured
    void* own_scalars       # in a step that clips each gradient by its norm: its cohort's, with a factor of its own,
    bint keeps_denormals    # and what a job has for all

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
    bint keeps_denormals        # in this step, for a factor or a clip value that is one; or each range sees to that
    bint zero_grads             # leave zeros in the gradients
    bint clips_each             # segments are swept with their own scalars
    double* sums                # of squares, high and low parts, where segments meet tiles: `slot` says where
    int which                   # the operand that is exchanged with the parameter

cdef bint note_directness(Segment* segment) noexcept
cdef void set_operand(Segment* segment, int which, cnp.ndarray array) noexcept
cdef Extent extent_of(Segment* segment, int which) noexcept
cdef Extent extent_at(Segment* segment, Operand* operand, char* data) noexcept
cdef void sort_extents(Extent* extents, Extent* spare, Py_ssize_t n) noexcept
cdef void memory_order(cnp.ndarray p, Py_ssize_t* axes) noexcept
