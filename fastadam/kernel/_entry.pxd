from libc.stdint cimport int64_t

cdef extern from "atomics.h":
    int64_t atomic_swap_if(int64_t* word, int64_t before, int64_t to) nogil
    void atomic_set(int64_t* word, int64_t to) nogil
    int64_t atomic_get(int64_t* word) nogil
    void atomic_set_number(int64_t* word, double to) nogil
    double atomic_get_number(int64_t* word) nogil
    void atomic_announce(int64_t* word) nogil
    void atomic_fence() nogil

cdef class Entry:
    cdef int64_t holder             # the process that a thread is inside in, or 0
    cdef int64_t holding_thread
    cdef str closed                 # why nobody may enter any more

    cdef int hold(self) except -1
    cdef void release(self) noexcept
    cdef bint hold_if_free(self) noexcept
    cdef bint is_mine(self) noexcept
    cdef bint is_of_parent(self) noexcept
    cdef int refuse(self) except -1
