"""Invalid arguments of a step: scales, norms and flags."""

from functools import partial
from typing import Any

from numpy import inf, nan, ndarray, ones

from .case import FLAG, NORM, Case
from .worlds import running

SCALE = "a number between 2**-126 and 2**126"
#: the argument, the value, the error, what is allowed
EXTRAS: list[tuple[str, Any, Any, str]] = [
    *(("grad_scale", value, ValueError, SCALE) for value in (0, -1.0, nan, inf, 1e-39)),
    *(("grad_scale", value, TypeError, SCALE) for value in ("8", None, True, False, 1j, ones(1), ones(3), [1.0])),
    *(("max_norm", value, ValueError, NORM) for value in (0, -1, nan, -inf)),
    *(("max_norm", value, TypeError, NORM) for value in ("1", True, ones(3), [1.0], 1j)),
    *(("max_norm_each", value, ValueError, NORM) for value in (0, -1, nan, -inf)),
    *(("max_norm_each", value, TypeError, NORM) for value in ("1", True, ones(3), [1.0], 1j)),
    *(("clip_value", value, ValueError, NORM) for value in (0.0, -2.5, nan)),
    *(("clip_value", value, TypeError, NORM) for value in ("1", False, ones(1), [1], {})),
    *(("skip_nonfinite", value, TypeError, FLAG) for value in (1, 0, None, "no", (), nan, ones(3))),
    *(("zero_grads", value, TypeError, FLAG) for value in (1, 0, None, "yes", [], nan, ones(3))),
]  # fmt: skip


def of_arguments() -> list[Case]:
    made = []
    for name, value, error, allowed in EXTRAS:
        call = partial(lambda w, given: w.opt.step(w.good, **given), given={"max_norm": 1.0, name: value})
        came = f"an array of shape {value.shape}" if isinstance(value, ndarray) else repr(value)
        text = f"{name}: expected {allowed}, got {came}"
        made.append(Case(f"step {name}={value!r}", running, call, error, text))
    return made


#: names that a step does not know, and the end of the message
UNKNOWN = {
    "maxnorm": "did you mean max_norm?",
    "clipnorm": "did you mean max_norm_each?",
    "grad_clip": "did you mean max_norm_each?",
    "global_clipnorm": "did you mean max_norm?",
    "clip": "did you mean clip_value?",
    "scale": "did you mean grad_scale?",
    "zero_grad": "did you mean zero_grads?",
    "closure": "it has grads, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each",
}

CASES = [
    *of_arguments(),
    *(
        Case(f"step by both norms, {each}", running,
             partial(lambda w, each: w.opt.step(w.good, max_norm=2, max_norm_each=each), each=each), ValueError,
             f"max_norm_each: expected None beside max_norm=2, got {each}; pass one of them, since the result of both")
        for each in (0.5, inf)
    ),
    *(
        Case(f"step {name}", running, partial(lambda w, given: w.opt.step(w.good, **given), given={name: 1.0}),
             TypeError, f"{name}: unknown argument of step(); {text}")
        for name, text in UNKNOWN.items()
    ),
]  # fmt: skip
