"""Lion, AdEMAMix, ADOPT and Schedule-Free: against literal versions of their papers, and against optax if it is
installed, as for SGD, NAdam and RAdam. Also their steps, and those of similar optimizers, with gradients of 0, NaN and
infinity.
optax has no ASGD, and its Rprop does each step one call later. adapters/test_torch.py compares torch's.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.rules import power_sum

if importlib.util.find_spec("optax") is not None:
    import jax
    import optax

needs_optax = pytest.mark.skipif(importlib.util.find_spec("optax") is None, reason="optax is not installed")
each_backend = pytest.mark.parametrize("backend", ["cython", "numpy"])

EPS = np.finfo(float).eps
STEPS = 60
START = np.linspace(-2, 2, 12)
Trajectory = Iterator[np.ndarray]


def gradient(theta: np.ndarray, t: int) -> np.ndarray:
    """A pull to 0, of another size in each element, and noise; it hangs on θ, so that a mistake carries on."""
    noise = np.random.default_rng(t).standard_normal(theta.shape)
    return np.logspace(-3, 2, theta.size) * (0.3 * theta + noise)


# ---------------------------------------------------------------- the sources, letter by letter


def lion(theta, eta, beta1, beta2, lam=0.0) -> Trajectory:
    """Chen et al., Algorithm 2, whose decay is that of the parameter before the step."""
    m = np.zeros_like(theta)
    for t in range(1, STEPS + 1):
        g = gradient(theta, t)
        c = beta1 * m + (1 - beta1) * g
        theta = theta - eta * (np.sign(c) + lam * theta)
        m = beta2 * m + (1 - beta2) * g
        yield theta


def ademamix(theta, eta, beta1, beta2, beta3, alpha, eps, lam=0.0, t_alpha=0, t_beta3=0) -> Trajectory:
    """Pagliardini et al., Algorithm 1, with the schedulers of its section 3."""
    m1 = m2 = nu = np.zeros_like(theta)
    for t in range(1, STEPS + 1):
        g = gradient(theta, t)
        now, a = beta3, min(t * alpha / t_alpha, alpha) if t_alpha else alpha
        if t < t_beta3:
            first, last, part = math.log(beta1), math.log(beta3), t / t_beta3
            now = min(math.exp(first * last / ((1 - part) * last + part * first)), beta3)
        m1 = beta1 * m1 + (1 - beta1) * g
        m2 = now * m2 + (1 - now) * g
        nu = beta2 * nu + (1 - beta2) * g**2
        m1_hat, nu_hat = m1 / (1 - beta1**t), nu / (1 - beta2**t)
        theta = theta - eta * ((m1_hat + a * m2) / (np.sqrt(nu_hat) + eps) + lam * theta)
        yield theta


def adopt(theta, alpha, beta1, beta2, eps, clipped=True, l2=0.0, decay=0.0) -> Trajectory:
    """Taniguchi et al., Algorithm 2: v begins as the first squared gradient; c_t is the fourth root of t."""
    m = np.zeros_like(theta)
    v = (gradient(theta, 1) + l2 * theta) ** 2
    theta = theta * (1 - alpha * decay)  # the authors' code has no decay in this step
    yield theta
    for t in range(1, STEPS):
        g = gradient(theta, t + 1) + l2 * theta
        u = g / np.maximum(np.sqrt(v), eps)
        u = np.clip(u, -(t**0.25), t**0.25) if clipped else u
        m = beta1 * m + (1 - beta1) * u
        theta = theta * (1 - alpha * decay) - alpha * m
        v = beta2 * v + (1 - beta2) * g**2
        yield theta


def schedule_free(theta, gamma, beta1, beta2, eps, lam=0.0, warmup=0, r=0.0, power=2.0) -> Trajectory:
    """Defazio et al., Algorithm 1, with weights as in the authors' AdamWScheduleFree: y, and below it x."""
    y = z = x = theta
    v, weights = np.zeros_like(theta), 0.0
    for t in range(1, STEPS + 1):
        rate = gamma * min(1, t / warmup) if warmup else gamma
        g = gradient(y, t)
        v = beta2 * v + (1 - beta2) * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - beta2**t)) + eps) + lam * y)
        weight = t**r * rate**power
        weights += weight
        x = (1 - weight / weights) * x + weight / weights * z
        y = (1 - beta1) * z + beta1 * x
        yield np.stack([y, x])


