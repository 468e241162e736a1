# cython: language_level=3, cdivision=True
"""The plan: the arrays of one optimizer, checked once and laid out as segments, and the one call that steps them all.
It knows no algorithm: a `Kernel` brings the loops (sweeps) and the function of a step's scalars.
"""

cimport cython
cimport numpy as cnp
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from libc.math cimport fabs, isfinite
from libc.stdint cimport int64_t
from libc.string cimport memset

from . cimport _cohorts, _flush, _gradients, _layout, _norms, _strips, _tiles
from ._cohorts cimport SKIPPED, STEPS, T, UNDER_WAY
from ._entry cimport Entry, atomic_announce, atomic_fence, atomic_get, atomic_get_number, atomic_set, atomic_set_number
from ._extras cimport NO_NORM, OF_ALL, OF_EACH, PLAIN, Extras, read_named
from ._layout cimport N_OF_THE_STEP, Layout
from ._segments cimport Bundle, Squares

import numpy as np

from . import checks
from ._layout import Kernel  # noqa: F401 (what plans are laid out with)
from ._segments import state_like  # noqa: F401  # no-cython-lint
from ._signals import deferred_signals

cnp.import_array()

cdef inline bint all_floats(values) noexcept:
    """Whether this is a tuple of Python's floats."""
    cdef Py_ssize_t i
    if type(values) is not tuple:
        return False
    for i in range(len(<tuple> values)):
        if not PyFloat_CheckExact((<tuple> values)[i]):
            return False
    return True


