"""PennyLane's optimizers with fastadam's steps: ``fastadam.adapters.pennylane.AdamOptimizer(0.01)`` in place of
``qml.AdamOptimizer(0.01)``, for example. Each class is a subclass of PennyLane's, with another ``apply_grad``.

Arguments, defaults, methods and results are PennyLane's. All trainable arguments are stepped in one compiled call.
PennyLane takes about ten operations for each. Attributes such as ``stepsize`` are read at each step. A step returns new
tensors, and does not change its arguments.

- Adam adds ε before the bias correction: `fastadam.Adam` with ``eps_hat=True``. Its results are float64, as in
  PennyLane.
- RMSProp adds ε under the root: `fastadam.RMSprop` with ``eps_in_sqrt=True``.
- PennyLane's momentum accumulates steps, with their rates: a new rate does not change earlier steps in it.
- ``accumulation`` has PennyLane's structure. It may be read, edited, replaced, copied and pickled. It has plain arrays,
  which are stepped in place: copy those that you keep. Arrays that are put into it are copied.
- Integers become float64.

Two classes are not here. ``AdagradOptimizer`` adds ε under the root, which `fastadam.Adagrad` cannot do.
``GradientDescentOptimizer`` multiplies and subtracts; one compiled call is not faster.

Four things raise a ValueError or a TypeError before anything changes: a gradient whose shape is not that of its
argument, a rate of several numbers, complex numbers, and a trainable argument that is not a PennyLane tensor.

Examples
--------
>>> import pennylane as qml
>>> from pennylane import numpy as np
>>> from fastadam.adapters.pennylane import AdamOptimizer
>>> @qml.qnode(qml.device("default.qubit", wires=1))
... def circuit(angle):
...     qml.RX(angle, wires=0)
...     return qml.expval(qml.PauliZ(0))
>>> optimizer, angle = AdamOptimizer(0.1), np.array(0.5, requires_grad=True)
>>> for _ in range(100):
...     angle = optimizer.step(circuit, angle)
>>> float(angle.round(1)), optimizer.t
(3.1, 100)
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

try:
    from pennylane import optimize
    from pennylane.numpy import tensor
except ImportError as error:
    raise ImportError("fastadam.adapters.pennylane needs PennyLane: pip install pennylane") from error

from ..kernel import checks
from ..kernel._stepper import Stepper, are_same
from ..names import attributes_of, give_attributes
from ..optimizers import SGD, Adam, RMSprop
from ..rule import Rule
from ..rules import RULES
from .hyper import hyper_of, number

__all__ = [
    "AdamOptimizer",
    "MomentumOptimizer",
    "NesterovMomentumOptimizer",
    "RMSPropOptimizer",
]


class _Laid(NamedTuple):
    """The arrays of the last step: private copies of the trainable arguments, and the states in ``accumulation``."""

    like: list[Any]  # the properties of the arguments that the copies were made for
    stepper: Stepper
    params: list[np.ndarray]
    states: list[list[np.ndarray]]


class _Stepped:
    """Mixin, placed before an optimizer of PennyLane, with a step by fastadam.

    A circuit runs between two steps, and leaves none of this in the processor's caches. So a step does little work.
    """

    _rule: ClassVar[Rule]
    #: the attributes with the hyper-parameters of a step
    _named: ClassVar[tuple[str, ...]]
    #: the numbers of the last step, and the result of `_hyper` for them
    _told: tuple[list[Any], Any] = ([], None)
    _laid: _Laid | None = None
    stepsize: Any
    accumulation: Any

    def apply_grad(self, grad: Any, args: Sequence[Any]) -> list[Any]:
        """The arguments after a step: a new tensor for each trainable one, stepped by its entry of `grad`."""
        args_new = list(args)
        trained = [k for k, arg in enumerate(args) if getattr(arg, "requires_grad", False)]
        t, memory = self._memory(len(args))
        if trained:
            grads = _gradients(grad, len(trained))
            numbers = [getattr(self, name) for name in self._named]
            is_told = are_same(self._told[0], numbers) and not any(isinstance(n, np.ndarray) for n in numbers)
            told = self._told if is_told else (numbers, self._hyper(*numbers))
            laid = self._layout(trained, args, grads, memory)
            for k, p in zip(trained, laid.params, strict=True):
                p[...] = args[k]
            laid.stepper.step(grads, t, *told[1])
            self._told = told
            for k, p in zip(trained, laid.params, strict=True):
                args_new[k] = new = p.copy().view(type(args[k]))
                new.requires_grad = args[k].requires_grad
            if laid is not self._laid:
                self._laid = laid
                for k, own in zip(trained, laid.states, strict=True):
                    for kept, state in zip(memory, own, strict=True):
                        kept[k] = state
        self._keep(t, memory)
        return args_new

    def _layout(self, trained: list[int], args: Any, grads: list[np.ndarray], memory: list[list[Any]]) -> _Laid:
        """The arrays of the last step if they fit these arguments and states, else new ones."""
        for k in trained:
            if not isinstance(args[k], tensor):
                raise TypeError(f"args[{k}]: expected a tensor of pennylane.numpy, got {type(args[k]).__name__}")
        laid = self._laid
        like: list[Any] = [type(self.stepsize), *((k, args[k].shape, args[k].dtype) for k in trained)]
        like += [g.dtype for g in grads]
        states = [[own[k] for own in memory] for k in trained]
        if laid is not None and laid.like == like and are_same(laid.states, states):
            return laid
        params = [self._parameter(k, args[k], g) for k, g in zip(trained, grads, strict=True)]
        states = [[_state(kept, p) for kept in own] for own, p in zip(states, params, strict=True)]
        stepper = Stepper(self._rule)
        stepper.lay(params, states, [f"args[{k}]" for k in trained])
        return _Laid(like, stepper, params, states)

    def _hyper(self, *numbers: Any) -> tuple[tuple[float, ...], float]:
        """The rule's hyper-parameters for these numbers, and the factor of the gradients."""
        raise NotImplementedError

    def _memory(self, n: int) -> tuple[int, list[list[Any]]]:
        """The number of this step, and for each state of the rule a list with an entry for each of `n` arguments."""
        return 1, [[0.0] * n if self.accumulation is None else self.accumulation]

    def _keep(self, t: int, memory: list[list[Any]]) -> None:
        """Store both after the step."""
        [self.accumulation] = memory

    def _parameter(self, k: int, arg: Any, g: np.ndarray) -> np.ndarray:
        """An array like argument `k`, in the dtype of PennyLane's result."""
        dtype = self._dtype(arg, g)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise TypeError(f"args[{k}]: expected real numbers of at most 64 bits, also in its gradient, got {dtype}")
        return np.empty_like(arg, dtype, subok=False)

    def _dtype(self, *arrays: Any) -> np.dtype[Any]:
        return np.result_type(0.0, self.stepsize, *arrays)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all attributes except the arrays of the last step."""
        return attributes_of(self, "_laid", "_told")

    __setstate__ = give_attributes


def _gradients(grad: Any, n: int) -> list[np.ndarray]:
    """The first `n` gradients."""
    try:
        return [np.asarray(grad[k]) for k in range(n)]
    except IndexError:
        expected = f"{checks.counted(n, 'gradient')}, one for each trainable argument"
        raise ValueError(f"grad: expected {expected}, got {len(grad)}") from None


def _state(kept: Any, p: np.ndarray) -> np.ndarray:
    """A copy of a state of `p`, or a new state filled with its first number."""
    made = np.empty(p.shape, checks.computed_in(p))
    made[...] = kept
    return made


class AdamOptimizer(_Stepped, optimize.AdamOptimizer):
    r"""PennyLane's ``AdamOptimizer(stepsize=0.01, beta1=0.9, beta2=0.99, eps=1e-8)``, with fastadam's step.

    .. math:: x_t = x_{t-1} - η \frac{\sqrt{1 - β_2^t}}{1 - β_1^t} · \frac{m_t}{\sqrt{v_t} + ε}

    with the moments of `fastadam.Adam`. ``fm`` and ``sm`` are the moments of each argument, ``t`` is the step count.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> optimizer = AdamOptimizer(0.1)
    >>> x, cost = optimizer.step_and_cost(lambda x: np.sum(x**2), np.array([1.0, -2.0]))
    >>> x.round(6).tolist(), float(cost), optimizer.t
    ([0.9, -1.9], 5.0, 1)
    """

    _rule, _named = RULES["adam"], ("stepsize", "beta1", "beta2", "eps")

    def _hyper(self, stepsize: Any, beta1: Any, beta2: Any, eps: Any) -> tuple[tuple[float, ...], float]:
        betas, eps = (number("beta1", beta1), number("beta2", beta2)), number("eps", eps)
        return hyper_of(Adam, self._rule, number("stepsize", stepsize), betas=betas, eps=eps, eps_hat=True), 1.0

    def _memory(self, n: int) -> tuple[int, list[list[Any]]]:
        if self.accumulation is None:
            return 1, [[0] * n, [0] * n]
        return self.accumulation["t"] + 1, [self.accumulation["fm"], self.accumulation["sm"]]

    def _keep(self, t: int, memory: list[list[Any]]) -> None:
        if self.accumulation is None:
            self.accumulation = {"fm": memory[0], "sm": memory[1]}
        self.accumulation["t"] = t

    def _dtype(self, *arrays: Any) -> np.dtype[Any]:
        return np.result_type(np.float64, *arrays)


class RMSPropOptimizer(_Stepped, optimize.RMSPropOptimizer):
    r"""PennyLane's ``RMSPropOptimizer(stepsize=0.01, decay=0.9, eps=1e-8)``, with fastadam's step.

    .. math:: v_t = γ v_{t-1} + (1 - γ) g_t^2, \quad x_t = x_{t-1} - η · g_t / \sqrt{v_t + ε}

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> RMSPropOptimizer(0.1, decay=0.0).step(lambda x: np.sum(x**2), np.array([1.0, -2.0])).round(6).tolist()
    [0.9, -1.9]
    """

    _rule, _named = RULES["rmsprop"], ("stepsize", "decay", "eps")

    def _hyper(self, stepsize: Any, decay: Any, eps: Any) -> tuple[tuple[float, ...], float]:
        lr, alpha, eps = number("stepsize", stepsize), number("decay", decay), number("eps", eps)
        return hyper_of(RMSprop, self._rule, lr, alpha=alpha, eps=eps, eps_in_sqrt=True), 1.0


class MomentumOptimizer(_Stepped, optimize.MomentumOptimizer):
    r"""PennyLane's ``MomentumOptimizer(stepsize=0.01, momentum=0.9)``, with fastadam's step.

    .. math:: a_t = μ a_{t-1} + η g_t, \quad x_t = x_{t-1} - a_t

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> optimizer, x = MomentumOptimizer(0.1, momentum=0.5), np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     x = optimizer.step(lambda x: np.sum(x**2), x)
    >>> x.round(6).tolist()
    [0.54, -1.08]
    """

    _rule, _named = RULES["sgd_momentum"], ("stepsize", "momentum")

    def _hyper(self, stepsize: Any, momentum: Any) -> tuple[tuple[float, ...], float]:
        return hyper_of(SGD, self._rule, 1.0, momentum=number("momentum", momentum)), number("stepsize", stepsize)


class NesterovMomentumOptimizer(MomentumOptimizer, optimize.NesterovMomentumOptimizer):
    r"""PennyLane's ``NesterovMomentumOptimizer(stepsize=0.01, momentum=0.9)``, with fastadam's step.

    `MomentumOptimizer` with the gradient at :math:`x_{t-1} - μ a_{t-1}`, computed by PennyLane's ``compute_grad``.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> optimizer, x = NesterovMomentumOptimizer(0.1, momentum=0.5), np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     x = optimizer.step(lambda x: np.sum(x**2), x)
    >>> x.round(6).tolist()
    [0.56, -1.12]
    """
