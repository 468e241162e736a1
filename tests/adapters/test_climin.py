"""climin's optimizers with fastadam's steps, compared with climin's own: infos, continuation, inherited iterations."""

import copy
import inspect
import itertools
import pickle
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # climin imports imp, which Python 3.12 no longer has
    pytest.importorskip("climin")
import climin

from fastadam.adapters import climin as adapter

NAMES = adapter.__all__
RATE = {"Adam": 0.05, "Adadelta": 0.9, "RmsProp": 0.01, "GradientDescent": 0.01}
SCALES = 10.0 ** np.arange(-3, 1)


def slope(x, shift=0.0):
    return 2 * SCALES * (x - shift)


def batches():
    return (([shift], {}) for shift in itertools.cycle([0.0, 0.1, -0.2]))


def made(lib, name, dtype=np.float64, fprime=slope, **options):
    return getattr(lib, name)(np.array([3.0, -2.0, 1.0, 0.5], dtype), fprime, **{"step_rate": RATE[name]} | options)


def run(optimizer, steps=50):
    """Copies of the infos of so many iterations."""
    return [copy.deepcopy(info) for info in itertools.islice(optimizer, steps)]


def compare(ours, stock, rtol=1e-11, atol=1e-13, **kwargs):
    for mine, theirs in zip(run(ours, **kwargs), run(stock, **kwargs), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            if key not in ("args", "kwargs", "momentum_type"):
                np.testing.assert_allclose(mine[key], value, rtol=rtol, atol=atol, err_msg=key)
            else:
                assert mine[key] == value
    np.testing.assert_allclose(ours.wrt, stock.wrt, rtol=rtol, atol=atol)


@pytest.fixture
def theirs_forbidden(monkeypatch):
    def refuse(*_):
        raise AssertionError("climin made an iteration of its own")

    monkeypatch.setattr(adapter._Stepped, "_iterate_theirs", refuse)


@pytest.mark.parametrize("name", NAMES)
def test_signature(name):
    ours, stock = getattr(adapter, name), getattr(climin, name)
    assert inspect.signature(ours) == inspect.signature(stock)
    assert issubclass(ours, stock)
    assert ours.state_fields == stock.state_fields


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_infos(name):
    compare(made(adapter, name), made(climin, name))
    compare(made(adapter, name, args=batches()), made(climin, name, args=batches()))


@pytest.mark.usefixtures("theirs_forbidden")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "Adam" or adapter._IS_PAPERS_ADAM])
def test_steps_are_ours(name):
    compare(made(adapter, name), made(climin, name))
    compare(made(adapter, name, np.float32), made(climin, name, np.float32), rtol=1e-4, atol=1e-6)


OWN = [("Adam", {"momentum": 0.5}), ("Adadelta", {"momentum": 0.9, "step_rate": 0.2}), ("RmsProp", {"momentum": 0.9})]
OWN += [("RmsProp", {"step_adapt": 0.1}), ("GradientDescent", {"momentum": 0.9, "momentum_type": "nesterov"})]
OWN += [(name, {"step_rate": np.array([1e-3, 1e-2, 1e-2, 1e-3])}) for name in NAMES]


@pytest.mark.parametrize(("name", "options"), OWN)
def test_what_is_climins_own(name, options):
    compare(made(adapter, name, **options), made(climin, name, **options), rtol=0)


def test_momentum_of_gradient_descent():
    compare(made(adapter, "GradientDescent", momentum=0.9), made(climin, "GradientDescent", momentum=0.9))


@pytest.mark.parametrize("name", ["Adadelta", "GradientDescent"])
def test_options_change_between_iterations(name):
    pair = made(adapter, name), made(climin, name)
    compare(*pair)
    for optimizer in pair:
        optimizer.step_rate, optimizer.momentum = 0.005, 0.7
    compare(*pair)
    for optimizer in pair:
        optimizer.momentum = 0
    compare(*pair)


@pytest.mark.parametrize("name", NAMES)
def test_continues_from_an_info(name):
    optimizer = made(adapter, name)
    info = run(optimizer, 7)[-1]
    wrt = optimizer.wrt.copy()
    run(optimizer, 7)
    fresh = made(adapter, name)
    fresh.wrt[:] = wrt
    fresh.set_from_info(info)
    run(fresh, 7)
    np.testing.assert_array_equal(fresh.wrt, optimizer.wrt)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("name", NAMES)
def test_copies_go_on(name, copied):
    optimizer = made(adapter, name)
    run(optimizer, 7)
    other = copied(optimizer)
    run(optimizer, 7)
    run(other, 7)
    np.testing.assert_array_equal(other.wrt, optimizer.wrt)
    assert other.wrt is not optimizer.wrt


def test_wrong_gradient_changes_nothing():
    optimizer = made(adapter, "Adadelta", fprime=lambda x: np.ones(3))
    with pytest.raises(ValueError, match="shape"):
        next(iter(optimizer))
    assert (optimizer.wrt.tolist(), optimizer.n_iter) == ([3.0, -2.0, 1.0, 0.5], 0)


@pytest.mark.parametrize("fprime", [lambda x: x, lambda x: 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_that_is_the_parameters_or_one_number(name, fprime):
    compare(made(adapter, name, fprime=fprime), made(climin, name, fprime=fprime))
