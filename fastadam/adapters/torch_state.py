"""Exchange of an optimizer's state with torch.optim: a run that began in torch continues here, and the other way round.
torch is imported on first use.

`export_state` returns a dict for ``load_state_dict`` of the torch optimizer of the same name. `import_state` takes a
dict from its ``state_dict``. Both work for the classes that torch and fastadam share by name, with all variants that
torch has, if the parameters have the same order and groups. The state does not include the parameters: copy them
yourself. Both libraries count the steps of each parameter, except that torch's `SGD` has no count. A parameter of
torch's `SGD` counts as having done one step if it has a momentum buffer, else none.

Examples
--------
A run begins in torch and continues here:

>>> import numpy as np, torch, fastadam
>>> from fastadam.adapters.torch_state import export_state, import_state
>>> w = torch.tensor([1.0, 2.0])
>>> theirs = torch.optim.Adam([w], lr=0.25)
>>> w.grad = torch.tensor([1.0, -1.0])
>>> theirs.step()
>>> p = w.numpy().copy()
>>> ours = fastadam.Adam([p])
>>> import_state(ours, theirs.state_dict())
>>> ours.t, ours.lr
(1, 0.25)
>>> ours.step([np.array([1.0, -1.0], np.float32)])
>>> p.round(4)
array([0.5, 2.5], dtype=float32)

and returns:

>>> _ = w.copy_(torch.from_numpy(p))
>>> theirs.load_state_dict(export_state(ours))
>>> theirs.step()
>>> w
tensor([0.2500, 2.7500])
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ..base import Optimizer
from ..kernel import checks
from ..kernel.checks import counted, shown
from ..optimizers import CLASSES, AdamW
from .torch_scalars import plain_value, scalars_of, steps_done

#: options that older versions of torch do not have; their behaviour is the default of the class
_LATER = {"maximize", "decoupled_weight_decay"}
#: the largest step count that torch keeps exactly in float32
_MAX_FLOAT32 = 2**24


def export_state(optimizer: Optimizer) -> dict[str, Any]:
    """A copy of the state, in the form that ``load_state_dict`` of the torch optimizer of this name takes.

    A parameter that has done no step has no state, as in torch (except in Adagrad). Float32 states of 16-bit parameters
    stay float32; torch rounds them when it loads. Master weights are parameters, not state: copy them to torch's
    parameters. ``foreach``, ``fused`` and other options that say how torch computes have torch's defaults.

    Raises
    ------
    TypeError
        For an optimizer that torch does not have.
    ValueError
        For an option that torch does not have (``eps_hat``, ``beta_decay``, ``alpha_decay``, ``eps_in_sqrt``), a
        function as ``lr``, or ``state_dtype="int8"``.
    """
    cls = _torchs(optimizer)
    defaults = torch_defaults(cls.__name__)
    own = optimizer.state_dict()
    states: dict[int, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for group, live in zip(own["param_groups"], optimizer.param_groups, strict=True):
        places = range(len(states), len(states) + len(group["params"]))
        groups.append({name: group.get(name, value) for name, value in defaults.items()} | {"params": list(places)})
        for place, key, p in zip(places, group["params"], live["params"], strict=True):
            states[place] = _exported(cls, own["steps"][key], own["state"][key], group, p)
            if not own["steps"][key] and "initial_accumulator_value" not in defaults:
                states[place] = {}  # torch makes such states with the first step
    return {"state": {place: state for place, state in states.items() if state}, "param_groups": groups}


def import_state(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Continue from the ``state_dict()`` of the torch optimizer of this name: copy its options, counts and states.

    16-bit states are widened. A state that would have to be rounded is refused. Master weights are copied from the
    parameters, as at construction. A parameter without state has done no step.

    Raises
    ------
    TypeError, ValueError
        If the state belongs to another optimizer or other parameters, if a state is sparse or on another device, or if
        this optimizer has an option that torch does not have. Nothing has changed then.
    """
    cls = _torchs(optimizer)
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict: expected torch_optimizer.state_dict(), got {type(state_dict).__name__}")
    own = optimizer.state_dict()
    groups, states = state_dict.get("param_groups"), state_dict.get("state")
    if not isinstance(groups, list) or not isinstance(states, Mapping):
        raise ValueError(f"state_dict: expected the keys 'state' and 'param_groups', got {list(state_dict)[:5]}")
    if len(groups) != len(own["param_groups"]):
        raise ValueError(f"state_dict: expected {counted(len(own['param_groups']), 'group')}, got {len(groups)}")
    seen: set[Any] = set()
    for k, (group, mine) in enumerate(zip(groups, own["param_groups"], strict=True)):
        where = f"state_dict['param_groups'][{k}]"
        mine |= _options(where, cls, group, mine)
        places = group.get("params")
        if not isinstance(places, list) or len(places) != len(mine["params"]):
            raise ValueError(f"{where}: expected {counted(len(mine['params']), 'parameter')}, got {shown(places)}")
        for place, key, p in zip(places, mine["params"], optimizer.param_groups[k]["params"], strict=True):
            entry = f"state_dict['state'][{place!r}]"
            came = {name: value for name, value in _mapping(entry, states.get(place, {})).items() if value is not None}
            own["steps"][key] = steps_done(cls, entry, came)
            _check_scalars(entry, cls, came, own["steps"][key], mine)
            first = cls.first_states(cls.rule(mine), mine, p) | {"master": p}
            own["state"][key] = _converted(entry, came, cls, own["state"][key], first)
        seen |= set(places)
    if unknown := [place for place in states if place not in seen]:
        raise ValueError(f"state_dict['state']: of no parameter in its groups: {unknown[:5]}")
    own |= {"t": max(own["steps"].values()), "skipped": 0}
    optimizer.load_state_dict(own)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError("fastadam.adapters.torch needs torch: pip install torch") from error
    return torch


