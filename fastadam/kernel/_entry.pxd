from libc.stdint cimport int64_t

cdef class Entry:
    cdef int64_t holder             # the process that a thread is inside in, or 0
    cdef unsigned long holding_thread
    cdef str closed                 # why nobody may enter any more

    cdef int hold(self) except -1
    cdef void release(self) noexcept
    cdef bint is_mine(self) noexcept
    cdef int refuse(self) except -1
