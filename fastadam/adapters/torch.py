"""torch.optim's optimizers over CPU tensors, stepped by fastadam: same arguments, states and numbers, many in one call.
Each class *is* torch's, with another `step`: groups, state_dict, hooks and learning-rate schedulers are torch's own.

The tensors are stepped where they lie, through NumPy views of their memory, all in one compiled call. The
``state_dict()`` is that of the torch optimizer of the same name, and either loads the other's. The same gradients give
the same bits in every run, for any number of threads.

``foreach``, ``fused``, ``capturable`` and ``differentiable`` choose a way of computing in torch; here there is one, and
True is refused (but ``foreach`` and ``fused`` that come with a loaded state are kept, and mean nothing). So are tensors
on other devices, sparse and complex ones, and sparse gradients. States of float16 and bfloat16 parameters are float32,
in which they are computed, here and in what is saved and loaded; torch keeps, and loads, them in the parameter's dtype.

Which tensors have gradients may differ from step to step, but all is laid out anew then, which takes longer than a
step: where that happens often, torch's own optimizers are faster.

Examples
--------
>>> import torch
>>> from fastadam.adapters.torch import Adam
>>> model = torch.nn.Linear(3, 1)
>>> optimizer = Adam(model.parameters(), lr=0.01)
>>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
>>> for _ in range(20):
...     optimizer.zero_grad()
...     model(torch.ones(2, 3)).square().mean().backward()
...     _ = optimizer.step()
...     scheduler.step()
>>> isinstance(optimizer, torch.optim.Adam), optimizer.param_groups[0]["lr"]
(True, 0.0001)
"""

import operator
import os
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError("fastadam.adapters.torch needs PyTorch: pip install torch") from error

from .. import optimizers, options
from ..base import Optimizer
from ..kernel import backends, checks, threads
from ..kernel._plan import Plan, uninterrupted
from ..rules import Rule
from .torch_state import export_state, import_state, ours_alone, plain_value, steps_done

__all__ = ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "RMSprop", "export_state", "import_state"]

#: torch's ways of computing, and those of them that change what a step gives
_WAYS = ("foreach", "fused", "capturable", "differentiable")
_CHANGING = ("capturable", "differentiable")
#: what a step reads of a group, beside its tensors
_READ = {*options.CHECKS, *_CHANGING}
#: dtypes that torch keeps states in, where they are computed in float32
_HALVES = (torch.float16, torch.bfloat16)


