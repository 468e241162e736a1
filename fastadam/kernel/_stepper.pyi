from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rule import Rule

class Stepper:
    n_threads: int
    def __init__(self, rule: Rule, n_threads: int = 1) -> None: ...
    @property
    def t(self) -> int: ...
    @property
    def params(self) -> list[np.ndarray]: ...
    def holds(self, params: list[np.ndarray], states: list[list[np.ndarray]]) -> bool: ...
    def lay(self, params: list[np.ndarray], states: list[list[np.ndarray]], names: list[str]) -> None: ...
    def step(
        self,
        grads: Sequence[Any],
        t: int,
        hyper: tuple[float, ...],
        factor: float = 1.0,
        zero_grads: bool = False,
        max_norm_each: float | None = None,
    ) -> None: ...

class Steppers:
    def __init__(self, rule: Rule, fewest_shared: int) -> None: ...
    def step_quickly(self, arguments: tuple[Any, ...], hyper: tuple[float, ...]) -> bool: ...
    def step(
        self,
        params: list[Any],
        grads: list[Any],
        states: list[list[Any]],
        names: list[str],
        t: int,
        hyper: tuple[float, ...],
        n_threads: int,
    ) -> None: ...

def are_same(some: list[Any], others: list[Any]) -> bool: ...
