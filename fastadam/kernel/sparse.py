"""Reads sparse gradients of other libraries as `Rows`: SciPy's matrices in CSR or COO form, and PyTorch's tensors in
COO form, such as those of embeddings. A row with any entries must have all: a missing entry does not mean zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import checks
from ._rows import Rows


def is_sparse(value: Any) -> bool:
    """Whether this is a sparse gradient, which is read as rows or refused."""
    is_tensor = hasattr(value, "sparse_dim") and getattr(value, "is_sparse", False)
    return is_tensor or (hasattr(value, "tocsr") and getattr(value, "ndim", 0) == 2)


def numbers_of(value: Any) -> Any:
    """The object with the numbers of a gradient: for `Rows` and SciPy's matrices their array of values."""
    if isinstance(value, Rows):
        return value.values
    return value.data if is_sparse(value) and hasattr(value, "tocsr") else value


def as_rows(
    what: str, value: Any, shape: tuple[int, ...], read: Callable[[str, Any], np.ndarray] = checks.real
) -> Rows | None:
    """The rows of a sparse gradient, for a parameter of this shape; None if the gradient is not sparse.

    `read` returns a tensor's memory as an array. Its first argument names the tensor in errors.
    """
    if not is_sparse(value):
        return None
    _need_shape(what, value, shape)
    return _of_scipy(what, value) if hasattr(value, "tocsr") else _of_torch(what, value, read)


def _need_shape(what: str, value: Any, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(f"{what}: expected shape {shape} like the parameter, got {tuple(value.shape)}")


def _of_torch(what: str, value: Any, read: Callable[[str, Any], np.ndarray]) -> Rows:
    if value.sparse_dim() != 1:
        raise TypeError(
            f"{what}: expected a sparse tensor of whole rows, got one that is sparse in {value.sparse_dim()} axes; "
            "pass .to_dense()"
        )
    values = read(what, value._values().detach())  # read first, so that a tensor on a device is refused here
    return Rows(read(what, value._indices()[0]), values)


def _of_scipy(what: str, value: Any) -> Rows:
    if value.format not in ("csr", "coo"):
        raise TypeError(f"{what}: expected a sparse matrix of format csr or coo, got {value.format}; pass .tocsr()")
    rows = value.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is value else rows
        rows.sum_duplicates()
    counts, width = np.diff(rows.indptr), rows.shape[1]
    index = np.flatnonzero(counts)
    if (counts[index] != width).any():
        bad = index[counts[index] != width][0]
        raise ValueError(
            f"{what}: expected whole rows, got {counts[bad]} of {width} entries in row {bad}; "
            "pass .toarray(), or put zeros where entries are missing"
        )
    return Rows(index, rows.data.reshape(-1, width))
