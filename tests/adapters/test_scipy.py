"""`fastadam.adapters.scipy`: the optimizers as methods of SciPy's minimize, with all of its conventions.
If JAX is installed, it is used for comparison.
"""

import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import inside
import numpy as np
import pytest
from scipy.optimize import (
    Bounds,
    LinearConstraint,
    OptimizeResult,
    OptimizeWarning,
    basinhopping,
    dual_annealing,
    minimize,
    rosen,
    rosen_der,
)

import fastadam
from fastadam import schedules
from fastadam.adapters import scipy as adapter
from fastadam.adapters.scipy import Method, adadelta, adagrad, adam, adamax, adamw, rmsprop

with_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed; CI installs it")

CURVATURE, MINIMUM = np.array([1.0, 10.0, 100.0]), np.array([3.0, -1.0, 0.5])
#: method, and options that bring it to the minimum of the bowl
METHODS = {
    "adam": (adam, {"lr": 0.1}),
    "amsgrad": (adam, {"lr": 0.3, "amsgrad": True}),
    "adamw": (adamw, {"lr": 0.1, "weight_decay": 0.0}),
    "adamax": (adamax, {"lr": 0.1}),
    "adagrad": (adagrad, {"lr": 1.0}),
    "rmsprop": (rmsprop, {"lr": schedules.exponential(0.1, 0.99)}),
    "adadelta": (adadelta, {"eps": 1e-3}),
    "nadam": (adapter.nadam, {"lr": 0.1}),
    "radam": (adapter.radam, {"lr": 0.1}),
    "sgd": (adapter.sgd, {"lr": 0.01}),
    "nesterov": (adapter.sgd, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "asgd": (adapter.asgd, {"lr": 0.01, "lambd": 0.0}),
    "rprop": (adapter.rprop, {"step_sizes": (1e-12, 50)}),
    "lion": (adapter.lion, {"lr": schedules.exponential(0.1, 0.99)}),
    "ademamix": (adapter.ademamix, {"lr": 0.05, "betas": (0.9, 0.999, 0.99), "alpha": 2.0}),
    "adopt": (adapter.adopt, {"lr": 0.1}),
    "schedulefreeadamw": (adapter.schedulefreeadamw, {"lr": 0.5}),
}
each_method = pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS)


def sgd(p, g, lr):
    return (p - lr * g,)


SGD = fastadam.optimizer(sgd, lambda t, lr: (lr,), (), lr=0.01)
own = Method(SGD)


def bowl(x):
    return 0.5 * CURVATURE @ (x - MINIMUM) ** 2


def slope(x):
    return CURVATURE * (x - MINIMUM)


def both(x):
    return bowl(x), slope(x)


class Recorder:
    """A function that keeps the points that it was called with."""

    def __init__(self, function):
        self.function, self.points = function, []

    def __call__(self, x, *args):
        self.points.append(x)
        return self.function(x, *args)


# ---------------------------------------------------------------- the way down


@each_method
def test_each_converges_on_a_bowl(method, options):
    result = minimize(both, [0, 0, 0], jac=True, method=method, options=options, tol=1e-6)
    assert result.success, result.message
    assert np.abs(result.jac).max() <= 1e-6
    np.testing.assert_allclose(result.x, MINIMUM, atol=1e-6)


def test_every_class_is_tried():
    assert {method.optimizer for method, _ in METHODS.values()} == {*fastadam.optimizers.CLASSES.values()}
    assert adapter.METHODS.keys() == {name.lower() for name in fastadam.optimizers.CLASSES}


@pytest.mark.parametrize("method", [adam, adamax])
def test_rosenbrock(method):
    result = minimize(rosen, [-1.2, 1.0, 0.5], jac=rosen_der, method=method, options={"lr": 0.1})
    assert result.success, result.message
    np.testing.assert_allclose(result.x, 1, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *METHODS.values(),
        (adam, {"betas": (0.8, 0.9), "eps": 1e-3, "alpha_decay": True, "n_threads": 1}),
        (adam, {"lr": schedules.cosine(0.3, 20, 0.1), "eps_hat": True, "backend": "numpy"}),
        (adamw, {"weight_decay": 0.5}),
        (rmsprop, {"momentum": 0.9, "centered": True}),
        (own, {"weight_decay": 0.1, "backend": "numpy"}),
    ],
)
def test_iterates_are_those_of_the_plain_optimizer_to_the_bit(method, options):
    seen = Recorder(bowl)
    minimize(seen, [0.0, 0.0, 0.0], jac=slope, method=method, tol=0, options={**options, "maxiter": 40})
    x = np.zeros(3)
    optimizer = method.optimizer(x, **options)
    expected = [x.copy()]
    for _ in range(40):
        optimizer.step(slope(x))
        expected.append(x.copy())
    np.testing.assert_array_equal(seen.points[:41], expected)


# ---------------------------------------------------------------- averages that an optimizer keeps

AVERAGED = {"schedulefreeadamw": {"lr": 0.1}, "asgd": {"lr": 0.005, "lambd": 0.0, "t0": 10}}
each_averaged = pytest.mark.parametrize(("name", "options"), AVERAGED.items(), ids=AVERAGED)


@each_averaged
@pytest.mark.parametrize("ended_by", ["maxiter", "callback"])
def test_the_average_is_the_result(name, options, ended_by):
    def stop(intermediate_result):
        if intermediate_result.nit == 40:
            raise StopIteration

    given = {"maxiter": 40} if ended_by == "maxiter" else {}
    callback = None if ended_by == "maxiter" else stop
    seen, method = Recorder(both), adapter.METHODS[name]
    result = minimize(seen, np.ones(3), jac=True, method=method, tol=0, callback=callback, options=options | given)
    x = np.ones(3)
    optimizer = method.optimizer(x, **options)
    for _ in range(40):
        optimizer.step(slope(x))
    average = optimizer.state[method.optimizer.average][0]
    assert (average != x).all()
    np.testing.assert_array_equal(result.x, average)
    np.testing.assert_array_equal(seen.points[-1], average)
    assert (result.fun, result.optimality) == (bowl(average), np.abs(slope(average)).max())
    np.testing.assert_array_equal(result.jac, slope(average))
    assert (result.nit, result.nfev, result.njev) == (40, 42, 42)


