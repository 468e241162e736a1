"""The engine of all benchmarks: contestants take turns, in an order shuffled anew each round; medians are quoted."""

import importlib.util
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..options import bfloat16

Arrays = list[np.ndarray]
Step = Callable[[], object]

#: seconds that the calls of one round take at least: many times what a clock can tell
_ROUND = 2e-3


@dataclass(frozen=True)
class Contestant:
    """A way of stepping a list of arrays; `make` returns the function that does it once."""

    name: str
    make: Callable[[Arrays, Arrays], Step]
    needs: str = "numpy"
    dtypes: tuple[str, ...] = ("float32", "float64")
    max_arrays: int = 1_000_000

    @property
    def installed(self) -> bool:
        """Whether the library that it needs is here."""
        return importlib.util.find_spec(self.needs) is not None


@dataclass
class Row:
    """What one contestant took for one step: seconds, the median and the quartiles of the rounds."""

    dtype: str
    count: int
    size: int
    name: str
    median: float
    low: float
    high: float
    rounds: int


class Turn(NamedTuple):
    """What a contestant does in a round: `before`, given the round and not timed, then so many calls of `step`."""

    step: Step
    before: Callable[[int], object]
    calls: int = 1


class Rounds(NamedTuple):
    """How many rounds: between the fewest and the most, as many as begin before `until`, by `perf_counter`."""

    fewest: int
    most: int
    until: float = 0.0

    @classmethod
    def of(cls, total: int) -> "Rounds":
        """The number of rounds for steps of so many elements, where time does not matter."""
        n = 7 if total > 5_000_000 else 21
        return cls(n, n)


def arrays(count: int, size: int, dtype: Any) -> tuple[Arrays, Arrays]:
    """Parameters and gradients of ordinary magnitude: never zeros, nor values that decay to denormals."""
    rng = np.random.default_rng(0)
    dtype = bfloat16() if dtype == "bfloat16" else dtype
    params = [rng.standard_normal(size, np.float32).astype(dtype) for _ in range(count)]
    grads = [rng.standard_normal(size, np.float32).astype(dtype) for _ in range(count)]
    return params, grads


def measure(
    contestants: Iterable[Contestant],
    dtype: str,
    count: int,
    size: int,
    rounds: Rounds | None = None,
    failed: Callable[[str, Exception], object] | None = None,
) -> list[Row]:
    """Every contestant's step of `count` arrays of `size` elements each.

    A contestant that fails, when its step is made or at the first step, ends the measurement. With `failed` it does
    not: the contestant is left out, and `failed` gets its name and its error.
    """
    turns: dict[str, Turn] = {}
    for contestant in contestants:
        if count <= contestant.max_arrays:
            try:
                step = contestant.make(*arrays(count, size, dtype))
                step()
            except Exception as error:
                if failed is None:
                    raise
                failed(contestant.name, error)
            else:
                calls = max(1, min(2_000, int(_ROUND / timed(step, 1 if count * size > 1_000_000 else 3))))
                turns[contestant.name] = Turn(step, partial(warm, step), calls)
    return in_turn(turns, rounds or Rounds.of(count * size), dtype, count, size)


def in_turn(turns: dict[str, Turn], rounds: Rounds, dtype: str, count: int, size: int) -> list[Row]:
    """What a call of each turn's step takes; the turns come in an order that is shuffled anew each round."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    order = random.Random(0)
    for k in range(rounds.most):
        if k >= rounds.fewest and time.perf_counter() > rounds.until:
            break
        for name in order.sample(list(turns), len(turns)):
            turn = turns[name]
            time.sleep(2e-3)  # other libraries' threads spin for a while after their work
            turn.before(k)
            seconds[name].append(timed(turn.step, turn.calls))
    found = []
    for name, taken in seconds.items():
        low, median, high = map(float, np.quantile(taken, [0.25, 0.5, 0.75]))
        found.append(Row(dtype, count, size, name, median, low, high, len(taken)))
    return found


def warm(step: Step, k: int) -> None:
    """Step once, before round k is timed: the caches are as another left them."""
    step()


def timed(step: Step, calls: int) -> float:
    """Seconds of one call, over `calls` of them."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls
