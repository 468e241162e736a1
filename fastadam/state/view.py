"""The public view of the states: arrays by name, with assignment."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol

import numpy as np

from ..kernel import checks
from ..names import Telling
from . import numbers
from .store import Store


class Owner(Protocol):
    """The owner of the states: the core of an optimizer."""

    store: Store
    plan: Any

    def held(self) -> AbstractContextManager[Any]:
        """A context manager that prevents steps."""

    def flush(self) -> None:
        """Apply the steps that rows have missed."""


class States(Telling, MutableMapping[str, "StateArrays"]):
    """Name of a state -> its arrays. They are the live arrays. An assigned value is checked, and copied into them."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def _no_such(self, name: str, has: str) -> str:
        return f"states are under keys, {', '.join(self)}; write opt.state[{next(iter(self), '')!r}][0] = array"

    def _names(self) -> Mapping[str, None]:
        return dict.fromkeys(name for arrays in self._owner.store.states for name in arrays)

    def __getitem__(self, name: str) -> "StateArrays":
        if name not in self._names():
            raise KeyError(name)
        return StateArrays(self._owner, name)

    def __setitem__(self, name: str, arrays: Any) -> None:
        if name not in self._names():
            raise KeyError(f"{checks.shown(name)}: no state has this name; there are {list(self)}")
        StateArrays(self._owner, name)[:] = arrays

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError(f"state: {checks.shown(name)} cannot be deleted; reset() sets all states to their first values")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return repr({name: list(arrays) for name, arrays in self.items()})


class StateArrays(Telling, Sequence[np.ndarray | None]):
    """The arrays of one state, one for each parameter. None if the parameter's group has no such state."""

    def __init__(self, owner: Owner, name: str) -> None:
        self._owner, self._name = owner, name

    def _no_such(self, name: str, has: str) -> str:
        return f"a state has one array for each parameter; write opt.state[{self._name!r}][0] = array, or opt.reset()"

    def __len__(self) -> int:
        return len(self._owner.store.states)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        self._owner.flush()
        state = self._owner.store.states[index].get(self._name)
        return None if state is None else numbers.read(state, self._owner.plan.params[index])

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if not isinstance(index, (int, np.integer, slice)):
            raise TypeError(f"state[{self._name!r}][{index!r}]: expected the number of a parameter, from 0")
        places: Sequence[int] = range(len(self))[index] if isinstance(index, slice) else [range(len(self))[index]]
        values = list(value) if isinstance(index, slice) else [value]
        if len(values) != len(places):
            wanted = checks.counted(len(places), "array")
            raise ValueError(f"state[{self._name!r}]: expected {wanted}, one for each parameter, got {len(values)}")
        news = [self._checked(k, new) for k, new in zip(places, values, strict=True)]
        with self._owner.held():
            for k, new in zip(places, news, strict=True):
                numbers.write(self._owner.store.states[k][self._name], self._owner.plan.params[k], new)

    def _checked(self, k: int, value: Any) -> np.ndarray:
        """The checked new value for the state of parameter `k`."""
        where, own = f"state[{self._name!r}][{k}]", self[k]
        if own is None:
            raise TypeError(f"{where}: this parameter has no such state")
        if self._name == "master":
            raise TypeError(f"{where}: a master weight follows its parameter; write that")
        checks.writeable(where, self._owner.store.states[k][self._name])
        new = checks.real(where, value, kinds="biufc" if own.dtype.kind == "c" else "biuf")
        if new.shape != own.shape:
            raise ValueError(f"{where}: expected the shape {own.shape} of the parameter, got {new.shape}")
        return numbers.checked(where, self._owner.store.states[k][self._name], self._owner.plan.params[k], new)

    def __repr__(self) -> str:
        return repr(list(self))
