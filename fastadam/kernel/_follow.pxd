from ._plan cimport Extras, Plan

cdef class Cell:
    cdef public object value

cdef class Follower:
    cdef readonly Plan plan
    cdef public object source, source_node, grads_node, bound, owner
    cdef public Cell cell
    cdef public object took
    cdef public list frozen     # the numbers of parameters that no step changes

    cdef int step_flat(self, list flat, Extras* extras) except -1
    cdef int update(self) except -1
    cdef int follow_structure(self) except -1
    cdef list flat(self, grads)
