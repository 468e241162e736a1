"""The memory of a run: one array with its parameters in a row, and one for their gradients.
If the caller's arrays already lie in a row, nothing is copied. `flat` makes such arrays.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core import has_blocks
from ..kernel import checks
from ..kernel._blocks import BLOCK
from ..kernel._follow import flattened
from ..kernel._stepper import are_same
from .layout import ALL, Array, Layout, Run


class Whole:
    """The checked whole parameters, which a plain optimizer would step.

    `keys` are their names in its checkpoints, `short_keys` the names within a group.
    """

    def __init__(self, params: Any) -> None:
        if tree.is_object(params):
            raise TypeError("params: expected arrays, got an object; pass its arrays, and its gradients to step()")
        self.tree = tree.read(params)
        self.names, self.keys = self.tree.names, self.tree.keys
        self.params: list[np.ndarray] = self.tree.arrays
        self._source_node = self.tree.source_node and self.tree.source_node.plain()
        self._grads_node = self.tree.grads_node and self.tree.grads_node.plain()
        self.short_keys = [key for branch in self.tree.branches for key in branch.keys]
        self.group_of = [k for k, branch in enumerate(self.tree.branches) for _ in branch.keys]
        #: each group's own options
        self.options = [branch.options or {} for branch in self.tree.branches]
        checks.parameters(self.names, self.params)
        for name, p in zip(self.names, self.params, strict=True):
            if p.dtype.kind == "c":
                raise TypeError(f"{name}: complex arrays are not divided among ranks; pass the real view, .view(float)")

    def refuse_doubles(self, option: str) -> None:
        """Refuse an option that float64 parameters cannot have."""
        for name, p in zip(self.names, self.params, strict=True):
            if p.dtype == np.float64:
                raise ValueError(f"{option}: {name} is float64, whose gradients are, too; leave {option} out")

    def flat_grads(self, grads: Any) -> list[Any]:
        """A flat list of the gradients, one for each parameter."""
        found = flattened(self._grads_node, grads)
        return self.tree.flatten(grads) if found is None else found

    def need_same_arrays(self) -> None:
        """Refuse a structure that no longer has the arrays that were cut into shares."""
        found = flattened(self._source_node, self.tree.source)
        if found is not None and are_same(found, self.params):
            return
        for name, p, now in zip(self.names, self.params, self.tree.read_again(), strict=True):
            if now is not p:
                raise ValueError(
                    f"{name}: is another array than the one that was cut into shares; write into the old one, or make "
                    "a new optimizer"
                )

    def need_writeable(self) -> None:
        """Refuse arrays that were made read-only later."""
        for name, p in zip(self.names, self.params, strict=True):
            checks.writeable(name, p)

    def layout(self, n_ranks: int, bucket_bytes: int, groups: Sequence[Mapping[str, Any]]) -> Layout:
        """The layout for `n_ranks` and groups with these options. 8-bit states are cut between blocks, so that the
        blocks are those of the whole parameter."""
        known = [
            [
                Array(p.size, p.dtype.name, BLOCK if has_blocks(group, p.size) else 1, max(row_size(p), 1))
                for p in branch.arrays
            ]
            for branch, group in zip(self.tree.branches, groups, strict=True)
        ]
        return Layout(known, n_ranks, bucket_bytes)


def row_size(p: np.ndarray) -> int:
    """The number of elements of a row."""
    return p.size // len(p) if p.ndim and len(p) else 1


class Memory:
    """The values and the gradients of a run's parameters, each in one array.

    `values` is the memory of the caller's arrays, if they lie in a row. Otherwise it is a buffer: `copy_in` copies the
    elements that will be stepped into it, and `copy_out` copies the parameters back.
    """

    def __init__(self, run: Run, params: Sequence[np.ndarray]) -> None:
        self._run = run
        self._params = {number: params[number] for number in run.params}
        own = list(self._params.values())
        memory = _one_memory(own)
        self.is_buffer = memory is None
        self.values: np.ndarray = np.zeros(run.starts[-1], own[0].dtype) if memory is None else memory
        self.grads = np.zeros(run.starts[-1], checks.computed_in(own[0]))

    def grads_by_param(self) -> dict[int, np.ndarray]:
        """Number of a parameter -> the array for its gradient."""
        return _views(self.grads, self._run, self._params)

    def copy_in(self, place: slice) -> None:
        """Copy these elements of the run from the parameters into the buffer."""
        if self.is_buffer:
            for piece, begin in self._run.pieces(place.start, place.stop):
                p = self._params[piece.param]
                elements = p.reshape(-1) if p.flags.c_contiguous else p.flat
                self.values[begin : begin + piece.end - piece.begin] = elements[piece.begin : piece.end]

    def copy_out(self, but: Collection[int] = ()) -> None:
        """Copy all parameters, `but` these, from the buffer into the caller's arrays."""
        if self.is_buffer:
            for number, values in _views(self.values, self._run, self._params).items():
                if number not in but:
                    self._params[number][...] = values


def flat(params: Any) -> Any:
    """Copy parameters into one contiguous piece of memory, so that `Sharded` need not copy them at each step.

    Parameters
    ----------
    params : array, sequence, mapping, or sequence of groups
        As for an optimizer.

    Returns
    -------
    The same structure, with new arrays of the same values. Arrays of the same dtype (and, if there are groups of
    several dtypes, of the same group) are views of one array, in a row. `Sharded` sends from there; it copies other
    arrays to a buffer and back. Call this before the training loop, and train with the result.

    Raises
    ------
    TypeError, ValueError
        For parameters that an optimizer would not take.

    Examples
    --------
    >>> import numpy as np
    >>> params = flat({"W": np.ones((2, 3)), "b": np.zeros(3)})
    >>> params["W"].base is params["b"].base
    True
    """
    whole = Whole(params)
    moved: dict[int, np.ndarray] = {}
    for run in whole.layout(1, ALL, [{} for _ in whole.options]).runs:
        own = {number: whole.params[number] for number in run.params}
        moved |= _views(np.concatenate([p.reshape(-1) for p in own.values()]), run, own)
    found = whole.tree.unflatten([moved[number] for number in range(len(moved))])
    if not whole.tree.is_grouped:
        return found
    return [{"params": arrays, **options} for arrays, options in zip(found, whole.options, strict=True)]


def _views(memory: np.ndarray, run: Run, params: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Number of a parameter of the run -> its part of `memory`, in its shape."""
    return {
        number: memory[start : start + params[number].size].reshape(params[number].shape)
        for number, start in zip(run.params, run.starts, strict=False)
    }


def _one_memory(params: list[np.ndarray]) -> np.ndarray | None:
    """The memory of arrays that lie in a row in another array. None if they do not."""
    filled = [p for p in params if p.size and p.flags.c_contiguous]
    root = _root(filled[0]) if filled else None
    if root is None or not (root.flags.c_contiguous and root.flags.writeable and root.flags.aligned):
        return None
    if sum(p.size for p in filled) != sum(p.size for p in params) or any(_root(p) is not root for p in filled):
        return None
    begins = [p.ctypes.data for p in filled]
    ends = [begin + p.nbytes for begin, p in zip(begins, filled, strict=True)]
    if begins[1:] != ends[:-1]:
        return None
    base = root.ctypes.data
    return np.asarray(root).reshape(-1).view(np.uint8)[begins[0] - base : ends[-1] - base].view(filled[0].dtype)


def _root(array: np.ndarray) -> np.ndarray:
    """The array that this one is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
