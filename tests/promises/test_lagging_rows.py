"""Events while rows lag: a folder is closed or its process killed, a step is refused or fails, threads step, a process
forks. See also `test_exact_rows.py`.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from cases import make
from tables import assert_same, bits, check, numbers, some_rows, stepped, summed

import fastadam
from fastadam import Rows

F4 = np.float32
N, WIDTH = 20, 3

NO_ROWS = Rows([], np.empty((0, 2), F4))


def start() -> np.ndarray:
    return numbers(np.random.default_rng(0), (N, WIDTH), F4)


def gradients(n: int, seed: int = 1) -> list[Rows]:
    rng = np.random.default_rng(seed)
    return [some_rows(rng, (N, WIDTH), F4, 4) for _ in range(n)]


def pair(cls: Any = fastadam.AdamW, **more: Any) -> list[fastadam.Optimizer]:
    return [cls([start()], rows=rows, **more) for rows in ("exact", "lazy")]


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("more", [{}, {"state_dtype": "bfloat16", "seed": 5}], ids=["plain", "bfloat16"])
def test_a_folder_that_was_closed_goes_on(more: dict[str, Any], tmp_path: Path) -> None:
    W, grads = start(), gradients(12)
    for k in range(3):
        opt = fastadam.AdamW([W], rows="exact", state_dir=tmp_path, **more)
        assert inside.lagging(opt)[0] > 0 or k == 0
        stepped(opt, grads[4 * k : 4 * k + 4])
        if k < 2:
            opt.close()
            del opt
    check(opt, stepped(fastadam.AdamW([start()], **more), grads))


KILLED = """
import os, signal, sys
import numpy as np
import fastadam
from fastadam import Rows
from tables import assert_same, bits, check, numbers, some_rows, stepped, summed
W = np.memmap(sys.argv[1] + "/W", np.float32, "r+", shape=(20, 3))
opt = fastadam.AdamW([np.asarray(W)], rows="exact", state_dir=sys.argv[1] + "/states")
rng = np.random.default_rng(1)
for _ in range(6):
    opt.step([some_rows(rng, (20, 3), np.float32, 4)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_whose_process_was_killed_goes_on(tmp_path: Path) -> None:
    start().tofile(tmp_path / "W")
    path = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], env=os.environ | {"PYTHONPATH": path}, capture_output=True
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    W = np.memmap(tmp_path / "W", np.float32, "r+", shape=(N, WIDTH))
    opt = fastadam.AdamW([np.asarray(W)], rows="exact", state_dir=tmp_path / "states")
    assert opt.t == 6
    assert inside.lagging(opt)[0] > 0
    grads = gradients(12)
    check(stepped(opt, grads[6:]), stepped(fastadam.AdamW([start()]), grads))


@pytest.mark.parametrize(("first", "then"), [("exact", "lazy"), ("lazy", "exact")])
def test_a_folder_of_the_other_kind_is_refused(first: str, then: str, tmp_path: Path) -> None:
    opt = stepped(fastadam.AdamW([start()], rows=first, state_dir=tmp_path), gradients(4))
    opt.close()
    del opt
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="exact_rows: expected"):
        fastadam.AdamW([start()], rows=then, state_dir=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damaged_visits_are_refused(tmp_path: Path) -> None:
    opt = stepped(fastadam.AdamW([start()], rows="exact", state_dir=tmp_path), gradients(4))
    opt.close()
    del opt
    visits = inside.folder_arrays(tmp_path, "r+")["0.visits"]
    good = visits.copy()
    for bad in (-1, 5, 2**62, -(2**63)):
        visits[3] = bad
        with pytest.raises(ValueError, match=r"visits of parameter 0: no steps of its rows: expected .* from 0 to 4"):
            fastadam.AdamW([start()], rows="exact", state_dir=tmp_path)
    visits[...] = good
    assert inside.lagging(fastadam.AdamW([start()], rows="exact", state_dir=tmp_path))[0] > 0


# ---------------------------------------------------------------- other ways to change an optimizer


def test_a_group_is_added() -> None:
    opt, dense = pair()
    for each in (opt, dense):
        stepped(each, gradients(6))
        each.add_param_group({"params": [np.ones((4, 2))], "rows": "exact"})
    assert inside.lagging(opt)[0] > 0
    for rows in gradients(8, seed=2):
        more = Rows([1, 1], np.ones((2, 2)))
        opt.step([[rows], [more]])
        dense.step([[summed(rows, (N, WIDTH), F4)], [summed(more, (4, 2), float)]])
    assert all(inside.lagging(opt))
    check(opt, dense)


def test_averages_are_swapped() -> None:
    opt, dense = pair(fastadam.ScheduleFreeAdamW)
    for seed in (1, 2):
        for each in (opt, dense):
            stepped(each, gradients(6, seed))
        assert inside.lagging(opt)[0] > 0
        with opt.swapped(), dense.swapped():
            assert bits(inside.planned(opt)[0]) == bits(inside.planned(dense)[0])
        assert bits(inside.planned(opt)[0]) == bits(inside.planned(dense)[0])
    for each in (opt, dense):
        stepped(each, gradients(6, 3))
    check(opt, dense)


def test_an_array_of_another_dtype_begins_anew() -> None:
    """What is noted of each step is wider then: it once was written behind the end of its memory."""
    opt, dense = pair()
    for each in (opt, dense):
        stepped(each, gradients(6))
        each.replace("0", start().astype(float), rows=-1)
    for t in range(4200):
        rows = Rows([t % 7], np.ones((1, WIDTH)))
        opt.step([rows])
        dense.step([summed(rows, (N, WIDTH), float)])
    check(opt, dense)


# ---------------------------------------------------------------- what is refused, skipped, or fails


@pytest.mark.parametrize(
    "bad",
    [Rows([N], np.ones((1, WIDTH))), Rows([0], np.ones((1, 2))), np.ones((N, 2)), "text", np.ones((N, WIDTH), "c8")],
    ids=["number", "width", "shape", "text", "complex"],
)
def test_a_refused_step_changes_nothing(bad: Any) -> None:
    opt, dense = pair()
    for seed in (1, 2):
        for each in (opt, dense):
            stepped(each, gradients(5, seed))
        lag = inside.lagging(opt)
        before = [bits(array) for array in (*inside.planned(opt), *inside.state_arrays(opt), inside.plan(opt).counts)]
        with pytest.raises((TypeError, ValueError)):
            opt.step([bad])
        after = [bits(array) for array in (*inside.planned(opt), *inside.state_arrays(opt), inside.plan(opt).counts)]
        assert before == after
        assert inside.lagging(opt) == lag
        assert lag[0] > 0
    check(opt, dense)


def test_skipped_steps_are_none_to_make_up_for() -> None:
    opt, dense = pair()
    bad = Rows([3], np.full((1, WIDTH), np.nan, F4))
    for seed in range(4):
        for each in (opt, dense):
            stepped(each, gradients(3, seed))
        opt.step([bad if seed % 2 else summed(bad, (N, WIDTH), F4)], skip_nonfinite=True)
        dense.step([summed(bad, (N, WIDTH), F4)], skip_nonfinite=True)
    assert (opt.t, opt.skipped) == (12, 4)
    check(opt, dense)


def test_gradients_that_are_not_finite_are_made_up_for() -> None:
    """By a norm of infinity or NaN, rows that are not brought become what a dense step makes of them."""
    for bad, extras in ((np.inf, {"max_norm": 1.0}), (np.nan, {"max_norm": 1.0}), (np.inf, {"max_norm_each": 1.0})):
        opt, dense = pair()
        for rows, more in [(gradients(1)[0], {}), (Rows([3], np.full((1, WIDTH), bad, F4)), extras)]:
            opt.step([rows], **more)
            dense.step([summed(rows, (N, WIDTH), F4)], **more)
        opt.flush()
        for p, q in zip(*([*inside.planned(o), *inside.state_arrays(o)] for o in (opt, dense)), strict=True):
            np.testing.assert_array_equal(p, q)


def failing_rate(t: int) -> Any:
    return 0.1 if t != 4 else 1 / 0


def test_a_rate_that_fails_changes_nothing() -> None:
    opt, dense = pair(lr=failing_rate)
    for each in (opt, dense):
        stepped(each, gradients(3))
        with pytest.raises(ZeroDivisionError):
            stepped(each, gradients(1, 2))
        each.lr = 0.25
        stepped(each, gradients(3, 3))
    check(opt, dense)


#: what `guarded` is to fail at, next to each other
failures: list[bool] = []


def fail() -> None:
    if failures and failures.pop():
        raise ArithmeticError("of its own")


def guarded(p, g, lr):
    fail()
    return (p - lr * g,)


def rate_alone(t, lr):
    return (lr,)


def test_a_rule_that_fails_while_rows_make_up_leaves_them_torn() -> None:
    cls = fastadam.optimizer(guarded, rate_alone, [], lr=0.1)
    opt, other = (cls([start()], rows="exact", backend="numpy") for _ in range(2))
    stepped(opt, gradients(5))
    failures.extend([True, False, False])
    with pytest.raises(ArithmeticError, match="of its own"):
        opt.flush()
    assert inside.is_torn(opt)
    for call in (opt.flush, opt.state_dict, lambda: stepped(opt, gradients(1))):
        with pytest.raises(RuntimeError, match="a step failed half-way"):
            call()
    inside.planned(opt)[0][...] = start()
    opt.load_state_dict(other.state_dict())
    for each in (opt, other):
        stepped(each, gradients(5, 2)).flush()
    assert_same(opt, other)


#: what the rule that follows does when it is called
MEDDLED: list[Any] = []


def meddle() -> None:
    for call in MEDDLED:
        call()


def meddling(p, g, lr):
    meddle()
    return (p - lr * g,)


def test_a_rule_that_lays_the_plan_out_while_rows_make_up_is_refused() -> None:
    """As it is in a step: the memory that it is stepped in would be gone."""
    cls = fastadam.optimizer(meddling, rate_alone, [], lr=0.1)
    opt = cls([np.ones((4, 2), F4)], rows="exact", backend="numpy")
    opt.step([Rows([1], np.ones((1, 2), F4))])
    MEDDLED.append(inside.plan(opt).clear)
    try:
        with pytest.raises(RuntimeError, match="this thread is inside a step"):
            opt.flush()
    finally:
        MEDDLED.clear()


# ---------------------------------------------------------------- what comes may change


def test_an_index_that_is_written_between_steps_is_read_anew() -> None:
    index, values = np.zeros(2, np.int64), np.ones((2, WIDTH), F4)
    rows = Rows(index, values)
    opt, dense = pair()
    for t in range(8):
        index[:] = t, (3 * t) % 7
        values[:] = t
        opt.step([rows])
        dense.step([summed(rows, (N, WIDTH), F4)])
    index[1] = N
    with pytest.raises(ValueError, match=f"got {N} at place 1"):
        opt.step([rows])
    index[1] = 0
    values.shape = (WIDTH, 2)
    with pytest.raises(ValueError, match="expected shape"):
        opt.step([rows])
    check(opt, dense)


def test_values_are_let_go_after_their_step() -> None:
    """No row that is made up for reads a gradient."""
    opt, dense = pair()
    for rows in gradients(6):
        again = Rows(rows.index.copy(), rows.values.copy())
        opt.step([again])
        again.values[...] = np.nan
        del again
        dense.step([summed(rows, (N, WIDTH), F4)])
    check(opt, dense)


def test_more_rows_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    """2**30 + 1 of them: a hole in a file holds the numbers, one row the values."""
    n = 2**30 + 1
    with open(tmp_path / "index", "wb") as file:
        file.truncate(8 * n)
    index = np.asarray(np.memmap(tmp_path / "index", np.int64, "r", shape=(n,)))
    opt = fastadam.Adam([start()])
    with pytest.raises(ValueError, match=re.escape(f"expected at most 2**30 rows, got {n}")):
        opt.step([Rows(index, np.broadcast_to(np.ones(WIDTH, F4), (n, WIDTH)))])
    assert opt.t == 0


# ---------------------------------------------------------------- threads and processes


def test_two_optimizers_step_at_once() -> None:
    """Each in a thread of its own, without the GIL; a third thread flushes and reads."""
    shape = (2000, 40)
    opts = [fastadam.AdamW([np.ones(shape, F4)], rows="exact", n_threads=2) for _ in range(2)]

    def work(opt: fastadam.Optimizer, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for t in range(30):
            opt.step([some_rows(rng, shape, F4, 6000)])
            if t % 10 == 9:
                opt.flush()

    threads = [threading.Thread(target=work, args=(opt, seed)) for seed, opt in enumerate(opts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, opt in enumerate(opts):
        dense, rng = fastadam.AdamW([np.ones(shape, F4)], n_threads=1), np.random.default_rng(seed)
        for _ in range(30):
            dense.step([summed(some_rows(rng, shape, F4, 6000), shape, F4)])
        check(opt, dense)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process forks here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_while_rows_lag() -> None:
    """The child makes up for its own; the parent goes on as if there were none."""
    opt, dense = pair(n_threads=2)
    for each in (opt, dense):
        stepped(each, gradients(6))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check(opt, dense)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert inside.lagging(opt)[0] > 0
    for each in (opt, dense):
        stepped(each, gradients(6, 2))
    check(opt, dense)


def test_a_flush_within_a_step_is_refused() -> None:
    made: list[fastadam.Optimizer] = []

    def rate(t: int) -> float:
        if t == 3:
            with pytest.raises(RuntimeError, match="inside a step"):
                made[0].flush()
        return 0.1

    opt = fastadam.AdamW([start()], lr=rate, rows="exact")
    made.append(opt)
    check(stepped(opt, gradients(5)), stepped(fastadam.AdamW([start()], lr=0.1), gradients(5)))


def test_flush_of_a_lazy_optimizer_does_nothing() -> None:
    opt = stepped(fastadam.AdamW([start()], rows="exact"), gradients(3))
    lazy = fastadam.AdamW([start()])
    for rows in gradients(3):
        lazy.step([rows])
    before = bits(inside.planned(lazy)[0])
    lazy.flush()
    assert bits(inside.planned(lazy)[0]) == before
    opt.flush()
    opt.flush()
    assert bits(inside.planned(opt)[0]) != before
    with pytest.raises(ValueError, match="rows: expected 'lazy' or 'exact', got 'all'"):
        make("adam", [start()], rows="all")
    with pytest.raises(ValueError, match="choose it at construction"):
        opt.rows = "lazy"


@pytest.mark.parametrize("cls", [fastadam.Adam, fastadam.RMSprop, fastadam.Adagrad])
def test_a_denormal_eps_is_zero_for_rows_at_rest_too(cls: Any) -> None:
    """Nothing is divided by nothing then, and the whole table is NaN."""
    opt, dense = pair(cls, eps=1e-39)
    for each in (opt, dense):
        stepped(each, [Rows([0], np.ones((1, WIDTH), F4))] * 3)
    check(opt, dense)
    assert np.isnan(inside.planned(opt)[0][1:]).all()


@pytest.mark.parametrize("cls", [fastadam.Adam, partial(fastadam.SGD, momentum=0.9)])
def test_steps_that_keep_denormals_do_not_fade_into_one_that_does_not(cls: Any) -> None:
    """A row that long has not moved holds denormals, which are zero at the first step that does not keep them."""
    opt, dense = (cls([np.full((4, 2), (1.0, 1e-40), F4)], rows=rows) for rows in ("exact", "lazy"))
    brought = Rows([0], np.array([[1.0, 0.0]], F4))
    for rows, extras in [(brought, {"clip_value": 1e-40})] + 30 * [(NO_ROWS, {"clip_value": 1e-40})] + [(NO_ROWS, {})]:
        opt.step([rows], **extras)
        dense.step([summed(rows, (4, 2), F4)], **extras)
    check(opt, dense)
    assert inside.planned(opt)[0][0].tolist() == [1, 0]


def test_a_parameter_without_rows_is_stepped_in_the_same_mode() -> None:
    """Nothing of it lags, in a group whose rows do. A gradient that was denormal is zero to the step after it."""
    opt, dense = (fastadam.Rprop([np.ones((), F4)], rows=rows) for rows in ("exact", "lazy"))
    for each in (opt, dense):
        for extras in ({}, {"clip_value": 1e-39}, {}, {}):
            each.step([np.ones((), F4)], **extras)
    check(opt, dense)
