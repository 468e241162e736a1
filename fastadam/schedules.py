"""Learning-rate schedules: functions of the step count t, for ``lr=`` of every optimizer.
Each function here takes the arguments of a formula, and returns a `Schedule`. `plateau` alone depends on a loss, which
you report with ``opt.lr.report(loss)``.

The first step is t = 1, and k = t - 1 steps are done before step t. The rate of step t is that of torch's scheduler
after k calls of ``step()``, and that of optax's schedule at count k. After its end a schedule stays at its final rate.

Rates (``lr``, ``start``, ``end``, ``final``) are finite and >= 0, in the units of an optimizer's ``lr``. Counts
(``steps``, ``every``) are whole and >= 1. For other arguments the function raises a TypeError or a ValueError that
names the argument.

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

# ---------------------------------------------------------------- shared parts of the formulas


def _between(start: float, end: float, x: float) -> float:
    """Linear from `start` at x = 0 to `end` at x = 1, exact at both ends."""
    return (1.0 - x) * start + x * end


def _half_wave(start: float, end: float, x: float) -> float:
    """Half a cosine wave from `start` at x = 0 to `end` at x = 1, exact at both ends."""
    return _between(end, start, (1.0 + math.cos(math.pi * x)) / 2.0)


def _done(t: int, steps: int) -> float:
    """The share of the steps that are done before step t, at most 1."""
    return min((t - 1) / steps, 1.0)


# ---------------------------------------------------------------- the schedules


@schedule
def constant(t: int, lr: float) -> float:
    r"""The same rate at every step.

    .. math::
        η_t = lr

    A number for ``lr`` means the same. As a schedule it can be composed with others.

    Notes
    -----
    Same as ``optax.constant_schedule(lr)``, and as no scheduler in torch.

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """
    return lr


@schedule
def linear(t: int, start: float, end: float, steps: int) -> float:
    r"""Linear from `start` to `end`, and constant from step ``steps + 1`` on.

    .. math::
        η_t = (1 - x) \, start + x \, end, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    start, end : float
        The rate of step 1, and the rate of step ``steps + 1`` and all later ones.
    steps : int
        The number of steps from `start` to `end`.

    Notes
    -----
    Same as ``optax.linear_schedule(start, end, steps)``, and as ``torch.optim.lr_scheduler.LinearLR``, which takes
    factors of the optimizer's rate, at most 1.

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
        The number of steps from `start` to `lr`.
    start : float, default 0
        The rate of step 1. With 0 that step updates the states, but not the parameters.

    Notes
    -----
    Same as ``optax.warmup_constant_schedule(start, lr, steps)``, and as
    ``torch.optim.lr_scheduler.LinearLR(start_factor=start / lr, total_iters=steps)``, which refuses a start of 0.

    Examples
    --------
    >>> [warmup(1.0, steps=4)(t) for t in (1, 2, 3, 4, 5, 6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return linear.formula(t, start, lr, steps)


@schedule
def cosine(t: int, lr: float, steps: int, final: float = 0.0) -> float:
    r"""Half a cosine wave from `lr` to `final`, and constant from step ``steps + 1`` on.

    .. math::
        η_t = final + (lr - final) \frac{1 + \cos π x}{2}, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    lr : float
        The rate of step 1.
    steps : int
        The number of steps from `lr` to `final`.
    final : float, default 0
        The rate of step ``steps + 1`` and all later ones.

    Notes
    -----
    Same as ``optax.cosine_decay_schedule(lr, steps, alpha=final / lr)``, and until its last step as
    ``torch.optim.lr_scheduler.CosineAnnealingLR(T_max=steps, eta_min=final)``, which rises again later. Source:
    Loshchilov & Hutter, arXiv:1608.03983. For the warm restarts of that paper, `join` several cosines.

    Examples
    --------
    >>> [round(cosine(1.0, steps=4)(t), 3) for t in (1, 2, 3, 4, 5, 6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    return _half_wave(lr, final, _done(t, steps))


@schedule
def polynomial(t: int, lr: float, steps: int, power: float = 1.0, final: float = 0.0) -> float:
    r"""A power of the remaining share of the steps, from `lr` to `final`; constant from step ``steps + 1`` on.

    .. math::
        η_t = final + (lr - final) (1 - x)^{power}, \quad x = \min((t - 1) / steps, 1)

    Parameters
    ----------
    lr : float
        The rate of step 1.
    steps : int
        The number of steps from `lr` to `final`.
    power : float, default 1
        Above 0. With 1 the rate is linear; with more it falls fastest at first, with less fastest at the end.
    final : float, default 0
        The rate of step ``steps + 1`` and all later ones.

    Notes
    -----
    Same as ``optax.polynomial_schedule(lr, final, power, steps)``. With final 0, the same as
    ``torch.optim.lr_scheduler.PolynomialLR(total_iters=steps, power=power)``.

    Examples
    --------
    >>> [polynomial(1.0, steps=4, power=2)(t) for t in (1, 2, 3, 4, 5, 6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    return _between(final, lr, (1.0 - _done(t, steps)) ** power)


@schedule
def step(t: int, lr: float, every: int, factor: float = 0.1) -> float:
    r"""Step decay: the rate is multiplied by `factor` after every `every` steps. It has no last step.

    .. math::
        η_t = lr · factor^{⌊(t - 1) / every⌋}

    Parameters
    ----------
    lr : float
        The rate of the first `every` steps.
    every : int
        The number of steps with the same rate.
    factor : float, default 0.1
        At least 0. Above 1 the rate grows. A step whose rate would not be finite is a ValueError.

    Notes
    -----
    Same as ``torch.optim.lr_scheduler.StepLR(step_size=every, gamma=factor)``, and as
    ``optax.exponential_decay(lr, every, factor, staircase=True)``. In optax a factor of 0 means no decay.

    Examples
    --------
    >>> [step(1.0, every=2, factor=0.5)(t) for t in (1, 2, 3, 4, 5, 6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    return lr * factor ** ((t - 1) // every)


@schedule
def exponential(t: int, lr: float, factor: float) -> float:
    r"""Exponential decay: the rate is multiplied by `factor` after each step. It has no last step.

    .. math::
        η_t = lr · factor^{t - 1}

    Parameters
    ----------
    lr : float
        The rate of step 1.
    factor : float
        At least 0. Above 1 the rate grows, as in a search for the largest usable rate. A step whose rate would not be
        finite is a ValueError.

    Notes
    -----
    Same as ``torch.optim.lr_scheduler.ExponentialLR(gamma=factor)``, and as ``optax.exponential_decay(lr, 1, factor)``.
    In optax a factor of 0 means no decay.

    Examples
    --------
    >>> [exponential(1.0, factor=0.5)(t) for t in (1, 2, 3, 4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    return step.formula(t, lr, 1, factor)


@schedule
def inverse_sqrt(t: int, lr: float) -> float:
    r"""The rate falls with the square root of the step count. It has no last step.

    .. math::
        η_t = lr / \sqrt t

    Parameters
    ----------
    lr : float
        The rate of step 1.

    Notes
    -----
    Same bits as ``alpha_decay=True`` of `fastadam.Adam`. Source: Kingma & Ba, arXiv:1412.6980, section 4, which bounds
    the regret for this rate. In torch: ``LambdaLR(lambda k: (k + 1) ** -0.5)``. In optax: a function of your own.

    Examples
    --------
    >>> [inverse_sqrt(1.0)(t) for t in (1, 4, 16, 100)]
    [1.0, 0.5, 0.25, 0.1]
    """
    return lr / math.sqrt(t)


@schedule
def one_cycle(t: int, lr: float, steps: int, warmup: float = 0.3, div: float = 25.0, final_div: float = 1e4) -> float:
    r"""Half a cosine wave up to the peak `lr`, then another down. Constant from step `steps` on.

    .. math::
        η_t = \begin{cases}
            w(lr / div, \; lr, \; (t - 1) / (p - 1)) & t < p = warmup · steps \\
            w(lr, \; lr / div / final\_div, \; \min((t - p) / (steps - p), 1)) & t ≥ p
        \end{cases} \qquad w(a, b, x) = b + (a - b) \frac{1 + \cos π x}{2}

    Parameters
    ----------
    lr : float
        The peak: the rate of step p, if p is whole.
    steps : int
        The number of steps. The last of them is the first at the final rate.
    warmup : float, default 0.3
        The share of the steps in which the rate rises, >= 0 and < 1.
    div : float, default 25
        The ratio of the peak to the rate of step 1; above 0.
    final_div : float, default 1e4
        The ratio of the rate of step 1 to the final rate; above 0.

    Notes
    -----
    Same as ``torch.optim.lr_scheduler.OneCycleLR(max_lr=lr, total_steps=steps, …)``, but the momentum does not change,
    and torch refuses steps after the last. ``optax.cosine_onecycle_schedule(n, lr, pct, div, final_div)`` is
    ``one_cycle(lr, n + 1, (int(n * pct) + 1) / (n + 1), div, final_div)``. Source: Smith & Topin, arXiv:1708.07120.

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


# ---------------------------------------------------------------- a schedule that follows a loss


def _state(name: str, value: Any) -> tuple[Any, ...]:
    """Check the state of a `plateau`: empty, or the rate, the best loss, the bad losses since, the cooldown left."""
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
    r"""Reduce the rate on a plateau: it falls when more than `patience` losses in a row are not better.

    .. math::
        η ← \max(factor · η, \; min\_lr) \quad \text{after more than } patience \text{ bad losses in a row}

    A loss is good if it is below ``best * (1 - threshold)``, where best is the last good loss. The first finite loss is
    good. Any other is bad, NaN too. Call ``opt.lr.report(loss)`` whenever you have measured a loss.

    Parameters
    ----------
    lr : float
        The rate until the first reduction.
    mode : {"min", "max"}
        With "max" a larger value is better, as for an accuracy: it is good above ``best * (1 + threshold)``.
    factor : float, default 0.1
        The rate is multiplied by this number, >= 0 and < 1.
    patience : int, default 10
        The number of bad losses in a row that change nothing. The next one reduces the rate.
    threshold : float, default 1e-4
        How much better a good loss is: a share of the best loss, or with `threshold_mode` "abs" a difference.
    threshold_mode : {"rel", "abs"}
        With "abs", a loss is good below ``best - threshold``, or above ``best + threshold``.
    cooldown : int, default 0
        The number of losses after a reduction that do not count as bad.
    min_lr : float, default 0
        The lowest rate.
    eps : float, default 1e-8
        A reduction by at most this much is omitted.
    state : tuple, default ()
        The result of the losses so far: the rate, the best loss (None: none was good), the bad losses in a row, the
        cooldown left. ``opt.lr.arguments["state"]`` reads it. JSON, checkpoints and pickles keep it.

    Notes
    -----
    Same as ``torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, …)``, with its order of arguments and its defaults.
    `Schedule.report` is its ``step(loss)``. ``optax.contrib.reduce_on_plateau`` scales updates, by averaged losses.

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
    r"""One schedule after another. Each counts its own steps from 1.

    .. math::
        η_t = s_i(t - b_i) \quad \text{for } b_i < t ≤ b_{i+1}, \quad b_0 = 0, \; b_n = ∞

    Parameters
    ----------
    schedules : list of Schedule
        At least one. The last holds for all later steps: after its end it stays at its final rate.
    boundaries : list of int
        The last step of each schedule except the last one: one fewer than schedules, in increasing order.

    Notes
    -----
    Same as ``optax.join_schedules(schedules, boundaries)``, and as
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
    r"""The product of schedules: one of them has the rate, the others are factors around 1.

    .. math::
        η_t = \prod_i s_i(t)

    Parameters
    ----------
    schedules : list of Schedule
        At least one.

    Notes
    -----
    Same as ``torch.optim.lr_scheduler.ChainedScheduler`` with schedulers that multiply the rate, such as ``LinearLR``,
    ``StepLR`` and ``ExponentialLR``. In optax: a function of your own.

    Examples
    --------
    >>> rate = product([warmup(1.0, 2), exponential(0.8, 0.5)])
    >>> [rate(t) for t in (1, 2, 3, 4)]
    [0.0, 0.2, 0.2, 0.1]
    """
    return math.prod(part(t) for part in schedules)