def torch_classes() -> dict[str, type[Optimizer]]:
    """The optimizers that torch has under the same name."""
    theirs = _torch().optim
    return {name: cls for name, cls in CLASSES.items() if cls.torch_names and hasattr(theirs, name)}


@cache
def torch_defaults(name: str) -> Mapping[str, Any]:
    """The options of the torch optimizer of this name in the installed version, with their defaults."""
    torch = _torch()
    return getattr(torch.optim, name)([torch.empty(0, device="cpu")]).defaults  # type: ignore[no-any-return]


def ours_alone(cls: type[Optimizer]) -> dict[str, Any]:
    """The options that torch's class of this name does not have, with our defaults, which match torch's behaviour."""
    theirs = torch_defaults(cls.__name__)
    shared = {*theirs, "state_dtype", "min_8bit_size"}  # the last two only say how states are stored
    return {name: own.default for name, own in cls.options.items() if own.init and name not in shared}


def _torchs(optimizer: Optimizer) -> type[Optimizer]:
    """The class that torch has, too. Refuses options that torch does not have."""
    classes = torch_classes()
    found = next((cls for cls in type(optimizer).__mro__ if classes.get(cls.__name__) is cls), None)
    if found is None:
        raise TypeError(
            f"optimizer: expected one of {', '.join(classes)}, which torch has, got {type(optimizer).__name__}"
        )
    for group in optimizer.param_groups:
        for name, value in ours_alone(found).items():
            if group[name] != value:
                raise ValueError(f"{name}: torch.optim.{found.__name__} has no such option; assign {value} first")
        if group["state_dtype"] == "int8":
            raise ValueError(
                "state_dtype: torch has no states of 8 bits; make an optimizer without state_dtype, which takes these "
                "by load_state_dict(…, convert=True), and export that"
            )
        if callable(group["lr"]):
            raise ValueError("lr: is a function, and torch keeps a number; assign one first, and the function after")
        _check_decoupled("decoupled_weight_decay", found, group)
    return found


def _check_decoupled(where: str, cls: type[Optimizer], group: Mapping[str, Any]) -> None:
    if cls is AdamW and not group["decoupled_weight_decay"]:
        raise ValueError(f"{where}: torch.optim.AdamW decouples its decay always; use Adam")


def _options(where: str, cls: type[Optimizer], group: Any, mine: Mapping[str, Any]) -> dict[str, Any]:
    """The checked options of a torch group."""
    _mapping(where, group)
    names = [name for name in cls.options if name in torch_defaults(cls.__name__) or name in _LATER]
    if missing := [name for name in names if name not in group and name not in _LATER]:
        raise ValueError(f"{where}: not a group of torch.optim.{cls.__name__}: missing: {missing}")
    known = {name for other in torch_classes().values() for name in other.options}
    if foreign := sorted(group.keys() & known - cls.options.keys()):
        raise ValueError(f"{where}: not a group of torch.optim.{cls.__name__}: it has {foreign}")
    given = {name: plain_value(group.get(name, cls.options[name].default)) for name in names}
    found = {name: cls.options[name].check(f"{where}: {name}", value) for name, value in given.items()}
    _check_decoupled(f"{where}['decoupled_weight_decay']", cls, {**mine, **found})
    return found


