"""`Rule`: an update function, the function of its scalars, and the names of its states.
Every rule begins with `prepare` and ends with `finish`. `fastadam.rules` has the functions of each algorithm, and says
how they are written.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy import inf, minimum, where

# ---------------------------------------------------------------- the first part of every rule


def prepare(p, g, factor, clip_value, weight_decay, shrink):
    """The parameter after decoupled decay, and the gradient: scaled, clipped, with L2 decay added."""
    g = minimum(clip_value, factor * g)
    g = -minimum(clip_value, -g)  # not maximum: it treats NaN in both arguments, which doubles the time under AVX2
    if weight_decay:  # skipped at zero, since 0 * inf would be NaN
        g = g + weight_decay * p
    p = shrink * p
    return p, g


def prepare_scalars(factor, clip_value, lr, weight_decay, decoupled: bool, maximize: bool):
    factor = -factor if maximize else factor
    coupled = 0.0 if decoupled else weight_decay
    shrink = 1.0 - lr * weight_decay if decoupled else 1.0
    return factor, clip_value, coupled, shrink


def clip_factor(norm, max_norm):
    """The factor that scales gradients of this norm down to `max_norm`. The constant is torch's."""
    return min(1.0, max_norm / (norm + 1e-6)) if norm == norm else norm


def own_clip_factor(norm, max_norm):
    """The same for one array and its own norm, without a constant, as in Keras and thinc. NaN stays NaN."""
    return 1.0 if norm <= max_norm else max_norm / norm


# ---------------------------------------------------------------- the last part of every rule


def finish(p, low, high):
    """The new parameter, clipped to its bounds. The bits are those of numpy.clip, which keeps NaN."""
    p = where(low >= p, low, p)
    return where(high <= p, high, p)


def finish_scalars(low=-inf, high=inf):
    return low, high


#: the values that each step may set (the first arguments of `prepare_scalars`), with their neutral values
OF_THE_STEP = {"factor": 1.0, "clip_value": inf}


# ---------------------------------------------------------------- a rule


@dataclass(frozen=True)
class Rule:
    """An update, the scalars of its step, and the names of its states (the update's arguments after p and g).

    A kernel takes the values of `OF_THE_STEP` and of `hyper`, in this order. The scalars of a step are those of
    `prepare`, those of the update, and those of `finish`.
    """

    update: Callable[..., Any]
    scalars: Callable[..., Any]
    states: tuple[str, ...]
    #: the states that are never below zero: their 8-bit codes need no sign
    non_negative: tuple[str, ...] = ()
    #: the states that 8 bits cannot keep: weights, and states whose small difference matters
    not_in_8_bits: tuple[str, ...] = ()
    #: a bound for the ratio of an element's next step to its last step, if the gradients of both are zero. It is a
    #: function of scalars of the last step, and of those of the next step as `next_…`. None if no bound is known
    fading: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """The name of the update function."""
        return self.update.__name__

    @cached_property
    def hyper(self) -> tuple[str, ...]:
        """The hyper-parameters of a group, in the order of their first use in the functions of scalars."""
        named = dict.fromkeys(name for function in self.of_scalars for name in arguments(function))
        return tuple(name for name in named if name not in {"t", *OF_THE_STEP})

    @property
    def of_scalars(self) -> tuple[Callable[..., Any], ...]:
        """The functions that compute the scalars of a step, in order."""
        return prepare_scalars, self.scalars, finish_scalars

    @cached_property
    def defaults(self) -> dict[str, float]:
        """Name -> neutral value: of `OF_THE_STEP`, and of those in `hyper` that a caller may omit."""
        return OF_THE_STEP | {p.name: p.default for p in self._parameters() if p.default is not p.empty}

    @property
    def flags(self) -> set[str]:
        """The names in `hyper` whose values are True or False."""
        return {p.name for p in self._parameters() if p.annotation is bool}

    def _parameters(self) -> list[inspect.Parameter]:
        return [p for function in self.of_scalars for p in inspect.signature(function).parameters.values()]

    @cached_property
    def kernels(self) -> dict[str, Any]:
        """Backend -> the kernel that runs the rule there. `kernel.backends` fills it on demand."""
        return {}

    @cached_property
    def n_scalars(self) -> int:
        """The number of scalars of a step."""
        return sum(self._n_scalars)

    @property
    def _n_scalars(self) -> tuple[int, int, int]:
        """The numbers of scalars of `prepare`, of the update, and of `finish`."""
        own = len(arguments(self.update)) - len(("p", "g", *self.states))
        return len(arguments(prepare)) - len(("p", "g")), own, len(arguments(finish)) - len(("p",))

    def divided(self, scalars: Sequence[Any]) -> tuple[Any, Any, Any]:
        """The scalars of a step, divided into those of `prepare`, of the update, and of `finish`."""
        before, own, _ = self._n_scalars
        return scalars[:before], scalars[before : before + own], scalars[before + own :]

    def step_scalars(self, t: int, hyper: Any) -> list[float]:
        """All scalars of step `t`, given the values of `OF_THE_STEP` and `hyper` in their order."""
        values = dict(zip((*OF_THE_STEP, *self.hyper), hyper, strict=True), t=float(t))
        return [
            float(scalar)
            for function in self.of_scalars
            for scalar in function(*(values[name] for name in arguments(function)))
        ]


def arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's arguments, in order."""
    return tuple(inspect.signature(function).parameters)
