"""`Schedule`: a formula with its arguments. `schedule` makes one from a function; JSON can store it.
`following` makes a schedule that follows a loss. Its state is one of its arguments.
The formulas and the public names are in `fastadam.schedules`.
"""

import inspect
import math
import reprlib
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import pairwise
from numbers import Real
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, cast

from . import options
from .kernel.checks import Check, came, number, scalar, shown
from .names import Telling, meant, offer, refuse_unknown
from .rule import arguments, signature_of

P = ParamSpec("P")

#: the deepest nesting of compositions: far below Python's recursion limit, so that every schedule can be used
DEEPEST = 32
#: the most schedules in a composition, with all parts of its parts
MOST = 4096
#: the check of a reported loss: any number and NaN, since a run that diverged has such losses
_loss = number("or NaN", lambda _: True)


class Schedule(Telling):
    """A function of the step count t: a formula with its arguments. `cosine` and the other functions return one.

    Schedules are immutable. Two are equal if their formulas and arguments are equal. They can be hashed, pickled and
    copied. `repr` gives the call that makes the schedule. ``rate * 0.5``, ``rate / 2`` and ``rate * other`` are
    products. A schedule that follows a loss (`plateau`) changes with each `report`. It cannot be hashed, and a copy of
    it changes independently.

    Attributes
    ----------
    name : str
        The name of the formula.
    arguments : dict
        Name of an argument -> value, with defaults.
    parts : tuple of Schedule
        The schedules that this one is composed of.

    Examples
    --------
    >>> from fastadam.schedules import linear
    >>> rate = linear(1.0, 0.5, steps=2)
    >>> [rate(t) for t in (1, 2, 3, 4)]
    [1.0, 0.75, 0.5, 0.5]
    >>> rate
    linear(start=1.0, end=0.5, steps=2)
    """

    __slots__ = ("depth", "factory", "size", "values")
    __array_ufunc__ = None  # so that a NumPy number times a schedule calls `__rmul__`

    factory: "Factory[...]"
    values: tuple[Any, ...]
    depth: int  # of the nesting: 1 without parts, else 1 more than the deepest part
    size: int  # the number of schedules: this one, its parts and their parts
    _changes = "a schedule is immutable"

    def __init__(self, factory: "Factory[...]", values: tuple[Any, ...], depth: int, size: int) -> None:
        for name, value in (("factory", factory), ("values", values), ("depth", depth), ("size", size)):
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
            If t is not a whole number >= 1 (of Python or NumPy), or if the rate is not finite and >= 0.
        """
        t = options.positive_count("t", t)
        try:
            rate = self.factory.formula(t, *self.values)
        except OverflowError:
            rate = math.inf
        if not (isinstance(rate, float) and 0 <= rate < math.inf):  # the text is made only when it is needed
            rate = options.rate(f"{self!r} at t = {t}", rate)
        return rate

    @property
    def name(self) -> str:
        """The name of the formula."""
        return self.factory.__name__

    @property
    def arguments(self) -> dict[str, Any]:
        """Name of an argument -> value, with defaults."""
        return dict(zip(arguments(self.factory), self.values, strict=True))

    @property
    def parts(self) -> tuple["Schedule", ...]:
        """The schedules that this one is composed of."""
        return self.arguments.get("schedules", ())  # type: ignore[no-any-return]

    @property
    def following(self) -> tuple["Following", ...]:
        """The schedules that follow a loss: this one, its parts and their parts."""
        return tuple(found for part in self.parts for found in part.following)

    def report(self, loss: float) -> None:
        """Report a loss to the schedule, or to those of its parts that follow one. The next step has the new rate.

        Parameters
        ----------
        loss : float
            One real number. NaN and infinity are allowed; they never count as good.

        Raises
        ------
        TypeError, ValueError
            For anything else, or if the schedule follows no loss.

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
            raise TypeError(f"report: {self!r} depends on t alone, not on a loss; schedules.plateau follows one")
        for part in {id(part): part for part in self.following}.values():  # each once, even if it occurs twice
            part.hear(loss)

    def to_json(self) -> dict[str, Any]:
        """The schedule as a dict of JSON types, for `from_json`.

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
    """A schedule that follows a loss. The last of its values is its state. A change replaces all values at once."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]
    _changes = "it changes by .report(loss) alone"

    @property
    def following(self) -> tuple["Following", ...]:
        """Itself."""
        return (self,)

    def hear(self, loss: float) -> None:
        """Update the state with one more loss."""
        self._set((*self.values[:-1], self.factory.after(loss, *self.values)))

    def become(self, other: "Following") -> None:
        """Take over the arguments and the state of another schedule."""
        self._set(other.values)

    def _set(self, values: tuple[Any, ...]) -> None:
        object.__setattr__(self, "values", values)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(part) for part in value]
    return value.to_json() if isinstance(value, Schedule) else value


# ---------------------------------------------------------------- from a formula to a function that makes schedules


