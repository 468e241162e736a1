"""The plan by itself: its layout, its counts, who may enter, and the arguments of a step."""

import gc
import math
import os
import signal
import threading
import weakref

import numpy as np
import pytest

from fastadam.kernel import backends
from fastadam.kernel._plan import Plan
from fastadam.kernel._segments import state_like
from fastadam.rule import Rule
from fastadam.rules import RULES, STREAMS

ADAM = backends.kernel(RULES["adam"])
VALUES = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "beta_decay": 1.0, "low": -math.inf, "high": math.inf}
HYPER = [VALUES.get(name, 0.0) for name in RULES["adam"].hyper]


def arrays(*shapes, dtype="float32", seed=0):
    random = np.random.default_rng(seed)
    return [np.asarray(random.standard_normal(shape)).astype(dtype) for shape in shapes]


def states(params):
    return [[state_like(p), state_like(p)] for p in params]


def laid(params, kernel=ADAM, counts=None, n_threads=1, seed=0, hyper=HYPER):
    """A plan of one group, and its states."""
    plan, own = Plan(n_threads, seed), states(params)
    plan.lay([(kernel, params, own)], [f"p{k}" for k in range(len(params))], counts)
    plan.set_hyper(0, hyper)
    return plan, own


def own_kernel(update):
    """A rule of one's own, with one state, which NumPy runs."""
    return backends.kernel(Rule(update, lambda t, lr: (lr,), ("m",)), "numpy")


def same(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- the layout


def test_a_plan_without_arrays_does_not_step():
    plan = Plan()
    with pytest.raises(RuntimeError, match="laid out before it steps"):
        plan.step([])
    assert (plan.t, plan.skipped, plan.params, plan.torn, len(plan.steps)) == (0, 0, [], False, 0)


def test_other_arrays_laid_into_a_plan_are_stepped_as_by_a_new_one():
    plan, _ = laid(arrays((3, 4), 100, dtype="float64"))
    plan.step(arrays((3, 4), 100, dtype="float64"))
    for shapes in [(16,), ((4, 5), (), (0, 2), 7), (20_000, 3)]:
        mine, theirs = arrays(*shapes), arrays(*shapes)
        own = states(mine)
        plan.lay([(ADAM, mine, own)], [f"p{k}" for k in range(len(mine))])
        plan.set_hyper(0, HYPER)
        new, _ = laid(theirs)
        for k in range(3):
            for p in plan, new:
                p.step(arrays(*shapes, seed=k))
        assert same(mine, theirs)
        assert plan.t == 3


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        (lambda p, s: [(ADAM, [p.astype("int32")], [s])], "p0: expected dtype"),
        (lambda p, s: [(ADAM, [list(p)], [s])], "p0: expected a numpy array"),
        (lambda p, s: [(ADAM, [p], [s[:1]])], "expected 2 states a parameter, got 1"),
        (lambda p, s: [(ADAM, [p], [[s[0], s[1][:2]]])], "a state of p0: expected shape"),
        (lambda p, s: [(ADAM, [p], [[s[0], s[1].astype("float64")]])], "a state of p0: expected dtype float32"),
        (lambda p, s: [(ADAM, [p], [[s[0], s[0]]])], "a state of p0 and a state of p0 share memory"),
        (lambda p, s: [(ADAM, [p], [[s[0], p]])], "a state of p0 and p0 share memory"),
        (lambda p, s: [(ADAM, [p], [])], "states: expected 1 lists"),
        (lambda p, s: [(None, [p], [s])], "Kernel"),
        (lambda p, s: [(ADAM, [p, p], [s, s])], "share memory"),
        (lambda p, s: [(ADAM, None, [s])], "NoneType"),
    ],
)
def test_a_refused_layout_leaves_the_old_one(groups, error):
    (p,), (g,) = arrays(6), arrays(6, seed=1)
    plan, own = laid([p])
    plan.step([g])
    counts, before = plan.counts, (p.copy(), own[0][0].copy())
    fresh = [np.zeros(6, "float32"), np.zeros(6, "float32")]
    with pytest.raises((TypeError, ValueError), match=error):
        plan.lay(made := groups(arrays(6, seed=2)[0], fresh), ["p0", "p1"][: len(made[0][1] or [])])
    assert plan.counts is counts
    assert plan.t == 1
    assert plan.params[0] is p
    assert same((p, own[0][0]), before)
    plan.step([g])
    assert plan.t == 2


