"""One optimizer in several threads: calls happen in a serial order, or are refused; none sees half of another.
Steps are stopped half-way by a Python rule that waits; random interleavings are tried with many thread switches.
"""

import contextlib
import copy
import gc
import itertools
import pickle
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest

import fastadam


class Gate:
    """A rule, p - lr · g, that waits within its sweep when it is closed; `halves` are those that came to it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.opened.set()
        self.rule = fastadam.optimizer(lambda p, g, lr: self.update(p, g, lr), lambda t, lr: (lr,), (), lr=0.5)

    def update(self, p: Any, g: Any, lr: Any) -> Any:
        self.reached.set()
        assert self.opened.wait(30)
        return (p - lr * g,)

    def over(self, params: Any, **more: Any) -> fastadam.Optimizer:
        return self.rule(params, backend="numpy", **more)

    @contextlib.contextmanager
    def within(self, step: Callable[[], None]) -> Iterator[None]:
        """While another thread is in the midst of that step."""
        self.reached.clear()
        self.opened.clear()
        thread = threading.Thread(target=step)
        thread.start()
        try:
            assert self.reached.wait(30)
            yield
        finally:
            self.opened.set()
            thread.join()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def together(*works: Callable[[], None]) -> None:
    """All at once, a thread each; what one raises is raised."""
    raised: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


CALLS: dict[str, Callable[[fastadam.Optimizer, Path], Any]] = {
    "step": lambda opt, path: opt.step(),
    "save": lambda opt, path: opt.save(path / "new.npz"),
    "load": lambda opt, path: opt.load(path / "old.npz"),
    "state_dict": lambda opt, path: opt.state_dict(),
    "load_state_dict": lambda opt, path: opt.load_state_dict({}),
    "add_param_group": lambda opt, path: opt.add_param_group({"params": np.ones(2), "grads": np.ones(2)}),
    "zero_grad": lambda opt, path: opt.zero_grad(),
    "deepcopy": lambda opt, path: copy.deepcopy(opt),
    "pickle": lambda opt, path: pickle.dumps(opt),
    "bind": lambda opt, path: inside.bind_to_plan(opt, [np.ones(3)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_within_a_step_of_another_thread(name: str, gate: Gate, tmp_path: Path) -> None:
    p, g = np.ones(3), np.ones(3)
    opt = gate.over(p, grads=g)
    opt.save(tmp_path / "old.npz")
    with gate.within(opt.step), pytest.raises(RuntimeError, match="another thread is inside a step"):
        CALLS[name](opt, tmp_path)
    assert (opt.t, p.tolist(), g.tolist(), len(opt.param_groups)) == (1, [0.5] * 3, [1.0] * 3, 1)
    assert not (tmp_path / "new.npz").exists()
    opt.step()
    assert (opt.t, p.tolist()) == (2, [0.0] * 3)


def test_option_assigned_within_a_step_holds_from_the_next(gate: Gate) -> None:
    p = np.ones(3)
    opt = gate.over([{"params": p[:1]}, {"params": p[1:]}])
    g = [np.ones(1), np.ones(2)]
    with gate.within(lambda: opt.step(g)):
        opt.lr = 2.0
        opt.param_groups[1]["maximize"] = True
    assert p.tolist() == [0.5] * 3
    opt.step(g)
    assert p.tolist() == [-1.5, 2.5, 2.5]


def test_gradients_changed_within_a_step(gate: Gate) -> None:
    """A list of them is read when the step begins, and its arrays live as long as the step does."""
    p, grads = np.ones(3), [np.ones(3)]
    alive = weakref.ref(grads[0])
    opt = gate.over([p])
    with gate.within(lambda: opt.step(grads)):
        grads[0] = None
        grads.clear()
        gc.collect()
        assert alive() is not None
        with pytest.raises(ValueError, match="referenced"):
            p.resize(1000)
    assert p.tolist() == [0.5] * 3


def test_optimizer_deleted_within_its_step(gate: Gate) -> None:
    p = np.ones(3)
    made = [gate.over(p)]
    step = made[0].step
    with gate.within(lambda step=step: step(np.ones(3))):
        del step
        made.clear()
        gc.collect()
    assert p.tolist() == [0.5] * 3


def test_arrays_of_an_object_replaced_within_a_step(gate: Gate) -> None:
    """The new ones would be stepped with states that the first step is still changing."""
    held = types.SimpleNamespace(parameters=np.ones(3), grad=np.ones(3))
    opt = gate.over(held)
    with gate.within(opt.step):
        old, held.parameters = held.parameters, np.zeros(3)
        for call in (opt.step, opt.state_dict):
            with pytest.raises(RuntimeError, match="another thread is inside a step"):
                call()
    assert (opt.t, old.tolist(), held.parameters.tolist()) == (1, [0.5] * 3, [0.0] * 3)
    opt.step()
    assert (opt.t, held.parameters.tolist()) == (2, [-0.5] * 3)


def test_gradients_of_before_a_group_was_added() -> None:
    """A thread may have read its gradients when another adds a group: that step would lack the group's."""
    p = np.ones(3)
    opt = fastadam.Adam([p])
    plan = inside.plan(opt)
    opt.add_param_group({"params": np.ones(2)})
    with pytest.raises(ValueError, match="expected 2 gradients"):
        plan.step([np.ones(3)])
    assert (p == 1).all()
    opt.step([np.ones(3), np.ones(2)])
    assert opt.t == 1


