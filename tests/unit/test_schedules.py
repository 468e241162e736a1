"""Learning-rate schedules: against their formulas, and against torch and optax if they are installed.
Then schedules as objects (equality, pickles, JSON), the text of each error, their use in optimizers, and the example.
"""

import copy
import importlib.util
import inspect
import json
import pickle
import re
from itertools import groupby
from math import inf, nan, pi, prod

import drawn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inside import options
from places import ROOT

import fastadam
from fastadam import schedules
from fastadam.optimizers import CLASSES
from fastadam.schedule import DEEPEST, MOST, SCHEDULES
from fastadam.schedules import (
    constant,
    cosine,
    exponential,
    from_json,
    inverse_sqrt,
    join,
    linear,
    one_cycle,
    polynomial,
    product,
    schedule,
    step,
    warmup,
)

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_OPTAX = importlib.util.find_spec("optax") is not None
if HAS_TORCH:
    import torch
    from torch.optim import lr_scheduler
if HAS_OPTAX:
    import jax
    import optax

EXAMPLE = ROOT / "examples/schedules.py"
PAGE = ROOT / "docs/how-to/schedules.md"
BUILT_IN = [name for name, factory in SCHEDULES.items() if factory.formula.__module__ == "fastadam.schedules"]
#: but for the one that follows a loss, which has tests of its own
OF_T = [name for name in BUILT_IN if name != "plateau"]
SEEDS = range(5)
N = 300  # steps of a comparison


def random_numbers(seed):
    """Arguments for a schedule that ends within N steps."""
    rng = np.random.default_rng(seed)
    return {
        "lr": float(10 ** rng.uniform(-4, 1)),
        "other": float(rng.uniform(0.01, 0.99)),  # of the rate
        "steps": int(rng.integers(20, N - 50)),
        "factor": float(rng.uniform(0.9, 1.01)),
        "every": int(rng.integers(1, 60)),
        "power": float(rng.uniform(0.3, 4)),
        "div": float(rng.uniform(2, 50)),
        "final_div": float(rng.uniform(2, 1e4)),
        "warmup": float(rng.uniform(0.1, 0.9)),
    }


def ours(name, lr, other, steps, factor, every, power, div, final_div, warmup):
    """The schedule `name` with these of the arguments."""
    return {
        "constant": lambda: constant(lr),
        "linear": lambda: linear(other * lr, lr, steps),
        "warmup": lambda: schedules.warmup(lr, steps, start=other * lr),
        "cosine": lambda: cosine(lr, steps, final=other * lr),
        "polynomial": lambda: polynomial(lr, steps, power),
        "step": lambda: step(lr, every, factor),
        "exponential": lambda: exponential(lr, factor),
        "inverse_sqrt": lambda: inverse_sqrt(lr),
        "one_cycle": lambda: one_cycle(lr, steps, warmup, div, final_div),
        "join": lambda: join(
            [schedules.warmup(lr, every, start=other * lr), cosine(lr, steps), exponential(other * lr, factor)],
            [every, every + steps],
        ),
        "product": lambda: product(
            [schedules.warmup(1.0, steps, start=other), exponential(lr, factor), step(1.0, every, other)]
        ),
    }[name]()


def rates(rate, n=N):
    return np.array([rate(t) for t in range(1, n + 1)])


each_schedule = pytest.mark.parametrize("name", OF_T)
each_seed = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture
def case(name, seed):
    """A schedule of random arguments, and the arguments."""
    numbers = random_numbers(seed)
    return ours(name, **numbers), numbers


