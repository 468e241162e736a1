"""A state as numbers in the shape of its parameter, however it is stored; and what a new one is stored as.
Those of 8 bits are bytes (`kernel._blocks`) and have to be decoded; all others are arrays of that shape already.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..kernel import _blocks, checks
from ..kernel._segments import state_like


class First(NamedTuple):
    """A state before its first step: a number, or its parameter; and the dtype that it is stored in.

    The dtype int8 stands for blocks of 8-bit codes, uint8 for blocks of codes that have no sign.
    """

    value: Any
    dtype: np.dtype[Any]


def in_blocks(state: np.ndarray) -> bool:
    """Whether a state is bytes."""
    return state.dtype == np.uint8


def has_no_sign(state: np.ndarray) -> bool:
    """Whether a state is bytes whose codes are for numbers that are not below zero."""
    return in_blocks(state) and state.size > 0 and bool(state[1] & 1)


def memory_of(p: np.ndarray, dtype: np.dtype[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the dtype of the array that stores a state of this dtype."""
    return ((_blocks.n_bytes(_n_reals(p)),), np.dtype(np.uint8)) if dtype.itemsize == 1 else (p.shape, dtype)


def new(p: np.ndarray, first: First) -> np.ndarray:
    """A new state of a parameter."""
    shape, dtype = memory_of(p, first.dtype)
    state = np.zeros(shape, dtype) if dtype == np.uint8 else state_like(p, dtype)
    begin(state, p, first)
    return state


def begin(state: np.ndarray, p: np.ndarray, first: First) -> None:
    """Have a state whose memory is zeros be as it is before its first step."""
    if in_blocks(state):
        _blocks.clear(state, first.dtype == np.uint8)
    if first.value is p or first.value:  # memory that stays zero need not be touched
        write(state, p, first.value)


def read(state: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The state of `p` in numbers: the array itself, or a read-only copy of what is stored as bytes."""
    if not in_blocks(state):
        return state
    found = state_like(p, _read_in(p))
    _blocks.decode(state, _flat(found, p))
    found.flags.writeable = False
    return found


def write(state: np.ndarray, p: np.ndarray, value: Any) -> None:
    """Have the state of `p` be these numbers, which are rounded to nearest."""
    if not in_blocks(state):
        state[...] = value
        return
    numbers = state_like(p, _read_in(p), np.empty)
    numbers[...] = value
    _blocks.encode(state, _flat(numbers, p))


def order_of(p: np.ndarray) -> list[int]:
    """The axes of a parameter from the slowest to the fastest in memory, which is the order of bytes."""
    like = state_like(p, np.int8, np.empty)
    return sorted(range(p.ndim), key=lambda axis: -like.strides[axis]) if like.size else list(range(p.ndim))


def in_order(shape: Sequence[int], dtype: np.dtype[Any], order: Sequence[int]) -> np.ndarray:
    """An array of this shape and dtype whose axes lie in this order."""
    return np.empty([shape[axis] for axis in order], dtype).transpose(np.argsort(order))


def _read_in(p: np.ndarray) -> np.dtype[Any]:
    return checks.computed_in(p)


def _n_reals(p: np.ndarray) -> int:
    return p.size * (2 if p.dtype.kind == "c" else 1)


def _flat(numbers: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The elements of a new state of `p`, as real numbers in the order of memory."""
    flat = numbers.transpose(order_of(p)).reshape(-1)
    return flat.view(np.float32)
