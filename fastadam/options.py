"""The declaration of an optimizer's options, and the checks of their values.
One line in a class, ``eps: float = option(default=1e-8, check=non_negative)``, makes an argument of the constructor, an
attribute, and an item of a group. A check takes a name and a value. It returns the value to keep, or raises an error
that says what is allowed.
"""

import inspect
from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any, ClassVar, dataclass_transform

import numpy as np

from .kernel import checks
from .kernel.checks import Check, came, number, shown
from .kernel.checks import flag as flag
from .names import Strict, refuse_unknown
from .rule import signature_of

#: a learning rate: a number, or a function of the step count t = 1, 2, …
Rate = float | Callable[[int], float]
#: the default of a declared argument that has none
REQUIRED = inspect.Parameter.empty


# ---------------------------------------------------------------- declarations


class Field:
    """A declared argument of a class: its default, its check, and its kind in the constructor."""

    name: str
    #: whether the value cannot change after construction
    fixed: bool

    def __init__(self, default: Any, check: Check, kw_only: bool, init: bool) -> None:
        self.default, self.check, self.kw_only, self.init = default, check, kw_only, init

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def parameter(self) -> inspect.Parameter:
        """The parameter of a signature for this field."""
        kind = inspect.Parameter.KEYWORD_ONLY if self.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Parameter(self.name, kind, default=self.default)


class Option(Field):
    """A value that every group has. The attribute reads the first group's value, and sets every group's."""

    def __init__(
        self, default: Any, check: Check, kw_only: bool, init: bool, fixed: bool, hyper: tuple[str, ...], own: bool
    ) -> None:
        super().__init__(default, check, kw_only, init)
        self.fixed = fixed
        #: the hyper-parameters of rules that the value sets: by default the one with the option's name
        self.hyper = hyper
        #: whether each group has its own value, so that the optimizer has no such attribute
        self.own = own

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self.hyper = self.hyper or (name,)

    def __get__(self, optimizer: Any, _: type) -> Any:
        if optimizer is None:
            return self
        self._need_attribute()
        return optimizer.param_groups[0][self.name]

    def _need_attribute(self) -> None:
        if self.own:
            raise AttributeError(f"{self.name}: each group has its own; write opt.param_groups[0][{self.name!r}]")

    def __set__(self, optimizer: Any, value: Any) -> None:
        self._need_attribute()
        optimizer.core.groups.assign_to_all({self.name: value})


class Setting(Field):
    """A value of the whole optimizer, fixed at construction: how its steps run, and where its arrays are."""

    fixed = True

    def __get__(self, optimizer: Any, _: type) -> Any:
        return self if optimizer is None else optimizer.core.settings[self.name]

    def __set__(self, optimizer: Any, value: Any) -> None:
        raise AttributeError(f"{self.name}: is fixed at construction; make a new optimizer")


def _without_self(method: Any) -> inspect.Signature:
    """The signature of a method without ``self``."""
    signature = signature_of(method)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def anything(name: str, value: Any) -> Any:
    """A check that allows any value: other code checks it."""
    return value


def option(
    *,
    default: Any = REQUIRED,
    check: Check,
    kw_only: bool = False,
    init: bool = True,
    fixed: bool = False,
    hyper: tuple[str, ...] = (),
    own: bool = False,
) -> Any:
    """Declare an option in the body of an optimizer class.

    Without `init` it is no argument of the constructor. A `fixed` option cannot change later. `hyper` has the names of
    the hyper-parameters of rules that it sets, if they differ from its own: a pair sets two, one number sets all of
    them. With `own` each group has its own value, and the optimizer has no such attribute.
    """
    return Option(default, check, kw_only, init, fixed, hyper, own)


def setting(*, default: Any = REQUIRED, check: Check = anything, kw_only: bool = False) -> Any:
    """Declare a setting in the body of an optimizer class."""
    return Setting(default, check, kw_only, init=True)


