"""PennyLane's optimizers, stepped by fastadam: ``fastadam.adapters.pennylane.AdamOptimizer(0.01)`` in place of
``qml.AdamOptimizer(0.01)``, and four of its relatives. Each class *is* PennyLane's, with another ``apply_grad``.

Arguments, defaults, methods and numbers are PennyLane's. All trainable arguments are stepped in one compiled call;
PennyLane takes some ten operations on tensors for each. ``accumulation`` has PennyLane's structure, of plain arrays: it
may be read, replaced, copied and pickled. Attributes such as ``stepsize`` are read at each step. A step returns new
tensors and makes new accumulations: it changes no array. Its results are real numbers: integers become float64.

- Adam adds ε before the correction: `fastadam.Adam` with ``eps_hat=True``. Its results are float64, as in PennyLane.
- RMSProp adds ε within the root: `fastadam.RMSprop` with ``eps_in_sqrt=True``.
- The momentum of PennyLane holds steps, rate included: the rate of a step does not change what is on its way.
- ``AdagradOptimizer`` stays PennyLane's own: it adds ε within the root, which `fastadam.Adagrad` cannot.

Where PennyLane broadcasts a gradient to another shape, complex numbers, and what is trainable but none of PennyLane's
tensors, are a ValueError or a TypeError, before anything changes.

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
from typing import Any, ClassVar

import numpy as np

try:
    from pennylane import optimize
    from pennylane.numpy import tensor
except ImportError as error:
    raise ImportError("fastadam.adapters.pennylane needs PennyLane: pip install 'fastadam[pennylane]'") from error

from ..kernel import checks
from ..kernel._stepper import Stepper
from ..optimizers import SGD, Adam, RMSprop
from ..rule import Rule
from ..rules import RULES
from .hyper import hyper_of, number

__all__ = [
    "AdamOptimizer",
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "NesterovMomentumOptimizer",
    "RMSPropOptimizer",
]


class _Stepped:
    """A step by fastadam, mixed in before an optimizer of PennyLane's."""

    _rule: ClassVar[Rule]
    stepsize: Any
    accumulation: Any

    def apply_grad(self, grad: Any, args: Sequence[Any]) -> list[Any]:
        """The arguments after a step: a new tensor for each that is trainable, by its entry of `grad`."""
        trained = [k for k, arg in enumerate(args) if getattr(arg, "requires_grad", False)]
        hyper, factor = self._hyper()
        t, memory = self._memory(len(args))
        grads = _gradients(grad, len(trained))
        params = [self._parameter(k, args[k], g) for k, g in zip(trained, grads, strict=True)]
        states = [[_state(own[k], p) for own in memory] for k, p in zip(trained, params, strict=True)]
        if trained:
            stepper = Stepper(self._rule)
            stepper.lay(params, states, [f"args[{k}]" for k in trained])
            stepper.step(grads, t, hyper, factor)
        args_new = list(args)
        for k, p, new in zip(trained, params, states, strict=True):
            args_new[k] = p.view(type(args[k]))
            args_new[k].requires_grad = args[k].requires_grad
            for own, state in zip(memory, new, strict=True):
                own[k] = state
        self._keep(t, memory)
        return args_new

    def _hyper(self) -> tuple[tuple[float, ...], float]:
        """The rule's hyper-parameters, and the factor of the gradients."""
        raise NotImplementedError

    def _memory(self, n: int) -> tuple[int, list[list[Any]]]:
        """The number of this step, and for each state of the rule a list with an entry for each of `n` arguments."""
        return 1, [[0.0] * n if self.accumulation is None else self.accumulation]

    def _keep(self, t: int, memory: list[list[Any]]) -> None:
        """Keep both after the step."""
        [self.accumulation] = memory

    def _parameter(self, k: int, arg: Any, g: np.ndarray) -> np.ndarray:
        """A copy of argument `k` in the dtype that PennyLane's result would have."""
        if not isinstance(arg, tensor):
            raise TypeError(f"args[{k}]: expected a tensor of pennylane.numpy, got {type(arg).__name__}")
        dtype = self._dtype(arg, g)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise TypeError(f"args[{k}]: expected real numbers of at most 64 bits, and so its gradient, got {dtype}")
        return np.array(arg, dtype)

    def _dtype(self, *arrays: Any) -> np.dtype[Any]:
        return np.result_type(0.0, self.stepsize, *arrays)


def _gradients(grad: Any, n: int) -> list[np.ndarray]:
    """The first `n` gradients. Where nothing is trainable, `grad` may be anything."""
    try:
        return [np.asarray(grad[k]) for k in range(n)]
    except IndexError:
        expected = f"{checks.counted(n, 'gradient')}, one for each trainable argument"
        raise ValueError(f"grad: expected {expected}, got {len(grad)}") from None


def _state(kept: Any, p: np.ndarray) -> np.ndarray:
    """A copy of a state of `p`, or of the number that it begins with."""
    made = np.empty(p.shape, checks.computed_in(p))
    made[...] = kept
    return made


