"""The cases that tests and benchmarks share: every rule, with the optimizer and options that choose it.
A rule in `fastadam.rules` without a case here fails `test_every_rule_has_a_case`.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import inside
import numpy as np

import fastadam

#: FASTADAM_TEST_ALL=1, as in the nox session `peers`: every case that Numba compiles, and not a third
ALL = os.environ.get("FASTADAM_TEST_ALL") == "1"


def some(cases: Sequence[Any]) -> Sequence[Any]:
    """Every third of these: each takes seconds to compile. Or all."""
    return cases if ALL else cases[::3]


class Averaging(fastadam.Optimizer):
    """The rule of `fastadam.Average` as an optimizer: what is given as gradients is averaged in the parameters."""

    lr: float = inside.options.option(default=0.0, check=inside.options.rate_or_schedule)
    decay, first = fastadam.Average.decay, fastadam.Average.first
    rules = ("average",)

    @classmethod
    def hyper_values(cls, rule, values, rate):
        decay = values["decay"]
        return super().hyper_values(rule, {**values, "decay": (decay or 0.0, decay is None)}, rate)


#: the rule's name -> the optimizer and the options that choose it
BY_RULE = {
    "adam": (fastadam.Adam, {}),
    "amsgrad": (fastadam.Adam, {"amsgrad": True}),
    "adamax": (fastadam.Adamax, {}),
    "adagrad": (fastadam.Adagrad, {"initial_accumulator_value": 0.1}),
    "rmsprop": (fastadam.RMSprop, {}),
    "rmsprop_momentum": (fastadam.RMSprop, {"momentum": 0.9}),
    "rmsprop_centered": (fastadam.RMSprop, {"centered": True}),
    "rmsprop_centered_momentum": (fastadam.RMSprop, {"centered": True, "momentum": 0.9}),
    "adadelta": (fastadam.Adadelta, {}),
    "sgd": (fastadam.SGD, {}),
    "sgd_momentum": (fastadam.SGD, {"momentum": 0.9, "dampening": 0.1}),
    "sgd_nesterov": (fastadam.SGD, {"momentum": 0.9, "nesterov": True}),
    "nadam": (fastadam.NAdam, {}),
    "radam": (fastadam.RAdam, {}),
    "asgd": (fastadam.ASGD, {"t0": 3}),
    "rprop": (fastadam.Rprop, {}),
    "lion": (fastadam.Lion, {}),
    "ademamix": (fastadam.AdEMAMix, {"alpha_warmup": 4, "beta3_warmup": 5}),
    "adopt": (fastadam.ADOPT, {}),
    "schedule_free": (fastadam.ScheduleFreeAdamW, {"warmup_steps": 3, "weight_decay": 0.1}),
    "average": (Averaging, {}),
}

#: options that take another way through a formula
VARIANTS = {
    "adamw": (fastadam.AdamW, {"weight_decay": 0.1}),
    "adam-l2-maximize": (fastadam.Adam, {"weight_decay": 0.1, "maximize": True}),
    "adam-article": (fastadam.Adam, {"eps_hat": True, "beta_decay": 0.999, "alpha_decay": True}),
    "adam-beta0": (fastadam.Adam, {"betas": (0.0, 0.0)}),
    "adamax-eps0": (fastadam.Adamax, {"eps": 0}),
    "adagrad-decay": (fastadam.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.01}),
    "rmsprop-in-sqrt": (fastadam.RMSprop, {"eps_in_sqrt": True, "centered": True}),
    "adadelta-maximize": (fastadam.Adadelta, {"maximize": True, "weight_decay": 0.01}),
    "sgd-bounds": (fastadam.SGD, {"bounds": (-0.5, 1.0)}),
    "nadam-decoupled": (fastadam.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1}),
    "radam-decoupled": (fastadam.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True, "betas": (0.5, 0.9)}),
    "lion-decay": (fastadam.Lion, {"weight_decay": 0.1, "maximize": True}),
    "adopt-unclipped": (fastadam.ADOPT, {"use_clipping": False, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "schedule_free-r": (fastadam.ScheduleFreeAdamW, {"warmup_steps": 3, "r": 0.5, "bounds": (None, 1.0)}),
    "schedule": (fastadam.Adam, {"lr": lambda t: 0.1 / (1 + t)}),
}

CASES = BY_RULE | VARIANTS
DTYPES = ("float32", "float64")
#: sizes around the widths of vectors and chunks, and one that is shared among threads
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129, 1023, 1025, 10_007, 33_001)


def make(case: str, params, **more):
    """The case's optimizer over `params`."""
    cls, options = CASES[case]
    return cls(params, **options, **more)


