"""Suggestions for unknown names: from a table of names in other libraries, or the most similar known name.
`Strict` objects accept only the attributes that their class declares. The error for any other makes a suggestion.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .rule import annotations_of, signature_of

#: each row has the names of one thing; for an unknown name, the first known name in its row is suggested
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
    """The known name that `name` probably stands for, or None."""
    import difflib  # imported here, since only errors need it

    known = list(known)
    called = {_plain(word): word for word in reversed(known)}
    for row in SAME:
        right = next((word for word in row if word in known), "")
        for word in row if right else ():
            called.setdefault(_plain(word), right)
    if any(_plain(name) == _plain(word) for row in SAME for word in row):  # a word of the table is not a misspelt word
        return called.get(_plain(name))
    near = difflib.get_close_matches(_plain(name), called, 1, 0.75)
    return called[near[0]] if near else None


def offer(name: str, known: Iterable[str], has: str = "it has") -> str:
    """The end of the message about an unknown name: a suggestion, or all known names."""
    known = list(known)
    guess = meant(name, known)
    return f"{has} {', '.join(known)}" if guess is None else f"did you mean {guess}?"


def refuse_unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise a TypeError for the first given name that is not known; `what` says what it is ("option of Adam")."""
    for name in given:
        if name not in known:
            raise TypeError(f"{name}: unknown {what}; {offer(name, known)}")


def refuse_arguments(unknown: Iterable[str], function: Callable[..., Any]) -> None:
    """The same for the unknown keyword arguments that `function` has collected."""
    own = [p.name for p in signature_of(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    refuse_unknown(unknown, own, f"argument of {function.__name__}()")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def modules(package: str, *loaded_late: str) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package that imports some of its modules on first access."""

    def load(name: str) -> ModuleType:
        if name not in loaded_late:
            known = [*vars(sys.modules[package]).get("__all__", ()), *loaded_late]
            raise AttributeError(f"module {package!r} has no attribute {name!r}; {offer(name, known)}", name=name)
        return import_module(f"{package}.{name}")

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *loaded_late})

    return load, listed


def attributes_of(thing: Any, *but: str) -> dict[str, Any]:
    """Name -> value of all attributes of an object, with those in slots. Some may be left out."""
    found: Any = object.__getstate__(thing)
    plain, of_slots = found if isinstance(found, tuple) else (found, {})
    return {name: value for name, value in {**(plain or {}), **of_slots}.items() if name not in but}


def give_attributes(thing: Any, attributes: Mapping[str, Any]) -> None:
    """Set these attributes, also those in slots."""
    for name, value in attributes.items():
        object.__setattr__(thing, name, value)


class Strict:
    """An object that accepts only the attributes that its class declares. Setting any other is an AttributeError.

    A class declares the names in its body (with a value, an annotation or a slot), and its constructor's arguments. A
    subclass may declare more. A name that begins with an underscore needs no declaration. Class methods and ClassVars
    cannot be set on an object.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker would take it to allow any attribute

        def __setattr__(self, name: str, value: Any) -> None:
            if not _declares(type(self), name):
                has = f"a subclass declares its own in its body, as `{name} = None`; it has"
                raise AttributeError(f"{name}: {self._no_such(name, has)}", name=name, obj=self)
            super().__setattr__(name, value)

    def _no_such(self, name: str, has: str) -> str:
        """The message about an unknown attribute. `has` introduces the list of known ones."""
        kind = type(self)
        hints = (hint for base in kind.__mro__ for hint in annotations_of(base))
        known = dict.fromkeys([*signature_of(kind).parameters, *hints, *dir(kind)])
        public = (word for word in known if not word.startswith("_") and _declares(kind, word))
        return f"{kind.__name__} has no such attribute; {offer(name, public, has)}"


class Telling(Strict):
    """The same, with a suggestion also when an unknown attribute is read. This makes every attribute slower to read,
    and a step a third slower. So optimizers do not use it: they raise Python's own error."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # Python itself looks such names up, also before `__init__`
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)
            raise AttributeError(f"{name}: {self._no_such(name, 'it has')}", name=name, obj=self)


def _declares(kind: type, name: str) -> bool:
    """Whether an attribute of that name can be set on objects of this class."""
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