class _Step:
    """A step by fastadam, mixed in before a torch optimizer."""

    _ours: type[Optimizer]
    _plan: "_TensorPlan | None" = None
    param_groups: list[dict[str, Any]]
    state: Any

    def __init__(self, params: Any, *args: Any, n_threads: int | None = None, **options: Any) -> None:
        self._n_threads = threads.resolve(n_threads)
        self._stepping: dict[int, object] = {}  # by process: a token of the thread that is inside
        super().__init__(params, *args, **options)  # type: ignore[call-arg]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; refuses tensors and options that cannot be stepped."""
        super().add_param_group(param_group)  # type: ignore[misc]
        try:
            _check_group(f"param_groups[{len(self.param_groups) - 1}]", self.param_groups[-1])
        except BaseException:
            del self.param_groups[-1]
            raise

    def __getstate__(self) -> dict[str, Any]:
        """What torch's optimizers copy and pickle, and the number of threads."""
        kept: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return kept | {"_n_threads": self._n_threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._plan, self._stepping = None, {}
        self._n_threads = self.__dict__.get("_n_threads", threads.resolve(None))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient; the others, and their counts of steps, stay.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew; what it returns is returned.

        Raises
        ------
        TypeError, ValueError
            For a sparse gradient, a tensor that has moved to another device, or an option that does not fit: nothing
            has changed then.
        RuntimeError
            If another thread is inside a step of this optimizer.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        uninterrupted(self._step_once)
        return loss

    def _step_once(self) -> None:
        token, process = object(), os.getpid()
        if self._stepping.setdefault(process, token) is not token:
            raise RuntimeError("another thread is inside a step of this optimizer; give each thread its own, or a lock")
        try:
            stepped = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
            if any(stepped):
                self._step_these(stepped)
        finally:
            del self._stepping[process]

    def _step_these(self, stepped: list[list[torch.Tensor]]) -> None:
        plan = self._plan
        if plan is None or not plan.holds(self.param_groups, stepped, self.state):
            with torch.inference_mode(False):  # states made within could not be changed outside
                plan = _TensorPlan(self._ours, self.param_groups, stepped, self.state, self._n_threads)
        plan.step(self.param_groups)
        if plan is not self._plan:
            plan.hand_over(self.state)
            self._plan = plan

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but float32 states of 16-bit parameters stay what they are."""
        seen: list[dict[str, Any]] = []
        last = self.register_load_state_dict_pre_hook(lambda _, given: seen.append(given))  # type: ignore[attr-defined]
        try:
            super().load_state_dict(state_dict)  # type: ignore[misc]
        finally:
            last.remove()
        groups, states = seen[0]["param_groups"], seen[0]["state"]
        places = chain.from_iterable(group["params"] for group in groups)
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for place, p in zip(places, params, strict=True):
            for name, value in states.get(place, {}).items() if p.dtype in _HALVES else ():
                if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                    self.state[p][name] = value.detach().clone()


class _TensorPlan:
    """A plan over the tensors that have gradients, and what it was made of, to see whether that still holds."""

    def __init__(
        self, ours: type[Optimizer], groups: list[dict[str, Any]], stepped: Any, state: Any, n_threads: int
    ) -> None:
        self.ours, self.made_of, self.ours_alone = ours, stepped, ours_alone(ours, options.CHECKS)
        named: dict[torch.Tensor, str] = {}
        for k, group in enumerate(groups):
            for i, p in enumerate(group["params"]):
                name = f"param_groups[{k}]['params'][{i}]"
                if named.setdefault(p, name) != name:
                    raise ValueError(f"{name}: is the same tensor as {named[p]}; leave one of them out")
        held = {p: state.get(p, {}) for params in stepped for p in params}  # to read it makes an entry
        self.parts = []  # a group's number, its rule, and those of its tensors that have done as many steps
        for k, params in enumerate(stepped):
            counts = [steps_done(f"the state of {named[p]}", held[p]) for p in params]
            for count in dict.fromkeys(counts):
                some = [p for p, c in zip(params, counts, strict=True) if c == count]
                self.parts.append((k, ours._rule(groups[k]), count, some))
        self.params = [p for *_, params in self.parts for p in params]
        self.states: list[dict[str, Any]] = []  # of each tensor, by torch's names
        planned = []
        for k, rule, _, params in self.parts:
            arrays = [_view(p, named[p]) for p in params]
            states = [_states(ours, rule, groups[k], f"the state of {named[p]}", p, held[p]) for p in params]
            views = [[_view(tensor, "a state") for tensor in tensors.values()] for tensors in states]
            planned.append((backends.kernel(rule), arrays, views))
            self.states += states
        names = [named[p] for p in self.params]
        self.grad_names = [f"gradient of {name}" for name in names]
        checks.parameters(names, [array for _, arrays, _ in planned for array in arrays])
        self.plan = Plan(planned, names, max(count for _, _, count, _ in self.parts), n_threads)
        for part, (_, _, count, _) in enumerate(self.parts):
            self.plan.set_steps(part, count)
        dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32  # as torch counts
        done = [float(count) for _, _, count, params in self.parts for _ in params]
        self.counts = torch.tensor(done, dtype=dtype, device="cpu")
        self.count_array, self.counts_at = self.counts.numpy(), self.counts.data_ptr()
        self.before = self.count_array - self.plan.t
        self.count_bytes = b""
        self.tensors: list[Any] = []
        self.options: list[Any] = [None] * len(self.parts)

    def hand_over(self, state: Any) -> None:
        """Let the torch optimizer have the states: not before a step was made with them."""
        for p, states, count in zip(self.params, self.states, self.counts, strict=True):
            state.setdefault(p, {}).update(states, step=count)  # a view: one addition counts for all
        self.tensors = [tensor for p in self.params for tensor in state[p].values()]
        self.placed = self.params + [tensor for states in self.states for tensor in states.values()]
        self.memory = self.memory_now()

    def memory_now(self) -> tuple[list[int], list[tuple[int, ...]]]:
        """Where the tensors lie: assigning to ``.data`` gives the same tensor another memory or other strides."""
        return list(map(torch.Tensor.data_ptr, self.placed)), list(map(torch.Tensor.stride, self.params))

    def holds(self, groups: list[dict[str, Any]], stepped: Any, state: Any) -> bool:
        """Whether these are still the rules, the tensors, their memory, their states and counts."""
        return (
            len(stepped) == len(self.made_of)
            and all(map(_are, stepped, self.made_of))
            and all(self.ours._rule(groups[k]) is rule for k, rule, *_ in self.parts)
            and _are([tensor for p in self.params for tensor in state.get(p, {}).values()], self.tensors)
            and self.memory_now() == self.memory
            and self.counts.data_ptr() == self.counts_at  # else it was moved, and the array is of memory that is gone
            and self.count_array.tobytes() == self.count_bytes
        )

    def step(self, groups: list[dict[str, Any]]) -> None:
        """One step with the gradients that the tensors have now, and the options that the groups have now."""
        for part, (k, rule, _, _) in enumerate(self.parts):
            given = {name: plain_value(value) for name, value in groups[k].items() if name in _READ}
            if given != self.options[part]:
                _refuse_ways(f"param_groups[{k}]", given, _CHANGING)
                values = {
                    name: options.check(name, value, f"param_groups[{k}][{name!r}]")
                    for name, value in {**self.ours_alone, **given}.items()
                    if name in options.CHECKS
                }
                lr = options.rate(f"param_groups[{k}]['lr']", given["lr"])
                self.plan.set_hyper(part, self.ours.hyper_values(rule, values, lr))
                self.options[part] = given
        self.plan.step([_gradient(p.grad, name) for p, name in zip(self.params, self.grad_names, strict=True)])
        np.add(self.before, self.plan.t, out=self.count_array)
        self.count_bytes = self.count_array.tobytes()


def _are(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _states(
    ours: type[Optimizer], rule: Rule, group: dict[str, Any], name: str, p: torch.Tensor, state: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """The tensors of a parameter's state in the rule's order, those that are missing made: in what p is computed in."""
    found = {}
    dtype = p.dtype if p.dtype == torch.float64 else torch.float32
    initial = float(group.get("initial_accumulator_value", 0.0))
    for key in (ours.torch_names[own] for own in rule.states):
        tensor = state.get(key)
        if tensor is None and steps_done(name, state):
            raise ValueError(f"{name}: expected {key!r} after step {steps_done(name, state)}, got {list(state)}")
        if tensor is None:
            tensor = torch.full_like(p, initial, dtype=dtype, memory_format=torch.preserve_format)
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name}: {key!r}: expected a tensor, got {type(tensor).__name__}")
        found[key] = tensor.detach().resolve_neg().to(dtype)
    return found


def _gradient(tensor: Any, what: str) -> np.ndarray:
    """As `_view`, which refuses what autograd left uncomputed, for a clone holds that as well."""
    try:
        return tensor.numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError):
        is_lazy = tensor.layout == torch.strided and (tensor.is_neg() or tensor._is_zerotensor())
        return _view(tensor.clone() if is_lazy else tensor, what)


def _view(tensor: Any, what: str) -> np.ndarray:
    """The tensor's memory as an array."""
    try:
        return tensor.numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError) as error:  # not worth asking before: this is called for every gradient
        if tensor.layout != torch.strided:
            why, way = f"is sparse ({tensor.layout})", ".to_dense(), or torch.optim"
        elif tensor.device.type != "cpu":
            why, way = f"lies on {tensor.device}", ".cpu(), or torch.optim"
        elif tensor.dtype == torch.bfloat16:
            from ml_dtypes import bfloat16

            return tensor.detach().view(torch.int16).numpy().view(bfloat16)  # type: ignore[no-any-return]
        elif tensor.requires_grad:
            return _view(tensor.detach(), what)
        elif tensor.is_neg() or tensor._is_zerotensor():
            why, way = "has values that are not computed yet", ".clone()"
        else:
            why, way = f"is of {tensor.dtype}", "torch.optim"
        raise TypeError(f"{what} {why}; fastadam steps dense, real CPU tensors: use {way}") from error


