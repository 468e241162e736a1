from ._layout cimport Layout
from ._segments cimport Job, Segment

cdef void make_up(Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer) noexcept nogil
cdef void know_history(Segment* segment) noexcept
cdef void note_step(Layout layout, Segment* segment, const void* scalars) noexcept
cdef void end_step(Segment* segment) noexcept
cdef void forget(Segment* segment) noexcept
