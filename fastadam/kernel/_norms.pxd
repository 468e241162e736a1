from ._layout cimport Layout
from ._segments cimport Squares

cdef int measure(Layout layout, int n_threads, exchange, bint each, Squares* total) except -1
cdef double norm(const Squares* squares) noexcept
cdef double clip_factor(double norm, double max_norm) noexcept nogil
cdef void clip_each(Layout layout, double factor, double max_norm) noexcept
