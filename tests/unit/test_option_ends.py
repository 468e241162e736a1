"""The ends of what an option may be: its message says them, and its check has exactly these."""

import re
from collections.abc import Callable
from math import inf, nan, nextafter

import pytest
from inside import options

from fastadam.optimizers import CLASSES

END = re.compile(r"(>=?|<=?) (-?\d+)")


def one_of(check: Callable, given: tuple[float, ...], k: int) -> Callable:
    """The check of one of several numbers."""
    return lambda what, value: check(what, (*given[:k], value, *given[k + 1 :]))


CHECKS: dict[str, Callable] = dict(options.SCHEDULE_CHECKS)
for cls in CLASSES.values():
    for name, option in cls.options.items():
        if type(option.default) is float:
            CHECKS[f"{cls.__name__}.{name}"] = option.check
        elif isinstance(option.default, tuple) and name != "bounds":  # any number may be a bound
            for k in range(len(option.default)):
                CHECKS[f"{cls.__name__}.{name}[{k}]"] = one_of(option.check, option.default, k)


def is_allowed(check: Callable, value: float) -> bool:
    try:
        check("x", value)
    except ValueError as error:
        return "smaller number first" in str(error)  # of a pair: another reason
    return True


@pytest.mark.parametrize("name", CHECKS)
def test_ends_are_those_of_the_message(name):
    check = CHECKS[name]
    with pytest.raises((ValueError, TypeError)) as refused:
        check("x", nan)
    text = str(refused.value)
    for sign, number in END.findall(text):
        end = int(number) if "whole" in text else float(number)
        below, above = (end - 1, end + 1) if "whole" in text else (nextafter(end, -inf), nextafter(end, inf))
        inside, outside = (above, below) if sign[0] == ">" else (below, above)
        assert is_allowed(check, inside)
        assert not is_allowed(check, outside)
        assert is_allowed(check, end) == (len(sign) == 2)
    assert END.search(text) or "finite" in text
    if "finite" in text:
        assert not is_allowed(check, inf)
