"""Groups that are added, options and rates of groups, schedules: invalid values, and values fixed at construction."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import inf, nan, ones
from numpy.ma import masked

import fastadam
from fastadam import schedules

from .case import ALL, ARRAY, DTYPE, RATE, Case, good_rate, zero_division
from .worlds import as_groups, running

COUNT = "a whole number >= 0 and < 2**62"


def following(folder: Path) -> Any:
    """An optimizer whose rate follows the loss, and has heard one."""
    w = running(folder, lr=schedules.plateau(0.1))
    w.opt.lr.report(1.0)
    return w


ADDED: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("list", lambda w: [ones(2)], TypeError, "params[1]: expected a group as a dict with the key 'params', got list"),
    ("None", lambda w: None, TypeError, "params[1]: expected a group as a dict with the key 'params', got NoneType"),
    ("no params", lambda w: {"lr": 0.1}, ValueError, "params[1]: expected a group with the key 'params', got the keys"),
    ("name of 3", lambda w: {"params": ones(2), "name": 3}, TypeError, "params[1]['name']: expected text or None, got"),
    ("name as number", lambda w: {"params": ones(2), "name": "3"}, ValueError,
     "params[1]['name']: expected text that is not a number, got '3'"),
    ("name of nothing", lambda w: {"params": ones(2), "name": ""}, ValueError,
     "params[1]['name']: expected text that is not a number, got ''"),
    ("integers", lambda w: {"params": ones(2, int)}, TypeError, f"params[1]['params']: {DTYPE}int64"),
    ("unknown", lambda w: {"params": ones(2), "rate": 1}, ValueError,
     "params[1]['rate']: unknown option; did you mean lr?"),
    ("own", lambda w: {"params": w.params[1][:2]}, ValueError, "params[1] and params[1]['params'] share memory"),
    ("state", lambda w: {"params": w.opt.state["m"][1]}, ValueError, "…a state of params[1]…share memory"),
    ("frozen", lambda w: {"params": np.broadcast_to(1.0, 3)}, ValueError, "params[1]['params']: the array is read-on"),
    ("gradients", lambda w: {"params": ones(2), "grads": ones(2)}, ValueError,
     "params[1]['grads']: this optimizer has no bound gradients; pass them to step()"),
    ("second array", lambda w: {"params": {"a": ones(2), "b": None}}, TypeError,
     f"params[1]['params']['b']: {ARRAY}NoneType"),
]  # fmt: skip


def set_lr(*rates: Any) -> Callable[[Any], Any]:
    """A step for which the groups have these rates; then they have their own again."""

    def call(w: Any) -> None:
        before = [group["lr"] for group in w.opt.param_groups]
        for group, rate in zip(w.opt.param_groups, rates, strict=True):
            group["lr"] = rate
        try:
            w.opt.step(as_groups(w.good), **ALL)
        finally:
            for group, rate in zip(w.opt.param_groups, before, strict=True):
                group["lr"] = rate

    return call


in_groups = partial(running, shape=as_groups)
GROUPS = [
    *(
        Case(f"rate of the second of three groups: {name}", in_groups, set_lr(good_rate, rate, 0.5), error, text)
        for name, rate, error, text in (
            ("below zero", lambda t: -1.0, ValueError, f"lr(3): expected {RATE}, got -1.0"),
            ("NaN", lambda t: nan, ValueError, f"lr(3): expected {RATE}, got nan"),
            ("infinite", lambda t: inf, ValueError, f"lr(3): expected {RATE}, got inf"),
            ("None", lambda t: None, TypeError, f"lr(3): expected {RATE}, got None of type NoneType"),
            ("an array", lambda t: ones(2), TypeError, f"lr(3): expected {RATE}, got an array of shape (2,)"),
            ("a text", lambda t: "0.1", TypeError, f"lr(3): expected {RATE}, got '0.1' of type str"),
            ("a schedule", lambda t: good_rate, TypeError, f"lr(3): expected {RATE}, got cosine(lr=0.5, steps=10"),
            ("that fails", zero_division, ZeroDivisionError, "division by zero"),
            ("too large", schedules.exponential(1e300, 1e10), ValueError,
             "exponential(lr=1e+300, factor=10000000000.0)"),
        )
    ),
    Case("option that needs other states", running, lambda w: setattr(w.opt, "amsgrad", True), ValueError,
     "amsgrad: True needs other states; choose it at construction"),
    Case("momentum that ends", partial(running, cls=fastadam.RMSprop, momentum=0.5),
     lambda w: setattr(w.opt, "momentum", 0.0), ValueError,
     "momentum: 0.0 needs other states; choose it at construction"),
    Case("accumulators that have begun", partial(running, cls=fastadam.Adagrad),
     lambda w: setattr(w.opt, "initial_accumulator_value", 0.5), ValueError,
     "initial_accumulator_value: 0.5 needs other states; choose it at construction"),
    Case("first steps that are made", partial(running, cls=fastadam.Rprop), lambda w: setattr(w.opt, "lr", 0.5),
     ValueError, "lr: 0.5 needs other states; choose it at construction"),
    Case("momentum that begins", partial(running, cls=fastadam.SGD), lambda w: setattr(w.opt, "momentum", 0.5),
     ValueError, "momentum: 0.5 needs other states; choose it at construction"),
    Case("momentum without", partial(running, cls=fastadam.SGD, momentum=0.5, nesterov=True),
     lambda w: setattr(w.opt, "momentum", 0.0), ValueError,
     "momentum: 0.0 needs other states; choose it at construction"),
    Case("nesterov that begins", partial(running, cls=fastadam.SGD, momentum=0.5),
     lambda w: setattr(w.opt, "nesterov", True), ValueError,
     "nesterov: True needs other states; choose it at construction"),
    *(
        Case(f"nesterov: {name}", partial(running, cls=fastadam.SGD, momentum=0.5, nesterov=True), call, ValueError,
             f"nesterov: needs a momentum above 0 and a dampening of 0, got momentum={momentum}, dampening={dampening}")
        for name, call, momentum, dampening in (
            ("dampened", lambda w: setattr(w.opt, "dampening", 0.25), 0.5, 0.25),
            ("dampened in a group", lambda w: w.opt.param_groups[0].update(dampening=0.25), 0.5, 0.25),
            ("added with dampening", lambda w: w.opt.add_param_group({"params": ones(2), "dampening": 1}), 0.5, 1.0),
            ("added without momentum", lambda w: w.opt.add_param_group({"params": ones(2), "momentum": 0}), 0.0, 0.0),
        )
    ),
    Case("nesterov added to none", partial(running, cls=fastadam.SGD),
     lambda w: w.opt.add_param_group({"params": ones(2), "nesterov": True}), ValueError,
     "nesterov: needs a momentum above 0 and a dampening of 0, got momentum=0.0, dampening=0.0"),
    Case("parameters of a group", running, lambda w: w.opt.param_groups[0].update(params=[ones(2)]), ValueError,
     "params: unknown option; a group has lr, betas"),
    Case("option taken out", running, lambda w: w.opt.param_groups[0].pop("lr"), TypeError,
     "lr: an option of a group cannot be deleted"),
    Case("all taken out", running, lambda w: w.opt.param_groups[0].clear(), TypeError,
     "params: an option of a group cannot be deleted"),
    Case("count of steps", running, lambda w: setattr(w.opt, "t", 0), AttributeError,
     "property 't' of 'Adam' object has"),
    Case("shallow copy", running, lambda w: copy.copy(w.opt), TypeError,
     "a shallow copy would step the same arrays with"),
    Case("schedule of no steps", running, lambda w: setattr(w.opt, "lr", schedules.cosine(0.1, 0)), ValueError,
     "steps: expected a whole number >= 1, got 0"),
    Case("schedule of half a step", running, lambda w: setattr(w.opt, "lr", schedules.step(0.1, 2.5)), TypeError,
     "every: expected a whole number >= 1, got 2.5 of type float"),
    Case("schedule of a text", running, lambda w: setattr(w.opt, "lr", schedules.linear("0.1", 0, 5)), TypeError,
     f"start: expected {RATE}, got '0.1' of type str"),
    Case("schedules in disorder", running, lambda w: setattr(w.opt, "lr", schedules.join([good_rate] * 3, [5, 5])),
     ValueError, "boundaries: expected whole numbers, each larger than the one before, got [5, 5]"),
    *(
        Case(f"plateau of {argument} {value!r}", running,
             partial(lambda w, own: setattr(w.opt, "lr", schedules.plateau(0.1, **own)), own={argument: value}), error,
             f"{argument}: expected {allowed}, got {value!r}")
        for argument, value, error, allowed in (
            ("mode", "mean", ValueError, "'min' or 'max'"), ("mode", None, TypeError, "'min' or 'max'"),
            ("factor", 1.0, ValueError, "a number >= 0 and < 1"), ("factor", -0.1, ValueError, "a number >= 0 and < 1"),
            ("patience", -1, ValueError, f"{COUNT}"), ("patience", 0.5, TypeError, f"{COUNT}"),
            ("threshold", nan, ValueError, "a number that is finite"),
            ("threshold_mode", "relative", ValueError, "'rel' or 'abs'"), ("cooldown", "1", TypeError, f"{COUNT}"),
            ("min_lr", [0.1, 0.2], TypeError, RATE), ("min_lr", -1, ValueError, RATE), ("eps", inf, ValueError, RATE),
            ("state", "", TypeError, "a list"),
        )
    ),
    *(
        Case(f"loss {name}", following, lambda w, loss=loss: w.opt.lr.report(loss), error,
             f"loss: expected a number or NaN, got {got}")
        for name, loss, error, got in (
            ("None", None, TypeError, "None of type NoneType"), ("text", "0.1", TypeError, "'0.1' of type str"),
            ("flag", True, TypeError, "True of type bool"), ("complex", 1j, TypeError, "1j of type complex"),
            ("array", ones(1), TypeError, "an array of shape (1,)"), ("too large", 10**400, ValueError, "1000"),
            ("masked", masked, TypeError, "masked of type MaskedConstant"),
        )
    ),
    Case("report that nobody follows", partial(running, lr=good_rate * 0.5), lambda w: w.opt.lr.report(0.1), TypeError,
     "report: product(schedules=(cosine(lr=0.5, steps=10…)) depends on t alone, not on a loss; schedules.plateau fol"),
    Case("report as torch has it", following, lambda w: w.opt.lr.step(0.1), AttributeError,
     "step: it changes by .report(loss) alone; read .arguments['lr'], or make another: plateau(lr=…, …)"),
    Case("patience of a plateau", following, lambda w: setattr(w.opt.lr, "patience", 3), AttributeError,
     "patience: it changes by .report(loss) alone; read .arguments['patience'], or make another: plateau(patience="),
]  # fmt: skip

CASES = [
    *(
        Case(f"added {name}", running, partial(lambda w, give: w.opt.add_param_group(give(w)), give=give), error, text)
        for name, give, error, text in ADDED
    ),
    *GROUPS,
]
