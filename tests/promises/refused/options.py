"""Invalid options: given at construction, assigned to the optimizer or to a group, or in a group that is added."""

from functools import partial
from typing import Any

import numpy as np
from numpy import inf, nan, ones, zeros

import fastadam
from fastadam import Adam, schedules

from .case import BELOW_ONE, END, FINITE, FLAG, RATE, UP_TO_ONE, Case
from .worlds import fresh, running

SCHEDULE, WHOLE = "a function of the step count t alone", "a whole number >= 0 and < 2**62"


class Odd:
    """What has no repr."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


#: option, a value that it cannot have, the error, what is allowed, and what came, where it is not the repr
OPTIONS: list[tuple[Any, str, Any, Any, str, str]] = [
    (Adam, "lr", -1e-3, ValueError, RATE, ""),
    (Adam, "lr", nan, ValueError, RATE, ""),
    (Adam, "lr", inf, ValueError, RATE, ""),
    (Adam, "lr", 10**400, ValueError, RATE, "1000"),
    (Adam, "lr", 10**5000, ValueError, RATE, "<int object"),
    (Adam, "lr", "0.1", TypeError, RATE, ""),
    (Adam, "lr", True, TypeError, RATE, ""),
    (Adam, "lr", None, TypeError, RATE, ""),
    (Adam, "lr", 1j, TypeError, RATE, ""),
    (Adam, "lr", ones(2), TypeError, RATE, "an array of shape (2,)"),
    (Adam, "lr", ones((2, 50)), TypeError, RATE, "an array of shape (2, 50)"),
    (Adam, "lr", np.ma.masked, TypeError, RATE, "masked of type MaskedConstant"),
    (Adam, "lr", np.array(1j), TypeError, RATE, "array(0.+1.j) of type ndarray"),
    (Adam, "lr", np.array(True), TypeError, RATE, "array(True) of type ndarray"),
    (Adam, "lr", np.array(-0.5), ValueError, RATE, "array(-0.5)"),
    (Adam, "lr", lambda: 0.1, TypeError, f"a number, or {SCHEDULE}", "<function…too many positional arguments"),
    (Adam, "lr", lambda t, k: 0.1, TypeError, f"a number, or {SCHEDULE}", "<function…missing a required argument: 'k'"),
    (Adam, "lr", schedules.cosine, TypeError, "a number or a schedule",
     "a function that makes one; call it: fastadam.schedules.cosine(lr=…, steps=…)"),
    (Adam, "lr", schedules.constant, TypeError, "a number or a schedule",
     "a function that makes one; call it: fastadam.schedules.constant(lr=…)"),
    (Adam, "lr", [0.1] * 10**5, TypeError, RATE, "[0.1, 0.1"),
    (Adam, "lr", Odd(), TypeError, RATE, "<refused.options.Odd object"),
    (Adam, "betas", (1.0, 0.9), ValueError, BELOW_ONE, "1.0"),
    (Adam, "betas", (0.9, -0.1), ValueError, BELOW_ONE, "-0.1"),
    (Adam, "betas", (0.9, nan), ValueError, BELOW_ONE, "nan"),
    (Adam, "betas", (0.9, None), TypeError, BELOW_ONE, "None"),
    (Adam, "betas", (0.9,), ValueError, "a pair of numbers", "1 of them"),
    (Adam, "betas", (0.9, 0.9, 0.9), ValueError, "a pair of numbers", "3 of them"),
    (Adam, "betas", np.array(0.9), TypeError, "a pair of numbers", "array(0.9) of type ndarray"),
    (Adam, "betas", ones((2, 1)), TypeError, BELOW_ONE, "an array of shape (1,)"),
    (Adam, "betas", 0.9, TypeError, "a pair of numbers", ""),
    (Adam, "betas", "ab", TypeError, "a pair of numbers", ""),
    (Adam, "betas", {0.9, 0.99}, TypeError, "a pair of numbers", ""),
    (Adam, "betas", {0.9: 0.99, 0.8: 0}, TypeError, "a pair of numbers", ""),
    (Adam, "eps", -1e-8, ValueError, RATE, ""),
    (Adam, "weight_decay", -0.1, ValueError, RATE, ""),
    (Adam, "weight_decay", lambda t: 0.1, TypeError, RATE, "<function"),
    (Adam, "amsgrad", 1, TypeError, FLAG, ""),
    (Adam, "amsgrad", np.array(1), TypeError, FLAG, "array(1) of type ndarray"),
    (Adam, "maximize", "no", TypeError, FLAG, ""),
    (Adam, "decoupled_weight_decay", None, TypeError, FLAG, ""),
    (Adam, "beta_decay", 1.5, ValueError, UP_TO_ONE, ""),
    (Adam, "alpha_decay", 0, TypeError, FLAG, ""),
    (Adam, "eps_hat", None, TypeError, FLAG, ""),
    (fastadam.AdamW, "weight_decay", inf, ValueError, RATE, ""),
    (fastadam.AdamW, "lr", -1, ValueError, RATE, ""),
    (fastadam.Adamax, "betas", (0.9, 1), ValueError, BELOW_ONE, "1"),
    (fastadam.Adamax, "eps", nan, ValueError, RATE, ""),
    (fastadam.Adagrad, "lr_decay", -1, ValueError, RATE, ""),
    (fastadam.Adagrad, "initial_accumulator_value", -1, ValueError, RATE, ""),
    (fastadam.RMSprop, "alpha", 1.5, ValueError, UP_TO_ONE, ""),
    (fastadam.RMSprop, "momentum", -0.5, ValueError, RATE, ""),
    (fastadam.RMSprop, "centered", "yes", TypeError, FLAG, ""),
    (fastadam.RMSprop, "eps_in_sqrt", 2, TypeError, FLAG, ""),
    (fastadam.Adadelta, "rho", -0.1, ValueError, UP_TO_ONE, ""),
    (fastadam.Adadelta, "rho", [], TypeError, UP_TO_ONE, ""),
    (Adam, "bounds", 1.0, TypeError, "a pair of numbers", ""),
    (Adam, "bounds", (1.0,), ValueError, "a pair of numbers", "1 of them"),
    (Adam, "bounds", (-1.0, 0.0, 1.0), ValueError, "a pair of numbers", "3 of them"),
    (Adam, "bounds", {-1.0, 1.0}, TypeError, "a pair of numbers", ""),
    (Adam, "bounds", (-1.0, nan), ValueError, END, "nan"),
    (Adam, "bounds", ("0", None), TypeError, END, "'0' of type str"),
    (Adam, "bounds", (False, True), TypeError, END, "False of type bool"),
    (Adam, "bounds", (zeros(2), ones(2)), TypeError, END, "an array of shape (2,)"),
    (Adam, "bounds", (1.0, -1.0), ValueError, "the smaller number first", ""),
    (fastadam.SGD, "lr", -0.1, ValueError, RATE, ""),
    (fastadam.SGD, "momentum", -0.1, ValueError, RATE, ""),
    (fastadam.SGD, "dampening", inf, ValueError, FINITE, ""),
    (fastadam.SGD, "dampening", nan, ValueError, FINITE, ""),
    (fastadam.SGD, "nesterov", 1, TypeError, FLAG, ""),
    (fastadam.NAdam, "momentum_decay", -1e-3, ValueError, RATE, ""),
    (fastadam.NAdam, "betas", (1.0, 0.9), ValueError, BELOW_ONE, "1.0"),
    (fastadam.NAdam, "decoupled_weight_decay", 0, TypeError, FLAG, ""),
    (fastadam.RAdam, "eps", -1.0, ValueError, RATE, ""),
    (fastadam.ASGD, "lambd", -1e-4, ValueError, RATE, ""),
    (fastadam.ASGD, "alpha", -0.5, ValueError, RATE, ""),
    (fastadam.ASGD, "t0", nan, ValueError, FINITE, ""),
    (fastadam.Rprop, "lr", schedules.constant(0.1), TypeError, RATE, "constant(lr=0.1)"),
    (fastadam.Rprop, "etas", (0.0, 1.2), ValueError, "a number > 0 and < 1", "0.0"),
    (fastadam.Rprop, "etas", (0.5, 1.0), ValueError, "a number > 1 and finite", "1.0"),
    (fastadam.Rprop, "etas", (0.5, inf), ValueError, "a number > 1 and finite", "inf"),
    (fastadam.Rprop, "etas", 0.5, TypeError, "a pair of numbers", ""),
    (fastadam.Rprop, "step_sizes", (0.0, 50.0), ValueError, "a number > 0 and finite", "0.0"),
    (fastadam.Rprop, "step_sizes", (1.0, inf), ValueError, "a number > 0 and finite", "inf"),
    (fastadam.Rprop, "step_sizes", (2.0, 1.0), ValueError, "the smaller number first", ""),
    (fastadam.Lion, "betas", (0.9, 1.0), ValueError, BELOW_ONE, "1.0"),
    (fastadam.Lion, "weight_decay", -1, ValueError, RATE, ""),
    (fastadam.AdEMAMix, "betas", (0.9, 0.999), ValueError, "three numbers", "2 of them"),
    (fastadam.AdEMAMix, "betas", (0.9, 0.999, 1.0), ValueError, BELOW_ONE, "1.0"),
    (fastadam.AdEMAMix, "alpha", -5.0, ValueError, RATE, ""),
    (fastadam.AdEMAMix, "alpha_warmup", inf, ValueError, RATE, ""),
    (fastadam.AdEMAMix, "beta3_warmup", -1, ValueError, RATE, ""),
    (fastadam.ADOPT, "use_clipping", None, TypeError, FLAG, ""),
    (fastadam.ADOPT, "decoupled_weight_decay", "no", TypeError, FLAG, ""),
    (fastadam.ADOPT, "eps", nan, ValueError, RATE, ""),
    (fastadam.ScheduleFreeAdamW, "lr", schedules.cosine(0.1, 10), TypeError, RATE, "cosine(lr=0.1"),
    (fastadam.ScheduleFreeAdamW, "lr", lambda t: 0.1, TypeError, RATE, "<function"),
    (fastadam.ScheduleFreeAdamW, "warmup_steps", 2.5, TypeError, WHOLE, "2.5"),
    (fastadam.ScheduleFreeAdamW, "warmup_steps", -1, ValueError, WHOLE, "-1"),
    (fastadam.ScheduleFreeAdamW, "r", 100, ValueError, "a number >= 0 and <= 10", ""),
    (fastadam.ScheduleFreeAdamW, "weight_lr_power", -2.0, ValueError, "a number >= 0 and <= 10", ""),
]  # fmt: skip


def assign_attribute(w: Any, name: str, value: Any) -> None:
    setattr(w.opt, name, value)


def assign_in_group(w: Any, name: str, value: Any) -> None:
    w.opt.param_groups[0][name] = value


def assign_many(w: Any, name: str, value: Any) -> None:
    own = {"bounds": (-1, 1), "maximize": True}
    w.opt.param_groups[0].update({**own, name: value})


def add_group(w: Any, name: str, value: Any) -> None:
    w.opt.add_param_group({"params": ones(2), "lr": 0.5, name: value})


def of_options() -> list[Case]:
    """Each at construction, and where it is assigned or in a group that is added."""
    made = []
    for k, (cls, name, value, error, allowed, came) in enumerate(OPTIONS):
        text = f"{name}…: expected {allowed}, got {came or repr(value)}"
        label = f"{cls.__name__} {name} {k}"
        construct = partial(lambda w, cls, given: cls([w.p, w.q], **given), cls=cls, given={name: value})
        made.append(Case(f"{label}", partial(fresh, cls=cls), construct, error, text))
        for way in (assign_attribute, assign_in_group, assign_many, add_group):
            labelled = text.replace(name, f"params[1]['{name}']", 1) if way is add_group else text
            call = partial(way, name=name, value=value)
            made.append(Case(f"{label} {way.__name__}", partial(running, cls=cls), call, error, labelled))
    return made


CASES = of_options()
