"""Deferred signals: handlers run after the block, and an exception from a handler is raised there."""

import signal
import threading

import pytest

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


def test_other_threads_are_left_alone(came):
    handler, seen = signal.getsignal(signal.SIGUSR1), []

    def work():
        with deferred_signals():
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]
