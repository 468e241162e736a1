"""`opt.flush(rows)`: the missed steps are applied to the rows that a batch will read, and to no others. So training
with exact rows reads what dense steps would give, and has the same bits.
"""

import numpy as np
import pytest

import fastadam
from fastadam import Rows, schedules

N, WIDTH = 40, 6


def batches(n, seed=0):
    """Numbers of rows, some often, with repeats."""
    rng = np.random.default_rng(seed)
    return [np.minimum(rng.geometric(0.1, 5) - 1, N - 1) for _ in range(n)]


def gradient(table, batch, k):
    """What hangs on the rows that are read."""
    return np.sin(3 * table[batch] + k).astype(table.dtype)


def trained(rows, dtype, flush, steps=60, cls=fastadam.AdamW, **options):
    """A table after a training whose gradients hang on what is read, and its optimizer."""
    table = np.linspace(-1, 1, N * WIDTH).reshape(N, WIDTH).astype(dtype)
    opt = cls(table, lr=schedules.cosine(0.1, steps), rows=rows, **options)
    for k, batch in enumerate(batches(steps)):
        if flush:
            opt.flush(batch)
        values = gradient(table, batch, k)
        if rows == "exact":
            opt.step(Rows(batch, values))
        else:
            dense = np.zeros_like(table)
            np.add.at(dense, batch, values)
            opt.step(dense)
    opt.flush()
    return table, opt


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls", [fastadam.AdamW, fastadam.SGD, fastadam.NAdam])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_bits_of_a_dense_training(cls, dtype, n_threads):
    options = {"momentum": 0.9} if cls is fastadam.SGD else {}
    exact, opt = trained("exact", dtype, flush=True, cls=cls, weight_decay=0.1, n_threads=n_threads, **options)
    dense, other = trained("lazy", dtype, flush=False, cls=cls, weight_decay=0.1, n_threads=n_threads, **options)
    assert exact.tobytes() == dense.tobytes()
    for name in opt.state:
        assert opt.state[name][0].tobytes() == other.state[name][0].tobytes()


def test_without_it_a_training_is_another_one():
    exact, _ = trained("exact", np.float64, flush=False)
    dense, _ = trained("lazy", np.float64, flush=False)
    assert exact.tobytes() != dense.tobytes()


def test_only_these_rows_move():
    table = np.ones((6, 2))
    opt = fastadam.Adam(table, lr=0.1, rows="exact")
    opt.step(Rows(np.arange(6), np.ones((6, 2))))
    opt.step(Rows([0], np.ones((1, 2))))
    before = table.copy()
    opt.flush([4, 1, 4])
    assert (table[[1, 4]] != before[[1, 4]]).all()
    assert (table[[0, 2, 3, 5]] == before[[0, 2, 3, 5]]).all()
    made_up = table[1].copy()
    opt.flush(np.array([1]))
    assert (table[1] == made_up).all()
    opt.flush()
    assert (table[1:] == made_up).all()


def test_structures_take_numbers_rows_and_none():
    params = {"a": np.ones((4, 2)), "b": [np.ones((4, 2)), np.ones(3)]}
    opt = fastadam.Adam(params, lr=0.1, rows="exact")
    for rows in ([0, 1, 2, 3], [0]):
        opt.step({"a": Rows(rows, np.ones((len(rows), 2))), "b": [Rows(rows, np.ones((len(rows), 2))), np.ones(3)]})
    a, b = params["a"].copy(), params["b"][0].copy()
    opt.flush({"a": None, "b": [Rows([2], np.ones((1, 2))), None]})
    assert (params["a"] == a).all()
    assert (params["b"][0] != b).any(axis=1).tolist() == [False, False, True, False]


def test_a_step_of_any_kind_may_follow():
    """What the flush grouped is not taken for the rows of a gradient."""
    exact, dense = np.ones((5, 2)), np.ones((5, 2))
    opt, other = fastadam.Adam([exact], lr=0.1, rows="exact"), fastadam.Adam([dense], lr=0.1)
    grads = [
        Rows([3, 1], np.ones((2, 2))),
        np.full((5, 2), 0.5),
        None,
        Rows([], np.ones((0, 2))),
        Rows([2], -np.ones((1, 2))),
    ]
    for grad in grads * 3:
        opt.flush([[1, 4, 1, 0]])
        opt.step([grad])
        if isinstance(grad, Rows):
            whole = np.zeros((5, 2))
            whole[grad.index] = grad.values
            grad = whole
        other.step([grad])
    opt.flush()
    assert exact.tobytes() == dense.tobytes()


def test_rows_of_a_group_that_was_frozen_while_they_lagged():
    frozen, other = np.ones((4, 2)), np.ones((4, 2))
    opt = fastadam.Adam([{"params": [frozen]}, {"params": [other]}], lr=0.1, rows="exact")
    for rows in ([0, 1, 2, 3], [0]):
        opt.step([[Rows(rows, np.ones((len(rows), 2)))]] * 2)
    opt.param_groups[0]["frozen"] = True
    before = frozen.copy()
    opt.flush([None, [[1]]])
    assert (frozen == before).all()
    opt.flush([[[1]], None])
    assert (frozen != before).any(axis=1).tolist() == [False, True, False, False]


def test_beside_parameters_that_are_lazy():
    lazy, exact = np.ones((4, 2)), np.ones((4, 2))
    opt = fastadam.Adam([{"params": [lazy]}, {"params": [exact], "rows": "exact"}], lr=0.1)
    for rows in ([0, 1, 2, 3], [0]):
        opt.step([Rows(rows, np.ones((len(rows), 2)))] * 2)
    before = lazy.copy()
    opt.flush([[[1]], [[1]]])
    assert (lazy == before).all()
    assert (exact[1] != exact[2]).all()


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([4], ValueError, r"rows of params: expected numbers of rows, 0 … 3, got 4"),
        ([-1], ValueError, r"rows of params: expected numbers of rows, 0 … 3, got -1"),
        ([0.5], TypeError, r"rows of params: expected whole numbers, one a row, got float64"),
        (np.array([True, False, True, False]), TypeError, r"of a mask, pass numpy\.flatnonzero\(mask\)"),
        ([[0, 1]], ValueError, r"rows of params: expected one axis, got the shape \(1, 2\)"),
    ],
)
def test_refused_before_anything_is_touched(rows, error, text):
    table = np.ones((4, 2))
    opt = fastadam.Adam(table, lr=0.1, rows="exact")
    opt.step(Rows([0, 1, 2, 3], np.ones((4, 2))))
    opt.step(Rows([0], np.ones((1, 2))))
    before = table.copy()
    with pytest.raises(error, match=text):
        opt.flush(rows)
    assert (table == before).all()
    opt.flush([1])
    assert (table[1] != before[1]).all()


def test_rows_of_two_steps_are_not_flushed():
    fails = []

    def update(p, g, lr):
        if fails:
            raise ArithmeticError
        return (p - lr * g,)

    p = np.ones((4, 2))
    opt = fastadam.optimizer(update, lambda t, lr: (lr,), (), lr=0.5)(p, backend="numpy", rows="exact")
    opt.step(fastadam.Rows([1], np.ones((1, 2))))
    fails.append(1)
    with pytest.raises(ArithmeticError):
        opt.step(fastadam.Rows([2], np.ones((1, 2))))
    fails.clear()
    for flush in (opt.flush, lambda: opt.flush([0, 2]), lambda: opt.flush([])):
        with pytest.raises(RuntimeError, match="a step failed half-way"):
            flush()
