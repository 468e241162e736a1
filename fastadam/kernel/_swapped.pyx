# cython: language_level=3
"""The exchange of parameters and averages for the time of a block: `swapped`."""

from libc.stdint cimport int64_t

from . cimport _gradients, _tiles
from ._cohorts cimport UNDER_WAY
from ._entry cimport atomic_announce, atomic_set, atomic_swap_if
from ._follow cimport Follower
from ._layout cimport Layout
from ._plan cimport CHANGE, SWAPPED, Plan
from ._segments cimport Segment


cdef class swapped:
    """A context manager: within the block each parameter and the array that keeps its average have exchanged contents.

    ``follower.partners()``, called when nobody else can be inside, says for each group which operand that array is,
    and gives the array for each parameter, None where there is none; operand 1 is the gradient, which it then is to be.
    Where the two are not both stored as they are computed, an exchange would lose bits: the parameter (if the average
    is the plan's parameter, what it is the average of) is copied aside, and only takes the average's numbers.

    The exchange back cannot fail. No interrupt can come between the exchange and the block: what follows it is C.
    """

    cdef Follower follower
    cdef list places, others
    cdef list aside             # what is copied aside: the array, its copy, whose numbers it takes
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
        # The plan is not held: while it is SWAPPED, nobody comes further than to `hold`, and `close` changes no array.
        if not atomic_swap_if(&self.entered, True, False):
            raise RuntimeError("swapped(): was not entered")
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
        """Say which segments are exchanged: those that are absent are not."""
        cdef Layout layout = self.follower.plan.layout
        cdef Py_ssize_t k, i
        cdef int which
        cdef Segment* segment
        aside = []
        if 1 in self.places:
            _gradients.admit(layout, self.others, self.follower.plan.n_threads)
        layout.grads_apart = False  # it was told of those that were not absent
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

    cdef int leave(self) except -1:
        """Put back what was exchanged or copied aside; an error, of an array that was made read-only, comes last."""
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
