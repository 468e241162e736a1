"""torch's tensors as arrays: views of their memory, and the errors for tensors without such a view."""

from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from ..kernel import checks
from ..kernel._rows import Rows
from ..kernel.sparse import as_rows
from ._tensors import Lent

#: torch's dtype -> NumPy's name of it; int64 is that of the rows of a sparse gradient
_DTYPES = {getattr(torch, name): name for name in (*checks.DTYPES, "int64")}
#: what `__torch_dispatch__` is in classes whose tensors are their memory, and nothing else
_IS_MEMORY = torch.Tensor.__torch_dispatch__
_increment: Any = torch.autograd.graph.increment_version
#: name of a class or kind of tensors -> the way to tensors that can be stepped
_WAYS = {"DTensor": ".to_local()", "NestedTensor": ".values(), or .unbind()", "FakeTensor": "a tensor with memory"}


def changed(tensors: list[torch.Tensor]) -> None:
    """Tell autograd that the memory of these tensors was written. It then refuses what it has saved of them."""
    try:
        _increment(tensors)
    except TypeError:  # older versions of torch take one tensor
        for tensor in tensors:
            _increment(tensor)


def steppable(what: str, tensor: Any) -> np.ndarray:
    """The memory of a tensor to step, as an array."""
    array = view(what, tensor)
    if array.dtype.name not in checks.DTYPES:
        raise unfit(what, tensor)
    if checks.repeats(array):
        raise ValueError(f"{what}: several of its elements share memory; use .contiguous()")
    return array


def view(what: str, tensor: Any) -> np.ndarray:
    """The tensor's memory as an array. The storage can still be resized later; see `Lent`."""
    if is_lazy(tensor):
        raise ValueError(f"{what}: has no shape before the first call of its lazy module; call that first")
    if not _is_memory(tensor) or tensor.dtype not in _DTYPES or _is_pending(tensor):
        raise unfit(what, tensor)
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes as ml_dtypes  # which gives NumPy this dtype
    dtype, storage = np.dtype(_DTYPES[tensor.dtype]), tensor.untyped_storage()
    if not tensor.numel():
        return np.empty(tuple(tensor.shape), dtype)
    strides = [dtype.itemsize * stride for stride in tensor.stride()]
    try:
        return np.ndarray(
            tuple(tensor.shape), dtype, memoryview(Lent(storage)), dtype.itemsize * tensor.storage_offset(), strides
        )
    except (BufferError, TypeError, ValueError) as error:
        raise ValueError(
            f"{what}: its storage has {storage.nbytes()} bytes, less than its shape {tuple(tensor.shape)} needs: it "
            "was freed or shrunk; resize it back before the step, or set the gradient to None"
        ) from error


def _is_memory(tensor: Any) -> bool:
    """Whether a tensor is dense memory of this machine. A class with operations of its own may be anything."""
    is_dense = type(tensor).__torch_dispatch__ is _IS_MEMORY and tensor.layout == torch.strided
    return bool(is_dense and tensor.device.type == "cpu" and not tensor.is_nested)


def _is_pending(tensor: torch.Tensor) -> bool:
    """Whether the memory does not have the values yet."""
    return bool(tensor.is_neg() or tensor.is_conj() or tensor._is_zerotensor())


def with_counter(counter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with the version counter of `counter`. `changed([counter])` then counts for any number of tensors."""
    found = counter.detach()
    found.data = tensor
    return found


def computed(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with what autograd has not computed yet: a negation, a conjugation, zeros."""
    if tensor.layout != torch.strided:
        return tensor
    return tensor.clone() if tensor._is_zerotensor() else tensor.resolve_conj().resolve_neg()


def gradient(what: str, tensor: Any) -> np.ndarray | Rows:
    """The data of a gradient for a step: its memory, or `Rows` for a sparse one."""
    rows = None
    if tensor.layout != torch.strided:
        rows = as_rows(what, tensor, tuple(tensor.shape), lambda what, own: view(what, computed(own)))
    return view(what, computed(tensor)) if rows is None else rows


def unfit(what: str, tensor: torch.Tensor) -> TypeError:
    """The error for a tensor that cannot be stepped, in torch's terms."""
    kind = type(tensor).__name__
    if type(tensor).__torch_dispatch__ is not _IS_MEMORY:
        why, way = f"is a {kind}, which stands for other tensors", f"{_WAYS.get(kind, 'those')}, or torch.optim"
    elif tensor.is_nested:
        why, way = "is nested", f"{_WAYS['NestedTensor']}, or torch.optim"
    elif tensor.layout != torch.strided:
        why, way = f"is sparse ({tensor.layout})", ".to_dense(), or torch.optim"
    elif tensor.device.type != "cpu":
        why, way = f"lies on {tensor.device}", ".cpu(), or torch.optim"
    elif _is_pending(tensor):
        why, way = "has values that are not computed yet", ".resolve_conj()" if tensor.is_conj() else ".clone()"
    elif tensor.is_quantized:
        why, way = f"is quantized ({tensor.dtype})", ".dequantize()"
    else:
        why, way = f"is of {tensor.dtype}", "torch.optim" if tensor.is_complex() else ".to(torch.float32)"
    return TypeError(f"{what} {why}; fastadam steps dense CPU tensors of {', '.join(checks.DTYPES)}: use {way}")
