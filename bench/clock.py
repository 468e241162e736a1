"""What the runs of `runs/` share: the two ways, the clock around the optimizer's part, the data."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

STOCK, OURS = "stock", "fastadam"

Run = Callable[[str, "Clock"], tuple[float, float]]


class Clock:
    """The seconds spent in functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits, in float32, and what each is."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y
