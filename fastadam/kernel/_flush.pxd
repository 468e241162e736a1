from ._layout cimport Layout

cdef int make_up_before(Layout layout, bint all_rows, numbers, int n_threads) except -1
cdef void note_step(Layout layout, Py_ssize_t first, Py_ssize_t last) noexcept
cdef void end_step(Layout layout) noexcept
cdef void forget(Layout layout) noexcept
