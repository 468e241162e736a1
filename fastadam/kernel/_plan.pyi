from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np

from ..rules import Rule

BUILT_ISAS: tuple[str, ...]
DENORMALS: tuple[int, int]
MAX_THREADS: int

class Exchange(Protocol):
    def begin(self) -> None: ...
    def arrive(self) -> None: ...
    def total(self, high: float, low: float) -> float: ...
    def parts(self) -> Iterator[int]: ...

class Kernel:
    rule: Rule
    n_operands: int
    n_hyper: int
    n_scalars: int
    def __init__(
        self,
        rule: Rule,
        sweeps: dict[str, int] | None = None,
        scalars: int = 0,
        python: tuple[Callable[..., None], Callable[[int, list[float]], list[float]]] | None = None,
        owner: object = None,
    ) -> None: ...

class Plan:
    t: int
    seed: int
    skipped: int
    grad_norm: float | None
    torn: bool
    changes: int
    retired: bool
    n_groups: int
    n_threads: int
    params: list[np.ndarray]
    names: list[str]
    def __init__(
        self,
        groups: list[tuple[Kernel, list[np.ndarray], list[list[np.ndarray]]]],
        names: list[str],
        t: int = 0,
        n_threads: int = 1,
        seed: int = 0,
    ) -> None: ...
    def set_hyper(self, group: int, values: Sequence[float]) -> None: ...
    def hyper(self, group: int) -> list[float]: ...
    def set_origins(self, origins: Sequence[tuple[int, int]]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def writes(self, array: np.ndarray) -> bool: ...
    def bind(self, grads: Sequence[Any]) -> None: ...
    def set_steps(self, group: int, steps: int) -> None: ...
    def steps(self, group: int) -> int: ...
    def step(
        self,
        grads: Sequence[Any] | None = None,
        before: Callable[[], None] | None = None,
        factor: float = 1.0,
        clip_value: float = ...,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        zero_grads: bool = False,
        exchange: Exchange | None = None,
    ) -> None: ...

def uninterrupted(work: Callable[[], object]) -> None: ...
def to_bfloat16(source: np.ndarray, bits: np.ndarray) -> None: ...
def add_bfloat16(bits: np.ndarray, target: np.ndarray) -> None: ...
def use_codecs(addresses: dict[str, int]) -> None: ...
def state_like(
    p: np.ndarray, dtype: Any = None, allocate: Callable[[tuple[int, ...], Any], np.ndarray] = ...
) -> np.ndarray: ...
def cpu_supports_v3() -> bool: ...
def cpu_supports_v4() -> bool: ...
