"""`Snapshot`: the state of an optimizer as plain data. `fit` checks whether another state fits it.
All data is checked before anything is changed.
"""

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .. import options
from ..kernel.checks import counted, shown
from ..schedule import Schedule
from . import numbers
from .entries import VERSION, Fetch, entry_of, need_version
from .fitting import Slot, array_of
from .mismatch import mapping, need, need_names, need_same, saying
from .rates import Rates, encode

#: the options that determine how a group's states are stored
_STORAGE = ("state_dtype", "min_8bit_size")
#: the items of a group that a load does not change
KEPT = ("params", "name", "rows", *_STORAGE)
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
        """A copy with its own arrays."""
        return replace(
            self,
            groups=[_copied(group) for group in self.groups],
            steps=dict(self.steps),
            state={key: _copies(arrays) for key, arrays in self.state.items()},
            params={key: p.copy(order="K") for key, p in self.params.items()},  # 8-bit states have this memory order
        )

    def part(self, keys: Collection[str]) -> "Snapshot":
        """The part of the snapshot with these parameters, in all groups."""
        return replace(
            self,
            groups=[{**group, "params": [key for key in group["params"] if key in keys]} for group in self.groups],
            steps={key: count for key, count in self.steps.items() if key in keys},
            state={key: arrays for key, arrays in self.state.items() if key in keys},
            params={key: p for key, p in self.params.items() if key in keys},
        )

    def describe(self) -> dict[str, Any]:
        """Everything except the arrays. `encoded` makes it JSON.

        For parameters with 8-bit states, whose bytes do not show it, ``"shapes"`` has the shapes, and ``"orders"`` the
        axes from the slowest to the fastest in memory, if that is not C order.
        """
        blocks = {key: p for key, p in self.params.items() if any(map(numbers.in_blocks, self.state[key].values()))}
        layout = {"shapes": {key: list(p.shape) for key, p in blocks.items()}, "orders": numbers.orders(blocks)}
        return {
            "version": VERSION,
            "optimizer": self.optimizer,
            "t": self.t,
            "skipped": self.skipped,
            "seed": self.seed,
            "param_groups": [_copied(group) for group in self.groups],
            "steps": dict(self.steps),
            **{name: found for name, found in layout.items() if found},
        }

    def as_dict(self) -> dict[str, Any]:
        """The result of `Optimizer.state_dict`: the description, and copies of the states."""
        return {**self.describe(), "state": {key: _copies(arrays) for key, arrays in self.state.items()}}

    def arrays(self, params: bool) -> dict[str, np.ndarray]:
        """Entry of a file -> array: the states and, if wanted, the parameters."""
        found = {entry_of(key, name): array for key, arrays in self.state.items() for name, array in arrays.items()}
        return found | ({entry_of(key, "params"): p for key, p in self.params.items()} if params else {})


class Loaded(NamedTuple):
    """What was loaded, and what was not. Parameters are named by their keys.

    Attributes
    ----------
    missing : list of str
        Parameters of the optimizer that the checkpoint does not have.
    unexpected : list of str
        Parameters of the checkpoint that the optimizer does not have.
    unfit : list of str
        Parameters whose shape, dtype or states differ in the checkpoint. They did not change.
    options : list of str
        Options that did not change, such as ``param_groups[0]['lr']``: the checkpoint has no valid value for them.
    params : bool
        Whether the parameters themselves were loaded. A dict never has them.
    """

    missing: list[str]
    unexpected: list[str]
    unfit: list[str]
    options: list[str]
    params: bool


@dataclass
class Fit:
    """The checked parts of another state that an optimizer takes over.

    `steps` has the order of the parameters, `options` that of the groups. `pairs` has each array of the optimizer with
    its new one. `rates` has the schedules that change. `loaded` says what was left out.
    """

    t: int
    skipped: int
    seed: int
    steps: list[int]
    options: list[dict[str, Any]]
    pairs: list[tuple[np.ndarray, np.ndarray]]
    rates: Rates
    loaded: Loaded

    def copy_states(self) -> None:
        """Copy the new states into the optimizer's own arrays and schedules. Nothing can fail here."""
        for array, new in self.pairs:
            np.copyto(array, new)
        self.rates.commit()