def test_schedule_belongs_to_its_step() -> None:
    """The rate of step t is asked for when no other thread can take that step from it."""
    asked, go = threading.Event(), threading.Event()

    def lr(t: int) -> float:
        if threading.current_thread() is not threading.main_thread():
            asked.set()
            assert go.wait(60)
        return 0.1 * t

    p, alone = np.ones(5), np.ones(5)
    opt = fastadam.Adam(p, lr=lr)
    thread = threading.Thread(target=opt.step, args=(np.ones(5),))
    thread.start()
    assert asked.wait(30)
    with pytest.raises(RuntimeError, match="another thread is inside a step"):
        opt.step(np.ones(5))
    go.set()
    thread.join()
    opt.step(np.ones(5))
    serial = fastadam.Adam(alone, lr=lambda t: 0.1 * t)
    for _ in range(2):
        serial.step(np.ones(5))
    np.testing.assert_array_equal(p, alone)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "zero_grad"])
def test_schedule_that_uses_its_optimizer(name: str, tmp_path: Path) -> None:
    p = np.ones(3)
    opt = fastadam.Adam(p, grads=np.ones(3))
    opt.save(tmp_path / "old.npz")
    opt.lr = lambda t: CALLS[name](opt, tmp_path) or 0.1
    with pytest.raises(RuntimeError, match="this thread is inside a step of this optimizer already"):
        opt.step()
    assert (opt.t, p.tolist()) == (0, [1.0] * 3)
    opt.lr = 0.1
    opt.step()
    assert opt.t == 1


def test_schedule_that_assigns_options() -> None:
    p = np.ones(3)
    opt = fastadam.Adagrad(p, lr=lambda t: setattr(opt, "weight_decay", float(t)) or 0.1)
    opt.step(np.ones(3))
    opt.step(np.ones(3))
    alone = np.ones(3)
    serial = fastadam.Adagrad(alone, lr=0.1)
    serial.step(np.ones(3))
    serial.weight_decay = 1.0  # as of any assignment within a step: from the next on
    serial.step(np.ones(3))
    np.testing.assert_array_equal(p, alone)
    assert opt.weight_decay == 2.0


