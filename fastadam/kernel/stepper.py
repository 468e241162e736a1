"""Steps of one rule over arrays that its caller keeps: arrays, step count and hyper-parameters in, a step out.
`functional` and the adapters step by it; it looks whether these are still the arrays, and lays them out anew where not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rules import Rule
from . import backends
from ._follow import are_same
from ._plan import Plan


class Stepper:
    """The steps of `rule`, by at most so many threads."""

    def __init__(self, rule: Rule, n_threads: int = 1) -> None:
        self.n_threads = n_threads
        self._kernel = backends.kernel(rule)
        self._plan = Plan(n_threads)
        self._params: list[np.ndarray] = []
        self._states: list[list[np.ndarray]] = []
        self._hyper: list[float] | None = None

    def holds(self, params: list[np.ndarray], states: list[list[np.ndarray]]) -> bool:
        """Whether the last step was of these arrays."""
        return are_same(self._params, params) and are_same(self._states, states)

    @property
    def t(self) -> int:
        """The number of the last step."""
        return self._plan.t

    def lay(self, params: list[np.ndarray], states: list[list[np.ndarray]], names: list[str]) -> None:
        """Lay out these arrays, unless they are those of the last step. `names` call the parameters in messages."""
        if not (are_same(self._params, params) and are_same(self._states, states)):
            self._plan.lay([(self._kernel, params, states)], names)
            self._params, self._states, self._hyper = params, states, None

    def step(self, grads: Sequence[Any], t: int, hyper: list[float], **extras: Any) -> None:
        """Step number `t` of the arrays that are laid out; `extras` as in `Plan.step`."""
        plan = self._plan
        if hyper is not self._hyper:
            plan.set_hyper(0, hyper)
            self._hyper = hyper
        if plan.t != t - 1:
            plan.set_counts(t - 1, 0, t - 1)
        plan.step(grads, **extras)

    def clear(self) -> None:
        """Keep no array alive."""
        self._plan.clear()
        self._params, self._states = [], []
