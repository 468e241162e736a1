"""Each optimizer against its source: a literal version in plain NumPy, written here without the library's rules.
Also steps computed by hand, and the article's interface with hundreds of random options.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.adapters import article

EPS = np.finfo(float).eps
STEPS = 100
START = np.linspace(-2, 2, 12)
Gradients = list[np.ndarray]
Trajectory = Iterator[np.ndarray]

each_backend = pytest.mark.parametrize("backend", ["cython", "numpy"])


def random_gradients() -> Gradients:
    """Noise around a mean, of another size in each element, so that epsilon matters to some and not to others."""
    rng = np.random.default_rng(0)
    return list(np.logspace(-4, 3, START.size) * (0.5 + rng.standard_normal((STEPS, START.size))))


# ---------------------------------------------------------------- the sources, letter by letter


def algorithm_1(theta, gradients, alpha, beta1, beta2, eps, l2=0.0) -> Trajectory:
    """Kingma & Ba, Algorithm 1; `alpha` may be a function of t; `l2` is Loshchilov & Hutter's Algorithm 2, line 6."""
    m = v = np.zeros_like(theta)
    for t, g in enumerate(gradients, 1):
        g = g + l2 * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - (alpha(t) if callable(alpha) else alpha) * m_hat / (np.sqrt(v_hat) + eps)
        yield theta


def adamw(theta, gradients, alpha, beta1, beta2, eps, decay) -> Trajectory:
    """Loshchilov & Hutter, Algorithm 2, line 12, its weight decay as torch has it: times the rate."""
    m = v = np.zeros_like(theta)
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - alpha * (m_hat / (np.sqrt(v_hat) + eps) + decay * theta)
        yield theta


def amsgrad(theta, gradients, alpha, beta1, beta2, eps) -> Trajectory:
    """Reddi et al., Algorithm 2, with Adam's corrections made after the maximum, as torch has it."""
    m, vs = np.zeros_like(theta), [np.zeros_like(theta)]
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        vs.append(beta2 * vs[-1] + (1 - beta2) * g**2)
        v_hat = np.max(vs, axis=0) / (1 - beta2**t)
        theta = theta - alpha * m / (1 - beta1**t) / (np.sqrt(v_hat) + eps)
        yield theta


def section_2(theta, gradients, alpha, beta1, beta2, eps_hat) -> Trajectory:
    """Kingma & Ba, the more efficient order at the end of section 2."""
    m = v = np.zeros_like(theta)
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        alpha_t = alpha * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        theta = theta - alpha_t * m / (np.sqrt(v) + eps_hat)
        yield theta


def article_adam(theta, gradients, alpha, beta1, beta2, eps_hat, beta_decay, alpha_decay) -> Trajectory:
    """The article: betas that shrink before each use, and a rate over √t."""
    m = v = np.zeros_like(theta)
    for t, g in enumerate(gradients, 1):
        beta1, beta2 = beta1 * beta_decay, beta2 * beta_decay
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        alpha_t = alpha / math.sqrt(t) if alpha_decay else alpha
        theta = theta - alpha_t * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps_hat)
        yield theta


def algorithm_2(theta, gradients, alpha, beta1, beta2) -> Trajectory:
    """Kingma & Ba, Algorithm 2: AdaMax."""
    m = u = np.zeros_like(theta)
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g))
        theta = theta - alpha / (1 - beta1**t) * m / u
        yield theta


def adagrad(theta, gradients, alpha, eps) -> Trajectory:
    """Duchi et al., with a diagonal G: the sum of all squares so far."""
    for t, g in enumerate(gradients, 1):
        theta = theta - alpha * g / (np.sqrt(np.sum(np.square(gradients[:t]), axis=0)) + eps)
        yield theta


