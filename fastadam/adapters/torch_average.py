"""Averages of torch's parameters: `fastadam.Average` over views of the tensors' memory."""

from typing import Any

import torch

from .. import average, tree
from ..kernel._swapped import swapped
from .tensors import steppable


class Average(average.Average):
    """`fastadam.Average` of torch's tensors on the CPU: what `AveragedModel` is used for, without a second model.

    Parameters
    ----------
    params : Module, iterable, or mapping
        A module, its ``parameters()`` or ``named_parameters()``, or tensors in any nesting of dicts, lists and tuples.
        A tensor's memory is looked at anew at each update: it may have moved, as by ``p.data = …``.
    decay, first, backend, n_threads
        See `fastadam.Average`.

    Notes
    -----
    ``params`` are tensors, in the memory of the averages. Buffers of a module are no parameters: within ``swapped()``
    they are the model's own, as those of an `AveragedModel` with ``use_buffers=False``.

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
            raise TypeError("params: expected tensors without groups; an average has no options of groups here")
        super().__init__(_views(tensors, tensors.arrays), *args, **kwargs)
        self._tensors: tree.Tree = tensors.without_arrays()

    @property  # type: ignore[misc]
    def params(self) -> Any:  # type: ignore[override]
        """The averages, in the structure of the tensors."""
        return self._tensors.unflatten(map(torch.from_numpy, self.core.plan.params))

    def update(self) -> None:
        """Take the tensors as they are now into the averages; see `fastadam.Average.update`."""
        self._look()
        super().update()

    def swapped(self) -> swapped:
        """Within a block, the tensors have the averages for values; see `fastadam.Average.swapped`."""
        self._look()
        return super().swapped()

    def reset(self, names: Any = None) -> None:
        """Begin anew, with copies of the tensors; see `fastadam.Average.reset`."""
        self._look()
        super().reset(names)

    def replace(self, name: str, array: Any, rows: Any = None) -> None:
        """Average another tensor in the place of one; see `fastadam.Average.replace`."""
        super().replace(name, steppable(name, array), rows)
        self._tensors = self._tensors.with_array(self._tensors.keys.index(name), array).without_arrays()

    def _look(self) -> None:
        """Have views of the memory that the tensors have now."""
        self.core.bound.update(_views(self._tensors, self._tensors.read_again()))


def _views(structure: tree.Tree, tensors: list[Any]) -> dict[str, Any]:
    """The memory of tensors by their keys, as arrays; None where there is none."""
    for name, tensor in zip(structure.names, tensors, strict=True):
        if not isinstance(tensor, (torch.Tensor, type(None))):
            kind = type(tensor).__name__
            raise TypeError(f"{name}: expected a tensor, got {kind}; fastadam.Average takes NumPy's arrays")
    named = zip(structure.keys, structure.names, tensors, strict=True)
    return {key: None if tensor is None else steppable(name, tensor) for key, name, tensor in named}