@dataclass_transform(eq_default=False, field_specifiers=(option, setting))
class Declared(Strict):
    """A class whose constructor takes the declared fields, those of its base classes first."""

    options: ClassVar[dict[str, Option]]
    settings: ClassVar[dict[str, Setting]]
    #: the signature of the constructor
    declared: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **keywords: Any) -> None:
        fields = {name: f for base in reversed(cls.__mro__) for name, f in vars(base).items() if isinstance(f, Field)}
        fields = dict(sorted(fields.items(), key=lambda pair: pair[1].kw_only))
        cls.options = {name: field for name, field in fields.items() if isinstance(field, Option)}
        cls.settings = {name: field for name, field in fields.items() if isinstance(field, Setting)}
        taken = [field for field in fields.values() if field.init]
        taken.sort(key=lambda field: (field.kw_only, field.kw_only and field.fixed))
        cls.declared = inspect.Signature([field.parameter() for field in taken])
        if "__signature__" not in vars(cls):
            own = _without_self(cls.__init__)  # (*args, **kwargs) means that `bind` reads the arguments
            variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
            says_nothing = all(given.kind in variable for given in own.parameters.values())
            cls.__signature__ = cls.declared if says_nothing else own  # type: ignore[attr-defined]
        super().__init_subclass__(**keywords)  # hooks of other bases, such as Generic's

    @classmethod
    def bind(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name of a field -> its value, from the arguments of the constructor."""
        for name in kwargs:
            if name in cls.options and name not in cls.declared.parameters:
                raise TypeError(
                    f"{name}: no argument of {cls.__name__}; write it into a group, {{'params': …, {name!r}: …}}"
                )
        refuse_unknown(kwargs, cls.declared.parameters, f"option of {cls.__name__}")
        try:
            given = cls.declared.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}; it takes {cls.declared}") from None
        return {name: given.get(name, field.default) for name, field in (cls.options | cls.settings).items()}


# ---------------------------------------------------------------- checks


def rate_or_schedule(name: str, value: Any) -> Any:
    """A learning rate: a number, or a function of the step count."""
    if not callable(value):
        return rate(name, value)
    try:
        signature = signature_of(value)
    except (TypeError, ValueError):  # a builtin without a signature
        return value
    if inspect.isfunction(value) and hasattr(value, "formula"):  # a function that makes schedules
        given = ", ".join(f"{own}=…" for own, p in signature.parameters.items() if p.default is p.empty)
        call = f"{value.__module__}.{value.__name__}({given})"
        raise TypeError(f"{name}: expected a number or a schedule, got a function that makes one; call it: {call}")
    try:
        signature.bind(1)
    except TypeError as error:
        allowed = "a number, or a function of the step count t alone"
        raise TypeError(f"{name}: expected {allowed}, got {came(value)}: {error}") from None
    return value


def rate_at(lr: Any, t: int) -> float:
    """The learning rate of step `t`."""
    return rate(f"lr({t})", lr(t)) if callable(lr) else lr  # type: ignore[no-any-return]


def positive_count(name: str, value: Any) -> int:
    """A number of steps, or the number of a step: whole, and at least 1."""
    return checks.whole(name, value, 1)


def _each(name: str, value: Any, *allowed: Check) -> tuple[Any, ...]:
    """Check each value by its own check. The number of values must be the number of checks."""
    expected = {2: "a pair of numbers", 3: "three numbers"}[len(allowed)]
    is_ordered = isinstance(value, Sequence) or getattr(value, "ndim", None)  # a set is not
    if isinstance(value, (str, bytes)) or not is_ordered:
        raise TypeError(f"{name}: expected {expected}, got {came(value)}")
    if len(value) != len(allowed):
        raise ValueError(f"{name}: expected {expected}, got {len(value)} of them")
    return tuple(check(f"{name}[{k}]", value[k]) for k, check in enumerate(allowed))


def two_betas(name: str, value: Any) -> tuple[float, float]:
    """A pair of decay rates."""
    return _each(name, value, below_one, below_one)


def three_betas(name: str, value: Any) -> tuple[float, float, float]:
    """Three decay rates."""
    return _each(name, value, below_one, below_one, below_one)


def etas(name: str, value: Any) -> tuple[float, float]:
    """A factor below 1, and one above 1."""
    return _each(
        name, value, number("> 0 and < 1", lambda x: 0 < x < 1), number("> 1 and finite", lambda x: 1 < x < inf)
    )


def step_sizes(name: str, value: Any) -> tuple[float, float]:
    """The smallest and the largest step size."""
    return _in_order(name, *_each(name, value, positive, positive))


def bounds(name: str, value: Any) -> tuple[float, float]:
    """The smallest and the largest value of a parameter. None means no bound."""
    low, high = (None, None) if value is None else _each(name, value, _end, _end)
    return _in_order(name, -inf if low is None else low, inf if high is None else high)


def _end(name: str, value: Any) -> float | None:
    return value if value is None else not_nan(name, value)


def _in_order(name: str, low: float, high: float) -> tuple[float, float]:
    if low > high:
        raise ValueError(f"{name}: expected the smaller number first, got {(low, high)}")
    return low, high


non_negative = number(">= 0 and finite", lambda x: 0 <= x < inf)
a_power = number(">= 0 and <= 10", lambda x: 0 <= x <= 10)
positive = number("> 0 and finite", lambda x: 0 < x < inf)
finite = number("that is finite", isfinite)
not_nan = number("or None, and no NaN", lambda x: x == x)
below_one = number(">= 0 and < 1", lambda x: 0 <= x < 1)
up_to_one = number(">= 0 and <= 1", lambda x: 0 <= x <= 1)


def decay(name: str, value: Any) -> float | None:
    """The share of its value that an average keeps at an update. None means equal weights."""
    return value if value is None else up_to_one(name, value)


#: the check of a learning rate that is a number, and of a rate that a schedule returns
rate = non_negative

#: name of an argument of schedules -> its check; other names in a user's formula may have any finite number
SCHEDULE_CHECKS: dict[str, Check] = {
    "lr": rate,
    "start": rate,
    "end": rate,
    "final": rate,
    "steps": positive_count,
    "every": positive_count,
    "factor": non_negative,
    "power": positive,
    "warmup": below_one,
    "div": positive,
    "final_div": positive,
}

#: checks of arguments that are not hyper-parameters
tolerance = non_negative


def seed(name: str, value: Any) -> int:
    """A 64-bit seed."""
    return checks.whole(name, value, below=2**64)


rows = checks.one_of("lazy", "exact")


def flag_or_none(name: str, value: Any) -> bool | None:
    """True, False, or None for the default behaviour."""
    return value if value is None else flag(name, value)


def count(name: str, value: Any, least: int = 0) -> int:
    """A count of steps or elements."""
    return checks.whole(name, value, least, below=2**62)


def steps_done(name: str, value: Any) -> int:
    """A count in a checkpoint. It has all numbers that the 64 bits of a plan's counts can have."""
    return checks.whole(name, value, below=2**63)


def group_name(name: str, value: Any) -> str | None:
    """The name of a group in messages and checkpoints. It is not a number: those stand for groups without a name."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected text or None, got {shown(value)} of type {type(value).__name__}")
    if value is not None and (not value or value.isdecimal()):
        raise ValueError(f"{name}: expected text that is not a number, got {shown(value)}")
    return value


def names_or_none(name: str, value: Any) -> list[str] | None:
    """Names of parameters, one or several; None for all."""
    if value is None:
        return None
    if not isinstance(value, (str, Sequence)):
        raise TypeError(f"{name}: expected names of parameters, or None for all, got {came(value)}")
    return [value] if isinstance(value, str) else list(value)


def in_bfloat16(option: str, value: Any) -> bool:
    """Whether this value is bfloat16. The only other valid value is None."""
    said = _dtype_name(value)
    if said not in (None, "bfloat16"):
        raise ValueError(f"{option}: expected None or 'bfloat16', got {shown(value)}")
    return said is not None


def _dtype_name(value: Any) -> str | None:
    """The name of a dtype that is given as text or as a dtype. None stays None; "" for any other object."""
    name = value if isinstance(value, str) else getattr(value, "__name__", getattr(value, "name", ""))
    return None if value is None else name if isinstance(name, str) else ""


def state_dtype(name: str, value: Any) -> str | None:
    """The dtype of the stored states, or None for the dtype in which the parameter is computed."""
    said = _dtype_name(value)
    if said not in (None, "bfloat16", "int8"):
        raise ValueError(f"{name}: expected None, 'bfloat16' or 'int8', got {shown(value)}")
    if said == "bfloat16":
        bfloat16()
    return said


def bfloat16() -> np.dtype[Any]:
    """The NumPy dtype bfloat16, from ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("state_dtype='bfloat16' needs ml_dtypes: pip install ml_dtypes") from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def check_schedule(name: str, value: Any) -> Any:
    """The checked value of a schedule's argument."""
    return SCHEDULE_CHECKS.get(name, finite)(name, value)
