"""qiskit's ADAM with fastadam's step, compared with qiskit's own: runs, snapshots, settings, a VQE, errors."""

import copy
import inspect
import pickle

import numpy as np
import pytest

pytest.importorskip("qiskit_algorithms")
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import VQE
from qiskit_algorithms.optimizers import ADAM as STOCK
from qiskit_algorithms.optimizers import OptimizerSupportLevel
from qiskit_algorithms.utils import algorithm_globals

from fastadam.adapters.qiskit import ADAM

CASES = {
    "defaults": {},
    "options": {"lr": 0.05, "beta_1": 0.7, "beta_2": 0.9, "noise_factor": 0.01},
    "amsgrad": {"lr": 0.05, "amsgrad": True},
    "tol": {"lr": 0.05, "tol": 0.02},
    "coarse differences": {"lr": 0.05, "eps": 1e-3},
}


def wave(x):
    return float(np.sum(np.cos(3 * np.asarray(x))))


def slope(x):
    return -3 * np.sin(3 * np.asarray(x))


def run(kind, x0, jac=slope, fun=wave, grouped=None, maxiter=50, **options):
    """The result, the states, and all that the functions were given."""
    seen = []

    def watched(function):
        def call(x):
            seen.append(x)
            return function(x)

        return call

    optimizer = kind(maxiter=maxiter, **options)
    optimizer.set_max_evals_grouped(grouped)
    result = optimizer.minimize(watched(fun), x0, watched(jac) if jac else None)
    states = [optimizer._m, optimizer._v, optimizer._t]
    return [result.x, result.fun, result.nfev, *states, *([optimizer._v_eff] if optimizer._amsgrad else []), *seen]


def agree(ours, theirs, rtol=1e-11):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert type(one) is type(other)
        assert np.shape(one) == np.shape(other)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("x0", [np.linspace(-1, 2, 7), np.linspace(-1, 2, 7, dtype="f"), np.array([1, 2])], ids=str)
def test_numbers(case, x0):
    before = x0.copy()
    agree(run(ADAM, x0, **CASES[case]), run(STOCK, x0, **CASES[case]), 1e-4 if x0.dtype == "f" else 1e-11)
    np.testing.assert_array_equal(x0, before)


@pytest.mark.parametrize("case", CASES)
def test_differences(case):
    """Their rounding is some 1e-6 of a slope at the default eps, and a step amplifies it where slopes are near 0."""
    x0 = np.linspace(-0.9, 0.8, 4)
    options = {"eps": 1e-4} | CASES[case]
    agree(run(ADAM, x0, None, **options), run(STOCK, x0, None, **options), 1e-7)


def test_differences_in_groups():
    def batched(x):
        return [wave(part) for part in x.reshape(-1, 4)] if x.size > 4 else wave(x)

    x0 = np.linspace(-0.9, 0.8, 4)
    for grouped in (1, 2, 3, 4):
        ours, theirs = (run(kind, x0, None, batched, grouped, eps=1e-4) for kind in (ADAM, STOCK))
        agree(ours, theirs, 1e-7)


@pytest.mark.parametrize(
    ("x0", "jac"),
    [
        (0.5, lambda x: np.array([np.cos(x)]).reshape(1)),
        ([0.5, 1.0], slope),
        (np.array([0.5, 1.0]), lambda x: slope(x).reshape(1, 2)),
        (np.array([[0.5, 1.0]]), lambda x: slope(x).reshape(2, 1)),
        (np.zeros(0), slope),
    ],
)
def test_shapes(x0, jac):
    agree(run(ADAM, x0, jac), run(STOCK, x0, jac))


def test_one_number_counts_for_all():
    """As in qiskit's own test of groups, whose function does not know of them."""
    ours, theirs = (run(kind, np.zeros(3), lambda x: np.array([x[0] + 1])) for kind in (ADAM, STOCK))
    agree(ours[:3], theirs[:3])


@pytest.mark.parametrize("maxiter", [0, 1])
def test_few_steps(maxiter):
    agree(run(ADAM, np.ones(3), maxiter=maxiter), run(STOCK, np.ones(3), maxiter=maxiter))


def test_it_stops_where_qiskit_does():
    options = {"maxiter": 5000, "lr": 0.05, "tol": 1e-5}
    ours, theirs = (run(kind, np.linspace(-1, 2, 7), **options) for kind in (ADAM, STOCK))
    assert 10 < ours[2] == theirs[2] < 5000


def test_what_was_handed_out_stays():
    kept, copies = [], []

    def jac(x):
        kept.append(x)
        copies.append(x.copy())
        return slope(x)

    ADAM(maxiter=5).minimize(wave, np.ones(3), jac)
    np.testing.assert_array_equal(kept, copies)
    assert len({id(x) for x in kept}) == 5


