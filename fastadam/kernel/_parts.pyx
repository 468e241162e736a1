# cython: language_level=3
"""A step in parts, a parameter at a time: `Parts` of a plan, `stepping` of an optimizer."""

from libc.math cimport fabs

from . cimport _flush, _gradients, _norms, _tiles
from ._cohorts cimport UNDER_WAY
from ._entry cimport Entry, atomic_announce, atomic_fence, atomic_get, atomic_set
from ._extras cimport OF_ALL, OF_EACH, PLAIN, read_extras
from ._follow cimport Follower
from ._layout cimport Layout, bytes_of
from ._plan cimport CHANGE, Plan
from ._segments cimport Segment, Squares

from ._signals import deferred_signals

cdef enum:          # the marks of parameters: a gradient is awaited;
    AWAITED = 0
    ABSENT = 1      # None came;
    STEPPED = 2     # the parameter is stepped;
    FROZEN = 3      # it will not be, whatever comes


cdef class Parts:
    """The step of a plan between `begin` and `end`; `step` is called once for each parameter that has a gradient.

    All that a step reads beside gradients is read by `begin`. Where a part fails, the parameters that were stepped
    before have done the step. Nobody else comes to the plan's arrays meanwhile: `Plan.hold` refuses them.
    """

    def __init__(self, Plan plan not None):
        self.plan, self.extras = plan, PLAIN

    def begin(self):
        """Begin a step, with the hyper-parameters that the plan has."""
        self.plan.hold()
        try:
            self.begin_held([])
        finally:
            self.plan.release()

    cdef int begin_held(self, list frozen) except -1:
        cdef Plan plan = self.plan
        cdef Layout layout = plan.layout
        cdef Segment* segment
        cdef Py_ssize_t i
        plan.need_ready()
        plan.prepare_scalars(self.extras.factor, self.extras.clip_value)  # where it is Python, it may raise
        self.marks = bytearray(layout.job.n_segments)
        for i in frozen:
            self.marks[i] = FROZEN
        for i in range(layout.job.n_segments):
            segment = &layout.job.segments[i]
            segment.absent = True  # but in its own part
            layout.set_work(segment, segment.n)
        layout.cut()
        layout.grads_apart = False  # it was told of others
        layout.job.clips_each, layout.job.zero_grads = self.extras.clips_by == OF_EACH, self.extras.zero_grads
        self.keeps_denormals = layout.job.keeps_denormals
        self.any_came = self.is_torn = False
        atomic_set(&self.ends, False)
        plan.in_parts = self.is_open = True
        return 0

    def step(self, Py_ssize_t i, g):
        """Step parameter number `i`; by a gradient of None not at all."""
        self.step_one(i, g)

    cdef int step_one(self, Py_ssize_t i, g) except -1:
        if self.plan.compiled:
            return self.hold_and_step(i, g)
        with deferred_signals():  # a sweep in Python is to be whole
            return self.hold_and_step(i, g)

    cdef int hold_and_step(self, Py_ssize_t i, g) except -1:
        cdef Plan plan = self.plan
        Entry.hold(plan)  # the plan's own way in is shut
        try:
            atomic_set(&self.is_busy, True)
            self.need_awaited(i)
            plan.inside = True
            if g is None or self.marks[i] == FROZEN:
                self.marks[i] = ABSENT
            else:
                self.step_held(i, g)
            self.any_came = True
        finally:
            plan.inside = False
            atomic_set(&self.is_busy, False)
            plan.release()
            atomic_fence()  # who asks for the end and who leaves here: at least one of the two sees the other
            self.end_unless_busy()
        return 0

    cdef int need_awaited(self, Py_ssize_t i) except -1:
        """Refuse a part that cannot be stepped."""
        if not self.is_open:
            raise RuntimeError("stepping(): its block is over, or not begun; call this within `with opt.stepping()`")
        if self.is_torn:
            self.plan.need_whole()
        if self.marks[i] == ABSENT or self.marks[i] == STEPPED:
            name = self.plan.layout.names[i]
            raise ValueError(f"{name}: came in this block before; add its gradients up, and step it by the sum")
        return 0

    cdef int step_held(self, Py_ssize_t i, g) except -1:
        """Step one parameter, alone in the layout: the places of all others stay what they are."""
        cdef Plan plan = self.plan
        cdef Layout layout = plan.layout
        cdef Segment* segment = &layout.job.segments[i]
        layout.cut()
        segment.absent = False
        try:
            _gradients.admit_one(layout, i, g, plan.n_threads)
            if self.extras.zero_grads:
                _gradients.admit_zeroing_of(layout, i, g)
            if segment.visits is not NULL:
                self.is_torn = True
                plan.make_up_held(False, None)
                self.is_torn = False
            self.sweep(i, segment)
        finally:
            segment.absent, segment.work = True, segment.n
            layout.is_cut = segment.visits is NULL  # else all may have been cut anew
            layout.converted = layout.doubtful = None  # let go of the gradient
        return 0

    cdef int sweep(self, Py_ssize_t i, Segment* segment) except -1:
        """Step by the gradient that the layout has noted."""
        cdef Plan plan = self.plan
        cdef Layout layout = plan.layout
        if layout.job.clips_each:
            _norms.measure_segments(layout, i, i + 1, plan.n_threads)
        layout.job.keeps_denormals = self.keeps_denormals
        if layout.job.clips_each:
            _norms.clip_each(layout, i, i + 1, self.extras.factor, self.extras.max_norm)
        if layout.logs is not None:
            _flush.note_step(layout, i, i + 1)
        layout.job.n_bytes = bytes_of(segment)
        atomic_announce(&plan.change)
        plan.count[UNDER_WAY] = CHANGE
        self.is_torn = True
        _tiles.sweep(layout, i, i + 1, plan.n_threads)
        self.is_torn = False
        self.marks[i] = STEPPED
        return 0

    def end(self):
        """End the step: the parameters that were stepped have done it, and no other."""
        atomic_set(&self.ends, True)
        atomic_fence()
        self.end_unless_busy()

    cdef int end_unless_busy(self) except -1:
        """End the step if that was asked for. If another thread is within a part, that thread ends the step after it.
        Any other thread that is inside of the plan is about to be refused: wait for it."""
        while not self.end_if_free():
            if atomic_get(&self.is_busy) or self.plan.is_of_parent():
                break
        return 0

    cdef bint end_if_free(self) except -1:
        """End the step if that was asked for. False where another thread is inside of the plan."""
        if not atomic_get(&self.ends):
            return True
        if not self.plan.hold_if_free():
            return False
        try:
            if self.is_open and atomic_get(&self.ends):
                self.end_now()
            atomic_set(&self.ends, False)
        finally:
            self.plan.release()
        return True

    cdef int end_now(self) except -1:
        cdef Plan plan = self.plan
        cdef Layout layout = plan.layout
        cdef Squares squares
        cdef Py_ssize_t i
        self.is_open = plan.in_parts = layout.is_cut = False
        for i in range(layout.job.n_segments):
            layout.job.segments[i].absent = self.marks[i] != STEPPED
        if not self.any_came or self.is_torn:
            return 0
        plan.norm_is(-1.0)
        if layout.job.clips_each:
            _norms.add_all(layout, &squares)
            plan.norm_is(fabs(self.extras.factor) * _norms.norm(&squares))
        atomic_announce(&plan.change)
        plan.count[UNDER_WAY] = CHANGE
        plan.count_step()
        return 0


