"""Many threads at once, with a GIL or without. Optimizers of their own give the bits that they give alone. Of threads
that share one, whoever comes while another is inside is refused, and nothing is ever of two steps.

`.ci/builds free-threaded` runs this file where threads really run at once.
"""

import contextlib
import copy
import importlib
import io
import os
import pkgutil
import subprocess
import sys
import sysconfig
import threading
import time

import inside
import numpy as np
import pytest
from cases import BY_RULE, arrays_of, gradients, make, stepped_alone

import fastadam
from fastadam import functional, schedules

N_THREADS = 6
#: how long threads run against one another, in seconds
LONG = float(os.environ.get("FASTADAM_STRESS_SECONDS", "0.5"))
#: what a structure that is changed while it is read may be called
STRUCTURE = (TypeError, ValueError, LookupError)


#: where there is a GIL, threads get it from one another often
pytestmark = pytest.mark.usefixtures("switching")


def together(*works):
    """Run these at once, each in a thread; what one raises is raised here, and their results are returned."""
    results, errors = [None] * len(works), []
    barrier = threading.Barrier(len(works))

    def run(k):
        try:
            barrier.wait()
            results[k] = works[k]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def against(work, *others):
    """Run `work` again and again for a while, and all others, each in a thread, until it ends."""
    is_over = threading.Event()

    def main():
        latest = time.monotonic() + LONG
        try:
            while time.monotonic() < latest:
                work()
        finally:
            is_over.set()

    def again(other):
        while not is_over.is_set():
            other()

    together(main, *((lambda other=other: again(other)) for other in others))


def trying(work):
    """`work`, which may be refused since another thread is inside."""

    def call():
        with contextlib.suppress(RuntimeError):
            work()

    return call


def counting(work, *refusals):
    """`work`, and the counts of its calls: those that were done, and those that were refused by these errors."""
    done, refused = [], []

    def call():
        try:
            work()
        except refusals as error:
            refused.append(str(error))
        else:
            done.append(None)

    return call, done, refused


# ---------------------------------------------------------------- the build

IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sys._is_gil_enabled())
"""


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_no_module_turns_the_gil_on():
    """Importing a compiled module that does not say that it needs no GIL turns it on, for all."""
    kernel = importlib.import_module("fastadam.kernel")
    compiled = [f"fastadam.kernel.{module.name}" for module in pkgutil.iter_modules(kernel.__path__)]
    compiled = [name for name in compiled if "_sweeps_" not in name and not name.endswith(".jit")]
    names = [*compiled, "fastadam.functional", "fastadam.capi", "fastadam.adapters._tensors", "fastadam.adapters._lent"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-W", "error", "-c", IMPORTS, *names]
    assert subprocess.run(command, env=environment, check=True, capture_output=True).stdout == b"False\n"


# ---------------------------------------------------------------- optimizers of their own


def life(seed):
    """What an optimizer comes to that is made, stepped, saved, copied and dropped; each seed is another life."""
    case = list(BY_RULE)[seed % len(BY_RULE)]
    rng = np.random.default_rng(seed)
    sizes = [(16,), (3, 50), (1000,), (40_000 if seed % 3 == 0 else 7,)]
    arrays = [rng.standard_normal(size).astype("float32" if seed % 2 else "float64") for size in sizes]
    params = [{"a": arrays[0], "b": [arrays[1], arrays[2]]}, arrays[3]] if seed % 4 < 2 else arrays
    opt = make(case, params, n_threads=1 + seed % 3)
    average = fastadam.Average(params, decay=0.9)
    grads = [gradients(rng, p.size, 30, p.dtype) for p in arrays]
    for t in range(30):
        a, b, c, d = (g[t].reshape(p.shape) for g, p in zip(grads, arrays, strict=True))
        opt.step([{"a": a, "b": [b, c]}, d] if seed % 4 < 2 else [a, b, c, d])
        average.update()
        if t == 20:
            file = io.BytesIO()
            opt.save(file, params=True)
            file.seek(0)
            opt.load(file)
            opt = opt if seed % 5 else copy.deepcopy(opt)
    return [array.copy() for array in (*arrays_of(opt), *inside.planned(average), table_of(rng))]


def table_of(rng):
    """A table that was stepped by rows, of which others make up later for what they missed."""
    table = np.zeros((300, 4), np.float32)
    opt = fastadam.Adam(table, lr=0.1, rows="exact")
    for _ in range(20):
        opt.step(fastadam.Rows(rng.integers(0, 300, 50), rng.standard_normal((50, 4))))
    opt.flush()
    return table


def test_lives_side_by_side_are_those_of_one_alone():
    seeds = range(2 * N_THREADS)
    for seed, got in zip(seeds, together(*((lambda seed=seed: life(seed)) for seed in seeds)), strict=True):
        for one, other in zip(got, life(seed), strict=True):
            np.testing.assert_array_equal(one, other)


def test_functions_side_by_side():
    def steps(seed):
        rng = np.random.default_rng(seed)
        p, m, v = rng.standard_normal(100), np.zeros(100), np.zeros(100)
        lists = [[np.ones(3), np.ones(5)] for _ in range(2)]
        for t in range(1, 200):
            functional.adam(p, rng.standard_normal(100), m, v, t, lr=0.01)
            functional.sgd(*lists, t, lr=0.01, n_threads=1 + seed % 2)
        return p, m, v, *lists[0]

    for seed, got in enumerate(together(*((lambda seed=seed: steps(seed)) for seed in range(N_THREADS)))):
        for one, other in zip(got, steps(seed), strict=True):
            np.testing.assert_array_equal(one, other)


def test_one_kernel_of_a_new_rule():
    """All threads need the kernel of a rule that none has made before, and step by one."""

    def update(p, g, m, lr):
        m = m + g
        return p - lr * m, m

    Summed = fastadam.optimizer(update, lambda t, lr: (lr,), ["m"], lr=0.1)

    def steps():
        p = np.zeros(10)
        opt = Summed(p, lr=0.5, backend="numpy")
        opt.step(np.ones(10))
        return p

    for p in together(*[steps] * N_THREADS):
        np.testing.assert_array_equal(p, -0.5)


def test_folders(tmp_path):
    """Each thread has a folder of its own, and all try for one more: one optimizer at a time has that."""
    had, told = [], set()

    def steps(k):
        for n in range(20):
            p = np.zeros(4)
            own = fastadam.Adam(p, state_dir=tmp_path / f"{k}")
            own.step(np.ones(4))
            assert own.t == n + 1
            own.close()
            try:
                shared = fastadam.Adam(p, state_dir=tmp_path / "shared")
            except RuntimeError as error:
                told.add("another optimizer uses this folder" in str(error))
            else:
                had.append(shared)
                assert len(had) == 1
                shared.step(np.ones(4))
                had.clear()
                shared.close()
        return True

    assert all(together(*((lambda k=k: steps(k)) for k in range(N_THREADS))))
    assert told <= {True}


# ---------------------------------------------------------------- one that is shared


@pytest.mark.parametrize("n", [16, 50_000])
def test_one_steps_and_the_others_are_refused(n):
    p, g = np.zeros(n), np.ones(n)
    opt = fastadam.Adam(p, n_threads=2)
    step, done, refused = counting(lambda: opt.step(g), RuntimeError)
    against(step, *[step] * (N_THREADS - 1))
    assert opt.t == len(done) > 0
    assert all("another thread is inside a step" in text for text in refused)
    for array, expected in zip(arrays_of(opt), arrays_of(stepped_alone(opt.t)), strict=True):
        assert (array == expected[0]).all()


def test_options_are_those_of_all_groups_or_of_none():
    """The rate alternates between 1 and 2 for all groups, while steps are made: each moves all parameters equally."""
    p, q = np.zeros(16), np.zeros(3)
    opt = fastadam.SGD([{"params": [p], "name": "p"}, {"params": [q], "name": "q"}], lr=1.0)
    opt.add_param_group({"params": [np.zeros(2)]})
    moves, rates = set(), [1.0, 2.0]

    def step():
        before = p[0]
        opt.step([[np.ones(16)], [np.ones(3)], None])
        moves.add(before - p[0])
        assert (p == q[0]).all()

    def assign():
        rates.reverse()
        opt.lr = rates[0]

    def read():
        assert opt.param_groups[0]["lr"] in (1.0, 2.0)
        assert "lr=" in repr(opt)

    against(step, assign, read)
    assert moves <= {1.0, 2.0}


def test_an_assignment_between_the_options_of_a_step_holds_from_the_next_one_on():
    """All of it: here a schedule assigns, where else another thread does."""
    p = np.zeros(4)

    def rate(t):
        if t == 2:
            opt.param_groups[0].update(frozen=True)
        return 1.0

    opt = fastadam.SGD(p, lr=rate)
    for expected in (-1.0, -2.0, -2.0):
        opt.step(np.ones(4))
        assert (p == expected).all()


def test_a_rate_that_follows_a_loss():
    rate = schedules.plateau(1.0, patience=0, factor=0.5)
    p = np.zeros(4)
    opt = fastadam.SGD(p, lr=rate)
    against(lambda: opt.step(np.ones(4)), lambda: rate.report(1.0), lambda: repr(opt))
    assert 0 < opt.rate <= 1.0


def test_numbers_are_read_while_it_steps_and_grows():
    """Whole numbers and names, whichever of two layouts they are of."""
    params = {"w": np.zeros(16)}
    opt = fastadam.SGD(params, lr=0.0, momentum=0.9)
    seen = [0]

    def change():
        opt.step({"w": np.ones(16)}, max_norm=5.0, zero_grads=True)
        opt.replace("w", np.zeros(16))

    def read():
        t = opt.t
        assert t >= seen[0]
        seen[0] = t
        assert opt.grad_norm in (None, 4.0)
        assert opt.skipped == 0
        assert opt.rate in (None, 0.0)
        assert list(opt.state) == ["b"]
        assert inside.planned(opt)[0].shape == (16,)
        assert inside.plan(opt).names == ["params['w']"]
        assert opt.state["b"][0].shape == (16,)

    against(change, trying(read))
    assert opt.t > 0


@pytest.mark.parametrize("kind", [fastadam.Adam, fastadam.Lion])
def test_what_is_saved_is_of_one_step(kind):
    p, g = np.zeros(5000), np.ones(5000)
    opt = kind(p, lr=0.1)
    alone = np.zeros(1)
    other, expected = kind(alone, lr=0.1), {0: 0.0}
    step, done, _ = counting(lambda: opt.step(g), RuntimeError)
    saved = {}

    def save():
        found = opt.state_dict()
        m = found["state"]["0"]["m"]
        assert (m == m[0]).all()
        saved[found["t"]] = m[0]
        opt.save(io.BytesIO(), params=True)

    against(step, trying(save), trying(save))
    save()  # with a GIL it may be that none came between two steps
    for t in range(1, len(done) + 1):
        other.step(np.ones(1))
        expected[t] = other.state["m"][0][0]
    for t, m in saved.items():
        assert m == expected[t]


def test_copies_are_of_one_step_or_refused():
    """The arrays of a copy are read after the optimizer was let go, so a step that comes then is noticed."""
    opt = fastadam.SGD(np.zeros(5000), lr=1.0)

    def step():
        trying(lambda: opt.step(np.ones(5000)))()
        time.sleep(1e-4)

    def read_copy():
        other = copy.deepcopy(opt)
        assert (inside.planned(other)[0] == -float(other.t)).all()

    copying, done, refused = counting(read_copy, RuntimeError)
    against(step, copying)
    assert done or refused


def test_averages_are_exchanged_while_others_try_to_update():
    p = np.full(3000, 4.0)
    average = fastadam.Average(p, decay=1.0)
    average.update()
    p[:] = 8.0

    def exchange():
        with contextlib.suppress(RuntimeError), average.swapped():  # refused while another thread is inside
            assert (p == 4.0).all()
            assert (inside.planned(average)[0] == 8.0).all()
        assert (p == 8.0).all()

    against(exchange, trying(average.update), trying(average.state_dict), lambda: average.t)
    assert (p == 8.0).all()
    assert (inside.planned(average)[0] == 4.0).all()


# ---------------------------------------------------------------- a step in parts


def test_parts_from_many_threads():
    """Each thread brings its gradients, and tries again where another is inside; all of them make one step."""
    params = {str(k): np.zeros(100) for k in range(4 * N_THREADS)}
    opt, told = fastadam.SGD(params, lr=1.0), set()

    def bring(step, first):
        for k in range(first, len(params), N_THREADS):
            while True:
                try:
                    step(str(k), np.ones(100))
                    break
                except RuntimeError as error:
                    told.add("another thread is inside" in str(error))

    for _ in range(20):
        with opt.stepping() as step:
            together(*((lambda first=first, step=step: bring(step, first)) for first in range(N_THREADS)))
    assert told <= {True}
    assert opt.t == 20
    assert all((p == -20.0).all() for p in params.values())


def test_a_block_ends_while_others_bring_parts():
    """Whoever leaves last ends the step: afterwards the optimizer is free, and each parameter has done it or not."""
    params = {str(k): np.zeros(2000) for k in range(64)}
    opt = fastadam.SGD(params, lr=1.0)
    for _ in range(30):
        begun, t = threading.Event(), opt.t

        def bring(step, first, begun=begun):
            for k in range(first, 64, N_THREADS):
                with contextlib.suppress(RuntimeError):
                    step(str(k), np.ones(2000))
                begun.set()

        def block(begun=begun, bring=bring):
            with opt.stepping() as step:
                threads = [threading.Thread(target=bring, args=(step, first)) for first in range(N_THREADS)]
                for thread in threads:
                    thread.start()
                begun.wait()
            return threads

        for thread in block():
            thread.join()
        assert opt.t in (t, t + 1)
        opt.state_dict()  # nobody is inside
    for k, p in enumerate(params.values()):
        assert (p == -float(inside.plan(opt).steps[k])).all()


def test_a_block_ends_while_others_try_to_come_in():
    """Who is refused does not keep the one who leaves last from ending the step."""
    is_in, may_leave = threading.Event(), threading.Event()
    may_leave.set()  # the rule is tried before the first step

    def update(p, g, lr):
        is_in.set()
        may_leave.wait()
        return (p - lr * g,)

    opt = fastadam.optimizer(update, lambda t, lr: (lr,), (), lr=1.0)({"w": np.zeros(4)}, backend="numpy")
    plan = inside.plan(opt)

    def visit():
        with plan:
            pass

    def bring(step):
        while not is_in.is_set():
            trying(lambda: step("w", np.ones(4)))()

    def block():
        is_in.clear()
        may_leave.clear()
        with contextlib.suppress(RuntimeError), opt.stepping() as step:  # a visitor may be inside
            thread = threading.Thread(target=bring, args=(step,))
            thread.start()
            is_in.wait()
        may_leave.set()
        if is_in.is_set():
            thread.join()

    against(block, trying(visit), trying(visit))
    visit()  # nobody is inside, and no block is open


# ---------------------------------------------------------------- structures that are changed meanwhile


def swap_places(holder, key, pair):
    """A thread's work: put one array of two where the other stands, in a structure of parameters or gradients."""

    def swap():
        holder[key] = pair[0]
        pair.reverse()

    return swap