def rmsprop(theta, gradients, alpha, decay, eps_in=0.0, eps_out=0.0, momentum=0.0, centered=False) -> Trajectory:
    """Hinton's lecture 6e; centered and with momentum as in Graves, equations 38 to 41, but for the place of alpha."""
    n = g_bar = delta = np.zeros_like(theta)
    for g in gradients:
        n = decay * n + (1 - decay) * g**2
        g_bar = decay * g_bar + (1 - decay) * g
        spread = n - g_bar**2 if centered else n
        delta = momentum * delta - g / (np.sqrt(spread + eps_in) + eps_out)
        theta = theta + alpha * delta
        yield theta


def adadelta(theta, gradients, alpha, rho, eps) -> Trajectory:
    """Zeiler, Algorithm 1, and torch's rate, which the sum of squared steps leaves out."""
    sum_g = sum_x = np.zeros_like(theta)
    for g in gradients:
        sum_g = rho * sum_g + (1 - rho) * g**2
        delta_x = -np.sqrt(sum_x + eps) / np.sqrt(sum_g + eps) * g
        sum_x = rho * sum_x + (1 - rho) * delta_x**2
        theta = theta + alpha * delta_x
        yield theta


ADAM = {"alpha": 0.05, "beta1": 0.8, "beta2": 0.95}
OUR_ADAM = {"lr": 0.05, "betas": (0.8, 0.95)}


def falling(t: int) -> float:
    return 0.1 / (1 + t)


#: the literal version and its options, the optimizer and its options
SOURCES: dict[str, tuple[Callable[..., Trajectory], dict, type[fastadam.Optimizer], dict]] = {
    "Adam": (algorithm_1, ADAM | {"eps": 0.01}, fastadam.Adam, OUR_ADAM | {"eps": 0.01}),
    "Adam, the paper's defaults": (
        algorithm_1,
        {"alpha": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        fastadam.Adam,
        {},
    ),
    "Adam with L2": (
        algorithm_1,
        ADAM | {"eps": 0.01, "l2": 0.3},
        fastadam.Adam,
        OUR_ADAM | {"eps": 0.01, "weight_decay": 0.3},
    ),
    "Adam, lr a function": (
        algorithm_1,
        ADAM | {"alpha": falling, "eps": 0.01},
        fastadam.Adam,
        OUR_ADAM | {"lr": falling, "eps": 0.01},
    ),
    "AdamW": (adamw, ADAM | {"eps": 0.01, "decay": 0.3}, fastadam.AdamW, OUR_ADAM | {"eps": 0.01, "weight_decay": 0.3}),
    "AMSGrad": (amsgrad, ADAM | {"eps": 0.01}, fastadam.Adam, OUR_ADAM | {"eps": 0.01, "amsgrad": True}),
    "Adam, eps_hat": (section_2, ADAM | {"eps_hat": 0.01}, fastadam.Adam, OUR_ADAM | {"eps": 0.01, "eps_hat": True}),
    "the article's Adam": (
        article_adam,
        ADAM | {"eps_hat": 0.01, "beta_decay": 0.97, "alpha_decay": True},
        fastadam.Adam,
        OUR_ADAM | {"eps": 0.01, "beta_decay": 0.97, "alpha_decay": True, "eps_hat": True},
    ),
    "AdaMax": (algorithm_2, ADAM, fastadam.Adamax, OUR_ADAM | {"eps": 0}),
    "AdaGrad": (adagrad, {"alpha": 0.3, "eps": 0.01}, fastadam.Adagrad, {"lr": 0.3, "eps": 0.01}),
    "RMSprop": (
        rmsprop,
        {"alpha": 0.02, "decay": 0.9, "eps_out": 0.01},
        fastadam.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "eps": 0.01},
    ),
    "RMSprop, eps within the root": (
        rmsprop,
        {"alpha": 0.02, "decay": 0.9, "eps_in": 0.01},
        fastadam.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "eps": 0.01, "eps_in_sqrt": True},
    ),
    "RMSprop with momentum": (
        rmsprop,
        {"alpha": 0.02, "decay": 0.9, "eps_out": 0.01, "momentum": 0.7},
        fastadam.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "eps": 0.01, "momentum": 0.7},
    ),
    "RMSprop, centered": (
        rmsprop,
        {"alpha": 0.02, "decay": 0.9, "eps_out": 0.01, "centered": True},
        fastadam.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "eps": 0.01, "centered": True},
    ),
    "RMSprop, centered, with momentum, eps within the root": (
        rmsprop,
        {"alpha": 0.02, "decay": 0.9, "eps_in": 0.01, "momentum": 0.7, "centered": True},
        fastadam.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "eps": 0.01, "momentum": 0.7, "centered": True, "eps_in_sqrt": True},
    ),
    "AdaDelta": (
        adadelta,
        {"alpha": 0.5, "rho": 0.8, "eps": 0.01},
        fastadam.Adadelta,
        {"lr": 0.5, "rho": 0.8, "eps": 0.01},
    ),
}