def fit(
    own: Snapshot,
    source: str,
    meta: Mapping[str, Any],
    entries: Collection[str],
    fetch: Fetch,
    check: Check,
    strict: bool = True,
    convert: bool = False,
) -> Fit:
    """Check that a state fits the snapshot `own` of live arrays. An error names the `source`.

    Parameters
    ----------
    own : Snapshot
        The present state of the optimizer, with its live arrays.
    source : str
        The name of the other state in errors: a path, or ``state_dict``.
    meta : mapping
        The description of the other state, as from `Snapshot.describe`.
    entries : collection of str
        The entries of its arrays.
    fetch : callable
        Returns the array of an entry.
    check : callable
        ``check(k, name, value)`` returns the value to keep for option `name` of group `k`, or raises.
    strict : bool
        Whether everything must fit. If False, what does not fit is left out.
    convert : bool
        Whether to convert states of another dtype, or 8-bit states in another order, by rounding.

    Raises
    ------
    TypeError, ValueError
        If anything does not fit. Nothing has changed then.
    """
    need_version(source, meta.get("version"))
    need_same(f"{source}: optimizer", meta.get("optimizer"), own.optimizer)
    with saying(source):
        t, skipped = (options.steps_done(name, meta.get(name)) for name in ("t", "skipped"))
        seed = options.seed("seed", meta.get("seed"))
    groups, steps, rates = meta.get("param_groups"), mapping(f"{source}: steps", meta.get("steps")), Rates()
    slots = slots_of(own.params, own.state, source, meta, convert)
    if strict:
        part, loaded = own, Loaded([], [], [], [], has_params(entries))
        chosen = _fit_groups(own, source, groups, check, rates)
        counts = _fit_steps(source, steps, own.params, t)
    else:
        counts = _fit_steps(source, steps, steps, t)
        part, arrays, loaded = _common(own, source, steps, entries, fetch, slots)
        chosen = _common_options(part, source, groups, steps, check, rates, loaded.options)
        entries, fetch = arrays, arrays.__getitem__
    pairs = _fit_arrays(part, source, entries, fetch, slots)
    taken = [(counts if key in part.params else own.steps)[key] for key in own.params]
    if not (strict or part.params):
        t, skipped, seed = own.t, own.skipped, own.seed
    return Fit(max([t, *taken]), skipped, seed, taken, chosen, pairs, rates, loaded)


def fit_dict(
    own: Snapshot,
    given: Any,
    check: Check,
    is_own: Callable[[np.ndarray], bool],
    strict: bool = True,
    convert: bool = False,
) -> Fit:
    """Check that a dict, as from `Snapshot.as_dict`, fits the snapshot `own` of live arrays.

    ``is_own(array)`` says whether an incoming array may overlap the optimizer's. Such an array is copied: it could be
    overwritten before it is read. For `strict` and `convert` see `fit`.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a dict as state_dict() gives, got {type(given).__name__}")
    need_version("state_dict", given.get("version"))  # refuses the dicts of other libraries
    if strict:
        # first, because an error about options says more than one about missing states
        _fit_groups(own, "state_dict", given.get("param_groups"), check, Rates())
    state = mapping("state_dict['state']", given.get("state"))
    if not strict:
        given = _of_parameters(state, given)
    keys = own.state if strict else given["steps"]
    need_names("state_dict['state']", state, keys)
    found: dict[str, Any] = {}
    for key in keys:
        where = f"state_dict['state'][{key!r}]"
        arrays = mapping(where, state[key])
        need_names(where, arrays, own.state[key] if strict else set(arrays) - {"params"})
        found |= {entry_of(key, name): array for name, array in arrays.items()}

    def fetch(entry: str) -> Any:
        array = found[entry]
        return array.copy() if isinstance(array, np.ndarray) and is_own(array) else array

    return fit(own, "state_dict", given, found, fetch, check, strict, convert)


def _of_parameters(keys: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The description with only these parameters: a user may have removed others from ``"state"``."""
    steps = {key: count for key, count in mapping("state_dict: steps", given.get("steps")).items() if key in keys}
    came = given.get("param_groups")
    need(isinstance(came, list), f"state_dict: param_groups: expected a list, got {type(came).__name__}")
    groups = [mapping(f"state_dict: param_groups[{k}]", group) for k, group in enumerate(came)]  # type: ignore[arg-type]
    kept = [{**group, "params": [key for key in group.get("params", ()) if key in keys]} for group in groups]
    return {**given, "steps": steps, "param_groups": kept}