LION, OUR_LION = {"eta": 0.01, "beta1": 0.8, "beta2": 0.95}, {"lr": 0.01, "betas": (0.8, 0.95)}
MIX = {"eta": 0.02, "beta1": 0.8, "beta2": 0.95, "beta3": 0.99, "alpha": 3, "eps": 0.01}
OUR_MIX = {"lr": 0.02, "betas": (0.8, 0.95, 0.99), "alpha": 3, "eps": 0.01}
ADOPT = {"alpha": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 0.01}
FREE = {"gamma": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 0.01}
OURS = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.01}

#: the literal version and its options, the optimizer and its options
SOURCES: dict[str, tuple[Callable[..., Trajectory], dict, type[fastadam.Optimizer], dict]] = {
    "Lion": (lion, LION, fastadam.Lion, OUR_LION),
    "Lion's defaults": (lion, {"eta": 1e-4, "beta1": 0.9, "beta2": 0.99}, fastadam.Lion, {}),
    "Lion, decay": (lion, LION | {"lam": 0.3}, fastadam.Lion, OUR_LION | {"weight_decay": 0.3}),
    "Lion, betas of 0": (lion, LION | {"beta1": 0, "beta2": 0}, fastadam.Lion, OUR_LION | {"betas": (0, 0)}),
    "AdEMAMix": (ademamix, MIX, fastadam.AdEMAMix, OUR_MIX),
    "AdEMAMix's defaults": (
        ademamix,
        {"eta": 1e-3, "beta1": 0.9, "beta2": 0.999, "beta3": 0.9999, "alpha": 5, "eps": 1e-8},
        fastadam.AdEMAMix,
        {},
    ),
    "AdEMAMix, decay": (ademamix, MIX | {"lam": 0.3}, fastadam.AdEMAMix, OUR_MIX | {"weight_decay": 0.3}),
    "AdEMAMix, α warms up": (ademamix, MIX | {"t_alpha": 20}, fastadam.AdEMAMix, OUR_MIX | {"alpha_warmup": 20}),
    "AdEMAMix, β₃ warms up": (ademamix, MIX | {"t_beta3": 25}, fastadam.AdEMAMix, OUR_MIX | {"beta3_warmup": 25}),
    "AdEMAMix, both warm up, to the end": (
        ademamix,
        MIX | {"t_alpha": STEPS, "t_beta3": STEPS, "lam": 0.1},
        fastadam.AdEMAMix,
        OUR_MIX | {"alpha_warmup": STEPS, "beta3_warmup": STEPS, "weight_decay": 0.1},
    ),
    "ADOPT": (adopt, ADOPT, fastadam.ADOPT, OURS),
    "ADOPT's defaults": (adopt, {"alpha": 1e-3, "beta1": 0.9, "beta2": 0.9999, "eps": 1e-6}, fastadam.ADOPT, {}),
    "ADOPT, unclipped": (adopt, ADOPT | {"clipped": False}, fastadam.ADOPT, OURS | {"use_clipping": False}),
    "ADOPT, L2": (adopt, ADOPT | {"l2": 0.3}, fastadam.ADOPT, OURS | {"weight_decay": 0.3}),
    "ADOPT, decoupled decay": (
        adopt,
        ADOPT | {"decay": 0.3},
        fastadam.ADOPT,
        OURS | {"weight_decay": 0.3, "decoupled_weight_decay": True},
    ),
    "Schedule-Free": (schedule_free, FREE, fastadam.ScheduleFreeAdamW, OURS),
    "Schedule-Free's defaults": (
        schedule_free,
        {"gamma": 2.5e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        fastadam.ScheduleFreeAdamW,
        {},
    ),
    "Schedule-Free, decay": (
        schedule_free,
        FREE | {"lam": 0.3},
        fastadam.ScheduleFreeAdamW,
        OURS | {"weight_decay": 0.3},
    ),
    "Schedule-Free, warm-up": (
        schedule_free,
        FREE | {"warmup": 20},
        fastadam.ScheduleFreeAdamW,
        OURS | {"warmup_steps": 20},
    ),
    "Schedule-Free, r": (schedule_free, FREE | {"r": 0.5}, fastadam.ScheduleFreeAdamW, OURS | {"r": 0.5}),
    "Schedule-Free, all weights equal": (
        schedule_free,
        FREE | {"warmup": 30, "power": 0},
        fastadam.ScheduleFreeAdamW,
        OURS | {"warmup_steps": 30, "weight_lr_power": 0},
    ),
    "Schedule-Free, everything": (
        schedule_free,
        FREE | {"warmup": 25, "r": 1.5, "power": 1.5, "lam": 0.1},
        fastadam.ScheduleFreeAdamW,
        OURS | {"warmup_steps": 25, "r": 1.5, "weight_lr_power": 1.5, "weight_decay": 0.1},
    ),
    "Schedule-Free, β₁ = 0": (
        schedule_free,
        FREE | {"beta1": 0},
        fastadam.ScheduleFreeAdamW,
        OURS | {"betas": (0, 0.95)},
    ),
}


def follow(optimizer: type[fastadam.Optimizer], **options: Any) -> np.ndarray:
    """The parameter after each step, and below it the average where the optimizer has one."""
    theta = START.copy()
    opt = optimizer(theta, **options)
    trajectory = []
    for t in range(1, STEPS + 1):
        opt.step(gradient(theta, t))
        trajectory.append(np.stack([theta, opt.state["x"][0]]) if "x" in opt.state else theta.copy())
    return np.stack(trajectory)


def assert_close(actual: np.ndarray, expected: np.ndarray, ulps: float = STEPS) -> None:
    """The other side orders its operations in another way: one unit in the last place for each step."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ulps * EPS * np.abs(expected).max())


@each_backend
@pytest.mark.parametrize("name", SOURCES)
def test_optimizer_is_its_source(name: str, backend: str) -> None:
    literal, literal_options, optimizer, options = SOURCES[name]
    expected = np.stack(list(literal(START, **literal_options)))
    assert_close(follow(optimizer, backend=backend, **options), expected)


# ---------------------------------------------------------------- optax


def part(count: Any, steps: int) -> Any:
    """How much of a warm-up is done; optax counts from 0, in 32 bits."""
    return jax.numpy.minimum(1.0, (count + 1.0).astype(float) / steps)


def warm_beta3(count: Any) -> Any:
    done = part(count, 25)
    return jax.numpy.exp(1 / ((1 - done) / math.log(0.8) + done / math.log(0.99)))


def free_with_warmup() -> Any:
    """The warm-up of optax's schedule_free_adamw begins with a rate of 0, the authors' with a first part of it."""
    steps = optax.chain(
        optax.scale_by_rms(0.95, 0.01, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(0.3),
        optax.scale_by_learning_rate(lambda count: 0.05 * part(count, 20)),
    )
    return optax.contrib.schedule_free(steps, lambda t: 0.05 * part(t - 1, 20), b1=0.8)


BETAS = {"b1": 0.8, "b2": 0.95}
#: optax's optimizer, made when it is asked for; the optimizer and its options
OPTAX: dict[str, tuple[Callable[[], Any], type[fastadam.Optimizer], dict]] = {
    "lion": (lambda: optax.lion(0.01, **BETAS, weight_decay=0.3), fastadam.Lion, OUR_LION | {"weight_decay": 0.3}),
    "ademamix": (
        lambda: optax.contrib.ademamix(0.02, **BETAS, b3=0.99, alpha=3, eps=0.01, weight_decay=0.3),
        fastadam.AdEMAMix,
        OUR_MIX | {"weight_decay": 0.3},
    ),
    "ademamix, warming up": (
        lambda: optax.contrib.ademamix(0.02, **BETAS, b3=warm_beta3, alpha=lambda count: 3 * part(count, 20), eps=0.01),
        fastadam.AdEMAMix,
        OUR_MIX | {"alpha_warmup": 20, "beta3_warmup": 25},
    ),
    "adopt": (lambda: optax.contrib.adopt(0.05, **BETAS, eps=0.01), fastadam.ADOPT, OURS),
    "adopt, unclipped": (
        lambda: optax.contrib.adopt(0.05, **BETAS, eps=0.01, use_clipping=False),
        fastadam.ADOPT,
        OURS | {"use_clipping": False},
    ),
    "schedule_free_adamw": (
        lambda: optax.contrib.schedule_free_adamw(0.05, **BETAS, eps=0.01, weight_decay=0.3),
        fastadam.ScheduleFreeAdamW,
        OURS | {"weight_decay": 0.3},
    ),
    "schedule_free, warming up": (
        free_with_warmup,
        fastadam.ScheduleFreeAdamW,
        OURS | {"weight_decay": 0.3, "warmup_steps": 20},
    ),
    "sgd": (lambda: optax.sgd(0.01), fastadam.SGD, {"lr": 0.01}),
    "sgd, momentum": (lambda: optax.sgd(0.01, 0.8), fastadam.SGD, {"lr": 0.01, "momentum": 0.8}),
    "sgd, nesterov": (
        lambda: optax.sgd(0.01, 0.8, nesterov=True),
        fastadam.SGD,
        {"lr": 0.01, "momentum": 0.8, "nesterov": True},
    ),
    # optax has no momentum decay, as if μ were β₁ from the first step on: so it is here, once 0.96**momentum_decay is 0
    "nadam": (
        lambda: optax.nadam(0.05, **BETAS, eps=0.01),
        fastadam.NAdam,
        OURS | {"momentum_decay": 1e5},
    ),
    # optax adds eps after the correction of v, torch before it: so it is left out
    "radam": (
        lambda: optax.radam(0.05, **BETAS, eps=0),
        fastadam.RAdam,
        OURS | {"eps": 0},
    ),
}


@needs_optax
@pytest.mark.parametrize("name", OPTAX)
def test_optimizer_is_optaxs(name: str) -> None:
    make, optimizer, options = OPTAX[name]
    with jax.enable_x64(True):
        theirs, theta = make(), jax.numpy.asarray(START)
        state, trajectory = theirs.init(theta), []
        for t in range(1, STEPS + 1):
            updates, state = theirs.update(jax.numpy.asarray(gradient(np.asarray(theta), t)), state, theta)
            theta = optax.apply_updates(theta, updates)
            average = [optax.contrib.schedule_free_eval_params(state, theta)] if hasattr(state, "z") else []
            trajectory.append(np.stack([theta, *average]) if average else np.asarray(theta))
    assert theta.dtype == np.float64
    # where optax computes x from y and z, it magnifies an error by 1 / β₁; its powers come from another library
    assert_close(follow(optimizer, **options), np.stack(trajectory), 4 * STEPS)


# ---------------------------------------------------------------- the sum of weights


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 100, 5000])
def test_power_sum_is_the_exact_sum(n: int, power: float) -> None:
    exact = float(sum(Fraction(k**power) for k in range(1, n + 1)))
    assert power_sum(float(n), power) == pytest.approx(exact, rel=2e-14, abs=0)


# ---------------------------------------------------------------- what is no usual gradient

#: each optimizer with options under which every state shows
FAMILY: dict[str, tuple[type[fastadam.Optimizer], dict]] = {
    "sgd": (fastadam.SGD, {"lr": 0.1}),
    "sgd_momentum": (fastadam.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd_nesterov": (fastadam.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "nadam": (fastadam.NAdam, {}),
    "radam": (fastadam.RAdam, {}),
    "asgd": (fastadam.ASGD, {"lambd": 0}),
    "rprop": (fastadam.Rprop, {}),
    "lion": (fastadam.Lion, {}),
    "ademamix": (fastadam.AdEMAMix, {}),
    "adopt": (fastadam.ADOPT, {}),
    "schedule_free": (fastadam.ScheduleFreeAdamW, {}),
}
each_member = pytest.mark.parametrize("name", FAMILY)


def last(name: str, theta: float, gradients: list[float], **more: Any) -> float:
    """The parameter after these gradients, beside another one, which must not hear of them."""
    optimizer, options = FAMILY[name]
    both = np.array([theta, 1.0])
    opt = optimizer(both, **options | more)
    for g in gradients:
        opt.step(np.array([g, 0.5]))
    assert np.isfinite(both[1])
    return float(both[0])


@each_member
@each_backend
def test_no_gradient_no_step(name: str, backend: str) -> None:
    for theta in (-2.0, 0.0, 3.0):
        assert last(name, theta, [0.0] * 12, backend=backend) == theta


@each_member
@each_backend
def test_nan_stays(name: str, backend: str) -> None:
    """A parameter that is lost shows it, whatever comes next."""
    assert math.isnan(last(name, 1.0, [0.5, 0.5, math.nan], backend=backend))
    assert math.isnan(last(name, 1.0, [0.5, math.nan, 0.5, 0.5], backend=backend))


#: the parameter, begun as 0, after the gradients 1, infinity and 1
AFTER_INFINITY = {
    "sgd": -math.inf,
    "sgd_momentum": -math.inf,
    "sgd_nesterov": -math.inf,
    "radam": -math.inf,  # its first steps are those of momentum
    "asgd": -math.inf,
    "rprop": -0.01 - 0.012 - 0.0144,  # its sign is a sign
    "lion": -3e-4,
}


@each_member
@each_backend
def test_infinity_is_what_the_formula_makes_of_it(name: str, backend: str) -> None:
    """Where it is divided by its own square, the step is NaN."""
    found = last(name, 0.0, [1.0, math.inf, 1.0], backend=backend)
    if name in AFTER_INFINITY:
        assert found == pytest.approx(AFTER_INFINITY[name], rel=1e-15)
    elif name == "adopt":
        # u is clipped to 1, then 1 / infinity
        assert found == pytest.approx(-1e-3 * (0.1 + 0.09), rel=1e-14)
    else:
        assert math.isnan(found)


def test_betas_of_zero_are_the_last_gradient_alone() -> None:
    """Then m = g and √v = |g|: most steps are the rate, ADOPT's the ratio of two gradients."""
    none = {"lr": 0.1, "betas": (0, 0)}
    gradients = [3.0, -7.0, 1e-3]
    assert last("lion", 0.0, gradients, **none) == pytest.approx(-0.1)
    assert last("ademamix", 0.0, gradients, **none | {"betas": (0, 0, 0), "eps": 0}) == pytest.approx(-0.1 * 6)
    assert last("schedule_free", 0.0, gradients, **none | {"eps": 0}) == pytest.approx(-0.1)
    assert last("nadam", 0.0, gradients, **none | {"eps": 0}) == pytest.approx(-0.1)
    assert last("radam", 0.0, gradients, **none) == pytest.approx(-0.1 * sum(gradients))  # v cannot be told
    assert last("adopt", 0.0, gradients, **none) == pytest.approx(-0.1 * (-1 + 1e-3 / 7))  # -7 / 3 is clipped


@pytest.mark.parametrize("optimizer", [fastadam.NAdam, fastadam.RAdam])
def test_corrections_hold_after_very_many_steps(optimizer) -> None:
    """A step of a constant gradient is the rate, once the means have come there, and μ of NAdam nearly."""
    theta = np.zeros(1)
    opt = optimizer(theta, lr=1e-3)
    for _ in range(30_000):
        before = theta.copy()
        opt.step(np.ones(1))
    np.testing.assert_allclose(before - theta, 1e-3, rtol=1e-6)
