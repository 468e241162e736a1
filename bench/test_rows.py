"""pytest-benchmark: one Adam step of some rows of a table, lazily, exactly and by NumPy, beside the whole table's.
Run `pytest bench`; `rows.py` measures more, on a larger table.
"""

from functools import partial

import pytest
from rowwise import SUMS, Feed, Setting, by_rows, dense

import fastadam


def ours(feed, rows):
    return by_rows(feed, fastadam.Adam(feed.table(1.0), rows=rows))


WAYS = {rows: partial(ours, rows=rows) for rows in ("lazy", "exact")}
WAYS |= {"numpy": SUMS["np.add.reduceat of repeats"], "dense": partial(dense, n_threads=None)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", [16, 4_096])
def test_rows(benchmark, given, way):
    feed = Feed(Setting(n_rows=20_000, given=given, lag=5.0))
    benchmark.group = f"one Adam step, float32, {given:,} rows of {feed.setting.n_rows:,} × 64"
    turn, k = WAYS[way](feed), 0

    def before():
        nonlocal k
        turn.before(k)
        k += 1

    for _ in feed.batches:
        before()
        turn.step()
    benchmark.pedantic(turn.step, setup=before, rounds=40)
