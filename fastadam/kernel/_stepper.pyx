# cython: language_level=3
"""Steps of one rule over arrays that its caller keeps: arrays, step count and hyper-parameters in, a step out.
`functional` and the adapters step by it. It sees whether these are still the arrays, and lays them out anew where not.
"""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t

from ._extras cimport OF_EACH, PLAIN, Extras
from ._plan cimport Plan

from . import backends

cnp.import_array()

cdef list ALONE = ["p"]
cdef int64_t MOST_STEPS = 1 << 62


cdef class Stepper:
    """The steps of `rule`, by at most so many threads.

    Arrays are lists: the parameters, and for each of them its states in the rule's order. Hyper-parameters are a tuple
    of floats, in the rule's order.
    """

    cdef Plan plan
    cdef object kernel
    cdef tuple planned      # the lists of the last step
    cdef tuple hyper
    cdef readonly int n_threads

    def __init__(self, rule, int n_threads=1):
        self.n_threads = n_threads
        self.kernel = backends.kernel(rule)
        self.plan = Plan(n_threads)
        self.planned = [], []

    @property
    def t(self):
        """The number of the last step."""
        return self.plan.t

    @property
    def params(self):
        """The parameters of the last step."""
        return list(self.last()[0])

    def holds(self, list params not None, list states not None):
        """Whether the last step was of these arrays."""
        last_params, last_states = self.last()
        return are_same(last_params, params) and are_same(last_states, states)

    cdef tuple last(self):
        with cython.critical_section(self):
            return self.planned

    def lay(self, list params not None, list states not None, list names not None):
        """Lay out these arrays, unless they are those of the last step. `names` call the parameters in messages."""
        if self.holds(params, states):
            return
        self.plan.hold()
        try:
            self.plan.lay_held([(self.kernel, params, states)], names, None, None, None)
            self.hyper = None
            with cython.critical_section(self):
                _old, self.planned = self.planned, (params, states)  # kept alive until nobody takes it
        finally:
            self.plan.release()

    def step(
        self, grads, int64_t t, tuple hyper not None, double factor=1.0, bint zero_grads=False, max_norm_each=None
    ):
        """Step number `t` of the arrays that are laid out; what comes after the hyper-parameters is as in `Plan.step`,
        and not checked."""
        cdef Extras extras = PLAIN
        cdef list given = list(grads)
        extras.factor, extras.zero_grads = factor, zero_grads
        if max_norm_each is not None:
            extras.clips_by, extras.max_norm = OF_EACH, max_norm_each
        self.plan.hold()
        try:
            self.plan.need_layout()
            if hyper is not self.hyper:
                self.plan.set_hyper(0, hyper)
                self.hyper = hyper
            if self.plan.t != t - 1:
                self.plan.set_counts_held(t - 1, 0, t - 1)
            self.plan.step_held(given, &extras, None, None)
        finally:
            self.plan.release()

    cdef int step_once(
        self, list params, list grads, list states, list names, int64_t t, tuple hyper
    ) except -1:
        """Step number `t` of these arrays, of which nothing is kept. States of fewer than 32 bits are refused."""
        cdef list own
        for own in states:
            for state in own:
                if cnp.PyArray_Check(state) and cnp.PyArray_ITEMSIZE(<cnp.ndarray> state) <= 2:
                    raise TypeError(f"states: expected float32 or float64, got {state.dtype}")
        self.plan.hold()
        try:
            self.plan.lay_held([(self.kernel, params, states)], names, None, None, None)
            self.plan.set_hyper(0, hyper)
            self.plan.set_counts_held(t - 1, 0, t - 1)
            self.plan.step_held(grads, &PLAIN, None, None)
        finally:
            self.plan.clear_held()
            self.plan.release()
        return 0


cdef class Steppers:
    """Steppers of one rule that wait for a call; `fewest_shared` elements are worth more than one thread."""

    cdef object rule
    cdef Py_ssize_t n_arguments, fewest_shared
    cdef dict waiting       # by their numbers of threads

    def __init__(self, rule, Py_ssize_t fewest_shared):
        self.rule = rule
        self.n_arguments = 3 + len(rule.states)
        self.fewest_shared = fewest_shared
        self.waiting = {1: []}

    def step_quickly(self, tuple arguments not None, tuple hyper not None):
        """Step ``(p, g, *states, t)`` on this thread; False, and no step, for a call that needs a closer look."""
        cdef Py_ssize_t last = self.n_arguments - 1
        cdef int64_t t
        if len(arguments) != self.n_arguments or not cnp.PyArray_CheckExact(arguments[0]) or arguments[1] is None:
            return False
        if cnp.PyArray_SIZE(<cnp.ndarray> arguments[0]) >= self.fewest_shared or type(arguments[last]) is not int:
            return False
        t = arguments[last]
        if t < 1 or t >= MOST_STEPS:
            return False
        self.run([arguments[0]], [arguments[1]], [list(arguments[2:last])], ALONE, t, hyper, 1)
        return True

    def step(self, list params, list grads, list states, list names, int64_t t, tuple hyper, int n_threads):
        """Step number `t` of these arrays, of which nothing is kept."""
        self.run(params, grads, states, names, t, hyper, n_threads)

    cdef int run(
        self, list params, list grads, list states, list names, int64_t t, tuple hyper, int n_threads
    ) except -1:
        cdef list waiting = self.waiting.setdefault(n_threads, [])
        cdef Stepper stepper = None
        with cython.critical_section(self):  # as all changes of the list are: its own lock is free, and none is let go
            if waiting:
                stepper = waiting.pop()
        if stepper is None:
            stepper = Stepper(self.rule, n_threads)
        try:
            stepper.step_once(params, grads, states, names, t, hyper)
        finally:
            with cython.critical_section(self):
                waiting.append(stepper)
        return 0


cpdef bint are_same(list some, list others) except -1:
    """Whether two lists hold the same objects, or lists of the same objects."""
    cdef Py_ssize_t k
    if len(some) != len(others):
        return False
    for k in range(len(some)):
        if some[k] is not others[k] and not (
            type(some[k]) is list and type(others[k]) is list and are_same(some[k], others[k])
        ):
            return False
    return True
