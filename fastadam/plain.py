"""Adam in plain NumPy, the baseline of the demo and of the benchmarks. Not for use.
Every operation makes a new array, as in the class that `fastadam.adapters.article` replaces.
"""

from typing import Any

import numpy as np


class PlainAdam:
    """Adam, written directly from its formulas."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance
        self.alpha, self.beta1, self.beta2, self.epsilon = 1e-3, 0.9, 0.999, 1e-8
        self.m = self.v = np.zeros(())
        self.t = 0

    def step(self) -> None:
        """One step of ``instance.parameters``."""
        g = self.instance.grad
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        rate = self.alpha * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        self.instance.parameters -= rate * self.m / (np.sqrt(self.v) + self.epsilon)
