from libc.stdint cimport int64_t

from ._entry cimport Entry
from ._extras cimport Extras
from ._layout cimport Layout

cdef enum:                  # what `counts` says under way: a change, of which the arrays are half; or that parameters
    CHANGE = 1              # and averages have exchanged contents, which `_swapped` undoes
    SWAPPED = 2

cdef class Plan(Entry):
    cdef Layout layout              # never None
    cdef Layout spare               # an empty one, whose memory the next layout takes, or None
    cdef object owned_counts        # int64: under way, t, skipped, the steps of each parameter; None before any layout
    cdef int64_t* count             # the same in C; NULL while the plan has no layout
    cdef bint made_counts           # whether `counts` is this plan's own, and nobody else has seen it
    cdef bint compiled              # whether no kernel is Python
    cdef readonly int n_threads
    cdef readonly unsigned long long seed
    cdef int64_t norm               # of the last step's gradients, as a number; negative where it was not measured
    cdef int64_t change             # how often arrays or counts were changed
    cdef bint inside                # whether a step is at work on the layout
    cdef bint in_parts              # whether a step is made in parts, by `_parts`

    # Without a GIL, too, other threads read `counts`, names and numbers while one is inside: see `counted`.
    # For whom it is called `held`, the caller holds the plan; so does who calls `set_hyper` or reads the layout.
    cdef int lay_held(self, list groups, list names, counts, origins, logs) except -1
    cdef int clear_held(self) except -1
    cdef int set_counts_held(self, int64_t t, int64_t skipped, int64_t steps) except -1
    cpdef int set_hyper(self, Py_ssize_t group, values) except -1
    cdef int admit_held(self, grads) except -1
    cdef int step_held(self, grads, Extras* extras, before, exchange) except -1
    cdef int hold_and_step(self, grads, Extras* extras, before, exchange) except -1

    cdef int64_t counted(self, int place) noexcept
    cdef void norm_is(self, double norm) noexcept
    cdef int need_outside(self) except -1
    cdef int need_layout(self) except -1
    cdef int need_ready(self) except -1
    cdef Py_ssize_t number(self, Py_ssize_t group) except -1
    cdef void end_counts(self, int64_t t, int64_t skipped) noexcept
    cdef object counts_for(self, counts, Py_ssize_t n)
    cdef int step_inside(self, grads, Extras* extras, exchange) except -1
    cdef int step_admitted(self, Extras* extras, exchange) except -1
    cdef int make_up_held(self, bint all_rows, numbers) except -1
    cdef void count_step(self) noexcept
    cdef int prepare_scalars(self, double factor, double clip_value) except -1
