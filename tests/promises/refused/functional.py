"""`fastadam.functional`: arrays and options that do not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ones

from fastadam import functional

from .case import ARRAY, BELOW_ONE, DTYPE, RATE, THREADS, good_rate, of_rows
from .worlds import function


def of_function(**changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A call with some of the arguments, or options, made of those that there are."""
    return lambda w: functional.adam(**(w.a | {name: change(w.a) for name, change in changes.items()}))


FUNCTION: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("too few g", of_function(g=lambda a: a["g"][:1]), ValueError, "g: expected 2 arrays, as many as p, got 1"),
    ("too many v", of_function(v=lambda a: a["v"] + a["m"]), ValueError, "v: expected 2 arrays, as many as p, got 4"),
    ("none", lambda w: functional.adam([], [], [], [], 1), ValueError,
     "p: expected at least one array, got an empty l"),
    ("nothing", lambda w: functional.adam(), TypeError, "adam() takes (p, g, m, v, t), got 0 of them"),
    ("no t", lambda w: functional.adam(*list(w.a.values())[:4]), TypeError,
     "adam() takes (p, g, m, v, t), got 4 of th"),
    ("mapping", of_function(p=lambda a: dict(enumerate(a["p"]))), ValueError,
     "g: expected 1 array, as many as p, got"),
    ("shape of m", of_function(m=lambda a: [a["m"][0], ones((2, 3))]), ValueError,
     "m[1]: expected shape (2, 2) like t"),
    ("shape of g", of_function(g=lambda a: [a["g"][0], ones((2, 3))]), ValueError,
     "gradient of p[1]: expected shape (2, 2)"),
    ("dtype of v", of_function(v=lambda a: [a["v"][0], ones((2, 2), "f4")]), TypeError, "v[1]: expected dtype float64"),
    ("dtype of g", of_function(g=lambda a: [a["g"][0], ones((2, 2), "c8")]), TypeError,
     "gradient of p[1]: expected real numbers like the parameter, got complex64"),
    ("None as g", of_function(g=lambda a: None), TypeError, "g: expected a gradient, got None; in a list None leaves"),
    ("list as m", of_function(m=lambda a: [a["m"][0], [[0.0] * 2] * 2]), TypeError, f"m[1]: {ARRAY}list"),
    ("integers", of_function(p=lambda a: [a["p"][0], ones((2, 2), int)]), TypeError, f"p[1]: {DTYPE}int64"),
    ("read-only v", of_function(v=lambda a: [a["v"][0], np.broadcast_to(1.0, (2, 2))]), ValueError,
     "v[1]: the array is read-only"),
    ("v is m", of_function(v=lambda a: [a["v"][0], a["m"][1]]), ValueError,
     "v[1] and m[1] share memory and would be st"),
    ("g is m", of_function(g=lambda a: [a["g"][0], a["m"][1]]), ValueError,
     "gradient of p[1]: shares memory with a parameter or a state"),
    *(
        (f"t = {t!r:.9}", of_function(t=lambda a, t=t: t), error, "t: expected a whole number >= 1 and < 2**62, got ")
        for t, error in ((0, ValueError), (-1, ValueError), (2**70, ValueError), (1.5, TypeError), (True, TypeError))
    ),
    ("lr", of_function(lr=lambda a: -1.0), ValueError, f"lr: expected {RATE}, got -1.0"),
    ("schedule", of_function(lr=lambda a: good_rate), TypeError, f"lr: expected {RATE}, got cosine("),
    ("betas", of_function(betas=lambda a: (0.9, 1.0)), ValueError, f"betas[1]: expected {BELOW_ONE}, got 1.0"),
    ("threads", of_function(n_threads=lambda a: 0), ValueError, f"n_threads: expected {THREADS}, got 0"),
    ("amsgrad", of_function(amsgrad=lambda a: True), TypeError,
     "amsgrad: adam() has no such option; call amsgrad(), which takes the states m, v, v_max"),
    ("no amsgrad", of_function(amsgrad=lambda a: False), TypeError,
     "amsgrad: adam() has no such option; it has lr, betas,"),
    ("momentum", of_function(momentum=lambda a: 0.9), TypeError,
     "momentum: adam() has no such option; did you mean betas?"),
    ("learning_rate", of_function(learning_rate=lambda a: 0.9), TypeError,
     "learning_rate: adam() has no such option; did you mean lr?"),
    ("bounds", of_function(bounds=lambda a: (1, 0)), ValueError, "bounds: expected the smaller number first, got (1"),
    ("nesterov of sgd", lambda w: functional.sgd(ones(2), ones(2), 1, nesterov=True), TypeError,
     "nesterov: sgd() has no such option; it has lr, weight_decay,"),
    ("momentum of sgd", lambda w: functional.sgd(ones(2), ones(2), 1, momentum=0.9), TypeError,
     "momentum: sgd() has no such option; call sgd_momentum(), which takes the states b"),
    ("nesterov of sgd_momentum", lambda w: functional.sgd_momentum(*[ones(2)] * 3, 1, nesterov=True), TypeError,
     "nesterov: sgd_momentum() has no such option; call sgd_nesterov(), which takes the states b"),
    ("nesterov dampened", lambda w: functional.sgd_nesterov(*[ones(2)] * 3, 1, momentum=0.5, dampening=0.1), ValueError,
     "nesterov: needs a momentum above 0 and a dampening of 0, got momentum=0.5, dampening=0.1"),
    ("schedule of schedule_free", lambda w: functional.schedule_free(*[ones(2)] * 5, 1, lr=good_rate), TypeError,
     f"lr: expected {RATE}, got cosine("),
]  # fmt: skip

CASES = of_rows("functional", function, FUNCTION)
