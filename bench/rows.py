"""Lazy and exact steps of some rows of a table, beside peers, a step of the whole table, and a roofline of rows.
`pip install '.[report]' && python bench/rows.py --out FOLDER` writes rows.json.
The roofline needs gcc. PyTorch takes part where it is installed.

Contestants take turns, each with a table of its own. So a step finds the caches as another contestant left them.
"""

import sys
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from results import arguments, write
from rowwise import (
    LIMITS,
    SUMS,
    WIDTH,
    Feed,
    Make,
    Setting,
    adapter_takes_rows,
    by_rows,
    dense,
    roofline,
    sparse_adam,
    training_step,
)
from tqdm import tqdm

import fastadam
from fastadam import Rows
from fastadam.bench.contestants import of_fastadam
from fastadam.bench.measure import Arrays, Contestant, Rounds, Row, Step, Turn, in_turn, measure

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import inside

THREADS = 2
LAZY, LAZY_ALONE, EXACT, DENSE = "lazy", "lazy, 1 thread", "exact", "the whole table"
TORCH, NUMPY, LIMIT, LIMIT_ALONE = "PyTorch SparseAdam", "NumPy", "roofline of rows", "roofline of rows, 1 thread"
TORCH_TRAINED, TRAINED = "EmbeddingBag, PyTorch SparseAdam", "EmbeddingBag, fastadam over tensors"
FEW, SMALL = 16, 1_000
FEW_ROWS, FEW_DENSE = f"{FEW} rows of {SMALL:,}", f"an array of {FEW} × {WIDTH}"
QUICK = Setting(n_rows=20_000, lag=5.0)


# ---------------------------------------------------------------- measuring


def by_turns(turns: dict[str, Turn], rounds: int, feed: Feed) -> list[Row]:
    return in_turn(turns, Rounds(rounds, rounds), "float32", feed.setting.given, WIDTH)


def fastest(ways: dict[str, Make], feed: Feed, rounds: int) -> tuple[list[Row], Turn]:
    """What each way takes, the fastest first, and the turn of the fastest."""
    turns = {name: make(feed) for name, make in ways.items()}
    rows = sorted(by_turns(turns, rounds, feed), key=lambda row: row.median)
    return rows, turns[rows[0].name]


def warm(turns: dict[str, Turn], rounds: int) -> None:
    """Bring the states' pages into memory, and let rows lag as much as they do in the timed rounds."""
    for k in tqdm(range(rounds), desc="every batch once", unit="batch"):
        for turn in turns.values():
            turn.before(k)
            turn.step()


def mean_lag(opt: fastadam.Adam, feed: Feed) -> float:
    """How many steps a row has missed when it comes back: the mean of all visits, once all batches have come."""
    visits = missed = 0
    for k, batch in enumerate(feed.batches):
        rows = np.unique(batch)
        visits, missed = visits + len(rows), missed + int(inside.missed(opt)[rows].sum())
        feed.write(k)
        opt.step(feed.rows())
    return missed / visits


def of_table(feed: Feed, rounds: int, tuning: int) -> dict[str, Any]:
    """Steps of rows of the large table."""
    in_numpy, best_numpy = fastest(SUMS, feed, tuning)
    ways = {name: partial(roofline, n_threads=THREADS, **how) for name, how in LIMITS.items()}
    limits, best_limit = fastest(ways, feed, tuning)
    opts = {
        name: fastadam.Adam(feed.table(1.0), n_threads=n_threads, rows=rows)
        for name, n_threads, rows in ((LAZY, THREADS, "lazy"), (LAZY_ALONE, 1, "lazy"), (EXACT, THREADS, "exact"))
    }
    turns = {name: by_rows(feed, opt) for name, opt in opts.items()}
    turns |= {NUMPY: best_numpy, LIMIT: best_limit, LIMIT_ALONE: roofline(feed, **LIMITS[limits[0].name], n_threads=1)}
    if find_spec("torch"):
        turns[TORCH] = sparse_adam(feed)
    warm(turns, len(feed.batches))
    lag = mean_lag(opts[EXACT], feed)
    turns[DENSE] = dense(feed, THREADS)
    warm({DENSE: turns[DENSE]}, 1)
    return {"tuned": {NUMPY: in_numpy, LIMIT: limits}, "lag": lag, "steps": by_turns(turns, rounds, feed)}


def of_training(feed: Feed, rounds: int) -> list[Row]:
    """Whole steps of training of an EmbeddingBag, where PyTorch is installed."""
    if not find_spec("torch"):
        return []
    import torch

    turns = {TORCH_TRAINED: training_step(feed, torch.optim.SparseAdam)}
    if adapter_takes_rows():
        from fastadam.adapters.torch import Adam

        turns[TRAINED] = training_step(feed, Adam)
    warm(turns, rounds)
    return by_turns(turns, rounds, feed)


def few_rows(params: Arrays, grads: Arrays) -> Step:
    """A step of some rows of a small table; `Rows` is made anew for each."""
    opt = fastadam.Adam(np.ones((SMALL, WIDTH), np.float32))
    index = np.random.default_rng(0).permutation(SMALL)[:FEW]
    values = grads[0].reshape(FEW, WIDTH)
    return lambda: opt.step(Rows(index, values))


def few_dense(params: Arrays, grads: Arrays) -> Step:
    return of_fastadam()([params[0].reshape(FEW, WIDTH)], [grads[0].reshape(FEW, WIDTH)])


def everything(setting: Setting, most_rounds: int, tuning: int) -> dict[str, Any]:
    """All that is measured, with what was asked."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(THREADS)
    feed = Feed(setting)
    rounds = min(most_rounds, len(feed.batches))
    found = of_table(feed, rounds, tuning)
    found["training"] = of_training(feed, min(rounds, 60))
    found["few"] = measure(
        [Contestant(FEW_ROWS, few_rows), Contestant(FEW_DENSE, few_dense)], "float32", 1, FEW * WIDTH
    )
    drawn = {"batches": len(feed.batches), "different": feed.different}
    return {"setting": asdict(setting) | drawn, **found}


def main() -> None:
    """Measure, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="a small table and few rounds, to see that all of it runs")
    options = parser.parse_args()
    measured = everything(QUICK, 5, 3) if options.quick else everything(Setting(), 600, 60)
    write(options.out, "rows", measured, options.quick)


if __name__ == "__main__":
    main()
