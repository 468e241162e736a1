"""A change that fails in its midst, as where memory is short, has happened as a whole or not at all. What comes in its
midst, from a hook or from another thread, is refused.
"""

import copy
import inspect
import io
import pickle
import sys
import threading
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, ClassVar

import inside
import numpy as np
import pytest

import fastadam

PACKAGE = str(Path(fastadam.__file__).parent)


class Short(MemoryError):
    """What is raised in the midst."""


def fails_at(call: int, work: Callable[[], None]) -> int:
    """Let work fail at its so many-th call of a Python function of the package; how many it made. Generators, which
    are also called to be closed, do not count."""
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_flags & inspect.CO_GENERATOR:
            calls += 1
            if calls == call:
                sys.setprofile(None)
                raise Short

    sys.setprofile(count)
    try:
        work()
    except Short:
        pass
    finally:
        sys.setprofile(None)
    return calls


def world(is_bound: bool = False, **options: Any) -> SimpleNamespace:
    """An optimizer whose options were assigned since its only step."""
    w = SimpleNamespace(params={"W": np.ones((3, 2)), "b": np.zeros(2)}, more=np.ones(2))
    w.grads = {key: np.full_like(p, 0.5) for key, p in w.params.items()}
    w.opt = fastadam.Adam(w.params, lr=0.1, grads=w.grads if is_bound else None, **options)
    w.opt.step(w.grads)
    w.opt.lr, w.opt.betas, w.opt.param_groups[0]["weight_decay"] = 0.5, (0.5, 0.25), 0.125
    return w


def add(w: SimpleNamespace) -> None:
    given = {"grads": [w.more / 2]} if w.opt.grads is not None else {}
    w.opt.add_param_group({"params": [w.more], "lr": 0.25, **given})


def rebind(w: SimpleNamespace) -> None:
    """Of another array, which is followed by the next step, or by what reads the optimizer."""
    w.params["b"] = np.full(2, 3.0)
    w.opt.state_dict()


CHANGES: dict[str, Callable[[SimpleNamespace], None]] = {
    "a new group": add,
    "a new group with gradients": add,
    "another array": rebind,
    "a replaced array": lambda w: w.opt.replace("W", np.ones((4, 2)), rows=[0, 2, -1, 1]),
    "options of all groups": lambda w: setattr(w.opt, "lr", 0.75),
    "options of a group": lambda w: w.opt.param_groups[0].update(lr=0.75, eps=0.5, name="all"),
    "a loaded dict": lambda w: w.opt.load_state_dict(LOADED),
    "a new beginning": lambda w: w.opt.reset(),
}
LOADED = world(amsgrad=False).opt.state_dict() | {"t": 7, "seed": 3}


def gone_on(w: SimpleNamespace) -> Any:
    """All that there is after one more step; or that there is none, of arrays that are said to be of two steps."""
    flat = {key: np.full_like(p, 0.25) for key, p in w.params.items()}
    try:
        w.opt.step(flat if len(w.opt.param_groups) == 1 else [flat, [w.more / 2]])
    except RuntimeError as error:
        if "a step failed half-way" not in str(error):
            raise
        return None
    stepped = inside.planned(w.opt)
    assert all(p is own for p, own in zip(stepped, [*w.params.values(), w.more], strict=False))
    assert all(p is own for p, own in zip(stepped, inside.params(w.opt), strict=True))
    return [*(p.tolist() for p in stepped), repr(w.opt), repr(w.opt.state_dict())]


def check(make: Callable[[], Any], change: Callable[[Any], None], go_on: Callable[[Any], Any], *allowed: Any) -> None:
    """A change fails at each of its last calls, and at every 13th before: nothing is touched there."""
    before, after, counted = make(), make(), make()
    change(after)
    allowed = (go_on(before), go_on(after), *allowed)
    assert allowed[0] != allowed[1]
    total = fails_at(0, lambda: change(counted))
    assert total > 10
    for call in {*range(1, total, 13), *range(max(1, total - 60), total + 1)}:
        w = make()
        assert fails_at(call, lambda w=w: change(w)) == call
        assert go_on(w) in allowed, call


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_fails_is_whole_or_none(name: str) -> None:
    torn = [None] if name in ("a loaded dict", "a new beginning") else []
    check(lambda: world("gradients" in name), CHANGES[name], gone_on, *torn)


