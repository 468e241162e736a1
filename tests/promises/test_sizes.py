"""Many arrays, and arrays of one element or none: correct, and with work proportional to their number.
More elements than 32 bits can count are in `large.py`, which needs much memory.
"""

import faulthandler
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from cases import BY_RULE, arrays_of, make

import fastadam

MANY = 100_000


@pytest.fixture
def endless() -> Iterator[None]:
    """Work that grows with the square of the number of arrays takes hours: it is ended, and shows where it is."""
    faulthandler.dump_traceback_later(1800, exit=True, file=sys.__stderr__)  # what pytest puts there is no file
    yield
    faulthandler.cancel_dump_traceback_later()


def rows(width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and gradients, the rows of these: as many arrays, views of one buffer each."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((MANY, width)), rng.standard_normal((MANY, width))


@pytest.mark.usefixtures("endless")
def test_as_many_arrays_step_as_one_does() -> None:
    p, g = rows()
    opt = fastadam.Adam(list(p), lr=0.1, grads=list(g))
    opt.step()
    opt.step(max_norm=1.0, zero_grads=True)
    alone, of_all = rows()
    one = fastadam.Adam(alone, lr=0.1)
    one.step(of_all)
    one.step(of_all, max_norm=1.0)
    np.testing.assert_array_equal(p, alone)
    for name in "mv":
        np.testing.assert_array_equal(np.stack(opt.state[name]), one.state[name][0])
    assert not g.any()
    opt.add_param_group({"params": [np.ones(1)], "grads": [np.ones(1)]})
    opt.step()
    assert opt.t == 3


def test_state_of_as_many_arrays(tmp_path: Path) -> None:
    count = MANY // 20
    p, g = (array[:count] for array in rows())
    opt = fastadam.RMSprop(list(p))
    opt.step(list(g))
    kept = p.copy()
    opt.save(tmp_path / "a.npz", params=True)
    told = opt.state_dict()
    for load in (lambda: opt.load_state_dict(told), lambda: opt.load(tmp_path / "a.npz")):
        opt.step(list(g))
        load()
        assert opt.t == 1
        of_file = [told["state"][str(k)]["v"] for k in range(count)]
        np.testing.assert_array_equal(np.stack(opt.state["v"]), np.stack(of_file))
    np.testing.assert_array_equal(p, kept)


def columns(count: int) -> list[np.ndarray]:
    """Those of one buffer: each extent meets all others, and no element is in two."""
    buffer = np.zeros((4, count), np.float32)
    return [buffer[:, k] for k in range(count)]


def test_many_columns_of_one_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not compared each with each."""
    count, compared, shares_memory = MANY // 5, 0, np.shares_memory

    def counted(*arguments: Any, **options: Any) -> bool:
        nonlocal compared
        compared += 1
        assert compared <= count
        return bool(shares_memory(*arguments, **options))

    monkeypatch.setattr(np, "shares_memory", counted)
    params, grads = columns(count), columns(count)
    for g in grads[::2]:
        g += 1
    opt = fastadam.Adam(params, lr=0.5)
    opt.step(grads, zero_grads=True)
    np.testing.assert_allclose(np.stack(params)[:, 0], np.tile([-0.5, 0], count // 2), rtol=1e-6)
    assert not any(g.any() for g in grads[:100])


@pytest.mark.parametrize("count", [10, 1_000])  # compared each with each, and drawn on a map
@pytest.mark.parametrize("layout", ["columns", "backwards", "bytes"])
def test_one_column_given_twice(count: int, layout: str) -> None:
    buffer = np.zeros((4, 2 * count), np.float32)
    if layout == "backwards":
        buffer = buffer[::-1, ::-1]
    if layout == "bytes":  # at places that are no multiples of an element's size
        buffer = np.ndarray((4, 2 * count), np.float32, np.zeros(32 * count + 6, np.uint8), 3, (8 * count, 4))
    params = [buffer[:, k] for k in range(count)]
    grads = [buffer[:, count + k] for k in range(count)]
    fastadam.Adam(params).step(grads)
    twice = [*params, buffer[1:3, 5]]
    with pytest.raises(ValueError, match=re.escape(f"params[{count}] and params[5] share memory")):
        fastadam.Adam(twice)
    opt = fastadam.Adam(params)
    for _ in range(2):  # a gradient that was refused is refused again
        with pytest.raises(ValueError, match=re.escape("gradient of params[7]: shares memory with a parameter")):
            opt.step([*grads[:7], buffer[:, 3], *grads[8:]])
    opt.step(grads)
    with pytest.raises(ValueError, match="share memory"):
        opt.step([*grads[:-1], grads[0]], zero_grads=True)
    assert opt.t == 1


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
@pytest.mark.parametrize("case", BY_RULE)
def test_arrays_of_one_element_and_none(case: str, backend: str) -> None:
    def arrays() -> list[np.ndarray]:
        return [np.ones(shape) for shape in ((), (1,), (1, 1, 1), (0,), (3, 0, 2), (7,))]

    opt, alone = make(case, arrays(), backend=backend), make(case, np.ones(10))
    for t in range(3):
        opt.step([np.full(p.shape, 0.5 + t) for p in inside.params(opt)], max_norm=100.0)
        alone.step(np.full(10, 0.5 + t), max_norm=100.0)
    for one, other in zip(map(np.concatenate, by_array(opt)), map(np.concatenate, by_array(alone)), strict=True):
        np.testing.assert_array_equal(one, other)


def by_array(opt: fastadam.Optimizer) -> list[list[np.ndarray]]:
    """The parameters, and each state, flat."""
    return [[array.ravel() for array in arrays] for arrays in (inside.params(opt), *opt.state.values())]


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
def test_nothing_but_empty_arrays(backend: str, tmp_path: Path) -> None:
    opt = fastadam.Adam([np.ones(0), np.ones((2, 0))], backend=backend, n_threads=4)
    for extras in ({}, {"max_norm": 1.0, "skip_nonfinite": True}, {"zero_grads": True}):
        opt.step([np.ones(0), np.ones((2, 0))], **extras)
    opt.save(tmp_path / "a.npz", params=True)
    opt.load(tmp_path / "a.npz")
    assert (opt.t, opt.skipped) == (3, 0)
    assert all(array.size == 0 for array in arrays_of(opt))
    in_folder = fastadam.Adam(np.ones(0), state_dir=tmp_path / "states")
    in_folder.step(np.ones(0))
    assert in_folder.t == 1


@pytest.mark.parametrize("nothing", [[], (), {}, iter(())])
def test_no_arrays_are_refused(nothing: object) -> None:
    with pytest.raises(ValueError, match=r"params.*: expected at least one array, got an empty (list|dict|tuple)"):
        fastadam.Adam(nothing)
