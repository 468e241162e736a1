from ._layout cimport Layout
from ._segments cimport Squares

cdef int measure(Layout layout, int n_threads, exchange, bint each, Squares* total) except -1
cdef double norm(const Squares* squares) noexcept
cdef double clip_factor(double norm, double max_norm) noexcept nogil
cdef int measure_segments(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1
cdef void add_all(Layout layout, Squares* total) noexcept
cdef void clip_each(Layout layout, Py_ssize_t first, Py_ssize_t last, double factor, double max_norm) noexcept
