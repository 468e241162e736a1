"""One array that came for an optimizer's own: whether it is stored as that is, or can be converted."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import numbers
from .entries import in_file
from .mismatch import need, saying


def array_of(where: str, came: Any) -> np.ndarray:
    """What came, if it is an array."""
    need(isinstance(came, np.ndarray), f"{where}: expected a numpy array, got {type(came).__name__}")
    return came  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Slot:
    """An array of the optimizer's own, and how to take what comes for it.

    `p` is the parameter that it is a state of, or None for a parameter itself. `shape` and `order` are those of the
    parameter that 8-bit states which come are of: bytes do not tell. `convert` allows other dtypes and orders.
    """

    own: np.ndarray
    p: np.ndarray | None
    shape: list[int]
    order: list[int]
    convert: bool

    def unlike(self, came: np.ndarray) -> str:
        """Why what came cannot be taken, if it cannot."""
        other = self._otherwise(came)
        if not other or not self._is_convertible(came):
            return other
        return "" if self.convert else f"{other}; convert=True rounds states to what the optimizer keeps"

    def taken(self, source: str, entry: str, came: Any) -> np.ndarray:
        """What came, perhaps as `in_file` gives it, as the own array is stored: it must fit."""
        with saying(source):
            if numbers.in_blocks(array_of(f"{source}: {entry}", came)):
                numbers.need_heads(entry, came)
        unlike = self.unlike(came)
        need(not unlike, f"{source}: {entry}: {unlike}")
        with saying(source):
            if self.p is None or not self._otherwise(came):
                return came.view(self.own.dtype)  # type: ignore[no-any-return]
            return numbers.like(entry, self.own, self.p, self._numbers(came, self.p))

    def _otherwise(self, came: np.ndarray) -> str:
        """How what came is stored otherwise, if it is."""
        own, is_bytes = self.own, numbers.in_blocks(came)
        if is_bytes != numbers.in_blocks(own):
            return f"expected dtype {_kind(own)}, got {_kind(came)}"
        if came.shape != own.shape:
            return f"expected shape {own.shape}, got {came.shape}"
        if in_file(came).dtype != in_file(own).dtype:
            return f"expected dtype {_kind(own)}, got {_kind(came)}"
        return self._other_blocks(came, self.p) if is_bytes and self.p is not None else ""

    def _other_blocks(self, came: np.ndarray, p: np.ndarray) -> str:
        if self.shape != list(p.shape):
            return f"expected 8-bit states of the shape {p.shape}, got those of {tuple(self.shape)}"
        if self.order != numbers.order_of(p):
            return f"expected 8-bit states in memory order {numbers.order_of(p)} of axes, got {self.order}"
        signs = [("signs", "no sign")[numbers.has_no_sign(state)] for state in (self.own, came)]
        return "" if signs[0] == signs[1] else f"expected 8-bit codes of {signs[0]}, got {signs[1]}"

    def _is_convertible(self, came: np.ndarray) -> bool:
        p = self.p
        if p is None:
            return False
        if numbers.in_blocks(came):
            is_of_p = self.shape == list(p.shape) and len(self.order) == p.ndim
            return is_of_p and came.shape == numbers.memory_of(p, came.dtype)[0]
        is_real = came.dtype.kind == "f" or in_file(came).dtype == np.uint16  # the bits of bfloat16
        return came.shape == p.shape and (came.dtype.kind == "c" if p.dtype.kind == "c" else is_real)

    def _numbers(self, came: np.ndarray, p: np.ndarray) -> np.ndarray:
        """What the array that came means."""
        if numbers.in_blocks(came):
            return numbers.read(np.ascontiguousarray(came), numbers.in_order(p.shape, p.dtype, self.order))
        bits = in_file(came)
        return (bits.astype(np.uint32) << 16).view(np.float32) if bits.dtype == np.uint16 else came


def _kind(array: np.ndarray) -> str:
    """The dtype in words of ``state_dtype``."""
    return "int8, in blocks" if numbers.in_blocks(array) else str(array.dtype)