def literal(name, lr, other, steps, factor, every, power, div, final_div, warmup):
    """The definitions once more, for a whole array of t."""
    t = np.arange(1, N + 1)
    x = np.minimum((t - 1) / steps, 1)
    rise, peak = np.minimum((t - 1) / every, 1), warmup * steps
    up, down = (t - 1) / (peak - 1), np.minimum((t - peak) / (steps - peak), 1)
    y = np.clip((t - 1 - every) / steps, 0, 1)
    line = lr * (other + (1 - other) * x)
    return {
        "constant": lr + 0 * t,
        "linear": line,
        "warmup": line,
        "cosine": other * lr + (1 - other) * lr * (1 + np.cos(pi * x)) / 2,
        "polynomial": lr * (1 - x) ** power,
        "step": lr * np.repeat(factor ** np.arange(N), every)[:N],
        "exponential": lr * np.cumprod(np.r_[1, np.full(N - 1, factor)]),
        "inverse_sqrt": lr * t**-0.5,
        "one_cycle": np.where(
            t < peak,
            lr / div + (lr - lr / div) * (1 - np.cos(pi * up)) / 2,
            lr / div / final_div + (lr - lr / div / final_div) * (1 + np.cos(pi * down)) / 2,
        ),
        "join": np.select(
            [t <= every, t <= every + steps],
            [lr * (other + (1 - other) * rise), lr * (1 + np.cos(pi * y)) / 2],
            other * lr * factor ** (t - 1.0 - every - steps),
        ),
        "product": (other + (1 - other) * x) * lr * factor ** (t - 1) * other ** ((t - 1) // every),
    }[name]


# ---------------------------------------------------------------- the formulas


@each_schedule
@each_seed
def test_rates_are_those_of_the_definition(name, case):
    rate, numbers = case
    np.testing.assert_allclose(rates(rate), literal(name, **numbers), rtol=1e-12, atol=1e-15 * numbers["lr"])


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (constant(0.3), {1: 0.3, 2: 0.3, 10**12: 0.3}),
        (linear(0.5, 0.1, 4), {1: 0.5, 3: 0.3, 5: 0.1, 6: 0.1, 10**12: 0.1}),
        (linear(0.0, 0.7, 1), {1: 0.0, 2: 0.7, 3: 0.7}),
        (warmup(0.7, 10), {1: 0.0, 6: 0.35, 11: 0.7, 12: 0.7, 10**12: 0.7}),
        (warmup(0.7, 10, start=0.3), {1: 0.3, 6: 0.5, 11: 0.7, 12: 0.7}),
        (cosine(0.3, 10), {1: 0.3, 6: 0.15, 11: 0.0, 12: 0.0, 10**12: 0.0}),
        (cosine(0.3, 10, final=0.1), {1: 0.3, 6: 0.2, 11: 0.1, 12: 0.1}),
        (polynomial(0.3, 10), {1: 0.3, 6: 0.15, 11: 0.0, 12: 0.0, 10**12: 0.0}),
        (polynomial(0.3, 10, power=2, final=0.1), {1: 0.3, 6: 0.15, 11: 0.1, 12: 0.1}),
        (step(0.3, 10), {1: 0.3, 10: 0.3, 11: 0.03, 20: 0.03, 21: 0.003, 10**12: 0.0}),
        (step(0.3, 10, factor=0.0), {10: 0.3, 11: 0.0}),
        (exponential(0.3, 0.5), {1: 0.3, 2: 0.15, 3: 0.075, 10**12: 0.0}),
        (exponential(0.3, 2.0), {1: 0.3, 2: 0.6, 3: 1.2}),
        (inverse_sqrt(0.3), {1: 0.3, 9: 0.1, 10**12: 0.3e-6}),
        (one_cycle(0.5, 10), {1: 0.02, 2: 0.26, 3: 0.5, 10: 2e-6, 11: 2e-6, 10**12: 2e-6}),
        (one_cycle(0.5, 10, warmup=0.5, div=5, final_div=10), {1: 0.1, 3: 0.3, 5: 0.5, 10: 0.01, 11: 0.01}),
        (one_cycle(0.5, 10, warmup=0.1), {1: 0.5, 10: 2e-6}),  # where torch divides by zero
        (one_cycle(0.5, 1), {1: 2e-6, 2: 2e-6}),
        (join([constant(0.5), constant(0.25)], [3]), {1: 0.5, 3: 0.5, 4: 0.25, 10**12: 0.25}),
        (join([constant(0.5), linear(1.0, 0.0, 2), constant(0.25)], [3, 5]), {3: 0.5, 4: 1.0, 5: 0.5, 6: 0.25}),
        (join([cosine(0.3, 10)], []), {1: 0.3, 6: 0.15, 11: 0.0}),
        (product([constant(0.5), linear(1.0, 0.2, 2)]), {1: 0.5, 2: 0.3, 3: 0.1, 10**12: 0.1}),
        (product([step(0.3, 10)]), {10: 0.3, 11: 0.03}),
    ],
    ids=repr,
)
def test_ends_boundaries_and_what_comes_after(rate, expected):
    assert {t: rate(t) for t in expected} == {t: pytest.approx(value, rel=1e-14) for t, value in expected.items()}


@each_seed
def test_ends_are_exact(seed):
    """A rate that was asked for is that number to the bit, not the next one, and stays there."""
    a, b, n = 10 ** np.random.default_rng(seed).uniform(-9, 2, 2), 0.0, int(37 + seed)
    for start, end in (a, a[::-1], (a[0], b), (b, a[1]), (a[0], a[0])):
        made = [linear(start, end, n), warmup(end, n, start), cosine(start, n, end), polynomial(start, n, 0.7, end)]
        for rate in made:
            assert rate(1) == start
            assert rate(n + 1) == rate(n + 2) == rate(10**15) == end
    rate = one_cycle(a[0], 40, warmup=0.5)
    assert [rate(1), rate(20), rate(40), rate(41)] == [a[0] / 25, a[0], a[0] / 25 / 1e4, a[0] / 25 / 1e4]


@pytest.mark.parametrize(
    ("rate", "runs"),
    [
        (constant(0.3), [(0, 299)]),
        (linear(0.1, 0.3, 20), [(1, 20), (0, 279)]),
        (linear(0.3, 0.1, 20), [(-1, 20), (0, 279)]),
        (warmup(0.3, 20), [(1, 20), (0, 279)]),
        (cosine(0.3, 20), [(-1, 20), (0, 279)]),
        (cosine(0.1, 20, final=0.3), [(1, 20), (0, 279)]),
        (polynomial(0.3, 20, power=3), [(-1, 20), (0, 279)]),
        (polynomial(0.3, 20, power=0.3, final=0.1), [(-1, 20), (0, 279)]),
        (step(0.3, 100), [(0, 99), (-1, 1), (0, 99), (-1, 1), (0, 99)]),
        (exponential(0.3, 0.9), [(-1, 299)]),
        (exponential(0.3, 1.01), [(1, 299)]),
        (inverse_sqrt(0.3), [(-1, 299)]),
        (one_cycle(0.3, 100), [(1, 29), (-1, 70), (0, 200)]),
        (join([warmup(0.3, 20), cosine(0.3, 80)], [20]), [(1, 20), (-1, 80), (0, 199)]),
        (join([cosine(0.3, 20)] * 2, [20]), [(-1, 19), (1, 1), (-1, 20), (0, 259)]),
        (product([linear(0.3, 0.6, 20), step(1.0, 100, 0.5)]), [(1, 20), (0, 79), (-1, 1), (0, 99), (-1, 1), (0, 99)]),
    ],
    ids=repr,
)
def test_rises_and_falls_where_it_should(rate, runs):
    """Each run is a sign and for how many steps the rate changes so."""
    assert [(sign, len(list(run))) for sign, run in groupby(np.sign(np.diff(rates(rate))))] == runs


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (warmup(0.7, 9, 0.2), linear(0.2, 0.7, 9)),
        (exponential(0.7, 0.9), step(0.7, 1, 0.9)),
        (product([exponential(0.7, 0.9)]), exponential(0.7, 0.9)),
        (join([constant(0.7), constant(0.2)], [9]), step(0.7, 9, 0.2 / 0.7)),
        (product([constant(0.7), inverse_sqrt(1.0)]), inverse_sqrt(0.7)),
        (cosine(0.7, 19, 0.1), one_cycle(0.7, 20, 0.05, 7 / 1.5, 1.5)),
        (join([cosine(1.0, 5)] * 2, [5]), join([join([cosine(1.0, 5), cosine(1.0, 5)], [5])], [])),
    ],
    ids=repr,
)
def test_two_ways_to_the_same_rates(a, b):
    np.testing.assert_allclose(rates(a, 18), rates(b, 18), rtol=1e-13)


