from libc.stdint cimport int64_t

from ._segments cimport Job, Segment

cdef void make_up(Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer) noexcept nogil
cdef void know_history(Segment* segment) noexcept
cdef void note_step(Segment* segment, const void* scalars) noexcept
