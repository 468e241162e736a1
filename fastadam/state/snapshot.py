"""A snapshot: the state of an optimizer as plain data, and whether another one fits it.
What is read is checked whole before anything is changed.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import options, schedules
from ..kernel.checks import counted
from .entries import VERSION, Fetch, entry_of, in_file, need_version
from .mismatch import mapping, need, need_names, need_same, saying

#: (number of a group, name of an option, value) -> the value to keep, or an error
Check = Callable[[int, str, Any], Any]


@dataclass
class Snapshot:
    """The state of an optimizer. The arrays are the live ones, or those of a `copy`.

    `groups` has the options of each group, and under ``"params"`` the keys of its parameters. `steps` has the step
    count of each parameter, `state` its arrays by name.
    """

    optimizer: str
    t: int
    skipped: int
    seed: int
    groups: list[dict[str, Any]]
    steps: dict[str, int]
    state: dict[str, dict[str, np.ndarray]]
    params: dict[str, np.ndarray]

    def copy(self) -> "Snapshot":
        """The same with arrays of its own."""
        return replace(
            self,
            groups=[{**group, "params": list(group["params"])} for group in self.groups],
            steps=dict(self.steps),
            state={key: _copies(arrays) for key, arrays in self.state.items()},
            params=_copies(self.params),
        )

    def describe(self) -> dict[str, Any]:
        """All but the arrays: JSON, where `encode` writes the options that are functions."""
        return {
            "version": VERSION,
            "optimizer": self.optimizer,
            "t": self.t,
            "skipped": self.skipped,
            "seed": self.seed,
            "param_groups": [{**group, "params": list(group["params"])} for group in self.groups],
            "steps": dict(self.steps),
        }

    def as_dict(self) -> dict[str, Any]:
        """What `Optimizer.state_dict` returns: the description, and copies of the states."""
        return {**self.describe(), "state": {key: _copies(arrays) for key, arrays in self.state.items()}}

    def arrays(self, params: bool) -> dict[str, np.ndarray]:
        """Entry of a file -> array: the states and, if wanted, the parameters."""
        found = {entry_of(key, name): array for key, arrays in self.state.items() for name, array in arrays.items()}
        return found | ({entry_of(key, "params"): p for key, p in self.params.items()} if params else {})


@dataclass
class Fit:
    """What another state has for an optimizer, checked.

    `steps` are in the order of the parameters, `options` in that of the groups. `pairs` are the optimizer's own arrays
    and the new ones.
    """

    t: int
    skipped: int
    seed: int
    steps: list[int]
    options: list[dict[str, Any]]
    pairs: list[tuple[np.ndarray, np.ndarray]]

    def copy_arrays(self) -> None:
        """Copy the new arrays into the optimizer's own. Nothing can fail here."""
        for array, new in self.pairs:
            np.copyto(array, new)


def fit(
    own: Snapshot, source: str, meta: Mapping[str, Any], entries: Collection[str], fetch: Fetch, check: Check
) -> Fit:
    """Check that a state fits the snapshot `own` of live arrays; an error names the `source`.

    Parameters
    ----------
    own : Snapshot
        The optimizer as it is, with its live arrays.
    source : str
        What errors call the state: a path, ``state_dict``.
    meta : mapping
        The description, as `Snapshot.describe` gives it.
    entries : collection of str
        The entries of the arrays that there are.
    fetch : callable
        Brings the array of an entry.
    check : callable
        ``check(k, name, value)`` returns the value to keep for option `name` of group `k`, or raises.

    Raises
    ------
    TypeError, ValueError
        If anything does not fit. Nothing has changed then.
    """
    found = _fit_description(own, source, meta, check)
    found.pairs = _fit_arrays(own, source, entries, fetch)
    return found


