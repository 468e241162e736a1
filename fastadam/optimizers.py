"""The optimizers: names, defaults and states of `torch.optim`, over the rules of `fastadam.rules`.
A class says which rule its options choose and what the rule's hyper-parameters are; it knows no loop.
"""

import math
from typing import Any, ClassVar, Unpack

from .base import How, Optimizer, Option, Params, Rate
from .rules import RULES, Rule


class Adam(Optimizer):
    r"""Adam, and AMSGrad.

    .. math::
        m_t &= β_1 m_{t-1} + (1 - β_1) g_t, & \hat m_t &= m_t / (1 - β_1^t) \\
        v_t &= β_2 v_{t-1} + (1 - β_2) g_t^2, & \hat v_t &= v_t / (1 - β_2^t) \\
        θ_t &= θ_{t-1} - lr · \hat m_t / (\sqrt{\hat v_t} + ε)

    with :math:`g_t` the gradient plus ``weight_decay`` times θ.

    Parameters
    ----------
    params, maximize, **how
        See `Optimizer`.
    lr : float or callable, default 1e-3
        The rate, or a function of the step count.
    betas : (float, float), default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the root of the corrected second moment.
    weight_decay : float, default 0
        L2 decay, added to the gradient; decoupled where `decoupled_weight_decay`.
    amsgrad : bool, default False
        Divide by the root of the largest v so far, which is a third state ``"v_max"``. The maximum is over v before
        its correction, as in torch and Keras (optax corrects first).
    decoupled_weight_decay : bool, default False
        Shrink θ by ``1 - lr * weight_decay`` before the step instead: `AdamW`.
    beta_decay : float, default 1
        Both betas are multiplied by it at every step, before use: at step t they are ``beta * beta_decay**t``, and the
        corrections take that beta to the power t.
    alpha_decay : bool, default False
        The rate of step t is ``lr / sqrt(t)``.
    eps_hat : bool, default False
        Add eps to the root of v *before* its correction, as in the paper's section 2, TensorFlow, Keras and
        scikit-learn; otherwise after it, as in the paper's Algorithm 1 and in torch.

    Notes
    -----
    States ``m`` and ``v``. Source: Kingma & Ba, arXiv:1412.6980; AMSGrad: Reddi et al., arXiv:1904.09237. Numbers and
    defaults are those of ``torch.optim.Adam``.

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

    betas, eps, amsgrad, decoupled_weight_decay = Option(), Option(), Option(), Option()
    beta_decay, alpha_decay, eps_hat = Option(), Option(), Option()

    torch_names: ClassVar = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        beta_decay: float = 1.0,
        alpha_decay: bool = False,
        eps_hat: bool = False,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
                "beta_decay": beta_decay,
                "alpha_decay": alpha_decay,
                "eps_hat": eps_hat,
            },
            **how,
        )

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        return RULES["amsgrad" if values["amsgrad"] else "adam"]

    @classmethod
    def _hyper(cls, values: dict[str, Any]) -> dict[str, float]:
        return {"decoupled": values["decoupled_weight_decay"]}

    def _is_scheduled(self, values: dict[str, Any]) -> bool:
        return values["alpha_decay"] or super()._is_scheduled(values)

    def _rate(self, values: dict[str, Any], t: int) -> float:
        rate = super()._rate(values, t)
        return rate / math.sqrt(t) if values["alpha_decay"] else rate


class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    .. math::
        θ'_t &= (1 - lr · λ) \, θ_{t-1} \\
        θ_t &= θ'_t - lr · \hat m_t / (\sqrt{\hat v_t} + ε)

    with λ the ``weight_decay`` and the moments of `Adam`, of the gradient alone.

    Parameters
    ----------
    weight_decay : float, default 1e-2
        λ, times the rate.
    params, lr, betas, eps, amsgrad, maximize, beta_decay, alpha_decay, eps_hat, **how
        See `Adam`.

    Notes
    -----
    States ``m`` and ``v``. Source: Loshchilov & Hutter, arXiv:1711.05101. Numbers and defaults are those of
    ``torch.optim.AdamW``: the decay is multiplied by the rate.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> w = np.ones(3)
    >>> fastadam.AdamW(w, lr=0.1, weight_decay=0.5).step(np.zeros(3))
    >>> w
    array([0.95, 0.95, 0.95])
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        beta_decay: float = 1.0,
        alpha_decay: bool = False,
        eps_hat: bool = False,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
            beta_decay=beta_decay,
            alpha_decay=alpha_decay,
            eps_hat=eps_hat,
            **how,
        )


class Adamax(Optimizer):
    r"""AdaMax: Adam with the infinity norm for its second moment.

    .. math::
        m_t &= β_1 m_{t-1} + (1 - β_1) g_t \\
        u_t &= \max(β_2 u_{t-1}, |g_t| + ε) \\
        θ_t &= θ_{t-1} - \frac{lr}{1 - β_1^t} \frac{m_t}{u_t}

    Parameters
    ----------
    params, weight_decay, maximize, **how
        See `Optimizer`.
    lr : float or callable, default 2e-3
    betas : (float, float), default (0.9, 0.999)
    eps : float, default 1e-8
        Added to \|g\| within the maximum, as in torch. 0 is the paper's form: an element that has seen only zero
        gradients then has u = 0 and stays where it is.
    weight_decay : float, default 0
        L2 decay.

    Notes
    -----
    States ``m`` and ``u``. Source: Kingma & Ba, arXiv:1412.6980, section 7.1. Numbers and defaults are those of
    ``torch.optim.Adamax``.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0, 1.0])
    >>> fastadam.Adamax(x, lr=0.1, eps=0).step(np.array([-3.0, 0.0]))
    >>> x
    array([1.1, 1. ])
    """

    betas, eps = Option(), Option()

    torch_names: ClassVar = {"m": "exp_avg", "u": "exp_inf"}

    def __init__(
        self,
        params: Params,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
            **how,
        )

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        return RULES["adamax"]


class Adagrad(Optimizer):
    r"""AdaGrad: the rate of each element falls with the sum of its squared gradients.

    .. math::
        v_t &= v_{t-1} + g_t^2 \\
        θ_t &= θ_{t-1} - \frac{lr}{1 + (t - 1) · \mathrm{lr\_decay}} \frac{g_t}{\sqrt{v_t} + ε}

    Parameters
    ----------
    params, weight_decay, maximize, **how
        See `Optimizer`.
    lr : float or callable, default 1e-2
    lr_decay : float, default 0
    weight_decay : float, default 0
        L2 decay.
    initial_accumulator_value : float, default 0
        What v begins with; a group may have its own (torch ignores that).
    eps : float, default 1e-10
        Added to the root.

    Notes
    -----
    State ``v``. Source: Duchi, Hazan & Singer, JMLR 12 (2011). Numbers and defaults are those of
    ``torch.optim.Adagrad``.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> opt = fastadam.Adagrad(x, lr=0.5, eps=0)
    >>> opt.step(np.array([3.0])); opt.step(np.array([4.0]))
    >>> x  # 1 - 0.5 * 3/3 - 0.5 * 4/5
    array([0.1])
    """

    lr_decay, initial_accumulator_value, eps = Option(), Option(), Option()

    torch_names: ClassVar = {"v": "sum"}

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
            **how,
        )

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        return RULES["adagrad"]

    def _initial(self, values: dict[str, Any]) -> float:
        return values["initial_accumulator_value"]  # type: ignore[no-any-return]


class RMSprop(Optimizer):
    r"""RMSprop, plain, centered, and with momentum.

    .. math::
        v_t &= α v_{t-1} + (1 - α) g_t^2 \\
        θ_t &= θ_{t-1} - lr · g_t / (\sqrt{v_t} + ε)

    With ``centered``, :math:`m_t = α m_{t-1} + (1 - α) g_t` and the root is of :math:`|v_t - m_t^2|` (an absolute
    value, since rounding can take the difference below zero, where torch gives NaN). With ``momentum`` μ the quotient
    goes through :math:`b_t = μ b_{t-1} + g_t / (…)`, and :math:`θ_t = θ_{t-1} - lr · b_t`.

    Parameters
    ----------
    params, maximize, **how
        See `Optimizer`.
    lr : float or callable, default 1e-2
    alpha : float, default 0.99
        Decay of the mean square, in [0, 1].
    eps : float, default 1e-8
    weight_decay : float, default 0
        L2 decay.
    momentum : float, default 0
        Zero or not is chosen at construction, since it decides whether there is a state ``b``.
    centered : bool, default False
        Divide by an estimate of the gradient's standard deviation.
    eps_in_sqrt : bool, default False
        Add eps within the root: :math:`\sqrt{v_t + ε}`, the article's form and TensorFlow's. Otherwise after it, as
        in torch.

    Notes
    -----
    States ``v``, with ``centered`` also ``m``, with ``momentum`` also ``b``. Source: Hinton's lecture 6e (2012);
    centered: Graves, arXiv:1308.0850. Numbers and defaults are those of ``torch.optim.RMSprop``.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> fastadam.RMSprop(x, lr=0.1, alpha=0.75, eps=0).step(np.array([8.0]))
    >>> x  # 1 - 0.1 * 8 / sqrt(0.25 * 64)
    array([0.8])
    """

    alpha, eps, momentum, centered, eps_in_sqrt = Option(), Option(), Option(), Option(), Option()

    torch_names: ClassVar = {"v": "square_avg", "m": "grad_avg", "b": "momentum_buffer"}

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        eps_in_sqrt: bool = False,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
                "eps_in_sqrt": eps_in_sqrt,
            },
            **how,
        )

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        centered = "_centered" if values["centered"] else ""
        momentum = "_momentum" if values["momentum"] else ""
        return RULES[f"rmsprop{centered}{momentum}"]


class Adadelta(Optimizer):
    r"""AdaDelta: steps in the units of the parameter.

    .. math::
        v_t &= ρ v_{t-1} + (1 - ρ) g_t^2 \\
        Δ_t &= \frac{\sqrt{d_{t-1} + ε}}{\sqrt{v_t + ε}} g_t \\
        d_t &= ρ d_{t-1} + (1 - ρ) Δ_t^2 \\
        θ_t &= θ_{t-1} - lr · Δ_t

    Parameters
    ----------
    params, maximize, **how
        See `Optimizer`.
    lr : float or callable, default 1.0
    rho : float, default 0.9
        Decay of both means, in [0, 1].
    eps : float, default 1e-6
        Within both roots.
    weight_decay : float, default 0
        L2 decay.

    Notes
    -----
    States ``v`` and ``d``. Source: Zeiler, arXiv:1212.5701. Numbers and defaults are those of ``torch.optim.Adadelta``;
    the article accumulates the step with its rate, see `fastadam.adapters.article.AdaDelta`.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> opt = fastadam.Adadelta(x, rho=0.0, eps=1.0)
    >>> opt.step(np.array([0.75]))
    >>> x  # 1 - 0.75 / sqrt(0.75**2 + 1)
    array([0.4])
    """

    rho, eps = Option(), Option()

    torch_names: ClassVar = {"v": "square_avg", "d": "acc_delta"}

    def __init__(
        self,
        params: Params,
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **how: Unpack[How],
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
            **how,
        )

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        return RULES["adadelta"]

    @classmethod
    def _hyper(cls, values: dict[str, Any]) -> dict[str, float]:
        return {"beta1": values["rho"], "beta2": values["rho"], "accumulate_lr": False}


#: the registry: each public class of this module, by its name
CLASSES: dict[str, type[Optimizer]] = {
    name: value
    for name, value in tuple(vars().items())
    if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer and name[0] != "_"
}