def has_params(entries: Collection[str]) -> bool:
    """Whether these entries of a file include parameters."""
    return any(entry.startswith("params/") for entry in entries)


def encoded(described: Mapping[str, Any]) -> dict[str, Any]:
    """A description in JSON types."""
    groups = described["param_groups"]
    for k, group in enumerate(groups):
        if not _is_json(group.get("extra")):
            raise TypeError(
                f"param_groups[{k}]['extra']: cannot be stored as JSON: {shown(group['extra'])}; expected None, True, "
                "False, numbers, text, and lists and dicts (with text as keys) of these"
            )
    plain = [{name: encode(value) if callable(value) else value for name, value in g.items()} for g in groups]
    return {**described, "param_groups": plain}


def _is_json(value: Any) -> bool:
    """Whether JSON can store this value. A tuple becomes a list."""
    try:
        if isinstance(value, dict):
            return all(isinstance(name, str) and _is_json(part) for name, part in value.items())
        if isinstance(value, (list, tuple)):
            return all(map(_is_json, value))
    except RecursionError:  # it contains itself
        return False
    return value is None or isinstance(value, (bool, int, float, str))


def _decode(name: str, value: Any, own: Any, rates: Rates) -> Any:
    """The option that `encoded` wrote. `own` is the optimizer's present value."""
    return copy.deepcopy(value) if name == "extra" else rates.decoded(name, value, own)


#: key of a parameter -> name of a state, or "params" -> the slot for an incoming array
Slots = dict[str, dict[str, Slot]]


def slots_of(
    params: Mapping[str, np.ndarray],
    state: Mapping[str, Mapping[str, np.ndarray]],
    source: str,
    meta: Mapping[str, Any],
    convert: bool,
) -> Slots:
    """The slots of these parameters and states. `meta` describes the incoming arrays."""
    shapes, orders = (mapping(f"{source}: {name}", meta.get(name, {})) for name in ("shapes", "orders"))
    for key, shape in shapes.items():
        is_shape = isinstance(shape, list) and all(type(n) is int for n in shape)
        need(is_shape, f"{source}: shapes: {shown(key)}: not a shape")
    for key, order in orders.items():
        is_order = isinstance(order, list) and all(type(axis) is int for axis in order)
        need(
            is_order and sorted(order) == list(range(len(order))),
            f"{source}: orders: {shown(key)}: not an order of axes",
        )
    found = {}
    for key, p in params.items():
        shape, order = tuple(shapes[key]) if key in shapes else p.shape, orders.get(key, range(p.ndim))
        states = {name: Slot(array, p, shape, order, convert) for name, array in state[key].items()}
        found[key] = {**states, "params": Slot(p, None, shape, order, convert)}
    return found