def test_arrays_are_replaced_in_the_structure_while_it_is_read():
    """A step moves the one array that it finds in each place, and all of that."""
    pairs = [[np.zeros(16), np.zeros(16)] for _ in range(3)]
    params = {"w": pairs[0][0], "layers": [pairs[1][0], {"b": pairs[2][0]}]}
    opt = fastadam.SGD(params, lr=1.0)
    grads = {"w": np.ones(16), "layers": [np.ones(16), {"b": np.ones(16)}]}
    step, done, _ = counting(lambda: opt.step(grads), RuntimeError, *STRUCTURE)
    layers = params["layers"]
    swaps = [
        swap_places(holder, key, pair)
        for holder, key, pair in zip((params, layers, layers[1]), ("w", 0, "b"), pairs, strict=True)
    ]
    against(step, *swaps)
    step()
    assert opt.t == len(done) > 0
    for one, other in pairs:
        assert (one == one[0]).all()
        assert (other == other[0]).all()
        assert one[0] + other[0] == -len(done)


def shaken(holder):
    """A thread's work: take the entries of a list or dict out, and put them back, in another order."""

    def shake_list():
        holder.append(holder[0])
        del holder[0]
        holder.insert(0, holder.pop())

    def shake_dict():
        key = next(iter(holder))
        holder[key] = holder.pop(key)
        holder["another"] = None
        del holder["another"]

    return shake_list if isinstance(holder, list) else shake_dict


