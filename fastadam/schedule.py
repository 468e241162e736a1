"""What a schedule is: a formula and its arguments, made by `schedule`, written as JSON and read again.
One that follows a loss, made by `following`, has its state among its arguments.
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
from .kernel.checks import Check, came, number, scalar, shown
from .names import Telling, meant, offer, refuse_unknown
from .rule import arguments, signature_of

P = ParamSpec("P")

#: how deep compositions may nest: far below Python's own limit, so that no schedule is too deep to be used
DEEPEST = 32
#: what a report may tell: a run that diverged has such losses, too
_loss = number("or NaN", lambda _: True)


class Schedule(Telling):
    """A formula and its arguments: a function of the step count, made by `cosine` and its relatives.

    Schedules are immutable; two are equal where formula and arguments are. They can be hashed, pickled and copied, and
    `repr` gives the call that makes them. ``rate * 0.5``, ``rate / 2`` and ``rate * other`` are products. One that
    follows a loss, as `plateau` does, changes with each `report`, so it cannot be hashed; a copy goes its own way.

    Attributes
    ----------
    name : str
        The formula's name.
    arguments : dict
        Name of an argument -> value, defaults included.
    parts : tuple of Schedule
        Those that it is composed of.

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
    _changes = "a schedule is immutable"

    def __init__(self, factory: "Factory[...]", values: tuple[Any, ...], depth: int) -> None:
        for name, value in (("factory", factory), ("values", values), ("depth", depth)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{name}: {self._no_such(name, '')}", name=name, obj=self)

    def _no_such(self, name: str, has: str) -> str:
        argument = name if name in self.arguments else meant(name, self.arguments) or next(iter(self.arguments))
        return f"{self._changes}; read .arguments[{argument!r}], or make another: {self.name}({argument}=…, …)"

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

    @property
    def parts(self) -> tuple["Schedule", ...]:
        """The schedules that it is composed of."""
        return self.arguments.get("schedules", ())  # type: ignore[no-any-return]

    @property
    def following(self) -> tuple["Following", ...]:
        """Those that follow a loss among its parts, theirs, and itself."""
        return tuple(found for part in self.parts for found in part.following)

    def report(self, loss: float) -> None:
        """Tell a loss to all that follow one: to the schedule itself, or to its parts. The next step has the new rate.

        Parameters
        ----------
        loss : float
            Anything that is one real number. NaN and infinity are losses, too: no good ones.

        Raises
        ------
        TypeError, ValueError
            For anything else, and where no part follows a loss.

        Examples
        --------
        >>> from fastadam.schedules import plateau
        >>> rate = plateau(1.0, factor=0.5, patience=0)
        >>> for loss in (3.0, 2.0, 2.0):
        ...     rate.report(loss)
        >>> rate(4)
        0.5
        """
        loss = _loss("loss", loss)
        if not self.following:
            raise TypeError(f"report: {self!r} follows no loss, but t alone; schedules.plateau follows one")
        for part in {id(part): part for part in self.following}.values():  # each once, wherever it stands
            part.hear(loss)

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


class Following(Schedule):
    """A schedule that follows a loss. The last of its values is its state; they are replaced whole."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]
    _changes = "it changes by .report(loss) alone"

    @property
    def following(self) -> tuple["Following", ...]:
        """Itself."""
        return (self,)

    def hear(self, loss: float) -> None:
        """Take one more loss into account."""
        self._set((*self.values[:-1], self.factory.after(loss, *self.values)))

    def become(self, other: "Following") -> None:
        """Be what the other one is: its arguments, and what it has heard."""
        self._set(other.values)

    def _set(self, values: tuple[Any, ...]) -> None:
        object.__setattr__(self, "values", values)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(part) for part in value]
    return value.to_json() if isinstance(value, Schedule) else value


# ---------------------------------------------------------------- from a formula to what makes its schedules


class Factory(Protocol[P]):
    """A formula's name as its users know it: called with the arguments after t, it makes the `Schedule`."""

    __name__: str
    formula: Callable[Concatenate[int, P], float]
    #: of arguments that are not what others of their names are
    checks: dict[str, Check]
    #: of schedules that follow a loss: given one and the values, the next state
    after: Callable[Concatenate[float, P], tuple[Any, ...]]

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
    return cast(Factory[P], _factory(formula, "t", Schedule, {}))


def following(**checks: Check) -> Callable[[Callable[Concatenate[float, P], tuple[Any, ...]]], Factory[P]]:
    """Decorates ``name(loss, lr, …, state) -> state``, which becomes ``name(lr, …, state=()) -> Following``.

    It says what a loss makes of the state, a tuple that begins with the rate. Before any loss the state is empty, and
    the rate is `lr`. `checks` are those of its arguments, by name.
    """

    def define(after: Callable[Concatenate[float, P], tuple[Any, ...]]) -> Factory[P]:
        @wraps(after)
        def formula(t: int, lr: float, *others: Any) -> float:
            return others[-1][0] if others[-1] else lr

        made_by = _factory(formula, "loss", Following, checks)
        made_by.after = after
        return cast(Factory[P], made_by)

    return define


def _factory(formula: Callable[..., float], first: str, kind: type[Schedule], checks: dict[str, Check]) -> Factory[...]:
    """What makes the schedules of this kind; `first` is the formula's argument that is none of theirs."""
    name, names = formula.__name__, arguments(formula)
    if names[:1] != (first,) or "schedule" in names:  # to_json keeps the name under "schedule"
        raise TypeError(f"{name}: expected {first} as its first argument and none called schedule, got {names}")
    if name in SCHEDULES and SCHEDULES[name].formula.__module__ != formula.__module__:
        raise ValueError(f"{name}: there is a schedule of that name in {SCHEDULES[name].formula.__module__}")
    _, *shown = signature_of(formula).parameters.values()
    signature = inspect.Signature(shown, return_annotation=Schedule)

    @wraps(formula)
    def factory(*args: Any, **kwargs: Any) -> Schedule:
        refuse_unknown(kwargs, signature.parameters, f"argument of {name}()")
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        bound.apply_defaults()
        values = {key: checks.get(key, _check)(key, value) for key, value in bound.arguments.items()}
        depth = 1 + max((part.depth for part in values.get("schedules", ())), default=0)
        if depth > DEEPEST:
            raise ValueError(f"{name}: schedules may be nested {DEEPEST} deep, not {depth}")
        made = kind(made_by, tuple(values.values()), depth)
        made(1)  # what the formula itself refuses is refused before any step
        return made

    made_by = cast(Factory[...], factory)
    made_by.formula, made_by.checks = formula, checks
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
        if key in factory.checks:  # it looks at anything
            given[key] = value
        elif key in known:
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
