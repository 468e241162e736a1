"""climin's optimizers with fastadam's steps: iterators over infos, made, stopped and continued as climin's.

Each is a subclass of climin's class of that name, with its arguments, its infos and its conventions:

- `Adam`: ``decay_mom1`` and ``decay_mom2`` are 1 - β; the offset is added before the bias correction.
- `Adadelta`: the offset is within both roots, and the accumulator takes the step with its rate.
- `RmsProp`: the mean of squares begins at 1; 1e-8 is added within the root.
- `GradientDescent`: the momentum holds steps, their rate included.

`wrt` is stepped in place. Numbers are climin's to rounding. The arrays in an info are the optimizer's own, and later
iterations change them: copy what is to stay. What fastadam has no rule for is climin's own iteration, which the class
inherits: where `wrt` is no float32 or float64 array, the rate is an array, a momentum looks ahead (``momentum`` of
`Adam`, `Adadelta` and `RmsProp`, ``momentum_type="nesterov"``), or ``step_adapt`` is set. Each iteration of `Adam` in
climin 0.1a1, the release on PyPI, is climin's own, too: this Adam has its offset within the corrections.

Examples
--------
>>> import numpy as np
>>> from fastadam.adapters.climin import Adadelta
>>> x = np.array([3.0, -2.0])
>>> for info in Adadelta(x, lambda x: 2 * x):
...     if info["n_iter"] == 500:
...         break
>>> bool(np.abs(x).max() < 0.01)
True
"""

import warnings
from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from .rule_steps import RuleSteps

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what climin itself imports and writes
        import climin
except ImportError as error:
    raise ImportError(
        f"fastadam.adapters.climin needs climin ({error}): pip install climin, under Python 3.11, since "
        "climin imports a module that later ones do not have"
    ) from error

__all__ = ["Adadelta", "Adam", "GradientDescent", "RmsProp"]

#: climin's master has the paper's Adam, whose state has no corrected moments
_IS_PAPERS_ADAM = "decay" not in climin.Adam.state_fields


class _Stepped(climin.base.Minimizer):
    """What the classes share; each stands before climin's own class, whose iterations are taken where these are not."""

    rule: ClassVar[str]
    hyper: ClassVar[dict[str, str]]
    fixed: ClassVar[dict[str, float]]
    #: climin's attributes that hold the rule's states, in its order
    letters: ClassVar[tuple[str, ...]]
    _steps: RuleSteps | None = None
    args: Any

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for args, kwargs in self.args:
            yield self._iterate_ours(args, kwargs) if self._is_ours() else self._iterate_theirs(args, kwargs)

    def _is_ours(self) -> bool:
        """Whether the options, as they are now, are such that the rule is fastadam's."""
        is_array = isinstance(self.wrt, np.ndarray) and self.wrt.dtype in (np.float32, np.float64)
        return is_array and isinstance(self.step_rate, Real) and isinstance(self.momentum, Real)

    def _iterate_theirs(self, args: Any, kwargs: Any) -> dict[str, Any]:
        given, self.args = self.args, [(args, kwargs)]
        try:
            return dict(next(super().__iter__()))
        finally:
            self.args = given

    def _iterate_ours(self, args: Any, kwargs: Any) -> dict[str, Any]:
        gradient = self.fprime(self.wrt, *args, **kwargs)
        states = [_like(self.wrt, getattr(self, letter)) for letter in self.letters]
        if self._steps is None:
            self._steps = RuleSteps(self.rule, self.hyper, self.fixed)
        self._step(self._steps, self._fitting(gradient), states)
        for letter, state in zip(self.letters, states, strict=True):
            setattr(self, letter, state)
        self.n_iter += 1
        return dict(self.extended_info(gradient=gradient, args=args, kwargs=kwargs))

    def _fitting(self, gradient: Any) -> np.ndarray:
        """The gradient as an array apart from `wrt`, like it: as in climin, one number counts for all."""
        g = np.asarray(gradient)
        is_apart = g.shape == self.wrt.shape and not np.may_share_memory(g, self.wrt)
        return g if is_apart else np.array(np.broadcast_to(g, self.wrt.shape))

    def _step(self, steps: RuleSteps, gradient: Any, states: list[np.ndarray]) -> None:
        """Step zeros, which gives the step by itself, and add it: infos have it."""
        step = np.zeros_like(self.wrt)
        steps.step(self, [step], [gradient], [states], self.n_iter + 1)
        self.wrt += step
        self.step = np.negative(step, out=step)


def _like(wrt: np.ndarray, state: Any) -> np.ndarray:
    """The state as an array to step; climin begins with numbers, and infos may bring arrays of others."""
    if isinstance(state, np.ndarray) and (state.shape, state.dtype) == (wrt.shape, wrt.dtype):
        return state
    return np.array(np.broadcast_to(state, wrt.shape), wrt.dtype)


class Adam(_Stepped, climin.Adam):
    """climin's ``Adam``. Arguments and infos are climin's."""

    rule, letters = "adam", ("est_mom1_b", "est_mom2_b")
    hyper: ClassVar = {"lr": "step_rate", "beta1": "_beta1", "beta2": "_beta2", "eps": "offset"}
    fixed: ClassVar = {"eps_hat": 1.0}

    @property
    def _beta1(self) -> float:
        return float(1 - self.decay_mom1)

    @property
    def _beta2(self) -> float:
        return float(1 - self.decay_mom2)

    def _is_ours(self) -> bool:
        return _IS_PAPERS_ADAM and super()._is_ours() and self.momentum == 0


class Adadelta(_Stepped, climin.Adadelta):
    """climin's ``Adadelta``. Arguments and infos are climin's."""

    rule, letters = "adadelta", ("gms", "sms")
    hyper: ClassVar = {"lr": "step_rate", "beta1": "decay", "beta2": "decay", "eps": "offset"}
    fixed: ClassVar = {"accumulate_lr": 1.0}

    def _is_ours(self) -> bool:
        return super()._is_ours() and bool(self.momentum == 0)


class RmsProp(_Stepped, climin.RmsProp):
    """climin's ``RmsProp``. Arguments and infos are climin's."""

    rule, letters = "rmsprop", ("moving_mean_squared",)
    hyper: ClassVar = {"lr": "step_rate", "alpha": "decay"}
    fixed: ClassVar = {"eps": 1e-8, "eps_in_sqrt": 1.0}

    def _is_ours(self) -> bool:
        return super()._is_ours() and self.momentum == 0 and not self.step_adapt


class GradientDescent(_Stepped, climin.GradientDescent):
    """climin's ``GradientDescent``. Arguments and infos are climin's."""

    rule, letters = "sgd_momentum", ("step",)
    hyper: ClassVar = {"momentum": "momentum"}
    fixed: ClassVar = {"lr": 1.0}

    def _is_ours(self) -> bool:
        return super()._is_ours() and self.momentum_type == "standard"

    def _step(self, steps: RuleSteps, gradient: Any, states: list[np.ndarray]) -> None:
        steps.step(self, [self.wrt], [gradient], [states], self.n_iter + 1, float(self.step_rate))
