from ._layout cimport Layout

cdef int make_up_before(Layout layout, bint all_rows, numbers, int n_threads) except -1
cdef void note_step(Layout layout) noexcept
cdef void end_step(Layout layout) noexcept
cdef void forget(Layout layout) noexcept