def test_read_only_arrays_are_refused():
    (p,) = arrays(6)
    m, v = np.zeros(6, "float32"), np.zeros(6, "float32")
    v.flags.writeable = False
    with pytest.raises(ValueError, match="a state of p: the array is read-only"):
        Plan().lay([(ADAM, [p], [[m, v]])], ["p"])
    p.flags.writeable = False
    with pytest.raises(ValueError, match="p: the array is read-only"):
        Plan().lay([(ADAM, [p], [[m, v.copy()]])], ["p"])


def test_clear_drops_the_arrays():
    class Array(np.ndarray):  # which can be referred to weakly
        pass

    params = [arrays(5)[0].view(Array)]
    plan, own = laid(params)
    plan.step(arrays(5))
    seen = weakref.ref(params[0])
    del params, own
    assert seen() is not None
    plan.clear()
    gc.collect()
    assert seen() is None
    assert plan.params == []
    with pytest.raises(RuntimeError, match="laid out"):
        plan.step(arrays(5))


def test_a_new_layout_drops_the_old_arrays():
    class Array(np.ndarray):
        pass

    params = [arrays(5)[0].view(Array)]
    plan, own = laid(params)
    seen = weakref.ref(params[0])
    del params, own
    plan.lay([(ADAM, arrays(5), states(arrays(5)))], ["p"])
    assert seen() is None


def test_what_a_step_calls_cannot_lay_the_plan_out():
    def update(p, g, m, lr):
        if not planned:  # it is tried once before
            return p, m
        plan, params, own = planned
        with pytest.raises(RuntimeError, match="this thread is inside a step"):
            plan.lay([(ADAM, params, own)], ["p"])
        with pytest.raises(RuntimeError, match="this thread is inside a step"):
            plan.set_counts(0, 0, 0)
        return p, m

    planned, params, own = [], arrays(4), [arrays(4)]
    plan = Plan()
    plan.lay([(own_kernel(update), params, own)], ["p"])
    planned += plan, params, own
    plan.step(arrays(4))
    assert plan.t == 1


def test_before_may_lay_the_plan_out_anew():
    first, second = arrays(4), arrays(4, seed=1)
    plan, own = laid(first)
    kept = first[0].copy()

    def before():
        plan.lay([(ADAM, second, own)], ["p"], plan.counts)
        plan.set_hyper(0, HYPER)

    changed = second[0].copy()
    plan.step(arrays(4, seed=2), before=before)
    assert same(first, [kept])
    assert not same(second, [changed])
    assert plan.t == 1


# ---------------------------------------------------------------- the counts


def test_counts_are_the_callers_array():
    counts = np.zeros(5, np.int64)
    plan, _ = laid(arrays(3, 4), counts=counts)
    plan.step(arrays(3, 4))
    with pytest.raises(TypeError):
        plan.step(["", ""])
    g = arrays(3, 4)
    g[1][0] = math.inf
    plan.step(g, skip_nonfinite=True)
    assert plan.counts is counts
    assert counts.tolist() == [0, 1, 1, 1, 1]
    plan.set_counts(7, 2, [5, 6])
    assert counts.tolist() == [0, 7, 2, 5, 6]
    assert (plan.t, plan.skipped, plan.steps.tolist()) == (7, 2, [5, 6])
    with pytest.raises(ValueError, match="read-only"):
        plan.steps[0] = 1
    with pytest.raises(ValueError, match="steps: expected 2 numbers"):
        plan.set_counts(7, 2, [5])


@pytest.mark.parametrize(
    "wrong", [np.zeros(3, np.int64), np.zeros(4), np.zeros(8, np.int64)[::2], [0] * 4, np.zeros(4, np.uint64)]
)
def test_counts_of_another_kind_are_refused(wrong):
    with pytest.raises(ValueError, match="counts: expected a contiguous, writeable int64 array of 4 numbers"):
        laid(arrays(3), counts=wrong)


