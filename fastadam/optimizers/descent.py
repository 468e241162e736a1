"""Optimizers without bias correction: gradient descent and its variants, and the early per-element methods."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ..base import Optimizer
from ..options import Rate, etas, finite, flag, non_negative, option, rate, rate_or_schedule, step_sizes, up_to_one
from ..rule import Rule
from ..rules import RULES
from ..stepped import Swapping

__all__ = ["ASGD", "SGD", "Adadelta", "Adagrad", "RMSprop", "Rprop"]


class SGD(Optimizer):
    r"""Gradient descent: plain, with momentum, or with Nesterov momentum.

    .. math::
        b_t &= μ \, b_{t-1} + (1 - τ) \, g_t, \qquad b_1 = g_1 \\
        θ_t &= θ_{t-1} - lr · b_t

    where μ is the ``momentum`` and τ the ``dampening``. Without momentum :math:`b_t = g_t`. With ``nesterov``,
    :math:`g_t + μ b_t` takes the place of :math:`b_t` in the second line.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-3
        The learning rate, or a function of the step count t.
    momentum : float, default 0
        μ. It cannot change between zero and another value later, since only a momentum needs the state ``b``.
    dampening : float, default 0
        τ. It does not act on the first step.
    weight_decay : float, default 0
        L2 regularization: ``weight_decay`` times θ is added to the gradient.
    nesterov : bool, default False
        Use Nesterov momentum. It needs a momentum above 0 and a dampening of 0, and cannot be changed later.

    Raises
    ------
    ValueError
        For ``nesterov`` without momentum, or with dampening. See `Optimizer` for other errors.

    Notes
    -----
    With momentum there is a state ``b``, else none. Source: Sutskever et al., ICML (2013). Results and defaults are
    those of ``torch.optim.SGD``: the learning rate multiplies b, and is not part of it.

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
        """Refuse ``nesterov`` without momentum, or with dampening."""
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            came = f"momentum={values['momentum']}, dampening={values['dampening']}"
            raise ValueError(f"nesterov: needs a momentum above 0 and a dampening of 0, got {came}")

    @classmethod
    def rule(cls, values: Mapping[str, Any]) -> Rule:
        """The rule `sgd`, or a variant with ``momentum``."""
        if not values["momentum"]:
            return RULES["sgd"]
        return RULES["sgd_nesterov" if values["nesterov"] else "sgd_momentum"]


class ASGD(Swapping, Optimizer):
    r"""Averaged gradient descent: SGD that also keeps the mean of the parameters since step ``t0``.

    .. math::
        η_t &= lr \, / \, (1 + λ · lr · (t - 1))^{α} \\
        θ_t &= (1 - λ η_t) \, θ_{t-1} - η_t \, g_t \\
        \bar θ_t &= \bar θ_{t-1} + (θ_t - \bar θ_{t-1}) \, / \, \max(1, t - 1 - t_0)

    Within ``with opt.swapped():`` the parameters hold the averages.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors. ``bounds`` hold for the average, too.
    lr : float or callable, default 1e-2
        The learning rate, or a function of the step count t.
    lambd : float, default 1e-4
        λ: the decay of the parameters, and of the learning rate.
    alpha : float, default 0.75
        α: the exponent in the decay of the learning rate.
    t0 : float, default 1e6
        The number of steps before averaging begins. Until then the average is a copy of the parameter.
    weight_decay : float, default 0
        L2 regularization: ``weight_decay`` times θ is added to the gradient.

    Notes
    -----
    The state is ``ax``, the average. Source: Polyak & Juditsky, SIAM J. Control Optim. 30 (1992). Results and defaults
    are those of ``torch.optim.ASGD``, with one difference. A new learning rate takes effect at once here, and one step
    later in torch.

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
        """The average starts as a copy of the parameter."""
        return {"ax": p}


class Rprop(Optimizer):
    r"""Rprop: each element has its own step size, which only the signs of its gradients change.

    .. math::
        Δ_t &= \operatorname{clip}(Δ_{t-1} · \begin{cases}
            η^+ & \text{where } g_t \text{ has the sign of } g_{t-1} \\
            η^- & \text{where it has the other} \\ 1 & \text{where one of them is 0} \end{cases}) \\
        θ_t &= θ_{t-1} - \operatorname{sign}(g_t) \, Δ_t

    Where the sign has changed, the element does not move, and :math:`g_t` counts as 0 at the next step. Rprop is for
    full-batch gradients: noise in a mini-batch changes signs, and each change shortens the step.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float, default 1e-2
        The first step size of each element. It cannot be a schedule, and cannot be changed later.
    etas : (float, float), default (0.5, 1.2)
        η⁻, between 0 and 1, and η⁺, above 1.
    step_sizes : (float, float), default (1e-6, 50)
        The smallest and the largest step size.

    Notes
    -----
    The states are ``prev``, the last gradient, and ``step_size``. Source: Riedmiller & Braun, IEEE ICNN (1993). The
    variant is iRprop⁻ of Igel & Hüsken (2000), as in torch. Results and defaults are those of ``torch.optim.Rprop``,
    with one difference. torch multiplies two gradients to compare their signs, and a product that underflows to 0
    counts as no sign. Here the signs are compared.

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
        """Step sizes start at ``lr``."""
        return {"step_size": values["lr"]}


