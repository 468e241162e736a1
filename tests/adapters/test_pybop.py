"""PyBOP's AdamW with fastadam's step, compared with PyBOP's own: proposed points, options, a whole fit."""

import copy
import inspect
import pickle

import numpy as np
import pytest

pytest.importorskip("pybop")
import pybop
from pybop.optimisers.pints_optimisers import AdamWImpl as Stock

from fastadam.adapters import pybop as adapter

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyBaMM's own imports and solvers


def told(optimiser, steps=50, change=None, copied=None):
    curves, points = np.array([1e-3, 1.0, 40.0]), []
    for k in range(steps):
        if k == steps // 2:
            optimiser = copied(optimiser) if copied else optimiser
            if change:
                change(optimiser)
        [x] = optimiser.ask()
        points.append(np.array(x))
        optimiser.tell([(float(curves @ x**2), 2 * curves * x)])
    return np.array([*points, optimiser.x_best(), optimiser.x_guessed()])


def pair(sigma0):
    return [kind(np.array([1.0, -2.0, 3.0]), np.array(sigma0), None) for kind in (adapter.AdamWImpl, Stock)]


def test_signatures():
    for ours, stock in ((adapter.AdamWImpl, Stock), (adapter.AdamW, pybop.AdamW)):
        assert [*inspect.signature(ours).parameters] == [*inspect.signature(stock).parameters]
        assert issubclass(ours, stock)


@pytest.mark.parametrize("sigma0", [[0.1, 0.1, 0.1], [0.1, 0.02, 1.0], [0.1, 0.02, 0.1]])
def test_points(sigma0):
    ours, stock = pair(sigma0)
    np.testing.assert_allclose(told(ours), told(stock), rtol=1e-11, atol=1e-14)


def test_options():
    ours, stock = pair([0.1, 0.02, 1.0])
    for optimiser in (ours, stock):
        optimiser.b1, optimiser.b2, optimiser.lam = 0.5, 0.9, 0.3

    def change(optimiser):
        optimiser.lam = 0.05

    np.testing.assert_allclose(told(ours, change=change), told(stock, change=change), rtol=1e-11, atol=1e-14)
    ours.ask()
    ours.b1 = 0.7
    with pytest.raises(RuntimeError, match="b1, b2, eps, alpha: set them before the first tell"):
        ours.tell([(1.0, np.ones(3))])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on(copied):
    ours, stock = pair([0.1, 0.02, 1.0])
    np.testing.assert_allclose(told(ours, copied=copied), told(stock), rtol=1e-11, atol=1e-14)


def test_refusals_are_pybops():
    ours, _ = pair([0.1, 0.1, 0.1])
    with pytest.raises(RuntimeError, match=r"ask\(\) must be called before tell\(\)\."):
        ours.tell([(1.0, np.ones(3))])
    with pytest.raises(ValueError, match="lam must be a numeric value"):
        ours.lam = 2
    with pytest.warns(UserWarning, match="Boundaries ignored by AdamW"):
        adapter.AdamWImpl(x0=[0.1], sigma0=None, boundaries=[0.0, 0.2])


def test_a_whole_fit():
    """Two parameters of a battery model, as PyBOP's users fit them."""
    import pybamm

    model = pybamm.lithium_ion.SPM()
    names = [f"{side} electrode active material volume fraction" for side in ("Negative", "Positive")]
    truth = model.default_parameter_values
    truth.update(dict(zip(names, (0.62, 0.53), strict=True)))
    times = np.linspace(0, 360, 20)
    solved = pybamm.Simulation(model, parameter_values=truth).solve(t_eval=[0, 360], t_interp=times)
    columns = ("Current [A]", "Voltage [V]")
    found = []
    for kind in (adapter.AdamW, pybop.AdamW):
        data = {
            "Time [s]": times,
            "Current [A]": solved[columns[0]](times),
            "Voltage [V]": solved[columns[1]](times),
        }
        dataset = pybop.Dataset(data)
        values = model.default_parameter_values
        gaussians = (pybop.Gaussian(0.6, 0.02), pybop.Gaussian(0.5, 0.05))
        values.update({name: pybop.Parameter(one) for name, one in zip(names, gaussians, strict=True)})
        simulator = pybop.pybamm.Simulator(model, parameter_values=values, protocol=dataset)
        problem = pybop.Problem(simulator, pybop.SumSquaredError(dataset))
        np.random.seed(0)  # noqa: NPY002  which draws PyBOP's first point
        options = pybop.PintsOptions(max_iterations=15, max_unchanged_iterations=None)
        optimiser = kind(problem, options=options)
        start = np.array(optimiser.optimiser._x0)
        found.append((start, optimiser.run().x))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-7)
