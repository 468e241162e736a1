from libc.stdint cimport uint64_t

from ._segments cimport PYTHON_STRIP, Job, Operand, Segment

cdef struct Run:            # elements that lie one behind the other in a segment's order
    Py_ssize_t at           # which is the first
    Py_ssize_t n
    Py_ssize_t row          # of the rows that the gradient brings, which one it is a part of,
    Py_ssize_t within       # and how many of that row's elements stand before it

cdef struct Strip:          # what a sweep takes at a time
    Run[PYTHON_STRIP] runs
    int n_runs
    Py_ssize_t n            # of all runs

cdef void cut_strip(Segment* segment, Py_ssize_t begin, Py_ssize_t end, bint whole, Strip* strip) noexcept nogil
cdef Py_ssize_t number_of(Segment* segment, Py_ssize_t row) noexcept nogil
cdef void step_strip(
    Job* job, Segment* segment, Strip* strip, const void* scalars, uint64_t noise, void* gradient, char* buffer
) noexcept nogil
cdef void* parameter_of(Segment* segment, Strip* strip, char* buffer) noexcept nogil
cdef void* gradient_of(Segment* segment, Strip* strip, char* buffer) noexcept nogil
cdef void leave_zeros(Segment* segment, Strip* strip, char* buffer) noexcept nogil
cdef void exchange_strip(Segment* segment, int which, Strip* strip, char* buffer) noexcept nogil
cdef uint64_t noise_of(uint64_t seed, uint64_t steps) noexcept nogil
cdef uint64_t mixed(uint64_t x) noexcept nogil
