"""Libraries that call SciPy's minimize, with fastadam's methods: quimb's tensor networks, statsmodels' models."""

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy.optimize import minimize

from fastadam.adapters.scipy import adam, rprop


class TestQuimb:
    """``TNOptimizer(…, optimizer=adam)``; quimb's own "adam" has fastadam's convention."""

    @pytest.fixture
    def made(self):
        qtn = pytest.importorskip("quimb.tensor")
        pytest.importorskip("autograd")
        start, target = (qtn.MPS_rand_state(6, bond, seed=bond) for bond in (4, 2))

        def norm(psi):
            return psi / (psi.H & psi).contract(all, optimize="greedy") ** 0.5

        def loss(psi, target):
            return 1 - abs((psi.H & target).contract(all, optimize="greedy"))

        def make(optimizer, **options):
            given = {"norm_fn": norm, "loss_constants": {"target": target}, "autodiff_backend": "autograd"} | options
            return qtn.TNOptimizer(start, loss, optimizer=optimizer, progbar=False, **given)

        return make

    def test_losses_are_those_of_its_own_adam(self, made):
        ours, stock = made(adam), made("adam")
        network = ours.optimize(30, lr=0.02, tol=0)
        stock.optimize(30, learning_rate=0.02)
        assert len(ours.losses) == len(stock.losses) == 31
        np.testing.assert_allclose(ours.losses, stock.losses, rtol=1e-9, atol=1e-12)
        assert ours.nevals == stock.nevals
        assert network.max_bond() == 4

    def test_each_call_begins_anew(self, made):
        """Where quimb's own goes on with its moments."""
        ours = made(adam)
        ours.optimize(10, lr=0.02)
        before = ours.vectorizer.vector.copy()
        ours.optimize(1, lr=0.02, tol=0)
        steps = np.abs(ours.vectorizer.vector - before)
        np.testing.assert_allclose(steps[steps > 0], 0.02, rtol=0.05)  # the first step of an Adam

    def test_bounds_target_and_gradient(self, made):
        ours = made(rprop, bounds=(-0.5, 0.5), loss_target=0.3)
        ours.optimize(200)
        assert 0 < ours.loss <= 0.3
        assert np.abs(ours.vectorizer.vector).max() <= 0.5


class TestStatsmodels:
    """``fit(method="minimize", min_method=adam)``."""

    @pytest.fixture
    def model(self):
        api = pytest.importorskip("statsmodels.api")
        rng = np.random.default_rng(0)
        x = api.add_constant(rng.standard_normal((200, 3)))
        return api.Logit((x @ [0.3, 1.0, -1.0, 0.5] + rng.logistic(size=200) > 0).astype(float), x)

    @pytest.mark.parametrize("method", [adam, rprop])
    @pytest.mark.filterwarnings("ignore:.*does not use Hessian")
    def test_the_same_optimum_and_errors(self, model, method):
        stock = model.fit(disp=0)
        ours = model.fit(method="minimize", min_method=method, lr=0.05, maxiter=2000, disp=0)
        assert ours.mle_retvals["converged"]
        np.testing.assert_allclose(ours.params, stock.params, atol=1e-3)
        np.testing.assert_allclose(ours.bse, stock.bse, rtol=1e-3)

    def test_what_statsmodels_does_not_hand_on(self, model):
        """It drops `tol` and `bounds`: a function of the user's own gives them."""

        def within(fun, x0, bounds=None, hess=None, **given):
            return adam(fun, x0, **given, bounds=[(-0.5, 0.5)] * 4, tol=1e-9)

        bounds = [(-0.5, 0.5)] * 4
        stock = minimize(lambda b: -model.loglike(b), np.zeros(4), jac=lambda b: -model.score(b), bounds=bounds)
        ours = model.fit(method="minimize", min_method=within, lr=0.05, maxiter=5000, disp=0)
        assert ours.mle_retvals["converged"]
        assert np.abs(ours.params).max() == 0.5
        np.testing.assert_allclose(ours.params, stock.x, atol=1e-3)