def follow(optimizer: type[fastadam.Optimizer], theta: np.ndarray, gradients: Gradients, **options: Any) -> np.ndarray:
    """The parameter after each step."""
    theta = theta.copy()
    opt = optimizer(theta, **options)
    trajectory = []
    for g in gradients:
        opt.step(g)
        trajectory.append(theta.copy())
    return np.stack(trajectory)


@each_backend
@pytest.mark.parametrize("name", SOURCES)
def test_optimizer_is_its_source(name: str, backend: str) -> None:
    literal, literal_options, optimizer, options = SOURCES[name]
    gradients = random_gradients()
    expected = np.stack(list(literal(START, gradients, **literal_options)))
    actual = follow(optimizer, START, gradients, backend=backend, **options)
    # The literal versions order their operations in another way: one unit in the last place for each step.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=STEPS * EPS * np.abs(expected).max())


@each_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamax_stays_where_there_was_no_gradient(dtype: str, backend: str) -> None:
    gradients = [np.array([0, 0, 3], dtype), np.array([0, 0, -1], dtype), np.array([0, 2, 0], dtype)]
    moved = follow(fastadam.Adamax, np.ones(3, dtype), gradients, lr=0.5, eps=0, backend=backend)
    assert np.isfinite(moved).all()
    assert (moved != 1).tolist() == [[False, False, True], [False, False, True], [False, True, True]]


# ---------------------------------------------------------------- by hand

