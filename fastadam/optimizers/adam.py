"""Adam and its relatives: a mean of the gradients, divided by a measure of their size."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ..base import Optimizer
from ..options import Rate, flag, non_negative, option, rate_at, rate_or_schedule, two_betas, up_to_one
from ..rule import Rule
from ..rules import RULES

__all__ = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


class Adam(Optimizer):
    r"""Adam, with AMSGrad as an option.

    .. math::
        m_t &= β_1 m_{t-1} + (1 - β_1) g_t, & \hat m_t &= m_t / (1 - β_1^t) \\
        v_t &= β_2 v_{t-1} + (1 - β_2) g_t^2, & \hat v_t &= v_t / (1 - β_2^t) \\
        θ_t &= θ_{t-1} - lr · \hat m_t / (\sqrt{\hat v_t} + ε)

    where :math:`g_t` is the gradient plus ``weight_decay`` times θ.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-3
        The learning rate, or a function of the step count t.
    betas : (float, float), default (0.9, 0.999)
        Decay rates of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root of the bias-corrected second moment.
    weight_decay : float, default 0
        Added to the gradient as L2 regularization, or decoupled with `decoupled_weight_decay`.
    amsgrad : bool, default False
        Divide by the square root of the largest v so far. That maximum is a third state, ``"v_max"``. It is taken
        before the bias correction, as in torch and Keras (optax corrects first).
    decoupled_weight_decay : bool, default False
        Multiply θ by ``1 - lr * weight_decay`` before the step, instead of the L2 term: this is `AdamW`.
    beta_decay : float, default 1
        A factor for both betas at every step. At step t they are ``beta * beta_decay**t``. The bias corrections raise
        these betas to the power t.
    alpha_decay : bool, default False
        The learning rate of step t is ``lr / sqrt(t)``.
    eps_hat : bool, default False
        If True, add eps to the square root of v *before* the bias correction, as in section 2 of the paper,
        TensorFlow, Keras and scikit-learn. If False, add it after, as in Algorithm 1 of the paper and in torch.

    Notes
    -----
    The states are ``m`` and ``v``. Source: Kingma & Ba, arXiv:1412.6980; AMSGrad: Reddi et al., arXiv:1904.09237.
    Results and defaults are those of ``torch.optim.Adam``.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([10.0, 10.0])
    >>> opt = fastadam.Adam(x, lr=0.4)
    >>> for _ in range(200):
    ...     opt.step(np.array([2.0, 100.0]) * x)
    >>> bool(np.abs(x).max() < 1e-3)
    True
    """

    lr: Rate = option(default=1e-3, check=rate_or_schedule)
    betas: tuple[float, float] = option(default=(0.9, 0.999), check=two_betas, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    amsgrad: bool = option(default=False, check=flag)
    decoupled_weight_decay: bool = option(default=False, check=flag, kw_only=True, hyper=("decoupled",))
    beta_decay: float = option(default=1.0, check=up_to_one, kw_only=True)
    alpha_decay: bool = option(default=False, check=flag, kw_only=True)
    eps_hat: bool = option(default=False, check=flag, kw_only=True)

    rules: ClassVar = ("adam", "amsgrad")
    torch_names: ClassVar = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}

    @classmethod
    def rule(cls, values: Mapping[str, Any]) -> Rule:
        """The rule `adam`, or `amsgrad` if that option is on."""
        return RULES["amsgrad" if values["amsgrad"] else "adam"]

    @classmethod
    def schedule(cls, values: Mapping[str, Any]) -> Rate:
        """``lr``; with ``alpha_decay``, ``lr`` divided by the square root of the step count."""
        lr: Rate = values["lr"]
        return (lambda t: rate_at(lr, t) / math.sqrt(t)) if values["alpha_decay"] else lr


class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    .. math::
        θ'_t &= (1 - lr · λ) \, θ_{t-1} \\
        θ_t &= θ'_t - lr · \hat m_t / (\sqrt{\hat v_t} + ε)

    where λ is the ``weight_decay``. The moments are those of `Adam`. The decay does not enter them.

    Parameters
    ----------
    weight_decay : float, default 1e-2
        λ. It is multiplied by the learning rate.
    params, lr, betas, eps, amsgrad, maximize, beta_decay, alpha_decay, eps_hat, **settings
        See `Adam`.

    Notes
    -----
    The states are ``m`` and ``v``. Source: Loshchilov & Hutter, arXiv:1711.05101. Results and defaults are those of
    ``torch.optim.AdamW``, which multiplies the decay by the learning rate, unlike the paper.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> w = np.ones(3)
    >>> fastadam.AdamW(w, lr=0.1, weight_decay=0.5).step(np.zeros(3))
    >>> w
    array([0.95, 0.95, 0.95])
    """

    weight_decay: float = option(default=1e-2, check=non_negative)
    decoupled_weight_decay: bool = option(default=True, check=flag, init=False, hyper=("decoupled",))


