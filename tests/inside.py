"""All non-public names of fastadam that the tests, tools and benchmarks use: if one changes, only this file changes.
A function takes an optimizer and returns a part of it, or does something that only fastadam itself does. Modules
follow.
"""

import ctypes
import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from fastadam import options
from fastadam.kernel import _blocks as blocks
from fastadam.kernel import arrived, backends, threads
from fastadam.kernel._cpu import BUILT_ISAS
from fastadam.kernel._layout import Kernel
from fastadam.kernel._plan import Plan
from fastadam.kernel._segments import state_like
from fastadam.kernel._signals import deferred_signals
from fastadam.kernel._tiles import MAX_THREADS
from fastadam.rule import Rule
from fastadam.state import entries, folder, numbers, places, snapshot

__all__ = [
    "BUILT_ISAS",
    "MAX_THREADS",
    "Plan",
    "arrived",
    "backends",
    "blocks",
    "options",
    "state_like",
    "threads",
    "uninterrupted",
]

#: the module of an instruction set's sweeps
SWEEPS = "fastadam.kernel._sweeps_{isa}"

# ---------------------------------------------------------------- what an optimizer holds


def plan(opt: Any) -> Plan:
    """What steps its arrays."""
    return opt.core.plan


def planned(opt: Any) -> list[np.ndarray]:
    """The parameters that the plan steps."""
    return opt.core.plan.params


def params(opt: Any) -> list[np.ndarray]:
    """The parameters that its groups name, in a row."""
    return [p for group in opt.param_groups for p in group["params"]]


def structure(opt: Any) -> Any:
    """The structure that was given, which is read anew at each step."""
    return opt.core.source


def keys(opt: Any) -> list[str]:
    """The parameters' names in a checkpoint."""
    return opt.core.tree.keys


def state_arrays(opt: Any) -> list[np.ndarray]:
    return [array for arrays in opt.core.store.states for array in arrays.values()]


def named_states(opt: Any) -> list[dict[str, np.ndarray]]:
    """Of each parameter its states by name, master weights among them."""
    return opt.core.store.states


def bound(opt: Any) -> Sequence[np.ndarray] | None:
    """The gradients that were bound, one a parameter; of averages, whose model it is, None."""
    return None if opt.core.bound is None or opt.core.tree.model is not None else opt.core.tree.flatten(opt.core.bound)


def held_object(opt: Any) -> Any:
    """The object whose parameters are stepped, or None."""
    return opt.core.owner


def everything(opt: Any) -> list[Any]:
    """All that a refused call must leave as it was, but the options."""
    core = opt.core
    counts = (core.plan.counts.tolist(), core.plan.seed, core.plan.grad_norm, core.plan.n_threads, core.plan.torn)
    states = [list(arrays.values()) for arrays in core.store.states]
    names = (core.plan.names, core.tree.keys)
    return [counts, core.groups.defaults, states, bound(opt), core.plan.params, names, opt.backend]


# ---------------------------------------------------------------- its counts


def steps(opt: Any, group: int) -> int:
    """The steps that each parameter of a group has done."""
    first = sum(len(other["params"]) for other in opt.param_groups[:group])
    counts = opt.core.plan.steps[first : first + len(opt.param_groups[group]["params"])]
    assert len(set(counts.tolist())) == 1
    return int(counts[0])


def missed(opt: Any, param: int = 0) -> np.ndarray:
    """The steps that each row of a parameter has yet to make up for, where `rows` is "exact"."""
    visits, _ = opt.core.store._logs[param]
    any_lags = visits[-1]
    return (opt.core.plan.steps[param] - visits[:-1]) * any_lags


def n_planned_groups(opt: Any) -> int:
    return opt.core.plan.n_groups


def lagging(opt: Any) -> list[int]:
    """Of each parameter how many rows have steps to make up for."""
    found = []
    rules = [rule for rule, group in zip(opt.core.groups.rules, opt.param_groups, strict=True) for _ in group["params"]]
    said = opt.core.groups.of_params("rows")
    for k, (p, rule, rows) in enumerate(zip(planned(opt), rules, said, strict=True)):
        visits = opt.core.store.log(k, p, rule.n_scalars)[0] if rows == "exact" else np.zeros(1, np.int64)
        found.append(int(visits[-1] and (visits[:-1] < opt.core.plan.steps[k]).sum()))
    return found


def is_torn(opt: Any) -> bool:
    """Whether a step has ended half-way."""
    return opt.core.plan.torn


def set_counts(opt: Any, t: int, steps: int) -> None:
    """As if so many steps had been done by the optimizer, and so many by each parameter."""
    opt.core.plan.set_counts(t, opt.skipped, steps)


