"""climin's optimizers with fastadam's steps: iterators over infos, used like climin's.

Each is a subclass of climin's class of that name, with its arguments, infos and conventions:

- `Adam`: ``decay_mom1`` and ``decay_mom2`` are 1 - β; the offset is added before the bias correction.
- `Adadelta`: the offset is added under both roots, and the accumulator takes the step with its rate.
- `RmsProp`: the mean square starts at 1; 1e-8 is added under the root.
- `GradientDescent`: the momentum accumulates steps, with their rates.

`wrt` is stepped in place. Results are climin's, up to rounding. The arrays in an info belong to the optimizer, and
later iterations change them: copy those that you keep. Where fastadam has no rule, the iteration is climin's own, which
the class inherits: if `wrt` is not a float32 or float64 array, if the rate is an array, if a momentum looks ahead
(``momentum`` of `Adam`, `Adadelta` and `RmsProp`, ``momentum_type="nesterov"``), and if ``step_adapt`` is set. The same
holds for `Adam` of climin 0.1a1, the release on PyPI, which has its offset within the bias corrections.

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
        warnings.simplefilter("ignore", DeprecationWarning)  # climin's own imports cause them
        import climin
except ImportError as error:
    raise ImportError(
        f"fastadam.adapters.climin needs climin ({error}): pip install climin, under Python 3.11; climin imports a "
        "module that later versions of Python do not have"
    ) from error

__all__ = ["Adadelta", "Adam", "GradientDescent", "RmsProp"]

#: climin's master branch has the paper's Adam, whose state has no corrected moments
_IS_PAPERS_ADAM = "decay" not in climin.Adam.state_fields


class _Stepped(climin.base.Minimizer):
    """Mixin, placed before climin's own class, whose iterations are used where fastadam has no rule."""

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
        """Whether fastadam has the rule for the present options."""
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
        """The gradient as an array like `wrt`, in other memory. As in climin, one number stands for all elements."""
        g = np.asarray(gradient)
        is_apart = g.shape == self.wrt.shape and not np.may_share_memory(g, self.wrt)
        return g if is_apart else np.array(np.broadcast_to(g, self.wrt.shape))

    def _step(self, steps: RuleSteps, gradient: Any, states: list[np.ndarray]) -> None:
        """Step an array of zeros, so that the result is the step alone, which infos contain. Then add it to `wrt`."""
        step = np.zeros_like(self.wrt)
        steps.step(self, [step], [gradient], [states], self.n_iter + 1)
        self.wrt += step
        self.step = np.negative(step, out=step)


def _like(wrt: np.ndarray, state: Any) -> np.ndarray:
    """The state as an array to step. climin starts with numbers, and infos may contain other arrays."""
    if isinstance(state, np.ndarray) and (state.shape, state.dtype) == (wrt.shape, wrt.dtype):
        return state
    return np.array(np.broadcast_to(state, wrt.shape), wrt.dtype)


class Adam(_Stepped, climin.Adam):
    """climin's ``Adam``, with climin's arguments and infos."""

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
    """climin's ``Adadelta``, with climin's arguments and infos."""

    rule, letters = "adadelta", ("gms", "sms")
    hyper: ClassVar = {"lr": "step_rate", "beta1": "decay", "beta2": "decay", "eps": "offset"}
    fixed: ClassVar = {"accumulate_lr": 1.0}

    def _is_ours(self) -> bool:
        return super()._is_ours() and bool(self.momentum == 0)


class RmsProp(_Stepped, climin.RmsProp):
    """climin's ``RmsProp``, with climin's arguments and infos."""

    rule, letters = "rmsprop", ("moving_mean_squared",)
    hyper: ClassVar = {"lr": "step_rate", "alpha": "decay"}
    fixed: ClassVar = {"eps": 1e-8, "eps_in_sqrt": 1.0}

    def _is_ours(self) -> bool:
        return super()._is_ours() and self.momentum == 0 and not self.step_adapt


class GradientDescent(_Stepped, climin.GradientDescent):
    """climin's ``GradientDescent``, with climin's arguments and infos."""

    rule, letters = "sgd_momentum", ("step",)
    hyper: ClassVar = {"momentum": "momentum"}
    fixed: ClassVar = {"lr": 1.0}

    def _is_ours(self) -> bool:
        return super()._is_ours() and self.momentum_type == "standard"

    def _step(self, steps: RuleSteps, gradient: Any, states: list[np.ndarray]) -> None:
        steps.step(self, [self.wrt], [gradient], [states], self.n_iter + 1, float(self.step_rate))