def _mapping(where: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{where}: expected a dict, got {type(value).__name__}")
    return value


def _exported(
    cls: type[Optimizer], steps: int, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any], p: np.ndarray
) -> dict[str, Any]:
    """The state of a parameter in torch's form."""
    torch = _torch()
    numbers: dict[str, Any] = {"step": (np.float32 if steps <= _MAX_FLOAT32 else np.float64)(steps)}
    dtype = np.finfo(checks.computed_in(p)).dtype  # a real dtype; torch's load_state_dict casts numbers to it
    numbers |= {name: scalar.after(steps, values, dtype) for name, scalar in scalars_of(cls).items()}
    named = {theirs: _tensor(arrays[ours]) for ours, theirs in cls.torch_names.items() if ours in arrays}
    return {name: torch.tensor(numbers[name], device="cpu") for name in cls.torch_scalars} | named


def _check_scalars(
    where: str, cls: type[Optimizer], state: Mapping[Any, Any], steps: int, values: Mapping[str, Any]
) -> None:
    """Refuse a number that does not follow from the present options: here only these count, not earlier ones."""
    torch = _torch()
    for name, scalar in scalars_of(cls).items() if state else ():
        if name not in state:
            raise ValueError(f"{where}: expected {name!r}, got {list(state)[:5]}")
        found = scalar.check(f"{where}[{name!r}]", plain_value(state[name]))
        expected = scalar.after(steps, values, np.dtype(float))
        precision = torch.finfo(getattr(state[name], "dtype", torch.float32)).eps
        if scalar.gathers and abs(found - expected) > 64 * max(precision, torch.finfo(torch.float32).eps):
            raise ValueError(
                f"{where}[{name!r}]: expected {expected:.6g} after {steps} steps with these options, got {found:.6g}: "
                f"options were changed before; use fastadam.adapters.torch.{cls.__name__}, which keeps this number"
            )


def _converted(
    where: str,
    state: Mapping[Any, Any],
    cls: type[Optimizer],
    likes: Mapping[str, np.ndarray],
    first: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Our name -> array of a parameter's state. Without a state, and for masters, the first values are used."""
    made = {
        name: np.full_like(like, first.get(name, 0)) for name, like in likes.items() if not state or name == "master"
    }
    ours_of = {theirs: ours for ours, theirs in cls.torch_names.items()}
    named = {name: ours_of.get(name, name) for name in state if name not in cls.torch_scalars}
    return made | {ours: _array(f"{where}[{name!r}]", state[name], likes.get(ours)) for name, ours in named.items()}


def _array(where: str, tensor: Any, like: np.ndarray | None) -> np.ndarray:
    """A tensor as an array, in the dtype of `like` if that can hold all of its values."""
    torch = _torch()
    from .tensors import computed, view

    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{where}: expected a tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise ValueError(f"{where}: is sparse ({tensor.layout}); states are dense here: .to_dense()")
    if tensor.device.type != "cpu":
        raise ValueError(f"{where}: lies on {tensor.device}; move it: .cpu(), or torch.load(…, map_location='cpu')")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in checks.DTYPES:
        raise ValueError(f"{where}: expected dtype {', '.join(checks.DTYPES)}, got {tensor.dtype}")
    tensor = tensor.detach()
    array = view(where, computed(tensor.float() if dtype == "bfloat16" else tensor))
    if like is None:
        return array
    is_alike = tensor.is_complex() == np.iscomplexobj(like)
    if dtype != like.dtype.name and not (is_alike and tensor.dtype.itemsize < like.itemsize):
        way = f"; use .to(torch.{like.dtype.name})" if is_alike else ""
        raise ValueError(f"{where}: expected dtype {like.dtype.name}, got {tensor.dtype}{way}")
    return array.astype(like.dtype)


def _tensor(array: np.ndarray) -> Any:
    """A tensor over the memory of an array."""
    torch = _torch()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