def test_it_has_converged_where_the_average_has():
    buffer = np.empty(3)

    def reused(x):
        buffer[:] = slope(x)
        return buffer

    seen = Recorder(bowl)
    result = minimize(seen, np.zeros(3), jac=reused, method=adapter.schedulefreeadamw, options={"lr": 0.1}, tol=1e-4)
    assert result.success
    assert result.optimality == np.abs(slope(result.x)).max() <= 1e-4
    assert result.nfev > result.nit + 2  # where the iterate had, the average had not always
    plain = minimize(both, np.zeros(3), jac=True, method=adapter.schedulefreeadamw, options={"lr": 0.1}, tol=1e-4)
    np.testing.assert_array_equal(result.x, plain.x)
    result = minimize(lambda x: 1.0, [0.0, 1.0], method=adapter.schedulefreeadamw)
    assert (result.status, result.nit) == (2, 0)  # differences of 0 are no sign of a minimum here, either


@each_averaged
@pytest.mark.parametrize("bounds", [[(-1, 1)] * 3, [(-1, 1), (-0.5, 0.5), (0, 0.25)]], ids=["one pair", "several"])
def test_the_average_keeps_within_bounds(name, options, bounds):
    seen = Recorder(both)
    result = minimize(seen, np.zeros(3), jac=True, method=adapter.METHODS[name], bounds=bounds, options=options)
    low, high = np.transpose(bounds)
    assert (low <= seen.points).all()
    assert (seen.points <= high).all()
    np.testing.assert_allclose(result.x, np.clip(MINIMUM, low, high), atol=1e-2)


@pytest.mark.parametrize(("broken", "status"), [(6, 1), (5, 3)])
def test_an_average_that_is_not_finite_is_no_result(broken, status):
    """Nor is it looked at where the run ended at something that is not finite."""
    seen = Recorder(bowl)

    def fun(x):
        y = seen(x)
        return np.nan if len(seen.points) == broken + 1 else y

    options = {"lr": 0.1, "maxiter": 5}
    result = minimize(fun, np.zeros(3), jac=slope, method=adapter.schedulefreeadamw, options=options)
    assert (result.status, result.nfev) == (status, broken + 1)
    assert result.fun == min(map(bowl, seen.points[:broken]))


def test_rule_of_ones_own():
    result = minimize(bowl, np.zeros(3), jac=slope, method=Method(SGD), options={"backend": "numpy"})
    assert result.success
    with pytest.warns(OptimizeWarning, match=r"^Unknown solver options: momentum$"):
        minimize(bowl, np.zeros(3), jac=slope, method=own, options={"momentum": 0.9, "backend": "numpy", "maxiter": 1})


def test_args_reach_function_and_gradient():
    def power(x, exponent, factor=1.0):
        return factor * np.sum(x**exponent)

    def derivative(x, exponent, factor=1.0):
        return factor * exponent * x ** (exponent - 1)

    for args in (4, (4,), (4, 0.5)):
        result = minimize(power, [1.0], args=args, jac=derivative, method=adam, options={"maxiter": 3, "lr": 0.5})
        whole = args if isinstance(args, tuple) else (args,)
        assert result.fun == power(result.x, *whole)
        np.testing.assert_array_equal(result.jac, derivative(result.x, *whole))


# ---------------------------------------------------------------- what goes in


@pytest.mark.parametrize(
    "x0",
    [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], np.int8), np.array([1, 2, 3], np.float32), np.array([1, 2, 3.0])],
)
def test_first_point_of_any_dtype_is_stepped_in_float64(x0):
    before = np.array(x0)
    seen = Recorder(both)
    result = minimize(seen, x0, jac=True, method=adam, options={"maxiter": 5})
    assert {point.dtype for point in [*seen.points, result.x, result.jac]} == {np.dtype(np.float64)}
    assert {point.shape for point in seen.points} == {(3,)}
    np.testing.assert_array_equal(seen.points[0], [1, 2, 3])
    np.testing.assert_array_equal(x0, before)


def test_a_number_is_one_element():
    result = minimize(lambda x: (x[0] - 2) ** 2, 0, jac=lambda x: 2 * (x - 2), method=adam, options={"lr": 0.1})
    assert result.x.shape == (1,)
    assert result.x[0] == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize(
    "convert",
    [
        lambda g: memoryview(g).toreadonly(),
        lambda g: np.broadcast_to(g, g.shape),
        lambda g: g.astype(np.float32),
        lambda g: np.repeat(g, 2)[::2],
        list,
    ],
    ids=["read-only buffer", "read-only array", "float32", "strided", "list"],
)
def test_gradients_of_any_kind(convert):
    def rounded(x):
        return slope(x).astype(np.float32).astype(float)  # what float32 holds, so that no conversion shows

    plain = minimize(bowl, np.zeros(3), jac=rounded, method=adam, options={"maxiter": 20})
    other = minimize(bowl, np.zeros(3), jac=lambda x: convert(rounded(x)), method=adam, options={"maxiter": 20})
    np.testing.assert_array_equal(plain.x, other.x)
    np.testing.assert_array_equal(plain.jac, other.jac)


def test_function_may_change_what_it_gets_and_reuse_what_it_returns():
    buffer = np.empty(3)

    def destroy(x):
        value = bowl(x)
        x[:] = np.nan
        return np.array([value])  # SciPy takes one element for a number

    def reuse(x):
        buffer[:] = slope(x)
        x[:] = np.nan
        return buffer

    plain = minimize(bowl, np.zeros(3), jac=slope, method=adam, options={"lr": 2.0, "maxiter": 20})
    other = minimize(destroy, np.zeros(3), jac=reuse, method=adam, options={"lr": 2.0, "maxiter": 20})
    assert plain.nit == other.nit
    for name in ("x", "fun", "jac"):
        np.testing.assert_array_equal(plain[name], other[name])


