"""What a schedule is: a formula and its arguments, made by `schedule`, written as JSON and read again.
The formulas themselves, and the public names, are in `fastadam.schedules`.
"""

import inspect
import math
import reprlib
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from numbers import Real
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, cast

from . import options
from .kernel.checks import came, scalar, shown
from .names import Telling, meant, offer, refuse_unknown
from .rule import arguments

P = ParamSpec("P")

#: how deep compositions may nest: far below Python's own limit, so that no schedule is too deep to be used
DEEPEST = 32


class Schedule(Telling):
    """A formula and its arguments: a function of the step count, made by `cosine` and its relatives.

    Schedules are immutable; two are equal where formula and arguments are. They can be hashed, pickled and copied, and
    `repr` gives the call that makes them. ``rate * 0.5``, ``rate / 2`` and ``rate * other`` are products.

    Attributes
    ----------
    name : str
        The formula's name.
    arguments : dict
        Name of an argument -> value, defaults included.

    Examples
    --------
    >>> from fastadam.schedules import linear
    >>> rate = linear(1.0, 0.5, steps=2)
    >>> [rate(t) for t in (1, 2, 3, 4)]
    [1.0, 0.75, 0.5, 0.5]
    >>> rate
    linear(start=1.0, end=0.5, steps=2)
    """

    __slots__ = ("depth", "factory", "values")
    __array_ufunc__ = None  # so that NumPy's numbers leave a product with a schedule to it

    factory: "Factory[...]"
    values: tuple[Any, ...]
    depth: int  # of the nesting: 1, and 1 more than the deepest part

    def __init__(self, factory: "Factory[...]", values: tuple[Any, ...], depth: int) -> None:
        for name, value in (("factory", factory), ("values", values), ("depth", depth)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{name}: {self._no_such(name, '')}", name=name, obj=self)

    def _no_such(self, name: str, has: str) -> str:
        argument = name if name in self.arguments else meant(name, self.arguments) or next(iter(self.arguments))
        return f"a schedule is immutable; read .arguments[{argument!r}], or make another: {self.name}({argument}=…, …)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self.factory is other.factory and self.values == other.values

    def __hash__(self) -> int:
        return hash((self.factory, self.values))

    def __call__(self, t: int) -> float:
        """The rate of step `t` = 1, 2, …

        Raises
        ------
        TypeError, ValueError
            Where t is not a whole number >= 1 (NumPy's will do), or its rate is not finite and >= 0.
        """
        t = options.positive_count("t", t)
        try:
            rate = self.factory.formula(t, *self.values)
        except OverflowError:
            rate = math.inf
        if not (isinstance(rate, float) and 0 <= rate < math.inf):  # ordinary rates are spared the text
            rate = options.rate(f"{self!r} at t = {t}", rate)
        return rate

    @property
    def name(self) -> str:
        """The formula's name."""
        return self.factory.__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """Name of an argument -> value, defaults included."""
        return dict(zip(arguments(self.factory), self.values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The schedule as a dict of JSON's types, for `from_json`.

        Examples
        --------
        >>> from fastadam.schedules import cosine
        >>> cosine(0.1, 100).to_json()
        {'schedule': 'cosine', 'lr': 0.1, 'steps': 100, 'final': 0.0}
        """
        return {"schedule": self.name} | {name: _to_json(value) for name, value in self.arguments.items()}

    def __mul__(self, other: "float | Schedule") -> "Schedule":
        """The product with a factor, or with another schedule."""
        other = scalar(other)
        if isinstance(other, Real):
            other = SCHEDULES["constant"](options.non_negative("factor", other))
        if not isinstance(other, Schedule):
            return NotImplemented
        product: Any = SCHEDULES["product"]
        parts = self.values[0] if self.factory is product else (self,)
        return cast(Schedule, product([*parts, other]))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Schedule":
        """The product with ``1 / divisor``."""
        divisor = scalar(divisor)
        if not isinstance(divisor, Real):
            return NotImplemented
        return self * (1 / float(divisor))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.factory, self.values


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(part) for part in value]
    return value.to_json() if isinstance(value, Schedule) else value


# ---------------------------------------------------------------- from a formula to what makes its schedules


class Factory(Protocol[P]):
    """A formula's name as its users know it: called with the arguments after t, it makes the `Schedule`."""

    __name__: str
    formula: Callable[Concatenate[int, P], float]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Schedule:
        """The schedule of these arguments."""
        ...


#: name -> what makes the schedules of that formula
SCHEDULES: dict[str, Factory[...]] = {}


def schedule(formula: Callable[Concatenate[int, P], float]) -> Factory[P]:
    """Decorates a formula ``name(t, …) -> rate``, which becomes ``name(…) -> Schedule``.

    Parameters
    ----------
    formula : function
        Its first argument is t; the others are numbers, or the ``schedules`` and ``boundaries`` of a composition.
        Those that bear the name of an argument in this module are checked as that one is, others must be finite.

    Raises
    ------
    TypeError, ValueError
        For a formula without t, or of a name that another module's schedule has: JSON knows schedules by name.

    Examples
    --------
    >>> @schedule
    ... def harmonic(t, lr, decay):
    ...     return lr / (1 + (t - 1) * decay)
    >>> [harmonic(1.0, decay=1)(t) for t in (1, 2, 4, 8)]
    [1.0, 0.5, 0.25, 0.125]
    """
    name, names = formula.__name__, arguments(formula)
    if names[:1] != ("t",) or "schedule" in names:  # to_json keeps the name under "schedule"
        raise TypeError(f"{name}: expected t as its first argument and none called schedule, got {names}")
    if name in SCHEDULES and SCHEDULES[name].formula.__module__ != formula.__module__:
        raise ValueError(f"{name}: there is a schedule of that name in {SCHEDULES[name].formula.__module__}")
    _, *shown = inspect.signature(formula).parameters.values()
    signature = inspect.Signature(shown, return_annotation=Schedule)

    @wraps(formula)
    def factory(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        refuse_unknown(kwargs, signature.parameters, f"argument of {name}()")
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        bound.apply_defaults()
        values = {argument: _check(argument, value) for argument, value in bound.arguments.items()}
        depth = 1 + max((part.depth for part in values.get("schedules", ())), default=0)
        if depth > DEEPEST:
            raise ValueError(f"{name}: schedules may be nested {DEEPEST} deep, not {depth}")
        made = Schedule(made_by, tuple(values.values()), depth)
        made(1)  # what the formula itself refuses is refused before any step
        return made

    made_by = cast(Factory[P], factory)
    made_by.formula = formula
    made_by.__signature__ = signature  # type: ignore[attr-defined]
    SCHEDULES[name] = made_by
    return made_by


def _check(name: str, value: Any) -> Any:
    """The value to keep for an argument, if it may be that."""
    if name not in ("schedules", "boundaries"):
        return options.check_schedule(name, value)
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected a list, got {came(value)}")
    if name == "boundaries":
        counts = tuple(options.positive_count(f"{name}[{k}]", part) for k, part in enumerate(value))
        if any(later <= earlier for earlier, later in pairwise(counts)):
            raise ValueError(f"{name}: expected whole numbers, each larger than the one before, got {shown(value)}")
        return counts
    if not value:
        raise ValueError(f"{name}: expected at least one schedule, got none")
    for k, part in enumerate(value):
        if not isinstance(part, Schedule):
            raise TypeError(f"{name}[{k}]: expected a schedule such as constant(0.1), got {came(part)}")
    return tuple(value)


def from_json(data: dict[str, Any]) -> Schedule:
    """The schedule whose `Schedule.to_json` this is.

    Parameters
    ----------
    data : dict
        The schedule's name under ``"schedule"``, and its arguments; those with defaults may be left out. Nothing in it
        is run: names are looked up among the schedules that have been defined.

    Raises
    ------
    ValueError
        For anything else: an unknown name, wrong arguments, values of other types, compositions nested too deep.

    Examples
    --------
    >>> from_json({"schedule": "cosine", "lr": 0.1, "steps": 100})
    cosine(lr=0.1, steps=100, final=0.0)
    """
    if not isinstance(data, dict):
        raise ValueError(f"schedule: expected a dict, as to_json() makes it, got {type(data).__name__}")
    return _read_schedule("schedule", data, 1)


def _read_schedule(place: str, data: dict[str, Any], depth: int) -> Schedule:
    name = data.get("schedule")
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"{place}: expected one of {', '.join(SCHEDULES)}, got {reprlib.repr(name)}")
    factory = SCHEDULES[name]
    known, given = arguments(factory), {}
    for key, value in data.items():
        if key in known:
            given[key] = _read(f"{place}[{key!r}]", value, depth + 1)
        elif key != "schedule":
            own = offer(key if isinstance(key, str) else "", known)
            raise ValueError(f"{place}: {name} has no argument {reprlib.repr(key)}; {own}")
    try:
        return factory(**given)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{place}: {error}") from None


def _read(place: str, value: Any, depth: int) -> Any:
    """An argument, or a part of one, by its type alone: which it must be, the factory says."""
    if depth > 2 * DEEPEST:  # lists and dicts take turns; without a limit, a hostile text exhausts Python's stack
        raise ValueError(f"{place}: schedules may be nested {DEEPEST} deep, not deeper")
    if isinstance(value, list):
        return [_read(f"{place}[{k}]", part, depth + 1) for k, part in enumerate(value)]
    if isinstance(value, dict):
        return _read_schedule(place, value, depth)
    if not isinstance(value, (int, float)):
        raise ValueError(f"{place}: expected a number or a schedule, got {type(value).__name__}")
    return value