def _refuse_ways(name: str, group: dict[str, Any], ways: tuple[str, ...]) -> None:
    for way in ways:
        if group.get(way):
            raise ValueError(f"{name}: {way}=True chooses a way of computing in torch; leave it out, or assign False")


def _check_group(name: str, group: dict[str, Any]) -> None:
    _refuse_ways(name, group, _WAYS)
    for place, p in enumerate(group["params"]):
        checks.parameter(f"{name}['params'][{place}]", _view(p, f"{name}['params'][{place}]"))


class Adam(_Step, torch.optim.Adam):
    """`torch.optim.Adam`, AMSGrad included, stepped by `fastadam.Adam`; `n_threads` as there."""

    _ours = optimizers.Adam


class AdamW(_Step, torch.optim.AdamW):
    """`torch.optim.AdamW` stepped by `fastadam.AdamW`; `n_threads` as there."""

    _ours = optimizers.AdamW


class Adamax(_Step, torch.optim.Adamax):
    """`torch.optim.Adamax` stepped by `fastadam.Adamax`; `n_threads` as there."""

    _ours = optimizers.Adamax


class Adagrad(_Step, torch.optim.Adagrad):
    """`torch.optim.Adagrad` stepped by `fastadam.Adagrad`; `n_threads` as there."""

    _ours = optimizers.Adagrad


class RMSprop(_Step, torch.optim.RMSprop):
    """`torch.optim.RMSprop` stepped by `fastadam.RMSprop`; `n_threads` as there."""

    _ours = optimizers.RMSprop


class Adadelta(_Step, torch.optim.Adadelta):
    """`torch.optim.Adadelta` stepped by `fastadam.Adadelta`; `n_threads` as there."""

    _ours = optimizers.Adadelta
