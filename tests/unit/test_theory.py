"""Proven facts about Adam, for any gradients: its closed forms, its scale invariance, and the size of a step.
The paper's own bound on a step is not exact: the tests show gradients that exceed it.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastadam

EPS = np.finfo(float).eps
STEPS = 30
prove = settings(deadline=None, derandomize=True, max_examples=200)

sizes = st.floats(1e-6, 1e6)
nonzero = sizes | sizes.map(lambda size: -size)
any_number = st.just(0.0) | nonzero
beta = st.just(0.0) | st.floats(1e-3, 0.9999)  # a smaller one underflows in the powers that are compared
betas = st.tuples(beta, beta)
rates = st.floats(1e-4, 1.0)


def sequences(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """The gradients of up to STEPS steps, a row a step, three elements each."""
    shapes = st.tuples(st.integers(1, STEPS), st.just(3))
    return shapes.flatmap(lambda shape: hnp.arrays(float, shape, elements=elements))


def ascending_betas() -> st.SearchStrategy[tuple[float, float]]:
    """Betas with β₁² < β₂, by a margin that leaves 1 - β₁²/β₂ some digits."""
    return st.builds(lambda beta2, part: (math.sqrt(beta2) * part, beta2), st.floats(0.01, 0.9999), st.floats(0, 0.999))


def run(gradients: np.ndarray, **options) -> tuple[np.ndarray, fastadam.Adam]:
    """The change of θ in each step, free of rounding since each begins at θ = 0; and the optimizer."""
    theta = np.zeros(gradients.shape[1])
    opt = fastadam.Adam(theta, **options)
    changes = []
    for g in gradients:
        theta[:] = 0
        opt.step(g)
        changes.append(theta.copy())
    return np.array(changes), opt


def corrections(beta: float, t: np.ndarray | int) -> np.ndarray:
    return 1 - np.power(beta, t)


def rounding(t: np.ndarray | int, beta: float) -> np.ndarray:
    """The relative error, at most, of a moment of terms of one sign that is divided by its correction.

    A term meets at most two roundings a step; β^t is off by a few units (NumPy allows its power four), which weigh the
    more the smaller 1 - β^t is.
    """
    return (2 * t + 2) * EPS + 4 * EPS / corrections(beta, t)


# ---------------------------------------------------------------- the moments


@prove
@given(sequences(any_number), betas)
def test_moments_are_weighted_sums(gradients: np.ndarray, betas: tuple[float, float]) -> None:
    _, opt = run(gradients, betas=betas, eps=1.0)
    steps = len(gradients)
    for state, beta, terms in (("m", betas[0], gradients), ("v", betas[1], gradients**2)):
        weights = (1 - beta) * np.power(beta, np.arange(steps - 1, -1, -1.0))
        error = np.abs(opt.state[state][0] - weights @ terms)
        # of the sum of sizes: terms of m may cancel
        assert (error <= (2 * steps + 8) * EPS * (weights @ np.abs(terms))).all()


@prove
@given(hnp.arrays(float, 3, elements=nonzero), betas, st.integers(1, STEPS))
def test_corrected_moments_of_a_steady_gradient_are_it_and_its_square(
    g: np.ndarray, betas: tuple[float, float], steps: int
) -> None:
    _, opt = run(np.tile(g, (steps, 1)), betas=betas)
    for state, beta, expected in (("m", betas[0], g), ("v", betas[1], g**2)):
        corrected = opt.state[state][0] / corrections(beta, steps)
        np.testing.assert_allclose(corrected, expected, rtol=rounding(steps, beta))


@prove
@given(hnp.arrays(float, 3, elements=nonzero), betas, st.integers(1, STEPS), rates)
def test_a_steady_gradient_moves_by_the_rate(g: np.ndarray, betas: tuple[float, float], steps: int, lr: float) -> None:
    changes, _ = run(np.tile(g, (steps, 1)), betas=betas, lr=lr, eps=0)
    expected = np.tile(-lr * np.sign(g), (steps, 1))
    np.testing.assert_allclose(changes, expected, rtol=rounding(steps, max(betas)))


# ---------------------------------------------------------------- scale


@prove
@given(sequences(nonzero), betas, st.integers(-100, 100), st.booleans())
def test_scaling_the_objective_by_a_power_of_two_changes_no_bit(
    gradients: np.ndarray, betas: tuple[float, float], power: int, amsgrad: bool
) -> None:
    changes, _ = run(gradients, betas=betas, eps=0, amsgrad=amsgrad)
    scaled, _ = run(gradients * 2.0**power, betas=betas, eps=0, amsgrad=amsgrad)
    assert np.array_equal(scaled, changes)


@prove
@given(sequences(nonzero), betas, st.floats(1e-6, 1e6))
def test_scaling_the_objective_changes_no_step(gradients: np.ndarray, betas: tuple[float, float], c: float) -> None:
    changes, _ = run(gradients, betas=betas, eps=0)
    scaled, _ = run(gradients * c, betas=betas, eps=0)
    # Rounding is of the sum of sizes in m, and so of the step that the gradients make without their signs.
    sizes, _ = run(np.abs(gradients), betas=betas, eps=0)
    assert (np.abs(scaled - changes) <= (4 * STEPS + 16) * EPS * np.abs(sizes)).all()


# ---------------------------------------------------------------- the length of a step


def cauchy_schwarz(lr: float, beta1: float, beta2: float, t: np.ndarray | int) -> np.ndarray:
    """What no step t passes: m² ≤ (1 - β₁)² Σ (β₁²/β₂)^(t-i) · Σ β₂^(t-i) g², and the first sum ≤ 1 / (1 - β₁²/β₂)."""
    corrected = np.sqrt(corrections(beta2, t)) / corrections(beta1, t)
    return lr * corrected * (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))


def bound_rounding(beta1: float, beta2: float, t: np.ndarray | int) -> np.ndarray:
    """The relative error, at most, of a step and of its bound."""
    return rounding(t, beta1) + rounding(t, beta2) + EPS / (1 - beta1**2 / beta2)


def papers_bound(lr: float, beta1: float, beta2: float) -> float:
    """Section 2.1 of the paper."""
    return lr * max((1 - beta1) / math.sqrt(1 - beta2), 1.0)


def steepest(beta1: float, beta2: float, steps: int) -> np.ndarray:
    """The gradients of the longest last step: those for which Cauchy-Schwarz is an equation, the last of them 1."""
    return np.power(beta1 / beta2, np.arange(steps - 1, -1, -1.0))[:, None]


@prove
@given(st.data(), ascending_betas(), st.sampled_from([0.0, 1e-8, 1.0]), rates)
def test_no_step_passes_the_bound_of_cauchy_and_schwarz(
    data: st.DataObject, betas: tuple[float, float], eps: float, lr: float
) -> None:
    gradients = data.draw(sequences(any_number if eps else nonzero))
    changes, _ = run(gradients, betas=betas, eps=eps, lr=lr)
    t = np.arange(1, len(gradients) + 1)
    bounds = cauchy_schwarz(lr, *betas, t) * (1 + bound_rounding(*betas, t))
    assert (np.abs(changes).max(axis=1) <= bounds).all()


@prove
@given(ascending_betas(), st.integers(1, STEPS), rates)
def test_the_steepest_gradients_reach_that_bound(betas: tuple[float, float], steps: int, lr: float) -> None:
    changes, _ = run(steepest(*betas, steps), betas=betas, eps=0, lr=lr)
    left_out = (betas[0] ** 2 / betas[1]) ** steps  # of the bound's endless sum; here it has `steps` terms
    reached = cauchy_schwarz(lr, *betas, steps) * math.sqrt(1 - left_out)
    assert -changes[-1, 0] == pytest.approx(reached, rel=bound_rounding(*betas, steps), abs=0)


@pytest.mark.parametrize(
    ("betas", "steps"),
    [((0.9, 0.999), 400), ((0.9, 0.98), 200)],
    ids=["1 - β₁ above √(1 - β₂)", "1 - β₁ below √(1 - β₂)"],
)
def test_steepest_gradients_pass_the_papers_bound(betas: tuple[float, float], steps: int) -> None:
    changes, _ = run(steepest(*betas, steps), betas=betas, lr=0.1, eps=0)
    assert -changes[-1, 0] > 1.3 * papers_bound(0.1, *betas)


def test_a_lone_gradient_after_none_reaches_the_papers_bound() -> None:
    gradients = np.zeros((10_000, 1))
    gradients[-1] = 1
    changes, _ = run(gradients, lr=0.1, eps=1e-300)
    # both corrections are 1 by then, but for 0.999^10000 = 5e-5
    assert -changes[-1, 0] == pytest.approx(papers_bound(0.1, 0.9, 0.999), rel=1e-4)
