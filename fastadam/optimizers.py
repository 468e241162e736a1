"""The optimizers: names, defaults and states of `torch.optim`, over the rules of `fastadam.rules`.
A class says which rule its options choose and what the rule's hyper-parameters are; it knows no loop.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from . import options, structure
from .kernel import backends, checks, threads
from .kernel._plan import Plan, state_like
from .rules import RULES, Rule


class HasParameters(Protocol):
    """The article's protocol: an object whose ``parameters`` are stepped by its ``grad``."""

    parameters: Any
    grad: Any


#: one array, a sequence or mapping of arrays, group dicts, or an object
Params = np.ndarray | Iterable[np.ndarray] | Mapping[Any, np.ndarray] | Iterable[Mapping[str, Any]] | HasParameters
#: gradients in the structure of the parameters; for groups also a sequence a group, or dicts with ``"grads"``
Grads = np.ndarray | Iterable[Any] | Mapping[Any, np.ndarray]
#: a learning rate: a number, or a function of the step count t = 1, 2, …
Rate = float | Callable[[int], float]


class Option:
    """An option as an attribute of the optimizer: reads the first group's value, sets every group's."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: "Optimizer | None", _: type) -> Any:
        if optimizer is None:
            return self
        return optimizer.param_groups[0][self.name]

    def __set__(self, optimizer: "Optimizer", value: Any) -> None:
        for group in optimizer.param_groups:
            group.check(self.name, value)
        for group in optimizer.param_groups:
            group[self.name] = value


class Optimizer:
    """What all optimizers share. Not used by itself: take `Adam` or one of its relatives.

    Parameters
    ----------
    params : array, sequence, mapping, sequence of dicts, or object
        The float32 or float64 arrays to step, updated in place: one array; a sequence of arrays; a mapping from names
        to arrays; group dicts as in torch, each with its arrays under ``"params"`` and its own values of any option;
        or an object with ``.parameters`` (one of the former) and ``.grad`` (its gradients, read at each step).
        Any memory layout will do; C or Fortran order is the fastest.
    lr : float or callable
        The rate, or a function that returns it given the step count t = 1, 2, …
    weight_decay : float
        The factor of the decay: L2 (added to the gradient), but decoupled in `AdamW`.
    maximize : bool
        Step up the gradient instead of down.
    grads : optional
        Gradients in the structure of `params`, bound once: they are read at each ``step()`` without arguments.
    backend : {"cython", "numba", "numpy"}
        What runs the rule. All give the same bits; "numpy" needs no compiled sweep, "numba" needs Numba.
    n_threads : int, optional
        How many threads a step may use, the caller included; the bits are the same for any number. By default
        ``FASTADAM_NUM_THREADS``, or the processors that this process may run on. Fewer than 30 000 elements are always
        stepped by the caller alone, and so is every array with backend "numpy".

    Attributes
    ----------
    t : int
        The number of steps done.
    state : dict
        Name of a state (``"m"``, ``"v"``, …) -> list of arrays, one a parameter.
    param_groups : list
        The groups, each a mapping from option to value: assigning a value holds from the next step on.

    A step releases the GIL: nothing else may write the arrays or the gradients while it runs.

    Options are attributes too: ``opt.lr = 0.01`` sets the rate of every group.

    Raises
    ------
    TypeError, ValueError
        Before anything is touched: for an option, array or structure that is not as described.
    """

    lr, weight_decay, maximize = Option(), Option(), Option()
    #: the options of a group that does not set its own
    defaults: dict[str, Any]

    def __init__(
        self, params: Params, grads: Grads | None, backend: str, n_threads: int | None, **defaults: Any
    ) -> None:
        if type(self) is Optimizer:
            raise TypeError("Optimizer has no rule; use Adam, AdamW, Adamax, Adagrad, RMSprop or Adadelta")
        self.defaults = {name: options.check(name, value) for name, value in defaults.items()}
        given: Any = params
        self._object: Any = given if structure.is_object(given) else None
        if self._object is not None and grads is not None:
            raise ValueError("grads: an object brings its own gradients as .grad; leave grads out, or pass its arrays")
        backends.check(backend)
        groups, self._flatten = structure.read_groups(given if self._object is None else given.parameters)
        self._backend = backend
        self._n_threads = threads.resolve(n_threads)
        self.param_groups = [Group(self, k, group) for k, group in enumerate(groups)]
        self._scheduled: list[Group] = []  # those whose rate is to be computed at each step
        names = [name for group in groups for name in group.structure.names]
        checks.parameters(names, [p for group in self.param_groups for p in group["params"]])
        self._states = [[self._new_state(group, p) for p in group["params"]] for group in self.param_groups]
        self._make_plan(names, t=0)
        self._bound: Sequence[np.ndarray] | None = None
        if grads is not None:
            self._bound = tuple(self._flatten(grads))
            self._plan.bind(self._bound)

    # What a subclass says of itself: which rule, which values, which states.

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        """The rule that these options choose."""
        raise NotImplementedError

    @classmethod
    def _hyper(cls, values: dict[str, Any]) -> dict[str, float]:
        """The values of the rule's hyper-parameters, by name, where an option does not bear that name."""
        return {}

    @classmethod
    def hyper_values(cls, rule: Rule, values: Mapping[str, Any], rate: float) -> list[float]:
        """The values of the rule's hyper-parameters, in its order, that these options and this rate make."""
        named = dict(values)
        if "betas" in named:
            named |= zip(("beta1", "beta2"), named["betas"], strict=True)
        named = {"decoupled": False} | named | cls._hyper(named) | {"lr": rate}
        return [named[name] for name in rule.hyper]

    def _rate(self, values: dict[str, Any], t: int) -> float:
        """The learning rate of step `t`."""
        lr = values["lr"]
        return options.rate(f"lr({t})", lr(t)) if callable(lr) else lr  # type: ignore[no-any-return]

    def _is_scheduled(self, values: dict[str, Any]) -> bool:
        """Whether the rate is another at each step."""
        return callable(values["lr"])

    def _initial(self, values: dict[str, Any]) -> float:
        """What the states hold at first."""
        return 0.0

    # The face.

    def step(self, grads: Grads | None = None) -> None:
        """One step of every parameter, in place; `grads` are left untouched.

        Parameters
        ----------
        grads : optional
            Gradients in the structure of the parameters, each of its parameter's shape and dtype, in any memory
            layout. May be left out where gradients were bound or the object brings them.

        Raises
        ------
        TypeError, ValueError
            For a gradient, a structure or a scheduled rate that does not fit: nothing has changed then.
        RuntimeError
            If there are no gradients, or another thread is inside a step of this optimizer.
        """
        if self._object is not None:
            self._follow_object()
            if grads is None:
                grads = self._object.grad
        if grads is None:
            if self._bound is None:
                raise RuntimeError(
                    "grads: none were given and none are bound; call step(grads), or construct with grads="
                )
        else:
            grads = self._flatten(grads)
        if self._scheduled:
            self._set_rates()
        self._plan.step(grads)

    def zero_grad(self) -> None:
        """Set the bound gradients, or the object's, to zero (by the object's own ``zero_grad`` where it has one)."""
        if self._object is not None and callable(getattr(self._object, "zero_grad", None)):
            self._object.zero_grad()
            return
        grads = self._bound if self._object is None else self._flatten(self._object.grad)
        if grads is None:
            raise RuntimeError("zero_grad: no gradients are bound; zero your own, or construct with grads=")
        for name, g in zip(self._plan.names, grads, strict=True):
            checks.writeable(f"gradient of {name}", g)
        for g in grads:
            g[...] = 0

    @property
    def t(self) -> int:
        """The number of steps done."""
        return self._plan.t

    @property
    def backend(self) -> str:
        """What runs the rule: "cython", "numba" or "numpy"."""
        return self._backend

    @property
    def n_threads(self) -> int:
        """How many threads a step may use, the caller included."""
        return self._plan.n_threads

    @property
    def state(self) -> dict[str, list[np.ndarray | None]]:
        """Name of a state -> its arrays, one a parameter (None where the parameter's group has no such state)."""
        per_param = [
            dict(zip(group._rule.states, arrays, strict=True))
            for group, states in zip(self.param_groups, self._states, strict=True)
            for arrays in states
        ]
        names = dict.fromkeys(name for arrays in per_param for name in arrays)
        return {name: [arrays.get(name) for arrays in per_param] for name in names}

    def __repr__(self) -> str:
        groups = "\n".join(f"  {group}" for group in self.param_groups)
        return f"{type(self).__name__} at t = {self.t}, backend {self.backend}\n{groups}"

    # Between the face and the plan.

    def _new_state(self, group: "Group", p: np.ndarray) -> list[np.ndarray]:
        return [state_like(p, self._initial(dict(group))) for _ in group._rule.states]

    def _make_plan(self, names: list[str], t: int) -> None:
        kernels = [backends.kernel(group._rule, self._backend) for group in self.param_groups]
        arrays = zip(kernels, (list(group["params"]) for group in self.param_groups), self._states, strict=True)
        self._plan = Plan(list(arrays), names, t, self._n_threads)
        for group in self.param_groups:
            group.apply()

    def _set_rates(self) -> None:
        t = self.t + 1
        rates = [self._rate(group._values, t) for group in self._scheduled]
        for group, rate in zip(self._scheduled, rates, strict=True):
            self._plan.set_hyper(group._index, group.hyper(rate))

    def _follow_object(self) -> None:
        """Step the arrays that the object has now: a script may have replaced ``object.parameters``."""
        arrays = list(self._flatten(self._object.parameters))
        planned = self._plan.params
        if all(new is old for new, old in zip(arrays, planned, strict=True)):
            return
        again = self._flatten(self._object.parameters)
        if any(one is not other for one, other in zip(arrays, again, strict=True)):
            raise TypeError("params: .parameters gives another array at each read, so a step in place would be lost")
        checks.parameters(self._plan.names, arrays)
        for name, new, old in zip(self._plan.names, arrays, planned, strict=True):
            checks.like(name, new, old)
        rest = iter(arrays)
        for group in self.param_groups:
            group._values["params"] = tuple(islice(rest, len(group["params"])))
        self._make_plan(self._plan.names, self.t)