def test_counts():
    function = Recorder(both)
    result = minimize(function, np.zeros(3), jac=True, method=adam, options={"maxiter": 30})
    assert (result.nit, result.nfev, result.njev) == (30, 31, 31)
    assert len(function.points) == 31  # value and gradient of a point are one call
    function = Recorder(bowl)
    for jac in (None, "2-point"):
        function.points.clear()
        result = minimize(function, np.zeros(3), jac=jac, method=adam, options={"maxiter": 30})
        assert (result.nfev, result.njev) == (31 * 4, 31)
        assert len(function.points) == result.nfev


def test_without_a_gradient_differences_are_taken():
    result = minimize(bowl, np.zeros(3), method=adam, options={"lr": 0.1}, tol=1e-4)
    assert result.success, result.message
    np.testing.assert_allclose(result.x, MINIMUM, atol=2e-4)


@pytest.mark.parametrize("x0", [[2.0, -30.0, 0.0], [-0.25, 0.5, 1e-9]])
@pytest.mark.parametrize("rel_step", [None, 1e-2, [1e-3, 1e-2, 1e-1]])
def test_the_step_of_the_differences_is_the_one_that_scipy_documents(x0, rel_step):
    seen = Recorder(bowl)
    minimize(seen, x0, method=adam, options={"finite_diff_rel_step": rel_step, "maxiter": 0})
    taken = np.diag(np.subtract(seen.points[1:], x0))
    relative = 2.0**-26 if rel_step is None else np.array(rel_step)
    np.testing.assert_allclose(taken, relative * np.where(np.less(x0, 0), -1, 1) * np.maximum(1, np.abs(x0)), rtol=1e-7)


def test_the_step_of_the_differences_keeps_within_bounds():
    seen = Recorder(bowl)
    options = {"finite_diff_rel_step": 0.1, "maxiter": 20, "lr": 0.5}
    minimize(seen, [0.95, 0.5, 0.0], method=adam, bounds=[(0, 1), (0.5, 0.5), (0, 0.01)], options=options)
    assert (np.array([0, 0.5, 0]) <= seen.points).all()
    assert (seen.points <= np.array([1, 0.5, 0.01])).all()


def test_a_measured_function_needs_larger_differences():
    def measured(x):
        return round(float((x[0] - 1) ** 2), 4)

    for given in ({}, {"tol": 0}, {"bounds": [(-1, 2)]}):
        result = minimize(measured, [0.0], method=adam, **given)
        assert (result.success, result.status, result.nit, result.nfev) == (False, 2, 0, 2)
        assert result.message == (
            "Stopped at x0: all finite differences are 0; `fun` does not depend on x there, or the step is too small "
            "for it to change: pass a larger finite_diff_rel_step, or jac."
        )
        assert (result.x.tolist(), result.fun, result.jac.tolist(), result.optimality) == ([0.0], 1.0, [0.0], 0.0)
    result = minimize(measured, [0.0], method=adam, tol=0.05, options={"lr": 0.1, "finite_diff_rel_step": 1e-2})
    assert result.success
    assert result.x[0] == pytest.approx(1, abs=0.05)


def test_a_gradient_of_zeros_is_believed_where_jac_gives_it():
    result = minimize(lambda x: 1.0, [0.0, 1.0], jac=np.zeros_like, method=adam, tol=0)
    assert (result.success, result.nit) == (True, 0)
    result = minimize(lambda x: 1.0, [0.0, 1.0], method=adam)
    assert (result.success, result.status) == (False, 2)  # for all that differences can tell
    result = minimize(lambda x: (x[0] - 1) ** 2, [0.0, 1.0], method=adam, options={"lr": 0.1})
    assert result.success  # of one element they may be 0
    result = minimize(lambda x: 1.0, [], method=adam)
    assert result.success  # nothing can move


# ---------------------------------------------------------------- why it stops


def test_maxiter():
    result = minimize(both, np.zeros(3), jac=True, method=adam, options={"lr": 3.0, "maxiter": 7})
    assert (result.success, result.status, result.nit) == (False, 1, 7)
    expected = f"at x the largest element of the projected gradient is {result.optimality:.3g}, tol = 1e-05."
    assert result.message == f"Stopped after maxiter = 7 steps: {expected}"


#: function with gradient, first point, method, options: runs that a larger rate would have brought further …
CRAWL = {
    "far away": (both, [100.0, -50, 20], adam, {"maxiter": 500}),
    "rosen at the defaults": (lambda x: (rosen(x), rosen_der(x)), [-1.2, 1.0], adam, {}),
    "bounded": (both, [-50.0, 0, 0], adam, {"maxiter": 500, "lr": 0.01}),
    "a rate that falls": (both, [100.0, 0, 0], adamw, {"lr": schedules.exponential(0.1, 0.95), "maxiter": 100}),
    "adagrad": (both, [100.0, -50, 20], adagrad, {"maxiter": 500}),
    "own": (both, [100.0, -50, 20], own, {"lr": 1e-5, "maxiter": 500, "backend": "numpy"}),
}
#: … and runs that stopped for another reason
NO_CRAWL = {
    "it swings": (both, [0.0, 0, 0], adam, {"lr": 3.0, "maxiter": 50}, 1),
    "arrived, but tol is 0": (both, [0.0, 0, 0], adam, {"lr": 0.1, "maxiter": 500, "tol": 0}, 1),
    "no steps": (both, [100.0, 0, 0], adam, {"maxiter": 0}, 1),
    "no slope": (lambda x: (1.0, np.ones(3)), [0.0, 0, 0], adam, {"maxiter": 50}, 1),
    "converged": (both, [2.9, -1, 0.5], adam, {"maxiter": 500, "tol": 0.5}, 0),
    "not finite": (lambda x: (bowl(x) if x[0] > 99.9 else np.inf, slope(x)), [100.0, 0, 0], adam, {}, 3),
}


@pytest.mark.parametrize(("f", "x0", "method", "options"), CRAWL.values(), ids=CRAWL)
def test_a_rate_that_is_too_small_is_named(f, x0, method, options):
    result = minimize(f, x0, jac=True, method=method, options=options, bounds=[(-60, 110)] * len(x0))
    assert result.status == 1
    advice = re.search(
        r"0?5\. `fun` fell at (\d+) of them: the rate is too small; raise lr, which is (.*), or maxiter\.$",
        result.message,
    )
    assert 0.95 * result.nit <= int(advice[1]) <= result.nit
    assert advice[2] == repr(options.get("lr", method.optimizer.options["lr"].default))