class Factory(Protocol[P]):
    """The public function of a formula. It takes the arguments after t, and returns a `Schedule`."""

    __name__: str
    formula: Callable[Concatenate[int, P], float]
    #: the checks of arguments that differ from those of the same name elsewhere
    checks: dict[str, Check]
    #: only for schedules that follow a loss: a function of a loss and the values, which returns the next state
    after: Callable[Concatenate[float, P], tuple[Any, ...]]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Schedule:
        """The schedule with these arguments."""
        ...


#: name of a formula -> the function that makes its schedules
SCHEDULES: dict[str, Factory[...]] = {}


def schedule(formula: Callable[Concatenate[int, P], float]) -> Factory[P]:
    """Decorator for a formula ``name(t, …) -> rate``. It becomes ``name(…) -> Schedule``.

    Parameters
    ----------
    formula : function
        Its first argument is t. The others are numbers, or the ``schedules`` and ``boundaries`` of a composition. An
        argument with a name that occurs in this module is checked like that one. Others must be finite.

    Raises
    ------
    TypeError, ValueError
        For a formula without t, or with the name of another module's schedule: JSON finds schedules by name.

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
    """Decorator for ``name(loss, lr, …, state) -> state``, which becomes ``name(lr, …, state=()) -> Following``.

    The function returns the state after a loss: a tuple whose first item is the rate. Before the first loss the state
    is empty, and the rate is `lr`. `checks` has the checks of the arguments, by name.
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
    """The function that makes the schedules. `first` is the first argument of the formula, which they do not store."""
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
        parts = values.get("schedules", ())
        depth, size = 1 + max((part.depth for part in parts), default=0), 1 + sum(part.size for part in parts)
        if depth > DEEPEST:
            raise ValueError(f"{name}: schedules may be nested {DEEPEST} deep, not {depth}")
        if size > MOST:
            raise ValueError(f"{name}: a schedule may consist of {MOST} schedules, not {size}; write a function of t")
        made = kind(made_by, tuple(values.values()), depth, size)
        made(1)  # the formula itself may refuse its arguments; this shows it before any step
        return made

    made_by = cast(Factory[...], factory)
    made_by.formula, made_by.checks = formula, checks
    made_by.__signature__ = signature  # type: ignore[attr-defined]
    SCHEDULES[name] = made_by
    return made_by


def _check(name: str, value: Any) -> Any:
    """The checked value of an argument."""
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
    """Make the schedule again that gave this dict by `Schedule.to_json`.

    Parameters
    ----------
    data : dict
        The name of the schedule under ``"schedule"``, and its arguments. Those with defaults may be omitted. No code is
        run from it: names are looked up among the defined schedules.

    Raises
    ------
    ValueError
        For an unknown name, wrong arguments, values of other types, or compositions nested too deeply.

    Examples
    --------
    >>> from_json({"schedule": "cosine", "lr": 0.1, "steps": 100})
    cosine(lr=0.1, steps=100, final=0.0)
    """
    if not isinstance(data, dict):
        raise ValueError(f"schedule: expected a dict, as to_json() makes it, got {type(data).__name__}")
    return _read_schedule("schedule", data, 1, iter(range(MOST)))


def _read_schedule(place: str, data: dict[str, Any], depth: int, left: Iterator[int]) -> Schedule:
    """A schedule. `left` has an item for each schedule that may still be read."""
    if next(left, None) is None:
        raise ValueError(f"{place}: a schedule may consist of {MOST} schedules, not more")
    name = data.get("schedule")
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"{place}: expected one of {', '.join(SCHEDULES)}, got {reprlib.repr(name)}")
    factory = SCHEDULES[name]
    known, given = arguments(factory), {}
    for key, value in data.items():
        if key in factory.checks:  # such a check accepts any object
            given[key] = value
        elif key in known:
            given[key] = _read(f"{place}[{key!r}]", value, depth + 1, left)
        elif key != "schedule":
            own = offer(key if isinstance(key, str) else "", known)
            raise ValueError(f"{place}: {name} has no argument {reprlib.repr(key)}; {own}")
    try:
        return factory(**given)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{place}: {error}") from None


def _read(place: str, value: Any, depth: int, left: Iterator[int]) -> Any:
    """An argument, or a part of one, read according to its type. The factory checks whether the type is right."""
    if depth > 2 * DEEPEST:  # lists and dicts alternate; without a limit a hostile text would exhaust Python's stack
        raise ValueError(f"{place}: schedules may be nested {DEEPEST} deep, not deeper")
    if isinstance(value, list):
        return [_read(f"{place}[{k}]", part, depth + 1, left) for k, part in enumerate(value)]
    if isinstance(value, dict):
        return _read_schedule(place, value, depth, left)
    if not isinstance(value, (int, float)):
        raise ValueError(f"{place}: expected a number or a schedule, got {type(value).__name__}")
    return value