@each_schedule
@each_seed
def test_rates_are_floats_for_any_whole_number(name, case):
    rate, _ = case
    for t in (1, 7, 200):
        for kind in (int, np.int64, np.int8 if t < 128 else np.uint8, np.uint64):
            assert type(rate(kind(t))) is float
            assert rate(kind(t)) == rate(t)


# ---------------------------------------------------------------- torch


def torch_rates(name, lr, other, steps, factor, every, power, div, final_div, warmup):
    """The rates of torch's scheduler; for as long as it goes on, or until it does what ours does not."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)

    def line(steps):
        return lr_scheduler.LinearLR(optimizer, start_factor=other, total_iters=steps)

    def chain():
        stair = lr_scheduler.StepLR(optimizer, every, other)
        return lr_scheduler.ChainedScheduler([line(steps), lr_scheduler.ExponentialLR(optimizer, factor), stair])

    def sequence():
        parts = [line(every), lr_scheduler.CosineAnnealingLR(optimizer, steps), lr_scheduler.StepLR(optimizer, 10)]
        return lr_scheduler.SequentialLR(optimizer, parts, [every, every + steps])

    make, n = {
        "constant": (lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0), N),
        "linear": (lambda: line(steps), N),
        "warmup": (lambda: line(steps), N),
        "cosine": (lambda: lr_scheduler.CosineAnnealingLR(optimizer, steps, other * lr), steps + 1),
        "polynomial": (lambda: lr_scheduler.PolynomialLR(optimizer, steps, power), N),
        "step": (lambda: lr_scheduler.StepLR(optimizer, every, factor), N),
        "exponential": (lambda: lr_scheduler.ExponentialLR(optimizer, factor), N),
        "inverse_sqrt": (lambda: lr_scheduler.LambdaLR(optimizer, lambda k: (k + 1) ** -0.5), N),
        "one_cycle": (
            lambda: lr_scheduler.OneCycleLR(
                optimizer,
                lr,
                steps,
                pct_start=warmup,
                div_factor=div,
                final_div_factor=final_div,
                cycle_momentum=False,
            ),
            steps,
        ),
        "join": (sequence, every + steps),
        "product": (chain, N),
    }[name]
    scheduler = make()
    given = []
    for t in range(1, n + 1):
        given.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if t < n:  # OneCycleLR counts its steps
            scheduler.step()
    return given


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
@each_schedule
@each_seed
def test_rates_are_torchs(name, case):
    rate, numbers = case
    expected = torch_rates(name, **numbers)
    assert len(expected) > 20
    # most of torch's schedulers multiply the rate before, and so gather errors
    np.testing.assert_allclose(rates(rate, len(expected)), expected, rtol=1e-10, atol=1e-10 * numbers["lr"])


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
def test_one_cycle_without_warm_up_is_torchs():
    numbers = random_numbers(0) | {"warmup": 0.0, "steps": 50}
    np.testing.assert_allclose(rates(ours("one_cycle", **numbers), 50), torch_rates("one_cycle", **numbers))


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
def test_one_cycle_is_torchs_wherever_the_peak_is():
    rng = np.random.default_rng(0)
    for steps in [*range(2, 12), *rng.integers(12, 200, 20).tolist()]:
        for share in (*rng.uniform(0, 1, 5).tolist(), 1e-9, 1 - 1e-9):
            numbers = random_numbers(steps) | {"warmup": share, "steps": steps}
            if abs(share * steps - 1) > 1e-6:  # torch divides by zero
                expected = torch_rates("one_cycle", **numbers)
                np.testing.assert_allclose(rates(ours("one_cycle", **numbers), steps), expected)


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
@each_seed
def test_other_arguments_as_torchs(seed):
    """Down instead of up, parts one after another to the end, restarts."""
    lr, other, steps, factor, every, *_ = random_numbers(seed).values()
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)

    def sequence():
        line = lr_scheduler.LinearLR(optimizer, other, total_iters=every)
        parts = [line, lr_scheduler.ExponentialLR(optimizer, factor), lr_scheduler.StepLR(optimizer, 10, other)]
        return lr_scheduler.SequentialLR(optimizer, parts, [every, every + 50])

    parts = [warmup(lr, every, start=other * lr), exponential(lr, factor), step(lr, 10, other)]
    waves = join([cosine(lr, every, other * lr)] * (N // every + 1), [every * k for k in range(1, N // every + 1)])
    for mine, make in [
        (linear(lr, other * lr, steps), lambda: lr_scheduler.LinearLR(optimizer, 1.0, other, steps)),
        (join(parts, [every, every + 50]), sequence),
        (waves, lambda: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, every, eta_min=other * lr)),
    ]:
        optimizer.param_groups[0].update(lr=lr)
        optimizer.param_groups[0].pop("initial_lr", None)
        scheduler, given = make(), []
        for _ in range(N):
            given.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        np.testing.assert_allclose(rates(mine), given, rtol=1e-9, atol=1e-12 * lr)


# ---------------------------------------------------------------- optax


def optax_stair(lr, every, factor):
    """Not exponential_decay(staircase=True): compiled, its division rounds some of the steps to the stair before."""
    return optax.piecewise_constant_schedule(lr, dict.fromkeys(range(every, N, every), factor))


def optax_schedule(name, lr, other, steps, factor, every, power, div, final_div, warmup):
    peak = int(warmup * steps)  # optax wants it whole, and takes a step more to it
    return {
        "constant": lambda: optax.constant_schedule(lr),
        "linear": lambda: optax.linear_schedule(other * lr, lr, steps),
        "warmup": lambda: optax.warmup_constant_schedule(other * lr, lr, steps),
        "cosine": lambda: optax.cosine_decay_schedule(lr, steps, alpha=other),
        "polynomial": lambda: optax.polynomial_schedule(lr, 0.0, power, steps),
        "step": lambda: optax_stair(lr, every, factor),
        "exponential": lambda: optax.exponential_decay(lr, 1, factor),
        "inverse_sqrt": lambda: lambda count: lr / (count + 1) ** 0.5,
        "one_cycle": lambda: optax.cosine_onecycle_schedule(steps - 1, lr, (peak - 0.5) / (steps - 1), div, final_div),
        "join": lambda: optax.join_schedules(
            [
                optax.linear_schedule(other * lr, lr, every),
                optax.cosine_decay_schedule(lr, steps),
                optax.exponential_decay(other * lr, 1, factor),
            ],
            [every, every + steps],
        ),
        "product": lambda: (
            lambda count: (
                optax.linear_schedule(other, 1.0, steps)(count)
                * optax.exponential_decay(lr, 1, factor)(count)
                * optax_stair(1.0, every, other)(count)
            )
        ),
    }[name]()


@pytest.mark.skipif(not HAS_OPTAX, reason="optax is not installed; CI installs it")
@each_schedule
@each_seed
def test_rates_are_optaxs(name, case):
    rate, numbers = case
    if name == "one_cycle":
        numbers["warmup"] = int(numbers["warmup"] * numbers["steps"]) / numbers["steps"]
        rate = ours(name, **numbers)
    with jax.enable_x64(True):
        expected = jax.vmap(optax_schedule(name, **numbers))(np.arange(float(N)))
        np.testing.assert_allclose(rates(rate), np.broadcast_to(expected, N), rtol=1e-9, atol=1e-12 * numbers["lr"])


@pytest.mark.skipif(not HAS_OPTAX, reason="optax is not installed; CI installs it")
def test_the_pages_way_to_optaxs_one_cycle():
    """With the values that optax's own test has, at a peak anywhere, and after the end."""
    way, theirs = re.search(r"`(one_\w+\(.*?\))` has the numbers of\s+`optax\.(.*?)`", PAGE.read_text()).groups()
    assert f"``{way}``" in one_cycle.__doc__
    rng = np.random.default_rng(0)
    drawn_cases = [(int(rng.integers(1, 100)), *rng.uniform((0, 1, 1), (1, 50, 1e4)).tolist()) for _ in range(8)]
    for n, pct, div, final_div in [(5, 0.4, 10.0, 100.0), (5, 0.1, 10.0, 100.0), (1, 0.5, 25.0, 1e4), *drawn_cases]:
        scope = {"n": n, "lr": 1000.0, "pct": pct, "div": div, "final_div": final_div}
        found = rates(eval(way, vars(schedules) | scope), n + 3)
        with jax.enable_x64(True):
            expected = jax.vmap(eval(theirs, vars(optax) | scope))(np.arange(n + 3.0))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        if (n, pct) == (5, 0.4):
            np.testing.assert_allclose(found, [100, 550, 1000, 750.25, 250.75, 1, 1, 1], rtol=1e-9)