class Group(MutableMapping[str, Any]):
    """A group of parameters and its options; an assignment is checked at once and holds from the next step on."""

    def __init__(self, optimizer: Optimizer, index: int, group: structure.GroupStructure) -> None:
        self._optimizer = optimizer
        self._index = index
        self._label = f"params[{index}]" if group.options else ""
        for name in group.options:
            self._known(name)
        own = {name: options.check(name, value, self._name(name)) for name, value in group.options.items()}
        self._values = {"params": tuple(group.structure.arrays), **optimizer.defaults, **own}
        self._rule = optimizer._rule(self._values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = self.check(name, value)
        self.apply()

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: a group's options are fixed in number; assign another value instead")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.items() if name != "params")
        return f"{len(self['params'])} arrays: {values}"

    def _name(self, option: str) -> str:
        return f"{self._label}[{option!r}]" if self._label else option

    def _known(self, name: str) -> None:
        if name not in self._optimizer.defaults:
            raise ValueError(f"{self._name(name)}: unknown option; a group has {', '.join(self._optimizer.defaults)}")

    def check(self, name: str, value: Any) -> Any:
        """The value to keep for an option of this group; it must not call for another rule, whose states differ."""
        self._known(name)
        value = options.check(name, value, self._name(name))
        fixed = name == "initial_accumulator_value" and value != self[name]
        if fixed or self._optimizer._rule(self._values | {name: value}) is not self._rule:
            raise ValueError(f"{self._name(name)}: {value!r} needs other states; it is chosen at construction")
        return value

    def hyper(self, rate: float) -> list[float]:
        """The values of the rule's hyper-parameters, in its order."""
        return self._optimizer.hyper_values(self._rule, self._values, rate)

    def apply(self) -> None:
        """Hand the options to the plan; or, where the rate is another at each step, leave it to `_set_rates`."""
        optimizer = self._optimizer
        others = [group for group in optimizer._scheduled if group is not self]
        optimizer._scheduled = others
        if optimizer._is_scheduled(self._values):
            optimizer._scheduled = [*others, self]
        else:
            optimizer._plan.set_hyper(self._index, self.hyper(self._values["lr"]))


class Adam(Optimizer):
    r"""Adam, and AMSGrad.

    .. math::
        m_t &= β_1 m_{t-1} + (1 - β_1) g_t, & \hat m_t &= m_t / (1 - β_1^t) \\
        v_t &= β_2 v_{t-1} + (1 - β_2) g_t^2, & \hat v_t &= v_t / (1 - β_2^t) \\
        θ_t &= θ_{t-1} - lr · \hat m_t / (\sqrt{\hat v_t} + ε)

    with :math:`g_t` the gradient plus ``weight_decay`` times θ.

    Parameters
    ----------
    params, maximize, grads, backend, n_threads
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
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            params,
            grads,
            backend,
            n_threads,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
            beta_decay=beta_decay,
            alpha_decay=alpha_decay,
            eps_hat=eps_hat,
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
    params, lr, betas, eps, amsgrad, maximize, beta_decay, alpha_decay, eps_hat, grads, backend, n_threads
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
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
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
            grads=grads,
            backend=backend,
            n_threads=n_threads,
        )


class Adamax(Optimizer):
    r"""AdaMax: Adam with the infinity norm for its second moment.

    .. math::
        m_t &= β_1 m_{t-1} + (1 - β_1) g_t \\
        u_t &= \max(β_2 u_{t-1}, |g_t| + ε) \\
        θ_t &= θ_{t-1} - \frac{lr}{1 - β_1^t} \frac{m_t}{u_t}

    Parameters
    ----------
    params, weight_decay, maximize, grads, backend, n_threads
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

    def __init__(
        self,
        params: Params,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            params, grads, backend, n_threads, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize
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
    params, weight_decay, maximize, grads, backend, n_threads
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
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            params,
            grads,
            backend,
            n_threads,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
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
    params, maximize, grads, backend, n_threads
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
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            params,
            grads,
            backend,
            n_threads,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
            eps_in_sqrt=eps_in_sqrt,
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
    params, maximize, grads, backend, n_threads
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

    def __init__(
        self,
        params: Params,
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
    ) -> None:
        super().__init__(
            params, grads, backend, n_threads, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize
        )

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        return RULES["adadelta"]

    @classmethod
    def _hyper(cls, values: dict[str, Any]) -> dict[str, float]:
        return {"beta1": values["rho"], "beta2": values["rho"], "accumulate_lr": False}
