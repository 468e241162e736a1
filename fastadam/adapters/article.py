"""The interface of a NumPy class for Adam from a web article about Kingma & Ba's paper (arXiv:1412.6980), with classes
of the same kind for the article's other formulas. docs/how-to/coming-from.md describes the article. A script for the
article's class only changes its import line.

``instance`` is an object with ``parameters`` and ``grad``. ``parameters`` is a float32 or float64 array, which is
updated in place, or a number, which is replaced. ``grad`` is read at each step. For ``zero_grad()`` the object needs a
method of that name. Hyper-parameters are plain attributes. They are read at each step and, as in the article, not
checked. States and step count are the attributes ``m``, ``v`` and ``timestep``. Setting any other is an AttributeError.
All arithmetic is in the dtype of the parameters. The article's class may mix two dtypes.
"""

import math
from typing import Any, ClassVar

import numpy as np

from ..kernel import checks, threads
from ..kernel._segments import state_like
from ..kernel._stepper import Stepper
from ..kernel.arrived import make_writeable
from ..names import Strict, attributes_of, give_attributes
from ..rule import Rule
from ..rules import RULES
from .hyper import number


class _State:
    """An attribute with the article's letter, which reads and writes one of the rule's states."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: "_Article", _: type) -> Any:
        owner._states_shown = True
        return owner._states[self.name]

    def __set__(self, owner: "_Article", value: Any) -> None:
        owner._states_shown = True
        owner._states[self.name] = value


class _Article(Strict):
    """The base class: the instance, its stepper, and the states, which are 0.0 until the first step."""

    timestep: int
    _rule: Rule
    names_there: ClassVar = {"lr": "alpha", "eps": "epsilon"}  # a hyper-parameter's name in the rule -> in the article

    def __init__(self, instance: Any) -> None:
        self.instance = instance
        self.initialize_paras()

    def initialize_paras(self) -> None:
        """Reset the states and the step count."""
        self.timestep = 0
        self._states: dict[str, Any] = dict.fromkeys(self._rule.states, 0.0)
        self._states_shown = True  # whether the script may refer to a state; in the article each step makes new ones
        self._stepped: tuple[Any, Any] = (None, None)  # the parameters of the last step, and the array that was stepped
        self._stepper: Stepper | None = None
        self._hyper_values: tuple[dict[str, float], tuple[float, ...]] = ({}, ())

    def zero_grad(self) -> None:
        """Call ``instance.zero_grad()``."""
        self.instance.zero_grad()

    def step(self) -> None:
        """Do one step of ``instance.parameters``."""
        parameters = self.instance.parameters
        stepped, p = self._stepped
        states = self._states
        if parameters is not stepped or self._states_shown:
            p, states = self._arrays(parameters)
        grad = _gradient(self.instance.grad, p)
        hyper = self._hyper(self.timestep + 1)
        if hyper != self._hyper_values[0] or not self._hyper_values[1]:
            named = dict.fromkeys(self._rule.hyper, 0.0) | self._rule.defaults | hyper
            numbers = (number(self.names_there.get(name, name), named[name]) for name in self._rule.hyper)
            self._hyper_values = hyper, tuple(numbers)
        stepper = self._stepper or Stepper(self._rule, threads.default())
        stepper.lay([p], [list(states.values())], ["instance.parameters"])
        stepper.step([grad], self.timestep + 1, self._hyper_values[1])
        kept = (parameters, p) if p is parameters else (None, None)  # a number is replaced, so its array is not kept
        done = {"timestep": self.timestep + 1, "_stepper": stepper, "_states": states, "_stepped": kept}
        vars(self).update(done, _states_shown=False)  # faster than assignments, which `Strict` would check
        self.instance.parameters = parameters if p is parameters else p[()]  # for a property's setter, as `-=` does

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all attributes except the stepper, which the next step makes again."""
        return {**attributes_of(self), "_stepper": None, "_states_shown": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        give_attributes(self, state)
        make_writeable([getattr(self.instance, "__dict__", {}).get("parameters")])  # the states are copied anyway

    def _hyper(self, t: int) -> dict[str, float]:
        """The rule's hyper-parameters for step `t`. Those left out have their neutral values."""
        raise NotImplementedError

    def _arrays(self, parameters: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The array to step for these parameters, and copies of the present states."""
        name = "instance.parameters"
        p = parameters if isinstance(parameters, np.ndarray) else checks.real(name, parameters).astype(float)
        checks.parameter(name, p)
        states = {letter: state_like(p) for letter in self._states}
        for letter, value in self._states.items():
            states[letter][...] = _like(value, p, f"the state {letter}")
        return p, states


def _gradient(grad: Any, p: np.ndarray) -> np.ndarray:
    """The gradient of `p`, in memory that it does not share with `p`."""
    if type(grad) is not np.ndarray or grad.dtype != p.dtype or grad.shape != p.shape:
        return _like(grad, p)
    owns_all = grad.base is None and p.base is None and grad is not p
    return grad if owns_all or not np.may_share_memory(grad, p) else grad.copy()


def _like(value: Any, p: np.ndarray, name: str = "instance.grad") -> np.ndarray:
    """A copy of real numbers, in the shape and dtype of the parameters. As in the article, one number is broadcast."""
    found = checks.real(name, value)
    try:
        return np.array(np.broadcast_to(found, p.shape), p.dtype)
    except ValueError:
        raise ValueError(f"{name}: expected shape {p.shape} like instance.parameters, got {found.shape}") from None


class Adam(_Article):
    """The article's class: Adam, with ε added before the bias correction (ε̂)::

        m = β₁ m + (1 - β₁) g          v = β₂ v + (1 - β₂) g²
        θ = θ - α √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε)

    Each step first multiplies the betas by `beta_decay`. The attributes ``beta1`` and ``beta2`` hold the decayed
    values. With `alpha_decay`, α/√t takes the place of α. `fastadam.Adam` with ``eps_hat=True`` gives the same steps.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.adapters.article import Adam
    >>> class Bowl:
    ...     parameters = np.array([10.0])
    ...     grad = np.array([20.0])
    >>> bowl = Bowl()
    >>> Adam(bowl, alpha=0.5, epsilon=0.0).step()
    >>> bowl.parameters.round(12)
    array([9.5])
    """

    _rule = RULES["adam"]
    m, v = _State("m"), _State("v")

    def __init__(
        self,
        instance: Any,
        alpha: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        beta_decay: float = 1.0,
        alpha_decay: bool = False,
    ) -> None:
        super().__init__(instance)
        self.alpha, self.beta1, self.beta2, self.epsilon = alpha, beta1, beta2, epsilon
        self.beta_decay, self.alpha_decay = beta_decay, alpha_decay

    def step(self) -> None:
        """Do one step of ``instance.parameters``."""
        super().step()
        self.beta1 *= self.beta_decay
        self.beta2 *= self.beta_decay

    def _hyper(self, t: int) -> dict[str, float]:
        lr = self.alpha / math.sqrt(t) if self.alpha_decay else self.alpha
        beta1, beta2 = self.beta1 * self.beta_decay, self.beta2 * self.beta_decay
        return {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": self.epsilon, "eps_hat": 1.0}


class AdaGrad(_Article):
    """AdaGrad: ``v = v + g²``, ``θ = θ - α g / (√v + ε)``."""

    _rule = RULES["adagrad"]
    v = _State("v")

    def __init__(self, instance: Any, alpha: float = 0.01, epsilon: float = 1e-8) -> None:
        super().__init__(instance)
        self.alpha, self.epsilon = alpha, epsilon

    def _hyper(self, t: int) -> dict[str, float]:
        return {"lr": self.alpha, "eps": self.epsilon}


class RMSprop(_Article):
    """RMSprop with ε under the root: ``v = β₂ v + (1 - β₂) g²``, ``θ = θ - α g / √(v + ε)``."""

    _rule = RULES["rmsprop"]
    names_there: ClassVar = {**_Article.names_there, "alpha": "beta2"}
    v = _State("v")

    def __init__(self, instance: Any, alpha: float = 0.001, beta2: float = 0.9, epsilon: float = 1e-8) -> None:
        super().__init__(instance)
        self.alpha, self.beta2, self.epsilon = alpha, beta2, epsilon

    def _hyper(self, t: int) -> dict[str, float]:
        return {"lr": self.alpha, "alpha": self.beta2, "eps": self.epsilon, "eps_in_sqrt": 1.0}


class AdaDelta(_Article):
    """AdaDelta, whose accumulator m takes the square of the whole step, with the rate α::

        v = β₂ v + (1 - β₂) g²
        Δθ = -α √(m + ε) / √(v + ε) · g
        m = β₁ m + (1 - β₁) Δθ²

    Zeiler's AdaDelta (arXiv:1212.5701) accumulates the step without its rate.
    """

    _rule = RULES["adadelta"]
    m, v = _State("d"), _State("v")

    def __init__(
        self, instance: Any, alpha: float = 1.0, beta1: float = 0.9, beta2: float = 0.9, epsilon: float = 1e-6
    ) -> None:
        super().__init__(instance)
        self.alpha, self.beta1, self.beta2, self.epsilon = alpha, beta1, beta2, epsilon

    def _hyper(self, t: int) -> dict[str, float]:
        return {"lr": self.alpha, "beta1": self.beta1, "beta2": self.beta2, "eps": self.epsilon, "accumulate_lr": 1.0}


class AdaMax(_Article):
    """AdaMax as in the paper: ``v = max(β₂ v, |g|)``, ``θ = θ - α / (1 - β₁ᵗ) · m / v``. If v is 0, θ does not move."""

    _rule = RULES["adamax"]
    m, v = _State("m"), _State("u")

    def __init__(self, instance: Any, alpha: float = 0.002, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(instance)
        self.alpha, self.beta1, self.beta2 = alpha, beta1, beta2

    def _hyper(self, t: int) -> dict[str, float]:
        return {"lr": self.alpha, "beta1": self.beta1, "beta2": self.beta2}
