"""Without bias correction: gradient descent and its relatives, and the first methods with a rate for each element."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..base import Optimizer
from ..options import Rate, etas, finite, flag, non_negative, option, rate, rate_or_schedule, step_sizes, up_to_one
from ..rule import Rule
from ..rules import RULES
from ..stepped import Swapping

__all__ = ["ASGD", "SGD", "Adadelta", "Adagrad", "RMSprop", "Rprop"]


class SGD(Optimizer):
    r"""Gradient descent, plain, with momentum, and with Nesterov's.

    .. math::
        b_t &= μ \, b_{t-1} + (1 - τ) \, g_t, \qquad b_1 = g_1 \\
        θ_t &= θ_{t-1} - lr · b_t

    with μ the ``momentum`` and τ the ``dampening``. Without momentum :math:`b_t = g_t`. With ``nesterov`` the step is
    :math:`g_t + μ b_t` in place of :math:`b_t`.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`.
    lr : float or callable, default 1e-3
    momentum : float, default 0
        Zero or not is chosen at construction, since it decides whether there is a state ``b``.
    dampening : float, default 0
        The first step is not dampened.
    weight_decay : float, default 0
        L2 decay.
    nesterov : bool, default False
        Chosen at construction. Needs a momentum, and no dampening.

    Raises
    ------
    ValueError
        For ``nesterov`` without a momentum, or with dampening; see `Optimizer` for others.

    Notes
    -----
    With momentum a state ``b``, else none. Source: Sutskever et al., ICML (2013). Numbers and defaults are those of
    ``torch.optim.SGD``: the rate stands outside of the momentum.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> opt = fastadam.SGD(x, lr=0.1, momentum=0.5)
    >>> opt.step(np.array([1.0])); opt.step(np.array([1.0]))
    >>> x  # 1 - 0.1 * 1 - 0.1 * 1.5
    array([0.75])
    """

    lr: Rate = option(default=1e-3, check=rate_or_schedule)
    momentum: float = option(default=0.0, check=non_negative)
    dampening: float = option(default=0.0, check=finite)
    weight_decay: float = option(default=0.0, check=non_negative)
    nesterov: bool = option(default=False, check=flag)

    rules: ClassVar = ("sgd", "sgd_momentum", "sgd_nesterov")
    torch_names: ClassVar = {"b": "momentum_buffer"}
    torch_scalars: ClassVar = ()

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Refuse ``nesterov`` without a momentum, or with dampening."""
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            came = f"momentum={values['momentum']}, dampening={values['dampening']}"
            raise ValueError(f"nesterov: needs a momentum above 0 and a dampening of 0, got {came}")

    @classmethod
    def rule(cls, values: Mapping[str, Any]) -> Rule:
        """`sgd`, or with ``momentum`` a variant."""
        if not values["momentum"]:
            return RULES["sgd"]
        return RULES["sgd_nesterov" if values["nesterov"] else "sgd_momentum"]


class ASGD(Swapping, Optimizer):
    r"""Averaged gradient descent: a mean of all parameters after the first ``t0`` steps is kept beside them.

    .. math::
        η_t &= lr \, / \, (1 + λ · lr · (t - 1))^{α} \\
        θ_t &= (1 - λ η_t) \, θ_{t-1} - η_t \, g_t \\
        \bar θ_t &= \bar θ_{t-1} + (θ_t - \bar θ_{t-1}) \, / \, \max(1, t - 1 - t_0)

    ``with opt.swapped():`` the averages stand in the parameters.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`. ``bounds`` hold for the average, too.
    lr : float or callable, default 1e-2
    lambd : float, default 1e-4
        λ, a decay of the parameters and of the rate.
    alpha : float, default 0.75
        The power by which the rate falls.
    t0 : float, default 1e6
        The average begins after so many steps; before, it is the parameter.
    weight_decay : float, default 0
        L2 decay.

    Notes
    -----
    State ``ax``, the average. Source: Polyak & Juditsky, SIAM J. Control Optim. 30 (1992). Numbers and defaults are
    those of ``torch.optim.ASGD``, but for a rate that changes: it counts at once here, in torch one step later.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([0.0])
    >>> opt = fastadam.ASGD(x, lr=1.0, lambd=0, t0=0)
    >>> for _ in range(4):
    ...     opt.step(np.array([-1.0]))
    >>> x, opt.state["ax"][0]  # the mean of 2, 3 and 4
    (array([4.]), array([3.]))
    """

    lr: Rate = option(default=1e-2, check=rate_or_schedule)
    lambd: float = option(default=1e-4, check=non_negative)
    alpha: float = option(default=0.75, check=non_negative)
    t0: float = option(default=1e6, check=finite)
    weight_decay: float = option(default=0.0, check=non_negative)

    rules: ClassVar = ("asgd",)
    average: ClassVar = "ax"
    torch_names: ClassVar = {"ax": "ax"}
    torch_scalars: ClassVar = ("step", "eta", "mu")

    @classmethod
    def initial(cls, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """The average begins as the parameter."""
        return {"ax": p}


class Rprop(Optimizer):
    r"""Rprop: a step of its own for each element, from the signs of its gradient alone.

    .. math::
        Δ_t &= \operatorname{clip}(Δ_{t-1} · \begin{cases}
            η^+ & \text{where } g_t \text{ has the sign of } g_{t-1} \\
            η^- & \text{where it has the other} \\ 1 & \text{where one of them is 0} \end{cases}) \\
        θ_t &= θ_{t-1} - \operatorname{sign}(g_t) \, Δ_t

    Where the sign has turned there is no step, and :math:`g_t` counts as 0 in the next one. It is for gradients of all
    the data: a sign that turns by chance shortens the step.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`.
    lr : float, default 1e-2
        The first step of each element, fixed at construction: no schedule.
    etas : (float, float), default (0.5, 1.2)
        η⁻, between 0 and 1, and η⁺, above 1.
    step_sizes : (float, float), default (1e-6, 50)
        The shortest and the longest step.

    Notes
    -----
    States ``prev``, the last gradient, and ``step_size``. Source: Riedmiller & Braun, IEEE ICNN (1993); this is the
    variant iRprop⁻ of Igel & Hüsken (2000), as in torch. Numbers and defaults are those of ``torch.optim.Rprop``; but
    two gradients whose product is too small for their dtype have a sign here, and none in torch.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> x = np.array([1.0])
    >>> opt = fastadam.Rprop(x, lr=0.1)
    >>> opt.step(np.array([30.0])); opt.step(np.array([0.001]))
    >>> x  # 1 - 0.1 - 0.12
    array([0.78])
    """

    lr: float = option(default=1e-2, check=rate, fixed=True)
    etas: tuple[float, float] = option(default=(0.5, 1.2), check=etas, hyper=("eta_minus", "eta_plus"))
    step_sizes: tuple[float, float] = option(default=(1e-6, 50.0), check=step_sizes, hyper=("shortest", "longest"))

    rules: ClassVar = ("rprop",)
    torch_names: ClassVar = {"prev": "prev", "step_size": "step_size"}

    @classmethod
    def initial(cls, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """Steps begin as ``lr``."""
        return {"step_size": values["lr"]}


class Adagrad(Optimizer):
    r"""AdaGrad: the rate of each element falls with the sum of its squared gradients.

    .. math::
        v_t &= v_{t-1} + g_t^2 \\
        θ_t &= θ_{t-1} - \frac{lr}{1 + (t - 1) · \mathrm{lr\_decay}} \frac{g_t}{\sqrt{v_t} + ε}

    Parameters
    ----------
    params, weight_decay, maximize, **settings
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

    lr: Rate = option(default=1e-2, check=rate_or_schedule)
    lr_decay: float = option(default=0.0, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    initial_accumulator_value: float = option(default=0.0, check=non_negative, fixed=True)
    eps: float = option(default=1e-10, check=non_negative)

    rules: ClassVar = ("adagrad",)
    torch_names: ClassVar = {"v": "sum"}

    @classmethod
    def initial(cls, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """``initial_accumulator_value``."""
        return {"v": values["initial_accumulator_value"]}


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
    params, maximize, **settings
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

    lr: Rate = option(default=1e-2, check=rate_or_schedule)
    alpha: float = option(default=0.99, check=up_to_one)
    eps: float = option(default=1e-8, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)
    momentum: float = option(default=0.0, check=non_negative)
    centered: bool = option(default=False, check=flag)
    eps_in_sqrt: bool = option(default=False, check=flag, kw_only=True)

    rules: ClassVar = ("rmsprop", "rmsprop_momentum", "rmsprop_centered", "rmsprop_centered_momentum")
    torch_names: ClassVar = {"v": "square_avg", "m": "grad_avg", "b": "momentum_buffer"}

    @classmethod
    def rule(cls, values: Mapping[str, Any]) -> Rule:
        """`rmsprop`, or the variant with ``centered``, ``momentum`` or both."""
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
    params, maximize, **settings
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

    lr: Rate = option(default=1.0, check=rate_or_schedule)
    rho: float = option(default=0.9, check=up_to_one, hyper=("beta1", "beta2"))
    eps: float = option(default=1e-6, check=non_negative)
    weight_decay: float = option(default=0.0, check=non_negative)

    rules: ClassVar = ("adadelta",)
    torch_names: ClassVar = {"v": "square_avg", "d": "acc_delta"}
