"""How parameters may be given, and gradients after them: one array, a sequence, a mapping, groups, an object.
Each structure knows its parameters' names and turns gradients of the same structure into a flat sequence.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from .kernel.checks import shown

Flatten = Callable[[Any], Sequence[Any]]


class Structure(NamedTuple):
    """The flat arrays of one structure, what flattens another of the same structure, and what builds one of others.

    `names` call them in messages (``params['W']``), `keys` in checkpoints (``W``).
    """

    names: list[str]
    keys: list[str]
    arrays: list[Any]
    flatten: Flatten
    build: Callable[[list[Any]], Any]


class GroupStructure(NamedTuple):
    """One group of parameters: its arrays, the options that it sets for itself, and whether it was given as a dict."""

    structure: Structure
    options: dict[str, Any]
    is_dict: bool = True


def is_object(params: Any) -> bool:
    """Whether `params` follows the article's protocol: an object with ``.parameters`` and ``.grad``."""
    return hasattr(params, "parameters") and hasattr(params, "grad") and not callable(params.parameters)


def read(params: Any, name: str = "params", grads: str = "grads") -> Structure:
    """The structure of `params`: an array, a sequence of arrays, or a mapping (or pairs) of names and arrays.

    `name` and `grads` are what messages call it and the gradients that are given after it.
    """
    params = list(params) if _is_sequence(name, params) else params
    if _is_pairs(params):
        params = _of_pairs(name, params)
    if isinstance(params, Mapping):
        keys = list(params)
        names = [f"{name}[{key!r}]" for key in keys]
        arrays = list(params.values())
        structure = Structure(names, _texts(keys), arrays, partial(_by_key, grads, keys), partial(_named, keys))
    elif isinstance(params, list):
        arrays = params
        names = [f"{name}[{k}]" for k in range(len(arrays))]
        structure = Structure(names, _texts(range(len(arrays))), arrays, partial(_by_place, grads, len(arrays)), list)
    else:
        return Structure([name], ["0"], [params], _alone, itemgetter(0))
    if not structure.arrays:
        raise ValueError(f"{name}: expected at least one array, got an empty {type(params).__name__}")
    return structure


def read_groups(params: Any) -> tuple[list[GroupStructure], Flatten]:
    """The groups of `params`, of which there is one unless it is a sequence of dicts, and what flattens gradients."""
    if _is_sequence("params", params):
        params = list(params)
    if not (isinstance(params, list) and params and all(isinstance(group, Mapping) for group in params)):
        structure = read(params)
        return [GroupStructure(structure, {}, is_dict=False)], structure.flatten
    groups = [read_group(k, group) for k, group in enumerate(params)]
    return groups, of_groups([group.structure for group in groups])


def read_group(k: int, group: Any) -> GroupStructure:
    """The structure of group number `k`, a dict with its arrays under ``"params"``."""
    if not isinstance(group, Mapping):
        raise TypeError(f"params[{k}]: expected a group as a dict with the key 'params', got {type(group).__name__}")
    if "params" not in group:
        raise ValueError(f"params[{k}]: expected a group with the key 'params', got the keys {list(group)}")
    options = {key: value for key, value in group.items() if key != "params"}
    return GroupStructure(read(group["params"], f"params[{k}]['params']", f"grads[{k}]"), options)


def of_groups(structures: list[Structure]) -> Flatten:
    """What flattens gradients that are given in several groups."""
    return partial(_by_group, [(len(structure.names), structure.flatten) for structure in structures])


def _texts(keys: Iterable[Any]) -> list[str]:
    """The keys as text, still all different: 1 and "1" are keys of one dict. Where even repr is one, their places."""
    keys = list(keys)
    texts = [key if isinstance(key, str) else repr(key) for key in keys]
    if len(set(texts)) < len(keys):
        texts = [repr(key) for key in keys]
    return texts if len(set(texts)) == len(keys) else [str(k) for k in range(len(keys))]


def _is_sequence(name: str, value: Any) -> bool:
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"{name}: a set has no order by which arrays are matched; pass a list or a dict")
    is_sparse = hasattr(value, "toarray")  # SciPy's, which say that they can be iterated
    return isinstance(value, Iterable) and not isinstance(value, (np.ndarray, Mapping, str, bytes)) and not is_sparse


def _is_pairs(value: Any) -> bool:
    """Whether these are names with arrays, as torch's named_parameters() and a dict's items() give."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    )


def _of_pairs(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError(f"{name}: expected different names, got {shown([key for key, _ in pairs])}")
    return named


def _named(keys: list[Any], arrays: list[Any]) -> dict[Any, Any]:
    return dict(zip(keys, arrays, strict=True))


def _alone(grads: Any) -> Sequence[Any]:
    return (grads,)


def _by_place(name: str, count: int, grads: Any) -> Sequence[Any]:
    if not isinstance(grads, (list, tuple)):
        if not _is_sequence(name, grads):
            raise TypeError(f"{name}: expected a sequence like params, got {type(grads).__name__}")
        grads = list(grads)
    if len(grads) != count:
        raise ValueError(f"{name}: expected {count} gradients, one a parameter, got {len(grads)}")
    return grads  # type: ignore[no-any-return]


def _by_key(name: str, keys: list[Any], grads: Any) -> Sequence[Any]:
    if not isinstance(grads, Mapping) and _is_sequence(name, grads):
        given = list(grads)
        grads = _of_pairs(name, given) if _is_pairs(given) else given
    if not isinstance(grads, Mapping):
        raise TypeError(f"{name}: expected a mapping like params, got {type(grads).__name__}")
    if len(grads) != len(keys) or any(key not in grads for key in keys):
        missing = shown([key for key in keys if key not in grads])
        unknown = shown([key for key in grads if key not in keys])
        raise ValueError(f"{name}: expected the keys of params; missing: {missing}, unknown: {unknown}")
    return [grads[key] for key in keys]


def _by_group(groups: list[tuple[int, Flatten]], grads: Any) -> Sequence[Any]:
    """Gradients a group: each the structure of its params, or a dict with it under 'grads' or 'params'; or all flat."""
    total = sum(count for count, _ in groups)
    if not _is_sequence("grads", grads):
        raise TypeError(f"grads: expected a sequence with an entry for each group, got {type(grads).__name__}")
    entries = list(grads)
    if len(entries) == total and all(isinstance(g, (np.ndarray, np.generic)) for g in entries):
        return entries
    if len(entries) != len(groups):
        raise ValueError(
            f"grads: expected {len(groups)} groups (or all {total} arrays in order), got {len(entries)} entries"
        )
    flat: list[Any] = []
    for (_, flatten), entry in zip(groups, entries, strict=True):
        if isinstance(entry, Mapping) and ("grads" in entry or "params" in entry):
            entry = entry["grads"] if "grads" in entry else entry["params"]
        flat.extend(flatten(entry))
    return flat