@pytest.mark.parametrize(("f", "x0", "method", "options", "status"), NO_CRAWL.values(), ids=NO_CRAWL)
def test_a_rate_is_not_blamed_for_another_reason(f, x0, method, options, status):
    result = minimize(f, x0, jac=True, method=method, options=options)
    assert result.status == status
    assert "lr" not in result.message
    assert "rate" not in result.message


@pytest.mark.parametrize(("rises", "is_blamed"), [(0, True), (1, True), (2, False)])
def test_a_rate_is_blamed_where_nineteen_of_twenty_steps_fell(rises, is_blamed):
    values = iter([100, *[200] * rises, *range(99, 0, -1)])
    result = minimize(lambda x: next(values), np.ones(1), jac=np.ones_like, method=adam, options={"maxiter": 20})
    assert ("rate is too small" in result.message) == is_blamed, result.message


def test_no_steps_evaluate_the_first_point():
    result = minimize(both, np.ones(3), jac=True, method=adam, options={"maxiter": 0})
    assert (result.status, result.nit, result.nfev, result.njev) == (1, 0, 1, 1)
    np.testing.assert_array_equal(result.x, 1)
    result = minimize(both, MINIMUM, jac=True, method=adam, tol=0, options={"maxiter": 0})
    assert (result.status, result.success) == (0, True)


def test_tol_is_of_the_largest_element_of_the_gradient():
    seen = Recorder(slope)
    options = {"lr": 0.1}
    result = minimize(bowl, np.zeros(3), jac=seen, method=adam, tol=1e-3, options=options)
    sizes = [np.abs(slope(x)).max() for x in seen.points]
    assert sizes[-1] <= 1e-3 < min(sizes[:-1])  # the first point that meets it is the last
    np.testing.assert_array_equal(result.x, seen.points[-1])
    assert result.optimality == sizes[-1]
    assert result.message == "Converged: no element of the projected gradient is larger than tol = 0.001."
    both_given = minimize(bowl, np.zeros(3), jac=slope, method=adam, tol=1e-9, options={**options, "tol": 1e-3})
    assert both_given.nit == result.nit  # the option goes before the argument, as in SciPy


def test_the_point_that_converged_is_returned_even_where_another_was_lower():
    values, slopes = {0.0: 0.0, 1.0: 5.0}, {0.0: -1.0, 1.0: 0.0}
    options = {"lr": 1.0, "backend": "numpy"}
    result = minimize(lambda x: values[x[0]], [0.0], jac=lambda x: [slopes[x[0]]], method=own, options=options)
    assert result.success
    assert (result.x[0], result.fun, result.jac[0]) == (1.0, 5.0, 0.0)


def test_the_lowest_point_is_returned_where_none_converged():
    seen = Recorder(bowl)
    options = {"lr": 3.0, "maxiter": 25}
    result = minimize(seen, np.zeros(3), jac=slope, method=adam, options=options)
    values = [bowl(x) for x in seen.points]
    assert 0 < np.argmin(values) < len(values) - 1  # it swings
    assert result.fun == min(values)
    np.testing.assert_array_equal(result.x, seen.points[np.argmin(values)])
    np.testing.assert_array_equal(result.jac, slope(result.x))
    assert result.nit == 25


