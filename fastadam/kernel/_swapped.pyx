# cython: language_level=3
"""`swapped`: the exchange of parameters and averages for the duration of a block."""

cimport numpy as cnp
from libc.stdint cimport int64_t

from . cimport _gradients, _tiles
from ._cohorts cimport UNDER_WAY
from ._entry cimport atomic_announce, atomic_set, atomic_swap_if
from ._follow cimport Follower
from ._layout cimport Layout
from ._plan cimport CHANGE, SWAPPED, Plan
from ._segments cimport Segment


cdef class swapped:
    """A context manager: within the block, the contents of each parameter and of its average are exchanged.

    ``follower.partners()`` is called while the plan is held. It returns the operand number of the averages in each
    group, and the array of each parameter's average, or None. Operand 1, the gradient, means that these arrays take the
    place of gradients. If the dtype of one of the two is not that of computation, an exchange would lose bits. Then a
    copy of the parameter is kept, and the parameter gets the rounded average. (For an `Average`, whose averages are the
    plan's parameters, this concerns the model's array.)

    The exchange back cannot fail. Only C code runs between the exchange and the block. If an interrupt comes there all
    the same (see `_entry.Visit`), Python lets go of this object, which then exchanges back.
    """

    cdef Follower follower
    cdef list places, others
    cdef list aside             # for each pair that cannot be exchanged: the array, its copy, and the average
    cdef bint exchanged
    cdef int64_t entered        # a word that one thread takes

    def __cinit__(self, Follower follower not None):
        self.follower = follower
        self.aside = []

    def __reduce__(self):
        raise TypeError("swapped(): a block cannot be copied")

    def __enter__(self):
        self.follower.plan.hold()
        try:
            self.enter()
        except BaseException:
            self.leave()
            raise
        finally:
            self.follower.plan.release()

    def __exit__(self, *error):
        # The plan is not held here: while it is SWAPPED, others can only `hold` it, and `close` changes no array.
        if not atomic_swap_if(&self.entered, True, False):
            raise RuntimeError("swapped(): was not entered")
        self.leave()

    def __del__(self):
        if atomic_swap_if(&self.entered, True, False):
            self.leave()

    cdef int enter(self) except -1:
        cdef Plan plan = self.follower.plan
        plan.need_ready()
        self.follower.read_anew()
        self.places, self.others = self.follower.partners()
        plan.layout.need_buffers(plan.n_threads)
        self.look()
        for array, _, average in self.aside:
            array[...] = average
        self.exchange()
        atomic_announce(&plan.change)
        plan.count[UNDER_WAY] = SWAPPED
        atomic_set(&self.entered, True)
        return 0

    cdef int look(self) except -1:
        """Mark the segments that are not exchanged as absent."""
        cdef Layout layout = self.follower.plan.layout
        cdef Py_ssize_t k, i
        cdef int which
        cdef Segment* segment
        aside = []
        if 1 in self.places:
            _gradients.admit(layout, self.others, self.follower.plan.n_threads)
        layout.grads_apart = False  # it holds only for the gradients that were not absent
        for k in range(layout.n_bundles):
            which = self.places[k]
            for i in range(layout.bundles[k].begin, layout.bundles[k].end):
                segment = &layout.job.segments[i]
                other = self.others[i]
                segment.absent = other is None or not (
                    segment.operands[0].codec.plain and segment.operands[which].codec.plain
                )
                if segment.absent and other is not None:
                    pair = (other, <object> segment.p) if which == 1 else (<object> segment.p, other)
                    aside.append((pair[0], pair[0].copy(), pair[1]))
        self.aside = aside
        return 0

    cdef int exchange(self) except -1:
        cdef Plan plan = self.follower.plan
        cdef Layout layout = plan.layout
        cdef Py_ssize_t k
        for k in range(layout.n_bundles):
            _tiles.exchange(layout, layout.bundles[k].begin, layout.bundles[k].end, self.places[k], plan.n_threads)
        self.exchanged = not self.exchanged
        return 0

    def moved(self, Py_ssize_t i, cnp.ndarray array):
        """Exchange number `i` of the others back in this array, laid out as the one whose memory is gone."""
        self.aside = [(array if own is self.others[i] else own, kept, average) for own, kept, average in self.aside]
        self.others[i] = array
        self.follower.plan.layout.job.segments[i].operands[1].data = cnp.PyArray_BYTES(array)

    cdef int leave(self) except -1:
        """Undo the exchange, and restore copied arrays. An error (an array was made read-only) is raised at the end."""
        cdef Plan plan = self.follower.plan
        failed = None
        if self.exchanged:
            self.exchange()
        for array, kept, _ in self.aside:
            try:
                array[...] = kept
            except Exception as error:
                failed = error
        self.aside, self.others = [], None
        atomic_announce(&plan.change)
        if plan.count is not NULL and plan.count[UNDER_WAY] == SWAPPED:
            atomic_set(&plan.count[UNDER_WAY], 0 if failed is None else CHANGE)  # others may come in now
        if failed is not None:
            raise failed
        return 0
