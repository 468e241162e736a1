"""A user's own rules: functions, states, scalars and defaults that `fastadam.optimizer` or a later step cannot use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy import inf, ones

import fastadam

from .case import RATE, Case, of_rows, zero_division
from .worlds import fresh, own_rule


def two(p: Any, g: Any, m: Any, lr: Any) -> Any:
    return p - lr * g, m


def rate(t: Any, lr: Any) -> Any:
    return (lr,)


def in_place(p: Any, g: Any, m: Any, lr: Any) -> Any:
    m *= lr
    return p - m, m


def made(update: Any = two, scalars: Any = rate, states: Any = ("m",), **more: Any) -> Callable[[Any], Any]:
    """Makes an optimizer of a rule, and a step with it."""

    def call(w: Any) -> None:
        fastadam.optimizer(update, scalars, states, **{"lr": 0.1} | more)(w.p, backend="numpy").step(w.g)

    return call


def counting(p: Any, g: Any, m: Any, lr: Any) -> Any:
    for k in range(3):
        m = m + k * g
    return p - lr * m, m


def by_numba(w: Any) -> None:
    fastadam.optimizer(counting, rate, ["m"], lr=0.1)(w.p)


def cube(x: Any) -> Any:
    return x**3


PLACE = 1
#: a rule with more numbers than fit its code
MANY = eval(f"lambda p, g, m, lr: (p, ({' + m * '.join(f'0.{k}' for k in range(1, 400))}))")
ROUNDED = "a power other than x ** 2, which NumPy and Numba round differently; write x * x * x"
OTHER_NAME = "means something else in an optimizer; give this hyper-parameter another name"
RETURNS = "'<lambda>': expected it to return one real number for "
RULES: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("update None", made(None), TypeError, "update: expected a Python function, got None"),
    ("update builtin", made(max), TypeError, "update: expected a Python function, got <built-in function max>"),
    ("scalars None", made(scalars=None), TypeError, "scalars: expected a Python function, got None"),
    ("states text", made(states="m"), TypeError, "states: expected a list of names, such as ['m', 'v'], got 'm'"),
    ("states None", made(states=None), TypeError, "states: expected a list of names, such as ['m', 'v'], got None"),
    ("states numbers", made(states=[1]), TypeError, "states: expected a list of names, such as ['m', 'v'], got [1]"),
    ("signs text", made(non_negative="m"), TypeError,
     "non_negative: expected a list of names, such as ['m', 'v'], got 'm'"),
    ("signs of others", made(non_negative=["m", "w"]), ValueError,
     "non_negative: expected names of states, of ['m'], got 'w'"),
    ("states others", made(states=["v"]), TypeError,
     "'two': expected the arguments p, g, v, then scalars; got ('p', 'g"),
    ("states twice", made(states=["m", "m"]), TypeError, "'two': expected the arguments p, g, m, m, then scalars; got"),
    ("states none", made(states=[]), TypeError, "scalars of 'two': expected a tuple of 2 numbers, as 'two' takes, got"),
    ("few arguments", made(lambda p: (p,), states=[]), TypeError, "'<lambda>': expected the arguments p, g, "),
    ("one result", made(lambda p, g, m, lr: p), TypeError,
     "'<lambda>': expected it to return a tuple of 2, (p, m), got"),
    ("no result", made(lambda p, g, m, lr: None), TypeError,
     "'<lambda>': expected it to return a tuple of 2, (p, m), g"),
    ("three results", made(lambda p, g, m, lr: (p, m, m)), TypeError, "…a tuple of 2, (p, m), got 3 values"),
    ("result of a shape", made(lambda p, g, m, lr: (p, ones(2))), TypeError, f"{RETURNS}m, got array([1., 1.])"),
    ("result complex", made(lambda p, g, m, lr: (p * 1j, m)), TypeError, f"{RETURNS}p, got array("),
    ("result None", made(lambda p, g, m, lr: (None, m)), TypeError, f"{RETURNS}p, got None"),
    ("update that fails", made(lambda p, g, m, lr: (p / m.none, m)), AttributeError, "'numpy.ndarray' object has no"),
    ("scalars without t", made(scalars=lambda lr: (lr,)), TypeError, "scalars of 'two': expected t as its first argum"),
    ("scalars too many", made(scalars=lambda t, lr: (lr, lr)), TypeError,
     "scalars of 'two': expected a tuple of 1 numb"),
    ("scalars no tuple", made(scalars=lambda t, lr: lr), TypeError,
     "scalars of 'two': expected a tuple of 1 number, as"),
    ("scalars text", made(scalars=lambda t, lr: ("1",)), TypeError, "scalars of 'two': …takes, got ('1',)"),
    ("scalars array", made(scalars=lambda t, lr: (ones(1),)), TypeError, "scalars of 'two': …takes, got (array([1.]),"),
    ("scalars None in", made(scalars=lambda t, lr: (None,)), TypeError, "scalars of 'two': …takes, got (None,)"),
    ("scalars without default", made(scalars=lambda t, lr, b: (lr,)), TypeError,
     "scalars of 'two': its argument 'b' has"),
    ("default for nothing", made(beta=0.9), TypeError,
     "beta: not an argument of the scalars of 'two', which are ('lr'"),
    ("default text", made(lr="x"), TypeError, f"lr: expected {RATE}, got 'x' of type str"),
    ("default infinite", made(scalars=lambda t, lr, beta: (lr,), beta=inf), ValueError,
     "beta: expected a number that is finite, got inf"),
    ("decoupled", made(decoupled_weight_decay="yes"), TypeError,
     "decoupled_weight_decay: expected True or False, got 'y"),
    ("called step", made(scalars=lambda t, lr, step: (lr,), step=1.0), ValueError, f"step: {OTHER_NAME}"),
    ("called seed", made(scalars=lambda t, lr, seed: (lr,), seed=1.0), ValueError, f"seed: {OTHER_NAME}"),
    ("called params", made(scalars=lambda t, lr, params: (lr,), params=1.0), ValueError, f"params: {OTHER_NAME}"),
    ("called factor", made(scalars=lambda t, lr, factor: (lr,), factor=1.0), ValueError, f"factor: {OTHER_NAME}"),
    ("state called master", made(lambda p, g, master, lr: (p, master), states=["master"]), ValueError,
     "'<lambda>': 'master' means another array in checkpoints; give this state another name"),
    ("called decoupled", made(scalars=lambda t, lr, decoupled: (lr,), decoupled=0.5), ValueError,
     f"decoupled: {OTHER_NAME}"),
    ("default a pair", made(scalars=lambda t, lr, betas: (lr,), betas=(0.5, 0.5)), TypeError,
     "betas: expected a number that is finite, got (0.5, 0.5) of type tuple"),
    *(
        (f"mixing by {name}", made(update), ValueError,
         "'<lambda>': expected what it returns for an element to depend on that element alone, but it changes")
        for name, update in (
            ("norm", lambda p, g, m, lr: (p - lr * g / np.sqrt((g * g).sum()), m)),
            ("mean in a state", lambda p, g, m, lr: (p - lr * g, m + np.mean(g))),
            ("largest", lambda p, g, m, lr: (p - lr * g / np.max(g), m)),
            ("sums so far", lambda p, g, m, lr: (p - lr * np.cumsum(g), m)),
            ("size", lambda p, g, m, lr: (p - lr * g / g.size, m)),
        )
    ),
    ("if in NumPy", made(lambda p, g, m, lr: (p - lr if g > m else p + lr, m)), TypeError,
     "'<lambda>': backend='numpy' runs it on arrays, where it fails: The truth value … write numpy.where for an if"),
    ("in place in NumPy", made(in_place), TypeError,
     "'in_place': backend='numpy' runs it on arrays, where it fails: output array is read-only; write numpy.where"),
    ("a root", made(lambda p, g, m, lr: (p - lr * g / m**0.5, m)), ValueError,
     f"'<lambda>', line …own_rules.py: {ROUNDED}"),
    ("a power", made(lambda p, g, m, lr: (p - g**lr, m)), ValueError, f"'<lambda>', line …own_rules.py: {ROUNDED}"),
    ("a power by name", made(lambda p, g, m, lr: (p - pow(g, 3), m)), ValueError,
     f"'<lambda>', line …own_rules.py: {ROUNDED}"),
    ("a power around it", made(lambda p, g, m, lr: (p - cube(g), m)), ValueError,
     f"'cube', line {cube.__code__.co_firstlineno + 1} of …own_rules.py: {ROUNDED}"),
    ("a counter", by_numba, TypeError,
     f"'counting', line {counting.__code__.co_firstlineno + 2} of …own_rules.py: a whole number that is no literal"),
    ("an index by name", made(lambda p, g, m, lr: (p - lr * (g, m)[PLACE], m)), TypeError,
     "'<lambda>': its numbers are of the parameter's dtype, but one of them must be whole: tuple indices must be"),
    ("many numbers", made(MANY), ValueError, "'<lambda>': has too many numbers; pass some as scalars"),
    ("unknown option", lambda w: fastadam.optimizer(two, rate, ["m"], lr=0.1)(w.p, beta=0.9, backend="numpy"),
     TypeError, "beta: unknown option of two; it has params, lr, maximize, bounds, weight_decay, backend,"),
    ("compiled", lambda w: fastadam.optimizer(two, rate, ["m"], lr=0.1)(w.p, backend="cython"), ValueError,
     "backend: rule 'two' is not built in; use backend='numba' or 'numpy'"),
]  # fmt: skip
#: scalars that go wrong at the second step, where a group before has had its own
LATER: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("too few", lambda lr: (), ValueError, "scalars of 'heavy' at t = 2: expected 7, got 6"),
    ("too many", lambda lr: (lr, lr), ValueError, "scalars of 'heavy' at t = 2: expected 7, got 8"),
    ("text", lambda lr: ("x",), ValueError, "could not convert string to float: 'x'"),
    ("failing", zero_division, ZeroDivisionError, "division by zero"),
    ("failing in the second group", lambda lr: (lr / (lr - 0.5),), ZeroDivisionError, "…division by zero"),
]  # fmt: skip

CASES = [
    *of_rows("rule", fresh, RULES),
    *(
        Case(f"scalars {name}", partial(own_rule, scalars=scalars), lambda w: w.call(), error, text)
        for name, scalars, error, text in LATER
    ),
]
