"""The options of the C interface: their defaults and checks, taken from the options of the classes.
`fastadam.capi` calls these functions with the names of the members of the C struct.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from . import options
from .functional import MADE, Function
from .options import Option


def defaults(name: str, members: Sequence[str]) -> list[float]:
    """The default of each member for the rule of this name; 0 for members that the rule does not read."""
    made = MADE[name]
    values = dict(zip(made.rule.hyper, made.defaults, strict=True))
    return [0.0 if made.rule.defaults.get(member) else values.get(member, 0.0) for member in members]


def wrong(name: str, members: Mapping[str, float]) -> str:
    """The message of the rule's Python function on invalid options; "" if the options are valid."""
    made = MADE[name]
    read = {option: own for option, own in made.taken.items() if set(own.hyper) <= members.keys()}
    try:
        made.hyper_of({option: _value(made, own, members) for option, own in read.items()})
    except (TypeError, ValueError) as error:
        return _in_c(str(error), read)
    try:
        for member in sorted(_of_c_alone(made) & members.keys()):
            options.rate(member, members[member])
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def _of_c_alone(made: Function) -> set[str]:
    """The hyper-parameters of the rule that are no options of the Python function, such as the decay of Rprop."""
    numbers = {h for h in made.rule.hyper if not made.rule.defaults.get(h) and h not in made.rule.flags}
    return numbers - {h for own in made.taken.values() for h in own.hyper}


def _value(made: Function, option: Option, members: Mapping[str, float]) -> Any:
    """The value of an option, from its members."""
    first, *others = values = [bool(members[h]) if h in made.rule.flags else members[h] for h in option.hyper]
    if isinstance(option.default, tuple):
        return tuple(values)
    for member, value in zip(option.hyper[1:], others, strict=True):  # one number stands in several members
        if member not in made.rule.flags and value != first:
            raise ValueError(f"{member}: expected {first}, as {option.hyper[0]}, got {value}")
    return first


def _in_c(text: str, read: Mapping[str, Option]) -> str:
    """The message, with the names of the members in place of the options'."""
    for name, option in read.items():
        for k, member in enumerate(option.hyper):
            text = text.replace(f"{name}[{k}]", member)
        if text.startswith(f"{name}:") and name not in option.hyper:
            text = ", ".join(option.hyper) + text.removeprefix(name)
    return text
