"""The same steps without a class, for libraries that keep their own states: arrays in, updated in place, nothing kept.
A function for each rule, of the same checks, defaults and bits as the optimizer's.

Each is called as ``rule(p, g, *states, t, *, …)``: parameters `p`, gradients `g`, the rule's states in its order, and
the number `t` of this step, from 1. Arrays, or lists of arrays of one length; all that belongs to one parameter has its
shape and its dtype, float32 or float64, in any memory layout; beside float16 and bfloat16 parameters, states are
float32. States begin at zero. The options, given by name, are
those of the class; `lr` is a number here, and the rule is chosen by the function. Errors are raised before anything is
touched.

Examples
--------
>>> import numpy as np
>>> from fastadam import functional
>>> p, g, m, v = np.ones(3), np.array([1.0, -2.0, 0.0]), np.zeros(3), np.zeros(3)
>>> functional.adam(p, g, m, v, 1, lr=0.1)
>>> p.round(6)
array([0.9, 1.1, 1. ])
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from . import options
from .base import How, Optimizer
from .kernel import backends, checks, threads
from .kernel._plan import Plan
from .optimizers import Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop
from .rules import RULES

#: options of the classes that choose the rule or live in a class alone
_NOT_HERE = {"params", "amsgrad", "alpha_decay", "initial_accumulator_value", "centered"}
_NOT_HERE |= How.__annotations__.keys() - {"n_threads"}


def _step(name: str, cls: type[Optimizer], rule_name: str) -> Callable[..., None]:
    rule = RULES[rule_name]
    taken = {n: p for n, p in inspect.signature(cls).parameters.items() if n not in _NOT_HERE}
    if "momentum" not in rule.hyper:
        taken.pop("momentum", None)
    defaults = {n: p.default for n, p in taken.items()}
    fixed = {"decoupled_weight_decay": True} if cls is AdamW else {}
    places = ("p", "g", *rule.states, "t")

    def step(*arguments: Any, **given: Any) -> None:
        arguments += tuple(given.pop(place) for place in places[len(arguments) :] if place in given)
        for option in given.keys() - defaults.keys():
            raise TypeError(f"{option}: {name}() has no such option; it has {', '.join(defaults)}")
        if len(arguments) != len(places):
            raise TypeError(f"{name}() takes ({', '.join(places)}), got {len(arguments)} of them")
        *arrays, t = arguments
        n_threads = threads.resolve(given.pop("n_threads", None))
        values = defaults | {option: options.check(option, value) for option, value in given.items()} | fixed
        rate = options.rate("lr", values["lr"])
        lists = _lists(places, arrays)
        t = options.count("t", t, least=1)
        states = [list(states) for states in zip(*lists[2:], strict=True)]
        plan = Plan([(backends.kernel(rule), lists[0], states)], _names("p", lists[0]), int(t) - 1, n_threads)
        plan.set_hyper(0, cls.hyper_values(rule, values, rate))
        plan.step(lists[1])

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(place, inspect.Parameter.POSITIONAL_OR_KEYWORD) for place in places]
    parameters += [inspect.Parameter(n, keyword, default=default) for n, default in defaults.items()]
    step.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    step.__name__ = step.__qualname__ = name
    step.__doc__ = (
        f"One step of `fastadam.{cls.__name__}`, its rule {rule_name!r}, in place; see `fastadam.functional`."
    )
    return step


def _names(place: str, arrays: list[np.ndarray]) -> list[str]:
    return [place] if len(arrays) == 1 else [f"{place}[{k}]" for k in range(len(arrays))]


def _lists(places: tuple[str, ...], given: list[Any]) -> list[list[np.ndarray]]:
    """Each argument as a list of arrays that may be stepped together; `g` is left to the plan."""
    lists = [list(value) if isinstance(value, (list, tuple)) else [value] for value in given]
    for place, arrays in zip(places, lists, strict=False):
        if len(arrays) != len(lists[0]):
            raise ValueError(f"{place}: expected {len(lists[0])} arrays, as many as p, got {len(arrays)}")
    if not lists[0]:
        raise ValueError("p: expected at least one array, got an empty list")
    written = [(place, arrays) for place, arrays in zip(places, lists, strict=False) if place != "g"]
    names = [name for place, arrays in written for name in _names(place, arrays)]
    checks.parameters(names, [array for _, arrays in written for array in arrays])
    for place, arrays in written[1:]:
        for name, array, p in zip(_names(place, arrays), arrays, lists[0], strict=True):
            checks.like(name, array, p, checks.computed_in(p))
    return lists


adam = _step("adam", Adam, "adam")
adamw = _step("adamw", AdamW, "adam")
amsgrad = _step("amsgrad", Adam, "amsgrad")
adamax = _step("adamax", Adamax, "adamax")
adagrad = _step("adagrad", Adagrad, "adagrad")
rmsprop = _step("rmsprop", RMSprop, "rmsprop")
rmsprop_momentum = _step("rmsprop_momentum", RMSprop, "rmsprop_momentum")
rmsprop_centered = _step("rmsprop_centered", RMSprop, "rmsprop_centered")
rmsprop_centered_momentum = _step("rmsprop_centered_momentum", RMSprop, "rmsprop_centered_momentum")
adadelta = _step("adadelta", Adadelta, "adadelta")
