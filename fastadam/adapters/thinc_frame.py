"""The parts of thinc's optimizer that are the same for every rule: names and checks of options, arrays, averages."""

import inspect
from typing import Any

import numpy as np

from .. import options
from ..algorithm import Algorithm
from ..base import Optimizer
from ..kernel import checks

try:
    from thinc.optimizers import ScheduleT as ScheduleT
except ImportError:  # before thinc 9 schedules were generators
    from thinc.optimizers import FloatOrSeq as ScheduleT

#: averages of more elements are computed in parts of this size, so that temporaries stay in the cache
_PART = 1 << 16
#: option of fastadam's optimizers -> its names in thinc's frame, where all of them may be schedules
_RENAMED = {"lr": ("learn_rate",), "weight_decay": ("L2",), "betas": ("beta1", "beta2", "beta3"), "eps": ("eps",)}
#: the checks of the frame's numbers, in the order in which a step gets them
CHECKS: dict[str, checks.Check] = {
    "learn_rate": options.rate,
    "lr_scale": options.rate,
    "beta1": options.below_one,
    "beta2": options.below_one,
    "beta3": options.below_one,
    "eps": options.rate,
    "L2": options.rate,
    "grad_clip": options.rate,
}


def in_frame(kind: type[Algorithm]) -> dict[str, inspect.Parameter]:
    """The options of `kind` in the frame: name in the frame -> parameter with the default of `kind`."""
    found = {}
    for name, option in kind.options.items():
        if name in _RENAMED:
            defaults = np.ravel(option.default).tolist()
            for new, default in zip(_RENAMED[name], defaults, strict=False):
                found[new] = option.parameter().replace(name=new, default=default, annotation=ScheduleT)
        elif name not in Optimizer.options and not _is_left_out(option, kind):
            found[name] = option.parameter()
    return found


def _is_left_out(option: options.Option, kind: type[Algorithm]) -> bool:
    """Whether the frame leaves an option out: L2_is_weight_decay replaces it, or only fastadam's version of a torch
    class has it."""
    return "decoupled" in option.hyper or (option.kw_only and bool(kind.torch_names))


def need_cpu(name: str, array: Any) -> None:
    """Refuse what is not a NumPy array."""
    if not isinstance(array, np.ndarray):
        kind = f"{type(array).__module__}.{type(array).__name__}"
        raise TypeError(
            f"{name}: expected a numpy array, got {kind}; fastadam's optimizers run only on the CPU; elsewhere use "
            "thinc's own, such as Adam.v1"
        )


def is_same_memory(one: np.ndarray, other: Any) -> bool:
    """Whether two arrays are the same view of memory: a shim makes new array objects at each step."""
    return (
        isinstance(other, np.ndarray)
        and one.__array_interface__["data"] == other.__array_interface__["data"]
        and (one.shape, one.strides, one.dtype) == (other.shape, other.strides, other.dtype)
    )


def take_average(average: np.ndarray, weights: np.ndarray, t: int) -> None:
    """Update thinc's running mean after step `t`: the weights get the share 9 / (10 + t), at least 1e-4."""
    part = 1.0 - min((1.0 + t) / (10.0 + t), 0.9999)
    if weights.size <= _PART:
        average -= part * (average - weights)
        return
    with np.nditer(
        [average, weights], ["external_loop", "buffered"], [["readwrite"], ["readonly"]], order="K", buffersize=_PART
    ) as parts:
        for a, w in parts:
            a -= part * (a - w)
