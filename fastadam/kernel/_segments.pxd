cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t

from ._codecs cimport Codec

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
# steps packed operands in place; takes a key of random bits for each two states, and the place of the first element
ctypedef void (*packed_t)(
    Py_ssize_t n, void** arrays, const void* scalars, const uint64_t* keys, uint64_t place
) noexcept nogil
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
    HISTORY = 4096          # how many steps' scalars are kept, for rows that lag
    MAX_DIMS = 64           # NumPy's limit
    CHUNK = 1024            # elements of a buffer, for an array that is not plain contiguous memory
    STRIP = 256             # elements gathered at a time for a compiled sweep: few, so that loading can go on meanwhile
    PYTHON_STRIP = 512      # the same for a Python sweep, which should be called seldom; sums need the rest of a buffer

cdef struct Bundle:         # the parameters of a group, which share a kernel and its hyper-parameters
    void* kernel            # a Kernel, borrowed: the layout holds the reference
    double* hyper
    Py_ssize_t begin        # its segments
    Py_ssize_t end

cdef struct Cohort:         # parameters of a bundle with equal step counts: they share a step's scalars
    Bundle* bundle
    Py_ssize_t first        # one of its segments
    double* scalars64
    float* scalars32
    uint64_t noise          # the seed of the random bits in their next step

cdef struct Operand:
    char* data
    Py_ssize_t* shape       # along the segment's axes; for the values of rows, the shape of one row
    Py_ssize_t* strides     # along the same axes, in bytes
    bint uniform            # element k is at data + k * step
    Py_ssize_t step
    const Codec* codec
    bint contiguous         # uniform, and the step is the size of an element
    bint in_place           # contiguous and aligned: a sweep for its type can run in place
    bint direct             # in_place and plain: the usual sweep can run in place

cdef struct Squares:        # the sum of squares of numbers times 2 ** -exponent, in twice the precision
    double high
    double low
    double exponent

cdef struct Grouped:        # the rows of a gradient, grouped by their numbers
    Py_ssize_t n            # how many different numbers there are; -1: a gradient of all rows
    int64_t* row            # these numbers
    Py_ssize_t* begin       # where in `order` the rows of each number begin, and where the last end
    Py_ssize_t* order       # the places of the rows in the array of values
    Py_ssize_t stride       # from one row of values to the next, in bytes
    void* memory            # the memory of these arrays
    size_t size

cdef struct Segment:        # one parameter with its gradient and states
    Cohort* cohort
    sweep_t sweep           # the sweep for its type of computation; NULL for a Python kernel
    Py_ssize_t first        # the place of its first element in the step
    Py_ssize_t work         # the number of its elements to work on: all, or those of some rows
    Py_ssize_t n            # the number of its real numbers
    Py_ssize_t n_rows       # the length of its first axis, and the elements of each row; 0 without axes
    Py_ssize_t width
    Py_ssize_t inner        # how many elements of a row are consecutive in the segment's order
    Grouped rows
    bint in_blocks          # whether one of its states is in blocks
    int64_t* visits         # for rows that lag (see _lag): the number of steps of each row, and whether any may lag
    char* history           # the scalars of its last steps. Both are NULL if no row ever lags
    bint knows_history      # whether these are known:
    int n_scalars
    int64_t done            # the number of its steps
    int64_t oldest          # the least number of steps of any row
    int64_t rests_since     # no step after this one has moved an element whose states and gradient are zero,
    int64_t fades_since     # and each step after this one has moved elements of zero gradient less than the step before
    fading_t fading         # by how much less; NULL if unknown
    sweep_t idle            # a sweep that does not change parameters
    Py_ssize_t whole        # for random bits: the number of the whole parameter,
    Py_ssize_t offset       # and the number of its elements before this segment
    Py_ssize_t itemsize     # the size and the type of computation
    int typenum
    bint is_complex         # whether each element is two real numbers, along an additional last axis
    bint absent             # whether it has no gradient, so that a step leaves it out
    int grad_typenum        # the type of the last gradient that was checked in full
    int ndim                # the number of axes whose length is not 1
    void* p                 # the parameter, borrowed: the layout holds the reference
    Py_ssize_t held         # its place in the layout's `held`; its states follow it there
    int p_ndim
    int p_typenum
    Py_ssize_t* p_shape
    bint others_direct      # whether all operands except the gradient are direct
    bint direct             # whether all operands are direct
    packed_t* all_packed    # its rule's packed sweeps
    packed_t packed         # the packed sweep for its operands; NULL if there is none
    const Codec* packed_gradient    # the storage of the gradient that this sweep needs
    bint packs              # whether the gradient has that storage
    bint rows_alone         # whether the rows of a gradient are swept one by one, in place
    int n_operands          # the number of operands of the sweep
    bint has_master         # whether p of the sweep is a master weight; then operand n_operands is the parameter
    Py_ssize_t* shape       # along the segment's axes, slowest first in p's memory; and the shape of one row
    Py_ssize_t* row_shape
    Py_ssize_t* axes        # for each axis of the segment, the axis of the arrays; -1: the parts of complex numbers
    Operand* operands       # p, g, states
    Squares squares         # those of its gradient, if they were measured
    void* own_scalars       # in a step that clips each gradient by its norm: its cohort's scalars with its own factor,
    bint keeps_denormals    # and its own value of what a job has for all

cdef struct Extent:         # a range of addresses
    char* low
    char* high

cdef struct Job:            # everything that a thread needs to work on a tile
    void (*work)(Job*, Segment*, Py_ssize_t, Py_ssize_t, char*, int64_t) noexcept nogil  # on a part of a segment
    Segment* segments
    Py_ssize_t n_segments
    Py_ssize_t n_elements
    Py_ssize_t begin            # the elements to work on: all of the plan, or a part
    Py_ssize_t end
    Py_ssize_t first_segment    # the first segment of these
    Py_ssize_t n_bytes          # the bytes of the parameters; for rows, which are scattered, of all operands
    Py_ssize_t* tile_segment    # the segment in which each tile begins
    char* buffers               # MAX_OPERANDS * CHUNK elements for each thread
    bint keeps_denormals        # because a factor or a clip value is denormal, or because each range sets its mode
    bint zero_grads             # whether to set the gradients to zero
    bint clips_each             # whether segments are swept with their own scalars
    double* sums                # sums of squares, high and low parts, for each part of a segment on a tile (see `slot`)
    int which                   # the operand that is exchanged with the parameter
    uint64_t seed               # the mixed seed of the stochastic rounding
    void* failed                # the exception that a Python sweep has raised

cdef bint note_directness(Segment* segment) noexcept
cdef void set_operand(Segment* segment, int which, cnp.ndarray array, Py_ssize_t* shape) noexcept
cdef Extent extent_of(Segment* segment, int which) noexcept
cdef Extent extent_at(Segment* segment, Operand* operand, char* data) noexcept
cdef void sort_extents(Extent* extents, Extent* spare, Py_ssize_t n) noexcept
cdef void fill_axes(Segment* segment, cnp.ndarray p) noexcept
cdef void fill_row(Segment* segment) noexcept
