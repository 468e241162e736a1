"""The defaults that docstrings tell are those of the signatures."""

import ast
import inspect
import re

import pytest

import fastadam
from fastadam import schedules
from fastadam.optimizers import CLASSES
from fastadam.schedule import SCHEDULES

SAID = re.compile(r"^ *(\w+(?:, \w+)*) : .*, default (\S.*?)$", re.M)
TOLD = [*CLASSES.values(), fastadam.Average, *(getattr(schedules, name) for name in SCHEDULES)]


def said(documented: object) -> dict[str, object]:
    """By name, the defaults that the docstrings of a class and its bases, or of a function, tell as literals."""
    found: dict[str, object] = {}
    for one in reversed(documented.__mro__) if isinstance(documented, type) else [documented]:
        for names, text in SAID.findall(vars(one).get("__doc__") or "" if isinstance(one, type) else one.__doc__ or ""):
            try:
                found |= dict.fromkeys(names.split(", "), ast.literal_eval(text))
            except (ValueError, SyntaxError):
                continue  # told in words
    return found


@pytest.mark.parametrize("documented", TOLD, ids=lambda one: one.__name__)
def test_documented_defaults_are_those_of_the_signature(documented):
    taken = inspect.signature(documented).parameters
    for name, value in said(documented).items():
        assert name not in taken or taken[name].default == value, name


def test_most_defaults_are_told():
    assert sum(len(said(documented)) for documented in TOLD) > 100


@pytest.mark.parametrize(
    ("cls", "by_place"),
    [
        (fastadam.ADOPT, "lr betas eps weight_decay"),
        (fastadam.AdEMAMix, "lr betas alpha eps weight_decay"),
        (fastadam.Lion, "lr betas weight_decay"),
        (fastadam.ScheduleFreeAdamW, "lr betas eps weight_decay warmup_steps r weight_lr_power"),
    ],
)
def test_what_may_be_given_by_its_place(cls, by_place):
    """Of optimizers that torch does not have; all others are compared with torch."""
    parameters = inspect.signature(cls).parameters.values()
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["params", *by_place.split()]
