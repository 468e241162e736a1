"""The numbers that stand in a user's own rule, made numbers of the dtype that it is run in.

Numba would compute ``0.9 * m`` in float64 where m is float32, NumPy in float32. With every number of one dtype, both
compute in that dtype and round alike. What is changed is the code of the functions, not their source, which need not be
known: a rule may be a lambda, or come from an interactive session.
"""

import builtins
import dis
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

#: a dtype's scalar type; None leaves numbers as they are
Real = type[np.floating[Any]] | None
#: the operators of this Python's code by how they are written, and the instructions that are written here
_OPERATORS = {i.argrepr: i.arg or 0 for i in dis.get_instructions(compile("a * a; a *= a", "", "exec"))}
_LOAD_CONST, _COPY, _NOP = (dis.opmap[name] for name in ("LOAD_CONST", "COPY", "NOP"))


def typed(
    function: Callable[..., Any],
    real: Real,
    made: Callable[[Any], Any] = lambda function: function,
    instead: Sequence[tuple[Any, Any]] = (),
) -> Any:
    """A function with its numbers in the dtype `real`, and the functions that it calls likewise; `made` of each.

    `instead` pairs functions that are called by a name of their own with what is called in their place.

    Numbers are literals, but for indices and the arguments of range; defaults; and what names around the function
    stand for, attributes of modules and classes among them. All keep the values that they have now.

    Raises
    ------
    ValueError
        For a power other than ``x ** 2``, with its line: NumPy and Numba round others each in its own way.
    """

    def value(found: Any) -> Any:
        found = next((other for usual, other in instead if found is usual), found)
        found = getattr(found, "py_func", found)  # the user jitted it
        if not inspect.isfunction(found):
            return _number(found, real)
        # Itself among its globals: numpy.sign in a function that is called sign looks like that.
        return found if found is function else typed(found, real, made, instead)

    code, scope = function.__code__, function.__globals__
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    enclosed = {name: value(cell.cell_contents) for name, cell in cells.items()}
    named = {name: value(scope[name]) for part in _codes(code) for name in part.co_names if name in scope}
    if real is not None:
        code = _Code(code, named | enclosed, real).typed()
    # What is no number stays where it was, and may change there.
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
    """A function's code, and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, Enum))


def _number(value: Any, real: Real) -> Any:
    """A number in the dtype, an array or a tuple of them likewise; anything else as it is."""
    if real is not None and _is_number(value):
        with np.errstate(all="ignore"):  # beyond float32 it is infinite, as a gradient is
            return real(value)
    if real is not None and isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(real)
    if isinstance(value, tuple):
        parts = [_number(part, real) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _indices(instructions: list[dis.Instruction]) -> Iterator[int]:
    """Where constants are loaded that stand right before what takes an element or a slice."""
    run: list[int] = []
    for now in instructions:
        if now.opcode in dis.hasconst or now.opname == "LOAD_SMALL_INT":
            run.append(now.offset)
            continue
        if now.opname in ("BINARY_SUBSCR", "BINARY_SLICE", "BUILD_SLICE") or now.argrepr == "[]":
            yield from run
        run = []


class _Code:
    """The code of one function, in which each number is loaded as one of the dtype."""

    def __init__(self, code: CodeType, names: Mapping[str, Any], real: Real) -> None:
        self.code, self.names, self.real = code, names, real
        self.words, self.constants = bytearray(code.co_code), [self._constant(value) for value in code.co_consts]
        self.found: Any = None  # what the name that was loaded last stands for
        self.begin = 0  # and where it was loaded
        self.indices: set[int] = set()  # where a number is loaded that is an index, or an end of a slice

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
            elif now.opcode in dis.hasconst or now.opname == "LOAD_SMALL_INT":
                self._literal(now, after)
            else:
                self.found = None
                is_power = now.argrepr in ("**", "**=") and self.words[now.offset + 1] == now.arg
                self._check_power(now, is_power)
        if len(self.constants) > 256:  # whose numbers take more than one byte of code
            raise ValueError(f"{self.code.co_name!r}: has too many numbers; pass some as scalars")
        return self.code.replace(co_code=bytes(self.words), co_consts=tuple(self.constants))

    def _constant(self, value: Any) -> Any:
        """A constant that holds others: numbers are replaced where they are loaded."""
        if isinstance(value, CodeType):
            return _Code(value, self.names, self.real).typed()
        return _number(value, self.real) if isinstance(value, tuple) else value

    def _attribute(self, name: str, end: int) -> None:
        """A number of a module or class, such as numpy.pi: it is loaded where it was looked up."""
        self.found = getattr(self.found, name, None) if isinstance(self.found, (ModuleType, type)) else None
        if _is_number(self.found):
            self.words[self.begin : end : 2] = [_NOP] * len(self.words[self.begin : end : 2])
            self._load(_LOAD_CONST, self.found, end - 2)

    def _literal(self, now: dis.Instruction, after: dis.Instruction) -> None:
        is_index = isinstance(now.argval, int) and (now.offset in self.indices or self.found is range)
        if now.argval == 2 and after.argrepr in ("**", "**="):  # x ** 2: x * x
            self.words[now.offset : now.offset + 2] = _COPY, 1
            self.words[after.offset + 1] = _OPERATORS[after.argrepr[1:]]
        elif _is_number(now.argval) and not is_index:
            self._load(now.opcode if now.opcode in dis.hasconst else _LOAD_CONST, now.argval, now.offset)

    def _check_power(self, now: dis.Instruction, is_power: bool) -> None:
        if is_power:
            line = now.positions and now.positions.lineno
            raise ValueError(
                f"{self.code.co_name!r}, line {line} of {self.code.co_filename}: a power other than x ** 2, which "
                "NumPy and Numba round each in its own way; write x * x * x or numpy.sqrt(x), or, where the two may "
                "differ, numpy.power(x, y)"
            )

    def _check_wide(self, now: dis.Instruction) -> None:
        if any(self.found is wide for wide in (sum, float, round)):  # sum begins with a whole 0
            line = now.positions and now.positions.lineno
            raise ValueError(
                f"{self.code.co_name!r}, line {line} of {self.code.co_filename}: {now.argval}(…), which is float64 "
                "under Numba; write the sum with +, and numbers as literals"
            )

    def _load(self, opcode: int, number: Any, offset: int) -> None:
        self.words[offset : offset + 2] = opcode, len(self.constants) % 256
        self.constants.append(_number(number, self.real))
