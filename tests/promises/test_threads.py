"""Threads change only the time: the same bits for any number, and no hang after a fork or with many callers.
The plans here are large enough for several threads.
"""

import os
import subprocess
import sys
import threading
import time

import inside
import numpy as np
import pytest
from cases import BY_RULE, DTYPES, arrays_of, gradients, make, stepped_alone
from inside import MAX_THREADS, threads

import fastadam

#: shapes whose tiles begin and end within arrays, and across many of them
PLANS = {
    "one array": [100_003],
    "tiny arrays": [7] * 4_400,
    "unequal arrays": [(300, 301), (5,), (1,), (70_001,), (0,), (8192,), (3, 1)],
    "empty at the ends": [0, 50_000, 0],
    "whole tiles": [8192 * 4, 8192 * 2],
}


def stepped(case, shapes, dtype, n_threads, steps=4):
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    grads = [gradients(np.random.default_rng(1), p.size, steps, dtype) for p in params]
    opt = make(case, params, n_threads=n_threads)
    for t in range(steps):
        opt.step([g[t].reshape(p.shape) for g, p in zip(grads, params, strict=True)])
    return arrays_of(opt)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("plan", PLANS)
def test_any_number_of_threads_gives_the_same_bits(plan, dtype):
    alone = stepped("adam", PLANS[plan], dtype, 1)
    for n_threads in (2, 3, 8, 64):
        for got, expected in zip(stepped("adam", PLANS[plan], dtype, n_threads), alone, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", BY_RULE)
def test_every_rule_in_threads(case):
    shapes = PLANS["unequal arrays"]
    for got, expected in zip(stepped(case, shapes, "float32", 4), stepped(case, shapes, "float32", 1), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_strided_arrays_in_threads():
    """Each thread gathers into a buffer of its own; the plan is large enough to wake sleeping ones."""
    results = []
    for n_threads in (1, 4):
        rng = np.random.default_rng(0)
        p, g = rng.standard_normal((2, 800, 500))[:, ::2, ::-1]
        opt = fastadam.Adam(p, n_threads=n_threads)
        for _ in range(5):
            opt.step(g.copy(order="F"))
        results.append(p.copy())
    np.testing.assert_array_equal(*results)


def test_many_steps_do_not_lose_a_tile():
    """Thousands of jobs, that end while helpers wake, spin and fall asleep: each adds exactly one to each element."""
    p = np.zeros(40_000)
    opt = fastadam.Adagrad(p, lr=1.0, eps=0, initial_accumulator_value=0, n_threads=4)
    opt.state["v"][0][:] = 0
    g = np.full_like(p, -1.0)
    for k in range(3_000):
        opt.state["v"][0][:] = 0  # then the step is g / sqrt(g²) = -1
        opt.step(g)
        if k % 100 == 0:
            time.sleep(1e-3)
    np.testing.assert_array_equal(p, 3_000.0)


def test_many_python_threads_at_once():
    def work(seed, results):
        rng = np.random.default_rng(seed)
        p = np.zeros(60_000)
        opt = fastadam.Adam(p, n_threads=1 + seed % 4)
        for _ in range(30):
            opt.step(rng.standard_normal(p.size))
        results[seed] = p

    together, alone = {}, {}
    workers = [threading.Thread(target=work, args=(seed, together)) for seed in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in range(16):
        work(seed, alone)
        np.testing.assert_array_equal(together[seed], alone[seed])


def test_the_gil_is_released():
    """Another Python thread runs while a step does: it ticks between the step's beginning and its end."""
    p, g = np.zeros(8_000_000), np.ones(8_000_000)
    opt = fastadam.Adam(p, n_threads=1)
    opt.step(g)
    ticks, running = [], True

    def tick():
        while running:
            ticks.append(time.perf_counter())
            time.sleep(1e-4)

    ticker = threading.Thread(target=tick)
    ticker.start()
    within, latest = 0, time.perf_counter() + 300  # on a machine that does much else, it may have to wait for its turn
    while not within and time.perf_counter() < latest:
        start = time.perf_counter()
        opt.step(g)
        end = time.perf_counter()
        margin = (end - start) / 10
        within += sum(start + margin < moment < end - margin for moment in ticks)
    running = False
    ticker.join()
    assert within > 0


FORK = """
import os, sys, warnings
import numpy as np, fastadam
warnings.simplefilter("ignore")
p, g = np.zeros(200_000), np.ones(200_000)
opt = fastadam.Adam(p, n_threads=4)
for _ in range(50):
    opt.step(g)
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        for _ in range(50):
            opt.step(g)
        os._exit(0 if opt.t == 100 and len(np.unique(p)) == 1 else 3)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_after_threaded_steps():
    subprocess.run([sys.executable, "-c", FORK], timeout=60, check=True, env=os.environ | _path())


def test_default_number(monkeypatch):
    monkeypatch.delenv("FASTADAM_NUM_THREADS", raising=False)
    assert 1 <= threads.default() <= (os.cpu_count() or 1)
    assert fastadam.Adam(np.ones(1)).n_threads == threads.default()
    for number in (3, 5, 64, 65, 10**30):  # the build's most is 64, or 1 where it has no threads
        monkeypatch.setenv("FASTADAM_NUM_THREADS", str(number))
        assert threads.default() == min(number, MAX_THREADS)
        assert fastadam.Adam(np.ones(1)).n_threads == min(number, MAX_THREADS)
        assert fastadam.Adam(np.ones(1), n_threads=number).n_threads == min(number, MAX_THREADS)
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("FASTADAM_NUM_THREADS", wrong)
        with pytest.raises((ValueError, TypeError), match="FASTADAM_NUM_THREADS: expected a whole number >= 1"):
            fastadam.Adam(np.ones(1))


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000"}, 1),
        ("4:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "400000", "cpu/job/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("3:memory:/job", {"cpu.max": "50000 100000"}, 16),
        (None, {}, 16),
    ],
)
def test_quota_of_control_groups(request, monkeypatch, tmp_path, membership, limits, expected):
    inside.forget_quota()
    request.addfinalizer(inside.forget_quota)
    monkeypatch.setattr(threads, "PROC", tmp_path / "proc")
    monkeypatch.setattr(threads, "CGROUP", tmp_path / "cgroup")
    monkeypatch.delenv("FASTADAM_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    if membership is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(membership + "\n")
    for name, text in limits.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text + "\n")
    assert threads.default() == min(expected, MAX_THREADS)


def test_numba_sweeps_in_threads():
    results = []
    for backend, n_threads in (("numba", 4), ("cython", 1)):
        p = np.linspace(-1, 1, 100_001)
        opt = fastadam.Adam(p, backend=backend, n_threads=n_threads)
        for _ in range(3):
            opt.step(np.sin(np.arange(p.size)))
        results.append(p)
    np.testing.assert_array_equal(*results)


def test_two_threads_in_one_optimizer():
    """The second is refused while the first steps; what was done is a number of whole steps."""
    p, g = np.zeros(4_000_000), np.ones(4_000_000)
    opt = fastadam.Adam(p)
    refused = []

    def work():
        for _ in range(20):
            try:
                opt.step(g)
            except RuntimeError as error:
                refused.append(str(error))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert opt.t + len(refused) == 40
    assert refused
    assert all("another thread is inside a step" in text for text in refused)
    for array, expected in zip(arrays_of(opt), arrays_of(stepped_alone(opt.t)), strict=True):
        assert (array == expected[0]).all()


def _path():
    return {"PYTHONPATH": os.pathsep.join(sys.path)}
