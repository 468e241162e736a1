"""The numbers that torch keeps for each parameter, besides the tensors of its state.

Most classes keep only the step count. `Algorithm.torch_scalars` has the names for each class. The other numbers depend
on the options of earlier steps. A step of the torch adapter reads such a number, and writes the number that torch would
write, so that each can continue from the other's state.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from .. import options
from ..algorithm import Algorithm
from ..kernel.checks import Check, number
from ..rules import asgd_scalars, nadam_mu

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Scalar:
    """One such number: its check, its values, and the hyper-parameters that it gives."""

    check: Check
    #: its value before the first step, given the options
    first: Callable[[Values], float]
    #: (its value before step t, t, the options) -> its value after step t
    following: Callable[[Any, int, Values], Any]
    #: (its value before step t, its value after step t, t) -> the hyper-parameters that it replaces
    hyper: Callable[[float, float, int], dict[str, float]]
    #: whether it depends on all steps so far; otherwise it depends on the options of the last step alone
    gathers: bool = False

    def after(self, t: int, values: Values, dtype: np.dtype[Any]) -> Any:
        """Its value after `t` steps with these options, rounded to this dtype after each step, as in torch."""
        found = dtype.type(self.first(values))
        for k in range(1 if self.gathers else t, t + 1):
            if self.gathers and not found:  # a product that is 0 stays 0
                break
            found = dtype.type(self.following(found, k, values))
        return found


def _asgd(t: int, values: Values) -> tuple[Any, ...]:
    """The scalars of step `t`: step size, decay, weight of the average, and the bounds."""
    return asgd_scalars(t, values["lr"], values["lambd"], values["alpha"], values["t0"])  # type: ignore[no-any-return]


_SCALARS = {
    "mu_product": Scalar(
        check=options.up_to_one,
        first=lambda values: 1.0,
        following=lambda before, t, values: before * nadam_mu(t, values["betas"][0], values["momentum_decay"]),
        hyper=lambda before, after, t: {"mu_product": after},
        gathers=True,
    ),
    "eta": Scalar(  # torch computes it at the end of the step before, so a new rate takes effect one step later
        check=options.finite,
        first=lambda values: values["lr"],
        following=lambda before, t, values: _asgd(t + 1, values)[0],
        hyper=lambda before, after, t: {"lr": before, "alpha": 0.0},
    ),
    "mu": Scalar(
        check=number("> 0 and <= 1", lambda x: 0 < x <= 1),
        first=lambda values: 1.0,
        following=lambda before, t, values: _asgd(t + 1, values)[2] or 1.0,
        hyper=lambda before, after, t: {"t0": inf if before == 1 else t - 1 - 1 / before},
    ),
}


def scalars_of(cls: type[Algorithm]) -> dict[str, Scalar]:
    """torch's name -> the number, for those that torch's class of this name keeps besides the step count."""
    return {name: _SCALARS[name] for name in cls.torch_scalars if name != "step"}


class Carried:
    """The numbers of all tensors of a plan, one row for each number: before the next step, and after it.

    `now` is the memory of torch's tensors. `dtype` is the dtype to which torch rounds a number that it computes again.
    """

    def __init__(self, cls: type[Algorithm], now: np.ndarray, dtype: np.dtype[Any]) -> None:
        self.scalars, self.now, self.dtype = scalars_of(cls), now, dtype
        self.following = np.empty_like(now)

    def hyper(self, places: slice, t: int, values: Values) -> dict[str, float]:
        """The hyper-parameters of step `t` that come from these tensors' numbers. All these tensors share them."""
        found: dict[str, float] = {}
        for row, scalar in enumerate(self.scalars.values()):
            before = self.now[row, places.start]
            after = scalar.following(before, t, values)
            self.following[row, places] = after if scalar.gathers else self.dtype.type(after)
            found |= scalar.hyper(float(before), float(self.following[row, places.start]), t)
        return found


def steps_done(cls: type[Algorithm], where: str, state: Mapping[Any, Any]) -> int:
    """The number of steps that a parameter has done; 0 without a state. If torch keeps no count, 1 stands for any."""
    if "step" not in cls.torch_scalars:
        return int(any(state.get(name) is not None for name in cls.torch_names.values()))
    if not state:
        return 0
    if "step" not in state:
        raise ValueError(f"{where}: expected the count 'step', got {list(state)[:5]}")
    steps = plain_value(state["step"])
    return options.count(f"{where}['step']", int(steps) if isinstance(steps, float) and steps.is_integer() else steps)


def plain_value(value: Any) -> Any:
    """A plain number, or a tuple of them. torch may keep it in a tensor, and schedules may return NumPy numbers."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        return tuple(plain_value(part) for part in value)
    return value.item() if hasattr(value, "numel") and value.numel() == 1 else value
