"""Sparse gradients of other libraries, read as `Rows`: SciPy's matrices in CSR or COO form, PyTorch's tensors in COO
form, as its embeddings have them. A row that has any entries must have all: an entry that is missing is no zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import checks
from ._rows import Rows


def as_rows(name: str, value: Any) -> Rows | None:
    """The rows that a sparse gradient brings; None for what is no sparse one."""
    read = reader(value)
    return None if read is None else read(name, value)


def reader(value: Any) -> Callable[[str, Any], Rows] | None:
    """What reads a sparse gradient; None for what is no sparse one."""
    if hasattr(value, "sparse_dim") and getattr(value, "is_sparse", False):
        return _of_torch
    if hasattr(value, "tocsr") and getattr(value, "ndim", 0) == 2:
        return _of_scipy
    return None


def check(name: str, value: Any, param: np.ndarray) -> None:
    """Refuse a gradient of `param`, of all its rows or of some, that no step could read."""
    rows = value if isinstance(value, Rows) else as_rows(name, value)
    if rows is None:
        checks.gradient(name, value, param)
    else:
        checks.row_values(name, rows.index, rows.values, param)


def _of_torch(name: str, value: Any) -> Rows:
    if value.sparse_dim() != 1:
        raise TypeError(
            f"gradient of {name}: expected a sparse tensor of whole rows, got one that is sparse in "
            f"{value.sparse_dim()} axes; pass .to_dense()"
        )
    return Rows(value._indices()[0].numpy(), value._values().detach().numpy())


def _of_scipy(name: str, value: Any) -> Rows:
    if value.format not in ("csr", "coo"):
        raise TypeError(
            f"gradient of {name}: expected a sparse matrix of format csr or coo, got {value.format}; pass .tocsr()"
        )
    rows = value.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is value else rows
        rows.sum_duplicates()
    counts, width = np.diff(rows.indptr), rows.shape[1]
    index = np.flatnonzero(counts)
    if (counts[index] != width).any():
        bad = index[counts[index] != width][0]
        raise ValueError(
            f"gradient of {name}: expected whole rows, got {counts[bad]} of {width} entries in row {bad}; "
            "pass .toarray(), or put zeros where entries are missing"
        )
    return Rows(index, rows.data.reshape(-1, width))