def arrays_of(opt) -> list[np.ndarray]:
    """Everything a step may change."""
    return [*inside.planned(opt), *(array for arrays in opt.state.values() for array in arrays if array is not None)]


def stepped_alone(steps: int) -> fastadam.Adam:
    """Adam after so many steps of one element from 0 under gradients of 1: what many threads must have made of each."""
    opt = fastadam.Adam(np.zeros(1))
    for _ in range(steps):
        opt.step(np.ones(1))
    return opt


def bits(array) -> bytes:
    """What an array holds, in C order; NaNs count as one value."""
    if array.dtype == np.uint8:  # codes
        return array.tobytes()
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array).tobytes()


def gradients(rng, n: int, steps: int, dtype: str, special: bool = True) -> list[np.ndarray]:
    """Random gradients over many scales, some elements always zero; `special` sprinkles in what floats can be."""
    scale = np.ldexp(1.0, rng.integers(-20, 11, n))  # powers of two: the same on every processor
    scale[::7] = 0
    grads = [(rng.standard_normal(n) * scale).astype(dtype) for _ in range(steps)]
    if special and n:
        tiny = np.finfo(dtype).smallest_subnormal
        values = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, tiny, -tiny, 1e-40, 1e30, np.finfo(dtype).max], dtype)
        for g in grads[1::3]:
            where = rng.integers(0, n, size=max(1, n // 50))
            g[where] = rng.choice(values, size=where.size)
    return grads


def norm_of(g: np.ndarray) -> float:
    """The 2-norm of a gradient, to the last bit; denormals count as zero."""
    flat = np.array(g, np.float32 if g.itemsize == 2 else g.dtype, order="C").reshape(-1)
    flat = flat.view(flat.real.dtype)
    values = np.where(np.abs(flat) < np.finfo(flat.dtype).smallest_normal, 0.0, flat).astype(float)
    if not np.isfinite(values).all():
        return math.nan if np.isnan(values).any() else math.inf
    exponent = math.frexp(np.abs(values).max(initial=0.0))[1]
    with np.errstate(over="ignore"):
        return float(np.ldexp(math.sqrt(math.fsum(np.ldexp(values, -exponent) ** 2)), exponent))


def torchs_factor(norm: float, max_norm: float) -> float:
    """What ``clip_grad_norm_`` of torch multiplies gradients of this norm by: NaN, if the norm is NaN."""
    return norm if math.isnan(norm) else min(1.0, max_norm / (norm + 1e-6))


def keras_factor(norm: float, max_norm: float) -> float:
    """The same for one gradient, of Keras's ``clipnorm``."""
    return 1.0 if norm <= max_norm else max_norm / norm


def factors(grads: Sequence[np.ndarray], norm: float | None, extras: dict[str, Any]) -> list[float]:
    """What a step that is given `extras` multiplies each gradient by; `norm` is that over all."""
    factor = 1.0 / extras.get("grad_scale", 1.0)
    if "max_norm" in extras:
        factor *= torchs_factor(norm, extras["max_norm"])
    most = extras.get("max_norm_each", math.inf)
    return [factor * keras_factor(factor * norm_of(g), most) if "max_norm_each" in extras else factor for g in grads]