#: the optimizer and its options; the parameter at first, the gradients, the parameter after each step
BY_HAND = [
    # the first step of Adam is lr g / (|g| + eps), whatever the betas
    (fastadam.Adam, {"lr": 0.4, "eps": 1}, 1.0, [3.0], [0.7]),
    (fastadam.Adam, {"lr": 0.4, "eps": 1, "betas": (0.5, 0.75)}, 1.0, [-3.0], [1.3]),
    (fastadam.Adam, {"lr": 0.4, "eps": 1, "maximize": True}, 1.0, [3.0], [1.3]),
    # m = 2, -1; m_hat = 4, -4/3; v = 4, 7; v_hat = 16, 16
    (fastadam.Adam, {"lr": 0.3, "eps": 0, "betas": (0.5, 0.75)}, 1.0, [4.0, -4.0], [0.7, 0.8]),
    # √v = 1.5, m = 1.5, the rate 0.5 · 0.5 / 0.5
    (fastadam.Adam, {"lr": 0.5, "eps": 1, "betas": (0.5, 0.75), "eps_hat": True}, 1.0, [3.0], [0.7]),
    # the rate is 0.1, then 0.1 / √2; a steady gradient moves by it
    (fastadam.Adam, {"lr": 0.1, "eps": 0, "alpha_decay": True}, 1.0, [5.0, 5.0], [0.9, 0.9 - 0.0707106781186547524]),
    # the betas are (0.5, 0.75): m = 2, √v = 2, the rate 1 · 0.5 / 0.5, over 2 + 2
    (
        fastadam.Adam,
        {"lr": 1, "eps": 2, "betas": (0.625, 0.9375), "beta_decay": 0.8, "eps_hat": True},
        1.0,
        [4.0],
        [0.5],
    ),
    # L2 meets the gradient: -1 + 0.5 · 2 = 0; and 1 + 0.5 · 2 = 2 moves by 0.1 · 2 / (2 + 2)
    (fastadam.Adam, {"lr": 0.1, "weight_decay": 0.5}, 2.0, [-1.0], [2.0]),
    (fastadam.Adam, {"lr": 0.1, "weight_decay": 0.5, "eps": 2}, 2.0, [1.0], [1.95]),
    # without memory, AMSGrad divides 2 by the 4 that came before
    (fastadam.Adam, {"lr": 0.2, "eps": 0, "betas": (0, 0), "amsgrad": True}, 1.0, [4.0, 2.0], [0.8, 0.7]),
    # 2 · (1 - 0.1 · 0.5) - 0.1
    (fastadam.AdamW, {"lr": 0.1, "eps": 0, "weight_decay": 0.5}, 2.0, [3.0], [1.8]),
    # m = -1.5, -0.75; u = 3, 1.5; the corrections 0.5, 0.75
    (fastadam.Adamax, {"lr": 0.3, "eps": 0, "betas": (0.5, 0.5)}, 1.0, [-3.0, 0.0], [1.3, 1.5]),
    (fastadam.Adamax, {"lr": 0.4, "eps": 1, "betas": (0.5, 0.5)}, 1.0, [3.0], [0.7]),
    # with eps = 0, a gradient of any size moves by the rate at first
    (fastadam.Adamax, {"lr": 0.3, "eps": 0}, 1.0, [-1e-30], [1.3]),
    (fastadam.Adam, {"lr": 0.3, "eps": 0}, 1.0, [1e-30], [0.7]),
    # the sides of a right triangle: 3/3, then 4/5, the second at half the rate
    (fastadam.Adagrad, {"lr": 0.5, "eps": 0}, 1.0, [3.0, 4.0], [0.5, 0.1]),
    (fastadam.Adagrad, {"lr": 0.5, "eps": 0, "lr_decay": 1}, 1.0, [3.0, 4.0], [0.5, 0.3]),
    (fastadam.Adagrad, {"lr": 0.5, "eps": 1, "initial_accumulator_value": 16}, 1.0, [3.0], [0.75]),
    # v = 4
    (fastadam.RMSprop, {"lr": 0.1, "alpha": 0.75, "eps": 2}, 1.0, [4.0], [0.9]),
    (fastadam.RMSprop, {"lr": 0.1, "alpha": 0.75, "eps": 12, "eps_in_sqrt": True}, 1.0, [4.0], [0.9]),
    # v = 8, m = 2, v - m² = 4
    (fastadam.RMSprop, {"lr": 0.1, "alpha": 0.5, "eps": 0, "centered": True}, 1.0, [4.0], [0.8]),
    # b = 8/4, then half of it
    (fastadam.RMSprop, {"lr": 0.1, "alpha": 0.75, "eps": 0, "momentum": 0.5}, 1.0, [8.0, 0.0], [0.8, 0.7]),
    # the step is 3/4 · √1 / √(9/16 + 1) = 0.6, then √(0.6² + 1) times that, and each counts half
    (fastadam.Adadelta, {"lr": 0.5, "rho": 0, "eps": 1}, 1.0, [0.75, 0.75], [0.7, 0.7 - 0.3 * 1.16619037896906]),
]


@each_backend
@pytest.mark.parametrize(
    ("optimizer", "options", "theta", "gradients", "expected"),
    BY_HAND,
    ids=[f"{optimizer.__name__}-{options}" for optimizer, options, *_ in BY_HAND],
)
def test_steps_by_hand(optimizer, options, theta, gradients, expected, backend: str) -> None:
    moved = follow(optimizer, np.array(theta), [np.array(g) for g in gradients], backend=backend, **options)
    # Numbers such as 0.7 have no exact float, and √1.36 above is given to 15 places.
    np.testing.assert_allclose(moved, expected, rtol=0, atol=4 * EPS)


# ---------------------------------------------------------------- the article's face


