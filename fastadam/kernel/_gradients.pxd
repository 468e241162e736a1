from libc.stdint cimport int64_t

from ._layout cimport Layout

cdef int admit(Layout layout, grads, int n_threads) except -1
cdef int admit_one(Layout layout, Py_ssize_t i, g, int n_threads) except -1
cdef bint admit_at(Layout layout, const int64_t[::1] addresses, int n_threads) except -1
cdef int need_lagging_still(Layout layout) except -1
cdef int admit_zeroing(Layout layout, grads) except -1
cdef int admit_zeroing_of(Layout layout, Py_ssize_t i, g) except -1