class AdamOptimizer(_Stepped, optimize.AdamOptimizer):
    r"""PennyLane's ``AdamOptimizer(stepsize=0.01, beta1=0.9, beta2=0.99, eps=1e-8)``, stepped by fastadam.

    .. math:: x_t = x_{t-1} - η \frac{\sqrt{1 - β_2^t}}{1 - β_1^t} · \frac{m_t}{\sqrt{v_t} + ε}

    with `fastadam.Adam`'s moments. ``fm``, ``sm`` and ``t`` are the moments of each argument and the count of steps.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> optimizer = AdamOptimizer(0.1)
    >>> x, cost = optimizer.step_and_cost(lambda x: np.sum(x**2), np.array([1.0, -2.0]))
    >>> x.round(6).tolist(), float(cost), optimizer.t
    ([0.9, -1.9], 5.0, 1)
    """

    _rule = RULES["adam"]

    def _hyper(self) -> tuple[tuple[float, ...], float]:
        betas = number("beta1", self.beta1), number("beta2", self.beta2)
        eps = number("eps", self.eps)
        return hyper_of(Adam, self._rule, number("stepsize", self.stepsize), betas=betas, eps=eps, eps_hat=True), 1.0

    def _memory(self, n: int) -> tuple[int, list[list[Any]]]:
        if self.accumulation is None:
            return 1, [[0] * n, [0] * n]
        return self.accumulation["t"] + 1, [self.accumulation["fm"], self.accumulation["sm"]]

    def _keep(self, t: int, memory: list[list[Any]]) -> None:
        kept = {"fm": memory[0], "sm": memory[1], "t": t}
        if self.accumulation is None:
            self.accumulation = kept
        else:
            self.accumulation.update(kept)

    def _dtype(self, *arrays: Any) -> np.dtype[Any]:
        return np.result_type(np.float64, *arrays)


class RMSPropOptimizer(_Stepped, optimize.RMSPropOptimizer):
    r"""PennyLane's ``RMSPropOptimizer(stepsize=0.01, decay=0.9, eps=1e-8)``, stepped by fastadam.

    .. math:: v_t = γ v_{t-1} + (1 - γ) g_t^2, \quad x_t = x_{t-1} - η · g_t / \sqrt{v_t + ε}

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> RMSPropOptimizer(0.1, decay=0.0).step(lambda x: np.sum(x**2), np.array([1.0, -2.0])).round(6).tolist()
    [0.9, -1.9]
    """

    _rule = RULES["rmsprop"]

    def _hyper(self) -> tuple[tuple[float, ...], float]:
        lr, alpha, eps = number("stepsize", self.stepsize), number("decay", self.decay), number("eps", self.eps)
        return hyper_of(RMSprop, self._rule, lr, alpha=alpha, eps=eps, eps_in_sqrt=True), 1.0


class MomentumOptimizer(_Stepped, optimize.MomentumOptimizer):
    r"""PennyLane's ``MomentumOptimizer(stepsize=0.01, momentum=0.9)``, stepped by fastadam.

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

    _rule = RULES["sgd_momentum"]

    def _hyper(self) -> tuple[tuple[float, ...], float]:
        momentum = number("momentum", self.momentum)
        return hyper_of(SGD, self._rule, 1.0, momentum=momentum), number("stepsize", self.stepsize)


class NesterovMomentumOptimizer(MomentumOptimizer, optimize.NesterovMomentumOptimizer):
    r"""PennyLane's ``NesterovMomentumOptimizer(stepsize=0.01, momentum=0.9)``, stepped by fastadam.

    `MomentumOptimizer` with the gradient at :math:`x_{t-1} - μ a_{t-1}`, which PennyLane's ``compute_grad`` takes.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> optimizer, x = NesterovMomentumOptimizer(0.1, momentum=0.5), np.array([1.0, -2.0])
    >>> for _ in range(2):
    ...     x = optimizer.step(lambda x: np.sum(x**2), x)
    >>> x.round(6).tolist()
    [0.56, -1.12]
    """


class GradientDescentOptimizer(_Stepped, optimize.GradientDescentOptimizer):
    r"""PennyLane's ``GradientDescentOptimizer(stepsize=0.01)``, stepped by fastadam.

    .. math:: x_t = x_{t-1} - η g_t

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> GradientDescentOptimizer(0.1).step(lambda x: np.sum(x**2), np.array([1.0, -2.0])).round(6).tolist()
    [0.8, -1.6]
    """

    _rule = RULES["sgd"]

    def _hyper(self) -> tuple[tuple[float, ...], float]:
        return hyper_of(SGD, self._rule, number("stepsize", self.stepsize)), 1.0

    def _memory(self, n: int) -> tuple[int, list[list[Any]]]:
        return 1, []

    def _keep(self, t: int, memory: list[list[Any]]) -> None:
        """Nothing is kept."""
