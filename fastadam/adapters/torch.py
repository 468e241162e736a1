"""The optimizers of torch.optim for CPU tensors, with fastadam's steps: the same arguments, states and results.
Each class is a subclass of torch's, with another `step`. Groups, state_dict, hooks and schedulers are torch's own.

All tensors are stepped in place, through NumPy views of their memory, in one compiled call. The ``state_dict()`` is
that of the torch optimizer of the same name, and each can load the other's. The same gradients give the same bits in
every run, with any number of threads.

``foreach`` and ``fused`` are accepted and ignored: in torch they only change the speed. ``capturable`` and
``differentiable`` are refused, and so are sparse tensors and tensors on other devices. A tensor that needs no gradient
may be anything that torch allows: it is checked when it first has a gradient. States of float16 and bfloat16 parameters
are float32, also in saved and loaded states, since steps are computed in float32. torch keeps and loads them in the
parameter's dtype. docs/how-to/libraries/torch.md lists all intended differences.

Sparse gradients of whole rows, such as those of ``torch.nn.Embedding(sparse=True)``, step only these rows, with every
class. The other rows and their states do not change, and get no weight decay, as in ``torch.optim.SparseAdam``. Other
sparse gradients are refused.

The set of tensors with gradients may change between steps. Then everything is laid out again, which takes longer than a
step. If that happens often, torch's own optimizers are faster.

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

import functools
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, groupby
from types import new_class
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import torch
    from torch.nn.parameter import is_lazy
except ImportError as error:
    raise ImportError("fastadam.adapters.torch needs PyTorch: pip install torch") from error

from .. import options
from ..base import Optimizer
from ..kernel import backends, checks, threads
from ..kernel._entry import Entry
from ..kernel._plan import Plan
from ..kernel._rows import Rows
from ..kernel._signals import deferred_signals
from ..rule import Rule
from ._tensors import Watch, read_by
from .tensors import changed, computed, gradient, steppable, view, with_counter
from .torch_average import Average as Average
from .torch_scalars import Carried, Scalar, plain_value, scalars_of, steps_done
from .torch_state import export_state, import_state, torch_classes, torch_defaults
from .torch_stepping import Stepping

__all__ = ["export_state", "import_state", *torch_classes()]

#: options of torch that do not change the result of a step
_SAME = {"foreach", "fused"}
#: options of torch that are not possible here, and what they do
_REFUSED = {
    "capturable": "keeps the counts of steps on a GPU, for its graphs",
    "differentiable": "lets gradients flow through the step, which autograd does not see here",
}
#: parameter dtypes whose states torch keeps in the same dtype, and fastadam in float32
_HALVES = (torch.float16, torch.bfloat16)


class _Unlooked:
    """torch's private names for observers of steps: global hooks and profilers. None if torch has other names."""

    profiler = torch.autograd.profiler
    before: Any = getattr(import_module("torch.optim.optimizer"), "_global_optimizer_pre_hooks", None)
    after: Any = getattr(import_module("torch.optim.optimizer"), "_global_optimizer_post_hooks", None)


def _is_looked_at(optimizer: Any) -> bool:
    """Whether there is a hook or a profiler, or whether this is unknown."""
    looks = _Unlooked
    try:
        return bool(
            looks.profiler._is_profiler_enabled
            or len(looks.before)
            or len(looks.after)
            or optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
        )
    except (AttributeError, TypeError):
        return True


