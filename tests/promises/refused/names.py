"""Unknown names of attributes, options and arguments: the error suggests a known name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import fastadam
from fastadam import functional, schedules

from . import worlds
from .case import Case, of_rows
from .worlds import fresh, own_rule, running

#: the attribute of an Adam, and how its error goes on
ADAM: dict[str, str] = {
    **dict.fromkeys(
        ("learning_rate", "learningRate", "step_size", "alpha", "eta", "lrr", "schedule", "scheduler", "lr_decay"),
        "did you mean lr?",
    ),
    **dict.fromkeys(("beta1", "beta_2", "b1", "momentum", "beta"), "did you mean betas?"),
    **dict.fromkeys(("epsilon", "Eps"), "did you mean eps?"),
    **dict.fromkeys(("decay", "wd", "weigth_decay"), "did you mean weight_decay?"),
    "num_threads": "did you mean n_threads?",
    "iterations": "did you mean t?",
    "options": "a subclass declares its own in its body, as `options = None`; it has params, lr, betas,",
    "nesterov": "a subclass declares its own in its body, as `nesterov = None`; it has params, lr, betas,",
}
#: the same of a group
GROUP = {"lr": "lr", "learning_rate": "lr", "epsilon": "eps", "weight_decay": "weight_decay", "nesterov": "lr"}
rate = schedules.cosine(0.1, 10)


def setting(name: str, of: Callable[[Any], Any] = lambda w: w.opt) -> Callable[[Any], Any]:
    """Sets an attribute of what `of` makes of the world."""
    return lambda w: setattr(of(w), name, 0.5)


def reading(name: str, of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda w: getattr(of(w), name)


def first_group(w: Any) -> Any:
    return w.opt.param_groups[0]


def groups(w: Any) -> Any:
    return w.opt.param_groups


UNLIKE = "groups have no such attribute; write opt.param_groups[0]['lr'] = …, or opt.add_param_group(…)"
FIXED = "a schedule is immutable; read .arguments["
ATTRIBUTES: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    *((f"Adam.{name}", setting(name), AttributeError, f"{name}: Adam has no such attribute; {text}")
      for name, text in ADAM.items()),
    *((f"group.{name} {act.__name__}", act(name, first_group), AttributeError,
       f"{name}: a group has its options under keys; write group['{key}']")
      for name, key in GROUP.items() for act in (setting, reading)),
    ("groups.lr", setting("lr", groups), AttributeError, f"lr: {UNLIKE}"),
    ("groups.append", reading("append", groups), AttributeError, f"append: {UNLIKE}"),
    *((f"rate.{name} {act.__name__}", act(name, lambda w: rate), AttributeError,
       f"{name}: {FIXED}'{own}'], or make another: cosine({own}=…, …)")
      for name, own in (("lr", "lr"), ("learning_rate", "lr"), ("T_max", "steps"), ("eta_min", "final"))
      for act in (setting, reading)),
    ("rate.values", setting("values", lambda w: rate), AttributeError, f"values: {FIXED}"),
    ("key of a group", lambda w: first_group(w).update(learning_rate=1), ValueError,
     "learning_rate: unknown option; did you mean lr?"),
    ("construction", lambda w: fastadam.Adam(w.params, learning_rate=1), TypeError,
     "learning_rate: unknown option of Adam; did you mean lr?"),
    ("construction of RMSprop", lambda w: fastadam.RMSprop(w.params, rho=0.9), TypeError,
     "rho: unknown option of RMSprop; did you mean alpha?"),
    ("argument of a schedule", lambda w: schedules.cosine(0.1, T_max=5), TypeError,
     "T_max: unknown argument of cosine(); did you mean steps?"),
    ("argument of a stair", lambda w: schedules.step(0.1, step_size=5), TypeError,
     "step_size: unknown argument of step(); did you mean every?"),
    ("argument in JSON", lambda w: schedules.from_json({"schedule": "step", "lr": 1, "gamma": 1}), ValueError,
     "schedule: step has no argument 'gamma'; did you mean factor?"),
    ("factor below zero", lambda w: rate * -1, ValueError, "factor: expected a number >= 0 and finite, got -1"),
    ("factor True", lambda w: True * rate, TypeError, "factor: expected a number >= 0 and finite, got True"),
    ("factor text", lambda w: rate / "2", TypeError, "unsupported operand type(s) for /"),
    ("divisor 0", lambda w: rate / 0, ZeroDivisionError, "…division by zero"),
]  # fmt: skip

#: of the article's class, whose names are others
ARTICLE = {"lr": "alpha", "learning_rate": "alpha", "betas": "beta1", "b2": "beta2", "eps": "epsilon"}

NO = "() has no such option; call "
#: a function of a class whose options choose among several: what is given, and the function that it chooses
OTHERS: list[tuple[str, dict[str, Any], str]] = [
    ("rmsprop", {"momentum": 0.9}, "rmsprop_momentum(), which takes the states v, b"),
    ("rmsprop", {"centered": True}, "rmsprop_centered(), which takes the states v, m"),
    ("rmsprop_centered", {"momentum": 0.9}, "rmsprop_centered_momentum(), which takes the states v, m, b"),
    ("rmsprop_momentum", {"centered": True}, "rmsprop_centered_momentum(), which takes the states v, m, b"),
    ("adam", {"amsgrad": True}, "amsgrad(), which takes the states m, v, v_max"),
]

CASES = [
    *of_rows("names", running, ATTRIBUTES),
    *(
        Case(f"article's {name}", worlds.article, setting(name), AttributeError,
             f"{name}: Adam has no such attribute; did you mean {own}?")
        for name, own in ARTICLE.items()
    ),
    Case("own rule's learning_rate", partial(own_rule, scalars=lambda lr: (lr,)), setting("learning_rate"),
         AttributeError, "learning_rate: heavy has no such attribute; did you mean lr?"),
    *(
        Case(f"{name} {given}", fresh, partial(lambda w, call, given: call(w.p, w.g, **given), given=given,
             call=getattr(functional, name)), TypeError, f"{next(iter(given))}: {name}{NO}{text}")
        for name, given, text in OTHERS
    ),
]  # fmt: skip