@pytest.mark.parametrize("amsgrad", [False, True])
def test_snapshots(tmp_path, amsgrad):
    """The same files, which either writes and ours reads: qiskit's own reader is an error with NumPy 2.4."""
    texts = []
    for kind in (ADAM, STOCK):
        optimizer = kind(maxiter=12, lr=0.1, amsgrad=amsgrad, snapshot_dir=str(tmp_path))
        optimizer.minimize(wave, np.linspace(-1, 2, 8), slope)
        texts.append((tmp_path / "adam_params.csv").read_text())
        other = ADAM(amsgrad=amsgrad)
        other.load_params(str(tmp_path))
        assert other._t == 12
        for name in ("_m", "_v", "_v_eff")[: 2 + amsgrad]:
            np.testing.assert_allclose(getattr(other, name), getattr(optimizer, name), rtol=1e-6, atol=1e-7)
    assert texts[0] == texts[1]


def test_snapshots_that_cannot_be_read(tmp_path):
    optimizer = ADAM(maxiter=2, snapshot_dir=str(tmp_path))
    with pytest.raises(ValueError, match="ends with no numbers for v, m, t"):
        optimizer.load_params(str(tmp_path))
    (tmp_path / "adam_params.csv").write_text("")
    with pytest.raises(ValueError, match="ends with no numbers for v, m, t"):
        optimizer.load_params(str(tmp_path))
    optimizer.minimize(wave, np.ones(3), slope)
    other = ADAM(amsgrad=True)
    with pytest.raises(ValueError, match="ends with no numbers for v, v_eff, m, t"):
        other.load_params(str(tmp_path))
    optimizer.minimize(wave, np.ones(2000), slope)
    with pytest.raises(ValueError, match="ends with no numbers for v, m, t"):
        optimizer.load_params(str(tmp_path))
    assert (other._t, optimizer._t) == (0, 2)


def test_is_qiskits_class():
    ours, theirs = ADAM(lr=0.1), STOCK(lr=0.1)
    assert isinstance(ours, STOCK)
    assert inspect.signature(ADAM) == inspect.signature(STOCK)
    assert list(inspect.signature(ADAM.minimize).parameters) == list(inspect.signature(STOCK.minimize).parameters)
    assert ours.settings == theirs.settings
    assert ours.setting == theirs.setting
    assert ours.get_support_level() == theirs.get_support_level()
    assert ours.bounds_support_level is OptimizerSupportLevel.ignored
    assert ADAM(**ours.settings).settings == ours.settings


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_copies_and_second_runs(copied):
    optimizer = ADAM(maxiter=20, amsgrad=True)
    first = optimizer.minimize(wave, np.ones(3), slope)
    second = copied(optimizer).minimize(wave, np.ones(3), slope, bounds=[(0, 1)] * 3)
    np.testing.assert_array_equal(first.x, second.x)


def test_a_vqe():
    ansatz = real_amplitudes(2, reps=1)
    operator = SparsePauliOp.from_list([("ZZ", 1.0), ("XI", 0.5)])
    energies = []
    for kind in (ADAM, STOCK):
        algorithm_globals.random_seed = 0
        vqe = VQE(StatevectorEstimator(), ansatz, kind(maxiter=15, lr=0.1, eps=1e-4), initial_point=np.full(4, 0.3))
        energies.append(vqe.compute_minimum_eigenvalue(operator).eigenvalue)
    assert energies[0] == pytest.approx(energies[1], rel=1e-7)


BAD = [
    (np.ones(3), lambda x: np.ones(2), {}, ValueError, "jac: expected 3 numbers, as many as in x0, got 2"),
    (np.ones(3), lambda x: 1j * np.ones(3), {}, TypeError, "gradient of x0: expected real numbers"),
    (np.ones(3) * 1j, slope, {}, TypeError, "x0: expected real numbers, got complex128"),
    (["a"], slope, {}, TypeError, "x0: expected real numbers"),
    (np.ones(3), slope, {"lr": "0.1"}, TypeError, "lr: expected a number, got '0.1'"),
    (np.ones(3), slope, {"beta_2": None}, TypeError, "beta_2: expected a number, got None"),
]


@pytest.mark.parametrize(("x0", "jac", "options", "error", "message"), BAD)
def test_refused(x0, jac, options, error, message):
    before = copy.deepcopy(x0)
    with pytest.raises(error, match=message):
        ADAM(**options).minimize(wave, x0, jac)
    np.testing.assert_array_equal(x0, before)


def test_points_that_the_gradient_changes():
    """Are where the next step begins, as in qiskit."""

    def clipping(x):
        np.clip(x, -0.2, 0.2, out=x)
        return slope(x)

    found = [kind(maxiter=20, lr=0.05).minimize(wave, np.array([0.1, 0.5]), clipping).x for kind in (ADAM, STOCK)]
    np.testing.assert_allclose(*found, rtol=1e-12)
