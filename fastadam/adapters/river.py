"""river's optimizers with fastadam's steps: subclasses of river's own, for arrays, and for dicts where that is faster.

A step is fastadam's in two cases:

- Weights and gradient are NumPy arrays of the same shape.
- The gradient is a dict or `VectorDict` of numbers, with the same features as at the last step, in the same order. Its
  numbers are copied to arrays and back. This is faster from 24 features in a dict on (`Momentum`: 64), from twice as
  many in a `VectorDict`, and from 8 if the weights are an array, as in river's factorization machines.

Every other step is river's own, which the class inherits, on the same states. So features may come and go.

The conventions are river's: ε is added before the bias correction (Adam, AMSGrad) or under the root (RMSProp,
AdaDelta). The rate is ``lr.get(n_iterations)``. Results are river's, up to rounding. While the states of features are
in arrays, their attributes (``m``, ``v``, …) are read-only mappings from feature to number.

Examples
--------
>>> from river import datasets, evaluate, linear_model, metrics, preprocessing
>>> from fastadam.adapters import river as optim
>>> model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.Adam())
>>> evaluate.progressive_val_score(datasets.Phishing(), model, metrics.F1())
F1: 86.52%
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ..kernel._segments import state_like
from ..names import attributes_of, give_attributes
from .rule_steps import RuleSteps

try:
    from river import optim
    from river.utils import VectorDict
except ImportError as error:
    raise ImportError("fastadam.adapters.river needs river: pip install 'river>=0.26.1'") from error
if not hasattr(VectorDict, "update_ema"):  # older versions step vectors in another way
    raise ImportError("fastadam.adapters.river needs river 0.26.1 or later: pip install 'river>=0.26.1'")

__all__ = ["AMSGrad", "AdaDelta", "Adam", "Momentum", "RMSProp"]

#: if the weights are an array, river's own step is as fast for fewer numbers
_FEWEST_OF_ARRAY = 8
_RATE_AND_EPS = {"lr": "learning_rate", "eps": "eps"}


class _Column(Mapping[Any, float]):
    """A state of an optimizer while its numbers are in an array: feature -> number."""

    def __init__(self, names: list[Any], state: Any) -> None:
        self.names, self.places, self.made_as = names, {name: k for k, name in enumerate(names)}, type(state)
        self.array = _numbers(state, names)

    def __getitem__(self, name: Any) -> float:
        return float(self.array[self.places[name]])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def unpacked(self) -> Any:
        """The state in river's own type."""
        numbers = dict(zip(self.names, self.array.tolist(), strict=True))
        return VectorDict(numbers) if self.made_as is VectorDict else defaultdict(float, numbers)


