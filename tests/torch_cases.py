"""The cases for the comparison with `torch.optim`: one list of optimizers with options, and one run for both.
`record_torch.py`, which records torch's results, and `test_torch.py` share it. It needs only NumPy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from places import DATA

#: torch's numbers, as `record_torch.py` writes them
RECORDED = DATA / "torch-2.13.npz"
DTYPES = ("float64", "float32")
SHAPES = ((), (5,), (3, 7))  # a scalar, less than a vector register, and more with a remainder
STEPS = (1, 2, 10, 60)  # after which the parameters are compared


class Case(NamedTuple):
    """An optimizer, by the name that it has here and in torch, and its options, which have one name as well."""

    optimizer: str
    options: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.optimizer}({', '.join(f'{name}={value}' for name, value in self.options.items())})"


_ADAM_OPTIONS = (
    {},
    {"lr": 0.05},
    {"lr": 0.05, "betas": (0.5, 0.9)},
    {"lr": 0.05, "betas": (0.0, 0.99)},
    {"lr": 0.05, "eps": 0.1},
    {"lr": 0.05, "weight_decay": 0.3},
    {"lr": 0.05, "amsgrad": True},
    {"lr": 0.05, "maximize": True},
)
_ADAM_COMBINED = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.1, "amsgrad": True, "maximize": True}
_RADAM_COMBINED = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.1, "maximize": True}
_NADAM_COMBINED = {**_RADAM_COMBINED, "momentum_decay": 0.1}

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "Adam": (
        *_ADAM_OPTIONS,
        {"lr": 0.05, "weight_decay": 0.3, "decoupled_weight_decay": True},
        {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True},
        {"lr": 0.05, "weight_decay": 0.3, "maximize": True},
        _ADAM_COMBINED,
        {**_ADAM_COMBINED, "decoupled_weight_decay": True},
    ),
    "AdamW": (
        *_ADAM_OPTIONS,
        {"lr": 0.05, "weight_decay": 0.0},
        {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True},
        {"lr": 0.05, "weight_decay": 0.3, "maximize": True},
        _ADAM_COMBINED,
    ),
    "Adamax": (
        {},
        {"lr": 0.05},
        {"lr": 0.05, "betas": (0.5, 0.9)},
        {"lr": 0.05, "eps": 0.1},
        {"lr": 0.05, "weight_decay": 0.3},
        {"lr": 0.05, "maximize": True},
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.1, "maximize": True},
    ),
    "Adagrad": (
        {},
        {"lr": 0.3},
        {"lr": 0.3, "lr_decay": 0.1},
        {"lr": 0.3, "weight_decay": 0.3},
        {"lr": 0.3, "initial_accumulator_value": 0.5},
        {"lr": 0.3, "eps": 0.1},
        {"lr": 0.3, "maximize": True},
        {
            "lr": 0.3,
            "lr_decay": 0.05,
            "weight_decay": 0.1,
            "initial_accumulator_value": 0.2,
            "eps": 0.01,
            "maximize": True,
        },
    ),
    "RMSprop": (
        {},
        {"lr": 0.02},
        {"lr": 0.02, "alpha": 0.9},
        {"lr": 0.02, "eps": 0.1},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "momentum": 0.8},
        {"lr": 0.02, "centered": True},
        {"lr": 0.02, "momentum": 0.8, "centered": True},
        {"lr": 0.02, "maximize": True},
        {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.5, "maximize": True},
        {"lr": 0.02, "eps": 0.1, "weight_decay": 0.1, "momentum": 0.5, "centered": True, "maximize": True},
    ),
    "Adadelta": (
        {},
        {"lr": 0.5},
        {"rho": 0.5},
        {"eps": 0.01},
        {"eps": 0.01, "weight_decay": 0.3},
        {"eps": 0.0001, "maximize": True},
        {"lr": 0.5, "rho": 0.8, "eps": 0.0001, "weight_decay": 0.1, "maximize": True},
    ),
    "SGD": (
        {},
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.3},
        {"lr": 0.1, "maximize": True},
        {"lr": 0.1, "momentum": 0.8},
        {"lr": 0.1, "momentum": 0.8, "dampening": 0.4},
        {"lr": 0.1, "momentum": 0.8, "dampening": -0.5},
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
        {"lr": 0.1, "momentum": 1.1, "dampening": 1.0},
        {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True, "maximize": True},
    ),
    "NAdam": (
        {},
        {"lr": 0.05},
        {"lr": 0.05, "betas": (0.5, 0.9)},
        {"lr": 0.05, "betas": (0.0, 0.99)},
        {"lr": 0.05, "eps": 0.1},
        {"lr": 0.05, "weight_decay": 0.3},
        {"lr": 0.05, "weight_decay": 0.3, "decoupled_weight_decay": True},
        {"lr": 0.05, "momentum_decay": 0.0},
        {"lr": 0.05, "momentum_decay": 0.5},
        {"lr": 0.05, "maximize": True},
        _NADAM_COMBINED,
        {**_NADAM_COMBINED, "decoupled_weight_decay": True},
    ),
    "RAdam": (
        {},
        {"lr": 0.05},
        {"lr": 0.05, "betas": (0.5, 0.9)},
        {"lr": 0.05, "betas": (0.0, 0.99)},
        {"lr": 0.05, "betas": (0.5, 0.6)},  # never adaptive
        {"lr": 0.05, "eps": 0.1},
        {"lr": 0.05, "weight_decay": 0.3},
        {"lr": 0.05, "weight_decay": 0.3, "decoupled_weight_decay": True},
        {"lr": 0.05, "maximize": True},
        _RADAM_COMBINED,
        {**_RADAM_COMBINED, "decoupled_weight_decay": True},
    ),
    "ASGD": (
        {},
        {"lr": 0.1},
        {"lr": 0.1, "lambd": 0.1},
        {"lr": 0.1, "lambd": 0.1, "alpha": 0.5},
        {"lr": 0.1, "t0": 0},
        {"lr": 0.1, "t0": 5},
        {"lr": 0.1, "weight_decay": 0.3},
        {"lr": 0.1, "maximize": True},
        {"lr": 0.1, "lambd": 0.05, "alpha": 0.9, "t0": 3, "weight_decay": 0.1, "maximize": True},
    ),
    "Rprop": (
        {},
        {"lr": 0.1},
        {"lr": 0.1, "etas": (0.3, 1.1)},
        {"lr": 0.1, "step_sizes": (0.01, 0.2)},
        {"lr": 0.1, "maximize": True},
        {"lr": 0.5, "etas": (0.6, 1.5), "step_sizes": (0.02, 0.3), "maximize": True},
    ),
}
CASES = [Case(optimizer, options) for optimizer, several in OPTIONS.items() for options in several]

#: the options that the groups of an optimizer override, a group for each of SHAPES
GROUPS: dict[str, tuple[dict[str, Any], ...]] = {
    "Adam": (
        {"lr": 0.1, "betas": (0.5, 0.9)},
        {"weight_decay": 0.2, "decoupled_weight_decay": True, "eps": 0.01},
        {"amsgrad": True, "maximize": True},
    ),
    "AdamW": (
        {"lr": 0.1, "betas": (0.5, 0.9)},
        {"weight_decay": 0.2, "eps": 0.01},
        {"amsgrad": True, "maximize": True},
    ),
    "Adamax": ({"lr": 0.1, "betas": (0.5, 0.9)}, {"weight_decay": 0.2, "eps": 0.01}, {"maximize": True}),
    "Adagrad": (
        {"lr": 0.3, "lr_decay": 0.1},
        {"weight_decay": 0.2, "eps": 0.01},
        {"maximize": True},  # torch leaves a group's own initial_accumulator_value unused
    ),
    "RMSprop": (
        {"lr": 0.02, "alpha": 0.9, "momentum": 0.5},
        {"weight_decay": 0.2, "eps": 0.01, "centered": True},
        {"maximize": True},
    ),
    "Adadelta": ({"lr": 0.5, "rho": 0.5}, {"weight_decay": 0.2, "eps": 0.01}, {"maximize": True}),
    "SGD": (
        {"lr": 0.1, "momentum": 0.5, "dampening": 0.2},
        {"weight_decay": 0.2, "momentum": 0.9, "nesterov": True},
        {"maximize": True},
    ),
    "NAdam": (
        {"lr": 0.1, "betas": (0.5, 0.9), "momentum_decay": 0.1},
        {"weight_decay": 0.2, "decoupled_weight_decay": True, "eps": 0.01},
        {"maximize": True},
    ),
    "RAdam": (
        {"lr": 0.1, "betas": (0.5, 0.9)},
        {"weight_decay": 0.2, "decoupled_weight_decay": True, "eps": 0.01},
        {"maximize": True},
    ),
    "ASGD": ({"lr": 0.1, "lambd": 0.1, "t0": 4}, {"weight_decay": 0.2, "alpha": 0.5, "t0": 0}, {"maximize": True}),
    "Rprop": ({"lr": 0.1, "etas": (0.3, 1.1)}, {"step_sizes": (0.01, 0.2)}, {"maximize": True}),
}
#: options that are assigned between two steps, to the second and to the third of these groups
ASSIGNED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **dict.fromkeys(GROUPS, ({"lr": 0.01}, {"weight_decay": 0.5})),
    "ASGD": ({"maximize": True}, {"weight_decay": 0.5}),  # in torch a rate counts one step later
    "Rprop": ({"etas": (0.4, 1.1)}, {"step_sizes": (0.001, 0.1)}),
}


def start(dtype: str) -> list[np.ndarray]:
    """The parameters before the first step, between -2 and 2."""
    return [np.asarray(2 - _index(k, shape) * 7 % 20 / 5).astype(dtype) for k, shape in enumerate(SHAPES)]


def gradient(k: int, p: np.ndarray, t: int) -> np.ndarray:
    """The gradient at p of parameter k at step t: a pull to a target, and a smooth wave, another in each element.

    It has p's dtype, so that a mistake in p carries on; and it takes + - * / and comparisons alone, none of which
    machines round differently. One element in six never has a gradient.
    """
    index = _index(k, p.shape)
    pull = (0.5 + index % 4 / 4).astype(p.dtype)
    target = (index % 7 - 3.5).astype(p.dtype)
    phase = ((t + 3 * index) % 20 / 10 - 1).astype(p.dtype)
    wave = 4 * phase * (1 - abs(phase))
    return np.where(index % 6 == 5, p.dtype.type(0), pull * (p - target) + wave)


def follow(params: list[np.ndarray], step: Callable[[list[np.ndarray]], None]) -> np.ndarray:
    """Call `step(grads)`, which changes `params`, for all steps; the parameters, flat, after each of STEPS."""
    values = []
    for t in range(1, STEPS[-1] + 1):
        step([gradient(k, p, t) for k, p in enumerate(params)])
        if t in STEPS:
            values.append(np.concatenate([p.ravel() for p in params]))
    return np.stack(values)


def key(case: Case, dtype: str) -> str:
    """The name of a case's array in RECORDED."""
    return f"{case.id} {dtype}"


def _index(k: int, shape: tuple[int, ...]) -> np.ndarray:
    """A number for each element, none of them in two parameters."""
    return 100 * k + np.arange(np.prod(shape, dtype=int)).reshape(shape)
