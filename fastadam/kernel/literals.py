"""Converts the numbers in a user's own rule to the dtype in which it runs.

If m is float32, Numba computes ``0.9 * m`` in float64, and NumPy in float32. If every number has one dtype, both
compute in that dtype, and round alike. The bytecode of the functions is changed, not their source, which may be
unknown: a rule may be a lambda, or come from an interactive session.
"""

import builtins
import dis
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

#: a dtype's scalar type; None leaves numbers as they are
Real = type[np.floating[Any]] | None
#: operator as it is written -> its number in this Python's bytecode; then the instructions that are inserted here
_OPERATORS = {i.argrepr: i.arg or 0 for i in dis.get_instructions(compile("a * a; a *= a", "", "exec"))}
_LOAD_CONST, _COPY, _NOP = (dis.opmap[name] for name in ("LOAD_CONST", "COPY", "NOP"))
#: what loads a constant beside the instructions of dis.hasconst; before Python 3.15 common constants were no numbers
_LOADS = {"LOAD_SMALL_INT"} | ({"LOAD_COMMON_CONSTANT"} if sys.version_info >= (3, 15) else set())


def typed(
    function: Callable[..., Any],
    real: Real,
    made: Callable[[Any], Any] = lambda function: function,
    instead: Sequence[tuple[Any, Any]] = (),
) -> Any:
    """The function with its numbers in the dtype `real`. Functions that it calls are changed, too. `made` is applied to
    each.

    `instead` has pairs of a function and its replacement.

    Numbers are literals (except indices and arguments of range), defaults, and the values of global and enclosing names
    and of attributes of modules and classes. All keep their present values.

    Raises
    ------
    ValueError
        For a power other than ``x ** 2``, with its line: NumPy and Numba round other powers differently.
    """

    def value(found: Any) -> Any:
        found = next((other for usual, other in instead if found is usual), found)
        found = getattr(found, "py_func", found)  # if the user has jitted it
        if not inspect.isfunction(found):
            return _number(found, real)
        # A function may find itself among its globals: numpy.sign in a function with the name sign looks like that.
        return found if found is function else typed(found, real, made, instead)

    code, scope = function.__code__, function.__globals__
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    enclosed = {name: value(cell.cell_contents) for name, cell in cells.items()}
    named = {name: value(scope[name]) for part in _codes(code) for name in part.co_names if name in scope}
    if real is not None:
        code = _Code(code, named | enclosed, real).typed()
    # Values that are not numbers stay in their cells and globals, and may change there.
    kept = {
        name: cell if enclosed[name] is cell.cell_contents else CellType(enclosed[name]) for name, cell in cells.items()
    }
    others = {name: found for name, found in named.items() if found is not scope[name]}
    new = FunctionType(
        code,
        scope | others if others else scope,
        function.__name__,
        _number(function.__defaults__, real),
        tuple(kept.values()) or None,
    )
    new.__kwdefaults__ = {name: _number(given, real) for name, given in (function.__kwdefaults__ or {}).items()}
    return made(new)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, Enum))