def fit_dict(own: Snapshot, given: Any, check: Check, is_own: Callable[[np.ndarray], bool]) -> Fit:
    """Check that a dict, as `Snapshot.as_dict` gives it, fits the snapshot `own` of live arrays.

    ``is_own(array)`` says whether an array that came may overlap the optimizer's. Such an array is copied: it might be
    overwritten before it is read.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a dict as state_dict() gives, got {type(given).__name__}")
    fitting = _fit_description(own, "state_dict", given, check)
    state = mapping("state_dict['state']", given.get("state"))
    need_names("state_dict['state']", state, own.state)
    found: dict[str, Any] = {}
    for key, mine in own.state.items():
        where = f"state_dict['state'][{key!r}]"
        arrays = mapping(where, state[key])
        need_names(where, arrays, mine)
        found |= {entry_of(key, name): array for name, array in arrays.items()}

    def fetch(entry: str) -> Any:
        array = found[entry]
        return array.copy() if isinstance(array, np.ndarray) and is_own(array) else array

    fitting.pairs = _fit_arrays(own, "state_dict", found, fetch)
    return fitting


def encode(value: Any) -> Any:
    """An option that JSON has no form for: a learning rate that is a function."""
    return value.to_json() if isinstance(value, schedules.Schedule) else {"function": repr(value)}


def _decode(name: str, value: Any, own: Any) -> Any:
    """The option that `encode` wrote; `own` is the optimizer's, which stays where a function was not kept."""
    if not isinstance(value, dict):
        return value
    if set(value) != {"function"}:
        return schedules.from_json(value)
    need(callable(own), f"{name}: was a function, which a file does not keep; assign it first")
    return own


def _fit_description(own: Snapshot, source: str, meta: Mapping[str, Any], check: Check) -> Fit:
    """All but the arrays."""
    need_version(source, meta.get("version"))
    need_same(f"{source}: optimizer", meta.get("optimizer"), own.optimizer)
    with saying(source):
        t, skipped = (options.count(name, meta.get(name)) for name in ("t", "skipped"))
        seed = options.seed("seed", meta.get("seed"))
    chosen = _fit_groups(own, source, meta.get("param_groups"), check)
    steps = _fit_steps(own, source, meta.get("steps"), t)
    return Fit(t, skipped, seed, steps, chosen, pairs=[])


def _fit_arrays(
    own: Snapshot, source: str, entries: Collection[str], fetch: Fetch
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The optimizer's own arrays, and the new ones: of the parameters too, where those came."""
    arrays = own.arrays(params=any(entry.startswith("params/") for entry in entries))
    need_names(source, entries, arrays)
    for entry, array in arrays.items():
        need(array.flags.writeable, f"{source}: {entry}: the optimizer's array is read-only")
    return [(array, _like(f"{source}: {entry}", fetch(entry), array)) for entry, array in arrays.items()]


def _fit_groups(own: Snapshot, source: str, groups: Any, check: Check) -> list[dict[str, Any]]:
    """The options to keep of each group."""
    count = len(groups) if isinstance(groups, list) else None
    need(count == len(own.groups), f"{source}: expected {counted(len(own.groups), 'group')}, got {count}")
    chosen = []
    for k, mine in enumerate(own.groups):
        where = f"{source}: param_groups[{k}]"
        came = mapping(where, groups[k])
        need_names(where, came, mine)
        need_same(f"{where}['params']", came["params"], list(mine["params"]))
        with saying(where):
            names = [name for name in mine if name != "params"]
            chosen.append({name: check(k, name, _decode(name, came[name], mine[name])) for name in names})
    return chosen


def _fit_steps(own: Snapshot, source: str, came: Any, t: int) -> list[int]:
    """The step counts, in the order of the parameters."""
    steps = mapping(f"{source}: steps", came)
    need_names(f"{source}: steps", steps, own.params)
    found = []
    for key in own.params:
        name = f"steps[{key!r}]"
        with saying(source):
            count = options.count(name, steps[key])
        need(count <= t, f"{source}: {name}: expected a whole number >= 0 and <= t = {t}, got {count}")
        found.append(count)
    return found


def _like(where: str, came: Any, own: np.ndarray) -> np.ndarray:
    """An array that came, perhaps as `in_file` gives it, as one of the optimizer's own: it must fit."""
    need(isinstance(came, np.ndarray), f"{where}: expected a numpy array, got {type(came).__name__}")
    need(came.shape == own.shape, f"{where}: expected shape {own.shape}, got {came.shape}")
    need(in_file(came).dtype == in_file(own).dtype, f"{where}: expected dtype {own.dtype}, got {came.dtype}")
    return came.view(own.dtype)  # type: ignore[no-any-return]


def _copies(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}