#: what is not finite -> function and gradient of x and of the call's number, and what the message names
BROKEN = {
    "nan": (lambda x, k: np.nan if k == 4 else bowl(x), lambda x, k: slope(x), "fun"),
    "inf": (lambda x, k: np.inf if k == 4 else bowl(x), lambda x, k: slope(x), "fun"),
    "-inf": (lambda x, k: -np.inf if k == 4 else bowl(x), lambda x, k: slope(x), "fun"),
    "gradient": (lambda x, k: bowl(x), lambda x, k: slope(x) * [1, 1, np.nan if k == 4 else 1], "the gradient"),
    "infinite gradient": (lambda x, k: bowl(x), lambda x, k: slope(x) / (k != 4), "the gradient"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_not_finite_ends_at_the_best_point_before(name):
    f, g, what = BROKEN[name]
    function, gradient, called = Recorder(f), Recorder(g), Recorder(lambda x: None)
    result = minimize(
        lambda x: function(x, len(function.points) + 1),
        np.zeros(3),
        jac=lambda x: gradient(x, len(gradient.points) + 1),
        method=adam,
        callback=called,
    )
    assert (result.success, result.status, result.nit) == (False, 3, 3)
    assert result.message == f"Stopped: {what} is not finite after 3 steps; x is the best point before."
    np.testing.assert_array_equal(result.x, function.points[2])
    assert result.fun == bowl(result.x)
    np.testing.assert_array_equal(result.jac, slope(result.x))
    assert len(called.points) == 2


def test_a_first_point_that_is_not_finite_is_returned():
    result = minimize(lambda x: np.nan, [1.0, 2.0], jac=lambda x: x, method=adam)
    assert (result.status, result.nit, result.nfev, result.njev) == (3, 0, 1, 0)
    assert result.message == "Stopped: fun is not finite after 0 steps; x is x0."
    assert result.x.tolist() == [1.0, 2.0]
    assert np.isnan([result.fun, *result.jac, result.optimality]).all()


def test_the_function_is_not_called_beyond_what_is_finite():
    function = Recorder(lambda x: -x[0] * 1e-300)
    options = {"lr": 1e308, "backend": "numpy"}
    result = minimize(function, [0.0], jac=lambda x: np.array([-1.0]), method=Method(SGD), options=options)
    assert (result.status, result.nit, result.nfev) == (3, 2, 2)
    assert result.message == "Stopped: x is not finite after 2 steps; x is the best point before."
    assert np.isfinite(function.points).all()
    assert result.x.tolist() == [1e308]


@pytest.mark.parametrize("disp", [True, 1, 2, np.True_, False, 0, -1, None, np.array(False)], ids=repr)
def test_disp_prints_the_message(disp, capsys):
    result = minimize(both, np.zeros(3), jac=True, method=adam, options={"maxiter": 2, "disp": disp})
    assert capsys.readouterr().out == (result.message + "\n") * bool(disp is not None and disp > 0)


# ---------------------------------------------------------------- habits of SciPy's methods


def test_none_is_the_default_and_a_whole_float_a_count():
    plain = minimize(both, np.zeros(3), jac=True, method=adam, options={"lr": 0.1})
    for options in ({"maxiter": None, "tol": None, "finite_diff_rel_step": None}, {"maxiter": 1e4}):
        other = minimize(both, np.zeros(3), jac=True, method=adam, options={"lr": np.array(0.1), **options})
        assert other.nit == plain.nit
        np.testing.assert_array_equal(other.x, plain.x)


@pytest.mark.parametrize(
    ("given", "unknown", "text"),
    [
        ({"hess": slope}, {}, "Method Adam does not use Hessian information (hess)."),
        ({"hess": "2-point"}, {}, "Method Adam does not use Hessian information (hess)."),
        ({"hessp": slope}, {}, "Method Adam does not use Hessian-vector product information (hessp)."),
        ({}, {"gtol": 1, "norm": 2}, "Unknown solver options: gtol (did you mean tol?), norm"),
        ({}, {"ftol": 1}, "Unknown solver options: ftol"),
        ({}, {"learning_rate": 1}, "Unknown solver options: learning_rate (did you mean lr?)"),
        ({}, {"beta1": 0.8}, "Unknown solver options: beta1 (did you mean betas?)"),
        ({}, {"epsilon": 0.8}, "Unknown solver options: epsilon (did you mean eps?)"),
        ({}, {"max_iter": 8}, "Unknown solver options: max_iter (did you mean maxiter?)"),
        ({}, {"alpha": 8}, "Unknown solver options: alpha (did you mean lr?)"),
        ({}, {"grads": 1}, "Unknown solver options: grads"),
        ({}, {"state_dtype": "bfloat16"}, "Unknown solver options: state_dtype"),
    ],
)
def test_what_is_not_used_is_a_warning_of_the_line_that_called_and_changes_nothing(given, unknown, text):
    options = {"maxiter": 20}
    plain = minimize(both, np.zeros(3), jac=True, method=adam, options=options)
    with pytest.warns(OptimizeWarning if unknown else RuntimeWarning) as caught:
        other = minimize(both, np.zeros(3), jac=True, method=adam, options=options | unknown, **given)
    assert [(str(w.message), w.filename) for w in caught] == [(text, __file__)]
    np.testing.assert_array_equal(other.x, plain.x)


def test_called_as_statsmodels_does():
    """``model.fit(method="minimize", min_method=adam, …)``: all keyword arguments become options."""
    options = {"lr": 0.1, "gtol": 1e-5, "disp": 0, "maxiter": 2000}
    given = {"args": (2.0,), "jac": lambda x, k: k * slope(x), "hess": lambda x, k: k * np.diag(CURVATURE)}
    with pytest.warns(RuntimeWarning, match="hess"), pytest.warns(OptimizeWarning, match="gtol"):
        result = minimize(lambda x, k: k * bowl(x), np.zeros(3), method=adam, callback=None, options=options, **given)
    assert result.success
    np.testing.assert_allclose(result.x, MINIMUM, atol=1e-5)


# ---------------------------------------------------------------- callbacks


def test_callback_of_the_old_style_gets_each_new_point():
    seen, called = Recorder(both), []
    minimize(seen, np.zeros(3), jac=True, method=adam, callback=lambda xk: called.append(xk), options={"maxiter": 5})
    np.testing.assert_array_equal(called, seen.points[1:])


def test_callback_may_change_what_it_gets():
    def destroy(intermediate_result):
        for array in (intermediate_result.x, intermediate_result.jac):
            array[:] = np.nan
        intermediate_result.clear()

    plain = minimize(both, np.zeros(3), jac=True, method=adam, options={"maxiter": 5})
    for callback in (destroy, lambda x: x.fill(np.nan)):
        other = minimize(both, np.zeros(3), jac=True, method=adam, callback=callback, options={"maxiter": 5})
        assert other.nit == plain.nit
        np.testing.assert_array_equal(other.x, plain.x)
        np.testing.assert_array_equal(other.jac, plain.jac)


def test_callback_of_the_new_style_gets_a_result():
    seen, called = Recorder(both), []

    def callback(intermediate_result):
        called.append(intermediate_result)

    minimize(seen, np.zeros(3), jac=True, method=adam, callback=callback, options={"maxiter": 5})
    assert [type(result) for result in called] == [OptimizeResult] * 5
    for nit, (result, x) in enumerate(zip(called, seen.points[1:], strict=True), start=1):
        np.testing.assert_array_equal(result.x, x)
        np.testing.assert_array_equal(result.jac, slope(x))
        assert (result.fun, result.nit, result.optimality) == (bowl(x), nit, np.abs(slope(x)).max())


class Items(list):
    """append() with the name that makes SciPy give a result."""

    def append(self, intermediate_result):
        super().append(intermediate_result)


def test_callbacks_by_their_signature():
    points, results = [], Items()
    for callback in (points.append, results.append):
        minimize(both, np.zeros(3), jac=True, method=adam, callback=callback, options={"maxiter": 2})
    assert [type(point) for point in points] == [np.ndarray] * 2
    assert [type(result) for result in results] == [OptimizeResult] * 2
    tells_none = max  # a builtin
    minimize(both, np.zeros(3), jac=True, method=adam, callback=tells_none, options={"maxiter": 2})


@pytest.mark.parametrize("style", ["old", "new"])
def test_stop_iteration_ends_the_run_at_the_best_point(style):
    called = []

    def stop(point):
        called.append(point)
        if len(called) == 20:
            raise StopIteration

    callback = stop if style == "old" else lambda intermediate_result: stop(intermediate_result.x)
    seen = Recorder(bowl)
    result = minimize(seen, np.zeros(3), jac=slope, method=adam, callback=callback, options={"lr": 3.0})
    assert (result.success, result.status, result.nit) == (False, 99, 20)
    assert result.message == "`callback` raised `StopIteration`."
    assert result.fun == min(map(bowl, seen.points))


@pytest.mark.parametrize("where", ["fun", "jac"])
@pytest.mark.parametrize("after", [0, 3])
def test_stop_iteration_of_the_functions_is_an_error_of_theirs(where, after):
    called = iter(range(after))
    functions = {"fun": bowl, "jac": slope}
    whole = functions[where]

    def exhausted(x):
        next(called)
        return whole(x)

    functions[where] = exhausted
    with pytest.raises(StopIteration):
        minimize(functions["fun"], np.zeros(3), jac=functions["jac"], method=adam)
    assert next(called, None) is None


# ---------------------------------------------------------------- bounds

BOUNDS = {
    "Bounds": Bounds([-1, -0.5, 0], [1, 0.5, 0.25]),
    "one side": Bounds(ub=[1, 0.5, 0.25]),
    "scalar": Bounds(-0.75, 2.0),
    "pairs": [(-1, 1), (-0.5, None), (None, 0.25)],
    "infinities": [(-1, 1), (-0.5, np.inf), (-np.inf, np.inf)],
    "array": np.array([[-1, 1], [-0.5, 0.5], [0, 0.25]]),
    "fixed": [(-1, 1), (0.25, 0.25), (0, 0.25)],
    "zip": None,  # made in the test: an iterator is used up
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("jac", [slope, None], ids=["gradient", "differences"])
def test_bounds_hold_at_every_evaluation_and_the_minimum_within_is_found(name, jac):
    bounds = BOUNDS[name]
    seen, x0 = Recorder(bowl), [2.0, 2.0, 0.25]  # the first two outside of some
    given = zip([-1, -0.5, 0], [1, 0.5, 0.25], strict=True) if bounds is None else bounds
    result = minimize(seen, x0, jac=jac, method=adam, bounds=given, tol=1e-4, options={"lr": 0.05})
    assert result.success, result.message
    expected = minimize(bowl, x0, jac=slope, method="L-BFGS-B", bounds=BOUNDS["array"] if bounds is None else bounds)
    np.testing.assert_allclose(result.x, expected.x, atol=2e-4)
    low, high = inside.scipy_box(BOUNDS["array"] if bounds is None else bounds, 3)
    assert (low <= seen.points).all()
    assert (seen.points <= high).all()


class Recorded(fastadam.SGD):
    """Keeps the bounds of each step."""

    seen: list = []  # noqa: RUF012

    def step(self, *args):
        self.seen.append(self.bounds)
        super().step(*args)


@pytest.mark.parametrize(
    ("bounds", "pair"),
    [
        ([(-1, 0.25)] * 3, (-1, 0.25)),
        (Bounds(-1, 0.25), (-1, 0.25)),
        ([(None, 0.25)] * 3, (-np.inf, 0.25)),
        ([(-1, 0.25), (-1, 0.25), (-1, 0.5)], (-np.inf, np.inf)),
        ([(-1, 0.25), (-2, 0.25), (-1, 0.25)], (-np.inf, np.inf)),
        (None, (-np.inf, np.inf)),
    ],
)
def test_one_pair_of_bounds_is_the_steps_own(bounds, pair, monkeypatch):
    Recorded.seen.clear()
    minimize(both, [0, 0, 0.5], jac=True, method=Method(Recorded), bounds=bounds, options={"maxiter": 3})
    assert Recorded.seen == [pair] * 3


@each_method
def test_bounds_of_a_step_are_those_of_a_projection_to_the_bit(method, options):
    if method is adapter.METHODS["schedulefreeadamw"]:
        return  # what it projects is not the iterate: see tests/unit/test_bounds.py
    low, high = -0.75, 0.25
    seen, bounds = Recorder(bowl), [(low, high)] * 3
    minimize(seen, [0, 0, 0], jac=slope, method=method, bounds=bounds, tol=0, options={**options, "maxiter": 40})
    x = np.zeros(3)
    optimizer = method.optimizer(x, **options)
    for point in seen.points[:41]:
        np.testing.assert_array_equal(point, x)
        optimizer.step(slope(x))
        np.clip(x, low, high, out=x)


def test_converged_at_a_bound_where_the_gradient_points_out_of_it():
    result = minimize(both, [0.5] * 3, jac=True, method=adam, bounds=[(None, 1)] * 3, options={"lr": 0.1})
    assert result.success
    assert result.x[0] == 1.0
    assert result.jac[0] == -2.0  # it would go on
    assert result.optimality <= 1e-5
    pushed_back = minimize(both, [0.5] * 3, jac=True, method=adam, bounds=[(None, 4)] * 3, options={"lr": 0.1})
    np.testing.assert_allclose(pushed_back.x, MINIMUM, atol=1e-4)


def test_the_projected_gradient_is_no_longer_than_the_way_to_the_bound():
    options = {"maxiter": 0}
    cases = ((0.999, 0.001), (1.0, 0.0), (-5.0, 2.0))  # x, what is left of a gradient of -2 below a bound of 1
    for x, left in cases:
        result = minimize(
            lambda x: (-2 * x[0], [-2.0]), [x], jac=True, method=adam, bounds=[(None, 1)], options=options
        )
        assert result.optimality == pytest.approx(left)
        assert result.success == (left == 0)


@pytest.mark.parametrize("jac", [slope, True, None], ids=["gradient", "both", "differences"])
@pytest.mark.parametrize("method", [adam, adapter.asgd])
def test_fixed_elements_alone_as_in_scipy(method, jac):
    options = {} if method is adam else {"lr": 0.1}
    fun = both if jac is True else bowl
    mine, scipys = (
        minimize(fun, np.zeros(3), jac=jac, method=each, bounds=[(1, 1)] * 3, options=more)
        for each, more in ((method, options), ("L-BFGS-B", None))
    )
    for name in ("success", "message", "nfev", "njev", "fun"):
        assert mine[name] == scipys[name]
    np.testing.assert_array_equal(mine.x, scipys.x)
    assert np.isnan(mine.jac).all()
    assert (mine.status, mine.nit, mine.optimality) == (0, 0, 0)
    assert minimize(lambda x: np.nan, [0.0], jac=jac and slope, method=method, bounds=[(1, 1)]).status == 3


@pytest.mark.parametrize("fixed", [[0], [1], [2], [0, 1], [0, 2], [1, 2], []])
@pytest.mark.parametrize("maxiter", [None, 3])
def test_gradient_of_a_fixed_element_as_in_scipy(fixed, maxiter):
    """Where no difference was taken there is NaN: in the result and in what a callback gets."""
    bounds = [(0.25, 0.25) if k in fixed else (-2, 2) for k in range(3)]
    options, told = {"lr": 0.05, "maxiter": maxiter}, []

    def callback(intermediate_result):
        told.append(intermediate_result.jac)

    mine = minimize(bowl, np.ones(3), method=adam, bounds=bounds, options=options, callback=callback, tol=1e-4)
    scipys = minimize(bowl, np.ones(3), method="L-BFGS-B", bounds=bounds)
    assert mine.success is (maxiter is None)
    assert np.flatnonzero(np.isnan(mine.jac)).tolist() == fixed
    np.testing.assert_array_equal(np.isnan(mine.jac), np.isnan(scipys.jac))
    assert told
    assert (np.isnan(told) == np.isnan(mine.jac)).all()
    assert np.isfinite([mine.fun, mine.optimality]).all()
    assert mine.nfev == (4 - len(fixed)) * (mine.nit + 1)
    given = minimize(bowl, np.ones(3), jac=slope, method=adam, bounds=bounds, options=options, tol=1e-4)
    np.testing.assert_array_equal(given.jac, slope(given.x))


def test_a_last_point_that_is_not_finite_tells_what_it_knows():
    seen = []

    def fun(x):
        seen.append(x)
        return np.inf if len(seen) > 3 else bowl(x)

    result = minimize(fun, np.ones(3), method=adam, bounds=[(1, 1), (-2, 2), (-2, 2)])
    assert result.status == 3
    assert np.isnan(result.jac).tolist() == [True, False, False]


# ---------------------------------------------------------------- errors

CANNOT = "Adam cannot use it; leave it out, or use SciPy's method="
STEP = "finite_diff_rel_step: expected a number > 0 and finite, or one for each of the 3 elements of x0, got "
PAIRS = "bounds: expected Bounds, or a pair (low, high) for each of the 3 elements of x0, got "
ORDER = "bounds: expected low <= high, with numbers between, got "
ERRORS = [
    ({"jac": None, "options": {"eps": 1e-2}}, ValueError, "eps: without jac it may be SciPy's step of the finite diff"),
    ({"jac": "3-point", "options": {"eps": None}}, ValueError, "eps: without jac it may be SciPy's step of the finite"),
    ({"jac": None, "method": own, "options": {"eps": 1}}, ValueError, "eps: without jac it may be SciPy's step of th"),
    ({"constraints": {"type": "eq", "fun": bowl}}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ({"constraints": [LinearConstraint(np.eye(3))]}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ({"constraints": LinearConstraint(np.eye(3))}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ({"callback": 5}, TypeError, "callback: expected a function, got 5 of type int"),
    ({"tol": -1}, ValueError, "tol: expected a number >= 0 and finite, got -1"),
    ({"tol": "small"}, TypeError, "tol: expected a number >= 0 and finite, got 'small' of type str"),
    ({"options": {"maxiter": 1.5}}, TypeError, "maxiter: expected a whole number >= 0 and < 2**62, got 1.5 of type"),
    ({"options": {"maxiter": True}}, TypeError, "maxiter: expected a whole number >= 0 and < 2**62, got True of"),
    ({"options": {"maxiter": -1}}, ValueError, "maxiter: expected a whole number >= 0 and < 2**62, got -1"),
    ({"options": {"disp": "no"}}, TypeError, "disp: expected a number or True or False, got 'no' of type str"),
    ({"options": {"finite_diff_rel_step": 0}}, ValueError, f"{STEP}0"),
    ({"options": {"finite_diff_rel_step": [1, np.nan, 1]}}, ValueError, f"{STEP}[1, nan, 1]"),
    ({"options": {"finite_diff_rel_step": [1, 2]}}, ValueError, f"{STEP}[1, 2]"),
    ({"options": {"finite_diff_rel_step": "a"}}, TypeError, "finite_diff_rel_step: expected real numbers, got <U1"),
    (
        {"options": {"maximize": True}},
        ValueError,
        "maximize: minimize() only minimizes; leave it out, and pass the negati",
    ),
    ({"options": {"lr": -1}}, ValueError, "lr: expected a number >= 0 and finite, got -1"),
    ({"options": {"n_threads": 0}}, ValueError, "n_threads: expected a whole number >= 1, got 0"),
    ({"bounds": 3}, ValueError, f"{PAIRS}3"),
    ({"bounds": [(0, 1)] * 2}, ValueError, f"{PAIRS}[(0, 1), (0, 1)]"),
    ({"bounds": [(0, 1, 2)] * 3}, ValueError, f"{PAIRS}[(0, 1, 2), (0, 1, 2), (0, 1, 2)]"),
    ({"bounds": [(0, "a")] * 3}, ValueError, f"{PAIRS}[(0, 'a'), (0, 'a'), (0, 'a')]"),
    ({"bounds": Bounds([0, 0], [1, 1])}, ValueError, f"{PAIRS}Bounds("),
    ({"bounds": [(0, 1), (2, 1), (0, 1)]}, ValueError, f"{ORDER}(2.0, 1.0) at 1"),
    ({"bounds": [(0, np.nan)] * 3}, ValueError, f"{ORDER}(0.0, nan) at 0"),
    ({"bounds": [(np.inf, np.inf)] * 3}, ValueError, f"{ORDER}(inf, inf) at 0"),
    ({"x0": [1, np.nan, 2]}, ValueError, "x0: expected finite numbers, got nan at 1"),
    ({"x0": [1j, 0, 0]}, TypeError, "x0: expected real numbers, got complex128"),
    ({"x0": ["a", "b"]}, TypeError, "x0: expected real numbers, got <U1"),
]


@pytest.mark.parametrize(("given", "error", "text"), ERRORS, ids=[text.split(" ")[0] for _, _, text in ERRORS])
def test_what_is_refused_before_the_function_is_called(given, error, text):
    seen = Recorder(both)
    with pytest.raises(error) as caught:
        minimize(**{"fun": seen, "x0": np.zeros(3), "jac": True, "method": adam} | given)
    assert str(caught.value).startswith(text)
    assert seen.points == []


def test_nothing_asked_for_is_no_error():
    result = minimize(both, np.zeros(3), jac=True, method=adam, constraints=[], options={"maximize": False, "lr": 0.1})
    assert result.success


RETURNS = [
    (
        lambda x: (1.0, x),
        slope,
        TypeError,
        "fun: expected one number, got a tuple; for fun(x) -> (value, gradient) ",
    ),
    (lambda x: x, slope, ValueError, "fun: expected one number, got shape (3,)"),
    (lambda x: 1j, slope, TypeError, "fun: expected real numbers, got complex128"),
    (lambda x: None, slope, TypeError, "fun: expected real numbers, got NoneType"),
    (bowl, lambda x: x[:2], ValueError, "jac: expected shape (3,) like x, got (2,)"),
    (bowl, lambda x: x[:, None], ValueError, "jac: expected shape (3,) like x, got (3, 1)"),
    (bowl, lambda x: x * 1j, TypeError, "jac: expected real numbers, got complex128"),
    (bowl, lambda x: None, TypeError, "jac: expected real numbers, got NoneType"),
]


@pytest.mark.parametrize(("f", "g", "error", "text"), RETURNS, ids=range(len(RETURNS)))
def test_what_functions_may_not_return(f, g, error, text):
    with pytest.raises(error) as caught:
        minimize(f, np.ones(3), jac=g, method=adam)
    assert str(caught.value).startswith(text)


def test_called_without_minimize():
    result = adam(bowl, np.zeros(3), jac=slope, lr=0.1)
    expected = minimize(bowl, np.zeros(3), jac=slope, method=adam, options={"lr": 0.1})
    np.testing.assert_array_equal(result.x, expected.x)
    assert adam(lambda x, k: k * x @ x, [1.0], 4, jac=lambda x, k: 2 * k * x, maxiter=0).fun == 4.0
    with pytest.raises(ValueError, match=r"^x0: expected one dimension, got shape \(3, 1\); pass x0.ravel"):
        adam(bowl, np.zeros((3, 1)), jac=slope)
    with pytest.raises(TypeError, match=r"^jac: expected a function or None, and from minimize\(\) also True, got"):
        adam(both, np.zeros(3), jac=True)
    with pytest.raises(TypeError, match=r"^fun: expected a function, got None of type NoneType"):
        adam(None, np.zeros(3))


@pytest.mark.parametrize("wrong", ["adam", fastadam.Optimizer, dict, fastadam.Adam(np.zeros(1))], ids=repr)
def test_method_is_of_a_class(wrong):
    with pytest.raises(TypeError, match=r"^optimizer: expected a class such as fastadam.Adam, got"):
        Method(wrong)


# ---------------------------------------------------------------- among others


def test_ready_names_are_the_classes():
    for name in ("Adam", "AdamW", "Adamax", "Adagrad", "RMSprop", "Adadelta"):
        method = getattr(adapter, name.lower())
        assert method == Method(getattr(fastadam, name)) == pickle.loads(pickle.dumps(method))
    assert adam != adamw


def wells(x):
    """Many minima; the lowest, of 0, at the origin."""
    value = np.sum(0.05 * x**2 + 1 - np.cos(3 * x))
    return value, 0.1 * x + 3 * np.sin(3 * x)


def test_basinhopping_takes_it_as_its_local_method():
    rng = np.random.default_rng(0)
    kwargs = {"method": adam, "jac": True, "options": {"lr": 0.1}}
    hop = lambda x: x + rng.uniform(-2, 2, x.shape)  # noqa: E731
    result = basinhopping(wells, [4.0, -4.0], niter=40, T=0, take_step=hop, minimizer_kwargs=kwargs)
    assert result.lowest_optimization_result.success
    assert result.minimization_failures == 0
    np.testing.assert_allclose(result.x, 0, atol=1e-5)


def test_dual_annealing_takes_it_as_its_local_method():
    seed = {"rng" if "rng" in inspect.signature(dual_annealing).parameters else "seed": 0}
    bounds = [(-5, 5), (-5, 5)]
    kwargs = {"method": adam, "jac": lambda x: wells(x)[1], "bounds": bounds, "options": {"lr": 0.1, "maxiter": 300}}
    result = dual_annealing(lambda x: wells(x)[0], bounds, maxiter=100, minimizer_kwargs=kwargs, **seed)
    np.testing.assert_allclose(result.x, 0, atol=1e-4)


def test_autograd():
    import autograd.numpy as anp
    from autograd import value_and_grad

    def f(x):
        return anp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    options = {"lr": 0.1}
    result = minimize(value_and_grad(f), [-1.2, 1.0], jac=True, method=adam, options=options)
    expected = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=adam, options=options)
    assert result.success
    np.testing.assert_allclose(result.x, expected.x, atol=1e-9)


@with_jax
def test_jax():
    import jax
    import jax.numpy as jnp

    def f(x, scale):
        return 0.5 * jnp.sum(scale * (x - 1) ** 2)

    gradients = Recorder(jax.jit(jax.value_and_grad(f)))
    gradients.returned = []

    def value_and_grad(x, scale):
        value, gradient = gradients(x, scale)
        gradients.returned.append(np.asarray(gradient))
        return value, gradient

    scale = jnp.asarray(CURVATURE, dtype=jnp.float32)
    result = minimize(value_and_grad, [0, 0, 3], (scale,), jac=True, method=adam, options={"lr": 0.1})
    assert {(g.dtype.name, g.flags.writeable) for g in gradients.returned} == {("float32", False)}
    assert result.success, result.message
    assert result.x.dtype == result.jac.dtype == np.float64
    assert type(result.fun) is float
    np.testing.assert_allclose(result.x, 1, atol=1e-4)


def test_without_scipy_the_way_out_is_named():
    command = "import sys; sys.modules['scipy'] = None; import fastadam; import fastadam.adapters.scipy"
    root = Path(fastadam.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, encoding="utf-8", cwd=root)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == "ImportError: fastadam.adapters.scipy needs SciPy: pip install scipy"