class _Stepped(optim.base.Optimizer):
    """Mixin, placed before river's own class, whose steps are used where fastadam's do not apply."""

    __slots__ = ("_names", "_steps")  # slots are not in vars(self), which river shows and copies

    _names: list[Any]
    _steps: RuleSteps

    rule: ClassVar[str]
    #: river's attributes that hold the rule's states, in its order
    letters: ClassVar[tuple[str, ...]]
    #: a hyper-parameter's name in the rule -> river's attribute
    hyper: ClassVar[dict[str, str]]
    #: hyper-parameters that river does not have, under their names in the rule
    fixed: ClassVar[dict[str, float]]
    #: river's own step is as fast for fewer numbers in a dict, or for fewer than twice as many in a `VectorDict`
    fewest: ClassVar[int] = 24

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: river's attributes, with copies of arrays. The rest is made again."""
        own = attributes_of(self, "_names", "_steps").items()
        return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in own}

    __setstate__ = give_attributes

    @property
    def _factor(self) -> float:
        """The factor of the gradients."""
        return 1.0

    def step(self, w: Any, g: Any) -> Any:
        """Do one step of w, in place; see river's ``Optimizer.step``."""
        try:
            is_done = self._try(w, g)
        except (LookupError, TypeError, ValueError):  # nothing has changed: river does the step, or raises its error
            is_done = False
        if is_done:
            self.n_iterations += 1
            return w
        if type(getattr(self, self.letters[0])) is _Column:
            self._keep([column.unpacked() for column in self._states()])
        if type(g) is not dict:
            return super().step(w, g)
        w = self._step_with_dict(w, g)  # river's step would call this after checks for other types
        self.n_iterations += 1
        return w

    def _try(self, w: Any, g: Any) -> bool:
        """Do a step, or return False if river has to do it."""
        if isinstance(g, np.ndarray):
            return isinstance(w, np.ndarray) and self._step_array(w, g)
        is_vector = isinstance(g, VectorDict)
        numbers = g.to_dict() if is_vector else g  # a dict has a fast length and values
        fewest = _FEWEST_OF_ARRAY if isinstance(w, np.ndarray) else 2 * self.fewest if is_vector else self.fewest
        return len(numbers) >= fewest and self._step_numbers(w, numbers)

    def _step_array(self, w: np.ndarray, g: np.ndarray) -> bool:
        """A step of one array."""
        states = self._states()
        if not isinstance(states[0], np.ndarray):
            if states[0]:
                return False
            states = [state_like(w) for _ in states]
        self._run([w], [g], [states])
        self._keep(states)
        return True

    def _step_numbers(self, w: Any, g: Any) -> bool:
        """A step of numbers in dicts, which are copied to arrays and back."""
        names, is_array = list(g), isinstance(w, np.ndarray)
        if is_array and not (w.dtype == float and names == list(range(len(w)))):
            return False
        if not self._pack(names):
            return False
        p = w if is_array else _numbers(w, names)
        grads = np.fromiter(g.values(), float, len(names))
        self._run([p], [grads], [[column.array for column in self._states()]])
        if not is_array:
            w.update(dict(zip(names, p.tolist(), strict=True)))
        return True

    def _run(self, params: list[Any], grads: list[Any], states: list[list[Any]]) -> None:
        """One step of arrays, with the present hyper-parameters."""
        try:
            steps = self._steps
        except AttributeError:
            steps = self._steps = RuleSteps(self.rule, self.hyper, self.fixed)
        steps.step(self, params, grads, states, self.n_iterations + 1, self._factor)

    # ---------------------------------------------------------------- the states

    def _states(self) -> list[Any]:
        return [getattr(self, letter) for letter in self.letters]

    def _keep(self, states: list[Any]) -> None:
        for letter, state in zip(self.letters, states, strict=True):
            setattr(self, letter, state)

    def _pack(self, names: list[Any]) -> bool:
        """Put the states into arrays, if they belong to these features. Not at the first step with these features."""
        states = self._states()
        if isinstance(states[0], _Column):
            return states[0].names == names
        if names != getattr(self, "_names", None):
            self._names = names
            return False
        if not all(isinstance(s, defaultdict | VectorDict) and len(s) == len(names) for s in states):
            return False
        if not all(map(states[0].__contains__, names)):
            return False
        self._keep([_Column(names, state) for state in states])
        return True


def _numbers(mapping: Any, names: list[Any]) -> np.ndarray:
    """The numbers of these features, as an array."""
    if isinstance(mapping, VectorDict):
        return np.asarray(mapping.to_numpy(names))
    return np.fromiter(map(mapping.__getitem__, names), float, len(names))


class Momentum(_Stepped, optim.Momentum):
    """river's ``Momentum``: s = rho s + lr g, w = w - s. It has river's arguments and attributes."""

    rule, letters = "sgd_momentum", ("s",)
    hyper: ClassVar = {"momentum": "rho"}
    fixed: ClassVar = {"lr": 1.0}
    fewest = 64

    @property
    def _factor(self) -> float:
        return float(self.learning_rate)


class Adam(_Stepped, optim.Adam):
    """river's ``Adam``, with ε added before the bias correction. It has river's arguments and attributes."""

    rule, letters = "adam", ("m", "v")
    hyper: ClassVar = {**_RATE_AND_EPS, "beta1": "beta_1", "beta2": "beta_2"}
    fixed: ClassVar = {"eps_hat": 1.0}


class AMSGrad(_Stepped, optim.AMSGrad):
    """river's ``AMSGrad``: Adam with the largest v so far. With ``correct_bias=False`` each step is river's own."""

    rule, letters = "amsgrad", ("m", "v", "v_hat")
    hyper: ClassVar = Adam.hyper
    fixed: ClassVar = Adam.fixed

    def _try(self, w: Any, g: Any) -> bool:
        return self.correct_bias and super()._try(w, g)


class RMSProp(_Stepped, optim.RMSProp):
    """river's ``RMSProp``, with ε under the root. It has river's arguments and attributes."""

    rule, letters = "rmsprop", ("g2",)
    hyper: ClassVar = {**_RATE_AND_EPS, "alpha": "rho"}
    fixed: ClassVar = {"eps_in_sqrt": 1.0}


class AdaDelta(_Stepped, optim.AdaDelta):
    """river's ``AdaDelta``: Zeiler's, without a rate. It has river's arguments and attributes."""

    rule, letters = "adadelta", ("g2", "s2")
    hyper: ClassVar = {"beta1": "rho", "beta2": "rho", "eps": "eps"}
    fixed: ClassVar = {"lr": 1.0}
