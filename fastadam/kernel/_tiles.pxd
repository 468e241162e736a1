from libc.stdint cimport uint64_t

from ._layout cimport Layout

cdef int sweep(Layout layout, Py_ssize_t first, Py_ssize_t last, int n_threads) except -1
cdef int exchange(Layout layout, Py_ssize_t first, Py_ssize_t last, int which, int n_threads) except -1
cdef int measure(Layout layout, int n_threads, exchange, bint* finite, double* norm) except -1
cdef uint64_t mixed(uint64_t x) noexcept nogil
