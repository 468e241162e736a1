"""Adapters for NumPy: the article's class, SciPy, scikit-learn, thinc."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy import nan, ones
from numpy.lib.stride_tricks import as_strided

from . import worlds
from .case import DTYPE, RATE, Case, frozen, of_rows, step

OF_STATE = "like instance.parameters, got "
ARTICLE: list[tuple[str, dict[str, Any], Any, str]] = [
    ("shape", {"grad": ones(5)}, ValueError, f"instance.grad: expected shape (3,) {OF_STATE}(5,)"),
    ("None", {"grad": None}, TypeError, "instance.grad: expected real numbers, got NoneType"),
    ("masked", {"grad": np.ma.ones(3)}, TypeError,
     "instance.grad: a masked array is not supported, its mask would be i"),
    ("complex", {"grad": ones(3, complex)}, TypeError, "instance.grad: expected real numbers, got complex128"),
    ("text", {"grad": "1.0"}, TypeError, "instance.grad: expected real numbers, got <U3"),
    ("lists", {"grad": [[1.0], [1.0, 2.0]]}, TypeError,
     "instance.grad: expected real numbers, got [[1.0], [1.0, 2.0]]"),
    ("parameters None", {"parameters": None}, TypeError, "instance.parameters: expected real numbers, got NoneType"),
    ("parameters whole", {"parameters": ones(3, int)}, TypeError, f"instance.parameters: {DTYPE}int64"),
    ("parameters frozen", {"parameters": np.broadcast_to(1.0, 3)}, ValueError,
     "instance.parameters: the array is read-only"),
    ("m", {"m": ones(5)}, ValueError, f"the state m: expected shape (3,) {OF_STATE}(5,)"),
    ("v", {"v": "x"}, TypeError, "the state v: expected real numbers, got <U1"),
    ("alpha", {"alpha": "3"}, TypeError, "alpha: expected a number, got '3'"),
    ("epsilon", {"epsilon": None}, TypeError, "epsilon: expected a number, got None"),
]  # fmt: skip

CANNOT = "Adam cannot use it; leave it out, or use SciPy's method="
SCIPY: list[tuple[str, dict[str, Any], Any, str]] = [
    ("constraints", {"constraints": {"type": "eq", "fun": sum}}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ("an array of constraints", {"constraints": np.array([sum, sum])}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ("callback", {"callback": 5}, TypeError, "callback: expected a function, got 5 of type int"),
    ("tol", {"tol": nan}, ValueError, f"tol: expected {RATE}, got nan"),
    ("maxiter", {"options": {"maxiter": 1e4 + 0.5}}, TypeError,
     "maxiter: expected a whole number >= 0 and < 2**62, got 10000.5"),
    ("eps", {"jac": None, "options": {"eps": 1e-2}}, ValueError, "eps: without jac it may be SciPy's step of the fin"),
    ("steps of differences", {"jac": None, "options": {"finite_diff_rel_step": [1, 0]}}, ValueError,
     "finite_diff_rel_step: expected a number > 0 and finite, or one for each of the 2 elements of x0, got [1, 0]"),
    ("lr", {"options": {"lr": -1}}, ValueError, f"lr: expected {RATE}, got -1"),
    ("bounds", {"bounds": [(0, 1)] * 3}, ValueError,
     "bounds: expected Bounds, or a pair (low, high) for each of the 2"),
    ("crossed bounds", {"bounds": [(0, 1), (2, 1)]}, ValueError,
     "bounds: expected low <= high, with numbers between, go"),
    ("x0", {"x0": [1, nan]}, ValueError, "x0: expected finite numbers, got nan at 1"),
    ("complex x0", {"x0": [1j, 0]}, TypeError, "x0: expected real numbers, got complex128"),
]  # fmt: skip


def coefs(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    """Trains on, the second layer's weights being others; a fit puts back what it was given."""

    def call(w: Any) -> None:
        good = w.model.coefs_[1]
        w.model.coefs_[1] = change(good)
        try:
            w.fit()
        finally:
            w.model.coefs_[1] = good

    return call