cdef class stepping:
    """A context manager: within the block, each parameter is stepped by its gradient when that comes.

    ``follower.places`` has the number of each parameter by its key, and ``follower.number_of`` refuses an unknown one.
    """

    cdef Follower follower
    cdef Parts parts
    cdef dict places

    def __init__(
        self, Follower follower not None, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each
    ):
        self.follower, self.parts = follower, Parts(follower.plan)
        extras = &self.parts.extras
        read_extras(extras, 1.0, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)
        for name, is_asked in (("max_norm", extras.clips_by == OF_ALL), ("skip_nonfinite", extras.skip_nonfinite)):
            if is_asked:
                way = "max_norm_each, or step(grads, max_norm=…)" if name == "max_norm" else "step(grads, …)"
                raise ValueError(
                    f"{name}: needs all gradients before the first parameter is stepped, and stepping() steps each as "
                    f"its gradient comes; use {way}"
                )

    def __reduce__(self):
        raise TypeError("stepping(): a block cannot be copied")

    def __enter__(self):
        cdef bint entered = False
        if self.follower.plan.compiled:
            self.enter()
            return self
        try:
            with deferred_signals():
                self.enter()
                entered = True
        except BaseException:
            if entered:  # a signal came meanwhile
                self.parts.end()
            raise
        return self

    cdef int enter(self) except -1:
        self.follower.plan.hold()
        try:
            self.follower.update()
            self.places = self.follower.places()
            self.parts.begin_held(self.follower.frozen)
        finally:
            self.follower.plan.release()
        return 0

    def __call__(self, key, grad):
        """Step the parameter that `state_dict` calls `key` by its gradient; by None not at all."""
        place = self.places.get(key) if self.places is not None and type(key) is str else None
        if place is None:
            place = self.follower.number_of("stepping()", key)
        self.parts.step_one(place, grad)

    def __exit__(self, *error):
        self.parts.end()

    def __del__(self):  # after an interrupt between `__enter__` and the block, as `_entry.Visit`
        if self.parts is not None and self.parts.is_open:
            self.parts.end()
