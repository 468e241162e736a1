"""The states and counts of an optimizer as plain arrays, in memory or in a folder of memory-mapped files."""

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
from .folder import Folder
from .mismatch import need
from .numbers import First

States = list[dict[str, np.ndarray]]
#: for rows that lag, `visits` and `history`: see `kernel._lag`
Log = tuple[np.ndarray, np.ndarray]


class Store:
    """`states` are those of each parameter by name, in its rule's order; `counts` is the array that a plan owns."""

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
        exact: Sequence[bool],
    ) -> "Store":
        """A store with the states of these parameters: in the folder ``state_dir``, where one is given.

        `initial` says of each parameter what its states hold at first, by name; `exact` whether its rows may lag.
        """
        folder = None
        if settings["state_dir"] is not None:
            named = dict(zip(keys, params, strict=True))
            in_blocks = [any(first.in_blocks for first in values.values()) for values in initial]
            description = {
                "optimizer": optimizer,
                "rules": [rule.name for rule in rules],
                "params": [[key, list(p.shape), p.dtype.name] for key, p in named.items()],
                "orders": numbers.orders(dict(compress(named.items(), in_blocks))),
                "state_dtype": [{name: first.dtype.name for name, first in values.items()} for values in initial],
                "master_weights": settings["master_weights"],
                "exact_rows": list(compress(keys, exact)),
            }
            folder = Folder(settings["state_dir"], description, 3 + len(params))
        counts = np.zeros(3 + len(params), np.int64) if folder is None else folder.counts
        store = cls([], counts, folder)
        with store.undone_on_error():
            store.add(params, initial)
        return store

    def add(self, params: Sequence[np.ndarray], initial: Sequence[Mapping[str, First]]) -> None:
        """Add the states of these parameters."""
        for p, values in zip(params, initial, strict=True):
            place = len(self.states)
            self.states.append({name: self._new(place, p, name, first) for name, first in values.items()})

    def _new(self, place: int, p: np.ndarray, name: str, first: First) -> np.ndarray:
        if self.folder is None:
            return numbers.new(p, first)
        state = self.folder.array(place, name, p, first.dtype)
        if self.folder.is_new:
            numbers.begin(state, p, first)
        elif first.in_blocks and state.size:
            numbers.need_heads(f"state_dir: {self.folder.path}: {name} of parameter {place}", state, first)
        return state

    def log(self, place: int, p: np.ndarray, n_scalars: int) -> Log:
        """Where rows of the parameter `p`, number `place`, note what they miss: what is there, if it fits."""
        shapes = (len(p) + 1,), (HISTORY, n_scalars + 1)
        dtypes = np.dtype(np.int64), np.dtype(np.float64 if p.dtype.char in "dD" else np.float32)
        wanted = list(zip(shapes, dtypes, strict=True))
        known = self._logs.get(place)
        if known is None or [(array.shape, array.dtype) for array in known] != wanted:
            visits, history = (
                np.zeros(*own) if self.folder is None else self.folder.plain(place, name, *own)
                for name, own in zip(("visits", "history"), wanted, strict=True)
            )
            self._need_visits(place, visits)
            known = self._logs[place] = visits, history
        return known

    def _need_visits(self, place: int, visits: np.ndarray) -> None:
        """Refuse what no optimizer has noted: `history` would be read where it is not."""
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

    def begin(self, place: int, p: np.ndarray, initial: Mapping[str, First]) -> None:
        """Have the states of one parameter hold what they held at first."""
        for name, first in initial.items():
            numbers.write(self.states[place][name], p, first.value)

    def continued(
        self, place: int, old: np.ndarray, p: np.ndarray, rows: np.ndarray, initial: Mapping[str, First]
    ) -> dict[str, np.ndarray]:
        """States for the array `p` in the place of a parameter: row i is that of the old row ``rows[i]``, or new."""
        if self.folder is not None:
            raise ValueError("replace: states are kept in a folder, whose files are of one shape; make a new optimizer")
        found, goes_on = {}, rows >= 0
        for name, first in initial.items():
            state = found[name] = numbers.new(p, first)
            if goes_on.any():
                every = np.array(numbers.read(state, p))
                every[goes_on] = numbers.read(self.states[place][name], old)[rows[goes_on]]
                numbers.write(state, p, every)
        return found

    def reordered(self, old: np.ndarray, p: np.ndarray, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The states of a parameter for another array in its place: bytes are in the order of its memory."""
        is_same = p is old or not any(map(numbers.in_blocks, states.values()))
        return states if is_same else self.of_order(numbers.order_of(old), p, states)

    def of_order(self, order: list[int], p: np.ndarray, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The states of `p`, whose bytes are in this order, in that of its memory."""
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
        """Leave a new folder as it was, and let go of it, where making the optimizer fails."""
        try:
            yield
        except BaseException:
            if self.folder is not None:
                self.folder.undo()
                self.folder.close()  # which the traceback would keep locked
            raise

    def commit(self, plan: Plan) -> None:
        """The states are whole, and those of this plan from now on."""
        if self.folder is not None:
            self.folder.commit()
            self.folder.on_leave = plan.close

    @property
    def is_open(self) -> bool:
        """Whether there is a folder that no other optimizer can use."""
        return self.folder is not None and self.folder.is_open

    def close(self) -> None:
        """Let another optimizer use the folder."""
        if self.folder is not None:
            self.folder.close()


def continued_rows(name: str, rows: Any, new: np.ndarray, old: np.ndarray) -> np.ndarray | None:
    """Which old row each row of the array in the place of `old` continues, −1 for none; None where all stay.

    A single −1 says that all of them are new: then the array may have any shape.
    """
    if rows is None:
        if new.shape != old.shape:
            raise ValueError(
                f"rows: {name} had the shape {old.shape}, and would have {new.shape}; say which old row each new one "
                "continues, -1 for one that is new; rows=-1 begins anew"
            )
        checks.like(name, new, old)
        return None
    if type(rows) is int and rows == -1:
        return np.full(new.shape[:1], -1)
    numbers = checks.row_numbers("rows", rows)
    if new.ndim == 0 or len(numbers) != len(new):
        raise ValueError(f"rows: expected one number a row of the new {new.shape}, got the shape {numbers.shape}")
    for bad in numbers[(numbers < -1) | (numbers >= len(old))]:
        raise ValueError(f"rows: expected -1 … {len(old) - 1}, the rows of the old {name}, got {bad}")
    if (numbers >= 0).any() and (new.shape[1:] != old.shape[1:] or new.dtype != old.dtype):
        was, now = (f"{a.dtype} of shape {('…', *a.shape[1:])}".replace("'", "") for a in (old, new))
        raise ValueError(f"rows: {name} was {was}, and would be {now}; only rows of equal ones go on, -1 begins anew")
    return numbers