class Adamax(Optimizer):
    r"""AdaMax: Adam with the infinity norm in place of the second moment.

    .. math::
        m_t &= β_1 m_{t-1} + (1 - β_1) g_t \\
        u_t &= \max(β_2 u_{t-1}, |g_t| + ε) \\
        θ_t &= θ_{t-1} - \frac{lr}{1 - β_1^t} \frac{m_t}{u_t}

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 2e-3
        The learning rate, or a function of the step count t.
    betas : (float, float), default (0.9, 0.999)
        Decay rates of m and u, each in [0, 1).
    eps : float, default 1e-8
        Added to \|g\| within the maximum, as in torch. With 0, as in the paper, an element whose gradients were all
        zero has u = 0 and does not move.
    weight_decay : float, default 0
        L2 regularization: ``weight_decay`` times θ is added to the gradient.

    Notes
    -----
    The states are ``m`` and ``u``. Source: Kingma & Ba, arXiv:1412.6980, section 7.1. Results and defaults are those
    of ``torch.optim.Adamax``.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0, 1.0])
    >>> fastadam.Adamax(x, lr=0.1, eps=0).step(np.array([-3.0, 0.0]))
    >>> x
    array([1.1, 1. ])
    """

    lr: Rate = option(default=2e-3, check=rate_or_schedule)
    betas: tuple[float, float] = option(default=(0.9, 0.999), check=two_betas, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)

    rules: ClassVar = ("adamax",)
    torch_names: ClassVar = {"m": "exp_avg", "u": "exp_inf"}


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's momentum.

    .. math::
        μ_t &= β_1 (1 - ½ · 0.96^{t ψ}) \\
        θ_t &= θ_{t-1} - lr · \left( \frac{(1 - μ_t) \, g_t}{1 - \prod_{i=1}^{t} μ_i}
            + \frac{μ_{t+1} \, m_t}{1 - \prod_{i=1}^{t+1} μ_i} \right) / \, (\sqrt{\hat v_t} + ε)

    where m and :math:`\hat v` are those of `Adam`, and ψ is the ``momentum_decay``.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 2e-3
        The learning rate, or a function of the step count t.
    betas : (float, float), default (0.9, 0.999)
        Decay rates of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root of the bias-corrected second moment.
    weight_decay : float, default 0
        Added to the gradient as L2 regularization, or decoupled with `decoupled_weight_decay`.
    momentum_decay : float, default 4e-3
        ψ. The larger it is, the faster μ rises from about β₁ / 2 to β₁.
    decoupled_weight_decay : bool, default False
        Multiply θ by ``1 - lr * weight_decay`` before the step, instead of the L2 term.

    Notes
    -----
    The states are ``m`` and ``v``. Source: Dozat, ICLR workshop (2016). Results and defaults are those of
    ``torch.optim.NAdam``, with one difference. Here the product of all μ is computed at each step, from the step count
    and the present options. torch stores the product, so a change of β₁ affects only the later factors there.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0, 1.0])
    >>> fastadam.NAdam(x, lr=0.1).step(np.array([3.0, 0.0]))
    >>> x.round(4)
    array([0.8944, 1.    ])
    """

    lr: Rate = option(default=2e-3, check=rate_or_schedule)
    betas: tuple[float, float] = option(default=(0.9, 0.999), check=two_betas, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    momentum_decay: float = option(default=4e-3, check=non_negative)
    decoupled_weight_decay: bool = option(default=False, check=flag, hyper=("decoupled",))

    rules: ClassVar = ("nadam",)
    torch_names: ClassVar = {"m": "exp_avg", "v": "exp_avg_sq"}
    torch_scalars: ClassVar = ("step", "mu_product")


class RAdam(Optimizer):
    r"""RAdam: Adam without its denominator in the first steps, where the estimate of v is too uncertain.

    .. math::
        ρ_∞ &= \frac{2}{1 - β_2} - 1, \qquad ρ_t = ρ_∞ - \frac{2 t β_2^t}{1 - β_2^t} \\
        r_t &= \sqrt{\frac{(ρ_t - 4)(ρ_t - 2) ρ_∞}{(ρ_∞ - 4)(ρ_∞ - 2) ρ_t}} \\
        θ_t &= θ_{t-1} - lr · \hat m_t · \begin{cases}
            r_t \sqrt{1 - β_2^t} \, / \, (\sqrt{v_t} + ε) & \text{where } ρ_t > 5 \\
            1 & \text{else} \end{cases}

    with the moments of `Adam`. For β₂ = 0.999 the first five steps have no denominator.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-3
        The learning rate, or a function of the step count t.
    betas : (float, float), default (0.9, 0.999)
        Decay rates of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root of the second moment, before the bias correction.
    weight_decay : float, default 0
        Added to the gradient as L2 regularization, or decoupled with `decoupled_weight_decay`.
    decoupled_weight_decay : bool, default False
        Multiply θ by ``1 - lr * weight_decay`` before the step, instead of the L2 term.

    Notes
    -----
    The states are ``m`` and ``v``. Source: Liu et al., arXiv:1908.03265. Results and defaults are those of
    ``torch.optim.RAdam``.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0, 1.0])
    >>> fastadam.RAdam(x, lr=0.1).step(np.array([3.0, -0.5]))
    >>> x  # 1 - 0.1 g
    array([0.7 , 1.05])
    """

    lr: Rate = option(default=1e-3, check=rate_or_schedule)
    betas: tuple[float, float] = option(default=(0.9, 0.999), check=two_betas, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    decoupled_weight_decay: bool = option(default=False, check=flag, hyper=("decoupled",))

    rules: ClassVar = ("radam",)
    torch_names: ClassVar = {"m": "exp_avg", "v": "exp_avg_sq"}