def _number(value: Any, real: Real) -> Any:
    """A number, an array or a tuple of numbers in the dtype. Any other value as it is."""
    if real is not None and _is_number(value):
        with np.errstate(all="ignore"):  # a number too large for float32 becomes infinite, as gradients do
            return real(value)
    if real is not None and isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(real)
    if isinstance(value, tuple):
        parts = [_number(part, real) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _indices(instructions: list[dis.Instruction]) -> Iterator[int]:
    """The offsets at which constants are loaded directly before an instruction that takes an element or a slice."""
    run: list[int] = []
    for now in instructions:
        if now.opcode in dis.hasconst or now.opname in _LOADS:
            run.append(now.offset)
            continue
        if now.opname in ("BINARY_SUBSCR", "BINARY_SLICE", "BUILD_SLICE") or now.argrepr == "[]":
            yield from run
        run = []


class _Code:
    """The code of one function, changed so that each number is loaded in the dtype."""

    def __init__(self, code: CodeType, names: Mapping[str, Any], real: Real) -> None:
        self.code, self.names, self.real = code, names, real
        self.words, self.constants = bytearray(code.co_code), [self._constant(value) for value in code.co_consts]
        self.found: Any = None  # the value of the name that was loaded last
        self.begin = 0  # the offset at which it was loaded
        self.indices: set[int] = set()  # the offsets at which an index or an end of a slice is loaded

    def typed(self) -> CodeType:
        """The new code."""
        instructions = [*dis.get_instructions(self.code)]
        self.indices = set(_indices(instructions))
        for now, after in pairwise([*instructions, instructions[-1]]):
            if now.opname in ("LOAD_GLOBAL", "LOAD_DEREF"):
                self.found, self.begin = self.names.get(now.argval, vars(builtins).get(now.argval)), now.offset
                self._check_power(now, self.found is pow)
                self._check_wide(now)
            elif now.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                self._attribute(now.argval, after.offset)
            elif now.opcode in dis.hasconst or now.opname in _LOADS:
                self._literal(now, after)
            else:
                self.found = None
                is_power = now.argrepr in ("**", "**=") and self.words[now.offset + 1] == now.arg
                self._check_power(now, is_power)
        if len(self.constants) > 256:  # one byte of code cannot number more
            raise ValueError(f"{self.code.co_name!r}: has too many numbers; pass some as scalars")
        return self.code.replace(co_code=bytes(self.words), co_consts=tuple(self.constants))

    def _constant(self, value: Any) -> Any:
        """A constant that contains others, with its numbers converted. Plain numbers are replaced where they are
        loaded.
        """
        if isinstance(value, CodeType):
            return _Code(value, self.names, self.real).typed()
        return _number(value, self.real) if isinstance(value, tuple) else value

    def _attribute(self, name: str, end: int) -> None:
        """Replace the look-up of a number in a module or class, such as numpy.pi, by the load of a constant."""
        self.found = getattr(self.found, name, None) if isinstance(self.found, (ModuleType, type)) else None
        if _is_number(self.found):
            self.words[self.begin : end : 2] = [_NOP] * len(self.words[self.begin : end : 2])
            self._load(_LOAD_CONST, self.found, end - 2)

    def _literal(self, now: dis.Instruction, after: dis.Instruction) -> None:
        is_index = isinstance(now.argval, int) and (now.offset in self.indices or self.found is range)
        if now.argval == 2 and after.argrepr in ("**", "**="):  # x ** 2 becomes x * x
            self.words[now.offset : now.offset + 2] = _COPY, 1
            self.words[after.offset + 1] = _OPERATORS[after.argrepr[1:]]
        elif _is_number(now.argval) and not is_index:
            self._load(now.opcode if now.opcode in dis.hasconst else _LOAD_CONST, now.argval, now.offset)

    def _check_power(self, now: dis.Instruction, is_power: bool) -> None:
        if is_power:
            line = now.positions and now.positions.lineno
            raise ValueError(
                f"{self.code.co_name!r}, line {line} of {self.code.co_filename}: a power other than x ** 2, which "
                "NumPy and Numba round differently; write x * x * x or numpy.sqrt(x), or, if the two may differ, "
                "numpy.power(x, y)"
            )

    def _check_wide(self, now: dis.Instruction) -> None:
        if any(self.found is wide for wide in (sum, float, round)):  # sum starts with the whole number 0
            line = now.positions and now.positions.lineno
            raise ValueError(
                f"{self.code.co_name!r}, line {line} of {self.code.co_filename}: {now.argval}(…), which is float64 "
                "under Numba; write the sum with +, and numbers as literals"
            )

    def _load(self, opcode: int, number: Any, offset: int) -> None:
        self.words[offset : offset + 2] = opcode, len(self.constants) % 256
        self.constants.append(_number(number, self.real))
