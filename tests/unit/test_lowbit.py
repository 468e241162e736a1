"""8-bit states train as well as float32 states: the tasks of bench/lowbit.py, the hardest in full, the others
shortened.
"""

import shutil

import codes
import lowbit
import numpy as np
import pytest

import fastadam

WORST = "worst case, 9 orders"
SHORT = 200


def runs(task, state_dtype, steps=None):
    return [lowbit.with_states(task, state_dtype, seed, steps) for seed in lowbit.SEEDS]


def test_worst_case_ends_where_float32_ends_and_linear_codes_diverge():
    assert lowbit.summary(runs(WORST, "int8"), runs(WORST, None))["within"]
    start = lowbit.TASKS[WORST][0](0).loss()[0]
    assert not lowbit.with_code(WORST, codes.CODES["linear"], 0, SHORT)["final"] < 100 * start


@pytest.mark.parametrize("task", [task for task in lowbit.TASKS if task != WORST])
def test_short_training_is_that_of_float32(task):
    int8, float32 = (np.mean([run["final"] for run in runs(task, dtype, SHORT)]) for dtype in ("int8", None))
    assert int8 == pytest.approx(float32, rel=0.03)
    assert float32 < 0.9 * lowbit.TASKS[task][0](0).loss()[0]


@pytest.mark.parametrize(("state", "table"), [("m", codes.OURS[0]), ("v", codes.OURS[1])])
def test_emulated_code_is_that_of_the_states(state, table):
    x = (10 ** np.random.default_rng(0).uniform(-9, 0, 256)).astype(np.float32)
    opt = fastadam.Adam(np.ones(256, np.float32), state_dtype="int8", min_8bit_size=0)
    opt.step(x)
    kept = np.asarray(opt.state[state][0], np.float32)
    exact = 0.1 * x if state == "m" else 0.001 * x * x
    assert set(kept / 2.0 ** np.floor(np.log2(exact.max()))) <= set(table)
    assert 0.05 < np.sqrt(np.mean((kept / exact - 1)[x > 1e-7] ** 2)) < 0.1


def test_second_moment_grows_to_a_steady_gradient():
    opt = fastadam.Adam(np.ones(4096, np.float32), state_dtype="int8")
    for _ in range(1000):
        opt.step(np.ones(4096, np.float32))
    assert np.mean(opt.state["v"][0]) == pytest.approx(1 - 0.999**1000, rel=0.02)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="builds a loop in C")
def test_every_code_has_a_time():
    times = codes.nanoseconds(rounds=1)
    assert {code.loop for code in codes.CODES.values()} == set(times)
    assert all(0 < time < np.inf for time in times.values())