@pytest.mark.parametrize("what", ["params", "grads"])
def test_structures_lose_and_get_entries_while_they_are_read(what):
    """Each step is of whole arrays, or is refused; memory that is freed is not read."""
    arrays = [np.zeros(8) for _ in range(40)]
    params = {f"k{k}": arrays[k] for k in range(10)} | {"flat": arrays[10:20], "nested": [[p] for p in arrays[20:]]}
    grads = {f"k{k}": np.ones(8) for k in range(10)} | {
        "flat": [np.ones(8) for _ in range(10)],
        "nested": [[np.ones(8)] for _ in range(20)],
    }
    opt = fastadam.SGD(params, lr=1.0)
    changed = params if what == "params" else grads
    step, done, _ = counting(lambda: opt.step(grads), RuntimeError, *STRUCTURE)
    against(step, shaken(changed), shaken(changed["flat"]), shaken(changed["nested"]))
    assert opt.t == len(done)
    assert all((p == p[0]).all() for p in arrays)
    assert sum(p[0] for p in arrays) == -40 * opt.t


def test_bound_gradients_are_replaced():
    params, grads = [np.zeros(8), np.zeros(8)], [np.ones(8), np.ones(8)]
    opt = fastadam.SGD(params, lr=1.0, grads=grads)
    step, done, _ = counting(opt.step, RuntimeError, *STRUCTURE)
    others = swap_places(grads, 0, [np.ones(8), np.ones(8)]), swap_places(grads, 1, [np.ones(8), np.ones(8)])
    against(step, *others, trying(opt.zero_grad))
    assert opt.t == len(done)
    assert all(np.isfinite(p).all() for p in params)
