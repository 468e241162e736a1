"""Learning rates in checkpoints: a function as JSON, and which object an optimizer goes on with after a load."""

import copy
from collections.abc import Callable
from typing import Any

from ..schedule import Following, Schedule, from_json
from .mismatch import need


def encode(rate: Any) -> Any:
    """A rate that is a function, as JSON has it: a schedule; what any other does is not kept."""
    return rate.to_json() if isinstance(rate, Schedule) else {"function": repr(rate)}


class Rates:
    """The rates that came for the groups of one optimizer, taken one after another.

    Whoever reports losses has the schedule that follows them: the caller under a name, other groups, another optimizer.
    So it is not replaced: where it has the form of what came, it becomes that. Where it has not, what came is made the
    optimizer's own, and equal schedules that follow a loss are one, so that one report reaches all groups still.
    """

    def __init__(self) -> None:
        #: the optimizer's own, and what each is to become, by identity
        self._becoming: dict[int, tuple[Following, Following]] = {}

    def decoded(self, name: str, value: Any, own: Any) -> Any:
        """What is to be the optimizer's rate: it has `own`, which stays where a function was not kept."""
        if isinstance(value, dict) and set(value) == {"function"}:
            need(callable(own), f"{name}: was a function, which a file does not keep; assign it first")
            return own
        came = from_json(value) if isinstance(value, dict) else value
        if not isinstance(came, Schedule):
            return came
        return own if self._can_become(own, came) else _with(came, self._own)

    def commit(self) -> None:
        """Change the schedules that stay. Nothing can fail here."""
        for own, came in self._becoming.values():
            own.become(came)

    def _can_become(self, own: Any, came: Schedule) -> bool:
        """Whether all that follows a loss in `own` can, and nothing else in it differs; if so, `commit` will do it."""
        if not isinstance(own, Schedule) or _form(own) != _form(came):
            return False
        becoming = dict(self._becoming)
        for mine, theirs in zip(own.following, came.following, strict=True):
            if becoming.setdefault(id(mine), (mine, theirs))[1] != theirs:  # one here, two there
                return False
        self._becoming = becoming
        return True

    def _own(self, came: Following) -> Following:
        """The optimizer's own that becomes this, or else a new one."""
        found = next((own for own, theirs in self._becoming.values() if theirs == came), None) or copy.copy(came)
        self._becoming[id(found)] = found, came
        return found


def _form(rate: Schedule) -> Any:
    """Formula and arguments; of what follows a loss, the formula alone."""
    if isinstance(rate, Following):
        return rate.factory
    return rate.factory, {**rate.arguments, "schedules": [_form(part) for part in rate.parts]}


def _with(rate: Schedule, change: Callable[[Following], Following]) -> Schedule:
    """The schedule with others in the places of those that follow a loss."""
    if isinstance(rate, Following):
        return change(rate)
    if not rate.following:
        return rate
    return rate.factory(**{**rate.arguments, "schedules": [_with(part, change) for part in rate.parts]})
