"""What a name that is not known may have meant: one table of what other libraries call the same, and the nearest word.
`Strict` objects have the attributes that their class declares: to set another is an error that tells what was meant.
"""

import inspect
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .rule import annotations_of, signature_of

#: names of one thing in each row; where one of them is not known, the first of its row that is was meant
SAME = [
    row.split()
    for row in (
        "every step_size decay_steps transition_steps",
        "steps T_max total_steps num_steps n_steps total_iters decay_steps transition_steps",
        "final end eta_min min_lr end_value",
        "start init_value start_factor",
        "factor gamma decay_rate",
        "warmup pct_start",
        "lr learn_rate alpha learning_rate learning_rate_init eta eta0 step_size rate lr_decay max_lr base_lr "
        "peak_value schedule scheduler lr_schedule lr_scheduler",
        "betas beta1 beta_1 b1 beta momentum",
        "rho beta2 alpha betas beta_2 b2 smoothing_constant",
        "eps epsilon",
        "weight_decay L2 decay l2 wd weight_decay_rate",
        "max_norm global_clipnorm max_grad_norm",
        "max_norm_each clipnorm grad_clip",
        "clip_value clip",
        "grad_scale loss_scale scale",
        "n_threads num_threads threads n_jobs",
        "params parameters weights",
        "param_groups groups",
        "t timestep iterations step_count",
    )
]


def meant(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names this one may have meant, if any."""
    import difflib  # here, since it is needed for errors alone

    known = list(known)
    called = {_plain(word): word for word in reversed(known)}
    for row in SAME:
        right = next((word for word in row if word in known), "")
        for word in row if right else ():
            called.setdefault(_plain(word), right)
    if any(_plain(name) == _plain(word) for row in SAME for word in row):  # not another word that is misspelt
        return called.get(_plain(name))
    near = difflib.get_close_matches(_plain(name), called, 1, 0.75)
    return called[near[0]] if near else None


def offer(name: str, known: Iterable[str], has: str = "it has") -> str:
    """How the message about an unknown name ends: with what was meant, or with all that there is."""
    known = list(known)
    guess = meant(name, known)
    return f"{has} {', '.join(known)}" if guess is None else f"did you mean {guess}?"


def refuse_unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise a TypeError for the first of the given names that is not known; `what` says of what it might be one."""
    for name in given:
        if name not in known:
            raise TypeError(f"{name}: unknown {what}; {offer(name, known)}")


def refuse_arguments(unknown: Iterable[str], function: Callable[..., Any]) -> None:
    """The same for what a function was given and collects, so that the error tells what was meant."""
    own = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    refuse_unknown(unknown, own, f"argument of {function.__name__}()")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def modules(package: str, *loaded_late: str) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package, some modules of which are imported when they are asked for."""

    def load(name: str) -> ModuleType:
        if name not in loaded_late:
            known = [*vars(sys.modules[package]).get("__all__", ()), *loaded_late]
            raise AttributeError(f"module {package!r} has no attribute {name!r}; {offer(name, known)}", name=name)
        return import_module(f"{package}.{name}")

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *loaded_late})

    return load, listed


class Strict:
    """An object whose attributes its class declares; setting any other raises an AttributeError.

    A class declares what its body names, by a value, an annotation or a slot, and the arguments of its constructor; so
    does a subclass. A name that begins with an underscore may be set without. What belongs to the class, a class method
    or a ClassVar, is not set on an object.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # to a type checker it would say that any attribute may be set

        def __setattr__(self, name: str, value: Any) -> None:
            if not _declares(type(self), name):
                has = f"a subclass declares its own in its body, as `{name} = None`; it has"
                raise AttributeError(f"{name}: {self._no_such(name, has)}", name=name, obj=self)
            super().__setattr__(name, value)

    def _attributes(self) -> dict[str, Any]:
        """All that was set on the object, by name, in slots too."""
        found: Any = object.__getstate__(self)
        plain, of_slots = found if isinstance(found, tuple) else (found, {})
        return {**(plain or {}), **of_slots}

    def _no_such(self, name: str, has: str) -> str:
        """What the error says about an attribute that there is not; `has` leads to those that there are."""
        kind = type(self)
        hints = (hint for base in kind.__mro__ for hint in annotations_of(base))
        known = dict.fromkeys([*signature_of(kind).parameters, *hints, *dir(kind)])
        public = (word for word in known if not word.startswith("_") and _declares(kind, word))
        return f"{kind.__name__} has no such attribute; {offer(name, public, has)}"


class Telling(Strict):
    """The same, where reading an unknown attribute also tells what was meant. It makes each reading slower, those of a
    step by a third: an optimizer leaves it to Python's own error."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # Python asks for such names, also of an object that is not made yet
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)
            raise AttributeError(f"{name}: {self._no_such(name, 'it has')}", name=name, obj=self)


def _declares(kind: type, name: str) -> bool:
    """Whether objects of this class may be given an attribute of that name."""
    if name.startswith("_"):
        return True
    values = [vars(base)[name] for base in kind.__mro__ if name in vars(base)]
    if values and hasattr(values[0], "__set__"):
        return True
    hints = [str(found[name]) for base in kind.__mro__ if name in (found := annotations_of(base))]
    of_class = any(isinstance(value, (classmethod, FunctionType)) for value in values)
    if of_class or any("ClassVar" in hint for hint in hints):
        return False
    return bool(values or hints) or name in signature_of(kind).parameters
