"""Shared by the tests of rows: tables, gradients of some of their rows, and the same summed by NumPy."""

from typing import Any

import inside
import numpy as np
from ml_dtypes import bfloat16

import fastadam
from fastadam import Rows

#: every dtype that a parameter can have
EVERY_DTYPE = [np.dtype(d) for d in (np.float16, bfloat16, np.float32, np.float64, np.complex64, np.complex128)]
#: the first axis is that of rows
SHAPES = [(40, 5), (40, 64), (40,), (40, 1), (1, 6), (12, 3, 5), (9, 300)]


def computed_in(dtype: Any) -> np.dtype[Any]:
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Random numbers of this dtype."""
    found = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        found = found + 1j * rng.standard_normal(shape)
    return found.astype(dtype)


def some_rows(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, most: int = 8) -> Rows:
    """Random rows, some of them several times; now and then none."""
    k = int(rng.integers(0, most)) if shape[0] else 0
    return Rows(rng.integers(0, max(shape[0], 1), k), numbers(rng, (k, *shape[1:]), computed_in(dtype)))


def summed(rows: Rows, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The gradient of all rows: the values of a row are summed in the order given, in what is computed in."""
    g, values = np.zeros(shape, computed_in(dtype)), np.asarray(rows.values).astype(computed_in(dtype))
    came = set()
    for number, row in zip(rows.index.tolist(), values, strict=True):
        g[number] = g[number] + row if number in came else row
        came.add(number)
    return g


def bits(array: np.ndarray) -> bytes:
    """What an array holds, in C order."""
    return np.ascontiguousarray(array).tobytes()


def assert_same(opt: fastadam.Optimizer, other: fastadam.Optimizer) -> None:
    """Parameters, states and counts, to the bit."""
    assert opt.t == other.t
    assert inside.plan(opt).steps.tolist() == inside.plan(other).steps.tolist()
    for p, q in zip(inside.planned(opt), inside.planned(other), strict=True):
        assert p.dtype == q.dtype
        assert bits(p) == bits(q)
    for own, others in zip(inside.named_states(opt), inside.named_states(other), strict=True):
        assert own.keys() == others.keys()
        for name, state in own.items():
            assert bits(state) == bits(others[name]), name


def step_rows_alone(opt: fastadam.Optimizer, grads: list[Any], **extras: Any) -> None:
    """A lazy step by other means: one of all rows, after which those that `grads` do not bring are put back."""
    dense, kept = [], []
    for p, states, g in zip(inside.planned(opt), inside.named_states(opt), grads, strict=True):
        if isinstance(g, Rows):
            others = np.setdiff1d(np.arange(len(p)), g.index)
            kept += [(array, others, array[others].copy()) for array in (p, *states.values())]
            g = summed(g, p.shape, p.dtype)
        dense.append(g)
    opt.step(dense, **extras)
    for array, others, before in kept:
        array[others] = before


def stepped(opt: fastadam.Optimizer, grads: list[Rows]) -> fastadam.Optimizer:
    """An optimizer of one table, after these steps: by rows where it is exact, else by gradients of all rows."""
    is_exact = opt.param_groups[0]["rows"] == "exact"
    [p] = inside.planned(opt)
    for rows in grads:
        opt.step([rows if is_exact else summed(rows, p.shape, p.dtype)])
    return opt


def check(opt: fastadam.Optimizer, dense: fastadam.Optimizer) -> None:
    """An exact optimizer is what one of dense steps is, once no row lags."""
    opt.flush()
    assert_same(opt, dense)
