"""Lazy steps of rows: the bits of a dense step in the given rows, and no change in the others.
In every dtype and layout, with all arguments of a step, on every backend and with any number of threads.
"""

import itertools
from collections.abc import Callable
from typing import Any

import inside
import numpy as np
import pytest
from cases import CASES, make
from numpy.lib.stride_tricks import as_strided
from tables import EVERY_DTYPE, SHAPES, assert_same, bits, computed_in, numbers, some_rows, step_rows_alone, summed

import fastadam
from fastadam import Rows

F4 = np.float32

# ---------------------------------------------------------------- layouts


def c_order(p: np.ndarray) -> np.ndarray:
    return p.copy(order="C")


def fortran(p: np.ndarray) -> np.ndarray:
    return p.copy(order="F")


def strided(p: np.ndarray) -> np.ndarray:
    wide = np.zeros([2 * n for n in p.shape], p.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in p.shape)]
    view[...] = p
    return view


def backwards(p: np.ndarray) -> np.ndarray:
    return p[::-1].copy()[::-1]


def rows_in_the_middle(p: np.ndarray) -> np.ndarray:
    """Memory whose slowest axis is the last one, and whose rows come next."""
    axes = [p.ndim - 1, *range(p.ndim - 1)]
    return p.transpose(axes).copy().transpose(np.argsort(axes))


LAYOUTS = [c_order, fortran, strided, backwards, rows_in_the_middle]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_every_dtype_and_layout(dtype: Any, layout: Callable[[np.ndarray], np.ndarray]) -> None:
    rng = np.random.default_rng(3)
    starts = [numbers(rng, shape, dtype) for shape in SHAPES]
    opt = fastadam.AdamW([layout(p) for p in starts], lr=0.1, weight_decay=0.1)
    other = fastadam.AdamW([layout(p) for p in starts], lr=0.1, weight_decay=0.1)
    for _ in range(4):
        grads = [some_rows(rng, shape, dtype, 20) for shape in SHAPES]
        opt.step(grads)
        step_rows_alone(other, grads)
    assert_same(opt, other)


def broadcast(values: np.ndarray) -> np.ndarray:
    return np.broadcast_to(values[:1], values.shape)


def read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


def unaligned(values: np.ndarray) -> np.ndarray:
    memory = np.zeros(values.nbytes + 1, np.uint8)[1:]
    found = memory.view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def overlapping(values: np.ndarray) -> np.ndarray:
    return as_strided(values, values.shape, (values.itemsize,) * values.ndim)


VALUES = [*LAYOUTS, broadcast, read_only, unaligned, overlapping, np.ndarray.tolist]


