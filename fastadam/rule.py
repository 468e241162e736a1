"""What a rule is: an update, the scalars of its step, the names of its states.
Every rule begins with `prepare` and ends with `finish`. `fastadam.rules` says how such functions are written, and has
those of each algorithm.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from numpy import inf, minimum, where

if sys.version_info >= (3, 14):  # which evaluates annotations when asked: what only type checkers know stays a name
    from annotationlib import Format

    signature_of = partial(inspect.signature, annotation_format=Format.FORWARDREF)
    annotations_of = partial(inspect.get_annotations, format=Format.FORWARDREF)
else:
    signature_of, annotations_of = inspect.signature, inspect.get_annotations

# ---------------------------------------------------------------- what every rule begins with


def prepare(p, g, factor, clip_value, weight_decay, shrink):
    """The step's gradient, scaled, clipped and with L2 decay added, and parameter, shrunk by decoupled decay."""
    g = minimum(clip_value, factor * g)
    g = -minimum(clip_value, -g)  # not maximum: its care for NaN in both arguments doubles the time under AVX2
    if weight_decay:  # not added when zero: 0 * inf would be NaN
        g = g + weight_decay * p
    p = shrink * p
    return p, g


def prepare_scalars(factor, clip_value, lr, weight_decay, decoupled: bool, maximize: bool):
    factor = -factor if maximize else factor
    coupled = 0.0 if decoupled else weight_decay
    shrink = 1.0 - lr * weight_decay if decoupled else 1.0
    return factor, clip_value, coupled, shrink


def clip_factor(norm, max_norm):
    """What brings gradients of this norm down to `max_norm`; the constant is torch's."""
    return min(1.0, max_norm / (norm + 1e-6)) if norm == norm else norm


def own_clip_factor(norm, max_norm):
    """The same for one array by its own norm, without a constant, as in Keras and thinc. A NaN stays one."""
    return 1.0 if norm <= max_norm else max_norm / norm


# ---------------------------------------------------------------- what every rule ends with


def finish(p, low, high):
    """The new parameter, clipped to its bounds; the bits are numpy.clip's, whose NaN stays NaN."""
    p = where(low >= p, low, p)
    return where(high <= p, high, p)


def finish_scalars(low=-inf, high=inf):
    return low, high


#: what a step may bring beside its gradients (the first arguments of `prepare_scalars`), and what changes nothing
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
    #: those of the states that are never below zero: in 8 bits their codes need no sign
    non_negative: tuple[str, ...] = ()
    #: those that 8 bits cannot keep: weights, and what is the small difference of two states
    not_in_8_bits: tuple[str, ...] = ()
    #: how many times as large as an element's last step its next one may be, where the gradients of both are zero: a
    #: function of scalars of the last step, and of those of the next one as `next_…`. None where that is not known
    fading: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """The update's name."""
        return self.update.__name__

    @cached_property
    def hyper(self) -> tuple[str, ...]:
        """The hyper-parameters of a group, in the order in which the functions of scalars first name them."""
        named = dict.fromkeys(name for function in self.of_scalars for name in arguments(function))
        return tuple(name for name in named if name not in {"t", *OF_THE_STEP})

    @property
    def of_scalars(self) -> tuple[Callable[..., Any], ...]:
        """The functions that give a step's scalars, in their order."""
        return prepare_scalars, self.scalars, finish_scalars

    @cached_property
    def defaults(self) -> dict[str, float]:
        """What does nothing, by name: `OF_THE_STEP`, and those of `hyper` that a caller may leave out."""
        return OF_THE_STEP | {p.name: p.default for p in self._parameters() if p.default is not p.empty}

    @property
    def flags(self) -> set[str]:
        """Those of `hyper` that are True or False."""
        return {p.name for p in self._parameters() if p.annotation is bool}

    def _parameters(self) -> list[inspect.Parameter]:
        return [p for function in self.of_scalars for p in signature_of(function).parameters.values()]

    @cached_property
    def kernels(self) -> dict[str, Any]:
        """By backend, what runs the rule there, once it was asked for (see `kernel.backends`)."""
        return {}

    @cached_property
    def n_scalars(self) -> int:
        """How many scalars a step has."""
        return sum(self._n_scalars)

    @property
    def _n_scalars(self) -> tuple[int, int, int]:
        """The same of `prepare`, of the update, and of `finish`."""
        own = len(arguments(self.update)) - len(("p", "g", *self.states))
        return len(arguments(prepare)) - len(("p", "g")), own, len(arguments(finish)) - len(("p",))

    def divided(self, scalars: Sequence[Any]) -> tuple[Any, Any, Any]:
        """A step's scalars: those of `prepare`, those of the update, and those of `finish`."""
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
    return tuple(signature_of(function).parameters)