class Bowl:
    """An instance as the article has it; its gradient pulls θ to 0, unsteadily."""

    def __init__(self, theta: Any, seed: int = 0) -> None:
        self.parameters = theta
        self.rng = np.random.default_rng(seed)
        self.zero_grad()

    def zero_grad(self) -> None:
        self.grad = np.zeros_like(self.parameters)

    def calc_grad(self) -> None:
        self.grad = self.grad + self.parameters + self.rng.standard_normal(np.shape(self.parameters))


class Literal:
    """An algorithm as its formula reads: options and states are attributes, `move` returns the new θ."""

    def __init__(self, **options: Any) -> None:
        self.m = self.v = 0.0
        self.timestep = 0
        self.__dict__.update(options)


class LiteralAdam(Literal):
    def move(self, theta, g):
        self.timestep += 1
        self.beta1 = self.beta1 * self.beta_decay
        self.beta2 = self.beta2 * self.beta_decay
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        rate = self.alpha / np.sqrt(self.timestep) if self.alpha_decay else self.alpha
        rate = rate * np.sqrt(1 - self.beta2**self.timestep) / (1 - self.beta1**self.timestep)
        return theta - rate * self.m / (np.sqrt(self.v) + self.epsilon)


class LiteralAdaGrad(Literal):
    def move(self, theta, g):
        self.v = self.v + g**2
        return theta - self.alpha / (np.sqrt(self.v) + self.epsilon) * g


class LiteralRMSprop(Literal):
    def move(self, theta, g):
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        return theta - self.alpha / np.sqrt(self.v + self.epsilon) * g


class LiteralAdaDelta(Literal):
    def move(self, theta, g):
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        change = -self.alpha * np.sqrt(self.m + self.epsilon) / np.sqrt(self.v + self.epsilon) * g
        self.m = self.beta1 * self.m + (1 - self.beta1) * change**2
        return theta + change


class LiteralAdaMax(Literal):
    def move(self, theta, g):
        self.timestep += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = np.maximum(self.beta2 * self.v, np.abs(g))
        return theta - self.alpha / (1 - self.beta1**self.timestep) * self.m / self.v


#: how each option of the article's classes is drawn
DRAW: dict[str, Callable[[np.random.Generator], Any]] = {
    "alpha": lambda rng: 10 ** rng.uniform(-4, 0),
    "beta1": lambda rng: rng.uniform(0, 0.99),
    "beta2": lambda rng: 1 - 10 ** rng.uniform(-4, 0),
    "epsilon": lambda rng: 10 ** rng.uniform(-12, 0),
    "beta_decay": lambda rng: rng.choice([1.0, rng.uniform(0.9, 1)]),
    "alpha_decay": lambda rng: bool(rng.integers(2)),
}
ADAM_OPTIONS = tuple(DRAW)
#: the article's class, its literal version, its options, its states, the largest error in units of θ's last place
FACES = {
    "Adam": (article.Adam, LiteralAdam, ADAM_OPTIONS, "mv", 0),  # the same operations in the same order
    # The others divide before they multiply: v and m round elsewhere in each of 20 steps.
    "AdaGrad": (article.AdaGrad, LiteralAdaGrad, ("alpha", "epsilon"), "v", 20),
    "RMSprop": (article.RMSprop, LiteralRMSprop, ("alpha", "beta2", "epsilon"), "v", 20),
    "AdaDelta": (article.AdaDelta, LiteralAdaDelta, ("alpha", "beta1", "beta2", "epsilon"), "mv", 20),
    "AdaMax": (article.AdaMax, LiteralAdaMax, ("alpha", "beta1", "beta2"), "mv", 20),
}
each_face = pytest.mark.parametrize("name", FACES)


def draw(names: tuple[str, ...], rng: np.random.Generator) -> dict[str, Any]:
    return {name: DRAW[name](rng) for name in names}


def step_beside(bowl: Bowl, optimizer: Any, literal: Literal) -> tuple[np.ndarray, np.ndarray]:
    """One step of the optimizer: the parameters before it, and what the literal version makes of them."""
    optimizer.zero_grad()
    bowl.calc_grad()
    before = np.array(bowl.parameters, float)
    expected = literal.move(before, bowl.grad)
    optimizer.step()
    return before, expected


