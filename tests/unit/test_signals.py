"""Deferred signals: handlers run after the block, and an exception from a handler is raised there."""

import _signal
import io
import signal
import threading

import numpy as np
import pytest

import fastadam
from fastadam.kernel._signals import deferred_signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals here")


@pytest.fixture
def came():
    """The signals that a handler saw, by number."""
    seen = []
    before = {number: signal.signal(number, lambda n, frame: seen.append(n)) for number in numbers()}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def numbers():
    return signal.SIGUSR1, signal.SIGUSR2


def test_a_handler_runs_when_the_block_is_over(came):
    handler = signal.getsignal(signal.SIGUSR1)
    with deferred_signals():
        signal.raise_signal(signal.SIGUSR1)
        assert came == []
    assert came == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is handler


def test_blocks_nest(came):
    with deferred_signals():
        with deferred_signals():
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert came == []
    assert sorted(came) == sorted(numbers())


@pytest.fixture
def interruptible():
    """Ctrl-C as Python has it: a shell may have started the tests with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_is_raised_at_the_end():
    done = False
    with pytest.raises(KeyboardInterrupt), deferred_signals():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_comes_from_the_error_of_the_block():
    with pytest.raises(KeyboardInterrupt) as raised, deferred_signals():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the block")
    assert isinstance(raised.value.__cause__, ValueError)


def test_an_error_of_the_block_goes_on(came):
    with pytest.raises(ValueError, match="of the block") as raised, deferred_signals():  # noqa: PT012
        signal.raise_signal(signal.SIGUSR1)
        raise ValueError("of the block")
    assert came == [signal.SIGUSR1]
    assert raised.value.__cause__ is None


def test_the_last_of_several_handlers_errors_is_raised(came):
    def fail(number, frame):
        raise RuntimeError("of the handler")

    before = signal.signal(signal.SIGUSR2, fail)
    try:
        with pytest.raises(RuntimeError, match="of the handler"), deferred_signals():  # noqa: PT012
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert came == [signal.SIGUSR1]


def test_a_handler_that_is_set_aside_in_one_block_and_set_in_the_next_makes_no_chain(came):
    """Such a chain grew by one with each pair of blocks, until the handler failed: it called itself too deeply."""
    for _ in range(2000):
        with deferred_signals():
            handler = signal.signal(signal.SIGUSR1, lambda *_: None)
        with deferred_signals():
            signal.signal(signal.SIGUSR1, handler)
    signal.raise_signal(signal.SIGUSR1)
    assert came == [signal.SIGUSR1]


def test_other_threads_are_left_alone(came):
    handler, seen = signal.getsignal(signal.SIGUSR1), []

    def work():
        with deferred_signals():
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]


# ---------------------------------------------------------------- handlers that are set within a block


def handler(*_):
    """Another one than before the block."""


SET = [handler, signal.SIG_IGN, signal.SIG_DFL]


@pytest.mark.usefixtures("came")
@pytest.mark.parametrize("new", SET, ids=["function", "SIG_IGN", "SIG_DFL"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_handler_that_the_block_sets_stays(new, depth):
    def nested(depth):
        with deferred_signals():
            nested(depth - 1) if depth else signal.signal(signal.SIGUSR1, new)

    nested(depth)
    assert signal.getsignal(signal.SIGUSR1) == new


def test_a_signal_before_the_new_handler_goes_to_the_old_one(came):
    seen = []
    with deferred_signals():
        signal.raise_signal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        signal.raise_signal(signal.SIGUSR1)
    assert came == seen == [signal.SIGUSR1]


def test_what_the_block_read_as_its_handler_is_the_handler_later(came):
    with deferred_signals():
        old = signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, old)
    signal.raise_signal(signal.SIGUSR1)
    assert came == [signal.SIGUSR1]


@pytest.mark.parametrize("new", SET[:2], ids=["function", "SIG_IGN"])
@pytest.mark.parametrize("call", [1, 2], ids=["at the begin", "at the end"])
def test_a_handler_that_is_set_while_others_are_replaced_stays(new, call, came, monkeypatch):
    """Python runs the handlers of other signals in `signal.signal`, before it sets its handler."""
    real, calls = _signal.signal, []

    def racing(number, function):
        if number == signal.SIGUSR1:
            calls.append(number)
            if len(calls) == call:
                real(number, new if callable(new) else int(new))
        return real(number, function)

    monkeypatch.setattr(_signal, "signal", racing)
    with deferred_signals():
        signal.raise_signal(signal.SIGUSR2)
        assert came == []
    assert signal.getsignal(signal.SIGUSR1) is new
    assert came == [signal.SIGUSR2]


@pytest.mark.parametrize("ways", [{}, {"backend": "numpy"}, {"state_dir": "states"}, {"grads": True}], ids=str)
def test_a_handler_that_a_schedule_or_a_gradient_sets_stays(ways, came, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Gradient:
        def __array__(self, dtype=None, copy=None):
            signal.signal(signal.SIGUSR2, handler)
            return np.ones(3)

    def rate(t):
        signal.signal(signal.SIGUSR1, handler)
        return 0.1

    bound = {"grads": [np.ones(3)], "backend": "numpy"} if "grads" in ways else ways
    opt = fastadam.Adam([np.ones(3)], lr=rate, **bound)
    opt.step() if "grads" in ways else opt.step([Gradient()])
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert "grads" in ways or signal.getsignal(signal.SIGUSR2) is handler


@pytest.mark.usefixtures("came")
def test_a_handler_that_a_file_sets_stays():
    class Source(io.BytesIO):
        def read(self, *size):
            signal.signal(signal.SIGUSR2, handler)
            return super().read(*size)

    opt = fastadam.Adam([np.ones(3)])
    opt.save(file := Source())
    file.seek(0)
    opt.load(file, params=False)
    assert signal.getsignal(signal.SIGUSR2) is handler