# ---------------------------------------------------------------- its rules


def rule_of(opt: Any, group: int = 0) -> Rule:
    """The rule that a group's options choose."""
    return opt.core.groups.rules[group]


def rule_for(cls: Any, values: dict[str, Any]) -> Rule:
    """The rule that options choose."""
    return cls.rule(values)


# ---------------------------------------------------------------- what only fastadam does


def uninterrupted(work: Callable[[], Any]) -> None:
    """Call `work` with signals deferred until it returns."""
    with deferred_signals():
        work()


def plain_step(opt: Any, grads: Sequence[np.ndarray], factor: float = 1.0, clip_value: float | None = None) -> None:
    """The plan's own step, its factor given as it is."""
    opt.core.refresh()
    opt.core.plan.step(list(grads), clip_value=clip_value, factor=factor)


def bind(opt: Any, grads: Sequence[np.ndarray]) -> None:
    """Bind gradients after construction."""
    opt.core.bind(opt.core.tree.unflatten(grads))


def bind_to_plan(opt: Any, grads: Sequence[np.ndarray]) -> None:
    with opt.core.plan:
        opt.core.plan.admit(grads)


def hold(opt: Any) -> AbstractContextManager[Any]:
    """Be within a step."""
    return opt.core.plan


def assign(opt: Any, groups: Iterable[Any], values: dict[str, Any]) -> None:
    """Assign options to groups, as an attribute does to all of them."""
    opt.core.groups.assign({k: values for k, _ in enumerate(groups)})


def step_within_a_step(opt: Any) -> None:
    """What a rule does that steps its own optimizer."""
    opt.core.plan.step([np.ones(2)])


def replace_kernel(opt: Any, python: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
    """Let these functions be the sweep and the scalars of its rule."""
    kernel = Kernel(rule_of(opt), python=python)
    states = [list(arrays.values()) for arrays in opt.core.store.states]
    opt.core.plan.lay([(kernel, opt.core.plan.params, states)], ["p"])


def count_sweeps(monkeypatch: Any, rule: Rule) -> Counter[str]:
    """How often the float32 sweeps of a built-in rule are called from now on: whole ones, and idle ones."""
    calls: Counter[str] = Counter()
    signature = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p)

    def counted(name: str, address: int) -> int:
        sweep = signature(address)

        def call(*arguments: Any) -> None:
            calls[name] += 1
            sweep(*arguments)

        calls_of[name] = signature(call)
        return ctypes.cast(calls_of[name], ctypes.c_void_p).value or 0

    calls_of: dict[str, Any] = {}
    scalars, whole, float64 = backends.sweep_addresses(rule.name)
    fading, idle, idle64 = importlib.import_module(SWEEPS.format(isa=backends.ISA)).IDLE[rule.name]
    sweeps = {"float32": counted("whole", whole), "float64": float64}
    kernel = Kernel(rule, sweeps, scalars, owner=calls_of, idle=(fading, counted("idle", idle), idle64))
    monkeypatch.setitem(rule.kernels, "cython", kernel)
    return calls


def stepped_once(params: Sequence[np.ndarray], rule: Rule, python: tuple[Any, Any]) -> None:
    """A step of a plan of a rule without states, with gradients of ones."""
    plan = Plan()
    plan.lay([(Kernel(rule, python=python), list(params), [[] for _ in params])], ["p"])
    plan.step([np.ones(p.shape) for p in params])


# ---------------------------------------------------------------- pickles and files


def change_pickled_params(state: dict[str, Any], arrays: tuple[np.ndarray, ...]) -> None:
    """In what `__getstate__` gave, other parameters of the first group."""
    groups = state["core"]["groups"]
    groups.assign({0: {"params": arrays}})


def pickled_states(state: dict[str, Any], param: int) -> list[np.ndarray]:
    """In what `__getstate__` gave, the states of a parameter."""
    return list(state["core"]["states"][param].values())


def set_pickled_states(state: dict[str, Any], param: int, arrays: Sequence[np.ndarray]) -> None:
    """In what `__getstate__` gave, other states of a parameter."""
    states = list(state["core"]["states"])
    states[param] = {str(k): array for k, array in enumerate(arrays)}
    state["core"]["states"] = states


#: what reads files: where the fuzzer looks which way an input takes
LOADERS = (
    *(
        "fastadam.state." + name
        for name in ("entries", "files", "fitting", "folder", "mismatch", "npz", "places", "safetensors", "snapshot")
    ),
    "fastadam.schedules",
    "fastadam.options",
    "fastadam.kernel.checks",
)
entry_of, encode, order_of = entries.entry_of, snapshot.encode, numbers.order_of