def test_the_counts_of_a_former_layout_stay_what_they_were():
    params = arrays(3)
    plan, own = laid(params)
    plan.step(arrays(3))
    counts = plan.counts
    plan.lay([(ADAM, params, own)], ["p"])
    assert counts.tolist() == [0, 1, 0, 1]
    assert plan.counts.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_counts_in_a_group_give_the_bits_of_two_plans(backend, dtype):
    kernel = backends.kernel(RULES["adam"], backend)
    together, (a, b, c) = arrays(6, 7, 8, dtype=dtype), arrays(6, 7, 8, dtype=dtype)
    plan, _ = laid(together, kernel)
    plan.set_counts(9, 0, [4, 9, 4])
    early, _ = laid([a, c], kernel)
    early.set_counts(4, 0, 4)
    late, _ = laid([b], kernel)
    late.set_counts(9, 0, 9)
    for k in range(3):
        g = arrays(6, 7, 8, dtype=dtype, seed=k)
        plan.step(g)
        early.step([g[0], g[2]])
        late.step([g[1]])
    assert same(together, [a, b, c])
    assert plan.steps.tolist() == [7, 12, 7]


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("rule", STREAMS, ids=lambda rule: rule.name)
def test_benchmarks_of_memory_add_the_gradient(rule, backend):
    shapes = [5] * (2 + len(rule.states))
    own, expected = arrays(*shapes), arrays(*shapes)
    p, g, *states = own
    plan = Plan()
    plan.lay([(backends.kernel(rule, backend), [p], [states])], ["p"])
    plan.set_hyper(0, [VALUES.get(name, 0.0) for name in rule.hyper])
    plan.step([g])
    for array, before in zip([p, *states], [expected[0], *expected[2:]], strict=True):
        np.testing.assert_array_equal(array, before + g)


def test_a_failed_python_sweep_leaves_the_plan_torn():
    def update(p, g, m, lr):
        if g[0] > 5:
            raise ValueError("of the rule")
        return p, m

    plan = Plan()
    plan.lay([(own_kernel(update), arrays(4), [arrays(4)])], ["p"])
    g = arrays(4)
    plan.step(g)
    g[0][0] = 6
    with pytest.raises(ValueError, match="of the rule"):
        plan.step(g)
    assert plan.torn
    assert plan.counts.tolist() == [1, 1, 0, 1]
    with pytest.raises(RuntimeError, match="a step failed half-way"):
        plan.step(arrays(4))
    plan.set_counts(1, 0, 1)
    plan.step(arrays(4))
    assert not plan.torn
    assert plan.t == 2


# ---------------------------------------------------------------- entry


def test_one_thread_at_a_time():
    plan, _ = laid(arrays(4))
    inside, go_on, errors = threading.Event(), threading.Event(), []

    def hold():
        inside.set()
        go_on.wait()

    thread = threading.Thread(target=lambda: plan.step(arrays(4), before=hold))
    thread.start()
    inside.wait()
    for enter in lambda: plan.step(arrays(4)), plan.__enter__, lambda: plan.admit(arrays(4)), plan.clear:
        with pytest.raises(RuntimeError, match="another thread is inside") as error:
            enter()
        errors.append(error)
    go_on.set()
    thread.join()
    plan.step(arrays(4))
    assert plan.t == 2


def test_the_thread_inside_is_told_so():
    plan, _ = laid(arrays(4))
    with plan, pytest.raises(RuntimeError, match="this thread is inside a step"):
        plan.step(arrays(4))
    plan.step(arrays(4))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_refuses_a_plan_that_was_held():
    plan, _ = laid(arrays(4))
    free, _ = laid(arrays(4))
    with plan:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                free.step(arrays(4))
                try:
                    plan.step(arrays(4))
                except RuntimeError as error:
                    status = 0 if "this process was forked" in str(error) else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_closed_plan_refuses_every_entry():
    plan, own = laid(arrays(4))
    plan.close("the folder is another's now")
    for enter in (
        lambda: plan.step(arrays(4)),
        plan.__enter__,
        lambda: plan.lay([(ADAM, arrays(4), own)], ["p"]),
        lambda: plan.admit(arrays(4)),
    ):
        with pytest.raises(RuntimeError, match="the folder is another's now"):
            enter()
    assert plan.t == 0


