cimport numpy as cnp
from libc.stdint cimport int64_t

from ._segments cimport N_PACKED, Bundle, Cohort, Extent, Job, Segment, fading_t, packed_t, sweep_t

ctypedef void (*scalars_t)(double t, const double* hyper, double* out) noexcept nogil

cdef enum:
    FACTOR = 0              # the places of rule.OF_THE_STEP: before a group's hyper-parameters,
    CLIP_VALUE = 1          # and, in the order of rule.prepare, before the step's scalars
    N_OF_THE_STEP = 2

cdef class Kernel:
    cdef readonly object rule
    cdef object python_sweep, python_scalars, owner
    cdef sweep_t sweep32, sweep64
    cdef packed_t[N_PACKED] packed
    cdef scalars_t scalars
    cdef fading_t fading
    cdef sweep_t idle32, idle64
    cdef readonly int n_operands, n_hyper, n_scalars
    cdef bint is_built_in

cdef inline Py_ssize_t bytes_of(Segment* segment) noexcept:
    """About how many bytes of a segment a step moves. For rows, which are scattered, all operands count."""
    return segment.work * segment.itemsize * (1 if segment.rows.n < 0 else segment.n_operands)

cdef struct Block:          # memory that the next layout uses again
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
    cdef char* scalars          # of all cohorts in float64, of all segments, of all cohorts in float32
    cdef Extent* extents        # of parameters and states: sorted, and joined where they overlap
    cdef Py_ssize_t n_extents
    cdef Block heads, pieces    # memory of bundles, cohorts and segments; memory of the parts of segments
    cdef list held              # references that keep alive: each group's kernel, then each parameter and its states
    cdef list names, listed     # the names of the parameters, and the parameters
    cdef list logs              # for each parameter the arrays `visits` and `history`, or None; None if none has them
    cdef bint compiled          # whether no kernel is a Python function
    cdef bint is_cut            # whether the tiles are those of the present work
    cdef list doubtful          # numbers of gradients whose extent overlaps that of an array that is written
    cdef dict converted         # number of a gradient -> an array made from it, kept alive for the step
    cdef bint grads_apart       # whether these gradients are known not to overlap each other

    cdef int make(self, list groups, list names, origins, logs) except -1
    cdef int take_heads(self, list groups) except -1
    cdef int admit_group(self, Bundle* bundle, Kernel kernel, params, states) except -1
    cdef int admit_segment(self, Kernel kernel, p, states) except -1
    cdef int take_pieces(self) except -1
    cdef int fill_segment(self, Py_ssize_t i) except -1
    cdef void choose_packed(self, Segment* segment) noexcept
    cdef int set_origins(self, origins) except -1
    cdef int set_logs(self, logs) except -1
    cdef void cut(self) noexcept
    cdef void cut_whole(self) noexcept
    cdef void set_work(self, Segment* segment, Py_ssize_t n) noexcept
    cdef int note_extents(self) except -1
    cdef list state_names(self)
    cdef void clear(self) noexcept
    cdef void form_cohorts(self, const int64_t* steps) noexcept
    cdef int need_buffers(self, int n_threads) except -1
    cdef Py_ssize_t n_slots(self) noexcept
    cdef list params(self)
    cdef list written(self)
    cdef bint meets_written(self, char* low, char* high) noexcept
