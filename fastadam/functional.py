"""The same steps as pure functions of arrays, for libraries that keep their own states.
There is one function for each rule. It updates the arrays in place, and keeps nothing between calls. Checks, defaults
and bits are those of the optimizer class.

The signature is ``rule(p, g, *states, t, *, …)``: parameters `p`, gradients `g`, the states in the rule's order, and
the number `t` of this step, from 1. `p`, `g` and each state are one array, or lists of arrays of equal length. The
gradient and the states of a parameter have its shape, and any memory layout. A state has the dtype of its parameter,
or float32 for float16 and bfloat16. A gradient may be anything that `Optimizer.step` takes. None in a list of gradients
leaves its parameter and its states as they are. States start at zero. All parameters of a list share t. A parameter
whose first gradient comes later needs a call of its own, with its own t, since some rules set their states at t = 1.
The options are those of the class, by name. `lr` is a number here. Options that choose the rule are not taken: call the
function of that rule. TypeError and ValueError are raised before anything is touched.

The array that is passed is stepped. ``E[rows]`` with a list or an array of rows is a *copy*, so its step would be lost,
and no function can see that. Write the copy back: ``part = E[rows]``, the step, ``E[rows] = part``. Do the same for the
states.

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
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from . import options
from .average import Average
from .kernel import checks, threads
from .kernel._stepper import Steppers
from .kernel._tiles import FEWEST_SHARED
from .names import offer
from .optimizers import CLASSES
from .rule import Rule
from .rules import RULES
from .stepped import Stepped


class Function:
    """The step of one rule, with the options of the class that uses the rule."""

    def __init__(self, name: str, kind: Any, rule: Rule) -> None:
        self.name, self.kind, self.rule = name, kind, rule
        self.places = ("p", "g", *rule.states, "t")
        self.taken = {n: o for n, o in kind.options.items() if o.init and set(o.hyper) <= set(rule.hyper)}
        self.values = {name: option.default for name, option in kind.options.items()}
        #: the options that choose the rule
        self.chosen = _choices(kind)[rule.name]
        self.defaults = self.hyper_of({})
        self.steppers = Steppers(rule, FEWEST_SHARED)

    def hyper_of(self, given: dict[str, Any]) -> tuple[float, ...]:
        """The rule's hyper-parameters, given some options."""
        for name in given:
            if name not in self.taken:
                raise TypeError(f"{name}: {self.name}() has no such option; {self.way(name, given)}")
        given = {name: self.taken[name].check(name, value) for name, value in given.items()}
        self.kind.check(self.values | self.chosen | given)
        values = self.values | given
        return self.kind.hyper_values(self.rule, values, options.rate("lr", values.get("lr", 0.0)))  # type: ignore[no-any-return]

    def way(self, name: str, given: dict[str, Any]) -> str:
        """The end of the message on an option that this function does not have: the option may choose another rule."""
        if name in self.kind.options and self.name == self.rule.name:
            value = self.kind.options[name].check(name, given[name])
            rule = self.kind.rule(self.values | self.chosen | {name: value})
            if rule is not self.rule:
                return f"call {rule.name}(), which takes the states {', '.join(rule.states)}"
        return offer(name, [*self.taken, "n_threads"])

    def read(self, arguments: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[float, ...], Any]:
        """The arrays with t, the hyper-parameters and `n_threads` of a call that has keyword arguments."""
        arguments += tuple(given.pop(place) for place in self.places[len(arguments) :] if place in given)
        n_threads = given.pop("n_threads", None)
        hyper = self.hyper_of(given) if given else self.defaults
        return arguments, hyper, n_threads

    def signature(self) -> inspect.Signature:
        """The signature of the function: the arrays, t, and the options by name."""
        keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        given = {name: option.default for name, option in self.taken.items()} | {"n_threads": None}
        places = [inspect.Parameter(place, either) for place in self.places]
        return inspect.Signature([*places, *(inspect.Parameter(n, keyword, default=d) for n, d in given.items())])

    def call(self, arguments: tuple[Any, ...], hyper: tuple[float, ...], n_threads: Any) -> None:
        """One step of arrays of any kind, or of lists of them."""
        if len(arguments) != len(self.places):
            raise TypeError(f"{self.name}() takes ({', '.join(self.places)}), got {len(arguments)} of them")
        t = options.count("t", arguments[-1], least=1)
        if arguments[1] is None:
            raise TypeError("g: expected a gradient, got None; in a list None leaves its parameter as it is")
        params, grads, *lists = self.lists(arguments[:-1])
        states = [list(own) for own in zip(*lists, strict=True)] if lists else [[] for _ in params]
        if n_threads is not None or sum(p.size for p in params if isinstance(p, np.ndarray)) >= FEWEST_SHARED:
            count = threads.resolve("n_threads", n_threads)
        else:
            count = 1
        try:
            self.steppers.step(params, grads, states, _names("p", len(params)), t, hyper, count)
        except (TypeError, ValueError):
            self.check(params, states)  # raises an error that names the argument
            raise

    def lists(self, given: Any) -> list[list[Any]]:
        """Each argument as a list of arrays."""
        lists = [list(value) if isinstance(value, (list, tuple)) else [value] for value in given]
        for place, arrays in zip(self.places, lists, strict=False):
            if len(arrays) != len(lists[0]):
                raise ValueError(
                    f"{place}: expected {checks.counted(len(lists[0]), 'array')}, as many as p, got {len(arrays)}"
                )
        if not lists[0]:
            raise ValueError("p: expected at least one array, got an empty list")
        return lists

    def check(self, params: list[Any], states: list[list[Any]]) -> None:
        """Refuse arrays that do not belong together, by the names of their arguments."""
        named: list[tuple[str, Any, Any]] = []
        for place, arrays in zip(("p", *self.rule.states), (params, *zip(*states, strict=True)), strict=True):
            named += zip(_names(place, len(params)), arrays, params, strict=True)
        checks.parameters([name for name, _, _ in named], [array for _, array, _ in named])
        for name, array, p in named[len(params) :]:
            checks.like(name, array, p, checks.computed_in(p))


