"""The functions `adam`, `rmsprop` and `sgd` of `autograd.misc.optimizers`, with fastadam's steps.
A script only changes its import line: ``from fastadam.adapters.autograd import adam``.

Arguments, defaults and results are autograd's. autograd's own functions flatten parameters and gradients at each
iteration, and restore them, by two differentiations. Here the arrays are stepped in place. The three functions share
these conventions:

- `x0` is an array, a number, or any nesting of lists, tuples and dicts of these. It is not changed.
- ``grad(x, i)`` returns the gradient at `x` in iteration ``i`` = 0, 1, … The gradient may have another structure than
  x0: only the order of its numbers matters. Dicts are read in the order of their sorted keys.
- ``callback(x, i, g)`` is called before each step. It may keep its arguments: later steps do not change them. As in
  autograd, the next step starts from a single array as the callback has changed it. Nested arrays are copies.
- All steps are computed in float64. `grad` and `callback` get nested arrays in their own dtypes, and a number as a
  0-dimensional array. Integers become float64.
- Complex numbers are a TypeError, and so are autograd's boxes: a compiled step cannot be differentiated.

Examples
--------
>>> import autograd.numpy as np
>>> from autograd import grad
>>> from fastadam.adapters.autograd import adam
>>> def loss(params, i):
...     return np.sum((params["slope"] * np.arange(4.0) + params["offset"] - np.array([1.0, 3.0, 5.0, 7.0])) ** 2)
>>> found = adam(grad(loss), {"slope": 0.0, "offset": np.zeros(1)}, num_iters=500, step_size=0.1)
>>> float(found["slope"].round(3)), found["offset"].round(3)
(2.0, array([1.]))
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

try:
    from autograd.tracer import isbox
except ImportError as error:
    raise ImportError("fastadam.adapters.autograd needs autograd: pip install autograd") from error

from ..kernel import checks, threads
from ..kernel._stepper import Stepper
from ..optimizers import SGD, Adam, RMSprop
from ..rule import Rule
from ..rules import RULES
from .hyper import hyper_of, number

__all__ = ["adam", "rmsprop", "sgd"]

Gradient = Callable[[Any, int], Any]
Callback = Callable[[Any, int, Any], Any] | None


def adam(
    grad: Gradient,
    x0: Any,
    callback: Callback = None,
    num_iters: int = 100,
    step_size: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 10**-8,
) -> Any:
    r"""Adam, with ε added after the bias correction, as in `fastadam.Adam`.

    .. math:: x_{t+1} = x_t - η · \hat m_t / (\sqrt{\hat v_t} + ε)

    `step_size` is η; `b1` and `b2` are the decay rates of the moments. Returns x after `num_iters` steps, in the
    structure of `x0`. See `fastadam.adapters.autograd` for the other arguments.

    Examples
    --------
    >>> adam(lambda x, i: 2 * x, np.array([1.0, -2.0]), num_iters=1, step_size=0.1).round(6)
    array([ 0.9, -1.9])
    """
    rule = RULES["adam"]
    betas = number("b1", b1), number("b2", b2)
    hyper = hyper_of(Adam, rule, number("step_size", step_size), betas=betas, eps=number("eps", eps))
    return _optimize(rule, hyper, grad, x0, callback, num_iters)


def rmsprop(
    grad: Gradient,
    x0: Any,
    callback: Callback = None,
    num_iters: int = 100,
    step_size: float = 0.1,
    gamma: float = 0.9,
    eps: float = 10**-8,
) -> Any:
    r"""RMSprop, as `fastadam.RMSprop`, except that the mean square starts at 1.

    .. math:: v_t = γ v_{t-1} + (1 - γ) g_t^2, \quad v_0 = 1, \quad x_{t+1} = x_t - η · g_t / (\sqrt{v_t} + ε)

    `step_size` is η. Returns x after `num_iters` steps, in the structure of `x0`. See `fastadam.adapters.autograd` for
    the other arguments.

    Examples
    --------
    >>> rmsprop(lambda x, i: 2 * x, np.array([1.0, -2.0]), num_iters=1, gamma=0.0).round(6)
    array([ 0.9, -1.9])
    """
    rule = RULES["rmsprop"]
    lr, alpha, eps = number("step_size", step_size), number("gamma", gamma), number("eps", eps)
    return _optimize(rule, hyper_of(RMSprop, rule, lr, alpha=alpha, eps=eps), grad, x0, callback, num_iters, begin=1.0)


def sgd(
    grad: Gradient,
    x0: Any,
    callback: Callback = None,
    num_iters: int = 200,
    step_size: float = 0.1,
    mass: float = 0.9,
) -> Any:
    r"""Gradient descent with a mean of the gradients as velocity: `fastadam.SGD` with dampening from the first step on.

    .. math:: u_t = μ u_{t-1} - (1 - μ) g_t, \quad x_{t+1} = x_t + η u_t

    `step_size` is η, `mass` is μ. Returns x after `num_iters` steps, in the structure of `x0`. See
    `fastadam.adapters.autograd` for the other arguments.

    Examples
    --------
    >>> sgd(lambda x, i: 2 * x, np.array([1.0, -2.0]), num_iters=1, mass=0.5).round(6)
    array([ 0.9, -1.8])
    """
    rule, mass = RULES["sgd_momentum"], number("mass", mass)
    hyper = hyper_of(SGD, rule, number("step_size", step_size), momentum=mass, dampening=mass)
    return _optimize(rule, hyper, grad, x0, callback, num_iters, first=2)  # the rule does not dampen step 1


def _optimize(
    rule: Rule,
    hyper: tuple[float, ...],
    grad: Gradient,
    x0: Any,
    callback: Callback,
    num_iters: int,
    begin: float = 0.0,
    first: int = 1,
) -> Any:
    """x after `num_iters` steps. The states start at `begin`, and the steps are counted from `first`."""
    tree = _Tree(x0)
    x = tree.leaves
    states = [[np.full(leaf.shape, begin) for _ in rule.states] for leaf in x]
    stepper = Stepper(rule, threads.default())
    for i in range(num_iters):
        g = tree.read(grad(tree.build(x), i))
        if callback:
            callback(tree.build(x), i, tree.build(g))
        if i == 0 or tree.is_leaf:  # the user may refer to the array itself
            x = [np.array(leaf, np.float64) for leaf in x]
        if x:
            stepper.lay(x, states, tree.names)
            stepper.step(g, i + first, hyper)
    return tree.build(x)


class _Tree:
    """The structure of x0 and its arrays, in autograd's order of flattening."""

    def __init__(self, x0: Any) -> None:
        self.names: list[str] = []
        self.leaves: list[np.ndarray] = []
        self.outline = self._outline(x0, "x0")
        self.is_leaf = type(self.outline) is int
        self.shapes = [leaf.shape for leaf in self.leaves]

    def _outline(self, value: Any, name: str) -> Any:
        """The same containers, with the index of each array or number in its place."""
        kind = type(value)
        if kind is dict:
            parts = {key: self._outline(value[key], f"{name}[{key!r}]") for key in sorted(value)}
            return {key: parts[key] for key in value}
        if kind in (list, tuple):
            return kind(self._outline(part, f"{name}[{k}]") for k, part in enumerate(value))
        leaf = _leaf(name, value)
        self.leaves.append(np.array(leaf, leaf.dtype if leaf.dtype.kind == "f" else np.float64))
        self.names.append(name)
        return len(self.leaves) - 1

    def build(self, arrays: list[np.ndarray]) -> Any:
        """Arrays in the structure of x0: a single array itself, nested ones as copies in the dtypes of x0."""
        return arrays[0] if self.is_leaf else self._build(self.outline, arrays)

    def _build(self, outline: Any, arrays: list[np.ndarray]) -> Any:
        kind = type(outline)
        if kind is int:
            return np.array(arrays[outline], self.leaves[outline].dtype)
        if kind is dict:
            return {key: self._build(part, arrays) for key, part in outline.items()}
        return kind(self._build(part, arrays) for part in outline)

    def read(self, given: Any) -> list[np.ndarray]:
        """A gradient as one array for each of x0's. If its structure differs, the order of its numbers matters."""
        found = list(_leaves(given))
        if [g.shape for g in found] == self.shapes:
            return found
        n = sum(leaf.size for leaf in self.leaves)
        flat = np.concatenate([np.empty(0), *(g.ravel() for g in found)])
        if flat.size != n:
            raise ValueError(f"grad: expected {checks.counted(n, 'number')}, as many as in x0, got {flat.size}")
        ends = np.cumsum([leaf.size for leaf in self.leaves])
        return [part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), self.shapes, strict=True)]


def _leaves(value: Any) -> Iterator[np.ndarray]:
    """The arrays of a gradient, in the order of `_Tree`."""
    kind = type(value)
    if kind is dict:
        value = [value[key] for key in sorted(value)]
    elif kind not in (list, tuple):
        yield _leaf("gradient", value)
        return
    for part in value:
        yield from _leaves(part)


def _leaf(name: str, value: Any) -> np.ndarray:
    """An array or a number as an array."""
    if isbox(value):
        raise TypeError(
            f"{name}: autograd is differentiating through this optimizer, which compiled steps do not allow; use that "
            "of autograd.misc.optimizers"
        )
    if isinstance(value, (list, tuple, np.ma.MaskedArray)):  # autograd, too, refuses subclasses of containers
        raise TypeError(f"{name}: expected an array, a number, a list, a tuple or a dict, got {type(value).__name__}")
    found = np.asarray(value)
    if found.dtype.kind not in "fiu" or found.dtype.itemsize > 8:
        what = type(value).__name__ if found.dtype == object else found.dtype
        raise TypeError(f"{name}: expected real numbers of at most 64 bits, got {what}")
    return found
