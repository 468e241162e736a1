"""A call that is interrupted at any moment has happened completely or not at all, and the optimizer can continue.
A timer's signal, whose handler raises KeyboardInterrupt, stands for Ctrl-C: hundreds of times in each kind of call.
"""

import asyncio
import faulthandler
import os
import signal
import time
from collections.abc import Callable

import inside
import numpy as np
import pytest
from cases import arrays_of
from inside import uninterrupted

import fastadam
from fastadam import schedules

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer of that kind")
#: where Python itself is interrupted between opening a file and its `with`
files_may_be_closed_late = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
#: of most calls; more of them: FASTADAM_TEST_TRIALS=3000 pytest tests/promises/test_interrupts.py
TRIALS = int(os.environ.get("FASTADAM_TEST_TRIALS", "150"))


@pytest.fixture(autouse=True)
def alarm():
    def handler(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupt(call: Callable[[], object], after: float) -> bool:
    """Whether the call was interrupted, or ended earlier."""
    try:
        signal.setitimer(signal.ITIMER_REAL, after)
        call()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False


def trials(make: Callable[[], tuple[Callable[[], object], Callable[[], None]]], trials: int = TRIALS) -> None:
    """Interrupt the call that `make` brings, each time at another moment of it; then make its check."""
    rng = np.random.default_rng(0)
    durations = []
    for _ in range(5):
        call, _ = make()
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    made = interrupted = 0
    while made < trials or interrupted <= trials // 10:  # a busy machine's timers come late, after the shortest calls
        call, check = make()
        interrupted += interrupt(call, rng.uniform(1e-6, 1.2 * np.median(durations)))
        check()
        made += 1
        assert made < 100 * trials, "hardly a call was interrupted"


SIZE, STEPS = 70_000, 12
OPTIMIZERS = {
    "compiled": {},
    "compiled, alone": {"n_threads": 1},
    "numba": {"backend": "numba"},
    "numpy": {"backend": "numpy"},
    "scheduled": {"lr": schedules.warmup(1e-3, 100)},
    "bfloat16 states": {"state_dtype": "bfloat16"},
}


def arrays(opt) -> list[np.ndarray]:
    return [array.copy() for array in arrays_of(opt)]


@pytest.mark.parametrize("in_folder", [False, True], ids=["memory", "folder"])
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_step(options, in_folder, tmp_path):
    grads = [np.sin(np.arange(SIZE, dtype=np.float32)), np.ones((30, 10), np.float32)]

    def optimizer(**more):
        params = [np.zeros(SIZE, np.float32), np.zeros((30, 10), np.float32)]
        return fastadam.AdamW(params, **options, **more)

    twin = optimizer()
    history = [arrays(twin)]
    running = optimizer(state_dir=tmp_path) if in_folder else optimizer()

    def check():
        while len(history) <= running.t:
            twin.step(grads)
            history.append(arrays(twin))
        for now, then in zip(arrays_of(running), history[running.t], strict=True):
            np.testing.assert_array_equal(now, then)
        assert not inside.is_torn(running)
        if in_folder:
            assert inside.folder_arrays(tmp_path)["steps"].tolist() == [0, running.t, 0, running.t, running.t]

    trials(lambda: ((lambda: running.step(grads)), check), TRIALS // 3)


@files_may_be_closed_late
@pytest.mark.parametrize("way", ["load_state_dict", "npz", "safetensors"])
def test_load(way, tmp_path):
    grads = [np.full(shape, 0.5) for shape in ((40, 50), 9, ())] * 4
    opt, other = (fastadam.Adam([np.ones(g.shape) for g in grads], lr=lr) for lr in (0.1, 0.2))
    for _ in range(3):
        other.step(grads)
    kept = {False: (arrays(opt), 0.1), True: (arrays(other), 0.2)}
    states = {False: opt.state_dict(), True: other.state_dict()}
    for which, source in ((False, opt), (True, other)):
        source.save(tmp_path / f"{which}.{way}", params=True) if way != "load_state_dict" else None

    def make():
        target = opt.t == 0
        call = (
            (lambda: opt.load_state_dict(states[target]))
            if way == "load_state_dict"
            else (lambda: opt.load(tmp_path / f"{target}.{way}"))
        )
        return call, check

    def check():
        assert opt.t in (0, 3)
        saved, lr = kept[opt.t == 3]
        first = 0 if way != "load_state_dict" else len(grads)  # without the parameters
        for now, then in zip(arrays_of(opt)[first:], saved[first:], strict=True):
            np.testing.assert_array_equal(now, then)
        assert opt.lr == lr
        opt.state_dict()  # nothing is held

    trials(make)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_save(suffix, tmp_path):
    path = tmp_path / f"state.{suffix}"
    opt, g = fastadam.Adam(np.zeros(3000)), np.ones(3000)
    again = fastadam.Adam(np.zeros(3000))
    opt.save(path, params=True)

    def make():
        opt.step(g)
        return (lambda: opt.save(path, params=True)), check

    def check():
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        again.load(path)
        assert again.t in (opt.t, check.before)
        check.before = again.t
        if again.t == opt.t:
            np.testing.assert_array_equal(inside.params(again)[0], inside.params(opt)[0])

    check.before = 0
    trials(make)


def test_new_group():
    made = {}

    def make():
        made["opt"] = opt = fastadam.Adam(np.ones(5))
        opt.step(np.ones(5))
        return (lambda: opt.add_param_group({"params": [np.ones(k) for k in range(20)]})), check

    def check():
        opt = made["opt"]
        grads = [np.ones(p.shape) for p in inside.params(opt)]
        assert len(grads) in (1, 21)
        assert len(opt.param_groups) == 1 + (len(grads) > 1) == inside.n_planned_groups(opt)
        opt.step(grads[0] if len(grads) == 1 else [grads[0], grads[1:]])
        assert opt.t == 2

    trials(make)


def test_option():
    """What the optimizer says of an option is what its next step does."""
    opt = fastadam.Adagrad([{"params": np.zeros(1)}, {"params": np.zeros(1)}], lr=1.0, eps=0)
    rates = iter(np.tile([0.25, 0.5, 1.0, 2.0], 10_000))

    def make():
        rate = next(rates)

        def call():
            opt.lr = rate

        return call, check

    def check():
        for group, state in zip(opt.param_groups, opt.state["v"], strict=True):
            group["params"][0][:] = state[:] = 0
        opt.step([np.ones(1), np.ones(1)])
        for group in opt.param_groups:
            assert group["params"][0][0] == -group["lr"]

    trials(make, 10 * TRIALS)


def test_work_is_done_before_the_interrupt_is_raised():
    done = []

    def work():
        for k in range(20):
            time.sleep(1e-3)
            done.append(k)

    assert interrupt(lambda: uninterrupted(work), 5e-3)
    assert done == list(range(20))


def test_every_interrupt_meanwhile_is_waited_out():
    done = []

    def work():
        time.sleep(0.02)
        signal.setitimer(signal.ITIMER_REAL, 0)
        done.append(True)

    def call():
        signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
        uninterrupted(work)

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == [True]


def test_handlers_are_as_they_were():
    """Of each signal, also within work within work; those that are no Python functions are not touched."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    assert not interrupt(lambda: uninterrupted(lambda: uninterrupted(lambda: None)), 10)
    assert interrupt(lambda: uninterrupted(lambda: uninterrupted(lambda: time.sleep(0.01))), 1e-3)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_handlers_beside_pythons_stay(tmp_path):
    """Those that a library in C has set since, as faulthandler has here."""
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    with open(tmp_path / "trace", "w") as file:
        faulthandler.register(signal.SIGUSR1, file=file)
        try:
            uninterrupted(lambda: os.kill(os.getpid(), signal.SIGUSR1))
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            faulthandler.unregister(signal.SIGUSR1)
            signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "trace").read_text().count("Current thread") == 2
    assert not came


def test_event_loop_hears_of_a_signal_once():
    came: list[int] = []

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, came.append, 1)
        uninterrupted(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert came == [1]


def test_handlers_that_raise_nothing_run_once_the_work_is_done():
    said = []
    before = signal.signal(signal.SIGUSR1, lambda *_: said.append("a handler"))
    uninterrupted(lambda: (signal.raise_signal(signal.SIGUSR1), said.append("work")))
    signal.signal(signal.SIGUSR1, before)
    assert said == ["work", "a handler"]


def test_error_of_the_work_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 / 0)

    def work():
        time.sleep(0.01)
        raise ZeroDivisionError

    def call():
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        uninterrupted(work)

    with pytest.raises(KeyboardInterrupt) as raised:
        call()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_handler_that_saves(options, tmp_path):
    """As of SIGTERM, where a job is preempted: what runs meanwhile is done first, but for a schedule's own lines."""
    params, grads = [np.zeros(SIZE, np.float32)], [np.ones(SIZE, np.float32)]
    opt, saved = fastadam.AdamW(params, **options), []
    opt.step(grads)  # which takes the options, in Python

    def preempted(number, frame):
        try:
            opt.save(tmp_path / "last.npz")
            saved.append(opt.t)
        except RuntimeError:
            if "lr" not in options:
                raise
            saved.append(None)

    before = signal.signal(signal.SIGALRM, preempted)
    try:
        for call in (lambda: opt.step(grads), lambda: opt.save(tmp_path / "a.npz"), opt.state_dict):
            for _ in range(TRIALS // 10):
                count = len(saved)
                signal.setitimer(signal.ITIMER_REAL, 1e-4)
                while len(saved) == count:
                    call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sum(t is None for t in saved) < len(saved) // 3
    again = fastadam.AdamW([params[0].copy()], **options)
    again.load(tmp_path / "last.npz", params=False)
    assert again.t == [t for t in saved if t is not None][-1]


@pytest.mark.parametrize("how", OPTIMIZERS)
def test_a_step_in_parts(how):
    grads = {str(k): np.full(SIZE // 8, k + 1.0, np.float32) for k in range(8)}

    def new() -> fastadam.Adam:
        return fastadam.Adam({key: np.ones(len(g), np.float32) for key, g in grads.items()}, **OPTIMIZERS[how])

    def of_each(opt) -> list[bytes]:
        named = zip(inside.planned(opt), inside.named_states(opt), strict=True)
        return [b"".join(array.tobytes() for array in (p, *states.values())) for p, states in named]

    stepped = new()
    before = of_each(stepped)
    stepped.step(grads)
    after = of_each(stepped)

    def make() -> tuple[Callable[[], object], Callable[[], None]]:
        opt = new()

        def call() -> None:
            with opt.stepping() as step:
                for key, g in grads.items():
                    step(key, g)

        def check() -> None:
            done = inside.plan(opt).steps.tolist()
            assert of_each(opt) == [(before, after)[n][k] for k, n in enumerate(done)]
            assert opt.t == max(done)
            opt.step(grads)  # it goes on

        return call, check

    trials(make)
