"""The options of the C interface: their defaults, and what is wrong with them, by the declarations of the classes.
`fastadam.capi` asks, in the names of the members of C's options.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from . import options
from .functional import MADE, Function
from .options import Option


def defaults(name: str, members: Sequence[str]) -> list[float]:
    """What the members are by default for the rule of this name; 0 for those that it does not read."""
    made = MADE[name]
    values = dict(zip(made.rule.hyper, made.defaults, strict=True))
    return [0.0 if made.rule.defaults.get(member) else values.get(member, 0.0) for member in members]


def wrong(name: str, members: Mapping[str, float]) -> str:
    """Why these options of the rule are refused, as its Python function does; "" where they are not."""
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
    """The numbers that the rule reads, and that are no option of the Python function, as the decay of Rprop."""
    numbers = {h for h in made.rule.hyper if not made.rule.defaults.get(h) and h not in made.rule.flags}
    return numbers - {h for own in made.taken.values() for h in own.hyper}


def _value(made: Function, option: Option, members: Mapping[str, float]) -> Any:
    """The value of an option that its members give."""
    first, *others = values = [bool(members[h]) if h in made.rule.flags else members[h] for h in option.hyper]
    if isinstance(option.default, tuple):
        return tuple(values)
    for member, value in zip(option.hyper[1:], others, strict=True):  # one number is several members
        if member not in made.rule.flags and value != first:
            raise ValueError(f"{member}: expected {first}, as {option.hyper[0]}, got {value}")
    return first


def _in_c(text: str, read: Mapping[str, Option]) -> str:
    """A message in the names of the members."""
    for name, option in read.items():
        for k, member in enumerate(option.hyper):
            text = text.replace(f"{name}[{k}]", member)
        if text.startswith(f"{name}:") and name not in option.hyper:
            text = ", ".join(option.hyper) + text.removeprefix(name)
    return text
