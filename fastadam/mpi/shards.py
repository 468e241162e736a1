"""The state of a sharded optimizer: one rank's share as plain data, the values that must be equal on all ranks, and the
whole state as a dict. `shard_files` has the checkpoints in files.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from .. import options
from ..kernel._blocks import n_bytes
from ..kernel.checks import counted
from ..state.atomic import path_from
from ..state.entries import entry_of, need_version
from ..state.mismatch import Mismatch, mapping, need, need_names, need_same
from ..state.numbers import in_blocks, memory_of, zeros
from ..state.rates import encode
from ..state.snapshot import Check, Fit, Loaded, Snapshot, fit_dict, slots_of
from .layout import Layout, Piece
from .memory import Whole
from .ranks import Disagreement, Ranks


@dataclass(frozen=True)
class Shard:
    """One rank's share of a sharded optimizer, as plain data.

    `own` is the snapshot of this rank's `pieces`, in the same order, with live arrays of one dimension. `whole` has the
    whole parameters, and `layout` says which rank steps them. `number` is the number of this optimizer on the
    communicator. `hyper` has the hyper-parameters of each group in the next step, by name.
    """

    own: Snapshot
    pieces: Sequence[Piece]
    whole: Whole
    layout: Layout
    number: int
    hyper: Sequence[Mapping[str, float]]

    def is_told_by(self, rank: int) -> bool:
        """Whether this rank tells its states to others. If every rank has all states, only the first does."""
        return rank < self.layout.n_ranks

    def keys(self) -> list[str]:
        """For each piece, the key of its whole parameter."""
        return [self.whole.keys[piece.param] for piece in self.pieces]

    def states(self) -> list[dict[str, np.ndarray]]:
        """The states of the pieces, in their order."""
        return [self.own.state[key] for key in self.own.params]

    def describe(self, steps: Mapping[str, int]) -> dict[str, Any]:
        """Everything except the arrays, for whole parameters, as in the plain optimizer's checkpoints."""
        described, whole = self.own.describe(), self.whole
        for k, group in enumerate(described["param_groups"]):
            group["params"] = [key for key, number in zip(whole.keys, whole.group_of, strict=True) if number == k]
        described.pop("shapes", None)  # these are shapes of pieces
        return {**described, "steps": dict(steps)}

    def of_pieces(self, source: str, came: Mapping[str, Any]) -> dict[str, Any]:
        """A description of whole parameters, turned into one of this rank's pieces. Refuses other parameters."""
        own, mine = self.describe({})["param_groups"], self.own.groups
        groups = came.get("param_groups")
        need(isinstance(groups, list) and len(groups) == len(own), f"{source}: expected {counted(len(own), 'group')}")
        found = []
        for k, (group, whole, pieces) in enumerate(zip(groups, own, mine, strict=True)):  # type: ignore[arg-type]
            group = mapping(f"{source}: param_groups[{k}]", group)
            need_same(f"{source}: param_groups[{k}]['params']", group.get("params"), whole["params"])
            found.append({**group, "params": list(pieces["params"])})
        steps = mapping(f"{source}: steps", came.get("steps"))
        need_names(f"{source}: steps", steps, self.whole.keys)
        own_steps = {key: steps[of] for key, of in zip(self.own.params, self.keys(), strict=True)}
        pieces = {name: value for name, value in came.items() if name not in ("shapes", "orders")}
        return {**pieces, "param_groups": found, "steps": own_steps}


#: a context manager that prevents steps and gives the Shard
Held = Callable[[], AbstractContextManager[Shard]]
#: gives the checked state to the optimizer; the second argument says whether it has parameters. It cannot fail
Commit = Callable[[Fit, bool], None]


def stored(state: np.ndarray, begin: int, end: int) -> slice:
    """The place of a parameter's elements begin … end in an array with the storage of this state. For bytes, `begin` is
    the begin of a block: the bytes of all pieces in a row are those of the parameter."""
    return slice(n_bytes(begin), n_bytes(end)) if in_blocks(state) else slice(begin, end)


