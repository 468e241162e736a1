from libc.stdint cimport int64_t

from ._extras cimport Extras
from ._plan cimport Plan
from ._segments cimport Segment

cdef class Parts:
    cdef Plan plan
    cdef Extras extras
    cdef bytearray marks        # of each parameter
    cdef bint keeps_denormals   # in this step
    cdef bint is_open           # between `begin` and `end`
    cdef int64_t is_busy        # within a part
    cdef int64_t ends           # `end` was called
    cdef bint any_came
    cdef bint is_torn           # a sweep in Python failed

    cdef int begin_held(self, list frozen) except -1
    cdef int step_one(self, Py_ssize_t i, g) except -1
    cdef int hold_and_step(self, Py_ssize_t i, g) except -1
    cdef int need_awaited(self, Py_ssize_t i) except -1
    cdef int step_held(self, Py_ssize_t i, g) except -1
    cdef int sweep(self, Py_ssize_t i, Segment* segment) except -1
    cdef int end_unless_busy(self) except -1
    cdef bint end_if_free(self) except -1
    cdef int end_now(self) except -1
