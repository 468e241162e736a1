"""`Store`: the states and counts of an optimizer as plain arrays, in memory or in a memory-mapped file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any

import numpy as np

from ..kernel import checks
from ..kernel._lag import HISTORY
from ..kernel._plan import Plan
from ..rule import Rule
from . import numbers
from .folder import Folder, Slot, name_of
from .mismatch import need
from .numbers import First

States = list[dict[str, np.ndarray]]
#: the arrays `visits` and `history` for rows that lag; see `kernel._lag`
Log = tuple[np.ndarray, np.ndarray]


class Store:
    """`states` has a dict for each parameter: name -> array, in its rule's order. `counts` is the plan's array."""

    def __init__(self, states: States, counts: np.ndarray, folder: Folder | None = None) -> None:
        self.states, self.counts, self.folder = states, counts, folder
        self._logs: dict[int, Log] = {}

    @classmethod
    def new(
        cls,
        settings: Mapping[str, Any],
        optimizer: str,
        rules: Sequence[Rule],
        keys: Sequence[str],
        params: Sequence[Any],
        initial: Sequence[Mapping[str, First]],
        lagging: Sequence[int | None],
    ) -> "Store":
        """A store with the states of these parameters. They are in the folder ``state_dir``, if one is given.

        For each parameter, `initial` has the first values of its states. If its rows may lag, `lagging` has the number
        of its rule's scalars, else None.
        """
        if settings["state_dir"] is None:
            store = cls([], np.zeros(3 + len(params), np.int64))
            store.add(params, initial)
            return store
        named = dict(zip(keys, params, strict=True))
        in_blocks = [any(first.in_blocks for first in values.values()) for values in initial]
        description = {
            "optimizer": optimizer,
            "rules": [rule.name for rule in rules],
            "params": [[key, list(p.shape), name_of(p.dtype)] for key, p in named.items()],
            "orders": numbers.orders(dict(compress(named.items(), in_blocks))),
            "state_dtype": [{name: name_of(first.dtype) for name, first in values.items()} for values in initial],
            "master_weights": settings["master_weights"],
            "exact_rows": [key for key, n_scalars in zip(keys, lagging, strict=True) if n_scalars is not None],
        }
        slots = [Slot("steps", np.dtype(np.int64), (3 + len(params),))]
        for place, (p, values, n_scalars) in enumerate(zip(params, initial, lagging, strict=True)):
            slots += [_slot(place, name, p, first) for name, first in values.items()]
            slots += () if n_scalars is None else _log_slots(place, p, n_scalars)
        folder = Folder(settings["state_dir"], description, slots)
        store = cls([], folder.arrays[0], folder)
        with store.undone_on_error():
            store._take(folder, params, initial, lagging)
        return store

    def _take(
        self,
        folder: Folder,
        params: Sequence[np.ndarray],
        initial: Sequence[Mapping[str, First]],
        lagging: Sequence[int | None],
    ) -> None:
        """Take the arrays of the folder. In a new folder, states begin."""
        rest = iter(folder.arrays[1:])
        for place, (p, values, n_scalars) in enumerate(zip(params, initial, lagging, strict=True)):
            self.states.append({name: next(rest) for name in values})
            for (name, first), state in zip(values.items(), self.states[-1].values(), strict=True):
                if folder.is_new:
                    numbers.begin(state, p, first)
                elif first.in_blocks and state.size:
                    numbers.need_heads(f"state_dir: {folder.path}: {name} of parameter {place}", state, first)
            if n_scalars is not None:
                self._logs[place] = next(rest), next(rest)
                self._need_visits(place, self._logs[place][0])

    def add(self, params: Sequence[np.ndarray], initial: Sequence[Mapping[str, First]]) -> None:
        """Add the states of these parameters."""
        for p, values in zip(params, initial, strict=True):
            self.states.append({name: numbers.new(p, first) for name, first in values.items()})

    def log(self, place: int, p: np.ndarray, n_scalars: int) -> Log:
        """The log of the steps that rows of the parameter `p`, number `place`, have missed: the old one, if it fits."""
        wanted = _log_slots(place, p, n_scalars)
        known = self._logs.get(place)
        fits = known is not None and all(
            a.shape == own.shape and a.dtype == own.dtype for a, own in zip(known, wanted, strict=True)
        )
        if known is None or not fits:
            visits, history = (np.zeros(own.shape, own.dtype) for own in wanted)
            known = self._logs[place] = visits, history
        return known

    def _need_visits(self, place: int, visits: np.ndarray) -> None:
        """Refuse invalid visits: they would lead to reads outside of `history`."""
        if visits[-1]:
            done, first, last = int(self.counts[3 + place]), *(int(f(visits[:-1])) for f in (np.min, np.max))
            need(
                max(0, done - HISTORY) <= first and last <= done,
                f"visits of parameter {place}: no steps of its rows: expected numbers from {max(0, done - HISTORY)} to "
                f"{done}, got {first} … {last}; empty the folder, and load a checkpoint",
            )

    def lags(self) -> bool:
        """Whether any row may lag."""
        return any(visits[-1] for visits, _ in self._logs.values())

    def need_writeable(self, place: int, label: str) -> None:
        """Refuse states of a parameter that are read-only."""
        for name, state in self.states[place].items():
            checks.writeable(f"{name} of {label}", state)

    def begin(self, place: int, p: np.ndarray, initial: Mapping[str, First]) -> None:
        """Set the states of one parameter to their first values."""
        for name, first in initial.items():
            numbers.write(self.states[place][name], p, first.value)

    def continued(
        self, place: int, old: np.ndarray, p: np.ndarray, rows: np.ndarray, initial: Mapping[str, First]
    ) -> dict[str, np.ndarray]:
        """States for the array `p` that replaces a parameter. Row i continues the old row ``rows[i]``, or is new."""
        if self.folder is not None:
            raise ValueError(
                "replace: states are kept in a folder, whose arrays have fixed shapes; make a new optimizer"
            )
        found, goes_on = {}, rows >= 0
        for name, first in initial.items():
            state = found[name] = numbers.new(p, first)
            if goes_on.any():
                every = np.array(numbers.read(state, p))
                every[goes_on] = numbers.read(self.states[place][name], old)[rows[goes_on]]
                numbers.write(state, p, every)
        return found

    def reordered(self, old: np.ndarray, p: np.ndarray, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The states of a parameter for another array in its place. Bytes are put into the new memory order."""
        is_same = p is old or not any(map(numbers.in_blocks, states.values()))
        return states if is_same else self.of_order(numbers.order_of(old), p, states)

    def of_order(self, order: list[int], p: np.ndarray, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The states of `p`, with bytes moved from this order of axes to the memory order of `p`."""
        in_blocks = [name for name, state in states.items() if numbers.in_blocks(state)]
        if not in_blocks or order == numbers.order_of(p):
            return states
        if self.folder is not None:
            raise ValueError("state_dir: its 8-bit states are in the order of the old array's memory; keep that order")
        found, old = dict(states), numbers.in_order(p.shape, p.dtype, order)
        for name in in_blocks:
            found[name] = numbers.like(name, states[name], p, numbers.read(states[name], old))
        return found

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """If the block fails, undo the changes to a new folder, and unlock it."""
        try:
            yield
        except BaseException:
            if self.folder is not None:
                self.folder.undo()
                self.folder.close()  # the traceback would keep the folder alive and locked
            raise

    def commit(self, plan: Plan) -> None:
        """Mark the states as complete. From now on they belong to this plan."""
        if self.folder is not None:
            self.folder.commit()
            self.folder.on_leave = plan.close

    @property
    def is_open(self) -> bool:
        """Whether this store has locked a folder."""
        return self.folder is not None and self.folder.is_open

    def close(self) -> None:
        """Unlock the folder for another optimizer."""
        if self.folder is not None:
            self.folder.close()


def _slot(place: int, name: str, p: np.ndarray, first: First) -> Slot:
    """The slot of a state of the parameter `p`, number `place`. It is in C or Fortran order, like p."""
    shape, dtype = numbers.memory_of(p, first.dtype)
    return Slot(f"{place}.{name}", dtype, shape, "F" if np.isfortran(p) and not first.in_blocks else "C")


def _log_slots(place: int, p: np.ndarray, n_scalars: int) -> tuple[Slot, Slot]:
    """The slots of a log."""
    real = np.dtype(np.float64 if p.dtype.char in "dD" else np.float32)
    visits = Slot(f"{place}.visits", np.dtype(np.int64), (len(p) + 1,))
    return visits, Slot(f"{place}.history", real, (HISTORY, n_scalars + 1))


def continued_rows(name: str, rows: Any, new: np.ndarray, old: np.ndarray) -> np.ndarray | None:
    """For each row of `new`, the old row that it continues, or -1 for none. None if all rows stay.

    If `rows` is a single -1, all rows are new, and the array may have any shape.
    """
    if rows is None:
        if new.shape != old.shape:
            raise ValueError(
                f"rows: {name} had the shape {old.shape}, and would have {new.shape}; pass the old row that each new "
                "row continues, or -1 for a new one; rows=-1 makes all rows new"
            )
        checks.like(name, new, old)
        return None
    if type(rows) is int and rows == -1:
        return np.full(new.shape[:1], -1)
    numbers = checks.row_numbers("rows", rows)
    if new.ndim == 0 or len(numbers) != len(new):
        raise ValueError(f"rows: expected a number for each row of the new {new.shape}, got the shape {numbers.shape}")
    for bad in numbers[(numbers < -1) | (numbers >= len(old))]:
        raise ValueError(f"rows: expected -1 … {len(old) - 1}, the rows of the old {name}, got {bad}")
    if (numbers >= 0).any() and (new.shape[1:] != old.shape[1:] or new.dtype != old.dtype):
        was, now = (f"{a.dtype} of shape {('…', *a.shape[1:])}".replace("'", "") for a in (old, new))
        raise ValueError(
            f"rows: {name} was {was}, and would be {now}; rows go on only with equal ones; rows=-1 makes all rows new"
        )
    return numbers
