cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t

from ._codecs cimport Codec

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
# over operands as they are stored, in place: a key of random bits for each two states, and the first element's place
ctypedef void (*packed_t)(
    Py_ssize_t n, void** arrays, const void* scalars, const uint64_t* keys, uint64_t place
) noexcept nogil
ctypedef void (*scalars_t)(double t, const double* hyper, double* out) noexcept nogil
ctypedef double (*fading_t)(const double* last, const double* next) noexcept nogil

cdef enum:                  # the packed sweeps of a rule, in the order of generate.PACKED
    STATES_IN_16
    ALL_IN_16
    MASTER_IN_32
    MASTER_AND_STATES_IN_16
    N_PACKED

cdef enum:
    MAX_OPERANDS = 16       # p, g, up to 13 states, and the parameter of a master weight
    TILE = 8192             # elements that a thread takes at a time, across the borders of arrays and groups
    HISTORY = 4096          # steps whose scalars are kept, for rows that lag
    MAX_DIMS = 64           # of NumPy's arrays
    CHUNK = 1024            # elements of a buffer, where an array is not plain contiguous memory
    STRIP = 256             # elements gathered at a time for a compiled sweep: few, so that memory is read on meanwhile
    PYTHON_STRIP = 512      # and for one in Python, which should be called seldom: sums take the rest of a buffer

cdef struct Bundle:         # the parameters that share a kernel and its hyper-parameters: a group's
    void* kernel            # a Kernel, borrowed: the layout holds the reference. All threads share it, so no step
    double* hyper           # counts references to it, but reads these:
    int n_hyper
    int n_scalars
    scalars_t scalars       # NULL where the kernel is Python
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
    Py_ssize_t* shape       # by the segment's axes; of the values of a row, one row
    Py_ssize_t* strides     # by the same, in bytes
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

cdef struct Grouped:        # the rows that a gradient brings, those of one number together
    Py_ssize_t n            # different numbers; -1: a gradient of all rows
    int64_t* row            # these numbers
    Py_ssize_t* begin       # where in `order` those of a number begin, and where the last ones end
    Py_ssize_t* order       # which of the rows of values
    Py_ssize_t stride       # from one row of values to the next, in bytes
    void* memory            # what all this lies in
    size_t size

cdef struct Segment:        # one parameter with its gradient and states
    Cohort* cohort
    sweep_t sweep           # for what it is computed in; NULL where the kernel is Python
    Py_ssize_t first        # which element of the step is its first
    Py_ssize_t work         # how many of its elements are worked on: all, or those of some rows
    Py_ssize_t n            # real numbers
    Py_ssize_t n_rows       # of its first axis, and the elements of each; 0 without axes
    Py_ssize_t width
    Py_ssize_t inner        # so many of a row lie one behind the other in the segment's order
    Grouped rows
    bint in_blocks          # a state of it is
    int64_t* visits         # where steps of zero gradient are made up for: the steps that each row has done, and
    char* history           # whether any may lag; the scalars of its last steps. NULL where they are not
    bint knows_history      # and the rest of this is known:
    int n_scalars
    int64_t done            # the steps that it has done
    int64_t oldest          # no row has done fewer
    int64_t rests_since     # since so many, none has moved an element whose states and gradient are zeros,
    int64_t fades_since     # and since so many, each has moved those without a gradient less than the last
    fading_t fading         # by how much; NULL where that is not known
    sweep_t idle            # a sweep that leaves parameters as they are
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
    bint rows_alone         # rows that a gradient brings are swept one by one where they lie
    int n_operands          # of the sweep
    bint has_master         # the sweep's p is a master weight; operand n_operands is the parameter, stored from it
    Py_ssize_t* shape       # by axis of the segment, slowest first in p's memory; and of one row
    Py_ssize_t* row_shape
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
    Py_ssize_t first_segment    # the first of them
    Py_ssize_t n_bytes          # of the parameters; of rows, which lie apart, of all operands
    Py_ssize_t* tile_segment    # the segment in which each tile begins
    char* buffers               # MAX_OPERANDS * CHUNK elements for each thread
    bint keeps_denormals        # in this step, for a factor or a clip value that is one; or each range sees to that
    bint zero_grads             # leave zeros in the gradients
    bint clips_each             # segments are swept with their own scalars
    double* sums                # of squares, high and low parts, where segments meet tiles: `slot` says where
    int which                   # the operand that is exchanged with the parameter
    uint64_t seed               # of the stochastic rounding, mixed
    void* failed                # the exception that a sweep in Python raised

cdef bint note_directness(Segment* segment) noexcept
cdef void set_operand(Segment* segment, int which, cnp.ndarray array, Py_ssize_t* shape) noexcept
cdef Extent extent_of(Segment* segment, int which) noexcept
cdef Extent extent_at(Segment* segment, Operand* operand, char* data) noexcept
cdef void sort_extents(Extent* extents, Extent* spare, Py_ssize_t n) noexcept
cdef void fill_axes(Segment* segment, cnp.ndarray p) noexcept
cdef void fill_row(Segment* segment) noexcept
