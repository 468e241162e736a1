"""The schedule that follows a loss: its results against torch's, and by hand; which schedules a report reaches.
Then its copies, dicts and files, from which a run continues bit for bit.
"""

import copy
import importlib.util
import inspect
import json
import pickle
from fractions import Fraction
from math import inf, nan

import numpy as np
import pytest
from checkpoint_files import SUFFIXES, assert_same_arrays

import fastadam
from fastadam import schedules
from fastadam.schedules import constant, from_json, join, plateau, product, warmup

HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    import torch


def told(rate, losses):
    """The rate after each of these losses."""
    found = []
    for loss in losses:
        rate.report(loss)
        found.append(rate(len(found) + 2))
    return found


# ---------------------------------------------------------------- its numbers

OPTIONS = [
    {},
    {"factor": 0.5, "patience": 0},
    {"factor": 0.5, "patience": 1, "threshold": 0.1},
    {"factor": 0.5, "patience": 1, "threshold": 0.1, "threshold_mode": "abs"},
    {"factor": 0.9, "patience": 0, "threshold": 0.0},
    {"factor": 0.9, "patience": 1, "threshold": -0.05},
    {"factor": 0.9, "patience": 0, "threshold": 1.5},
    {"factor": 0.9, "patience": 0, "threshold": 1.5, "threshold_mode": "abs"},
    {"factor": 0.5, "patience": 1, "cooldown": 3},
    {"factor": 0.5, "patience": 0, "cooldown": 1, "min_lr": 0.01},
    {"factor": 0.5, "patience": 0, "min_lr": 2.0},
    {"factor": 0.5, "patience": 0, "eps": 0.003},
    {"factor": 0.0, "patience": 2},
    {"factor": 0.3, "patience": 2, "cooldown": 1, "threshold": 0.01, "min_lr": 1e-3, "eps": 1e-4},
]


def losses_of(seed):
    """They fall, stay, rise and fail; some below zero."""
    rng = np.random.default_rng(seed)
    fall = np.maximum.accumulate(rng.uniform(0, 2, 200))[::-1] - (seed % 2)
    losses = fall + rng.choice([0.0, 0.2], 200) * rng.standard_normal(200)
    losses[rng.integers(0, 200, 12)] = rng.choice([nan, inf, -inf, 0.0], 12, p=[0.5, 0.3, 0.05, 0.15])
    return np.where(rng.uniform(size=200) < 0.2, np.roll(losses, 1), losses).tolist()


def torchs(lr, losses, options):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    for loss in losses:
        scheduler.step(loss)
        yield optimizer.param_groups[0]["lr"]


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_rates_are_torchs_to_the_bit(seed, options, mode):
    losses = losses_of(seed)
    if mode == "max":
        losses = [-loss for loss in losses]
    expected = list(torchs(0.1, losses, {"mode": mode, **options}))
    assert told(plateau(0.1, mode, **options), losses) == expected


def test_the_losses_of_that_comparison_make_rates_fall():
    changes = [len(set(told(plateau(0.1, **options), losses_of(1)))) for options in OPTIONS]
    assert [count > 1 for count in changes] == [options.get("min_lr") != 2.0 for options in OPTIONS]


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
def test_arguments_are_torchs_after_the_first():
    theirs, ours = (
        [(p.name, p.default) for p in inspect.signature(make).parameters.values()]
        for make in (torch.optim.lr_scheduler.ReduceLROnPlateau, plateau)
    )
    assert ours[1:] == [*theirs[1:], ("state", ())]


