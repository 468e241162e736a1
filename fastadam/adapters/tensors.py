"""torch's tensors as arrays: views of their memory, and the errors for tensors without such a view."""

from typing import Any

import numpy as np
import torch

from ..kernel import checks
from ..kernel._rows import Rows
from ..kernel.sparse import as_rows


def steppable(what: str, tensor: Any) -> np.ndarray:
    """The memory of a tensor to step, as an array."""
    array = view(what, tensor)
    if array.dtype.name not in checks.DTYPES:
        raise unfit(what, tensor)
    if checks.repeats(array):
        raise ValueError(f"{what}: several of its elements share memory; use .contiguous()")
    return array


def view(what: str, tensor: Any) -> np.ndarray:
    """The tensor's memory as an array."""
    try:
        return tensor.numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError) as error:  # faster than a check before: this is called for every gradient
        if tensor.layout == torch.strided and tensor.device.type == "cpu":
            if tensor.dtype == torch.bfloat16:
                from ml_dtypes import bfloat16

                return tensor.detach().view(torch.int16).numpy().view(bfloat16)  # type: ignore[no-any-return]
            if tensor.requires_grad:
                return view(what, tensor.detach())
        raise unfit(what, tensor) from error


def computed(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with what autograd has not computed yet: a negation, a conjugation, zeros."""
    if tensor.layout != torch.strided:
        return tensor
    return tensor.clone() if tensor._is_zerotensor() else tensor.resolve_conj().resolve_neg()


def gradient(what: str, tensor: Any) -> np.ndarray | Rows:
    """The data of a gradient for a step: its memory, or `Rows` for a sparse one."""
    try:
        return tensor.numpy()  # type: ignore[no-any-return]
    except (TypeError, RuntimeError):
        rows = as_rows(what, tensor, tuple(tensor.shape), lambda what, own: view(what, computed(own)))
        return view(what, computed(tensor)) if rows is None else rows


def unfit(what: str, tensor: torch.Tensor) -> TypeError:
    """The error for a tensor that cannot be stepped, in torch's terms."""
    if tensor.layout != torch.strided:
        why, way = f"is sparse ({tensor.layout})", ".to_dense(), or torch.optim"
    elif tensor.device.type != "cpu":
        why, way = f"lies on {tensor.device}", ".cpu(), or torch.optim"
    elif tensor.is_neg() or tensor.is_conj() or tensor._is_zerotensor():
        why, way = "has values that are not computed yet", ".resolve_conj()" if tensor.is_conj() else ".clone()"
    else:
        why, way = f"is of {tensor.dtype}", "torch.optim" if tensor.is_complex() else ".to(torch.float32)"
    return TypeError(f"{what} {why}; fastadam steps dense CPU tensors of {', '.join(checks.DTYPES)}: use {way}")