def named_arrays(opt: Any, params: bool) -> dict[str, np.ndarray]:
    """Entry of a file -> array."""
    return opt.core.snapshot().arrays(params)


def limit_memory(monkeypatch: Any, n_bytes: int) -> None:
    """As if the machine had so much memory."""
    monkeypatch.setattr(places, "_memory", lambda: n_bytes)


def limit_zip(monkeypatch: Any, n_bytes: int) -> None:
    """List entries of a zip in 64 bits if they end behind this byte."""
    monkeypatch.setattr(importlib.import_module("fastadam.state.npz"), "_LARGE", n_bytes)


def count_reads(monkeypatch: Any) -> list[int]:
    """A list that gets the sizes of all reads of a `Source`."""
    sizes, real = [], places.Source.__init__

    def counting(self: Any, name: str, size: int, read: Callable[[int, int], Any]) -> None:
        real(self, name, size, lambda first, count: (sizes.append(count), read(first, count))[1])

    monkeypatch.setattr(places.Source, "__init__", counting)
    return sizes


def limit_description(monkeypatch: Any, n_bytes: int) -> None:
    """Let descriptions in files be at most so long."""
    monkeypatch.setattr(entries, "_MOST", n_bytes)
    monkeypatch.setattr(entries, "_MOST_EACH", 0)


def folder_arrays(path: Path, mode: Any = "r") -> dict[str, np.ndarray]:
    """The arrays in a `state_dir`, by name, as docs/how-to/checkpoints.md says how to read them."""
    whole, first, found = np.memmap(path / "states.bin", mode=mode), 0, {}
    for name, dtype, shape, order in json.loads((path / "fastadam.json").read_bytes())["arrays"]:
        found[name] = np.ndarray(shape, dtype, whole, first, order=order)
        first += -(-found[name].nbytes // 64) * 64
    return found


def replace_lock(monkeypatch: Any, lock: Callable[..., Any]) -> None:
    """Let another function lock a folder."""
    monkeypatch.setattr(folder, "_lock", lock)


def forget_quota() -> None:
    """Let the quota of processors be read anew."""
    threads._quota.cache_clear()


# ---------------------------------------------------------------- adapters


def article_states(opt: Any) -> Any:
    return vars(opt)["_states"]


def fitted(model: Any) -> Any:
    """scikit-learn's optimizer of a perceptron."""
    return model._optimizer


def stepper(optimizer: Any) -> Any:
    """What makes the steps of scikit-learn's optimizer."""
    return optimizer._stepper


def stepped(optimizer: Any) -> list[np.ndarray]:
    """The parameters of its last step."""
    return optimizer._stepper.params


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

        def step_at(self, addresses):
            if stepped := self.plan.step_at(addresses):
                calls.append(len(addresses))
            return stepped

    monkeypatch.setattr(torch, "Plan", Counted)
    return calls


def torch_class_of(cls: Any) -> Any:
    """The adapter's class for one of fastadam's, over the class that `torch.optim` has now."""
    from fastadam.adapters import torch

    return torch._stepped_by(cls)


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

    made, new = [], thinc.Optimizer._new_stepped
    monkeypatch.setattr(thinc.Optimizer, "_new_stepped", lambda *args: made.append(args[1]) or new(*args))
    return made


def thinc_counts(optimizer: Any) -> dict[Any, int]:
    """The steps that each parameter's plan has done."""
    return {key: stepped.stepper.t for key, stepped in optimizer._stepped.items()}


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


def replicate_below(n_bytes: int) -> int:
    """Let ranks by default each step everything, where parameters have fewer bytes than this over the ranks; what the
    number was before."""
    module: Any = importlib.import_module("fastadam.mpi.layout")
    before, module.REPLICATE_BELOW = module.REPLICATE_BELOW, n_bytes
    return before


def agree(opt: Any, call: str, values: dict[str, Any]) -> None:
    """Let the ranks compare what they are about to do."""
    opt._ranks.agree(call, values)


def listen(opt: Any, hear: Callable[[str, int], None]) -> None:
    """Tell of each message of the ranks how MPI calls it, and how many bytes its largest array has."""
    opt._ranks.comm = _Heard(opt._ranks.comm, hear)


class _Heard:
    def __init__(self, comm: Any, hear: Callable[[str, int], None]) -> None:
        self._comm, self._hear = comm, hear

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._comm, name)
        if not name.startswith("I"):
            return found

        def call(*given: Any) -> Any:
            arrays = [part for each in given for part in (each if isinstance(each, list) else [each])]
            self._hear(name, max(array.nbytes for array in arrays if isinstance(array, np.ndarray)))
            return found(*given)

        return call
