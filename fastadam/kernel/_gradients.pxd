from ._layout cimport Layout

cdef int admit(Layout layout, grads, int n_threads) except -1
cdef int admit_zeroing(Layout layout, grads) except -1