def _choices(kind: Any) -> dict[str, dict[str, Any]]:
    """Name of a rule of this class -> the fewest options that choose it."""
    defaults = {name: option.default for name, option in kind.options.items()}
    every = [defaults, *({**defaults, name: True} for name in defaults)]
    deciding = [name for name in defaults if any(kind.rule({**own, name: True}) is not kind.rule(own) for own in every)]
    chosen = [dict.fromkeys(some, True) for k in range(len(deciding) + 1) for some in combinations(deciding, k)]
    return {kind.rule(defaults | own).name: own for own in reversed(chosen)}


def _names(place: str, count: int) -> list[str]:
    return [place] if count == 1 else [f"{place}[{k}]" for k in range(count)]


def _step(made: Function) -> Callable[..., None]:
    """The public function."""
    step_quickly, defaults = made.steppers.step_quickly, made.defaults

    def step(*arguments: Any, **given: Any) -> None:
        hyper, n_threads = defaults, None
        if given:
            arguments, hyper, n_threads = made.read(arguments, given)
        try:
            is_done = n_threads is None and step_quickly(arguments, hyper)
        except (TypeError, ValueError):  # nothing has changed; `call` raises it again, with the name of the argument
            is_done = False
        if not is_done:
            made.call(arguments, hyper, n_threads)

    step.__signature__ = made.signature()  # type: ignore[attr-defined]
    step.__name__ = step.__qualname__ = made.name
    of_class = f"`fastadam.{made.kind.__name__}`, its rule {made.rule.name!r}"
    step.__doc__ = f"One step of {of_class}, in place; see `fastadam.functional`."
    return step


def _functions() -> dict[str, Function]:
    """A function for each rule, with its name. A class without a rule of its own has a function of the class's name."""
    found: dict[str, Function] = {}
    kinds: tuple[type[Stepped], ...] = (*CLASSES.values(), Average)
    for kind in kinds:
        own = {name: RULES[name] for name in kind.rules if "rules" in vars(kind)}
        for name, rule in (own or {kind.__name__.lower(): RULES[kind.rules[0]]}).items():
            found[name] = Function(name, kind, rule)
    return found


#: the `Function` of every public function, by its name
MADE = _functions()
#: every function by its name; each is a name of this module, too
FUNCTIONS = {name: _step(made) for name, made in MADE.items()}
globals().update(FUNCTIONS)
__all__ = [*FUNCTIONS]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., None]: ...
