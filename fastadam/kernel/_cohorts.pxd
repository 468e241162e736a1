from libc.stdint cimport int64_t

from ._layout cimport Layout

cdef enum:                  # places of the counts
    UNDER_WAY = 0
    T = 1
    SKIPPED = 2
    STEPS = 3

cdef int need_room(const int64_t* count) except -1
cdef int prepare_scalars(
    Layout layout, const int64_t* count, unsigned long long seed, double factor, double clip_value
) except -1
cdef void count_step(Layout layout, int64_t* count) noexcept
