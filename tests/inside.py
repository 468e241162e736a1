"""All that the tests, tools and benchmarks read of fastadam beside its public names: where one of these changes, here
alone. A function takes an optimizer and gives a part of it, or does what only fastadam itself does; modules follow.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fastadam import checkpoint, options
from fastadam.kernel import backends, threads
from fastadam.kernel._plan import BUILT_ISAS, MAX_THREADS, Plan, uninterrupted
from fastadam.rules import Rule

__all__ = ["BUILT_ISAS", "MAX_THREADS", "Plan", "backends", "options", "threads", "uninterrupted"]

#: the module of an instruction set's sweeps
SWEEPS = "fastadam.kernel._sweeps_{isa}"

# ---------------------------------------------------------------- what an optimizer holds


def plan(opt: Any) -> Plan:
    """What steps its arrays."""
    return opt._plan


def planned(opt: Any) -> list[np.ndarray]:
    """The parameters that the plan steps."""
    return opt._plan.params


def params(opt: Any) -> list[np.ndarray]:
    """The parameters that its groups name, in a row."""
    return opt._params


def keys(opt: Any) -> list[str]:
    """The parameters' names in a checkpoint."""
    return opt._keys


def states(opt: Any) -> list[list[list[np.ndarray]]]:
    """By group, parameter and state."""
    return opt._states


def state_arrays(opt: Any) -> list[np.ndarray]:
    return [array for group in opt._states for arrays in group for array in arrays]


def named_states(opt: Any) -> list[dict[str, np.ndarray]]:
    """Of each parameter its states by name, master weights among them."""
    return opt._named_states()


def bound(opt: Any) -> Sequence[np.ndarray] | None:
    """The gradients that were bound."""
    return opt._bound


def held_object(opt: Any) -> Any:
    """The object whose parameters are stepped, or None."""
    return opt._object


def everything(opt: Any) -> list[Any]:
    """All that a refused call must leave as it was, but the options."""
    p = opt._plan
    counts = (p.t, p.skipped, p.seed, p.grad_norm, p.n_threads, p.torn)
    steps = [p.steps(k) for k in range(p.n_groups)]
    return [counts, steps, opt.defaults, opt._states, opt._bound, p.params, p.names, opt._keys, opt.backend]


# ---------------------------------------------------------------- its counts


def steps(opt: Any, group: int) -> int:
    """The steps that a group has done."""
    return opt._plan.steps(group)


def n_planned_groups(opt: Any) -> int:
    return opt._plan.n_groups


def is_torn(opt: Any) -> bool:
    """Whether a step has ended half-way."""
    return opt._plan.torn


def set_t(opt: Any, t: int) -> None:
    """As if so many steps had been done by the optimizer."""
    opt._plan.t = t


def set_steps(opt: Any, group: int, count: int) -> None:
    """As if so many steps had been done by a group."""
    opt._plan.set_steps(group, count)


# ---------------------------------------------------------------- its rules


def rule_of(opt: Any, group: int = 0) -> Rule:
    """The rule that a group's options choose."""
    return opt.param_groups[group]._rule


def rule_for(cls: Any, values: dict[str, Any]) -> Rule:
    """The rule that options choose."""
    return cls._rule(values)


# ---------------------------------------------------------------- what only fastadam does


def plain_step(opt: Any, grads: Sequence[np.ndarray], **how: float) -> None:
    """The plan's own step with its `factor` and `clip_value`, which nothing has computed or checked."""
    opt._set_options()
    opt._plan.step(grads, **how)


def bind(opt: Any, grads: Sequence[np.ndarray]) -> None:
    """Bind gradients after construction."""
    opt._bind(opt._plan, grads)


def bind_to_plan(opt: Any, grads: Sequence[np.ndarray]) -> None:
    opt._plan.bind(grads)


def hold(opt: Any) -> AbstractContextManager[Any]:
    """Be within a step."""
    return opt._plan


def assign(opt: Any, groups: Iterable[Any], values: dict[str, Any]) -> None:
    """Assign options to groups, as an attribute does to all of them."""
    opt._assign(groups, values)


def step_within_a_step(opt: Any) -> None:
    """What a rule does that steps its own optimizer."""
    opt._plan.step((np.ones(2),))


