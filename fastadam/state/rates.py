"""Learning rates in checkpoints: schedules as JSON, and the schedule objects that an optimizer has after a load."""

import copy
from collections.abc import Callable
from typing import Any

from ..schedule import Following, Schedule, from_json
from .mismatch import need


def encode(rate: Any) -> Any:
    """The JSON form of a rate that is a function: a whole schedule, or only the repr of any other function."""
    return rate.to_json() if isinstance(rate, Schedule) else {"function": repr(rate)}


class Rates:
    """The incoming rates for the groups of one optimizer, taken one after another.

    Other code may refer to a schedule that follows a loss, and report losses to it: the caller, other groups, another
    optimizer. So the object is not replaced. If it has the form of the incoming schedule, it takes over its values. If
    not, the optimizer gets the incoming schedule. Equal schedules that follow a loss then become one object, so that
    one report still reaches all groups.
    """

    def __init__(self) -> None:
        #: id of an own schedule -> it, and the incoming one whose values it will take over
        self._becoming: dict[int, tuple[Following, Following]] = {}

    def decoded(self, name: str, value: Any, own: Any) -> Any:
        """The optimizer's new rate. The present rate `own` stays if the checkpoint has only the repr of a function."""
        if isinstance(value, dict) and set(value) == {"function"}:
            need(callable(own), f"{name}: was a function, which files do not store; assign it before you load")
            return own
        came = from_json(value) if isinstance(value, dict) else value
        if not isinstance(came, Schedule):
            return came
        return own if self._can_become(own, came) else _with(came, self._own)

    def commit(self) -> None:
        """Update the schedules that stay. Nothing can fail here."""
        for own, came in self._becoming.values():
            own.become(came)

    def _can_become(self, own: Any, came: Schedule) -> bool:
        """Whether the parts of `own` that follow a loss can take over values, and nothing else differs. If so, `commit`
        will do it."""
        if not isinstance(own, Schedule) or _form(own) != _form(came):
            return False
        becoming = dict(self._becoming)
        for mine, theirs in zip(own.following, came.following, strict=True):
            if becoming.setdefault(id(mine), (mine, theirs))[1] != theirs:  # one own object for two incoming ones
                return False
        self._becoming = becoming
        return True

    def _own(self, came: Following) -> Following:
        """The optimizer's schedule that takes over the values of `came`, or else a new one."""
        found = next((own for own, theirs in self._becoming.values() if theirs == came), None) or copy.copy(came)
        self._becoming[id(found)] = found, came
        return found


def _form(rate: Schedule) -> Any:
    """Formula and arguments. For a schedule that follows a loss, only the formula."""
    if isinstance(rate, Following):
        return rate.factory
    return rate.factory, {**rate.arguments, "schedules": [_form(part) for part in rate.parts]}


def _with(rate: Schedule, change: Callable[[Following], Following]) -> Schedule:
    """The schedule with `change` applied to its parts that follow a loss."""
    if isinstance(rate, Following):
        return change(rate)
    if not rate.following:
        return rate
    return rate.factory(**{**rate.arguments, "schedules": [_with(part, change) for part in rate.parts]})