@each_face
def test_article_class_is_its_formula_on_random_options(name: str) -> None:
    face, literal_class, names, _, units = FACES[name]
    rng = np.random.default_rng(1)
    for seed in range(300):
        options = draw(names, rng)
        bowl = Bowl(rng.uniform(-10, 10, (2, 3)), seed)
        optimizer, literal = face(bowl, **options), literal_class(**options)
        for t in range(1, 21):
            before, expected = step_beside(bowl, optimizer, literal)
            allowed = units * EPS * np.maximum(np.abs(before), np.abs(expected))
            assert (np.abs(bowl.parameters - expected) <= allowed).all(), f"step {t} with {options}"


@each_face
def test_states_that_a_script_kept_are_not_overwritten(name: str) -> None:
    face, literal_class, names, states, _ = FACES[name]
    options = draw(names, np.random.default_rng(2))
    bowl = Bowl(np.array([3.0, -4.0]))
    optimizer, literal = face(bowl, **options), literal_class(**options)
    kept, expected = [], []
    for _ in range(10):
        step_beside(bowl, optimizer, literal)
        kept.append([getattr(optimizer, state) for state in states])
        expected.append([getattr(literal, state) for state in states])
    # A weighted sum of ten terms, each product and sum rounded once; in another order for all but Adam.
    np.testing.assert_allclose(kept, expected, rtol=20 * EPS)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.01},
        {"beta1": 0.2},
        {"beta2": 0.5},
        {"epsilon": 0.5},
        {"beta_decay": 0.9},
        {"alpha_decay": False},
        {"timestep": 0, "m": 0.0, "v": 0.0},
        {"m": np.array([1.0, 2.0]), "v": np.array([3.0, 0.5])},
    ],
    ids=", ".join,
)
def test_attributes_changed_between_steps_take_effect(changes: dict[str, Any]) -> None:
    options = {"alpha": 0.3, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-3, "beta_decay": 0.999, "alpha_decay": True}
    bowl = Bowl(np.array([3.0, -4.0]))
    optimizer, literal = article.Adam(bowl, **options), LiteralAdam(**options)
    for t in range(10):
        if t == 5:
            for name, value in changes.items():
                setattr(optimizer, name, value)
                setattr(literal, name, value)
        _, expected = step_beside(bowl, optimizer, literal)
        assert np.array_equal(bowl.parameters, expected)


@pytest.mark.parametrize("state", ["m", "v"])
def test_state_changed_in_place_takes_effect(state: str) -> None:
    options = draw(ADAM_OPTIONS, np.random.default_rng(3))
    bowl = Bowl(np.array([3.0, -4.0]))
    optimizer, literal = article.Adam(bowl, **options), LiteralAdam(**options)
    step_beside(bowl, optimizer, literal)
    for each in (optimizer, literal):
        getattr(each, state)[0] = 5.0
    _, expected = step_beside(bowl, optimizer, literal)
    assert np.array_equal(bowl.parameters, expected)


@each_face
def test_parameters_replaced_between_steps_are_followed(name: str) -> None:
    face, literal_class, names, _, units = FACES[name]
    options = draw(names, np.random.default_rng(4))
    first = np.array([3.0, -4.0])
    bowl = Bowl(first)
    optimizer, literal = face(bowl, **options), literal_class(**options)
    step_beside(bowl, optimizer, literal)
    left = first.copy()
    bowl.parameters = np.array([7.0, 8.0])
    before, expected = step_beside(bowl, optimizer, literal)
    assert np.array_equal(first, left)
    assert (np.abs(bowl.parameters - expected) <= units * EPS * np.abs(before)).all()


