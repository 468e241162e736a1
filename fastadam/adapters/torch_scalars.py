"""The numbers that torch keeps of each parameter, beside the tensors of its state.

Most classes keep their count of steps alone; `Algorithm.torch_scalars` names what a class keeps. A number other than
the count carries over what the options of earlier steps were. A step of the torch adapter begins with it and leaves
what torch would leave, so that either goes on with the other's state.
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
    """One such number: what it may be, what it is, and what it does."""

    check: Check
    #: its value before the first step, given the options
    first: Callable[[Values], float]
    #: (its value before step t, t, the options) -> after it
    following: Callable[[Any, int, Values], Any]
    #: (its value before step t, after it, t) -> the hyper-parameters that it takes the place of
    hyper: Callable[[float, float, int], dict[str, float]]
    #: whether it gathers something from all steps; else it is what the last step's options make it
    gathers: bool = False

    def after(self, t: int, values: Values, dtype: np.dtype[Any]) -> Any:
        """Its value after `t` steps with these options, rounded to this dtype after each as torch does."""
        found = dtype.type(self.first(values))
        for k in range(1 if self.gathers else t, t + 1):
            if self.gathers and not found:  # a product that is 0 stays 0
                break
            found = dtype.type(self.following(found, k, values))
        return found


def _asgd(t: int, values: Values) -> tuple[Any, ...]:
    """The step's size, the decay and the average's weight of step `t`."""
    return asgd_scalars(t, values["lr"], values["lambd"], values["alpha"], values["t0"])  # type: ignore[no-any-return]


_SCALARS = {
    "mu_product": Scalar(
        check=options.up_to_one,
        first=lambda values: 1.0,
        following=lambda before, t, values: before * nadam_mu(t, values["betas"][0], values["momentum_decay"]),
        hyper=lambda before, after, t: {"mu_product": after},
        gathers=True,
    ),
    "eta": Scalar(  # torch computes a step's size at the end of the step before: a new rate counts one step later
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
    """The numbers that torch's class of this name keeps beside the count, by its names."""
    return {name: _SCALARS[name] for name in cls.torch_scalars if name != "step"}


class Carried:
    """The numbers of all tensors of a plan, a row of each: as they are, and after the step that is made next.

    `now` is the memory of torch's tensors; `dtype` is what torch rounds a number to that it computes anew.
    """

    def __init__(self, cls: type[Algorithm], now: np.ndarray, dtype: np.dtype[Any]) -> None:
        self.scalars, self.now, self.dtype = scalars_of(cls), now, dtype
        self.following = np.empty_like(now)

    def hyper(self, places: slice, t: int, values: Values) -> dict[str, float]:
        """The hyper-parameters that step `t` takes of these tensors' numbers, which are the same."""
        found: dict[str, float] = {}
        for row, scalar in enumerate(self.scalars.values()):
            before = self.now[row, places.start]
            after = scalar.following(before, t, values)
            self.following[row, places] = after if scalar.gathers else self.dtype.type(after)
            found |= scalar.hyper(float(before), float(self.following[row, places.start]), t)
        return found


def steps_done(cls: type[Algorithm], where: str, state: Mapping[Any, Any]) -> int:
    """How many steps a parameter has done; one without state, none. Without a count: whether it has done one."""
    if "step" not in cls.torch_scalars:
        return int(any(state.get(name) is not None for name in cls.torch_names.values()))
    if not state:
        return 0
    if "step" not in state:
        raise ValueError(f"{where}: expected the count 'step', got {list(state)[:5]}")
    steps = plain_value(state["step"])
    return options.count(f"{where}['step']", int(steps) if isinstance(steps, float) and steps.is_integer() else steps)


def plain_value(value: Any) -> Any:
    """A number, which torch may keep in a tensor, and a schedule may make one of NumPy's; the same of several."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        return tuple(plain_value(part) for part in value)
    return value.item() if hasattr(value, "numel") and value.numel() == 1 else value