@cython.final
cdef class Plan(Entry):
    """The arrays of one optimizer, once `lay` has laid them out, and the compiled call that steps them.

    It owns `counts`: whether a step is under way, t (the steps done), the steps skipped for a gradient that was not
    finite, the steps of each parameter. Parameters of a group with equal counts are a cohort: they share scalars.
    """

    def __cinit__(self, int n_threads=1, unsigned long long seed=0):
        self.n_threads = max(n_threads, 1)
        self.seed = seed
        self.layout = Layout()
        self.norm_is(-1.0)

    # The layout.

    def lay(self, list groups not None, list names not None, counts=None, origins=None, logs=None):
        """Lay out these arrays in place of those that there were; after an error, nothing has changed.

        `groups` is a list of ``(kernel, params, states)``: `params` a list of arrays, `states` for each of them a list
        of arrays of the same shape, one for each of the kernel's states, and one more where the parameter has a master
        weight. float64 parameters are computed in float64, others in float32; states are of that dtype or, rounded
        stochastically by the plan's seed, bfloat16. `names` are the parameters' names, for messages. `counts` is a
        contiguous int64 array of 3 + as many numbers as there are parameters, which the plan writes from now on; None
        asks for new zeros. `origins` says of each parameter of which whole one it is a part, and how many elements of
        that stand before it. `logs` says of each parameter, where rows without a gradient are to make up for the steps
        that they miss, ``(visits, history)``, see `_lag`; None elsewhere. The groups' hyper-parameters are all zero
        afterwards: give them by `set_hyper`.
        """
        cdef bint is_mine = self.is_mine()
        if not is_mine:
            self.hold()
        try:
            self.lay_held(groups, names, counts, origins, logs)
        finally:
            if not is_mine:
                self.release()

    cdef int lay_held(self, list groups, list names, counts, origins, logs) except -1:
        cdef Layout old = self.layout, new = Layout() if self.spare is None else self.spare
        cdef bint made_counts = counts is None
        cdef int64_t* count
        _old_counts = self.owned_counts  # kept alive until nobody reads there
        self.need_outside()
        self.spare = None
        try:
            new.make(groups, names, origins, logs)
            counts = self.counts_for(counts, new.job.n_segments)
        except BaseException:
            new.clear()
            self.spare = new
            raise
        count = <int64_t*> cnp.PyArray_DATA(<cnp.ndarray> counts)
        if made_counts:
            memset(count, 0, (STEPS + new.job.n_segments) * sizeof(int64_t))
        new.form_cohorts(count + STEPS)
        with cython.critical_section(self):
            self.layout, self.owned_counts, self.made_counts, self.count = new, counts, made_counts, count
        if self.compiled != new.compiled:  # other threads may look at it
            self.compiled = new.compiled
        atomic_announce(&self.change)
        old.clear()
        self.spare = old
        return 0

    cdef object counts_for(self, counts, Py_ssize_t n):
        """Refuse what cannot hold the counts of n parameters; where None came, an array that can."""
        cdef cnp.npy_intp size = STEPS + n
        if counts is None:
            if (
                self.made_counts and cnp.PyArray_DIM(<cnp.ndarray> self.owned_counts, 0) == size
            ):
                return self.owned_counts
            return cnp.PyArray_EMPTY(1, &size, cnp.NPY_INT64, False)
        if not (
            isinstance(counts, np.ndarray)
            and cnp.PyTypeNum_ISSIGNED(cnp.PyArray_TYPE(<cnp.ndarray> counts))
            and cnp.PyArray_ITEMSIZE(<cnp.ndarray> counts) == sizeof(int64_t)
            and cnp.PyArray_NDIM(<cnp.ndarray> counts) == 1
            and cnp.PyArray_DIM(<cnp.ndarray> counts, 0) == size
            and cnp.PyArray_ISCARRAY(<cnp.ndarray> counts)
        ):
            raise ValueError(
                f"counts: expected a contiguous, writeable int64 array of {size} numbers, got {checks.shown(counts)}"
            )
        return counts

    def clear(self):
        """Drop the arrays and the states; what was laid out last is to be laid out again before a step."""
        cdef bint is_mine = self.is_mine()
        if not is_mine:
            self.hold()
        try:
            self.clear_held()
        finally:
            if not is_mine:
                self.release()

    cdef int clear_held(self) except -1:
        self.need_outside()
        with cython.critical_section(self):
            self.count = NULL
        atomic_announce(&self.change)
        self.layout.clear()
        return 0

    @property
    def params(self):
        """The parameters, group by group."""
        with cython.critical_section(self):
            return self.layout.params()

    @property
    def names(self):
        """Their names."""
        with cython.critical_section(self):
            return self.layout.names or []

    def rename(self, list names not None):
        """Call the parameters so from now on."""
        _old = self.layout.names  # kept alive until nobody reads it
        with cython.critical_section(self):
            self.layout.names = names

    @property
    def n_groups(self):
        """How many groups there are."""
        return self.layout.n_bundles

    def writes(self, cnp.ndarray array not None):
        """Whether an array may share memory with one that a step writes."""
        low, high = np.lib.array_utils.byte_bounds(array)
        return self.layout.meets_written(<char*> <size_t> low, <char*> <size_t> high)

    # The counts.

    cdef int64_t counted(self, int place) noexcept:
        """One of the counts, for a thread that need not be inside: `lay` may take another array meanwhile."""
        with cython.critical_section(self):
            return 0 if self.count is NULL else atomic_get(&self.count[place])

    @property
    def counts(self):
        """All counts, as one array: None before any layout."""
        with cython.critical_section(self):
            self.made_counts = False
            return self.owned_counts

    @property
    def t(self):
        """Steps done."""
        return self.counted(T)

    @property
    def skipped(self):
        """Steps that were left out, for a gradient that was not finite."""
        return self.counted(SKIPPED)

    @property
    def steps(self):
        """The steps that each parameter has done, to be read: `set_counts` changes them."""
        view = (np.zeros(STEPS, np.int64) if self.count is NULL else self.counts)[STEPS:]
        view.flags.writeable = False
        return view

    @property
    def torn(self):
        """Whether a sweep was begun and not ended: the arrays may be of two steps."""
        return self.counted(UNDER_WAY) == CHANGE

    @property
    def changes(self):
        """How often arrays or counts were changed."""
        atomic_fence()  # what was read before was read before this
        return atomic_get(&self.change)

    @property
    def grad_norm(self):
        """The norm of the last step's gradients, where it was measured."""
        cdef double norm = atomic_get_number(&self.norm)
        return None if norm < 0 else norm

    cdef void norm_is(self, double norm) noexcept:
        atomic_set_number(&self.norm, norm)

    def begin_change(self):
        """Say that the arrays are being changed, until `set_counts`: they are of two steps meanwhile."""
        self.need_layout()
        self.make_up()
        atomic_announce(&self.change)
        self.count[UNDER_WAY] = CHANGE

    def set_counts(self, int64_t t, int64_t skipped, steps, seed=None):
        """Set all counts; `steps` is one number, or one for each parameter. No step is under way then.

        With `seed`, the stochastic rounding has another seed from now on.
        """
        self.need_layout()
        self.need_outside()
        if seed is not None:
            self.seed = seed
        if isinstance(steps, int):
            self.set_counts_held(t, skipped, steps)
            return
        each = np.asarray(steps, np.int64)
        if each.shape != (self.layout.job.n_segments,):
            n = self.layout.job.n_segments
            raise ValueError(f"steps: expected {n} numbers, one a parameter, got {checks.shown(steps)}")
        self.count[UNDER_WAY] = CHANGE  # while they are of two minds
        (<object> self.owned_counts)[STEPS:] = each
        self.end_counts(t, skipped)

    cdef int set_counts_held(self, int64_t t, int64_t skipped, int64_t steps) except -1:
        """The same, where all parameters have done as many steps."""
        cdef Py_ssize_t i
        self.count[UNDER_WAY] = CHANGE
        for i in range(self.layout.job.n_segments):
            self.count[STEPS + i] = steps
        self.end_counts(t, skipped)
        return 0

    cdef void end_counts(self, int64_t t, int64_t skipped) noexcept:
        atomic_set(&self.count[T], t)
        atomic_set(&self.count[SKIPPED], skipped)
        self.count[UNDER_WAY] = 0
        atomic_announce(&self.change)
        _flush.forget(self.layout)
        self.layout.form_cohorts(self.count + STEPS)

    def make_up(self, numbers=None):
        """Have every row that lags make up for the steps that it missed, or, of each parameter, those of these numbers;
        unless arrays are of two steps anyway. The caller holds the plan."""
        self.need_outside()
        if self.layout.logs is None or self.count[UNDER_WAY]:
            return
        self.inside = True  # a rule in Python is not to lay the plan out anew meanwhile
        try:
            self.make_up_held(True, numbers)
        finally:
            self.inside = False

    cdef int make_up_held(self, bint all_rows, numbers) except -1:
        """The same of all rows, or of those that the gradients that the layout has noted call for."""
        cdef Py_ssize_t i
        cdef int64_t under_way = self.count[UNDER_WAY]
        _gradients.need_lagging_still(self.layout)
        self.layout.job.seed = _strips.mixed(self.seed)
        for i in range(self.layout.job.n_segments):
            self.layout.job.segments[i].done = self.count[STEPS + i]
        atomic_announce(&self.change)
        self.count[UNDER_WAY] = CHANGE
        _flush.make_up_before(self.layout, all_rows, numbers, self.n_threads)
        self.count[UNDER_WAY] = under_way
        return 0

    # Hyper-parameters.

    cpdef int set_hyper(self, Py_ssize_t group, values) except -1:
        """The hyper-parameters of a group, in the order of its rule's `hyper`; they hold from the next step on."""
        cdef Bundle* bundle = &self.layout.bundles[self.number(group)]
        cdef _layout.Kernel kernel = <_layout.Kernel> bundle.kernel
        cdef Py_ssize_t i
        cdef tuple numbers = <tuple> values if all_floats(values) else tuple([float(value) for value in values])
        if N_OF_THE_STEP + len(numbers) != kernel.n_hyper:
            raise ValueError(f"rule {kernel.rule.name!r} takes {kernel.rule.hyper}, got {len(numbers)} values")
        for i in range(len(numbers)):
            bundle.hyper[N_OF_THE_STEP + i] = PyFloat_AS_DOUBLE(numbers[i])
        return 0

    def hyper(self, Py_ssize_t group):
        """The hyper-parameters that a group has now."""
        cdef Bundle* bundle = &self.layout.bundles[self.number(group)]
        cdef Py_ssize_t i
        return [bundle.hyper[i] for i in range(N_OF_THE_STEP, (<_layout.Kernel> bundle.kernel).n_hyper)]

    cdef Py_ssize_t number(self, Py_ssize_t group) except -1:
        if not 0 <= group < self.layout.n_bundles:
            raise IndexError(f"group: expected 0 … {self.layout.n_bundles - 1}, got {group}")
        return group

    # The step.

    cdef int hold(self) except -1:
        """Also refuse all that steps, changes or copies the arrays while a block has them."""
        cdef bint is_swapped
        Entry.hold(self)
        is_swapped = self.count is not NULL and atomic_get(&self.count[UNDER_WAY]) == SWAPPED
        if is_swapped or self.in_parts:
            self.release()
            what = "parameters and averages are exchanged" if is_swapped else "a step is made in parts"
            block = "swapped()" if is_swapped else "stepping()"
            raise RuntimeError(f"{what} until the block of {block} is over; step, save, copy after it")
        return 0

    cdef int need_outside(self) except -1:
        """Refuse a change of the layout from within a step."""
        if self.inside:
            self.refuse()
        return 0

    cdef int need_layout(self) except -1:
        if self.count is NULL:
            raise RuntimeError("a Plan is laid out before it steps")
        return 0

    cdef int need_ready(self) except -1:
        """Refuse a step of arrays that are not there, or of two steps."""
        self.need_layout()
        if self.count[UNDER_WAY]:
            self.need_whole()
        return 0

    def need_whole(self):
        """Refuse arrays that a rule in Python, by an error in the middle of a sweep, has left half stepped."""
        if self.count is not NULL and self.count[UNDER_WAY]:
            raise RuntimeError(
                "a step failed half-way, so parameters and states are of two steps; load a checkpoint, or begin anew"
            )

    cdef int admit_held(self, grads) except -1:
        _gradients.admit(self.layout, grads, self.n_threads)
        return 0

    def admit(self, grads):
        """Check these gradients as a step would, and change nothing."""
        given = tuple(grads)
        self.hold()
        try:
            self.need_layout()
            self.admit_held(given)
        finally:
            self.release()

    def step(self, grads, *, double factor=1.0, before=None, exchange=None, **of_step):
        """One step of every array, t counted up: either all of it happens or, when an error is raised, nothing.
        (A sweep in Python, of a rule of one's own, can fail within: then `torn` stays set.) A gradient of None leaves
        its parameter out. `before` is called first, when no other thread can be inside; it may lay the plan out anew.

        Gradients are multiplied by ``factor / grad_scale``; then, if their norm, over all arrays, is above `max_norm`,
        by what brings it down to that, or each by what brings its own down to `max_norm_each`; then each element is
        clipped to ±`clip_value`. With `skip_nonfinite` a NaN or an infinity in any gradient makes it no step, which
        `skipped` counts. `zero_grads` leaves zeros in the gradients. All of these are what `checks.of_step` takes.

        Where the arrays are one process's share of a step, `exchange` stands between it and the others: ``begin()`` is
        called when nothing is wrong here, ``arrive()`` returns when all gradients have come. ``add_up(sums)`` adds up
        such sums of all processes, rows of a high part, a low one and an exponent: one row, or one for each of
        `n_params` whole parameters, of which `origins` spoke. ``parts()`` yields numbers of segments: the gradients of
        those before have come, and they are stepped before the next number is asked for.
        """
        cdef Extras extras = PLAIN
        cdef tuple given = tuple(grads)  # keeps them alive, whoever changes a list
        extras.factor = factor
        if of_step:
            read_named(&extras, factor, of_step)
        if self.compiled or exchange is not None:
            self.hold_and_step(given, &extras, before, exchange)
        else:  # in Python, where handlers of signals run: they may step or save, when it is done
            with deferred_signals():
                self.hold_and_step(given, &extras, before, exchange)

    def step_at(self, const int64_t[::1] addresses not None, double factor=1.0):
        """A plain step whose gradients lie at these addresses, each laid out as its segment's last one.

        False, and nothing has changed, where only a closer look can tell that they fit: `step` takes it. The caller
        keeps the gradients alive.
        """
        cdef Extras extras = PLAIN
        cdef bint admitted
        extras.factor = factor
        self.hold()
        try:
            self.need_ready()
            self.inside = True
            admitted = _gradients.admit_at(self.layout, addresses, self.n_threads)
            if admitted:
                self.step_admitted(&extras, None)
        finally:
            self.inside = False
            self.release()
        return admitted

    cdef int hold_and_step(self, grads, Extras* extras, before, exchange) except -1:
        self.hold()
        try:
            self.step_held(grads, extras, before, exchange)
        finally:
            self.release()
        return 0

    cdef int step_held(self, grads, Extras* extras, before, exchange) except -1:
        """A step of a plan that the caller holds; `grads` is a list or tuple that nobody changes meanwhile.

        Where the layout is not `compiled`, the caller defers signals, until it has released the plan.
        """
        self.need_ready()
        if before is not None:
            before()
            self.need_layout()
        self.need_outside()
        self.inside = True
        try:
            self.step_inside(grads, extras, exchange)
        finally:
            self.inside = False
        return 0

    cdef int step_inside(self, grads, Extras* extras, exchange) except -1:
        _gradients.admit(self.layout, grads, self.n_threads)
        if extras.zero_grads:
            _gradients.admit_zeroing(self.layout, grads)
        self.step_admitted(extras, exchange)
        return 0

    cdef int step_admitted(self, Extras* extras, exchange) except -1:
        """A step with the gradients that the layout has noted."""
        cdef Layout layout = self.layout
        cdef double factor = extras.factor, norm = -1.0
        cdef Squares squares
        cdef Py_ssize_t first = 0, last
        if layout.logs is not None:
            self.make_up_held(False, None)
        if exchange is not None:
            self.prepare_scalars(factor, extras.clip_value)  # may raise: now, while others do not count on it
            exchange.begin()
        if extras.clips_by != NO_NORM or extras.skip_nonfinite:
            if exchange is not None:
                exchange.arrive()
            _norms.measure(layout, self.n_threads, exchange, extras.clips_by == OF_EACH, &squares)
            norm = fabs(factor) * _norms.norm(&squares)
            if extras.skip_nonfinite and not isfinite(squares.high):
                _cohorts.need_room(self.count)
                self.norm_is(norm)
                atomic_set(&self.count[SKIPPED], self.count[SKIPPED] + 1)
                return 0
            if extras.clips_by == OF_ALL:
                factor *= _norms.clip_factor(norm, extras.max_norm)
        self.prepare_scalars(factor, extras.clip_value)  # where it is Python, it may raise
        layout.job.clips_each = extras.clips_by == OF_EACH
        if layout.job.clips_each:
            _norms.clip_each(layout, 0, layout.job.n_segments, factor, extras.max_norm)
        if layout.logs is not None:
            _flush.note_step(layout, 0, layout.job.n_segments)
        self.norm_is(norm)
        atomic_announce(&self.change)
        layout.job.zero_grads = extras.zero_grads
        self.count[UNDER_WAY] = CHANGE
        if exchange is None:
            _tiles.sweep(layout, 0, layout.job.n_segments, self.n_threads)
        else:
            for last in exchange.parts():
                _tiles.sweep(layout, first, last, self.n_threads)
                first = last
        self.count_step()
        return 0

    cdef int prepare_scalars(self, double factor, double clip_value) except -1:
        """Compute the scalars of the next step."""
        _cohorts.need_room(self.count)
        return _cohorts.prepare_scalars(self.layout, self.count, self.seed, factor, clip_value)

    cdef void count_step(self) noexcept:
        """Count the step of the parameters that had gradients: it is done."""
        _cohorts.count_step(self.layout, self.count)
        self.count[UNDER_WAY] = 0
