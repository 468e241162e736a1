from libc.stdint cimport int64_t

from ._layout cimport Layout
from ._segments cimport Job, Segment

cdef int sweep(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1
cdef int exchange(Layout layout, Py_ssize_t first, Py_ssize_t last, int which, int n_threads) except -1
cdef int sum_squares(Layout layout, Py_ssize_t first, Py_ssize_t last, bint again, int n_threads) except -1
cdef void expect(Py_ssize_t n_elements, int n_threads) noexcept
cdef double* slot(Job* job, Segment* segment, int64_t tile) noexcept nogil
cdef int run_segments(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1
cdef const void* scalars_of(Job* job, Segment* segment) noexcept nogil