class Interrupting:
    """A rate within whose copy another thread uses the optimizer."""

    def __init__(self, use: Callable[[], Any]) -> None:
        self.use = use

    def __call__(self, t: int) -> float:
        return 0.1

    def __reduce__(self) -> Any:
        together(self.use)
        return float, ()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_step_within_a_copy(copied: Callable[[Any], Any]) -> None:
    """A copy of arrays before a step and of others after it is refused; one beside a reader is none the worse."""
    opt = fastadam.Adam([np.ones(3)])
    opt.lr = Interrupting(lambda: opt.step([np.ones(3)]))
    with pytest.raises(RuntimeError, match="another thread stepped or loaded the optimizer while it was copied"):
        copied(opt)
    assert opt.t == 1
    opt.lr = Interrupting(opt.state_dict)
    copied(opt)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_options_of_all_groups_change_at_once(backend: str) -> None:
    """Of two groups with the same gradients, while their common rate is assigned without end."""

    def sgd(p: Any, g: Any, lr: Any) -> Any:
        return (p - lr * g,)

    params = [np.zeros(3), np.zeros(3)]
    opt = fastadam.optimizer(sgd, lambda t, lr: (lr,), (), lr=0.5)([{"params": p} for p in params], backend=backend)
    done, rates = threading.Event(), set()

    def step() -> None:
        end = time.monotonic() + 300
        for k in itertools.count():
            before = params[0][0]
            opt.step([np.ones(3), np.ones(3)])
            rates.add(before - params[0][0])
            if (k >= 3_000 and {1.0, 1024.0} <= rates) or time.monotonic() > end:
                break
        done.set()

    def assign() -> None:
        while not done.is_set():
            for rate in (1.0, 1024.0):
                opt.lr = rate

    together(step, assign)
    np.testing.assert_array_equal(*params)
    assert {1.0, 1024.0} <= rates <= {0.5, 1.0, 1024.0}


@pytest.mark.usefixtures("switching")
def test_options_assigned_by_several_threads_are_all_kept() -> None:
    """The next step has what the groups say, whichever assignment came last."""
    p, again = np.zeros(3), np.zeros(3)
    opt = fastadam.Adam(p)

    def assign(name: str) -> Callable[[], None]:
        def work() -> None:
            for k in range(200):
                setattr(opt, name, value_of(k))

        value_of = (lambda k: (0.5, k / 200)) if name == "betas" else float
        return work

    for _ in range(20):
        together(*(assign(name) for name in ("lr", "eps", "weight_decay", "betas")))
        opt.lr = 1e-3
        other = fastadam.Adam(
            again, **{name: opt.param_groups[0][name] for name in ("lr", "eps", "weight_decay", "betas")}
        )
        other.load_state_dict(opt.state_dict())
        again[...] = p
        opt.step(np.ones(3))
        other.step(np.ones(3))
        np.testing.assert_array_equal(p, again)


def test_options_assigned_while_a_group_is_added():
    """The new plan is given the options of all groups, also where an assignment of one has just begun."""
    opt = fastadam.Adagrad([np.ones(2)], lr=0.5, eps=0)
    opt.step([np.ones(2)])
    adding = threading.Thread(target=opt.add_param_group, args=({"params": [np.ones(2)]},))

    def groups() -> Iterator[Any]:
        adding.start()
        adding.join(0.2)
        yield opt.param_groups[0]

    inside.assign(opt, groups(), {"lr": 0.25})
    adding.join()
    opt.step([[np.ones(2)], [np.ones(2)]])
    assert opt.param_groups[1]["params"][0].tolist() == [0.5, 0.5]


def test_arrays_replaced_between_two_lines_of_a_step():
    model = types.SimpleNamespace(parameters=np.ones(2), grad=np.ones(2))
    opt = fastadam.Adagrad(model, lr=0.5, eps=0)
    opt.step()

    class Scale(float):
        def __float__(self) -> float:
            model.parameters = np.ones(2)
            thread = threading.Thread(target=opt.state_dict)
            thread.start()
            thread.join()
            return 1.0

    opt.step(grad_scale=Scale(1))
    assert (opt.t, opt.state["v"][0].tolist()) == (2, [2, 2])
    assert model.parameters.tolist() == [1 - 0.5 / np.sqrt(2)] * 2
