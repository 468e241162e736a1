"""What each hyper-parameter may be, said once: every optimizer, group and assignment is checked here.
A check takes the name and what came, and returns the value to keep or raises an error that says what is allowed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .kernel import checks
from .kernel.checks import Check, number, shown
from .kernel.checks import flag as flag


def _rate_or_schedule(name: str, value: Any) -> Any:
    return value if callable(value) else rate(name, value)


def positive_count(name: str, value: Any) -> int:
    """A number of steps, or the number of a step: whole, and at least 1."""
    return checks.whole(name, value, 1)


def _two_betas(name: str, value: Any) -> tuple[float, float]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):  # a set has no order
        raise TypeError(f"{name}: expected a pair of numbers, got {shown(value)} of type {type(value).__name__}")
    if np.ndim(value) == 0 or len(value) != 2:
        raise ValueError(f"{name}: expected a pair of numbers, got {np.size(value)} of them: {shown(value)}")
    return below_one(f"{name}[0]", value[0]), below_one(f"{name}[1]", value[1])


_non_negative = number(">= 0 and finite", lambda x: 0 <= x < math.inf)
_positive = number("> 0 and finite", lambda x: 0 < x < math.inf)
_finite = number("that is finite", math.isfinite)
below_one = number(">= 0 and < 1", lambda x: 0 <= x < 1)
_up_to_one = number(">= 0 and <= 1", lambda x: 0 <= x <= 1)

#: check of a learning rate that is a number, as a schedule must return it
rate = _non_negative

#: the options of the built-in optimizers; one of a user's own rule may be any finite number
CHECKS: dict[str, Check] = {
    "lr": _rate_or_schedule,
    "betas": _two_betas,
    "eps": _non_negative,
    "weight_decay": _non_negative,
    "amsgrad": flag,
    "maximize": flag,
    "decoupled_weight_decay": flag,
    "beta_decay": _up_to_one,
    "alpha_decay": flag,
    "eps_hat": flag,
    "lr_decay": _non_negative,
    "initial_accumulator_value": _non_negative,
    "alpha": _up_to_one,
    "momentum": _non_negative,
    "centered": flag,
    "eps_in_sqrt": flag,
    "rho": _up_to_one,
}


#: the arguments of schedules, by the names that all of them use; one of a user's own formula may be any finite number
SCHEDULE_CHECKS: dict[str, Check] = {
    "lr": rate,
    "start": rate,
    "end": rate,
    "final": rate,
    "steps": positive_count,
    "every": positive_count,
    "factor": _non_negative,
    "power": _positive,
    "warmup": below_one,
    "div": _positive,
    "final_div": _positive,
}

#: checks of arguments that are no hyper-parameters
tolerance = _non_negative


def seed(name: str, value: Any) -> int:
    """A seed of 64 bits."""
    return checks.whole(name, value, below=2**64)


def count(name: str, value: Any, least: int = 0) -> int:
    """A count of steps."""
    return checks.whole(name, value, least, below=2**62)


def in_bfloat16(option: str, value: Any) -> bool:
    """Whether this option says so; the other choice is None."""
    name = value if isinstance(value, str) else getattr(value, "__name__", getattr(value, "name", None))
    if value is not None and not (isinstance(name, str) and name == "bfloat16"):
        raise ValueError(f"{option}: expected None or 'bfloat16', got {shown(value)}")
    return value is not None


def state_dtype(value: Any) -> Any:
    """The dtype in which states are kept, or None for what the parameter is computed in."""
    if not in_bfloat16("state_dtype", value):
        return None
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise ImportError("state_dtype='bfloat16' needs ml_dtypes: pip install 'fastadam[bfloat16]'") from error
    return np.dtype(bfloat16)


def check(name: str, value: Any, label: str = "", checks: Mapping[str, Check] = CHECKS) -> Any:
    """The value of the option `name`, if it may be that; `label` is what the message calls it."""
    return checks.get(name, _finite)(label or name, value)


def checks_of_own(values: Mapping[str, Any]) -> dict[str, Check]:
    """The checks of a user's own rule with these defaults: only what all rules share means what it means there."""
    shared = {name: CHECKS[name] for name in ("lr", "weight_decay", "maximize")}
    return {name: flag for name, value in values.items() if isinstance(value, bool)} | shared


def check_schedule(name: str, value: Any) -> Any:
    """The value of a schedule's argument, if it may be that."""
    return SCHEDULE_CHECKS.get(name, _finite)(name, value)
