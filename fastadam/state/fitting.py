"""`Slot`: checks whether an incoming array has the storage of the optimizer's own array, and converts it if not."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import numbers
from .entries import in_file
from .mismatch import need, saying


def array_of(where: str, came: Any) -> np.ndarray:
    """Refuse what is not an array."""
    need(isinstance(came, np.ndarray), f"{where}: expected a numpy array, got {type(came).__name__}")
    return came  # type: ignore[no-any-return]


class Slot(NamedTuple):
    """An array of the optimizer, with what is needed to take over an incoming one.

    `p` is the parameter of the state `own`, or None if `own` is a parameter. `shape` and `order` are those of the
    parameter that incoming 8-bit states belong to, since their bytes do not show them. `convert` allows other dtypes
    and orders.
    """

    own: np.ndarray
    p: np.ndarray | None
    shape: tuple[int, ...]
    order: Sequence[int]
    convert: bool

    def unlike(self, came: np.ndarray) -> str:
        """Why the incoming array does not fit; "" if it does."""
        other = self._otherwise(came)
        if not other or not self._is_convertible(came):
            return other
        return "" if self.convert else f"{other}; convert=True rounds states to what the optimizer keeps"

    def taken(self, source: str, entry: str, came: Any, way_out: str = "") -> np.ndarray:
        """The incoming array in the storage of the own array. Refuses an array that does not fit."""
        own = self.own
        if type(came) is np.ndarray and came.shape == own.shape and came.dtype == own.dtype != np.uint8:
            return came  # most arrays; the rest is slow
        with saying(source):
            if numbers.in_blocks(array_of(f"{source}: {entry}", came)):
                numbers.need_heads(entry, came)
        unlike = self.unlike(came)
        need(not unlike, f"{source}: {entry}: {unlike}{way_out}")
        with saying(source):
            if self.p is None or not self._otherwise(came):
                return came.view(self.own.dtype)  # type: ignore[no-any-return]
            return numbers.like(entry, self.own, self.p, self._numbers(came, self.p))

    def _otherwise(self, came: np.ndarray) -> str:
        """The difference between the storage of the incoming and the own array; "" if there is none."""
        own, is_bytes = self.own, numbers.in_blocks(came)
        if is_bytes != numbers.in_blocks(own):
            return f"expected dtype {_kind(own)}, got {_kind(came)}"
        if came.shape != own.shape:
            return f"expected shape {own.shape}, got {came.shape}"
        if in_file(came).dtype != in_file(own).dtype:
            return f"expected dtype {_kind(own)}, got {_kind(came)}"
        return self._other_blocks(came, self.p) if is_bytes and self.p is not None else ""

    def _other_blocks(self, came: np.ndarray, p: np.ndarray) -> str:
        if self.shape != p.shape:
            return f"expected 8-bit states of the shape {p.shape}, got those of {self.shape}"
        if list(self.order) != numbers.order_of(p):
            return f"expected 8-bit states in memory order {numbers.order_of(p)} of axes, got {list(self.order)}"
        signs = [("signs", "no sign")[numbers.has_no_sign(state)] for state in (self.own, came)]
        return "" if signs[0] == signs[1] else f"expected 8-bit codes of {signs[0]}, got {signs[1]}"

    def _is_convertible(self, came: np.ndarray) -> bool:
        p = self.p
        if p is None:
            return False
        if numbers.in_blocks(came):
            is_of_p = self.shape == p.shape and len(self.order) == p.ndim
            return is_of_p and came.shape == numbers.memory_of(p, came.dtype)[0]
        is_real = came.dtype.kind == "f" or in_file(came).dtype == np.uint16  # the bits of bfloat16
        return came.shape == p.shape and (came.dtype.kind == "c" if p.dtype.kind == "c" else is_real)

    def _numbers(self, came: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The numbers that the incoming array stands for."""
        if numbers.in_blocks(came):
            return numbers.read(np.ascontiguousarray(came), numbers.in_order(p.shape, p.dtype, self.order))
        bits = in_file(came)
        return (bits.astype(np.uint32) << 16).view(np.float32) if bits.dtype == np.uint16 else came


def _kind(array: np.ndarray) -> str:
    """The dtype, in the terms of ``state_dtype``."""
    return "int8, in blocks" if numbers.in_blocks(array) else str(array.dtype)
