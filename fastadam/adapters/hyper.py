"""The hyper-parameters of a rule, from the numbers of another library, which have other names there."""

from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..algorithm import Algorithm
from ..kernel import checks
from ..rule import Rule


@lru_cache
def hyper_of(kind: type[Algorithm], rule: Rule, lr: float, **given: Any) -> tuple[float, ...]:
    """The hyper-parameters of `rule` for these options of `kind`, with defaults for all others. Nothing is checked."""
    return kind.hyper_values(rule, {name: option.default for name, option in kind.options.items()} | given, lr)


def number(name: str, value: Any) -> float:
    """Any number as a float, without a check of its range: these libraries do not check it either."""
    if type(value) is float:
        return value
    if not isinstance(value, (str, bytes)):
        with suppress(TypeError, ValueError):
            return float(value)
    raise TypeError(f"{name}: expected a number, got {checks.came(value)}")
