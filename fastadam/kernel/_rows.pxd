cimport numpy as cnp
from libc.stdint cimport int64_t

from ._segments cimport Grouped

cdef class Rows:
    cdef readonly cnp.ndarray index
    cdef readonly cnp.ndarray values

    cdef Py_ssize_t n_values(self) noexcept

cdef int group(Grouped* rows, cnp.ndarray index, Py_ssize_t n_rows, name) except -1