# ---------------------------------------------------------------- what a step is told


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"grad_scale": 0.0}, ValueError, "grad_scale: expected a number between 2**-126 and 2**126, got 0.0"),
        ({"grad_scale": math.nan}, ValueError, "grad_scale: expected a number between 2**-126 and 2**126, got nan"),
        ({"grad_scale": "2"}, TypeError, "grad_scale: expected a number between 2**-126 and 2**126, got '2' of type"),
        ({"grad_scale": None}, TypeError, "grad_scale: expected a number between"),
        ({"max_norm": 0.0}, ValueError, "max_norm: expected a number > 0, or infinity, got 0.0"),
        ({"max_norm": True}, TypeError, "max_norm: expected a number > 0, or infinity, got True of type bool"),
        ({"clip_value": -1}, ValueError, "clip_value: expected a number > 0, or infinity, got -1"),
        ({"clip_value": math.nan}, ValueError, "clip_value: expected a number > 0, or infinity, got nan"),
        ({"skip_nonfinite": 1}, TypeError, "skip_nonfinite: expected True or False, got 1 of type int"),
        ({"zero_grads": None}, TypeError, "zero_grads: expected True or False, got None of type NoneType"),
    ],
)
def test_extras_that_are_refused(given, error, text):
    params = arrays(4)
    before = params[0].copy()
    plan, _ = laid(params)
    with pytest.raises(error) as raised:
        plan.step(arrays(4), **given)
    assert str(raised.value).startswith(text)
    assert same(params, [before])
    assert plan.t == 0


def test_numbers_of_other_types_are_taken():
    one, other = arrays(4), arrays(4)
    (mine, _), (theirs, _) = laid(one), laid(other)
    names = ("grad_scale", "max_norm", "clip_value", "skip_nonfinite", "zero_grads")
    for plan, values in (mine, (2, np.float32(0.5), 1, np.True_, np.False_)), (theirs, (2.0, 0.5, 1.0, True, False)):
        plan.step(arrays(4, seed=1), **dict(zip(names, values, strict=True)))
    assert same(one, other)
    assert mine.grad_norm == theirs.grad_norm


def test_factor_and_grad_scale_are_one_factor():
    one, other = arrays(4), arrays(4)
    (mine, _), (theirs, _) = laid(one), laid(other)
    mine.step(arrays(4), factor=0.5, grad_scale=4.0)
    theirs.step(arrays(4), grad_scale=8.0)
    assert same(one, other)


def test_admit_checks_and_changes_nothing():
    params = arrays(4)
    before = params[0].copy()
    plan, _ = laid(params)
    plan.admit(arrays(4))
    with pytest.raises(ValueError, match="gradient of p0: expected shape"):
        plan.admit(arrays(5))
    for _ in range(2):
        for look in (plan.admit, plan.step):
            with pytest.raises(ValueError, match="gradient of p0: shares memory"):
                look(params)
    assert same(params, [before])
    assert plan.t == 0


def test_a_gradient_that_shares_memory_is_seen_after_any_layout():
    both = np.zeros(8, "float32")
    plan, _ = laid([both[:4]])
    plan.step([both[4:]])
    other = arrays(4)
    plan.lay([(ADAM, other, states(other))], ["p0"])
    plan.step([both[:4]])
    for _ in range(2):
        with pytest.raises(ValueError, match="gradient of p0: shares memory"):
            plan.step(other)
        assert not plan.step_at(addresses(other))


# ---------------------------------------------------------------- gradients by their addresses


def addresses(grads):
    return np.array([g.ctypes.data for g in grads], np.int64)