class _Step(Stepping):
    """Mixin, placed before a torch optimizer, with a step by fastadam."""

    _ours: type[Optimizer]
    _plan: "_TensorPlan | None" = None
    _door: Any = None  # lets one thread in at a time; None until all groups exist
    param_groups: list[dict[str, Any]]
    state: Any

    def __init__(self, params: Any, *args: Any, n_threads: int | None = None, **options: Any) -> None:
        self._n_threads = threads.resolve("n_threads", n_threads)
        super().__init__(params, *args, **options)  # type: ignore[call-arg]
        _check_groups(self._ours, self.param_groups)
        self._step_supports_amp_scaling = False  # otherwise, with fused=True, GradScaler leaves unscaling to the step
        self._door = Entry()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch. Refuses tensors and options that cannot be stepped."""
        self._need_no_block()
        super().add_param_group(param_group)  # type: ignore[misc]
        if self._door is None:  # called by torch's __init__, after which all groups are checked
            return
        try:
            _check_groups(self._ours, self.param_groups)
        except BaseException:
            del self.param_groups[-1]
            raise

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: as in torch, with the number of threads."""
        self._need_no_block()
        kept: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return kept | {"_n_threads": self._n_threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._plan, self._door = None, Entry()
        self._n_threads = self.__dict__.get("_n_threads", threads.resolve("n_threads", None))

    @staticmethod
    def profile_hook_step(step: Callable[..., Any]) -> Callable[..., Any]:
        """torch's wrapper of `step`, used only with a hook or a profiler: it takes longer than a small step."""
        looked_at = torch.optim.Optimizer.profile_hook_step(step)

        @functools.wraps(step)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return (looked_at if _is_looked_at(args[0]) else step)(*args, **kwargs)

        return wrapper

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step of every parameter that has a gradient. The others and their step counts do not change.

        A sparse gradient of whole rows steps only these rows. The other rows miss decay and momentum, too.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients. Its result is returned.

        Raises
        ------
        TypeError, ValueError
            For a gradient that is not sparse by rows, a tensor that has moved to another device, or an option that does
            not fit. Nothing has changed then.
        RuntimeError
            If another thread is within a step of this optimizer.
        """
        loss = None
        self._need_no_block()
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        plan = self._plan
        if plan is None or not plan.step_as_before(self._door, self.param_groups, self.state):
            with deferred_signals():
                self._step_anew()
        return loss

    @torch.no_grad()
    def _step_anew(self) -> None:
        """A step after something may have changed since the last one."""
        groups = self.param_groups
        with self._door:
            stepped = [[p for p in group["params"] if p.grad is not None] for group in groups]
            if not any(stepped):
                return
            plan = self._plan_of(stepped)
            plan.step(groups)
            if plan is not self._plan:
                plan.hand_over(self.state)
                self._plan = plan

    def _plan_of(self, stepped: list[list[torch.Tensor]]) -> "_TensorPlan":
        """A plan over these tensors, given as a list for each group: the last plan if it is still valid."""
        groups, plan = self.param_groups, self._plan
        if plan is None or not plan.holds(groups, stepped, self.state):
            with torch.inference_mode(False):  # states made in inference mode could not be changed outside of it
                plan = _TensorPlan(self._ours, groups, stepped, self.state, self._n_threads)
        return plan

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but float32 states of 16-bit parameters stay float32."""
        self._need_no_block()
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


@dataclass
class _Part:
    """A group of the plan: consecutive tensors of one torch group that share all hyper-parameters and counts."""

    group: int  #: the number of the torch group
    rule: Rule
    places: slice  #: the places of its tensors among all
    values: dict[str, Any]  #: its checked options
    given: Any = None  #: its options before the checks, once the plan has them


class _TensorPlan:
    """A plan over the tensors that have gradients, and what it was made from, to check whether it is still valid."""

    def __init__(
        self, ours: type[Optimizer], groups: list[dict[str, Any]], stepped: Any, state: Any, n_threads: int
    ) -> None:
        self.ours, self.n_groups, self.refused = ours, len(groups), _refused_ways(ours)
        self.read = (torch_defaults(ours.__name__).keys() & ours.options.keys()) | self.refused
        self.defaults = {name: option.default for name, option in ours.options.items()}
        named = _named(groups)
        values = [self.checked(k, self.given(groups[k])) if params else {} for k, params in enumerate(stepped)]
        group_of = {p: k for k, params in enumerate(stepped) for p in params}
        self.params = list(group_of)
        # state[p] would make an entry
        found = [_Found(ours, named[p], p, state.get(p, {}), values[k]) for p, k in group_of.items()]
        self.parts: list[_Part] = []
        self.states: list[dict[str, torch.Tensor]] = []  # of each tensor, by torch's names
        planned: list[Any] = []
        counter = torch.empty(0, device="cpu")  # has the version counter of all tensors that are made here
        for (k, _), run in groupby(found, key=lambda own: (group_of[own.p], own.steps_like)):
            part, rule = list(run), self.rule_of(groups[k])
            states = [own.states(rule, counter) for own in part]
            views = [own.views(tensors) for own, tensors in zip(part, states, strict=True)]
            planned.append((backends.kernel(rule), [own.array for own in part], views))
            self.parts.append(_Part(k, rule, slice(len(self.states), len(self.states) + len(part)), values[k]))
            self.states += states
        names = [named[p] for p in self.params]
        self.grad_names = [f"gradient of {name}" for name in names]
        done = [own.done for own in found]
        self.plan = Plan(n_threads)
        self.plan.lay(planned, names)
        self.plan.set_counts(max(done), 0, done)
        counts = np.array(done, _count_dtype())
        self.carried = Carried(ours, np.array([own.numbers for own in found]).T, _count_dtype())
        kept = {"step": counts} if "step" in ours.torch_scalars else {}
        kept |= dict(zip(self.carried.scalars, self.carried.now, strict=True))
        #: torch's name of a number that it keeps -> the numbers of all tensors, each a tensor with a storage of its own
        self.numbers = {
            name: [with_counter(counter, torch.from_numpy(row[k, ...])) for k in range(len(done))]
            for name, row in kept.items()
        }
        states = [tensor for own in self.states for tensor in own.values()]
        # those that torch's optimizer had may have counters of their own
        had = [state.get(p, {}).keys() & own.keys() for p, own in zip(self.params, self.states, strict=True)]
        counters = [own[key] for own, keys in zip(self.states, had, strict=True) for key in sorted(keys)]
        self.watch = Watch(
            stepped,
            states + list(chain(*self.numbers.values())),
            [*self.params, *counters, counter],
            (counts, self.plan.steps),
            (self.carried.now, self.carried.following),
            self.read,
        )

    def hand_over(self, state: Any, left_out: Container[int] = ()) -> None:
        """Give the states to the torch optimizer. This happens after the first step with them."""
        for place, (p, states) in enumerate(zip(self.params, self.states, strict=True)):
            numbers = {name: every[place] for name, every in self.numbers.items()}  # which a step updates
            if place not in left_out and (states or numbers):
                state.setdefault(p, {}).update(states, **numbers)
        self.watch.note_states(state)

    def count(self, left_out: Any) -> None:
        """Update torch's numbers after a step of all tensors except these."""
        self.carried.following[:, left_out] = self.carried.now[:, left_out]
        self.watch.count(is_whole=False)

    def holds(self, groups: list[dict[str, Any]], stepped: list[list[torch.Tensor]], state: Any) -> bool:
        """Whether the rules, the tensors, their memory, states and counts are still those of the plan."""
        return self.has_rules(groups) and self.watch.finds(stepped, state)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        """The rule that a group's options choose."""
        return self.ours.rule(self.defaults | group)

    def has_rules(self, groups: list[dict[str, Any]]) -> bool:
        """Whether the groups' options choose the rules of the plan."""
        same = (self.rule_of(groups[part.group]) is part.rule for part in self.parts)
        return len(groups) == self.n_groups and all(same)

    def given(self, group: dict[str, Any]) -> dict[str, Any]:
        """The options of a group that a step reads, as plain values."""
        return {name: plain_value(group[name]) for name in self.read if name in group}

    def take_options(self, groups: list[dict[str, Any]]) -> bool:
        """Give the plan the present options of the groups. Return False if they choose another rule."""
        if not self.has_rules(groups):
            return False
        for place, part in enumerate(self.parts):
            given = self.given(groups[part.group])
            is_other = given != part.given
            if is_other:
                part.values = self.checked(part.group, given)
            if is_other or self.carried.scalars:
                self.plan.set_hyper(place, self.hyper(part))
            part.given = given
        self.watch.note_options(groups)
        return True

    def hyper(self, part: _Part) -> tuple[float, ...]:
        """The hyper-parameters of a part's next step."""
        given = self.ours.hyper_values(part.rule, part.values, part.values["lr"])
        carried = self.carried.hyper(part.places, int(self.plan.steps[part.places.start]) + 1, part.values)
        return tuple((dict(zip(part.rule.hyper, given, strict=True)) | carried).values())

    def checked(self, k: int, given: dict[str, Any]) -> dict[str, Any]:
        """Every option of group k, checked. Options that torch does not have get our defaults, which match torch."""
        where = f"param_groups[{k}]"
        _refuse_ways(where, given, self.refused)
        own = {name: value for name, value in given.items() if name not in self.refused}
        values = {name: self.ours.options[name].check(f"{where}[{name!r}]", value) for name, value in own.items()}
        return self.defaults | values | {"lr": options.rate(f"{where}['lr']", given["lr"])}

    def step_as_before(self, door: Entry, groups: list[dict[str, Any]], state: Any) -> bool:
        """Do one step if only options and the memory of gradients have changed; otherwise return False."""
        return self.watch.step(door, self.plan, groups, state, self.take_options)

    def step(self, groups: list[dict[str, Any]]) -> None:
        """Do one step with the present gradients of the tensors, and the present options of the groups."""
        self.take_options(groups)
        grads = [p.grad for p in self.params]
        taken = [gradient(name, grad) for name, grad in zip(self.grad_names, grads, strict=True)]
        self.plan.step(taken)
        self.watch.count(is_whole=True)
        for place, (grad, own) in enumerate(zip(grads, taken, strict=True)):
            if isinstance(own, Rows):
                self.watch.note_gradient(place, None, 0)
            else:
                self.watch.note_gradient(place, grad, own.ctypes.data)


def _named(groups: list[dict[str, Any]]) -> dict[torch.Tensor, str]:
    """Tensor -> its name in messages. Refuses a tensor that occurs twice."""
    named: dict[torch.Tensor, str] = {}
    for k, group in enumerate(groups):
        for i, p in enumerate(group["params"]):
            name = f"param_groups[{k}]['params'][{i}]"
            if named.setdefault(p, name) != name:
                raise ValueError(f"{name}: is the same tensor as {named[p]}; leave one of them out")
    return named


def _count_dtype() -> np.dtype[Any]:
    """The dtype of torch's step counts."""
    return np.dtype("float64" if torch.get_default_dtype() == torch.float64 else "float32")


class _Found:
    """A tensor to step, with its state in torch's optimizer."""

    def __init__(
        self, ours: type[Optimizer], name: str, p: torch.Tensor, state: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        self.ours, self.p, self.state, self.values = ours, p, state, values
        self.name = f"the state of {name}"
        self.array = steppable(name, p)
        self.done = steps_done(ours, self.name, state)
        self.numbers = [self.number(key, scalar) for key, scalar in scalars_of(ours).items()]

    @property
    def steps_like(self) -> list[Any]:
        """The numbers that tensors of a group must share to be stepped with the same hyper-parameters."""
        return [self.done, *self.numbers] if self.numbers else []

    def had(self, key: str) -> Any:
        """The entry of the state with this name; None before the first step."""
        if self.state.get(key) is None and self.done:
            raise ValueError(f"{self.name}: expected {key!r} after step {self.done}, got {list(self.state)}")
        return self.state.get(key)

    def number(self, key: str, scalar: Scalar) -> Any:
        """One of the numbers that torch keeps besides the step count, in torch's dtype for it."""
        had, dtype = self.had(key), _count_dtype()
        if had is None:
            return dtype.type(scalar.first(self.values))
        found = scalar.check(f"{self.name}: {key!r}", plain_value(had))
        return np.float64(found) if getattr(had, "dtype", None) == torch.float64 else dtype.type(found)

    def states(self, rule: Rule, counter: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors of the state in the rule's order, in the dtype in which p is computed. Missing ones are made."""
        found = {}
        dtype = torch.float32 if self.p.dtype in _HALVES else self.p.dtype
        for own, first in self.ours.first_states(rule, self.values, self.array).items():
            key = self.ours.torch_names[own]
            tensor = self.had(key)
            if tensor is None:
                tensor = torch.empty_like(self.p, dtype=dtype, memory_format=torch.preserve_format)
                view(self.name, tensor)[...] = first
                tensor = with_counter(counter, tensor)
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{self.name}: {key!r}: expected a tensor, got {type(tensor).__name__}")
            if tensor.is_complex() != self.p.is_complex():
                raise TypeError(f"{self.name}: {key!r}: is of {tensor.dtype}, its parameter of {self.p.dtype}")
            found[key] = computed(tensor.detach()).to(dtype)
        return found

    def views(self, states: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """Arrays over the memory of these tensors of the state."""
        return [steppable(f"a {self.name.removeprefix('the ')}", tensor) for tensor in states.values()]


def _refused_ways(ours: type[Optimizer]) -> set[str]:
    """The options that only torch has, and that affect more than speed."""
    return (torch_defaults(ours.__name__).keys() | _REFUSED.keys()) - ours.options.keys() - _SAME


def _refuse_ways(name: str, group: dict[str, Any], ways: Iterable[str]) -> None:
    for way in ways:
        if group.get(way):
            why = _REFUSED.get(way, "is not known here")
            raise ValueError(f"{name}: {way}=True {why}; leave it out, or assign False, or use torch.optim")


def _check_groups(ours: type[Optimizer], groups: list[dict[str, Any]]) -> None:
    """Refuse options and tensors that cannot be stepped. A tensor that needs no gradient is checked later."""
    for k, group in enumerate(groups):
        _refuse_ways(f"param_groups[{k}]", group, _refused_ways(ours))
    named = {name: p for p, name in _named(groups).items() if _needs_gradient(p)}
    checks.parameters(list(named), [steppable(name, p) for name, p in named.items()])


def _needs_gradient(p: torch.Tensor) -> bool:
    """Whether a tensor will be stepped, as far as is known. For a tensor of a lazy module it is not known yet."""
    return p.grad is not None or (p.requires_grad and not is_lazy(p))


def _stepped_by(ours: type[Optimizer]) -> type[Any]:
    """The subclass of torch's class of the same name with the steps of this class."""
    name = ours.__name__
    doc = f"`torch.optim.{name}` with the steps of `fastadam.{name}`, and with its option `n_threads`."
    members = {"_ours": ours, "__doc__": doc, "__module__": __name__}
    return new_class(name, (_Step, getattr(torch.optim, name)), {}, lambda body: body.update(members))


globals().update({name: _stepped_by(cls) for name, cls in torch_classes().items()})
read_by(getattr(torch.Tensor, "__dlpack_c_exchange_api__", None), torch.Tensor, torch.nn.Parameter, changed)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Each class that is made above."""
