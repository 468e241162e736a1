"""Newer optimizers, which `torch.optim` does not have: Lion, AdEMAMix, ADOPT, Schedule-Free AdamW."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..base import Optimizer
from ..options import Rate, a_power, count, flag, non_negative, option, rate, rate_or_schedule, three_betas, two_betas
from ..stepped import Swapping

__all__ = ["ADOPT", "AdEMAMix", "Lion", "ScheduleFreeAdamW"]


class Lion(Optimizer):
    r"""Lion: the step is the sign of a momentum, so every element moves by the learning rate.

    .. math::
        θ_t &= (1 - lr · λ) \, θ_{t-1} - lr · \operatorname{sign}(β_1 m_{t-1} + (1 - β_1) \, g_t) \\
        m_t &= β_2 m_{t-1} + (1 - β_2) \, g_t

    where λ is the ``weight_decay``.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-4
        The learning rate, or a function of the step count t. Use a rate 3 to 10 times smaller than for Adam, and a
        decay as many times larger.
    betas : (float, float), default (0.9, 0.99)
        Decay rates of the mean under the sign, and of the state m, each in [0, 1).
    weight_decay : float, default 0
        λ. It is decoupled, and multiplied by the learning rate.

    Notes
    -----
    The state is ``m``: half the memory of Adam's states. Source: Chen et al., arXiv:2302.06675, Algorithm 2, with its
    betas. The default learning rate is that of the authors' code. The default ``weight_decay`` of optax is 1e-3.

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

    with the moments of `Adam`, where λ is the ``weight_decay``. The slow mean s has no bias correction.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-3
        The learning rate, or a function of the step count t.
    betas : (float, float, float), default (0.9, 0.999, 0.9999)
        Decay rates of the fast mean, of the second moment, and of the slow mean, each in [0, 1).
    alpha : float, default 5
        α: the weight of the slow mean.
    eps : float, default 1e-8
        Added to the square root of the bias-corrected second moment.
    weight_decay : float, default 0
        λ. It is decoupled, and multiplied by the learning rate.
    alpha_warmup, beta3_warmup : float, default 0
        The numbers of steps over which α and β₃ rise; 0 means no warm-up. α rises linearly from 0. β₃ rises from β₁,
        with 1 / log β₃ linear in t. The paper warms up over the whole run.

    Notes
    -----
    The states are ``m``, ``v`` and ``s``. Source: Pagliardini, Ablin & Grangier, arXiv:2409.03137, Algorithm 1. The
    defaults are those of ``optax.contrib.ademamix``, where α and β₃ may be functions.

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
    r"""ADOPT: Adam that divides each gradient by the previous second moment, and so converges with any β₂.

    .. math::
        u_t &= \operatorname{clip}(g_t / \max(\sqrt{v_{t-1}}, ε), \, ±(t - 1)^{1/4}) \\
        m_t &= β_1 m_{t-1} + (1 - β_1) \, u_t \\
        θ_t &= θ_{t-1} - lr · m_t \\
        v_t &= β_2 v_{t-1} + (1 - β_2) \, g_t^2

    The first step only sets :math:`v_1 = g_1^2`.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-3
        The learning rate, or a function of the step count t.
    betas : (float, float), default (0.9, 0.9999)
        Decay rates of the two moments, each in [0, 1).
    eps : float, default 1e-6
        The smallest value of the denominator.
    weight_decay : float, default 0
        Added to the gradient as L2 regularization, or decoupled with `decoupled_weight_decay`.
    decoupled_weight_decay : bool, default False
        Multiply θ by ``1 - lr * weight_decay`` before the step, instead of the L2 term.
    use_clipping : bool, default True
        Clip u, as the later versions of the paper do.

    Notes
    -----
    The states are ``m`` and ``v``. Source: Taniguchi et al., arXiv:2411.02853, Algorithm 2 with the clipping of its
    third version. Results and defaults are those of the authors' code and of ``optax.contrib.adopt``, with one
    difference: decoupled decay acts from the first step on. In the authors' code it acts from the second step on; optax
    does not have it.

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
    r"""AdamW that needs no learning-rate schedule: the result is a weighted average of the iterates.

    .. math::
        z_t &= z_{t-1} - η_t \left( \frac{g_t}{\sqrt{\hat v_t} + ε} + λ \, y_{t-1} \right) \\
        x_t &= (1 - c_t) \, x_{t-1} + c_t z_t, \qquad c_t = w_t / \textstyle\sum_{i=1}^{t} w_i,
            \quad w_t = t^r η_t^{\,p} \\
        y_t &= (1 - β_1) \, z_t + β_1 x_t

    The parameters hold y, where the gradients are taken. :math:`\hat v` is that of `Adam`, λ is the ``weight_decay``,
    and p the ``weight_lr_power``. The rate η rises linearly over ``warmup_steps``. The trained weights are x: within
    ``with opt.swapped():`` the parameters hold x.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors. ``bounds`` hold for z, and so for x and y.
    lr : float, default 2.5e-3
        The learning rate, not a schedule: the average does the work of a decaying rate. Use 1 to 10 times the rate of
        AdamW.
    betas : (float, float), default (0.9, 0.999)
        β₁ is the share of the average x in y. β₂ is the decay rate of the second moment. Each is in [0, 1).
    eps : float, default 1e-8
        Added to the square root of the bias-corrected second moment.
    weight_decay : float, default 0
        λ. It is decoupled, and multiplied by the learning rate.
    warmup_steps : int, default 0
        The learning rate of step t is ``lr * min(1, t / warmup_steps)``.
    r : float, default 0
        The power of t in the weights of the average, at most 10.
    weight_lr_power : float, default 2
        p: the power of the learning rate in the weights of the average, at most 10.

    Notes
    -----
    The states are ``v``, ``z`` and ``x``. v starts at 0, z and x as the parameters. Source: Defazio et al.,
    arXiv:2405.15682. Results and defaults are those of the authors' ``AdamWScheduleFree``, with one difference. Its
    weights use the largest learning rate so far. They are the same here while ``lr`` does not change in the warm-up and
    is not raised later. The authors' code keeps y and z, and computes x when asked, which moves 28 bytes per element.
    Here x is kept, which moves 36, so that x can be read and the parameters restored exactly.

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
        """The iterate z and the average x start as copies of the parameter."""
        return {"z": p, "x": p}
