"""PINTS's Adam with fastadam's step, compared with PINTS's own: proposed points, refusals, copies, whole runs."""

import copy
import inspect
import pickle

import numpy as np
import pytest

pytest.importorskip("pints")
import pints
import pints.toy

from fastadam.adapters import pints as adapter

RNG = np.random.default_rng(0)
CURVES = 10.0 ** RNG.integers(-3, 3, 7)


def told(optimiser, steps=50, copied=None):
    """The points of a run on a bowl, the best ones, and what PINTS would log."""
    points = []
    for k in range(steps):
        if copied is not None and k == steps // 2:
            optimiser = copied(optimiser)
        [x] = optimiser.ask()
        points.append(np.array(x))
        optimiser.tell([(float(CURVES[: len(x)] @ x**2), 2 * CURVES[: len(x)] * x)])
    logged = (optimiser.f_best(), optimiser.f_guessed(), optimiser._b1t, optimiser._b2t)
    return np.array(points), optimiser.x_best(), optimiser.x_guessed(), logged


def compare(ours, stock, **kwargs):
    for mine, theirs in zip(told(ours, **kwargs), told(stock), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-14)


def test_signature_and_name():
    assert inspect.signature(adapter.Adam) == inspect.signature(pints.Adam)
    assert issubclass(adapter.Adam, pints.Adam)
    assert adapter.Adam.name() == "Adam"


@pytest.mark.parametrize("sigma0", [0.1, 3.0, [0.3, 0.2, 0.5, 0.1, 0.9, 0.4, 0.7]])
def test_points(sigma0):
    x0 = np.linspace(-1, 2, 7)
    compare(adapter.Adam(x0, sigma0), pints.Adam(x0, sigma0))


def test_one_parameter_and_the_default_rate():
    compare(adapter.Adam([3.0]), pints.Adam([3.0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on(copied):
    x0 = np.linspace(-1, 2, 7)
    compare(adapter.Adam(x0), pints.Adam(x0), copied=copied)


def test_points_that_were_asked_stay():
    optimiser = adapter.Adam([1.0, 2.0])
    [first] = optimiser.ask()
    optimiser.tell([(1.0, np.ones(2))])
    [second] = optimiser.ask()
    optimiser.tell([(0.5, np.ones(2))])
    assert first.tolist() == [1.0, 2.0]
    assert optimiser.x_best() is second


def test_ask_comes_first():
    for kind in (adapter.Adam, pints.Adam):
        with pytest.raises(Exception, match=r"^ask\(\) not called before tell\(\)$"):
            kind([1.0]).tell([(1.0, np.ones(1))])


def test_what_cannot_be_told_changes_nothing():
    optimiser = adapter.Adam([1.0, 2.0])
    optimiser.ask()
    with pytest.raises(ValueError, match=r"tell: expected a gradient of shape \(2,\) like the point, got \(3,\)"):
        optimiser.tell([(1.0, np.ones(3))])
    assert optimiser.f_best() == np.inf
    optimiser.tell([(1.0, np.ones(2))])
    optimiser._b1 = 0.5
    optimiser.ask()
    with pytest.raises(RuntimeError, match="before the first tell"):
        optimiser.tell([(1.0, np.ones(2))])
    assert optimiser.f_guessed() == 1.0


@pytest.mark.parametrize("alpha", [0.3, [0.3, 0.1, 0.3]])
def test_options_set_before_the_first_point(alpha):
    pair = adapter.Adam(np.ones(3)), pints.Adam(np.ones(3))
    for optimiser in pair:
        optimiser._b1, optimiser._alpha, optimiser._eps = 0.5, np.asarray(alpha), 1e-3
    compare(*pair)


def test_a_whole_run():
    """PINTS fits the logistic model to noisy data; a run of 200 points ends where PINTS's own does."""
    model = pints.toy.LogisticModel()
    times = np.linspace(0, 1000, 100)
    values = model.simulate([0.015, 500], times) + 10 * np.random.default_rng(1).standard_normal(100)
    error = pints.SumOfSquaresError(pints.SingleOutputProblem(model, times, values))
    found = []
    for method in (adapter.Adam, pints.Adam):
        controller = pints.OptimisationController(error, [0.02, 450], [1e-4, 5], method=method)
        controller.set_log_to_screen(False)
        controller.set_max_iterations(200)
        found.append(controller.run())
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-9)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-9)


def test_a_shallow_copy_goes_its_own_way():
    points = []
    for kind in (adapter.Adam, pints.Adam):
        first = kind([1.0, 2.0], 0.1)
        told(first, 3)
        other = copy.copy(first)
        points += [told(other, 5)[0], told(first, 5)[0]]
    for one in points[1:]:
        np.testing.assert_allclose(one, points[0], rtol=1e-12)


def test_one_number_is_a_gradient():
    """As in PINTS; of one parameter it often is."""
    found = []
    for kind in (adapter.Adam, pints.Adam):
        optimiser = kind([1.0], 0.1)
        for _ in range(5):
            [x] = optimiser.ask()
            optimiser.tell([(float(x[0] ** 2), 2 * float(x[0]))])
        found.append(optimiser.ask()[0])
    np.testing.assert_allclose(*found, rtol=1e-12)
