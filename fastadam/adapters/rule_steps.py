"""Steps of one rule over arrays of another library, with hyper-parameters from attributes of its optimizer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..kernel import threads
from ..kernel._stepper import Stepper
from ..rules import RULES


class RuleSteps:
    """The steps of a rule for one optimizer of another library.

    Parameters
    ----------
    rule : str
        The name of the rule.
    hyper : mapping
        A hyper-parameter's name in the rule -> the attribute of the optimizer with its value, read at each step.
    fixed : mapping
        The values of hyper-parameters that the optimizer does not have. All others have their neutral values.
    """

    def __init__(self, rule: str, hyper: Mapping[str, str], fixed: Mapping[str, float]) -> None:
        self._made_of = rule, hyper, fixed
        self._order = RULES[rule].hyper
        self._named = {**RULES[rule].defaults, **fixed}
        self._stepper = Stepper(RULES[rule], threads.default())
        self._given: list[Any] | None = None
        self._hyper_values: tuple[float, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    def step(
        self,
        owner: Any,
        params: list[np.ndarray],
        grads: list[Any],
        states: list[list[np.ndarray]],
        t: int,
        factor: float = 1.0,
    ) -> None:
        """Do step number `t`, in place. `factor` multiplies the gradients. After an error nothing has changed."""
        hyper = self._made_of[1]
        given = [float(getattr(owner, name)) for name in hyper.values()]
        if given != self._given:
            named = self._named | dict(zip(hyper, given, strict=True))
            self._hyper_values = tuple(float(named.get(name, 0.0)) for name in self._order)
            self._given = given
        self._stepper.lay(params, states, ["the parameters"] * len(params))
        self._stepper.step(grads, t, self._hyper_values, factor)
