"""The structure of parameters and of their gradients: any nesting of dicts, lists and tuples, groups, or an object.
A tree knows names and arrays. Its nodes describe the structure to `kernel._follow`, which reads it at each step, and
flattens gradients. The slower functions of this module do the same, and say what is wrong.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np

from .kernel.checks import counted, has_buffer, shown


class HasParameters(Protocol):
    """An object with ``parameters``, and with their gradients in ``grad``, as in `fastadam.adapters.article`."""

    parameters: Any
    grad: Any


#: arrays in any nesting of dicts, lists and tuples; a list of groups, which are dicts; or an object
Params = np.ndarray | Iterable[Any] | Mapping[Any, Any] | HasParameters
#: gradients in the structure of the parameters; for groups also a sequence for each, or dicts with ``"grads"``
Grads = np.ndarray | Iterable[Any] | Mapping[Any, Any]

#: how a node holds its children: in a row, by key; or a single child: under a key, as an attribute, after its name
SEQUENCE, MAPPING, ITEM, ATTRIBUTE, PAIR = range(5)
#: an object with one of these is an array of some library, even if it can be iterated
_OF_ARRAYS = ("__array__", "__array_interface__", "__dlpack__", "toarray")
#: the most levels of a structure; a structure that contains itself has no end
_DEEPEST = 50


class Node(NamedTuple):
    """A container in a structure. None stands for a leaf. If `children` is None, all `n` children are leaves."""

    kind: int
    keys: tuple[Any, ...]
    children: tuple["Node | None", ...] | None
    n: int

    def plain(self) -> tuple[Any, ...]:
        """The node as a tuple of tuples, for compiled code."""
        below = self.children
        return self.kind, self.keys, None if below is None else tuple(c and c.plain() for c in below), self.n


class Leaf(NamedTuple):
    """One array of a structure: its name in messages, and the keys that lead to it."""

    name: str
    path: tuple[Any, ...]
    array: Any


class Branch(NamedTuple):
    """The parameters of one group: their source, the node by which it is read, and the node of the gradients."""

    source: Any
    source_node: Node | None
    grads_node: Node | None
    names: list[str]  # the names of the arrays in messages, after the `label`
    keys: list[str]
    arrays: list[Any]
    label: str = "params"
    grads: str = "grads"  # the name of the gradients in messages
    options: dict[str, Any] | None = None  # of a group that was given as a dict
    group: Any = None  # the name of the group, if it has one

    def called(self, group: Any, k: int) -> "Branch":
        """The same branch as group number `k` with this name, or with none."""
        unnamed = "params" if self.options is None else f"params[{k}]['params']"
        return self._replace(group=group, label=unnamed if group is None else f"group {group!r}")


class Tree:
    """The structure of all parameters: a branch for each group."""

    def __init__(self, branches: Sequence[Branch], owner: Any = None, model: "Tree | None" = None) -> None:
        self.branches = list(branches)
        #: the object with these ``.parameters``, and with the gradients in ``.grad``
        self.owner = owner
        #: if the parameters are averages, the tree of the averaged arrays
        self.model = model
        self.names = [f"{branch.label}{name}" for branch in branches for name in branch.names]
        self.keys = _all_keys(self.branches)
        self.places = {key: k for k, key in enumerate(self.keys)}
        first = self.branches[0]
        self.is_grouped = len(self.branches) > 1 or first.options is not None
        if self.is_grouped:
            self.source: Any = [branch.source for branch in branches]
            self.source_node: Node | None = _node(SEQUENCE, (), [branch.source_node for branch in branches])
            grads = tuple(branch.grads_node for branch in branches)
            self.grads_node: Node | None = Node(SEQUENCE, (), grads, len(grads))  # a leaf may be given as a dict here
        else:
            self.source, self.source_node, self.grads_node = first.source, first.source_node, first.grads_node
        if owner is not None:
            self.source, self.source_node = owner, Node(ATTRIBUTE, ("parameters",), (self.source_node,), 1)
        if model is not None:
            self.grads_node = model.source_node

    @property
    def arrays(self) -> list[Any]:
        """The arrays that were given."""
        return [array for branch in self.branches for array in branch.arrays]

    def with_group(self, branch: Branch) -> "Tree":
        """The same structure with one more group."""
        return self._of([*self.branches, branch])

    def with_names(self, groups: Sequence[Any]) -> "Tree":
        """The same structure, with these names of the groups."""
        named = zip(self.branches, groups, strict=True)
        return self._of([branch.called(name, k) for k, (branch, name) in enumerate(named)])

    def with_array(self, k: int, array: Any) -> "Tree":
        """Put another array, as number `k`, into the structure that was given. A tuple is replaced by a new one."""
        try:
            source = _put(self.source_node, self.source, k, array)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise TypeError(f"{self.names[k]}: cannot be put into the structure that was given: {error}") from error
        if source is self.source:  # always true with groups, or with an object
            return self
        return self._of([self.branches[0]._replace(source=source)])

    def without_arrays(self) -> "Tree":
        """The same structure without references to arrays: a tree must not keep replaced arrays alive."""
        return self._of([branch._replace(arrays=[]) for branch in self.branches])

    def for_steps(self) -> tuple["Tree", Any, Any, Any]:
        """What a `Follower` keeps of this structure: all but the arrays, the source, and the nodes as plain tuples."""
        source_node, grads_node = (node and node.plain() for node in (self.source_node, self.grads_node))
        return self.without_arrays(), self.source, source_node, grads_node

    def of_averages(self, arrays: Iterable[np.ndarray], options: Sequence[dict[str, Any] | None]) -> "Tree":
        """The structure of the averages of these parameters, built of dicts and lists. At each step the arrays in this
        tree take the place of the gradients. `options` are those of each group."""
        rest, branches = iter(arrays), []
        for branch, own in zip(self.branches, options, strict=True):
            found = list(islice(rest, len(branch.names)))
            source, node = _unflatten(branch.grads_node, iter(found)), branch.grads_node
            if own is not None:
                source, node = {"params": source}, Node(ITEM, ("params",), (node,), 1)
            branches.append(branch._replace(source=source, source_node=node, arrays=found, options=own))
        return Tree(branches, model=self.without_arrays())

    def _of(self, branches: Sequence[Branch]) -> "Tree":
        return Tree(branches, self.owner, self.model)

    def grads_with_group(self, grads: Any, new: Any) -> Any:
        """The structure of gradients with one group more: `grads`, and `new` for the last group."""
        if len(self.branches) == 2 and self.branches[0].options is None:
            return [grads, new]
        if len(grads) == len(self.branches) - 1:
            return [*grads, new]
        return [*grads, *_flatten(self.branches[-1].grads_node, new, self.branches[-1].grads)]

    def flatten(self, grads: Any, frozen: Sequence[bool] | None = None) -> list[Any]:
        """A flat list of the gradients, one for each parameter. An error names the place of a wrong structure.

        The gradients of `frozen` groups are not read: they are None in the list.
        """
        if self.model is not None:
            return self.model.read_again()
        frozen = frozen or [False] * len(self.branches)
        if not self.is_grouped:
            return [None] * len(self.names) if frozen[0] else list(_flatten(self.grads_node, grads, "grads"))
        flat = self._flatten_groups(grads, frozen)
        rest = iter(flat)
        given = [list(islice(rest, len(branch.names))) for branch in self.branches]
        return [None if out else g for out, own in zip(frozen, given, strict=True) for g in own]

    def read_again(self) -> list[Any]:
        """The arrays that the structure now holds."""
        try:
            found = list(_flatten(self.source_node, self.source, "params"))
            again = list(_flatten(self.source_node, self.source, "params"))
        except RecursionError:  # not the fault of the structure; it may come from a signal handler
            raise
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            what = "params:" if self.owner is None else "params: .parameters"
            text = f"{what} does not have the structure that it had at construction: {error}"
            raise (TypeError if isinstance(error, (TypeError, AttributeError)) else ValueError)(text) from error
        if any(one is not other for one, other in zip(found, again, strict=True)):
            raise TypeError("params: gives another array at each read, so a step in place would be lost")
        return found

    def unflatten(self, arrays: Iterable[Any]) -> Any:
        """Arrays, one for each parameter, in this structure. With groups it is a list with an item for each group."""
        rest = iter(arrays)
        built = [_unflatten(branch.grads_node, rest) for branch in self.branches]
        return built if self.is_grouped else built[0]

    def _flatten_groups(self, grads: Any, frozen: Sequence[bool]) -> list[Any]:
        """A flat list of gradients given by group: each in the structure of the group's params, or a dict that has it
        under 'grads' or 'params'. `grads` may also be a flat list."""
        total = len(self.names)
        if not _is_sequence(grads):
            raise TypeError(f"grads: expected a sequence with an entry for each group, got {type(grads).__name__}")
        entries = list(grads)
        if len(entries) == total and not any(_is_sequence(g) or isinstance(g, Mapping) for g in entries):
            return entries
        if len(entries) != len(self.branches):
            allowed = f"{counted(len(self.branches), 'group')} (or {counted(total, 'array')} in order)"
            raise ValueError(f"grads: expected {allowed}, got {counted(len(entries), 'entry', 'entries')}")
        flat: list[Any] = []
        for branch, entry, is_out in zip(self.branches, entries, frozen, strict=True):
            if is_out:
                entry = None
            if isinstance(entry, Mapping) and ("grads" in entry or "params" in entry):
                entry = entry["grads"] if "grads" in entry else entry["params"]
            flat.extend(_flatten(branch.grads_node, entry, branch.grads))
        return flat


def read(params: Any) -> Tree:
    """The tree of what an optimizer was given: arrays in any structure, groups, or an object."""
    if isinstance(params, Tree):
        return params
    owner = params if is_object(params) else None
    params = listed(params if owner is None else owner.parameters)
    if isinstance(params, (list, tuple)) and any(isinstance(group, Mapping) and "params" in group for group in params):
        return Tree([read_group(k, group) for k, group in enumerate(params)], owner)
    return Tree([_branch(params, "params")], owner)


def read_group(k: int, group: Any) -> Branch:
    """The branch of group number `k`, a dict with its arrays under ``"params"``."""
    if not isinstance(group, Mapping):
        raise TypeError(f"params[{k}]: expected a group as a dict with the key 'params', got {type(group).__name__}")
    if "params" not in group:
        raise ValueError(f"params[{k}]: expected a group with the key 'params', got the keys {shown(list(group))}")
    branch = _branch(group["params"], f"params[{k}]['params']", may_be_empty=True)
    options = {key: value for key, value in group.items() if key != "params"}
    if branch.source is group["params"]:
        branch = branch._replace(source=group, source_node=Node(ITEM, ("params",), (branch.source_node,), 1))
    return branch._replace(grads=f"grads[{k}]", options=options).called(options.get("name"), k)


def is_object(params: Any) -> bool:
    """Whether `params` is an object with ``.parameters`` and ``.grad``."""
    return hasattr(params, "parameters") and hasattr(params, "grad") and not callable(params.parameters)


def listed(value: Any) -> Any:
    """A list of what can be read only once, such as a generator. Any other value as it is."""
    return list(value) if _is_sequence(value) and not isinstance(value, Sequence) else value


# ---------------------------------------------------------------- reading a structure


def _branch(params: Any, name: str, may_be_empty: bool = False) -> Branch:
    leaves: list[Leaf] = []
    params = listed(params)
    source_node, grads_node = _read(params, name, (), leaves)
    if not (leaves or may_be_empty):
        raise ValueError(f"{name}: expected at least one array, got an empty {type(params).__name__}")
    arrays = [leaf.array for leaf in leaves]
    names = [leaf.name.removeprefix(name) for leaf in leaves]
    return Branch(params, source_node, grads_node, names, _keys(leaves), arrays)


def _read(value: Any, name: str, path: tuple[Any, ...], leaves: list[Leaf]) -> tuple[Node | None, Node | None]:
    """The nodes of a structure and of its gradients. The leaves are added to `leaves`."""
    if len(path) > _DEEPEST:
        raise ValueError(f"{name}: expected a structure of at most {_DEEPEST} levels; does it hold itself?")
    if isinstance(value, Mapping):
        keys = list(value)
        children = [_read(value[key], f"{name}[{key!r}]", (*path, key), leaves) for key in keys]
        return _both(MAPPING, keys, children)
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"{name}: a set has no order by which arrays are matched; pass a list or a dict")
    if not (_is_sequence(value) and isinstance(value, Sequence)):
        leaves.append(Leaf(name, path, value))
        return None, None
    values = list(value)
    if is_pairs(values):
        keys = list(_of_pairs(name, values))
        children = [_read(part, f"{name}[{key!r}]", (*path, key), leaves) for key, part in values]
        sources = [Node(PAIR, (key,), (source,), 1) for key, (source, _) in zip(keys, children, strict=True)]
        return _node(SEQUENCE, (), sources), _node(MAPPING, keys, [grads for _, grads in children])
    fields = getattr(value, "_fields", range(len(values)))  # of a named tuple
    children = [
        _read(part, f"{name}[{k}]", (*path, field), leaves)
        for k, (field, part) in enumerate(zip(fields, values, strict=True))
    ]
    return _both(SEQUENCE, [], children)


def _both(kind: int, keys: Sequence[Any], children: list[tuple[Node | None, Node | None]]) -> tuple[Node, Node]:
    return _node(kind, keys, [source for source, _ in children]), _node(kind, keys, [grads for _, grads in children])


def _node(kind: int, keys: Sequence[Any], children: Sequence[Node | None]) -> Node:
    is_flat = all(child is None for child in children)
    return Node(kind, tuple(keys), None if is_flat else tuple(children), len(children))


def _keys(leaves: list[Leaf]) -> list[str]:
    """The keys of the arrays in checkpoints: unique texts. A path is joined from the str keys themselves, and repr of
    other keys. If two paths give the same text (1 and "1"), repr is used for all; if that fails, the position."""
    if leaves and not leaves[0].path:
        return ["0"]
    for text in (lambda key: key if isinstance(key, str) else repr(key), repr):
        keys = [".".join(map(text, leaf.path)) for leaf in leaves]
        if len(set(keys)) == len(keys):
            return keys
    return [str(k) for k in range(len(leaves))]


def _all_keys(branches: Sequence[Branch]) -> list[str]:
    """The keys of all groups. With several groups, the name of the group comes first, or its number."""
    if len(branches) == 1:
        return list(branches[0].keys)
    named = [f"{k if b.group is None else b.group}.{key}" for k, b in enumerate(branches) for key in b.keys]
    if len(set(named)) == len(named):
        return named
    return [f"{k}.{key}" for k, branch in enumerate(branches) for key in branch.keys]


def _is_sequence(value: Any) -> bool:
    """Whether a value is a sequence of others. Arrays and models, of whatever library, are not."""
    is_array = has_buffer(value) or any(hasattr(value, name) for name in _OF_ARRAYS)
    is_model = hasattr(value, "parameters")
    is_other = isinstance(value, (Mapping, str, set, frozenset))
    return isinstance(value, Iterable) and not (is_array or is_model or is_other)


def is_pairs(value: Any) -> bool:
    """Whether these are pairs of names and arrays, as from torch's named_parameters() or a dict's items()."""
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


# ---------------------------------------------------------------- reading what has a known structure


def _flatten(node: Node | None, value: Any, name: str) -> Iterator[Any]:
    if node is None:
        yield value
        return
    children = node.children or (None,) * node.n
    if value is None:  # stands for all leaves below
        for child in children:
            yield from _flatten(child, None, name)
        return
    if node.kind == SEQUENCE:
        keys, parts = range(node.n), _by_place(name, node.n, value)
    elif node.kind == MAPPING:
        keys, parts = node.keys, _by_key(name, list(node.keys), value)  # type: ignore[assignment]
    elif node.kind == ITEM:
        keys, parts = node.keys, [value[node.keys[0]]]  # type: ignore[assignment]
    elif node.kind == PAIR:
        keys, parts = node.keys, [_second(name, node.keys[0], value)]  # type: ignore[assignment]
    else:
        yield from _flatten(children[0], getattr(value, node.keys[0]), f".{node.keys[0]}")
        return
    for key, child, part in zip(keys, children, parts, strict=True):
        yield from _flatten(child, part, f"{name}[{key!r}]")


def _way_out(name: str) -> str:
    """The advice for a missing gradient."""
    return "; pass None for a parameter that has no gradient" if name.startswith("grads") else ""


def _second(name: str, key: str, pair: Any) -> Any:
    """The second item of a pair, after its name."""
    if pair[0] != key:
        raise ValueError(f"{name}: expected the pair of {key!r}, got that of {pair[0]!r}")
    return pair[1]


def _by_place(name: str, count: int, values: Any) -> Sequence[Any]:
    if isinstance(values, (set, frozenset)):
        raise TypeError(f"{name}: a set has no order by which arrays are matched; pass a list or a dict")
    if not _is_sequence(values):
        raise TypeError(f"{name}: expected a sequence like params, got {type(values).__name__}")
    found = list(values)
    if len(found) != count:
        one, each = ("gradient", ", one for each parameter") if name.startswith("grads") else ("part", "")
        raise ValueError(f"{name}: expected {counted(count, one)}{each}, got {len(found)}{_way_out(name)}")
    return found


def _by_key(name: str, keys: list[Any], values: Any) -> Sequence[Any]:
    if isinstance(values, (set, frozenset)):
        raise TypeError(f"{name}: a set has no order by which arrays are matched; pass a list or a dict")
    if not isinstance(values, Mapping) and _is_sequence(values):
        given = list(values)
        values = _of_pairs(name, given) if is_pairs(given) else given
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a mapping like params, got {type(values).__name__}")
    if len(values) != len(keys) or any(key not in values for key in keys):
        missing = shown([key for key in keys if key not in values])
        unknown = shown([key for key in values if key not in keys])
        came = f"missing: {missing}, unknown: {unknown}"
        raise ValueError(f"{name}: expected the keys of params; {came}{_way_out(name)}")
    return [values[key] for key in keys]


def _unflatten(node: Node | None, rest: Iterator[Any]) -> Any:
    if node is None:
        return next(rest)
    built = [_unflatten(child, rest) for child in node.children or (None,) * node.n]
    return dict(zip(node.keys, built, strict=True)) if node.kind == MAPPING else built


# ---------------------------------------------------------------- writing into a structure


def _put(node: Node | None, value: Any, k: int, array: Any) -> Any:
    """The structure with `array` as leaf number `k`: the same object, or a new one if a tuple holds the leaf.

    There is one assignment, into the innermost container that can be changed.
    """
    if node is None:
        return array
    children = node.children or (None,) * node.n
    place = 0
    while k >= _count(children[place]):
        k -= _count(children[place])
        place += 1
    if node.kind == ATTRIBUTE:
        name = node.keys[0]
        old = getattr(value, name)
        new = _put(children[0], old, k, array)
        if new is not old:
            setattr(value, name, new)
        return value
    key = place if node.kind == SEQUENCE else 1 if node.kind == PAIR else node.keys[place]
    new = _put(children[place], value[key], k, array)
    if new is value[key]:
        return value
    if isinstance(value, tuple):
        parts = [*value[:key], new, *value[key + 1 :]]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    value[key] = new
    return value


def _count(node: Node | None) -> int:
    """The number of leaves."""
    return 1 if node is None else sum(map(_count, node.children)) if node.children else node.n
