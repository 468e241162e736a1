"""The states and counts of an optimizer as plain arrays, in memory or in a folder of memory-mapped files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..kernel import checks
from ..kernel._plan import Plan
from ..kernel._segments import state_like
from ..rules import Rule
from .folder import Folder

States = list[dict[str, np.ndarray]]


class Store:
    """`states` are those of each parameter by name, in its rule's order; `counts` is the array that a plan owns."""

    def __init__(self, state_dtype: Any, states: States, counts: np.ndarray, folder: Folder | None = None) -> None:
        self.state_dtype, self.states, self.counts, self.folder = state_dtype, states, counts, folder

    @classmethod
    def new(
        cls,
        settings: Mapping[str, Any],
        optimizer: str,
        rules: Sequence[Rule],
        keys: Sequence[str],
        params: Sequence[Any],
    ) -> "Store":
        """A store for the states of these parameters: in the folder ``state_dir``, where one is given."""
        folder, state_dtype = None, settings["state_dtype"]
        if settings["state_dir"] is not None:
            description = {
                "optimizer": optimizer,
                "rules": [rule.name for rule in rules],
                "params": [[key, list(p.shape), p.dtype.name] for key, p in zip(keys, params, strict=True)],
                "state_dtype": None if state_dtype is None else state_dtype.name,
                "master_weights": settings["master_weights"],
            }
            folder = Folder(settings["state_dir"], description, 3 + len(params))
        counts = np.zeros(3 + len(params), np.int64) if folder is None else folder.counts
        return cls(state_dtype, [], counts, folder)

    def add(self, params: Sequence[np.ndarray], initial: Sequence[Mapping[str, Any]]) -> None:
        """Add the states of these parameters; `initial` says of each what they hold at first, by name."""
        for p, values in zip(params, initial, strict=True):
            place = len(self.states)
            self.states.append({name: self._new(place, p, name, value) for name, value in values.items()})

    def _new(self, place: int, p: np.ndarray, name: str, value: Any) -> np.ndarray:
        dtype = checks.computed_in(p) if name == "master" or self.state_dtype is None else self.state_dtype
        state: np.ndarray = state_like(p, dtype) if self.folder is None else self.folder.array(place, name, p, dtype)
        is_new = self.folder is None or self.folder.is_new
        if is_new and (name == "master" or value):  # memory that stays zero need not be touched
            state[...] = value
        return state

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
