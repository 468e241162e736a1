"""What 8 bits of a state could mean: candidate codes as tables of numbers, and an Adam in NumPy that has such states.
bench/lowbit.py trains with them.
"""

import ctypes
import time
from dataclasses import dataclass

import numpy as np
from compiled import compiled


@dataclass
class Code:
    """Codes of 8 bits as the numbers that they mean, relative to a scale: of states with a sign, and of those without.

    The scale of a block of 256 is its largest magnitude, or the power of two in it. The tables of the latter go on
    above that: a largest number that is cut off could never grow, as it grows by a thousandth at a time.
    """

    signed: np.ndarray
    non_negative: np.ndarray
    loop: str  # its function in codes.c
    nearest: bool = False
    keeps: bool = True  # what is above 0 stays so, where there is no sign

    def rounded(self, x: np.ndarray, signed: bool, rng: np.random.Generator) -> np.ndarray:
        """What is left of x."""
        table = self.signed if signed else self.non_negative
        blocks = np.abs(np.pad(x.ravel(), (0, -x.size % 256)).reshape(-1, 256)).astype(float)
        scale = blocks.max(axis=1, keepdims=True)
        if table[-1] > 1:
            scale = 2.0 ** (np.frexp(scale)[1] - 1)
        share = blocks / np.where(scale > 0, scale, 1)
        below = np.minimum(np.searchsorted(table, share, "right") - 1, len(table) - 2)
        rest = (share - table[below]) / (table[below + 1] - table[below])
        code = below + (rest > (0.5 if self.nearest else rng.random(rest.shape)))
        if self.keeps and not signed:
            code = np.maximum(code, blocks > 0)
        return np.copysign((table[code] * scale).ravel()[: x.size].reshape(x.shape), x).astype(np.float32)


def octaves(first: int, last: int, steps: int) -> list[float]:
    """As many steps in each octave, up from 2**first."""
    return [2.0**octave * (1 + k / steps) for octave in range(first, last + 1) for k in range(steps)]


def steps_to_power(count: int, power: int) -> np.ndarray:
    return (np.arange(count + 1) / count) ** power


OURS = np.array([0.0, *octaves(-28, 2, 4)]), np.array([0.0, *octaves(-60, 2, 4)])
CODES = {
    "5 and 6 bits of exponent, 2 of mantissa (ours)": Code(*OURS, "bits"),
    "the same, to nearest": Code(*OURS, "nearest", nearest=True),
    "4 and 5 bits of exponent, 3 of mantissa": Code(  # the same loop, with another shift
        np.array([0.0, *octaves(-13, 1, 8)]), np.array([0.0, *octaves(-29, 1, 8)]), "bits"
    ),
    "8 steps an octave in the upper half, else 4": Code(
        np.array([0.0, *octaves(-21, -7, 4), *octaves(-6, 1, 8)]),
        np.array([0.0, *octaves(-45, -15, 4), *octaves(-14, 1, 8)]),
        "tapered",
    ),
    "linear in the 4th and 8th root": Code(steps_to_power(127, 4), steps_to_power(255, 8), "roots"),
    "linear": Code(steps_to_power(127, 1), steps_to_power(255, 1), "linear", keeps=False),
}


class CodedAdam:
    """Adam in NumPy, whose states are rounded after each step."""

    def __init__(self, params: list[np.ndarray], lr: float, code: Code, seed: int) -> None:
        self.params, self.lr, self.code, self.t = params, lr, code, 0
        self.rng = np.random.default_rng(1000 + seed)
        self.states = [(np.zeros_like(p), np.zeros_like(p)) for p in params]

    def step(self, grads: list[np.ndarray]) -> None:
        self.t += 1
        rate, correction = self.lr / (1 - 0.9**self.t), (1 - 0.999**self.t) ** -0.5
        for k, (p, g, (m, v)) in enumerate(zip(self.params, grads, self.states, strict=True)):
            m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
            p -= rate * m / (np.sqrt(v) * correction + 1e-8)
            self.states[k] = self.code.rounded(m, True, self.rng), self.code.rounded(v, False, self.rng)


def error(code: Code, signed: bool) -> float:
    """The root mean square of the relative error of one rounding, of gradients over six orders of magnitude."""
    rng = np.random.default_rng(0)
    x = (10 ** rng.uniform(-6, 0, 1 << 18)).astype(np.float32)
    x = x if signed else x * x
    return float(np.sqrt(np.mean((code.rounded(x, signed, rng) / x - 1.0) ** 2)))


def nanoseconds(rounds: int = 300) -> dict[str, float]:
    """What each code takes an element: both states, in cache, on one thread; the least of many rounds, in turns."""
    loops = compiled("codes.c", "-fno-math-errno", "-fno-trapping-math")
    g = np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32)
    least = dict.fromkeys((code.loop for code in CODES.values()), np.inf)
    kept = {name: [np.zeros(g.size, np.uint8), np.zeros(g.size, np.uint8), np.ones(g.size // 64)] for name in least}
    for name in [*least] * rounds:
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in (*kept[name], g)]
        start = time.perf_counter()
        getattr(loops, name)(ctypes.c_ssize_t(g.size), *arrays)
        least[name] = min(least[name], (time.perf_counter() - start) / g.size * 1e9)
    return least