def state_dir(value: Any, ranks: Ranks) -> Path:
    """This rank's folder within the common folder."""
    return path_from("state_dir", value) / f"rank-{ranks.rank}-of-{ranks.size}"


@contextmanager
def folder_opened(number: int) -> Iterator[None]:
    """Add advice to the error if a folder has states of other pieces. `number` of ranks share the elements now."""
    try:
        yield
    except Mismatch as error:
        now = "nothing is divided" if number == 1 else f"shares are those of {number} ranks"
        raise Mismatch(
            f"{error}; now {now}: a folder that was made with another replicate_below or bucket_bytes is opened with "
            "these; or save() there, and load() here"
        ) from None


# ---------------------------------------------------------------- values that must be equal on all ranks


def description(shard: Shard, **more: Any) -> dict[str, Any]:
    """The values that must be equal on all ranks when an optimizer is made, with `more` from the caller."""
    described, whole = shard.describe({}), shard.whole
    counts = {name: value for name, value in described.items() if name not in ("param_groups", "steps")}
    arrays = zip(whole.keys, whole.params, strict=True)
    return {
        **{f"shape and dtype of {key}": (p.shape, p.dtype.name) for key, p in arrays},
        "keys of the parameters": whole.keys,
        **more,
        **counts,
        **chosen(shard),
    }


def chosen(shard: Shard) -> dict[str, Any]:
    """The options and keys of the groups, as in checkpoints."""
    return {
        f"{name} of group {k}": _said(value)
        for k, group in enumerate(shard.describe({})["param_groups"])
        for name, value in group.items()
    }


def _said(value: Any) -> Any:
    """An option in a form that is equal on all ranks. The repr of a function is not."""
    told = encode(value) if callable(value) else value
    return "a function" if callable(value) and set(told) == {"function"} else told