def replace_kernel(opt: Any, python: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
    """A plan over an array of two elements, whose sweep and scalars are these functions."""
    kernel = backends.Kernel(rule_of(opt), python=python)
    opt._plan = Plan([(kernel, [np.ones(2)], [[np.ones(2), np.ones(2)]])], ["p"])


def count_kernel_calls(opt: Any) -> list[int]:
    """Fills with the number of gradients of each call of the plan's step."""
    held, calls = opt._plan, []

    class Spy:
        def step(self, grads, before):
            calls.append(len(grads))
            held.step(grads, before)

    opt._set_options()
    opt._plan = Spy()
    return calls


def stepped_once(params: Sequence[np.ndarray], rule: Rule, python: tuple[Any, Any]) -> None:
    """A step of a plan of a rule without states, with gradients of ones."""
    kernel = backends.Kernel(rule, python=python)
    Plan([(kernel, list(params), [[] for _ in params])], ["p"]).step([np.ones(p.shape) for p in params])


# ---------------------------------------------------------------- pickles and files


def change_pickled_params(state: dict[str, Any], arrays: tuple[np.ndarray, ...]) -> None:
    """In what `__getstate__` gave, other parameters of the first group."""
    state["_groups"][0][1].update(params=arrays)


def pickled_states(state: dict[str, Any], param: int) -> list[np.ndarray]:
    """In what `__getstate__` gave, the states of a parameter of the first group: to be changed."""
    return state["_states"][0][param]


#: what reads files: where the fuzzer looks which way an input takes
LOADERS = ("fastadam.checkpoint", "fastadam.schedules", "fastadam.options", "fastadam.kernel.checks")
entry_of, named_arrays, encode = checkpoint.entry_of, checkpoint.named_arrays, checkpoint.encode


def limit_description(monkeypatch: Any, n_bytes: int) -> None:
    """Let descriptions in files be at most so long."""
    monkeypatch.setattr(checkpoint, "_MAX_META", n_bytes)


def replace_lock(monkeypatch: Any, lock: Callable[..., Any]) -> None:
    """Let another function lock a folder."""
    monkeypatch.setattr(checkpoint, "_lock", lock)


def forget_quota() -> None:
    """Let the quota of processors be read anew."""
    threads._quota.cache_clear()


# ---------------------------------------------------------------- adapters


def article_states(opt: Any) -> Any:
    return vars(opt)["_states"]


def fitted(model: Any) -> Any:
    """scikit-learn's optimizer of a perceptron."""
    return model._optimizer


def count_torch_steps(monkeypatch: Any) -> list[int]:
    """Fills with the number of tensors that each step of a plan of the torch adapter steps."""
    from fastadam.adapters import torch

    calls = []

    class Counted:
        def __init__(self, *arguments):
            self.plan = Plan(*arguments)

        def __getattr__(self, name):
            return getattr(self.plan, name)

        def step(self, grads):
            calls.append(len(grads))
            self.plan.step(grads)

    monkeypatch.setattr(torch, "Plan", Counted)
    return calls


def torch_threads(optimizer: Any) -> int | None:
    return optimizer._n_threads


def forget_sklearn_checks() -> None:
    """Let scikit-learn's numbers be compared anew."""
    from fastadam.adapters import sklearn

    sklearn._check.cache_clear()


def scipy_box(bounds: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    from fastadam.adapters import scipy

    return scipy._box(bounds, size)


def plans_made_for_thinc(monkeypatch: Any) -> list[Any]:
    """Fills with the key of each parameter that gets a plan."""
    from fastadam.adapters import thinc

    made, new = [], thinc.Optimizer._new_plan
    monkeypatch.setattr(thinc.Optimizer, "_new_plan", lambda *args: made.append(args[1]) or new(*args))
    return made


def thinc_counts(optimizer: Any) -> dict[Any, int]:
    """The steps that each parameter's plan has done."""
    return {key: planned.plan.t for key, planned in optimizer._planned.items()}


# ---------------------------------------------------------------- ranks


def grad_views(opt: Any) -> list[np.ndarray]:
    """The parts of `.grads`, in a row."""
    return opt._grads


def whole_params(opt: Any) -> list[np.ndarray]:
    """The parameters whose parts the ranks step."""
    return opt._whole.params


def memories(opt: Any) -> list[Any]:
    return opt._memories


def exchange(opt: Any) -> Any:
    return opt._exchange


def ranks(opt: Any) -> Any:
    return opt._ranks


def layout(opt: Any) -> Any:
    return opt._layout


def agree(opt: Any, call: str, values: dict[str, Any]) -> None:
    """Let the ranks compare what they are about to do."""
    opt._ranks._agree(call, values)
