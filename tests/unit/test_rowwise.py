"""The contestants of bench/rows.py do the same work: Adam, or sums of the same rows. Rows lag as described."""

import shutil
from functools import partial

import inside
import numpy as np
import pytest
import rowwise

import fastadam

SETTING = rowwise.Setting(n_rows=500, given=300, lag=3.0)


@pytest.fixture(scope="module")
def feed():
    return rowwise.Feed(SETTING)


def trained(feed, monkeypatch, make):
    """The tables that a contestant has made, after some of its turns."""
    tables = []
    table = rowwise.Feed.table
    monkeypatch.setattr(rowwise.Feed, "table", lambda *args: tables.append(table(*args)) or tables[-1])
    turn = make(feed)
    for k in range(5):
        turn.before(k)
        turn.step()
    return tables


@pytest.fixture
def lazy(feed, monkeypatch):
    """In PyTorch's convention: eps before the correction."""
    return trained(feed, monkeypatch, lambda feed: rowwise.by_rows(feed, fastadam.Adam(feed.table(1.0), eps_hat=True)))[
        0
    ]


@pytest.mark.parametrize("way", rowwise.SUMS)
def test_numpy_steps_as_lazy_rows_do(feed, monkeypatch, lazy, way):
    p = trained(feed, monkeypatch, rowwise.SUMS[way])[0]
    assert not np.array_equal(p, np.ones_like(p))
    np.testing.assert_allclose(p, lazy, rtol=0, atol=1e-6)


def test_torch_steps_as_lazy_rows_do(feed, monkeypatch, lazy):
    pytest.importorskip("torch")
    np.testing.assert_allclose(trained(feed, monkeypatch, rowwise.sparse_adam)[0], lazy, rtol=0, atol=1e-6)


def test_exact_rows_step_as_the_whole_table_does(feed, monkeypatch):
    opts = []

    def exact(feed):
        opts.append(fastadam.Adam(feed.table(1.0), rows="exact"))
        return rowwise.by_rows(feed, opts[0])

    p = trained(feed, monkeypatch, exact)[0]
    opts[0].flush()
    np.testing.assert_array_equal(p, trained(feed, monkeypatch, partial(rowwise.dense, n_threads=1))[0])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="it is compiled by gcc")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("how", rowwise.LIMITS)
def test_roofline_adds_sums_of_rows_to_all(feed, monkeypatch, how, n_threads):
    tables = trained(feed, monkeypatch, partial(rowwise.roofline, **rowwise.LIMITS[how], n_threads=n_threads))
    expected = np.zeros_like(tables[0], np.float64)
    for k in range(5):
        np.add.at(expected, feed.batches[k], feed.fresh[k])
    for table, start in zip(tables, (1, 0, 0), strict=True):
        np.testing.assert_allclose(table, start + expected, rtol=0, atol=1e-3)


def test_rows_that_come_back_have_missed_as_many_steps_as_asked(feed):
    opt = fastadam.Adam(np.ones((SETTING.n_rows, 1), np.float32), rows="exact")
    last = np.zeros(SETTING.n_rows, int)
    missed = []
    for t in range(2 * len(feed.batches)):
        rows = np.unique(feed.batches[t % len(feed.batches)])
        lags = inside.missed(opt)[rows]
        np.testing.assert_array_equal(lags, t - last[rows])
        if t >= len(feed.batches):
            missed += lags.tolist()
        last[rows] = t + 1
        opt.step(fastadam.Rows(rows, np.ones((len(rows), 1))))
    assert SETTING.lag <= np.mean(missed) < 1.2 * SETTING.lag
