"""Missed steps of rows in which nothing moves are applied by a short cut: the results must be the same.
Rows at rest are not touched, except for numbers that a step does move. Steps that fade do not change parameters.
"""

from typing import Any

import inside
import numpy as np
import pytest
from cases import CASES, make
from tables import check, numbers, stepped, summed

import fastadam
from fastadam import Rows

F4 = np.float32
N, WIDTH = 20, 3


def start() -> np.ndarray:
    return numbers(np.random.default_rng(0), (N, WIDTH), F4)


def pair(cls: Any = fastadam.AdamW, **more: Any) -> list[fastadam.Optimizer]:
    return [cls([start()], rows=rows, **more) for rows in ("exact", "lazy")]


#: a step that keeps denormals, which others read as zeros
KEEPING: dict[str, Any] = {"clip_value": 1e-39}
#: numbers that a step reads as others, or that are moved by what moves no other
SPECIAL = [0.0, -0.0, 1e-40, -1e-42, 1e-310, 5e-324, np.inf, -np.inf, np.nan, 1.0, 3e38, 2.0**-126]


@pytest.mark.parametrize("case", CASES)
def test_rows_that_were_never_brought_hold_what_a_dense_step_leaves(case: str) -> None:
    """Rows whose states are zeros are mostly left alone; not where their numbers are denormal, say."""
    for dtype in (np.float32, np.float64):
        with np.errstate(all="ignore"):
            special = np.array(SPECIAL).astype(dtype)
        starts = np.concatenate([np.ones((1, 2), dtype), np.stack([special, special[::-1]], axis=1)])
        for more in ({}, {"weight_decay": 0.0}, {"weight_decay": 1e-3}, {"maximize": True}):
            if not {*more} <= {*CASES[case][0].options}:
                continue
            options = {**CASES[case][1], **more}
            opt, dense = (CASES[case][0]([starts.copy()], rows=rows, **options) for rows in ("exact", "lazy"))
            g = np.zeros_like(starts)
            g[0] = 1
            for t in range(5):
                extras = KEEPING if t == 2 and dtype == np.float32 else {}
                opt.step([Rows([0], g[:1])], **extras)
                dense.step([g], **extras)
            opt.flush()
            for p, q in zip(*([*inside.planned(o), *inside.state_arrays(o)] for o in (opt, dense)), strict=True):
                np.testing.assert_array_equal(p, q)
                assert (np.signbit(p) == np.signbit(q))[~np.isnan(p)].all()


@pytest.mark.parametrize("how", [{}, {"state_dtype": "bfloat16"}], ids=["in place", "through buffers"])
@pytest.mark.parametrize(
    ("p", "lr", "most", "last"),
    [(0.0, 1e-20, {}, KEEPING), (1e-40, 1e-30, KEEPING, {})],
    ids=["kept in the last", "zero in the last"],
)
def test_steps_that_keep_denormals_among_those_that_do_not(p: float, lr: float, most: Any, last: Any, how: Any) -> None:
    """A row that did not move in twenty steps does in one where denormals are otherwise."""
    opt, dense = pair(fastadam.SGD, lr=lr, momentum=0.9, **how)
    for t in range(22):
        rows = Rows([1 if t == 0 else 0], np.full((1, WIDTH), 1e-20, F4))
        extras = {} if t == 0 else most if t < 21 else last
        opt.step([rows], **extras)
        dense.step([summed(rows, (N, WIDTH), F4)], **extras)
        if t == 0:
            for each in (opt, dense):
                inside.planned(each)[0][1] = F4(p)
    check(opt, dense)
    assert (inside.planned(dense)[0][1] != F4(p)).all()


@pytest.mark.parametrize("case", ["adam", "amsgrad", "sgd_momentum", "schedule"])
def test_long_lags(case: str) -> None:
    """Of hundreds of steps, in which rows come to rest, and are moved again."""
    rng = np.random.default_rng(3)
    starts = numbers(rng, (N, WIDTH), F4) * np.float32(10.0) ** rng.integers(-44, 5, (N, WIDTH)).astype(F4)
    opt, dense = (make(case, [starts.copy()], rows=rows) for rows in ("exact", "lazy"))
    for t in range(1200):
        rows = Rows([int(rng.integers(N)) if t % 200 < 5 else 0], numbers(rng, (1, WIDTH), F4))
        extras = KEEPING if t % 170 == 160 else {}
        opt.step([rows], **extras)
        dense.step([summed(rows, (N, WIDTH), F4)], **extras)
        for each in (opt, dense):
            if t == 399:
                each.bounds = (-2.0, 2.0)
            if t == 599:
                each.bounds, each.weight_decay = None, 0.01
            if t == 799 and case != "schedule":
                each.weight_decay, each.lr = 0.0, each.lr * 8
    check(opt, dense)


def test_a_master_weight_at_rest_follows_its_parameter() -> None:
    starts = start().astype(np.float16)
    opt, dense = (fastadam.Adam([starts.copy()], master_weights=True, rows=rows) for rows in ("exact", "lazy"))
    for seed in (1, 2):
        for each in (opt, dense):
            stepped(each, [Rows([0], np.ones((1, WIDTH), F4))] * 3)
        opt.flush()
        for each in (opt, dense):
            inside.planned(each)[0][5 + seed] = seed + 0.5
    for each in (opt, dense):
        stepped(each, [Rows([0], np.ones((1, WIDTH), F4))] * 3)
    check(opt, dense)
    assert opt.state["master"][0][6].tolist() == [1.5] * WIDTH


def drawn_in(p, g, lr):
    return (np.where(np.absolute(p) > 2.0, np.where(np.absolute(p) < 900.0, 0.5 * p, p), p) - lr * g,)


def drawn_in_scalars(t, lr):
    return (lr,)


def test_a_rule_of_ones_own_may_move_any_numbers_at_rest() -> None:
    cls = fastadam.optimizer(drawn_in, drawn_in_scalars, [], lr=0.1)
    starts = np.full((4, 2), 500.0, F4)
    opt, dense = (cls([starts.copy()], rows=rows) for rows in ("exact", "lazy"))
    rows = Rows([1], np.ones((1, 2), F4))
    for _ in range(5):
        opt.step([rows])
        dense.step([summed(rows, (4, 2), F4)])
    check(opt, dense)
    assert inside.planned(opt)[0][0, 0] == 500.0 / 32
