"""Averages of torch's parameters: `fastadam.Average` for views of the tensors' memory."""

from typing import Any

import torch

from .. import average, tree
from ..kernel._swapped import swapped
from ..state.snapshot import Loaded
from .tensors import changed, steppable


class _Swapped(swapped):
    """The block of `Average.swapped`. It tells autograd that the tensors were written, before and after."""

    average: "Average"
    held: tuple[tuple[int, torch.Tensor, int], ...] = ()  # number, a tensor over the same memory, and its address

    def __enter__(self) -> None:
        held = self.average._hold()
        super().__enter__()
        self.held = held
        self._tell()

    def __exit__(self, *error: object) -> None:
        for k, tensor, address in self.held:
            if tensor.data_ptr() != address:  # it was shared with other processes
                self.moved(k, steppable("params", tensor))
        try:
            super().__exit__(*error)
        finally:
            self._tell()

    def _tell(self) -> None:
        changed([tensor for _, tensor, _ in self.held] + self.average._given)


class Average(average.Average):
    """`fastadam.Average` for CPU tensors of torch. It replaces torch's `AveragedModel`, without a second model.

    Parameters
    ----------
    params : Module, iterable, or mapping
        A module, its ``parameters()`` or ``named_parameters()``, or tensors in any nesting of dicts, lists and tuples.
        The memory of a tensor is looked up at each update: it may have moved, for example by ``p.data = …``.
    decay, first, backend, n_threads
        See `fastadam.Average`.

    Notes
    -----
    ``params`` are tensors over the memory of the averages. Buffers of a module are not averaged: within ``swapped()``
    the model keeps its own, as with ``use_buffers=False`` in `AveragedModel`.

    Examples
    --------
    >>> import torch
    >>> from fastadam.adapters.torch import Adam, Average
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer, average = Adam(model.parameters()), Average(model, decay=0.99)
    >>> for _ in range(5):
    ...     optimizer.zero_grad()
    ...     model(torch.ones(2, 3)).square().mean().backward()
    ...     _ = optimizer.step()
    ...     average.update()
    >>> with average.swapped():
    ...     bool(torch.equal(model.weight, average.params["weight"]))
    False
    """

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        tensors = tree.read(dict(params.named_parameters()) if isinstance(params, torch.nn.Module) else params)
        if tensors.is_grouped:
            raise TypeError("params: expected tensors without groups; groups have no options of their own here")
        super().__init__(_views(tensors, tensors.arrays), *args, **kwargs)
        self._tensors: tree.Tree = tensors.without_arrays()
        self._given: list[torch.Tensor] = []  # tensors over the averages, as `params` has them

    @property  # type: ignore[misc]
    def params(self) -> Any:  # type: ignore[override]
        """The averages, in the structure of the tensors."""
        arrays = self.core.plan.params
        # a copy has none, and others after `replace`; torch has no address of an empty array
        if [t.data_ptr() for t in self._given] != [array.ctypes.data if array.size else 0 for array in arrays]:
            self._given = [torch.from_numpy(array) for array in arrays]
        return self._tensors.unflatten(self._given)

    def update(self) -> None:
        """Update the averages with the present values of the tensors; see `fastadam.Average.update`."""
        self._look()
        super().update()
        changed(self._given)

    def swapped(self) -> swapped:
        """Within a block, the tensors hold the averages; see `fastadam.Average.swapped`.

        The tensors' storages cannot be resized from then on: the end of the block writes to them.
        """
        block = _Swapped(self.core)
        block.average = self
        return block

    def _hold(self) -> tuple[tuple[int, torch.Tensor, int], ...]:
        """See `_Swapped.held`. Marks the storages, so that nobody resizes them before the block ends."""
        self._look()
        held = [(k, tensor.detach()) for k, tensor in enumerate(self._tensors.read_again()) if tensor is not None]
        for _, tensor in held:
            torch.empty(0, dtype=torch.uint8, device="cpu").set_(tensor.untyped_storage()).numpy()
        return tuple((k, tensor, tensor.data_ptr()) for k, tensor in held)

    def __getstate__(self) -> dict[str, Any]:
        self._look()  # a copy reads them
        return super().__getstate__() | {"_given": []}

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Loaded:
        """Continue from a dict; see `fastadam.Average.load_state_dict`."""
        found = super().load_state_dict(*args, **kwargs)
        changed(self._given)
        return found

    def load(self, *args: Any, **kwargs: Any) -> Loaded:
        """Continue from a file; see `fastadam.Average.load`."""
        found = super().load(*args, **kwargs)
        changed(self._given)
        return found

    def reset(self, names: Any = None) -> None:
        """Restart, with copies of the tensors; see `fastadam.Average.reset`."""
        self._look()
        super().reset(names)
        changed(self._given)

    def replace(self, name: str, array: Any, rows: Any = None) -> None:
        """Average another tensor in place of an old one; see `fastadam.Average.replace`."""
        super().replace(name, steppable(name, array), rows)
        self._tensors = self._tensors.with_array(self._tensors.keys.index(name), array).without_arrays()

    def _look(self) -> None:
        """Update the views to the present memory of the tensors."""
        self.core.bound.update(_views(self._tensors, self._tensors.read_again()))


def _views(structure: tree.Tree, tensors: list[Any]) -> dict[str, Any]:
    """Key -> an array over the memory of the tensor; None where there is no tensor."""
    for name, tensor in zip(structure.names, tensors, strict=True):
        if not isinstance(tensor, (torch.Tensor, type(None))):
            kind = type(tensor).__name__
            raise TypeError(f"{name}: expected a tensor, got {kind}; fastadam.Average takes NumPy's arrays")
    named = zip(structure.keys, structure.names, tensors, strict=True)
    return {key: None if tensor is None else steppable(name, tensor) for key, name, tensor in named}