def test_a_replacement_among_averages_that_fails_is_whole_or_none() -> None:
    def made() -> SimpleNamespace:
        w = SimpleNamespace(params={"W": np.ones((3, 2)), "b": np.zeros(2)})
        w.avg = fastadam.Average(w.params, decay=0.5)
        w.params["W"] += 1
        w.avg.update()
        return w

    def updated(w: SimpleNamespace) -> Any:
        w.params["b"] += 1
        w.avg.update()
        return [(p.tolist(), a.tolist()) for p, a in zip(w.params.values(), w.avg.params.values(), strict=True)]

    check(made, lambda w: w.avg.replace("W", np.full((4, 2), 3.0), rows=[0, 2, -1, 1]), updated)


def test_a_group_that_was_refused_leaves_nothing_to_the_next() -> None:
    opt = fastadam.Adam([np.ones(3)])
    for _ in range(2):
        with pytest.raises(ValueError, match="share memory"):  # which is seen when all else is done
            opt.add_param_group({"params": opt.state["m"][0], "lr": 0.5, "name": "refused"})
    opt.add_param_group({"params": np.ones(2)})
    with pytest.raises(ValueError, match=r"^lr: expected a number"):
        opt.param_groups[1]["lr"] = -1
    opt.add_param_group({"params": np.ones(2), "name": "refused"})
    assert [(group["lr"], group["name"]) for group in opt.param_groups] == [(1e-3, None)] * 2 + [(1e-3, "refused")]


class Failing(fastadam.Adam):
    """Adam whose hyper-parameters fail while they are asked for."""

    fails: ClassVar[list[int]] = []

    @classmethod
    def hyper_values(cls, rule: Any, values: Any, rate: float) -> Any:
        if cls.fails:
            raise ZeroDivisionError
        return super().hyper_values(rule, values, rate)


