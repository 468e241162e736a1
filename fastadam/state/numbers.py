"""Converts stored states to numbers in the shape of the parameter, and back. Makes new states.
8-bit states are bytes (`kernel._blocks`), which must be decoded. All others are arrays of the parameter's shape.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..kernel import _blocks, checks
from ..kernel._segments import state_like


class First(NamedTuple):
    """A state before its first step: its value, which is a number or the parameter, and its stored dtype.

    The dtype int8 stands for blocks of 8-bit codes, uint8 for blocks of codes without sign.
    """

    value: Any
    dtype: np.dtype[Any]

    @property
    def in_blocks(self) -> bool:
        """Whether it is stored as bytes."""
        return self.dtype.itemsize == 1


def in_blocks(state: np.ndarray) -> bool:
    """Whether a state is stored as bytes."""
    return state.dtype == np.uint8


def has_no_sign(state: np.ndarray) -> bool:
    """Whether a state is stored as bytes, in codes without sign, for numbers that are never negative."""
    return in_blocks(state) and state.size > 0 and bool(state[1] & 1)


def memory_of(p: np.ndarray, dtype: np.dtype[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the dtype of the array that stores a state of this dtype."""
    return ((_blocks.n_bytes(_n_reals(p)),), np.dtype(np.uint8)) if dtype.itemsize == 1 else (p.shape, dtype)


def zeros(p: np.ndarray, state: np.ndarray) -> np.ndarray:
    """A new state of zeros for a parameter, with the storage of `state`."""
    codes = np.uint8 if has_no_sign(state) else np.int8
    return new(p, First(0.0, np.dtype(codes) if in_blocks(state) else state.dtype))


def new(p: np.ndarray, first: First) -> np.ndarray:
    """A new state of a parameter."""
    shape, dtype = memory_of(p, first.dtype)
    state = np.zeros(shape, dtype) if dtype == np.uint8 else state_like(p, dtype)
    begin(state, p, first)
    return state


def begin(state: np.ndarray, p: np.ndarray, first: First) -> None:
    """Set a state, whose memory is zeros, to its value before the first step."""
    if in_blocks(state):
        _blocks.clear(state, first.dtype == np.uint8)
    if first.value is p or first.value:  # do not touch memory that stays zero
        write(state, p, first.value)


def read(state: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The state of `p` as numbers: the array itself, or a read-only copy if it is stored as bytes."""
    if not in_blocks(state):
        return state
    found = state_like(p, _read_in(p))
    _blocks.decode(state, _flat(found, p))
    found.flags.writeable = False
    return found


def write(state: np.ndarray, p: np.ndarray, value: Any) -> None:
    """Set the state of `p` to these numbers, rounded to nearest."""
    if not in_blocks(state):
        state[...] = value
        return
    if type(value) is float and value == 0.0:  # so that a reset needs no temporary array
        _blocks.clear(state, has_no_sign(state))
        return
    numbers = state_like(p, _read_in(p), np.empty)
    numbers[...] = value
    _blocks.encode(state, _flat(numbers, p))


def checked(where: str, state: np.ndarray, p: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Numbers for a state of `p`, in the dtype in which the state is read. Refuses numbers that it cannot hold."""
    dtype = _read_in(p) if in_blocks(state) else state.dtype
    with np.errstate(over="ignore"):
        kept = value.astype(dtype)
    if (np.isfinite(value) & ~np.isfinite(kept)).any():
        raise ValueError(f"{where}: expected numbers of {dtype}, got larger ones: {checks.shown(value)}")
    if has_no_sign(state) and ((kept.real < 0) | (kept.imag < 0)).any():
        raise ValueError(f"{where}: expected no number below zero, whose 8-bit codes have no sign")
    return kept


def like(where: str, state: np.ndarray, p: np.ndarray, value: np.ndarray) -> np.ndarray:
    """A new array with the storage of this state of `p`, set to `value`, rounded to nearest."""
    kept = checked(where, state, p, value)
    if not in_blocks(state):
        return kept
    found = state.copy()  # its heads say which codes it has
    write(found, p, kept)
    return found


def need_heads(where: str, state: np.ndarray, first: First | None = None) -> None:
    """Refuse bytes that are not blocks, or not blocks of such a state. codecs.h explains the first two bytes of a
    block."""
    exponents, flags = (state[first :: _blocks.BLOCK + 2] for first in (0, 1))
    kinds, is_rare = flags & 1, flags > 1
    most = np.where(is_rare, 253, 253 - np.where(kinds, 66, 98))
    kind = kinds[:1] if first is None else first.dtype == np.uint8
    if (exponents > most).any() or (flags > 3).any() or (kinds != kind).any():
        raise ValueError(f"{where}: expected blocks of 8-bit codes, got other bytes")


def order_of(p: np.ndarray) -> list[int]:
    """The axes of a parameter from the slowest to the fastest in memory. The bytes of its states have this order.

    An axis of length 1 has no order: it keeps its place.
    """
    strides = state_like(p, np.int8, np.empty).strides
    if p.size == 0:
        return list(range(p.ndim))
    sorted_axes = iter(sorted((axis for axis in range(p.ndim) if p.shape[axis] > 1), key=lambda axis: -strides[axis]))
    return [next(sorted_axes) if n > 1 else axis for axis, n in enumerate(p.shape)]


def orders(params: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Key of a parameter -> the order of its axes, for those that are not in C order."""
    found = {key: order_of(p) for key, p in params.items()}
    return {key: order for key, order in found.items() if order != sorted(order)}


def in_order(shape: Sequence[int], dtype: np.dtype[Any], order: Sequence[int]) -> np.ndarray:
    """An array of this shape and dtype whose axes have this order in memory."""
    return np.empty([shape[axis] for axis in order], dtype).transpose(np.argsort(order))


def _read_in(p: np.ndarray) -> np.dtype[Any]:
    """The dtype in which 8-bit states are read."""
    return np.dtype(np.complex64 if p.dtype.kind == "c" else np.float32)


def _n_reals(p: np.ndarray) -> int:
    return p.size * (2 if p.dtype.kind == "c" else 1)


def _flat(numbers: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The elements of a new state of `p`, as real numbers in memory order."""
    flat = numbers.transpose(order_of(p)).reshape(-1)
    return flat.view(np.float32)