@pytest.mark.skipif(not HAS_OPTAX, reason="optax is not installed; CI installs it")
@each_seed
def test_other_arguments_as_optaxs(seed):
    """Down instead of up, to another end than 0, stairs by the function that the page names, restarts."""
    lr, other, steps, factor, every, power, *_ = random_numbers(seed).values()
    ends = [steps, steps + every]
    restarts = [{"init_value": 0.0, "peak_value": lr, "warmup_steps": every, "decay_steps": n} for n in ends]
    sgdr = join([warmup(lr, every), cosine(lr, steps - every)] * 2, [every, steps, steps + every])
    pairs = [
        (linear(lr, other * lr, steps), optax.linear_schedule(lr, other * lr, steps)),
        (polynomial(lr, steps, power, other * lr), optax.polynomial_schedule(lr, other * lr, power, steps)),
        (step(lr, every, factor), optax.exponential_decay(lr, every, factor, staircase=True)),
        (step(lr, every, 1.0), optax.exponential_decay(lr, every, 0.0, staircase=True)),
        (exponential(lr, 1.0), optax.exponential_decay(lr, 1, 0.0)),
    ]
    if every < steps:
        restarts[1]["decay_steps"] = steps
        pairs.append((sgdr, optax.sgdr_schedule(restarts)))
    for mine, theirs in pairs:
        with jax.enable_x64(True):  # not compiled, see `optax_stair`
            expected = [float(theirs(np.float64(k))) for k in range(0, N, 3)]
        np.testing.assert_allclose(rates(mine)[::3], expected, rtol=1e-9, atol=1e-12 * lr)


# ---------------------------------------------------------------- what a schedule is


