"""How parameters may be given, and gradients after them: one array, a sequence, a mapping, groups, an object.
Each structure knows its parameters' names and turns gradients of the same structure into a flat sequence.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Flatten = Callable[[Any], Sequence[Any]]


class Structure(NamedTuple):
    """The flat arrays of one structure, their names, and what flattens another of the same structure."""

    names: list[str]
    arrays: list[Any]
    flatten: Flatten


class GroupStructure(NamedTuple):
    """One group of parameters: its arrays, and the options that it sets for itself."""

    structure: Structure
    options: dict[str, Any]


def is_object(params: Any) -> bool:
    """Whether `params` follows the article's protocol: an object with ``.parameters`` and ``.grad``."""
    return hasattr(params, "parameters") and hasattr(params, "grad") and not callable(params.parameters)


def read(params: Any, name: str = "params") -> Structure:
    """The structure of `params`: an array, a sequence of arrays, or a mapping from names to arrays."""
    if isinstance(params, Mapping):
        keys = list(params)
        names = [f"{name}[{key!r}]" for key in keys]
        structure = Structure(names, list(params.values()), lambda grads: _by_key(keys, grads))
    elif _is_sequence(params):
        arrays = list(params)
        names = [f"{name}[{k}]" for k in range(len(arrays))]
        structure = Structure(names, arrays, lambda grads: _by_place(len(arrays), grads))
    else:
        return Structure([name], [params], lambda grads: (grads,))
    if not structure.arrays:
        raise ValueError(f"{name}: expected at least one array, got an empty {type(params).__name__}")
    return structure


def read_groups(params: Any) -> tuple[list[GroupStructure], Flatten]:
    """The groups of `params`, of which there is one unless it is a sequence of dicts, and what flattens gradients."""
    if _is_sequence(params):
        params = list(params)
    if not (isinstance(params, list) and params and all(isinstance(group, Mapping) for group in params)):
        structure = read(params)
        return [GroupStructure(structure, {})], structure.flatten
    groups = []
    for k, group in enumerate(params):
        if "params" not in group:
            raise ValueError(f"params[{k}]: expected a group with the key 'params', got the keys {list(group)}")
        options = {key: value for key, value in group.items() if key != "params"}
        groups.append(GroupStructure(read(group["params"], f"params[{k}]['params']"), options))
    return groups, lambda grads: _by_group(groups, grads)


def _is_sequence(value: Any) -> bool:
    if isinstance(value, (set, frozenset)):
        raise TypeError("params: a set has no order to match gradients with; pass a list or a dict")
    return isinstance(value, Iterable) and not isinstance(value, (np.ndarray, Mapping, str, bytes))


def _by_place(count: int, grads: Any) -> Sequence[Any]:
    if not isinstance(grads, (list, tuple)):
        if isinstance(grads, (np.ndarray, Mapping)) or not isinstance(grads, Iterable):
            raise TypeError(f"grads: expected a sequence like params, got {type(grads).__name__}")
        grads = list(grads)
    if len(grads) != count:
        raise ValueError(f"grads: expected {count} gradients, one a parameter, got {len(grads)}")
    return grads  # type: ignore[no-any-return]


def _by_key(keys: list[Any], grads: Any) -> Sequence[Any]:
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a mapping like params, got {type(grads).__name__}")
    if len(grads) != len(keys) or any(key not in grads for key in keys):
        missing = [key for key in keys if key not in grads]
        unknown = [key for key in grads if key not in keys]
        raise ValueError(f"grads: expected the keys of params; missing: {missing}, unknown: {unknown}")
    return [grads[key] for key in keys]


def _by_group(groups: list[GroupStructure], grads: Any) -> Sequence[Any]:
    """Gradients a group: each the structure of its params, or a dict with it under 'grads' or 'params'; or all flat."""
    total = sum(len(group.structure.arrays) for group in groups)
    if isinstance(grads, (np.ndarray, Mapping)) or not isinstance(grads, Iterable):
        raise TypeError(f"grads: expected a sequence with an entry for each group, got {type(grads).__name__}")
    entries = list(grads)
    if len(entries) == total and all(isinstance(g, np.ndarray) for g in entries):
        return entries
    if len(entries) != len(groups):
        raise ValueError(
            f"grads: expected {len(groups)} groups (or all {total} arrays in order), got {len(entries)} entries"
        )
    flat: list[Any] = []
    for group, entry in zip(groups, entries, strict=True):
        if isinstance(entry, Mapping) and ("grads" in entry or "params" in entry):
            entry = entry["grads"] if "grads" in entry else entry["params"]
        flat.extend(group.structure.flatten(entry))
    return flat
