"""What came after `torch.optim`'s own: Lion, AdEMAMix, ADOPT, Schedule-Free."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..base import Optimizer
from ..options import Rate, a_power, count, flag, non_negative, option, rate, rate_or_schedule, three_betas, two_betas
from ..stepped import Swapping

__all__ = ["ADOPT", "AdEMAMix", "Lion", "ScheduleFreeAdamW"]


class Lion(Optimizer):
    r"""Lion: the sign of a momentum, so that every element moves by the rate.

    .. math::
        θ_t &= (1 - lr · λ) \, θ_{t-1} - lr · \operatorname{sign}(β_1 m_{t-1} + (1 - β_1) \, g_t) \\
        m_t &= β_2 m_{t-1} + (1 - β_2) \, g_t

    with λ the ``weight_decay``.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`.
    lr : float or callable, default 1e-4
        Take 3 to 10 times less than for Adam, and as many times more decay.
    betas : (float, float), default (0.9, 0.99)
        Of the mean whose sign is taken, and of the mean that is kept.
    weight_decay : float, default 0
        λ, decoupled: times the rate.

    Notes
    -----
    State ``m``: half of Adam's memory. Source: Chen et al., arXiv:2302.06675, Algorithm 2, with its betas. The
    default rate is that of the authors' code. optax has a ``weight_decay`` of 1e-3.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0, 1.0, 1.0])
    >>> fastadam.Lion(x, lr=0.1).step(np.array([30.0, -0.001, 0.0]))
    >>> x
    array([0.9, 1.1, 1. ])
    """

    lr: Rate = option(default=1e-4, check=rate_or_schedule)
    betas: tuple[float, float] = option(default=(0.9, 0.99), check=two_betas, hyper=("beta1", "beta2"))
    weight_decay: float = option(default=0.0, check=non_negative)

    rules: ClassVar = ("lion",)
    constants: ClassVar = {"decoupled": 1.0}


class AdEMAMix(Optimizer):
    r"""AdEMAMix: Adam with a second, slow mean of the gradients.

    .. math::
        s_t &= β_3 s_{t-1} + (1 - β_3) \, g_t \\
        θ_t &= (1 - lr · λ) \, θ_{t-1} - lr · (\hat m_t + α s_t) \, / \, (\sqrt{\hat v_t} + ε)

    with the moments of `Adam`, and λ the ``weight_decay``. The slow mean is not corrected.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`.
    lr : float or callable, default 1e-3
    betas : (float, float, float), default (0.9, 0.999, 0.9999)
        Decay of the fast mean, of the second moment, and of the slow mean.
    alpha : float, default 5
        The weight of the slow mean.
    eps : float, default 1e-8
    weight_decay : float, default 0
        λ, decoupled: times the rate.
    alpha_warmup, beta3_warmup : float, default 0
        Over so many steps α grows from 0 along a line, and β₃ from β₁ so that 1 / log β₃ does. The paper takes the
        length of the run. 0 is without a warm-up.

    Notes
    -----
    States ``m``, ``v`` and ``s``. Source: Pagliardini, Ablin & Grangier, arXiv:2409.03137, Algorithm 1. The defaults
    are those of ``optax.contrib.ademamix``, which takes functions for α and β₃.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> fastadam.AdEMAMix(x, lr=0.1, betas=(0.9, 0.999, 0.9), alpha=5).step(np.array([3.0]))
    >>> x.round(6)  # 1 - 0.1 * (1 + 5 * 0.1)
    array([0.85])
    """

    lr: Rate = option(default=1e-3, check=rate_or_schedule)
    betas: tuple[float, float, float] = option(
        default=(0.9, 0.999, 0.9999), check=three_betas, hyper=("beta1", "beta2", "beta3")
    )
    alpha: float = option(default=5.0, check=non_negative)
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    alpha_warmup: float = option(default=0.0, check=non_negative, kw_only=True)
    beta3_warmup: float = option(default=0.0, check=non_negative, kw_only=True)

    rules: ClassVar = ("ademamix",)
    constants: ClassVar = {"decoupled": 1.0}


class ADOPT(Optimizer):
    r"""ADOPT: Adam that divides each gradient by the second moment before it, so that any β₂ converges.

    .. math::
        u_t &= \operatorname{clip}(g_t / \max(\sqrt{v_{t-1}}, ε), \, ±(t - 1)^{1/4}) \\
        m_t &= β_1 m_{t-1} + (1 - β_1) \, u_t \\
        θ_t &= θ_{t-1} - lr · m_t \\
        v_t &= β_2 v_{t-1} + (1 - β_2) \, g_t^2

    The first step only sets :math:`v_1 = g_1^2`.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`.
    lr : float or callable, default 1e-3
    betas : (float, float), default (0.9, 0.9999)
    eps : float, default 1e-6
        The least that is divided by.
    weight_decay : float, default 0
        L2 decay; decoupled where `decoupled_weight_decay`.
    decoupled_weight_decay : bool, default False
        Shrink θ by ``1 - lr * weight_decay`` before the step instead.
    use_clipping : bool, default True
        Clip u, as the paper's later versions do.

    Notes
    -----
    States ``m`` and ``v``. Source: Taniguchi et al., arXiv:2411.02853, Algorithm 2 with the clipping of its third
    version. Numbers and defaults are those of the authors' code and of ``optax.contrib.adopt``; but decoupled decay,
    which optax has not, begins with the first step here, and with the second in the authors' code.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> opt = fastadam.ADOPT(x, lr=0.1, betas=(0.5, 0.9))
    >>> opt.step(np.array([2.0])); opt.step(np.array([1.0]))
    >>> x  # 1 - 0.1 * (1 - 0.5) * 1/2
    array([0.975])
    """

    lr: Rate = option(default=1e-3, check=rate_or_schedule)
    betas: tuple[float, float] = option(default=(0.9, 0.9999), check=two_betas, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-6, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    decoupled_weight_decay: bool = option(default=False, check=flag, kw_only=True, hyper=("decoupled",))
    use_clipping: bool = option(default=True, check=flag, kw_only=True)

    rules: ClassVar = ("adopt",)


class ScheduleFreeAdamW(Swapping, Optimizer):
    r"""AdamW without a schedule: gradients are taken between its iterates and their average, which is the result.

    .. math::
        z_t &= z_{t-1} - η_t \left( \frac{g_t}{\sqrt{\hat v_t} + ε} + λ \, y_{t-1} \right) \\
        x_t &= (1 - c_t) \, x_{t-1} + c_t z_t, \qquad c_t = w_t / \textstyle\sum_{i=1}^{t} w_i,
            \quad w_t = t^r η_t^{\,p} \\
        y_t &= (1 - β_1) \, z_t + β_1 x_t

    with y in the parameters, where the gradients are taken; :math:`\hat v` of `Adam`, λ the ``weight_decay``, p the
    ``weight_lr_power``, and η the rate, which grows along a line over ``warmup_steps``. The weights to look at and to
    use are x: ``with opt.swapped():`` they stand in the parameters.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`. ``bounds`` hold for z, and so for x and y.
    lr : float, default 2.5e-3
        No schedule: the average does what a falling rate is for. Take 1 to 10 times the rate of AdamW.
    betas : (float, float), default (0.9, 0.999)
        β₁ is how near to the average the gradients are taken.
    eps : float, default 1e-8
        Added to the root of the corrected second moment.
    weight_decay : float, default 0
        λ, decoupled: times the rate.
    warmup_steps : int, default 0
        The rate of step t is ``lr * min(1, t / warmup_steps)``.
    r : float, default 0
        The power of t in the weights of the average, at most 10.
    weight_lr_power : float, default 2
        The power of the rate in them, at most 10.

    Notes
    -----
    States ``v``, ``z`` and ``x``, which begin as 0, and as the parameters at the first step. Source: Defazio et al.,
    arXiv:2405.15682. Numbers and defaults are those of the authors' ``AdamWScheduleFree``, whose weights go by the
    largest rate so far: they are the same here while ``lr`` stays as it is in
    the warm-up, and is not raised after it. That code keeps y and z and computes x when
    it is asked for, which moves 28 bytes an element and not 36; kept, x can be looked at and put back to the bit.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([10.0, 10.0])
    >>> opt = fastadam.ScheduleFreeAdamW(x, lr=1.0)
    >>> for _ in range(200):
    ...     opt.step(np.array([2.0, 100.0]) * x)
    >>> bool(np.abs(opt.state["x"][0]).max() < 0.1)
    True
    """

    lr: float = option(default=2.5e-3, check=rate)
    betas: tuple[float, float] = option(default=(0.9, 0.999), check=two_betas, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative, hyper=("decay",))
    warmup_steps: int = option(default=0, check=count)
    r: float = option(default=0.0, check=a_power)
    weight_lr_power: float = option(default=2.0, check=a_power)

    rules: ClassVar = ("schedule_free",)
    average: ClassVar = "x"

    @classmethod
    def initial(cls, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """Iterate and average begin as the parameter."""
        return {"z": p, "x": p}