@pytest.mark.parametrize("where", [0, 1, "hyper"])
@pytest.mark.parametrize("step", ["step", "stepping"])
def test_options_that_a_refused_step_did_not_take_are_taken_by_the_next(where: Any, step: str) -> None:
    """Some groups were told of theirs, when it was refused."""
    fails: list[int] = []
    rates = [(lambda t: 1 / 0 if fails else 0.25) if where == k else 0.25 for k in range(2)]
    opts = [
        kind([{"params": np.ones(2), "lr": 0.5}, {"params": np.ones(3), "lr": 0.5}])
        for kind in (Failing, fastadam.Adam)
    ]
    grads = [np.ones(2), np.ones(3)]
    for opt in opts:
        opt.step(grads)
        opt.weight_decay = 0.5
        opt.param_groups[0]["lr"], opt.param_groups[1]["lr"] = rates
        opt.param_groups[1]["eps"] = 0.125
    calls = {"step": lambda: opts[0].step(grads), "stepping": lambda: opts[0].stepping().__enter__()}
    for fail in (fails, Failing.fails) if where == "hyper" else (fails,):
        fail.append(1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            calls[step]()
    fails.clear()
    Failing.fails.clear()
    for opt in opts:
        opt.step(grads)
    assert [p.tolist() for p in inside.planned(opts[0])] == [p.tolist() for p in inside.planned(opts[1])]


def test_an_option_that_is_assigned_in_the_midst_of_another_is_kept() -> None:
    opt = fastadam.Adam([np.ones(3)])

    class Changes(dict[int, Any]):
        def get(self, key: int, default: Any = None) -> Any:
            if opt.eps != 0.5:
                opt.eps = 0.5
            return super().get(key, default)

    opt.param_groups.assign(Changes({0: {"lr": 0.25}}))
    assert (opt.lr, opt.eps) == (0.25, 0.5)


# ---------------------------------------------------------------- what comes in the midst of a change


class Telling(UserDict):
    """A mapping that calls a hook when it is read or written."""

    hook: Callable[[], None] = staticmethod(lambda: None)

    def __getitem__(self, key: str) -> Any:
        self.hook()
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.hook()
        super().__setitem__(key, value)


class Rate:
    """A learning rate that calls a hook when it is checked."""

    def __init__(self, hook: Callable[[], None]) -> None:
        self.hook = hook

    @property
    def __signature__(self) -> inspect.Signature:
        self.hook()
        return inspect.signature(lambda t: None)

    def __call__(self, t: int) -> float:
        return 0.25

    def __repr__(self) -> str:
        return "Rate()"


class Zeroed(np.ndarray):
    """A gradient that calls a hook when it is written."""

    hook: Callable[[], None]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.hook()
        super().__setitem__(key, value)


class Begun(fastadam.Adam):
    """Adam that calls a hook when the first values of its states are asked for."""

    hook = staticmethod(lambda: None)

    @classmethod
    def first_states(cls, *given: Any) -> Any:
        cls.hook()
        return super().first_states(*given)


class File(io.BytesIO):
    hook: Callable[[], None]

    def write(self, data: Any) -> int:
        self.hook()
        return super().write(data)


def tell(w: SimpleNamespace, hook: Callable[[], None]) -> None:
    group = Telling(params=[w.more], grads=[w.more / 2])
    group.hook = hook
    w.opt.add_param_group(group)


def zero(w: SimpleNamespace, hook: Callable[[], None]) -> None:
    w.grads["b"] = w.grads["b"].view(Zeroed)
    w.grads["b"].hook = hook
    w.opt.zero_grad()


def begin(w: SimpleNamespace, hook: Callable[[], None], change: Callable[[SimpleNamespace], None]) -> None:
    w.opt = Begun(w.params, grads=w.grads)
    w.opt.step()
    Begun.hook = staticmethod(hook)
    try:
        change(w)
    finally:
        Begun.hook = staticmethod(lambda: None)


def write(w: SimpleNamespace, hook: Callable[[], None]) -> None:
    file = File()
    file.hook = hook
    w.opt.save(file)


def put(w: SimpleNamespace, hook: Callable[[], None]) -> None:
    w.params = Telling(w.params)
    w.opt, w.params.hook = fastadam.Adam(w.params, grads=w.grads), hook
    w.opt.replace("b", np.ones(2))


#: what calls a hook in its midst
HOOKED: dict[str, Callable[[SimpleNamespace, Callable[[], None]], None]] = {
    "a new group's dict": tell,
    "a new group's rate": lambda w, hook: w.opt.add_param_group(
        {"params": [w.more], "grads": [w.more / 2], "lr": Rate(hook)}
    ),
    "a new group's states": lambda w, hook: begin(w, hook, add),
    "gradients that are zeroed": zero,
    "a new beginning": lambda w, hook: begin(w, hook, lambda w: w.opt.reset()),
    "a replaced array": put,
    "a saved file": write,
    "a loaded rate": lambda w, hook: w.opt.load_state_dict(with_rate(w, Rate(hook))),
}
USES: dict[str, Callable[[fastadam.Optimizer], Any]] = {
    "step": lambda opt: opt.step(),
    "state_dict": lambda opt: opt.state_dict(),
    "save": lambda opt: opt.save(io.BytesIO()),
    "load_state_dict": lambda opt: opt.load_state_dict(LOADED),
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "add_param_group": lambda opt: opt.add_param_group({"params": np.ones(4), "grads": np.ones(4)}),
    "zero_grad": lambda opt: opt.zero_grad(),
    "replace": lambda opt: opt.replace("b", np.ones(2)),
    "reset": lambda opt: opt.reset(),
    "stepping": lambda opt: opt.stepping().__enter__(),
}


def with_rate(w: SimpleNamespace, rate: Any) -> dict[str, Any]:
    told = w.opt.state_dict()
    told["param_groups"][0]["lr"] = rate
    return told


@pytest.mark.parametrize("name", HOOKED)
def test_what_comes_in_the_midst_is_refused(name: str) -> None:
    refused: list[tuple[str, str]] = []
    w, twin = world(True), world(True)

    def use(who: str) -> None:
        for use, call in USES.items():
            with pytest.raises(RuntimeError, match=f"^{who} thread is inside"):
                call(w.opt)
            refused.append((who, use))

    def hook() -> None:
        if refused:
            return
        use("this")
        thread = threading.Thread(target=use, args=("another",))
        thread.start()
        thread.join()

    HOOKED[name](w, hook)
    HOOKED[name](twin, lambda: None)
    assert len(refused) == 2 * len(USES)
    assert [g.tolist() for g in w.grads.values()] == [g.tolist() for g in twin.grads.values()]
    assert gone_on(w) == gone_on(twin) is not None
