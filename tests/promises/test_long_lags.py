"""Rows that lag for hundreds of steps. If steps with zero gradient cannot move a parameter any more, or if a row has
states of zero, a short cut is taken. The bits must be those of every single step.
"""

import inside
import numpy as np
import pytest

import fastadam

#: rules that fade, and what may keep them from it
FADING = [
    (fastadam.Adam, {}),
    (fastadam.Adam, {"amsgrad": True}),
    (fastadam.Adam, {"eps": 0.0}),
    (fastadam.Adam, {"eps": 1e-20}),
    (fastadam.Adam, {"eps_hat": True}),
    (fastadam.Adam, {"betas": (0.99, 0.9)}),
    (fastadam.Adam, {"betas": (0.5, 0.999)}),
    (fastadam.Adam, {"weight_decay": 1e-3}),
    (fastadam.Adam, {"bounds": (-1.0, 1.0)}),
    (fastadam.AdamW, {}),
    (fastadam.SGD, {"momentum": 0.9}),
    (fastadam.SGD, {"momentum": 0.9, "nesterov": True}),
    (fastadam.RMSprop, {"momentum": 0.5}),
    (fastadam.NAdam, {}),
]
RATES = {
    "constant": 1e-3,
    "saw": lambda t: 1e-3 * (1 + t % 50),
    "falling": lambda t: 1e-2 / t,
    "mostly zero": lambda t: 0.0 if t % 7 else 1e-2,
}
SHAPE = (40, 16)


def batch(rng, dtype):
    """Two rows by a power law, of any size from 1e-12 on: index, values, and the same with zeros in the other rows."""
    index = (rng.zipf(1.5, 2) - 1) % SHAPE[0]
    values = (rng.normal(size=(2, SHAPE[1])) * 10.0 ** rng.integers(-12, 3)).astype(dtype)
    dense = np.zeros(SHAPE, dtype)
    for row, value in zip(index, values, strict=True):
        dense[row] += value
    return fastadam.Rows(index, values), dense


def bits(array):
    return array.view(np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("kind", "options"), FADING)
def test_the_bits_are_those_of_every_step(kind, options, rate, dtype):
    rng = np.random.default_rng(1)
    lagging = rng.normal(size=SHAPE).astype(dtype)
    dense = lagging.copy()
    exact = kind(lagging, lr=RATES[rate], rows="exact", **options)
    plain = kind(dense, lr=RATES[rate], **options)
    for t in range(500):
        rows, grads = batch(rng, dtype)
        exact.step(rows)
        plain.step(grads)
        if t == 300:  # a rate that grows again moves what had stopped
            exact.lr = plain.lr = 0.1
    exact.flush()
    assert np.array_equal(bits(lagging), bits(dense))
    for name in plain.state:
        assert np.array_equal(bits(exact.state[name][0]), bits(plain.state[name][0])), name


@pytest.mark.parametrize("weight_decay", [0.0, 1e-9])
def test_the_short_cuts_are_taken(weight_decay, monkeypatch):
    """Of a lag of 2 000 steps, few are whole ones; with weight decay, which never fades, all are."""
    table = np.full((50, 64), 0.5, np.float32)
    opt = fastadam.Adam(table, lr=1e-3, weight_decay=weight_decay)
    calls = inside.count_sweeps(monkeypatch, inside.rule_of(opt))
    opt = fastadam.Adam(table, lr=1e-3, rows="exact", n_threads=1, weight_decay=weight_decay)
    opt.step(fastadam.Rows(np.arange(50), np.ones((50, 64), np.float32)))
    for _ in range(2000):
        opt.step(fastadam.Rows([0], np.ones((1, 64), np.float32)))
    calls.clear()
    opt.flush()
    assert calls.total() == 49 * 2000
    assert (calls["idle"] > 0.8 * calls.total()) if weight_decay == 0 else (calls["idle"] == 0)