@pytest.mark.parametrize(
    ("rate", "losses", "expected"),
    [
        (plateau(1.0, factor=0.5, patience=1), [3, 2, 2, 2, 1, 1, 1], [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        (plateau(1.0, factor=0.5, patience=0, cooldown=2), [1] * 8, [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]),
        (plateau(1.0, factor=0.5, patience=0), [nan, 1, nan, 0.5], [0.5, 0.5, 0.25, 0.25]),
        (plateau(1.0, "max", factor=0.5, patience=0), [1, 2, 1, 3], [1, 1, 0.5, 0.5]),
        (plateau(1.0, factor=0.5, patience=0, threshold=0.5), [4, 2, 1.9], [1, 0.5, 0.5]),
        (plateau(1.0, factor=0.5, patience=0, threshold=1, threshold_mode="abs"), [4, 3, 1.9], [1, 0.5, 0.5]),
        (plateau(1.0, factor=0.1, patience=0, min_lr=0.5), [1] * 4, [1, 0.5, 0.5, 0.5]),
        (plateau(1.0, factor=0.5, patience=0, eps=0.25), [1] * 4, [1, 0.5, 0.5, 0.5]),
    ],
    ids=str,
)
def test_rates_by_hand(rate, losses, expected):
    assert told(rate, losses) == expected


def test_a_step_alone_changes_nothing():
    rate = plateau(0.3, patience=0)
    assert [rate(t) for t in (1, 2, 10**12)] == [0.3] * 3
    rate.report(1.0)
    rate.report(1.0)
    assert [rate(t) for t in (1, 2, 10**12)] == [pytest.approx(0.03)] * 3


def test_any_real_number_is_a_loss():
    numbers = [2, 2.0, np.float32(2), np.int8(2), np.array(2.0, np.float16), Fraction(2)]
    numbers += [torch.tensor(2.0, requires_grad=True)] if HAS_TORCH else []
    for number in numbers:
        rate = plateau(0.1)
        rate.report(number)
        assert rate.arguments["state"] == (0.1, 2.0, 0, 0)
        assert type(rate.arguments["state"][1]) is float


# ---------------------------------------------------------------- an object that changes


def half_way():
    rate = plateau(0.1, factor=0.5, patience=1, cooldown=2)
    told(rate, [2.0, 1.0, nan, 3.0])
    return rate


def test_copies_are_equal_until_one_hears_more():
    rate = half_way()
    again = [copy.copy(rate), copy.deepcopy(rate), from_json(json.loads(json.dumps(rate.to_json())))]
    again += [pickle.loads(pickle.dumps(rate, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    again += [eval(repr(rate), vars(schedules))]
    for other in again:
        assert other == rate
        assert told(other, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) == [0.05] * 3 + [0.025] * 3
        assert other != rate
    assert rate == half_way()


def test_its_state_as_json():
    assert half_way().to_json()["state"] == [0.05, 1.0, 0, 2]
    assert repr(half_way()).endswith(", state=(0.05, 1.0, 0, 2))")
    assert plateau(0.1).to_json()["state"] == []
    rate = plateau(0.1)
    rate.report(nan)
    assert json.dumps(rate.to_json()).endswith('"state": [0.1, null, 1, 0]}')


@pytest.mark.parametrize("rate", [plateau(0.1), plateau(0.1) * 0.5])
def test_what_changes_has_no_hash(rate):
    with pytest.raises(TypeError, match="unhashable"):
        hash(rate)


# ---------------------------------------------------------------- compositions


def test_a_composition_tells_its_parts():
    rate = plateau(1.0, factor=0.5, patience=0)
    scaled = product([join([warmup(1.0, 2), rate], [2]), constant(0.5), rate])
    assert [scaled(t) for t in (1, 2, 3)] == [0.0, 0.25, 0.5]
    told(scaled, [1, 1])  # the rate hears each once, though it stands there twice
    assert rate.arguments["state"] == (0.5, 1.0, 0, 0)
    assert scaled(3) == 0.5 * 0.5 * 0.5
    told(rate, [1])
    assert scaled(3) == 0.25 * 0.5 * 0.25


def test_warm_up_and_then_by_the_loss():
    """As of the assigned rates, in an optimizer."""
    rate = join([warmup(0.5, 5), plateau(0.5, factor=0.5, patience=1)], [5])
    mine, theirs = np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)
    following, assigned = fastadam.Adam(mine, lr=rate), fastadam.Adam(theirs)
    rates = [0, 0.1, 0.2, 0.3, 0.4, *[0.5] * 3, *[0.25] * 2, *[0.125] * 2]
    for t, lr in enumerate(rates, 1):
        assigned.lr = rate(t) if t < 6 else lr
        following.step(np.cos(mine + t))
        assigned.step(np.cos(theirs + t))
        assert following.rate == pytest.approx(lr)
        if t > 5:
            following.lr.report(1.0)
    np.testing.assert_array_equal(mine, theirs)


# ---------------------------------------------------------------- groups

MAKES = {
    "one for all": lambda rate: ({}, {}, rate),
    "given to each": lambda rate: ({"lr": rate}, {"lr": rate}, 0.1),
    "half of it": lambda rate: ({}, {"lr": rate * 0.5}, rate),
    "after a warm-up": lambda rate: ({}, {"lr": join([warmup(0.1, 2), rate], [2])}, rate),
}


def in_groups(first, second, lr):
    return fastadam.Adam([{"params": np.ones(3), **first}, {"params": np.ones(2), **second}], lr=lr)


def rates_of(opt):
    return [group["lr"](9) for group in opt.param_groups]


def step(opt, count=1):
    for _ in range(count):
        opt.step([np.ones(3), np.ones(2)])


def by_dict(opt, again, tmp_path):
    again.load_state_dict(opt.state_dict())
    return again


def by_file(suffix, **how):
    def through(opt, again, tmp_path):
        opt.save(tmp_path / f"state{suffix}")
        again.load(tmp_path / f"state{suffix}", params=False, **how)
        return again

    return through


WAYS = {
    "dict": by_dict,
    **{suffix: by_file(suffix) for suffix in SUFFIXES},
    "in part": by_file(".npz", strict=False),
    "pickle": lambda opt, again, tmp_path: pickle.loads(pickle.dumps(opt)),
    "deepcopy": lambda opt, again, tmp_path: copy.deepcopy(opt),
}
each_way = pytest.mark.parametrize("way", WAYS)


@pytest.mark.parametrize("into", [*MAKES, "numbers"])
@pytest.mark.parametrize("make", MAKES)
@each_way
def test_one_report_reaches_all_groups_after_a_load(way, make, into, tmp_path):
    """Whatever the checkpoint is loaded into."""
    new = plateau(0.1, factor=0.5, patience=0)
    opt = in_groups(*MAKES[make](new))
    step(opt)
    told(opt.lr, [1, 1])
    other = in_groups(*({}, {}, 0.3) if into == "numbers" else MAKES[into](plateau(0.1, factor=0.5, patience=0)))
    again = WAYS[way](opt, other, tmp_path)
    assert [group["lr"] for group in again.param_groups] == [group["lr"] for group in opt.param_groups]
    for o in (opt, again):
        before = rates_of(o)
        o.lr.report(1)
        assert rates_of(o) == [rate / 2 for rate in before]


@pytest.mark.parametrize("patience", [1, 7])
@each_way
def test_groups_with_rates_of_their_own_keep_them(way, patience, tmp_path):
    """Also where they are equal, and whatever arguments are given before the load."""

    def make(patience):
        return in_groups(*({"lr": plateau(0.1, factor=0.5, patience=patience)} for _ in range(2)), 0.1)

    opt = make(1)
    step(opt)
    for group in opt.param_groups:
        group["lr"].report(1)
    again = WAYS[way](opt, make(patience), tmp_path)
    for o in (opt, again):
        for group in o.param_groups:
            group["lr"].report(1)
        assert rates_of(o) == [0.1, 0.1]
        told(o.param_groups[1]["lr"], [1])
        assert rates_of(o) == [0.1, 0.05]


@pytest.mark.parametrize("way", ["dict", *SUFFIXES, "in part"])
def test_rates_that_differ_there_are_two_here(way, tmp_path):
    opt = in_groups({"lr": plateau(0.1, patience=0)}, {"lr": plateau(0.1, patience=0)}, 0.1)
    step(opt)
    told(opt.lr, [1, 1])
    rate = plateau(0.1, patience=0)
    again = WAYS[way](opt, in_groups({}, {}, rate), tmp_path)
    assert rates_of(again) == rates_of(opt) == [pytest.approx(0.01), 0.1]
    assert again.lr is rate


@pytest.mark.parametrize("way", ["dict", *SUFFIXES])
def test_a_load_keeps_every_hold_on_the_rate(way, tmp_path):
    """The caller's name for it, another optimizer, and the groups that are added later."""
    opt = fastadam.Adam(np.ones(3), lr=half_way())
    rate = plateau(0.1, factor=0.5, patience=1, cooldown=2)
    one, other = fastadam.Adam(np.ones(3), lr=rate), fastadam.AdamW(np.ones(3), lr=rate)
    WAYS[way](opt, one, tmp_path)
    one.add_param_group({"params": np.ones(2)})
    assert one.lr is other.lr is one.param_groups[1]["lr"] is rate
    assert rate == half_way()


def test_a_load_that_fails_changes_no_rate(tmp_path):
    opt = fastadam.Adam([np.ones(3)], lr=half_way())
    opt.save(tmp_path / "state.npz")
    rate = plateau(0.1, factor=0.5, patience=1, cooldown=2)
    other = fastadam.Adam([np.ones(2)], lr=rate)
    for load, given in ((other.load, tmp_path / "state.npz"), (other.load_state_dict, opt.state_dict())):
        with pytest.raises(ValueError, match="expected shape"):
            load(given)
    assert rate.arguments["state"] == ()


def test_state_dict_is_a_snapshot():
    opt = fastadam.Adam(np.ones(3), lr=half_way() * 0.5)
    kept = opt.state_dict()
    told(opt.lr, [1] * 20)
    assert kept["param_groups"][0]["lr"] == half_way() * 0.5
    other = fastadam.Adam(np.ones(3))
    other.load_state_dict(kept)
    told(other.lr, [1] * 20)
    assert kept["param_groups"][0]["lr"] == half_way() * 0.5
    assert other.lr == opt.lr


@each_way
def test_a_run_goes_on_to_the_bit(way, tmp_path):
    def new(lr):
        return fastadam.AdamW({"W": np.linspace(-1, 1, 50), "b": np.ones(3, np.float32)}, lr=lr)

    def train(opt, steps):
        for t in range(opt.t, opt.t + steps):
            opt.step({"W": np.cos(opt.params["W"] * t), "b": np.sin(opt.params["b"] + t)})
            opt.lr.report(np.float32(np.sin(5.0 * t)))

    whole, opt = (new(plateau(0.1, factor=0.7, patience=2, cooldown=1, threshold=0.3)) for _ in range(2))
    train(whole, 40)
    train(opt, 17)
    again = WAYS[way](opt, new(plateau(0.5, "max")), tmp_path)
    for name, p in again.params.items():  # dicts, and files saved without them, have none
        p[...] = opt.params[name]
    train(again, 23)
    assert_same_arrays(again, whole)
    assert again.lr == whole.lr
    assert again.rate < 0.01
