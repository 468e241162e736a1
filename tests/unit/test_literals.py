"""Numbers in a user's own rule: the same bits under Numba and NumPy, in float32 and float64.
Each rule has them in another place. Refused ones are in promises/refused/own_rules.py.
"""

import math
from collections import namedtuple

import numpy as np
import pytest
from numba import njit

import fastadam

BETA, HALVES, ROOT = 0.9, 2, np.float64(0.1)
PAIR, TABLE = (0.9, 0.001), np.array([0.9, 0.1])
NAMED = namedtuple("Named", "a b")(0.3, 3)


class Options:
    decay = 0.7


def floats(p, g, m, lr):
    m = 0.9 * m + 0.1 * g
    return p - lr * m / (1e-3 + abs(m)), m


def integers(p, g, m, lr):
    m = m + 2 * g - m / 3
    return p - lr * m * 7 + 1, -m * -1


def beyond_16_bits(p, g, m, lr):
    return p - g * 40_000 * 0.1, m + 16_777_217


def squares(p, g, m, lr):
    x = g - 0.3
    x **= 2
    return p - lr * g / (np.sqrt(m**2 + 0.1 * x) + 1e-8), lr**2 * m + 0.1 * g**2.0


def names(p, g, m, lr):
    return p - lr * g / HALVES - ROOT * g, BETA * m + (1 - BETA) * g


def tuples(p, g, m, lr):
    a, b = PAIR
    c, d = 0.3, 0.7
    return p - lr * (c * m + d * g) * PAIR[-1] * NAMED.b, (a * m + b * g) * NAMED.a


def attributes(p, g, m, lr):
    return p - lr * np.pi * g + math.e * m, m * Options.decay


def arrays(p, g, m, lr):
    return p - TABLE[0] * g, m + TABLE[1] * g


def choices(p, g, m, lr):
    p = p - lr * np.where(g > 0.1, 0.3, -0.7) - np.where(g > 0.1, 1, -1) / 3
    return p, np.where(m < 0.5, np.maximum(m, 1e-8), 0) + np.minimum(g, 2)


def comparisons(p, g, m, lr):
    return p - (g > 0.1) * lr * 0.3, m + (g <= BETA) * 0.1


def of_literals_alone(p, g, m, lr):
    a = 0.1
    b = a * 3.0
    return p - b / 7 * g, m * np.sqrt(0.1) + np.sqrt(2) * (1 - a) * g


def functions_of_numpy(p, g, m, lr):
    p = p - np.floor(g * 10) / 10 + 0.1 * np.square(g) - np.sign(g) * 0.01
    return p, 0.1 * np.absolute(m) + np.reciprocal(2 + g * g)


def loops(p, g, m, lr):
    x = 0.0
    for _ in range(3):
        m = m * 0.9 + x * g
        x = x + 1.0
    return p - lr * m, m


def half():
    return 0.1


def parts(x, k=0.3):
    return k * x + 0.1, x * 3


@njit
def jitted(x):
    return 0.7 * x


def helpers(p, g, m, lr):
    a, _ = parts(g)
    return p - lr * a * half() - jitted(g), m + parts(g)[1] * parts(m, 0.2)[0]


def within(p, g, m, lr):
    def inner(x):
        return 0.1 * x + BETA

    return p - inner(g), inner(m)


def enclosing(mu, k=0.25):
    def enclosed(p, g, m, lr):
        return p - mu * g - k * m, mu * m + (1 - mu) * g

    return enclosed


def without_source():
    scope = {}
    exec("def update(p, g, m, lr):\n    return p - 0.1 * g, 0.9 * m + 0.3 * g", scope)
    return scope["update"]


RULES = [floats, integers, beyond_16_bits, squares, names, tuples, attributes, arrays, choices, comparisons]
RULES += [of_literals_alone, functions_of_numpy, loops, helpers, within, enclosing(0.9), without_source()]
RULES += [lambda p, g, m, lr: (p - 0.1 * g, 0.9 * m + 0.3 * g)]


def stepped(cls, dtype: str, backend: str) -> list[np.ndarray]:
    """The parameters and the state after three steps."""
    rng = np.random.default_rng(0)
    p = rng.standard_normal(10_000).astype(dtype)
    opt = cls(p, backend=backend)
    opt.state["m"][0][...] = rng.standard_normal(10_000)
    for _ in range(3):
        opt.step(rng.standard_normal(10_000).astype(dtype))
    return [p, opt.state["m"][0]]


def of(rule):
    return fastadam.optimizer(rule, lambda t, lr: (lr,), ["m"], lr=0.1)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_both_backends_give_the_same_bits(rule):
    cls = of(rule)
    for dtype in ("float32", "float64"):
        for numba, numpy in zip(stepped(cls, dtype, "numba"), stepped(cls, dtype, "numpy"), strict=True):
            assert np.isfinite(numpy).all()
            np.testing.assert_array_equal(numba, numpy)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("rule", [floats, squares, names, attributes, choices], ids=lambda rule: rule.__name__)
def test_the_values_are_those_of_the_formula(rule, backend):
    """Of the source as it stands, in float64."""
    rng = np.random.default_rng(0)
    p, m = rng.standard_normal((2, 10_000))
    for _ in range(3):
        p, m = rule(p, rng.standard_normal(10_000), m, 0.1)
    for ours, theirs in zip(stepped(of(rule), "float64", backend), (p, m), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_literal_is_rounded_to_the_dtype_first(backend):
    for dtype in (np.float32, np.float64):
        p = np.zeros(3, dtype)
        fastadam.optimizer(lambda p, g, lr: (p + 0.1 * g,), lambda t, lr: (lr,), (), lr=1.0)(p, backend=backend).step(
            np.full(3, 3, dtype)
        )
        np.testing.assert_array_equal(p, dtype(0.1) * dtype(3))


def test_numbers_keep_the_values_that_they_had():
    kept = enclosing(0.9)
    opts = [of(kept)(np.zeros(2), backend=backend) for backend in ("numba", "numpy")]
    kept.__closure__[1].cell_contents = 0.5
    for opt in opts:
        opt.step(np.ones(2))
    np.testing.assert_array_equal(opts[0].params, opts[1].params)
    np.testing.assert_array_equal(opts[0].params, -0.9)