def copied(grads):
    """The same numbers elsewhere, laid out as they were."""
    found = []
    for g in grads:
        base = np.empty(2 * g.size + 4, g.dtype)
        found.append(np.lib.stride_tricks.as_strided(base, g.shape, g.strides))
        found[-1][...] = g
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_step_by_addresses_is_a_step(dtype, n_threads):
    mine, theirs = (arrays((4, 5), 0, (), 20_000, 9, dtype=dtype) for _ in range(2))
    mine[0], theirs[0] = mine[0].T, theirs[0].T
    plans = [laid(params, n_threads=n_threads)[0] for params in (mine, theirs)]
    for plan in plans:
        plan.set_counts(6, 0, [6, 6, 2, 6, 0])
    for k in range(4):
        grads = arrays((5, 4), 0, (), 20_000, 18, dtype=dtype, seed=k)
        grads[4] = grads[4][::2]
        if k == 0:
            plans[0].step(grads, factor=0.5)
        else:
            changes, elsewhere = plans[0].changes, copied(grads)
            assert plans[0].step_at(addresses(elsewhere), 0.5) is True
            assert plans[0].changes == changes + 1
        plans[1].step(grads, factor=0.5)
    assert same(mine, theirs)
    assert np.array_equal(plans[0].counts, plans[1].counts)
    assert plans[0].steps.tolist() == [10, 10, 6, 10, 4]


def test_a_step_by_addresses_rounds_states_as_a_step_does():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    made = []
    for by_address in (False, True):
        params, plan = arrays(50, 3000), Plan(1, 7)
        own = [[state_like(p, ml_dtypes.bfloat16) for _ in range(2)] for p in params]
        plan.lay([(ADAM, params, own)], ["p0", "p1"])
        plan.set_hyper(0, HYPER)
        grads = arrays(50, 3000, seed=1)
        for _ in range(3):
            if not (by_address and plan.step_at(addresses(grads))):
                plan.step(grads)
        made.append([*params, *(state.view("uint16") for states in own for state in states)])
    assert same(*made)


def closer(case):
    """A plan that has stepped, and addresses that only a closer look can judge."""
    params, grads = arrays(6, 8), arrays(6, 8, seed=1)
    plan, own = laid(params, backends.kernel(RULES["adam"], "numpy") if case == "python" else ADAM)
    if case != "new":
        plan.step(grads)
    if case == "moved":
        grads[1] = own[0][0][:8]
    if case == "read-only":
        params[1].flags.writeable = False
    found = addresses(grads)
    if case == "unaligned":
        found[1] += 2
    return plan, params, found[: 1 if case == "number" else 2], grads  # which are kept alive


@pytest.mark.parametrize("case", ["new", "python", "moved", "read-only", "unaligned", "number"])
def test_what_an_address_does_not_tell_is_left_to_a_step(case):
    plan, params, found, _grads = closer(case)
    counts, before, changes = plan.counts.copy(), [p.copy() for p in params], plan.changes
    assert plan.step_at(found) is False
    assert np.array_equal(plan.counts, counts)
    assert plan.changes == changes
    assert same(params, before)
    params[1].flags.writeable = True
    plan.step(arrays(6, 8, seed=2))
    assert plan.step_at(found) is (case in ("new", "read-only"))


def test_a_step_by_addresses_is_refused_as_a_step_is():
    plan, _, found, _grads = closer("")
    with plan, pytest.raises(RuntimeError, match="this thread is inside"):
        plan.step_at(found)
    with pytest.raises(RuntimeError, match="laid out before it steps"):
        Plan().step_at(found)
    plan.begin_change()
    with pytest.raises(RuntimeError, match="a step failed half-way"):
        plan.step_at(found)
    plan.set_counts(1, 0, 1)
    assert plan.step_at(found)
    plan.close("it is over")
    with pytest.raises(RuntimeError, match="it is over"):
        plan.step_at(found)
    assert plan.steps.tolist() == [2, 2]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals here")
def test_a_handler_may_step_when_a_step_in_python_is_done():
    plan = Plan()
    seen = []

    def update(p, g, m, lr):
        if plan.params:  # it is tried once before
            signal.raise_signal(signal.SIGUSR1)
            seen.append("swept")
        return p, m

    def handler(number, frame):
        seen.append(plan.t)
        if plan.t == 1:
            plan.step(arrays(4))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        plan.lay([(own_kernel(update), arrays(4), [arrays(4)])], ["p"])
        plan.step(arrays(4))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["swept", 1, "swept", 2]