@each_schedule
@each_seed
def test_copies_are_equal_and_of_the_same_rates(name, case):
    rate, numbers = case
    again = [ours(name, **numbers), copy.copy(rate), copy.deepcopy(rate)]
    again += [pickle.loads(pickle.dumps(rate, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    again += [from_json(rate.to_json()), from_json(json.loads(json.dumps(rate.to_json())))]
    again += [eval(repr(rate), vars(schedules))]
    for other in again:
        assert other == rate
        assert hash(other) == hash(rate)
        assert repr(other) == repr(rate)
        assert other.to_json() == rate.to_json()
        assert (rates(other, 50) == rates(rate, 50)).all()


@each_schedule
def test_schedules_of_other_arguments_are_unequal(name):
    made = [ours(name, **random_numbers(seed)) for seed in SEEDS]
    made += [linear(0.1, 0.2, 3), linear(0.2, 0.1, 3), polynomial(0.1, 3), cosine(0.1, 3), cosine(0.1, 3, 0.01)]
    assert len(set(made)) == len(made)
    assert made[0] != made[0].to_json()


@pytest.mark.parametrize("name", BUILT_IN)
def test_signature_and_docstring(name):
    factory, formula = SCHEDULES[name], SCHEDULES[name].formula
    shown = inspect.signature(factory)
    assert list(shown.parameters.values()) == list(inspect.signature(formula).parameters.values())[1:]
    assert shown.return_annotation is schedules.Schedule
    assert getattr(schedules, name) is factory
    assert factory.__name__ == name
    assert factory.__doc__ == formula.__doc__
    for part in (".. math::", "Notes\n", "optax", "torch", "Examples\n", ">>> "):
        assert part in factory.__doc__


def test_the_page_lists_every_schedule():
    calls = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert [call.partition("(")[0] for call in calls] == BUILT_IN
    for call, name in zip(calls, BUILT_IN, strict=True):
        shown = inspect.signature(SCHEDULES[name]).parameters.values()
        bare = [str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in shown]
        assert call.replace("1e4", "10000.0") == f"{name}({', '.join(bare)})"


def test_repr_and_json():
    rate = join([warmup(1, np.int64(5)), cosine(1.0, 9)], (np.int32(5),))
    parts = "warmup(lr=1.0, steps=5, start=0.0), cosine(lr=1.0, steps=9, final=0.0)"
    assert repr(rate) == f"join(schedules=({parts}), boundaries=(5,))"
    assert json.dumps(rate.to_json()) == (
        '{"schedule": "join", "schedules": [{"schedule": "warmup", "lr": 1.0, "steps": 5, "start": 0.0}, '
        '{"schedule": "cosine", "lr": 1.0, "steps": 9, "final": 0.0}], "boundaries": [5]}'
    )
    assert repr(cosine(lr=0.1, steps=100)) == "cosine(lr=0.1, steps=100, final=0.0)"
    assert (rate.name, cosine(0.1, 9).arguments) == ("join", {"lr": 0.1, "steps": 9, "final": 0.0})


def test_immutable():
    parts = [constant(0.1)]
    rate = product(parts)
    parts.append(constant(0.0))
    assert rate(1) == 0.1
    rate.arguments["schedules"] = ()
    rate.to_json()["schedules"].clear()
    assert rate == product([constant(0.1)])
    with pytest.raises(AttributeError):
        rate.values = ()
    with pytest.raises(AttributeError):
        rate.lr = 0.2


def nested(depth):
    rate = constant(0.1)
    for _ in range(depth - 1):
        rate = join([rate, constant(0.1)], [1]) if rate.depth % 2 else product([rate])
    return rate


def test_the_deepest_composition_can_be_used():
    rate = nested(DEEPEST)
    assert rate.depth == DEEPEST
    assert rate(3) == 0.1
    assert pickle.loads(pickle.dumps(rate)) == from_json(rate.to_json()) == rate
    with pytest.raises(ValueError, match=r"^product: schedules may be nested 32 deep, not 33$"):
        product([rate])
    with pytest.raises(ValueError, match=r"may be nested 32 deep, not deeper$"):
        from_json({"schedule": "product", "schedules": [rate.to_json()]})


def test_the_largest_composition_can_be_used():
    part = constant(1.0)
    rate = product([part] * (MOST - 1))
    assert (rate.size, rate(3)) == (MOST, 1.0)
    assert pickle.loads(pickle.dumps(rate)) == from_json(rate.to_json()) == rate
    with pytest.raises(ValueError, match=r"^product: a schedule may consist of 4096 schedules, not 4097; write a"):
        product([part] * MOST)
    doubled = part
    for _ in range(11):
        doubled = product([doubled, doubled])
    assert doubled.size == MOST - 1
    with pytest.raises(ValueError, match="4096 schedules, not 8191"):
        product([doubled, doubled])


def test_too_large_a_text_is_refused_before_most_of_it_is_read(monkeypatch):
    """The work is limited, too: each schedule is evaluated once for each that holds it."""
    calls = []
    formula = SCHEDULES["constant"].formula
    monkeypatch.setattr(SCHEDULES["constant"], "formula", lambda t, lr: calls.append(t) or formula(t, lr))
    data = {"schedule": "product", "schedules": [{"schedule": "constant", "lr": 1.0}] * 60_000}
    for _ in range(20):
        data = {"schedule": "product", "schedules": [data]}
    with pytest.raises(ValueError, match="a schedule may consist of 4096 schedules, not more"):
        from_json(data)
    assert len(calls) <= MOST


# ---------------------------------------------------------------- a formula of one's own


def triangle(t, low, high, period):
    """Up and down."""
    x = (t - 1) % period / period
    return low + (high - low) * (1 - abs(2 * x - 1))


triangle = schedule(triangle)


def test_ones_own_formula():
    rate = triangle(0, 2, period=4)
    assert [rate(t) for t in range(1, 7)] == [0.0, 1.0, 2.0, 1.0, 0.0, 1.0]
    assert repr(rate) == "triangle(low=0.0, high=2.0, period=4.0)"
    assert pickle.loads(pickle.dumps(rate)) == from_json(rate.to_json()) == copy.deepcopy(rate) == rate
    assert join([rate, rate], [2])(3) == 0.0
    with pytest.raises(ValueError, match=r"^period: expected a number that is finite, got inf$"):
        triangle(0, 1, inf)
    with pytest.raises(
        ValueError, match=r"^triangle\(low=-2.0, high=1.0, period=4.0\) at t = 1: expected a number >= 0"
    ):
        triangle(-2, 1, 4)
    with pytest.raises(ZeroDivisionError):
        triangle(0, 1, 0)
    with pytest.raises(ValueError, match=r"^schedule: .*(modulo|zero)"):
        from_json({"schedule": "triangle", "low": 0, "high": 1, "period": 0})


def test_formula_may_be_defined_again():
    def again(t, lr):
        return lr

    first = schedule(again)
    assert schedule(again)(0.1) != first(0.1)
    del SCHEDULES["again"]


@pytest.mark.parametrize(
    ("name", "source", "error", "text"),
    [
        ("mine", "lambda lr: lr", TypeError, "mine: expected t as its first argument and none called schedule, got"),
        ("mine", "lambda t, schedule: schedule", TypeError, "mine: expected t as its first argument and none called"),
        ("cosine", "lambda t, lr: lr", ValueError, "cosine: there is a schedule of that name in fastadam.schedules"),
    ],
)
def test_formulas_that_are_refused(name, source, error, text):
    formula = eval(source)
    formula.__name__ = name
    before = dict(SCHEDULES)
    with pytest.raises(error) as caught:
        schedule(formula)
    assert str(caught.value).startswith(text)
    assert before == SCHEDULES


def test_formula_that_returns_no_number():
    formula = lambda t, lr: None  # noqa: E731
    formula.__name__ = "nothing"
    with pytest.raises(TypeError, match=r"^nothing\(lr=0.1\) at t = 1: expected a number >= 0 and finite, got None"):
        schedule(formula)(0.1)
    del SCHEDULES["nothing"]


# ---------------------------------------------------------------- errors

#: argument -> whole call without it, one value of each kind that is refused, what is allowed
NUMBERS = {
    "lr": (lambda lr: constant(lr), [-0.1, nan, inf, 10**400], "a number >= 0 and finite"),
    "start": (lambda start: linear(start, 0.1, 5), [-1e-300], "a number >= 0 and finite"),
    "end": (lambda end: linear(0.1, end, 5), [-inf], "a number >= 0 and finite"),
    "final": (lambda final: cosine(0.1, 5, final), [-1], "a number >= 0 and finite"),
    "factor": (lambda factor: step(0.1, 5, factor), [-0.5, inf], "a number >= 0 and finite"),
    "power": (lambda power: polynomial(0.1, 5, power), [0, -1, inf], "a number > 0 and finite"),
    "warmup": (lambda warmup: one_cycle(0.1, 5, warmup), [-0.1, 1.0], "a number >= 0 and < 1"),
    "div": (lambda div: one_cycle(0.1, 5, 0.3, div), [0.0, -25], "a number > 0 and finite"),
    "final_div": (lambda final_div: one_cycle(0.1, 5, 0.3, 25, final_div), [0, nan], "a number > 0 and finite"),
    "steps": (lambda steps: cosine(0.1, steps), [0, -5], "a whole number >= 1"),
    "every": (lambda every: step(0.1, every), [0], "a whole number >= 1"),
    "boundaries[0]": (lambda boundary: join([constant(0.1)] * 2, [boundary]), [0], "a whole number >= 1"),
    "t": (lambda t: cosine(0.1, 5)(t), [0, -1, np.int64(0)], "a whole number >= 1"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_refused(name):
    call, values, allowed = NUMBERS[name]
    for value in values:
        with pytest.raises(ValueError, match="expected") as caught:
            call(value)
        assert str(caught.value) == f"{name}: expected {allowed}, got {value!r}"
    not_whole = [5.5, np.float64(5.5), inf, nan] if "whole" in allowed else []
    for value in (True, np.True_, "5", None, 1j, [5], constant(0.1), *not_whole):
        with pytest.raises(TypeError) as caught:
            call(value)
        assert str(caught.value) == f"{name}: expected {allowed}, got {value!r} of type {type(value).__name__}"
    with pytest.raises(TypeError) as caught:
        call(np.ones(1))
    assert str(caught.value) == f"{name}: expected {allowed}, got an array of shape (1,)"


C = constant(0.1)
CALLS = [
    (lambda: cosine(0.1), TypeError, "cosine(lr: float, steps: int, final: float = 0.0) -> fastadam.schedule.Schedule:"
     " missing a required argument: 'steps'"),
    (lambda: constant(0.1, 5), TypeError, "constant(lr: float) -> fastadam.schedule.Schedule: too many positional"
     " arguments"),
    (lambda: constant(0.1, t=5), TypeError, "t: unknown argument of constant(); it has lr"),
    (lambda: join([], []), ValueError, "schedules: expected at least one schedule, got none"),
    (lambda: product([]), ValueError, "schedules: expected at least one schedule, got none"),
    (lambda: product(C), TypeError, "schedules: expected a list, got constant(lr=0.1) of type Schedule"),
    (lambda: product([C, 0.1]), TypeError, "schedules[1]: expected a schedule such as constant(0.1), got 0.1 of type"
     " float"),
    (lambda: join([C, cosine], [1]), TypeError, f"schedules[1]: expected a schedule such as constant(0.1), got"
     f" {cosine!r} of type function"),
    (lambda: join([C, C], 3), TypeError, "boundaries: expected a list, got 3 of type int"),
    (lambda: join([C, C], []), ValueError, "boundaries: expected 1, one fewer than schedules, got 0 of them"),
    (lambda: join([C], [3]), ValueError, "boundaries: expected 0, one fewer than schedules, got 1 of them"),
    (lambda: join([C] * 3, [3, 3]), ValueError, "boundaries: expected whole numbers, each larger than the one before,"
     " got [3, 3]"),
    (lambda: one_cycle(1e300, 5, div=1e-300), ValueError, "one_cycle(lr=1e+300, steps=5, warmup=0.3, div=1e-300,"
     " final_div=10000.0) at t = 1: expected a number >= 0 and finite, got inf"),
    (lambda: exponential(1.0, 10.0)(400), ValueError, "exponential(lr=1.0, factor=10.0) at t = 400: expected a number"
     " >= 0 and finite, got inf"),
    (lambda: product([constant(1e200)] * 2), ValueError, "product(schedules=(constant(lr=1e+200), constant(lr=1e+200)))"
     " at t = 1: expected a number >= 0 and finite, got inf"),
]  # fmt: skip


HALF = constant(0.5)
PRODUCTS = [
    (lambda rate: rate * 0.5, lambda rate: product([rate, HALF])),
    (lambda rate: 0.5 * rate, lambda rate: product([rate, HALF])),
    (lambda rate: rate / 2, lambda rate: product([rate, HALF])),
    (lambda rate: np.float32(0.5) * rate, lambda rate: product([rate, HALF])),
    (lambda rate: rate * np.float64(0.5), lambda rate: product([rate, HALF])),
    (lambda rate: rate * HALF, lambda rate: product([rate, HALF])),
    (lambda rate: rate * 0.5 * HALF, lambda rate: product([rate, HALF, HALF])),
]


@pytest.mark.parametrize(("made", "expected"), PRODUCTS)
def test_arithmetic_is_a_product(made, expected):
    rate = cosine(0.1, 10, final=0.01)
    scaled = made(rate)
    assert scaled == expected(rate)
    assert scaled(3) == prod([rate(3), *[0.5] * (len(scaled.arguments["schedules"]) - 1)])
    assert from_json(json.loads(json.dumps(scaled.to_json()))) == scaled
    assert fastadam.Adam(np.ones(2), lr=scaled).lr == scaled


def test_products_of_products_are_no_deeper():
    rate = cosine(1.0, 1000)
    for _ in range(100):
        rate *= 0.5
    assert rate.depth == 2
    assert rate(1) == 0.5**100


@pytest.mark.parametrize(("call", "error", "text"), CALLS)
def test_calls_that_are_refused(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


def deep(inner, wrap, depth=100_000):
    for _ in range(depth):
        inner = wrap(inner)
    return inner


COSINE = {"schedule": "cosine", "lr": 0.1, "steps": 5}
PLATEAU = {"schedule": "plateau", "lr": 0.1}
JSON = [
    (None, "schedule: expected a dict, as to_json() makes it, got NoneType"),
    ([COSINE], "schedule: expected a dict, as to_json() makes it, got list"),
    ("cosine", "schedule: expected a dict, as to_json() makes it, got str"),
    ({}, "schedule: expected one of constant, linear, warmup, cosine,"),
    ({"schedule": "eval", "lr": 1}, "schedule: expected one of constant,"),
    ({"schedule": "__init__"}, "schedule: expected one of constant,"),
    ({"schedule": ["cosine"]}, "schedule: expected one of constant,"),
    ({"schedule": COSINE}, "schedule: expected one of constant,"),
    ({"schedule": "x" * 10**6}, "schedule: expected one of constant,"),
    (COSINE | {"t": 1}, "schedule: cosine has no argument 't'; it has lr, steps, final"),
    (COSINE | {"": 1}, "schedule: cosine has no argument ''; it has lr, steps, final"),
    (COSINE | {5: 1}, "schedule: cosine has no argument 5; it has lr, steps, final"),
    (COSINE | {deep((), lambda x: (x,), 1000): 1}, "schedule: cosine has no argument (((((((...),),),),),),); it has"),
    ({"schedule": "cosine", "lr": 0.1}, "schedule: cosine(lr: float, steps: int, final: float = 0.0) -> "),
    (COSINE | {"lr": -1}, "schedule: lr: expected a number >= 0 and finite, got -1"),
    (COSINE | {"lr": nan}, "schedule: lr: expected a number >= 0 and finite, got nan"),
    (COSINE | {"lr": 10**400}, "schedule: lr: expected a number >= 0 and finite, got 1000"),
    (COSINE | {"lr": True}, "schedule: lr: expected a number >= 0 and finite, got True of type bool"),
    (COSINE | {"lr": [0.1]}, "schedule: lr: expected a number >= 0 and finite, got [0.1] of type list"),
    (
        COSINE | {"lr": COSINE},
        "schedule: lr: expected a number >= 0 and finite, got cosine(lr=0.1, steps=5, final=0.0)",
    ),
    (COSINE | {"lr": "0.1"}, "schedule['lr']: expected a number or a schedule, got str"),
    (COSINE | {"lr": None}, "schedule['lr']: expected a number or a schedule, got NoneType"),
    (COSINE | {"steps": 5.5}, "schedule: steps: expected a whole number >= 1, got 5.5 of type float"),
    (COSINE | {"steps": 0}, "schedule: steps: expected a whole number >= 1, got 0"),
    ({"schedule": "product", "schedules": []}, "schedule: schedules: expected at least one schedule, got none"),
    ({"schedule": "product", "schedules": COSINE}, "schedule: schedules: expected a list, got cosine("),
    ({"schedule": "product", "schedules": "ab"}, "schedule['schedules']: expected a number or a schedule, got str"),
    ({"schedule": "product", "schedules": [0.1]}, "schedule: schedules[0]: expected a schedule such as constant(0.1)"),
    ({"schedule": "product", "schedules": [[COSINE]]}, "schedule: schedules[0]: expected a schedule such as"),
    ({"schedule": "product", "schedules": [COSINE, {}]}, "schedule['schedules'][1]: expected one of constant,"),
    (
        {"schedule": "product", "schedules": [COSINE, COSINE | {"lr": -1}]},
        "schedule['schedules'][1]: lr: expected a number >= 0 and finite, got -1",
    ),
    ({"schedule": "join", "schedules": [COSINE], "boundaries": [3]}, "schedule: boundaries: expected 0, one fewer"),
    ({"schedule": "join", "schedules": [COSINE] * 2, "boundaries": ["3"]}, "schedule['boundaries'][0]: expected a"),
    (COSINE | {"lr": deep(0.1, lambda x: [x])}, "schedule['lr'][0][0]"),
    (COSINE | {"lr": deep(0.1, lambda x: {"schedule": "constant", "lr": x})}, "schedule['lr']['lr']"),
    (deep(COSINE, lambda x: {"schedule": "product", "schedules": [x]}), "schedule['schedules'][0]['schedules'][0]"),
    (PLATEAU | {"lr": None}, "schedule['lr']: expected a number or a schedule, got NoneType"),
    (PLATEAU | {"mode": 1}, "schedule: mode: expected 'min' or 'max', got 1 of type int"),
    (PLATEAU | {"mode": "x" * 10**6}, "schedule: mode: expected 'min' or 'max', got 'xxx"),
    (PLATEAU | {"mode": PLATEAU}, "schedule: mode: expected 'min' or 'max', got {'schedule': 'plateau',"),
    (PLATEAU | {"threshold_mode": []}, "schedule: threshold_mode: expected 'rel' or 'abs', got [] of type list"),
    (PLATEAU | {"factor": 1}, "schedule: factor: expected a number >= 0 and < 1, got 1"),
    (PLATEAU | {"patience": None}, "schedule: patience: expected a whole number >= 0 and < 2**62, got None of type"),
    (PLATEAU | {"loss": 1.0}, "schedule: plateau has no argument 'loss'; it has lr, mode,"),
    (PLATEAU | {"state": None}, "schedule: state: expected a list, got None of type NoneType"),
    (PLATEAU | {"state": [0.1, 2.0, 3]}, "schedule: state: expected nothing, or 4 values, got 3 of them"),
    (PLATEAU | {"state": [-0.1, 2.0, 3, 0]}, "schedule: state[0]: expected a number >= 0 and finite, got -0.1"),
    (PLATEAU | {"state": [0.1, nan, 3, 0]}, "schedule: state[1]: expected a number that is not NaN, got nan"),
    (PLATEAU | {"state": [0.1, "2", 3, 0]}, "schedule: state[1]: expected a number that is not NaN, got '2' of type"),
    (PLATEAU | {"state": [0.1, 2.0, 0.5, 0]}, "schedule: state[2]: expected a whole number >= 0 and < 2**62, got 0.5"),
    (PLATEAU | {"state": [0.1, 2.0, 3, -1]}, "schedule: state[3]: expected a whole number >= 0 and < 2**62, got -1"),
    (PLATEAU | {"state": deep(0.1, lambda x: [x] * 4)}, "schedule: state[0]: expected a number >= 0 and finite, got <"),
    (
        {"schedule": "product", "schedules": [COSINE, PLATEAU | {"state": 5}]},
        "schedule['schedules'][1]: state: expected a list, got 5 of type int",
    ),
]


@pytest.mark.parametrize(("data", "text"), JSON, ids=range(len(JSON)))
def test_json_that_is_refused(data, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (its text is compared below)
        from_json(data)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 2000


WORDS = ["schedule", "schedules", "boundaries", "lr", "steps", "factor", "cosine", "join", "product", "constant"]
WORDS += ["plateau", "mode", "min", "state"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
)


@given(ANYTHING)
def test_any_json_is_a_schedule_or_a_value_error(data):
    try:
        rate = from_json(data)
    except ValueError:
        return
    assert from_json(rate.to_json()) == rate


# ---------------------------------------------------------------- in an optimizer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inverse_sqrt_is_alpha_decay_to_the_bit(dtype):
    rng = np.random.default_rng(0)
    start = rng.standard_normal(1000).astype(dtype)
    for a in (0.1, 1e-3, 1 / 3):
        mine, theirs = start.copy(), start.copy()
        scheduled = fastadam.Adam(mine, lr=inverse_sqrt(a), beta_decay=0.999)
        decayed = fastadam.Adam(theirs, lr=a, alpha_decay=True, beta_decay=0.999)
        for _ in range(50):
            g = rng.standard_normal(1000).astype(dtype)
            scheduled.step(g)
            decayed.step(g)
        np.testing.assert_array_equal(mine, theirs)


SCHEDULED = [cls for cls in CLASSES.values() if cls.options["lr"].check is options.rate_or_schedule]


@pytest.mark.parametrize("cls", SCHEDULED)
def test_scheduled_steps_are_those_of_the_assigned_rates(cls):
    rate = join([warmup(0.5, 5), product([cosine(0.5, 10, 0.1), exponential(1.0, 0.9)])], [5])
    mine, theirs = np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)
    scheduled, assigned = cls([{"params": mine, "lr": rate}]), cls(theirs)
    assert "lr=join(schedules=(warmup(" in repr(scheduled)
    for t in range(1, 25):
        g = np.cos(mine + t)
        assigned.lr = rate(t)
        scheduled.step([g])
        assigned.step(g)
    np.testing.assert_array_equal(mine, theirs)


def test_a_rate_that_is_refused_leaves_the_optimizer_as_it_was():
    p = np.ones(3)
    opt = fastadam.Adam(p, lr=exponential(1.0, 1e200))
    opt.step(np.ones(3))
    opt.step(np.ones(3))
    before = p.copy()
    with pytest.raises(ValueError, match="at t = 3: expected a number >= 0 and finite, got inf"):
        opt.step(np.ones(3))
    assert opt.t == 2
    np.testing.assert_array_equal(p, before)


def test_warmed_up_cosine_beats_either_end_of_it():
    """Gradients with noise: a high rate stays in the noise, a low one stays behind, a falling one does neither."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((300, 2000))
    losses = []
    for lr in (0.1, 0.001, join([warmup(0.1, 20), cosine(0.1, 280)], [20])):
        x = np.full(2000, 3.0)
        opt = fastadam.Adam(x, lr=lr)
        for e in noise:
            opt.step(x + e)
        losses.append(np.mean(x * x))
    assert losses[2] < 0.5 * min(losses[:2])


# ---------------------------------------------------------------- the example


def test_example_draws_every_schedule(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("schedules_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--out", str(tmp_path / "picture.png")])
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"wrote {tmp_path / 'picture.png'}"
    for name in BUILT_IN:
        assert any(f"{name}(" in line for line in lines)
    drawn.check(tmp_path / "picture.png", 600, 1200, 100)