def _fit_arrays(
    own: Snapshot, source: str, entries: Collection[str], fetch: Fetch, slots: Slots
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of the optimizer's arrays and the new ones, with the parameters if the entries include them."""
    without = () if has_params(entries) else ("params",)
    named = ((key, name, slot) for key in own.params for name, slot in slots[key].items() if name not in without)
    wanted = {entry_of(key, name): slot for key, name, slot in named}
    need_names(source, entries, wanted)
    for entry, slot in wanted.items():
        need(slot.own.flags.writeable, f"{source}: {entry}: the optimizer's array is read-only")
    way_out = "; strict=False loads the parameters that fit"
    return [(wanted[entry].own, wanted[entry].taken(source, entry, fetch(entry), way_out)) for entry in entries]


def _fit_groups(own: Snapshot, source: str, groups: Any, check: Check, rates: Rates) -> list[dict[str, Any]]:
    """The new options of each group."""
    count = len(groups) if isinstance(groups, list) else None
    need(count == len(own.groups), f"{source}: expected {counted(len(own.groups), 'group')}, got {count}")
    chosen = []
    for k, mine in enumerate(own.groups):
        where = f"{source}: param_groups[{k}]"
        came = mapping(where, groups[k])
        need_names(where, {*came} | ({"rows"} & {*mine}), mine)  # "rows" is never loaded; older checkpoints lack it
        need_same(f"{where}['params']", came["params"], list(mine["params"]))
        with saying(where):
            names = [name for name in mine if name not in KEPT]
            chosen.append({name: check(k, name, _decode(name, came[name], mine[name], rates)) for name in names})
    return chosen


def _fit_steps(source: str, steps: Mapping[Any, Any], keys: Collection[str], t: int) -> dict[str, int]:
    """The step counts of the parameters `keys`."""
    need_names(f"{source}: steps", steps, keys)
    found = {}
    for key in keys:
        count = steps[key]
        if not (type(count) is int and 0 <= count <= t):  # rarely: the message is slow to make
            name = f"steps[{key!r}]"
            with saying(source):
                count = options.steps_done(name, count)
            need(count <= t, f"{source}: {name}: expected a whole number >= 0 and <= t = {t}, got {count}")
        found[key] = count
    return found


def _common(
    own: Snapshot, source: str, keys: Collection[str], entries: Collection[str], fetch: Fetch, slots: Slots
) -> tuple[Snapshot, dict[str, np.ndarray], Loaded]:
    """The part of `own` that fits the incoming parameters `keys`, the arrays for that part, and what is left out."""
    key_of = {entry_of(key, ""): key for key in keys}
    came: dict[str, dict[str, np.ndarray]] = {key: {} for key in keys}
    for entry in entries:
        name, slash, rest = entry.partition("/")
        need(slash + rest in key_of, f"{source}: {entry}: belongs to none of its parameters")
        came[key_of[slash + rest]][name] = array_of(f"{source}: {entry}", fetch(entry))
    shared = [key for key in own.params if key in came]
    fitting = [key for key in shared if _fits(slots[key], came[key])]
    arrays = {entry_of(key, name): array for key in fitting for name, array in came[key].items()}
    part = own.part(set(fitting))
    loaded = Loaded(
        missing=[key for key in own.params if key not in came],
        unexpected=[key for key in came if key not in own.params],
        unfit=[key for key in shared if key not in part.params],
        options=[],
        params=has_params(arrays),
    )
    return part, arrays, loaded


def _common_options(
    part: Snapshot, source: str, groups: Any, keys: Collection[str], check: Check, rates: Rates, kept: list[str]
) -> list[dict[str, Any]]:
    """The options of each group: those of the group that its parameters were in. `kept` collects options that stay."""
    need(isinstance(groups, list), f"{source}: param_groups: expected a list, got {type(groups).__name__}")
    came = [mapping(f"{source}: param_groups[{k}]", group) for k, group in enumerate(groups)]
    group_of = {key: group for group in came for key in group.get("params", ())}
    need_names(f"{source}: param_groups: params", group_of, keys)
    chosen = []
    for k, mine in enumerate(part.groups):
        found = {name: value for name, value in mine.items() if name not in KEPT}
        theirs = group_of[mine["params"][0]] if mine["params"] else {}
        for name in found if theirs else ():
            try:
                need(name in theirs, f"{name}: missing")
                found[name] = check(k, name, _decode(name, theirs[name], found[name], rates))
            except (TypeError, ValueError):
                kept.append(f"param_groups[{k}][{name!r}]")
        chosen.append(found)
    return chosen


def _fits(slots: Mapping[str, Slot], came: Mapping[str, np.ndarray]) -> bool:
    """Whether these arrays are all states of the parameter, with or without the parameter itself, and fit."""
    is_whole = came.keys() | {"params"} == slots.keys()
    return is_whole and not any(slots[name].unlike(array) for name, array in came.items())


def _copied(group: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the group that shares no object that can change."""
    found = {name: copy.deepcopy(value) if isinstance(value, Schedule) else value for name, value in group.items()}
    found["params"] = list(group["params"])
    if "extra" in group:
        found["extra"] = copy.deepcopy(group["extra"])  # the user's object may be anything
    return found


def _copies(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}