def numbers(t: int, seed: int, hyper: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The values that must be equal on all ranks in a step: the counts and the present hyper-parameters."""
    named = {f"{name} of group {k}": value for k, group in enumerate(hyper) for name, value in group.items()}
    return {"t": t, "seed": seed, **named}


def same(shard: Shard) -> dict[str, Any]:
    """The values that must be equal on all ranks when their states are joined."""
    counted = numbers(shard.own.t, shard.own.seed, shard.hyper)
    return {"number": shard.number, **counted, **chosen(shard)}


def whole_steps(what: str, ranks: Ranks, shard: Shard) -> dict[str, int]:
    """The step count of each whole parameter, from an act of all ranks. All pieces of a parameter have its count."""
    counts = [shard.own.steps[key] for key in shard.own.params]
    own = [(piece.param, count) for piece, count in zip(shard.pieces, counts, strict=True)]
    found: dict[int, tuple[int, int]] = {}  # the first rank that has a piece, and its count
    told = ranks.comm.allgather(own)
    with ranks.all_or_none(f"{what}: the steps") as agree:
        for rank, pieces in enumerate(told):
            for param, count in pieces:
                first, kept = found.setdefault(param, (rank, count))
                if kept != count:
                    key, said = shard.whole.keys[param], f"{kept} on rank {first}; {count} on rank {rank}"
                    raise Disagreement(f"{what}: the ranks disagree in the steps of {key}: {said}; nothing has changed")
        agree({})
    return {key: found[number][1] for number, key in enumerate(shard.whole.keys)}


# ---------------------------------------------------------------- the whole state as a dict


def state_dict(ranks: Ranks, held: Held) -> dict[str, Any]:
    """See `Sharded.state_dict`."""
    with ExitStack() as stack:
        with ranks.all_or_none("state_dict") as agree:
            shard = stack.enter_context(held())
            agree(same(shard))
        steps, whole = whole_steps("state_dict", ranks, shard), shard.whole
        own = list(zip(shard.pieces, shard.states(), strict=True)) if shard.is_told_by(ranks.rank) else []
        state: dict[str, dict[str, np.ndarray]] = {key: {} for key in whole.keys}
        for pieces in ranks.comm.allgather(own):
            for piece, arrays in pieces:
                p = whole.params[piece.param]
                for name, array in arrays.items():
                    found = state[whole.keys[piece.param]].setdefault(name, np.empty(*memory_of(p, array.dtype)))
                    found.reshape(-1)[stored(array, piece.begin, piece.end)] = array
        arrays = zip(whole.keys, whole.params, strict=True)
        shapes = {key: list(p.shape) for key, p in arrays if any(map(in_blocks, state[key].values()))}
        return {**shard.describe(steps), **({"shapes": shapes} if shapes else {}), "state": state}


def need_strict(strict: Any) -> None:
    """Refuse ``strict=False``. The plain optimizer can load a part, and its dict can be passed to this one."""
    if not options.flag("strict", strict):
        raise TypeError(
            "strict: a sharded optimizer loads all or nothing, got strict=False; load into the plain optimizer with "
            "strict=False, and pass its state_dict() to this one"
        )


def load_state_dict(
    ranks: Ranks,
    held: Held,
    given: Any,
    strict: Any,
    convert: Any,
    check: Check,
    is_own: Callable[[np.ndarray], bool],
    commit: Commit,
) -> Loaded:
    """See `Sharded.load_state_dict`."""
    with ranks.all_or_none("load_state_dict") as agree, held() as shard:
        need_strict(strict)
        convert = options.flag("convert", convert)
        if not isinstance(given, Mapping):
            raise TypeError(f"state_dict: expected a dict as state_dict() gives, got {type(given).__name__}")
        need_version("state_dict", given.get("version"))
        described = shard.of_pieces("state_dict", given)
        whole, state = shard.whole, mapping("state_dict['state']", given.get("state"))
        need_names("state_dict['state']", state, whole.keys)
        pieces = _pieces(shard, given, state, convert)
        found = fit_dict(shard.own, {**described, "state": pieces}, check, is_own)
        counts = {"t": found.t, "skipped": found.skipped, "seed": found.seed, "convert": convert}
        if shard.layout.n_ranks == 1:  # else each state comes from one rank
            counts["checksum of the states"] = _checksum(pieces)
        agree({"number": shard.number, **counts, "steps": [given["steps"][key] for key in whole.keys]})
        commit(found, False)
    return found.loaded


def _checksum(state: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """The checksum of these states, which must be equal on all ranks if every rank has all states."""
    arrays = [array for arrays in state.values() for _, array in sorted(arrays.items())]
    return reduce(lambda told, array: zlib.crc32(array.tobytes(), told), arrays, 0)


def _pieces(shard: Shard, given: Mapping[str, Any], state: Mapping[str, Any], convert: bool) -> dict[str, Any]:
    """The states of this rank's pieces, cut from incoming states of whole parameters, in the storage of its own."""
    found: dict[str, Any] = {}
    wholes: dict[int, dict[str, np.ndarray]] = {}
    for label, key, piece, own in zip(shard.own.params, shard.keys(), shard.pieces, shard.states(), strict=True):
        came = mapping(f"state_dict['state'][{key!r}]", state[key])
        if came.keys() != own.keys():
            found[label] = came  # `fit_dict` will refuse it
        elif piece.begin == piece.end:
            found[label] = own
        else:
            if piece.param not in wholes:
                wholes[piece.param] = _whole(key, shard.whole.params[piece.param], own, given, came, convert)
            found[label] = {
                name: array[stored(array, piece.begin, piece.end)] for name, array in wholes[piece.param].items()
            }
    return found


def _whole(
    key: str,
    given_p: np.ndarray,
    own: Mapping[str, np.ndarray],
    given: Mapping[str, Any],
    came: Mapping[str, Any],
    convert: bool,
) -> dict[str, np.ndarray]:
    """The incoming states of a whole parameter, flat and in C order, in the storage of its piece's states `own`."""
    p = np.empty(given_p.shape, given_p.dtype)
    like = {name: zeros(p, state) for name, state in own.items()}
    slots = slots_of({key: p}, {key: like}, "state_dict", given, convert)[key]
    return {name: slots[name].taken("state_dict", entry_of(key, name), came[name]).reshape(-1) for name in came}