@pytest.mark.parametrize("layout", VALUES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_values_in_every_layout(dtype: Any, layout: Callable[[np.ndarray], Any]) -> None:
    rng = np.random.default_rng(4)
    opt, other = (fastadam.Adam([numbers(np.random.default_rng(0), s, F4) for s in SHAPES]) for _ in range(2))
    for _ in range(3):
        grads = []
        for shape in SHAPES:
            values = numbers(rng, (5, *shape[1:]), dtype)
            grads.append(Rows(rng.integers(0, shape[0], 5), layout(values)))
        opt.step(grads)
        step_rows_alone(other, grads)
    assert_same(opt, other)


@pytest.mark.parametrize("case", CASES)
def test_every_optimizer(case: str) -> None:
    rng = np.random.default_rng(5)
    opt, other = (make(case, [numbers(np.random.default_rng(1), s, F4) for s in SHAPES]) for _ in range(2))
    for _ in range(5):
        grads = [some_rows(rng, shape, F4) for shape in SHAPES]
        opt.step(grads)
        step_rows_alone(other, grads)
    assert_same(opt, other)


@pytest.mark.parametrize(
    "more", [{"master_weights": True}, {"state_dtype": "bfloat16"}, {"master_weights": True, "state_dtype": "bfloat16"}]
)
@pytest.mark.parametrize("dtype", EVERY_DTYPE[:3])
def test_fewer_bits(dtype: Any, more: dict[str, Any]) -> None:
    rng = np.random.default_rng(6)
    starts = [numbers(rng, shape, dtype) for shape in SHAPES]
    opt, other = (fastadam.Adam([p.copy() for p in starts], lr=0.1, **more) for _ in range(2))
    for _ in range(4):
        grads = [some_rows(rng, shape, dtype) for shape in SHAPES]
        opt.step(grads)
        step_rows_alone(other, grads)
    assert_same(opt, other)


# ---------------------------------------------------------------- 8 bits


@pytest.mark.parametrize("width", [256, 1024])
def test_rows_of_whole_blocks_have_states_in_8_bits(width: int) -> None:
    rng, n = np.random.default_rng(7), 20
    start = numbers(rng, (n, width), F4)
    opt, other = (fastadam.Adam([start.copy()], lr=0.1, state_dtype="int8") for _ in range(2))
    for _ in range(4):
        rows = some_rows(rng, (n, width), F4)
        others = np.setdiff1d(np.arange(n), rows.index)
        before, kept = inside.planned(opt)[0].copy(), opt.state_dict()
        opt.step([rows])
        other.load_state_dict(kept)
        inside.planned(other)[0][...] = before
        other.step([summed(rows, (n, width), F4)])
        for own, dense, old in [
            (inside.planned(opt)[0], inside.planned(other)[0], before),
            *((opt.state[name][0], other.state[name][0], decoded(kept, name, start)) for name in "mv"),
        ]:
            assert bits(own[rows.index]) == bits(dense[rows.index])
            assert bits(own[others]) == bits(old[others])


def decoded(kept: dict[str, Any], name: str, p: np.ndarray) -> np.ndarray:
    """A state of 8 bits as numbers."""
    opt = fastadam.Adam([p.copy()], state_dtype="int8")
    opt.load_state_dict({**kept, "param_groups": [{**opt.state_dict()["param_groups"][0], "lr": 0.1}]})
    return opt.state[name][0]


@pytest.mark.parametrize(("shape", "layout"), [((64, 128), c_order), ((64, 300), c_order), ((64, 256), fortran)])
def test_rows_that_cut_blocks_are_refused(shape: tuple[int, int], layout: Callable[[np.ndarray], np.ndarray]) -> None:
    p = layout(np.ones(shape, F4))
    opt = fastadam.Adam([p], state_dtype="int8", rows="exact")
    with pytest.raises(ValueError, match=r"8-bit states are in blocks of 256 .*state_dtype='bfloat16' or None"):
        opt.step([Rows([1], np.ones((1, shape[1]), F4))])
    opt.step([np.ones(shape)])
    assert opt.t == 1
    small = fastadam.Adam([layout(np.ones((3, shape[1]), F4))], state_dtype="int8", min_8bit_size=10_000)
    small.step([Rows([1], np.ones((1, shape[1]), F4))])
    assert small.t == 1


# ---------------------------------------------------------------- what a step does to its gradients

EXTRAS: dict[str, dict[str, Any]] = {
    "max_norm": {"max_norm": 0.5},
    "max_norm of scaled": {"max_norm": 0.5, "grad_scale": 1024.0},
    "max_norm_each": {"max_norm_each": 0.5},
    "clip_value": {"clip_value": 0.25},
    "grad_scale": {"grad_scale": 3.0},
    "tiny": {"grad_scale": 2.0**126},
    "denormal": {"clip_value": 1e-39},
    "all": {"max_norm": 2.0, "clip_value": 0.5, "grad_scale": 0.5, "skip_nonfinite": True},
}


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("extras", EXTRAS)
def test_norms_and_clipping_see_the_summed_rows(extras: str, n_threads: int) -> None:
    rng = np.random.default_rng(8)
    starts = [numbers(rng, shape, F4) for shape in [*SHAPES, (3000, 17)]]
    opt, other = (fastadam.Adam([p.copy() for p in starts], lr=0.1, n_threads=n_threads) for _ in range(2))
    for _ in range(3):
        grads = [some_rows(rng, p.shape, F4, 3 * len(p)) for p in starts]
        grads[1] = summed(grads[1], SHAPES[1], F4)
        opt.step(grads, **EXTRAS[extras])
        step_rows_alone(other, grads, **EXTRAS[extras])
    assert_same(opt, other)
    if "max_norm" in extras or extras == "all":
        assert opt.grad_norm == pytest.approx(other.grad_norm, rel=1e-14)


@pytest.mark.parametrize("layout", [c_order, strided, fortran])
def test_zero_grads_leaves_zeros_in_all_values(layout: Callable[[np.ndarray], np.ndarray]) -> None:
    values = layout(np.ones((5, 3), F4))
    around = values.base.copy() if values.base is not None else None
    p = np.zeros((4, 3), F4)
    fastadam.SGD(p, lr=1.0).step(Rows([1, 2, 1, 1, 3], values), zero_grads=True)
    assert p.tolist() == [[0] * 3, [-3] * 3, [-1] * 3, [-1] * 3]
    assert not values.any()
    if around is not None:
        around[values.base != around] = 0
        assert (values.base == around).all()


def test_zero_grads_of_two_that_share_their_values() -> None:
    values = np.ones((2, 3), F4)
    opt = fastadam.SGD([np.zeros((4, 3), F4), np.zeros((4, 3), F4)], lr=1.0)
    with pytest.raises(ValueError, match="share"):
        opt.step([Rows([0, 1], values), Rows([2, 3], values)], zero_grads=True)
    assert values.all()
    opt.step([Rows([0, 1], values), Rows([2, 3], values)])
    assert [p.any(axis=1).tolist() for p in inside.planned(opt)] == [[True] * 2 + [False] * 2, [False] * 2 + [True] * 2]


# ---------------------------------------------------------------- backends and threads


def test_all_backends_and_threads_give_the_same_bits() -> None:
    shapes = [(2000, 33), (40,), (7, 9000)]
    for case in ("adam", "rprop"):
        made = []
        others = [("numba", 2)] if case == "adam" else []  # a rule takes seconds to compile
        for backend, n_threads in [("cython", 1), ("cython", 2), ("cython", 3), ("numpy", 1), *others]:
            rng = np.random.default_rng(9)
            opt = make(case, [numbers(rng, s, F4) for s in shapes], backend=backend, n_threads=n_threads)
            for _ in range(3):
                opt.step([some_rows(rng, s, F4, 4 * len(s) * s[0]) for s in shapes], max_norm=5.0)
            made.append(opt)
        for opt in made[1:]:
            assert_same(made[0], opt)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_many_repeats_of_one_row(n_threads: int) -> None:
    """A row that comes ten thousand times, beside many that come once."""
    rng, shape = np.random.default_rng(10), (5000, 8)
    index = np.concatenate([np.zeros(10_000, int), np.arange(5000)])
    rows = Rows(rng.permutation(index), numbers(rng, (15_000, 8), F4))
    p = np.zeros(shape, F4)
    fastadam.SGD(p, lr=1.0, n_threads=n_threads).step(rows)
    assert bits(0 - p) == bits(0 + summed(rows, shape, F4))


# ---------------------------------------------------------------- what a lazy step leaves


def test_rows_not_brought_stay_while_the_count_goes_on() -> None:
    W = numbers(np.random.default_rng(0), (6, 3), F4)
    opt = fastadam.AdamW([W], lr=0.1, weight_decay=0.1)
    opt.step([np.ones_like(W)])
    before = [W.copy(), *(arrays[0].copy() for arrays in opt.state.values())]
    for _ in range(3):
        opt.step([Rows([2, 4], np.ones((2, 3), F4))])
    opt.step([Rows([], np.ones((0, 3)))])
    assert opt.t == 5
    assert inside.steps(opt, 0) == 5
    for array, old in zip([W, *(arrays[0] for arrays in opt.state.values())], before, strict=True):
        assert bits(array[[0, 1, 3, 5]]) == bits(old[[0, 1, 3, 5]])
        assert (array[[2, 4]] != old[[2, 4]]).all()


def test_rows_arrays_and_none_in_turn() -> None:
    rng = np.random.default_rng(11)
    starts = [numbers(rng, shape, F4) for shape in SHAPES]
    opt, other = (fastadam.NAdam([p.copy() for p in starts], n_threads=2) for _ in range(2))
    for kinds in itertools.islice(itertools.product(range(3), repeat=2), 9):
        grads: list[Any] = []
        for kind, shape in zip(itertools.cycle(kinds), SHAPES, strict=False):
            rows = some_rows(rng, shape, F4)
            grads.append([rows, summed(rows, shape, F4), None][kind])
        opt.step(grads)
        step_rows_alone(other, grads)
    assert_same(opt, other)


def test_dense_and_rows_in_one_step_are_two_optimizers() -> None:
    rng = np.random.default_rng(12)
    W, b = numbers(rng, (300, 30), F4), numbers(rng, (20_000,), np.float64)
    V, c = W.copy(), b.copy()
    both, of_rows, dense = fastadam.Adam([W, b], n_threads=2), fastadam.Adam([V]), fastadam.Adam([c])
    for _ in range(3):
        rows, g = some_rows(rng, W.shape, F4, 100), numbers(rng, b.shape, np.float64)
        both.step([rows, g])
        of_rows.step([rows])
        dense.step([g])
    assert (bits(W), bits(b)) == (bits(V), bits(c))
    for name in "mv":
        assert [bits(a) for a in both.state[name]] == [bits(of_rows.state[name][0]), bits(dense.state[name][0])]


def test_tables_without_rows_or_numbers() -> None:
    opt = fastadam.Adam([np.zeros((0, 3)), np.zeros((5, 0)), np.zeros((2, 0, 4)), np.zeros(0)], rows="exact")
    empty = [np.ones((0, 3)), np.ones((2, 0)), np.ones((1, 0, 4)), np.ones(0)]
    for index in ([[], [4, 4], [1], []], [[], [0, 1], [0], []]):
        opt.step([Rows(*both) for both in zip(index, empty, strict=True)])
    opt.flush()
    assert opt.t == 2
    with pytest.raises(ValueError, match="index: expected numbers of rows, none, of a parameter without rows, got 0"):
        opt.step([Rows([0], np.ones((1, 3))), None, None, None])


def test_what_is_computed_in_is_that_of_the_parameter() -> None:
    """float64 values of a float32 parameter are rounded before they are summed."""
    values = np.array([[1 + 2.0**-30], [2.0**-24 + 2.0**-50]])
    p, q = np.zeros((1, 1), F4), np.zeros((1, 1))
    fastadam.SGD([p, q], lr=1.0).step([Rows([0, 0], values)] * 2)
    assert -p[0, 0] == F4(values[0, 0]) + F4(values[1, 0])
    assert -q[0, 0] == values.sum()
    assert computed_in(p.dtype) == F4
