"""Learning-rate schedules: for ``lr=`` of every optimizer, functions of the step count t.
Each is one formula; its name, called with the arguments after t, makes the `Schedule`. `plateau` alone follows a loss
instead, which ``opt.lr.report(loss)`` tells it.

The first step is t = 1, with k = t - 1 steps behind it: the rate of step t is that of torch's scheduler after k calls
of its ``step()``, and that of optax's schedule at count k. A schedule with an end stays at its final rate after it.

Rates (``lr``, ``start``, ``end``, ``final``) are finite and >= 0, in the units of an optimizer's ``lr``; counts
(``steps``, ``every``) are whole and >= 1. What is not as described is a TypeError or a ValueError that names the
argument, raised where the schedule is made.

Examples
--------
>>> import numpy as np, fastadam
>>> from fastadam import schedules
>>> rate = schedules.join([schedules.warmup(0.4, 10), schedules.cosine(0.4, 190)], [10])
>>> x = np.array([10.0, 10.0])
>>> opt = fastadam.Adam(x, lr=rate)
>>> for _ in range(200):
...     opt.step(np.array([2.0, 100.0]) * x)
>>> bool(np.abs(x).max() < 1e-2)
True
>>> schedules.from_json(rate.to_json()) == rate
True
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from . import options
from .kernel.checks import came, number, one_of
from .schedule import Schedule, following, from_json, schedule

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "from_json",
    "inverse_sqrt",
    "join",
    "linear",
    "one_cycle",
    "plateau",
    "polynomial",
    "product",
    "schedule",
    "step",
    "warmup",
]

# ---------------------------------------------------------------- what the formulas share


def _between(start: float, end: float, x: float) -> float:
    """From `start` at x = 0 to `end` at x = 1, both exactly, along a line."""
    return (1.0 - x) * start + x * end


def _half_wave(start: float, end: float, x: float) -> float:
    """From `start` at x = 0 to `end` at x = 1, both exactly, along half a wave of the cosine."""
    return _between(end, start, (1.0 + math.cos(math.pi * x)) / 2.0)


def _done(t: int, steps: int) -> float:
    """The part of the steps that is behind step t, at most 1."""
    return min((t - 1) / steps, 1.0)


# ---------------------------------------------------------------- the schedules


@schedule
def constant(t: int, lr: float) -> float:
    r"""The same rate at every step.

    .. math::
        η_t = lr

    It is what a number for ``lr`` means; as a schedule it can be composed.

    Notes
    -----
    ``optax.constant_schedule(lr)``; in torch no scheduler at all.

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """
    return lr


@schedule
def linear(t: int, start: float, end: float, steps: int) -> float:
    r"""Along a line from one rate to another, and constant from step ``steps + 1`` on.

    .. math::
        η_t = (1 - x) \, start + x \, end, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    start, end : float
        The rate of step 1, and the rate of step ``steps + 1`` and all later ones.
    steps : int
        How many steps it takes from one to the other.

    Notes
    -----
    ``optax.linear_schedule(start, end, steps)``; ``torch.optim.lr_scheduler.LinearLR``, whose factors are of the
    optimizer's rate and at most 1.

    Examples
    --------
    >>> [linear(0.0, 1.0, steps=4)(t) for t in (1, 2, 3, 4, 5, 6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return _between(start, end, _done(t, steps))


@schedule
def warmup(t: int, lr: float, steps: int, start: float = 0.0) -> float:
    r"""Warm-up: `linear` from `start` to `lr`, and constant from step ``steps + 1`` on.

    .. math::
        η_t = (1 - x) \, start + x \, lr, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    lr : float
        The rate of step ``steps + 1`` and all later ones.
    steps : int
        How many steps it takes to get there.
    start : float, default 0
        The rate of step 1; at 0 that step moves nothing but the moments.

    Notes
    -----
    ``optax.warmup_constant_schedule(start, lr, steps)``;
    ``torch.optim.lr_scheduler.LinearLR(start_factor=start / lr, total_iters=steps)``, which refuses a start of 0.

    Examples
    --------
    >>> [warmup(1.0, steps=4)(t) for t in (1, 2, 3, 4, 5, 6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return linear.formula(t, start, lr, steps)


@schedule
def cosine(t: int, lr: float, steps: int, final: float = 0.0) -> float:
    r"""Along half a wave of the cosine from `lr` to `final`, and constant from step ``steps + 1`` on.

    .. math::
        η_t = final + (lr - final) \frac{1 + \cos π x}{2}, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    lr : float
        The rate of step 1.
    steps : int
        How many steps it takes to reach `final`.
    final : float, default 0
        The rate of step ``steps + 1`` and all later ones.

    Notes
    -----
    ``optax.cosine_decay_schedule(lr, steps, alpha=final / lr)``;
    ``torch.optim.lr_scheduler.CosineAnnealingLR(T_max=steps, eta_min=final)``, which rises again after its last step.
    Source: Loshchilov & Hutter, arXiv:1608.03983, whose restarts are a `join` of cosines.

    Examples
    --------
    >>> [round(cosine(1.0, steps=4)(t), 3) for t in (1, 2, 3, 4, 5, 6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    return _half_wave(lr, final, _done(t, steps))


@schedule
def polynomial(t: int, lr: float, steps: int, power: float = 1.0, final: float = 0.0) -> float:
    r"""Along a power of what is left from `lr` to `final`, and constant from step ``steps + 1`` on.

    .. math::
        η_t = final + (lr - final) (1 - x)^{power}, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    lr : float
        The rate of step 1.
    steps : int
        How many steps it takes to reach `final`.
    power : float, default 1
        Above 0: at 1 a line, above 1 steep at first, below 1 steep at last.
    final : float, default 0
        The rate of step ``steps + 1`` and all later ones.

    Notes
    -----
    ``optax.polynomial_schedule(lr, final, power, steps)``; with final 0
    ``torch.optim.lr_scheduler.PolynomialLR(total_iters=steps, power=power)``.

    Examples
    --------
    >>> [polynomial(1.0, steps=4, power=2)(t) for t in (1, 2, 3, 4, 5, 6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    return _between(final, lr, (1.0 - _done(t, steps)) ** power)


@schedule
def step(t: int, lr: float, every: int, factor: float = 0.1) -> float:
    r"""A stair: after each `every` steps the rate is multiplied by `factor`. It has no last step.

    .. math::
        η_t = lr · factor^{⌊(t - 1) / every⌋}

    Parameters
    ----------
    lr : float
        The rate of the first `every` steps.
    every : int
        How many steps share a rate.
    factor : float, default 0.1
        At least 0. Above 1 the rate grows; a call for a step at which it is no finite number is a ValueError.

    Notes
    -----
    ``torch.optim.lr_scheduler.StepLR(step_size=every, gamma=factor)``;
    ``optax.exponential_decay(lr, every, factor, staircase=True)``.

    Examples
    --------
    >>> [step(1.0, every=2, factor=0.5)(t) for t in (1, 2, 3, 4, 5, 6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    return lr * factor ** ((t - 1) // every)


@schedule
def exponential(t: int, lr: float, factor: float) -> float:
    r"""The rate is multiplied by `factor` after each step: a `step` of every 1. It has no last step.

    .. math::
        η_t = lr · factor^{t - 1}

    Parameters
    ----------
    lr : float
        The rate of step 1.
    factor : float
        At least 0. Above 1 the rate grows, as in a search for the largest that will do; a call for a step at which it
        is no finite number is a ValueError.

    Notes
    -----
    ``torch.optim.lr_scheduler.ExponentialLR(gamma=factor)``; ``optax.exponential_decay(lr, 1, factor)``, where
    factor 0 is no decay at all.

    Examples
    --------
    >>> [exponential(1.0, factor=0.5)(t) for t in (1, 2, 3, 4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    return step.formula(t, lr, 1, factor)


@schedule
def inverse_sqrt(t: int, lr: float) -> float:
    r"""The rate falls with the root of the step count. It has no last step.

    .. math::
        η_t = lr / \sqrt t

    Parameters
    ----------
    lr : float
        The rate of step 1.

    Notes
    -----
    To the bit ``alpha_decay=True`` of `fastadam.Adam`. Source: Kingma & Ba, arXiv:1412.6980, section 4, whose bound on
    the regret has this rate. In torch ``LambdaLR(lambda k: (k + 1) ** -0.5)``; in optax a function of one's own.

    Examples
    --------
    >>> [inverse_sqrt(1.0)(t) for t in (1, 4, 16, 100)]
    [1.0, 0.5, 0.25, 0.1]
    """
    return lr / math.sqrt(t)


@schedule
def one_cycle(t: int, lr: float, steps: int, warmup: float = 0.3, div: float = 25.0, final_div: float = 1e4) -> float:
    r"""Up to the peak `lr` along half a wave of the cosine, down along another; constant from step `steps` on.

    .. math::
        η_t = \begin{cases}
            w(lr / div, \; lr, \; (t - 1) / (p - 1)) & t < p = warmup · steps \\
            w(lr, \; lr / div / final\_div, \; \min((t - p) / (steps - p), 1)) & t ≥ p
        \end{cases} \qquad w(a, b, x) = b + (a - b) \frac{1 + \cos π x}{2}

    Parameters
    ----------
    lr : float
        The peak, which is the rate of step p where p is whole.
    steps : int
        How many steps there are: the last of them is the first at the final rate.
    warmup : float, default 0.3
        The part of the steps that goes up, >= 0 and < 1.
    div : float, default 25
        The peak is so many times the rate of step 1; above 0.
    final_div : float, default 1e4
        The rate of step 1 is so many times the final one; above 0.

    Notes
    -----
    ``torch.optim.lr_scheduler.OneCycleLR(max_lr=lr, total_steps=steps, …)``, which refuses to go on after its last
    step; the momentum is left alone. ``optax.cosine_onecycle_schedule(steps, lr, …)`` rounds the peak to a whole step
    and takes a step more to it and to the end. Source: Smith & Topin, arXiv:1708.07120.

    Examples
    --------
    >>> rate = one_cycle(1.0, steps=10, warmup=0.5, div=4, final_div=5)
    >>> [round(rate(t), 4) for t in (1, 3, 5, 10, 11)]
    [0.25, 0.625, 1.0, 0.05, 0.05]
    """
    peak = warmup * steps
    if t < peak:
        return _half_wave(lr / div, lr, (t - 1) / (peak - 1.0))
    return _half_wave(lr, lr / div / final_div, min((t - peak) / (steps - peak), 1.0))


# ---------------------------------------------------------------- what follows a loss


def _state(name: str, value: Any) -> tuple[Any, ...]:
    """The state of a `plateau`: empty, or the rate, the best loss, the bad ones since, the rest of the cooldown."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected a list, got {came(value)}")
    if len(value) not in (0, 4):
        raise ValueError(f"{name}: expected nothing, or 4 values, got {len(value)} of them")
    if not value:
        return ()
    rate, best, bad, cooling = value
    return (
        options.rate(f"{name}[0]", rate),
        None if best is None else number("that is not NaN", lambda x: x == x)(f"{name}[1]", best),
        options.count(f"{name}[2]", bad),
        options.count(f"{name}[3]", cooling),
    )


@following(
    mode=one_of("min", "max"),
    factor=options.below_one,
    patience=options.count,
    threshold=options.finite,
    threshold_mode=one_of("rel", "abs"),
    cooldown=options.count,
    min_lr=options.rate,
    eps=options.non_negative,
    state=_state,
)
def plateau(
    loss: float,
    lr: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
    state: Sequence[Any] = (),
) -> tuple[Any, ...]:
    r"""A stair that the loss decides: where more than `patience` losses in a row are no better, the rate falls.

    .. math::
        η ← \max(factor · η, \; min\_lr) \quad \text{after more than } patience \text{ bad losses in a row}

    A loss is good if it is below ``best * (1 - threshold)``, where best is the last good one; the first finite one is
    good. Any other is bad, NaN too. ``opt.lr.report(loss)`` tells a loss, whenever you have measured one.

    Parameters
    ----------
    lr : float
        The rate until the first fall.
    mode : {"min", "max"}
        With "max" larger is better, as of an accuracy: good is what is above ``best * (1 + threshold)``.
    factor : float, default 0.1
        What the rate is multiplied by, >= 0 and < 1.
    patience : int, default 10
        How many bad losses in a row change nothing; the next one does.
    threshold : float, default 1e-4
        How much better a good loss is: a part of the best one, or with `threshold_mode` "abs" a difference.
    threshold_mode : {"rel", "abs"}
        With "abs", good is what is below ``best - threshold``, or above ``best + threshold``.
    cooldown : int, default 0
        How many losses after a fall are not counted as bad.
    min_lr : float, default 0
        The rate falls no lower.
    eps : float, default 1e-8
        A fall by no more than this is left out.
    state : tuple, default ()
        What it has made of the losses: the rate, the best one (None: none was good), the bad ones in a row, the rest of
        the cooldown. ``opt.lr.arguments["state"]`` reads it; JSON, checkpoints and pickles keep it.

    Notes
    -----
    ``torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, …)``, with its order of arguments, defaults and numbers; its
    ``step(loss)`` is `Schedule.report`. ``optax.contrib.reduce_on_plateau`` scales updates, by averages of losses.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> opt = fastadam.Adam(np.ones(3), lr=plateau(0.1, factor=0.5, patience=1))
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     opt.step(np.ones(3))
    ...     opt.lr.report(loss)
    >>> opt.rate, opt.lr(opt.t + 1)
    (0.1, 0.05)
    """
    sign, best_of_none = (1, math.inf) if mode == "min" else (-1, -math.inf)
    rate, best, bad, cooling = state or (lr, None, 0, 0)
    bar = best_of_none if best is None else best
    bar = bar * (1.0 - sign * threshold) if threshold_mode == "rel" else bar - sign * threshold
    best, bad = (loss, 0) if sign * loss < sign * bar else (best, bad + 1)
    if cooling:
        cooling, bad = cooling - 1, 0
    if bad > patience:
        lower = max(rate * factor, min_lr)
        rate = lower if rate - lower > eps else rate
        cooling, bad = cooldown, 0
    return rate, best, bad, cooling


# ---------------------------------------------------------------- compositions


@schedule
def join(t: int, schedules: Sequence[Schedule], boundaries: Sequence[int]) -> float:
    r"""One schedule after another, each counting its own steps from 1.

    .. math::
        η_t = s_i(t - b_i) \quad \text{for } b_i < t ≤ b_{i+1}, \quad b_0 = 0, \; b_n = ∞

    Parameters
    ----------
    schedules : list of Schedule
        At least one. The last has no end: after its own it stays at its final rate.
    boundaries : list of int
        One fewer than schedules, each larger than the one before: the last step of each schedule but the last.

    Notes
    -----
    ``optax.join_schedules(schedules, boundaries)``;
    ``torch.optim.lr_scheduler.SequentialLR(schedulers=schedules, milestones=boundaries)``.

    Examples
    --------
    >>> rate = join([warmup(1.0, 2), exponential(1.0, 0.5)], [2])
    >>> [rate(t) for t in (1, 2, 3, 4, 5)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"boundaries: expected {len(schedules) - 1}, one fewer than schedules, got {len(boundaries)} of them"
        )
    k = bisect_left(boundaries, t)
    return schedules[k](t - boundaries[k - 1] if k else t)


@schedule
def product(t: int, schedules: Sequence[Schedule]) -> float:
    r"""The product of schedules: give one of them the rate, and let the others be factors around 1.

    .. math::
        η_t = \prod_i s_i(t)

    Parameters
    ----------
    schedules : list of Schedule
        At least one. The product is constant when all of them are.

    Notes
    -----
    ``torch.optim.lr_scheduler.ChainedScheduler``, of schedulers that multiply the rate, as ``LinearLR``, ``StepLR`` and
    ``ExponentialLR`` do; in optax a function of one's own.

    Examples
    --------
    >>> rate = product([warmup(1.0, 2), exponential(0.8, 0.5)])
    >>> [rate(t) for t in (1, 2, 3, 4)]
    [0.0, 0.2, 0.2, 0.1]
    """
    return math.prod(part(t) for part in schedules)