SKLEARN: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("integers", coefs(lambda c: c.astype(int)), TypeError, f"coefs_[1]: {DTYPE}int64"),
    ("frozen", coefs(frozen), ValueError, "coefs_[1]: the array is read-only and would be written in place"),
    ("windows", coefs(lambda c: as_strided(c, c.shape, (0, 0))), ValueError,
     "coefs_[1]: several of its elements share"),
]  # fmt: skip


def thincs(name: str, **given: Any) -> Callable[[Any], Any]:
    """Makes one of thinc's optimizers."""
    return lambda _: getattr(import_module("fastadam.adapters.thinc"), name)(**given)


THINC: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("weights", lambda w: w.opt(w.key, [1.0], w.g), TypeError,
     "weights of (1, 'W'): expected a numpy array, got builtins"),
    ("gradient", lambda w: w.opt(w.key, w.w, [1.0]), TypeError,
     "gradient of (1, 'W'): expected a numpy array, got built"),
    ("shape", lambda w: w.opt(w.key, w.w, w.g[:2]), ValueError,
     "gradient of (1, 'W'): expected shape (3,) like the para"),
    ("integers", lambda w: w.opt(w.key, w.w.astype(int), w.g), TypeError, f"weights of (1, 'W'): {DTYPE}int64"),
    ("float16", lambda w: w.opt((9, "W"), w.w.astype("f2"), w.g.astype("f2")), TypeError,
     "weights of (9, 'W'): expected float32 or float64, got float16; use .astype('float32')"),
    ("frozen", lambda w: w.opt(w.key, w.w, frozen(w.g)), ValueError,
     "gradient of (1, 'W'): the array is read-only and"),
    ("itself", lambda w: w.opt(w.key, w.w, w.w), ValueError,
     "gradient of (1, 'W'): shares memory with a parameter or a"),
    ("grown, its gradient not", lambda w: w.opt(w.key, ones(5, "f4"), w.g), ValueError,
     "gradient of (1, 'W'): expected shape (5,) like the para"),
    ("schedule of Rprop", thincs("Rprop", learn_rate=[0.1, 0.2]), TypeError,
     f"learn_rate: expected {RATE}, got [0.1, 0.2]"),
    ("schedule of schedule-free", thincs("ScheduleFreeAdamW", learn_rate=[0.1]), TypeError,
     f"learn_rate: expected {RATE}, got [0.1]"),
    ("nesterov", thincs("SGD", nesterov=True), ValueError,
     "nesterov: needs a momentum above 0 and a dampening of 0, got momentum=0.0"),
    ("beta3", thincs("AdEMAMix", beta3=1.0), ValueError, "beta3: expected a number >= 0 and < 1, got 1.0"),
    ("L2 of Rprop", thincs("Rprop", L2=0.1), TypeError,
     "Rprop: got an unexpected keyword argument 'L2'; it takes learn_rate, etas"),
    ("lr_scale", lambda w: w.opt(w.key, w.w, w.g, lr_scale=-1.0), ValueError, f"lr_scale: expected {RATE}, got -1.0"),
    ("lr_scale text", lambda w: w.opt(w.key, w.w, w.g, lr_scale="1"), TypeError,
     f"lr_scale: expected {RATE}, got '1' of"),
]  # fmt: skip

CASES = [
    *(
        Case(f"article {name}, {'warm' if warm else 'cold'}", partial(worlds.article, warm=warm, **wrong), step, *row)
        for name, wrong, *row in ARTICLE
        for warm in (True, False)
    ),
    *(
        Case(f"scipy {name}", worlds.scipy, partial(lambda w, given: w.call(**given), given=given), error, text)
        for name, given, error, text in SCIPY
    ),
    *of_rows("sklearn", worlds.sklearn, SKLEARN),
    *of_rows("thinc", worlds.thinc, THINC),
]