class Adagrad(Optimizer):
    r"""AdaGrad: each element's rate falls as the sum of its squared gradients grows.

    .. math::
        v_t &= v_{t-1} + g_t^2 \\
        θ_t &= θ_{t-1} - \frac{lr}{1 + (t - 1) · \mathrm{lr\_decay}} \frac{g_t}{\sqrt{v_t} + ε}

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-2
        The learning rate, or a function of the step count t.
    lr_decay : float, default 0
        How fast the learning rate falls: at step t it is divided by ``1 + (t - 1) * lr_decay``.
    weight_decay : float, default 0
        L2 regularization: ``weight_decay`` times θ is added to the gradient.
    initial_accumulator_value : float, default 0
        The value of v before the first step. A group may have its own (torch ignores the group's value).
    eps : float, default 1e-10
        Added to the square root of v.

    Notes
    -----
    The state is ``v``. Source: Duchi, Hazan & Singer, JMLR 12 (2011). Results and defaults are those of
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
        """v starts at ``initial_accumulator_value``."""
        return {"v": values["initial_accumulator_value"]}


class RMSprop(Optimizer):
    r"""RMSprop: plain, centered, with momentum, or both.

    .. math::
        v_t &= α v_{t-1} + (1 - α) g_t^2 \\
        θ_t &= θ_{t-1} - lr · g_t / (\sqrt{v_t} + ε)

    With ``centered``, :math:`m_t = α m_{t-1} + (1 - α) g_t`, and :math:`|v_t - m_t^2|` takes the place of :math:`v_t`
    under the root. The absolute value is needed because rounding can make the difference negative, where torch gives
    NaN. With ``momentum`` μ, :math:`b_t = μ b_{t-1} + g_t / (…)` and :math:`θ_t = θ_{t-1} - lr · b_t`.

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1e-2
        The learning rate, or a function of the step count t.
    alpha : float, default 0.99
        α: the decay rate of the mean square, in [0, 1].
    eps : float, default 1e-8
        Added to the square root of v, or to v with `eps_in_sqrt`.
    weight_decay : float, default 0
        L2 regularization: ``weight_decay`` times θ is added to the gradient.
    momentum : float, default 0
        μ. It cannot change between zero and another value later, since only a momentum needs the state ``b``.
    centered : bool, default False
        Divide by an estimate of the gradient's standard deviation.
    eps_in_sqrt : bool, default False
        If True, add eps under the root: :math:`\sqrt{v_t + ε}`, as TensorFlow and `fastadam.adapters.article` do. If
        False, add it after the root, as in torch.

    Notes
    -----
    The states are ``v``, with ``centered`` also ``m``, with ``momentum`` also ``b``. Source: Hinton's lecture 6e
    (2012); centered: Graves, arXiv:1308.0850. Results and defaults are those of ``torch.optim.RMSprop``.

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
        """The rule `rmsprop`, or its variant with ``centered``, ``momentum`` or both."""
        centered = "_centered" if values["centered"] else ""
        momentum = "_momentum" if values["momentum"] else ""
        return RULES[f"rmsprop{centered}{momentum}"]


class Adadelta(Optimizer):
    r"""AdaDelta: each step has the units of the parameter, so the default learning rate is 1.

    .. math::
        v_t &= ρ v_{t-1} + (1 - ρ) g_t^2 \\
        Δ_t &= \frac{\sqrt{d_{t-1} + ε}}{\sqrt{v_t + ε}} g_t \\
        d_t &= ρ d_{t-1} + (1 - ρ) Δ_t^2 \\
        θ_t &= θ_{t-1} - lr · Δ_t

    Parameters
    ----------
    params, maximize, **settings
        See `Optimizer`, also for shapes, dtypes and errors.
    lr : float or callable, default 1.0
        The learning rate, or a function of the step count t.
    rho : float, default 0.9
        ρ: the decay rate of both means, in [0, 1].
    eps : float, default 1e-6
        Added under both square roots.
    weight_decay : float, default 0
        L2 regularization: ``weight_decay`` times θ is added to the gradient.

    Notes
    -----
    The states are ``v`` and ``d``. Source: Zeiler, arXiv:1212.5701. Results and defaults are those of
    ``torch.optim.Adadelta``. `fastadam.adapters.article.AdaDelta` differs: its d accumulates lr · Δ.

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
