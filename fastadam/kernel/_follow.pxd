from ._plan cimport Extras, Plan

cdef class Cell:
    cdef object held

    cdef bint holds(self, value) noexcept

cdef class Follower:
    cdef readonly Plan plan
    # What follows is written by who holds the plan, and but for `owner`, which stays, read by them.
    cdef public object source, source_node, grads_node, owner
    cdef object grads           # that were bound
    cdef public Cell cell
    cdef public object took
    cdef public list frozen     # the numbers of parameters that no step changes

    cdef bint hold_and_step(self, grads, Extras* extras, bint by_python) except -1
    cdef object bound_grads(self)
    cdef int update(self) except -1
    cdef int follow_structure(self) except -1