@pytest.mark.parametrize("theta", [3.0, 3, np.float64(3), np.array(3.0)], ids=lambda theta: type(theta).__name__)
def test_parameters_may_be_a_number(theta: Any) -> None:
    options = draw(ADAM_OPTIONS, np.random.default_rng(5))
    bowl = Bowl(theta)
    optimizer, literal = article.Adam(bowl, **options), LiteralAdam(**options)
    for _ in range(10):
        _, expected = step_beside(bowl, optimizer, literal)
        assert bowl.parameters == expected
    assert isinstance(bowl.parameters, np.ndarray if isinstance(theta, np.ndarray) else float)
    assert (bowl.parameters is theta) is isinstance(theta, np.ndarray)


def test_article_adamax_stays_where_there_was_no_gradient() -> None:
    bowl = Bowl(np.ones(2))
    bowl.grad = np.array([0.0, 3.0])
    article.AdaMax(bowl, alpha=0.5).step()
    assert bowl.parameters.tolist() == [1.0, 0.5]


def test_attributes_are_those_of_the_article() -> None:
    optimizer = article.Adam(Bowl(np.ones(2)))
    defaults = {"alpha": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "beta_decay": 1.0, "alpha_decay": False}
    states = {"m": 0.0, "v": 0.0, "timestep": 0}
    assert {name: getattr(optimizer, name) for name in defaults | states} == defaults | states


def test_a_number_may_be_reset_to_the_object_that_it_was() -> None:
    start = 3.0
    bowl = Bowl(start)
    optimizer = article.Adam(bowl, alpha=0.5, epsilon=0)
    bowl.grad = np.array(1.0)
    optimizer.step()
    bowl.parameters = start
    optimizer.step()
    assert bowl.parameters == pytest.approx(2.5, rel=4 * EPS)


SHARED = {  # the parameters and their gradient in the memory of an array
    "itself": lambda x: (x, x),
    "view": lambda x: (x, x[:]),
    "flipped": lambda x: (x, x[::-1]),
    "two views": lambda x: (x[:], x[::-1]),
    "shifted": lambda x: (x[1:], x[:-1]),
    "parameters that are a view of the gradient": lambda x: (x[::-1], x),
    "a buffer": lambda x: (np.frombuffer(x.data), np.frombuffer(x.data)[::-1]),
}


@pytest.mark.parametrize("shared", SHARED)
def test_gradient_may_be_the_parameters_own_memory(shared: str) -> None:
    bowl, apart = Bowl(np.zeros(3)), Bowl(np.zeros(3))
    for each in (bowl, apart):
        each.parameters, each.grad = SHARED[shared](np.array([3.0, -4.0, 5.0]))
    apart.grad = apart.grad.copy()
    for each in (bowl, apart):
        article.Adam(each, alpha=0.5).step()
    assert np.array_equal(bowl.parameters, apart.parameters)


def test_initialize_paras_forgets() -> None:
    bowl = Bowl(np.array([3.0, -4.0]))
    bowl.grad = np.array([1.0, 2.0])
    optimizer = article.Adam(bowl, alpha=0.5)
    optimizer.step()
    optimizer.initialize_paras()
    assert (optimizer.timestep, optimizer.m, optimizer.v) == (0, 0.0, 0.0)
    optimizer.step()
    assert np.array_equal(optimizer.m, (1 - 0.9) * bowl.grad)


def test_a_shallow_copy_has_states_of_its_own() -> None:
    bowl = Bowl(np.array([3.0, -4.0]))
    bowl.grad = np.array([1.0, 2.0])
    optimizer = article.Adam(bowl, alpha=0.5)
    optimizer.step()
    copy.copy(optimizer).step()
    assert np.array_equal(optimizer.m, (1 - 0.9) * bowl.grad)  # that of its one step


def test_article_optimizer_can_be_copied() -> None:
    bowl = Bowl(np.array([3.0, -4.0]))
    bowl.grad = np.array([1.0, 2.0])
    optimizer = article.Adam(bowl, alpha=0.5)
    optimizer.step()
    other = copy.deepcopy(optimizer)
    for each in (optimizer, other):
        each.step()
    assert other.instance.parameters is not bowl.parameters
    assert np.array_equal(other.instance.parameters, bowl.parameters)
