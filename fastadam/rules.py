"""Every formula of fastadam, written once, for one element.
Called on arrays it is NumPy; the build translates it to Cython, and Numba compiles it as it stands.

An *update* is one algorithm's step of one element, in the paper's letters: parameter ``p``, gradient ``g``, its
states, then the scalars of the step; it returns the new ``p`` and states. It holds no loop, no dtype and no literal
(a literal would widen float32). A *scalars* function computes, in float64, what all elements of a step share, from
the step count ``t`` = 1.0, 2.0, … and the hyper-parameters. A `Rule` pairs the two.

An argument of a scalars function that is a flag says ``bool``. The C interface has no defaults: there a caller begins
with zeros. So an argument that does nothing at another value than zero has that value as its default here; C leaves it
out.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy import absolute, inf, maximum, minimum, sqrt, where

# ---------------------------------------------------------------- what every rule begins with


def prepare(p, g, factor, clip_value, weight_decay, shrink):
    """The step's gradient, scaled, clipped and with L2 decay added, and parameter, shrunk by decoupled decay."""
    g = minimum(clip_value, factor * g)
    g = -minimum(clip_value, -g)  # not maximum: its care for NaN in both arguments doubles the time under AVX2
    if weight_decay:  # not added when zero: 0 * inf would be NaN
        g = g + weight_decay * p
    p = shrink * p
    return p, g


def prepare_scalars(factor, clip_value, lr, weight_decay, decoupled: bool, maximize: bool):
    factor = -factor if maximize else factor
    coupled = 0.0 if decoupled else weight_decay
    shrink = 1.0 - lr * weight_decay if decoupled else 1.0
    return factor, clip_value, coupled, shrink


def clip_factor(norm, max_norm):
    """What brings gradients of this norm down to `max_norm`; the constant is torch's."""
    return min(1.0, max_norm / (norm + 1e-6)) if norm == norm else norm


def own_clip_factor(norm, max_norm):
    """The same for one array by its own norm, without a constant, as in Keras and thinc. A NaN stays one."""
    return 1.0 if norm <= max_norm else max_norm / norm


#: what a step may bring beside its gradients (the first arguments of `prepare_scalars`), and what changes nothing
OF_THE_STEP = {"factor": 1.0, "clip_value": inf}


# ---------------------------------------------------------------- Adam, AdamW, AMSGrad


def adam(p, g, m, v, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * (g * g)
    p = p - step_size * m / (sqrt(v) + eps)
    return p, m, v


def amsgrad(p, g, m, v, v_max, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * (g * g)
    v_max = maximum(v_max, v)
    p = p - step_size * m / (sqrt(v_max) + eps)
    return p, m, v, v_max


def adam_scalars(t, lr, beta1, beta2, eps, beta_decay=1.0, eps_hat: bool = False):
    """lr m̂ / (√v̂ + eps) with both corrections moved into the scalars; eps_hat leaves eps uncorrected."""
    beta1 = beta1 * beta_decay**t
    beta2 = beta2 * beta_decay**t
    root = sqrt(1.0 - beta2**t)
    step_size = lr * root / (1.0 - beta1**t)
    eps = eps if eps_hat else eps * root
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps


# ---------------------------------------------------------------- AdaMax


def adamax(p, g, m, u, step_size, beta1, one_minus_beta1, beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    u = maximum(beta2 * u, absolute(g) + eps)
    p = p - step_size * where(u, m / u, u)  # u is 0 only where every gradient was: stay
    return p, m, u


def adamax_scalars(t, lr, beta1, beta2, eps):
    return lr / (1.0 - beta1**t), beta1, 1.0 - beta1, beta2, eps


# ---------------------------------------------------------------- AdaGrad


def adagrad(p, g, v, step_size, eps):
    v = v + g * g
    p = p - step_size * g / (sqrt(v) + eps)
    return p, v


def adagrad_scalars(t, lr, lr_decay, eps):
    return lr / (1.0 + (t - 1.0) * lr_decay), eps


# ---------------------------------------------------------------- RMSprop: plain, with momentum, centered, both


def rmsprop(p, g, v, lr, alpha, one_minus_alpha, eps_in, eps_out):
    v = alpha * v + one_minus_alpha * (g * g)
    p = p - lr * g / (sqrt(v + eps_in) + eps_out)
    return p, v


def rmsprop_momentum(p, g, v, b, lr, alpha, one_minus_alpha, eps_in, eps_out, momentum):
    v = alpha * v + one_minus_alpha * (g * g)
    b = momentum * b + g / (sqrt(v + eps_in) + eps_out)
    p = p - lr * b
    return p, v, b


def rmsprop_centered(p, g, v, m, lr, alpha, one_minus_alpha, eps_in, eps_out):
    v = alpha * v + one_minus_alpha * (g * g)
    m = alpha * m + one_minus_alpha * g
    variance = absolute(v - m * m)  # rounding can take it below zero
    p = p - lr * g / (sqrt(variance + eps_in) + eps_out)
    return p, v, m


def rmsprop_centered_momentum(p, g, v, m, b, lr, alpha, one_minus_alpha, eps_in, eps_out, momentum):
    v = alpha * v + one_minus_alpha * (g * g)
    m = alpha * m + one_minus_alpha * g
    variance = absolute(v - m * m)
    b = momentum * b + g / (sqrt(variance + eps_in) + eps_out)
    p = p - lr * b
    return p, v, m, b


def rmsprop_scalars(t, lr, alpha, eps, eps_in_sqrt: bool):
    eps_in = eps if eps_in_sqrt else 0.0
    return lr, alpha, 1.0 - alpha, eps_in, eps - eps_in


def rmsprop_momentum_scalars(t, lr, alpha, eps, eps_in_sqrt: bool, momentum):
    lr, alpha, one_minus_alpha, eps_in, eps_out = rmsprop_scalars(t, lr, alpha, eps, eps_in_sqrt)
    return lr, alpha, one_minus_alpha, eps_in, eps_out, momentum


# ---------------------------------------------------------------- AdaDelta


def adadelta(p, g, v, d, lr, accumulated, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    v = beta2 * v + one_minus_beta2 * (g * g)
    step = sqrt(d + eps) / sqrt(v + eps) * g
    p = p - lr * step
    step = accumulated * step
    d = beta1 * d + one_minus_beta1 * (step * step)
    return p, v, d


def adadelta_scalars(t, lr, beta1, beta2, eps, accumulate_lr: bool = False):
    """The accumulator takes the squared step without its rate (Zeiler, torch), or with it (accumulate_lr)."""
    accumulated = lr if accumulate_lr else 1.0
    return lr, accumulated, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps


# ---------------------------------------------------------------- the registry


@dataclass(frozen=True)
class Rule:
    """An update, the scalars of its step, and the names of its states (the update's arguments after p and g)."""

    update: Callable[..., Any]
    scalars: Callable[..., Any]
    states: tuple[str, ...]

    @property
    def name(self) -> str:
        """The update's name."""
        return self.update.__name__

    @cached_property
    def hyper(self) -> tuple[str, ...]:
        """The hyper-parameters of a group, `prepare_scalars`' first; kernels take `OF_THE_STEP`, then these."""
        shared = arguments(prepare_scalars)[len(OF_THE_STEP) :]
        return shared + tuple(name for name in arguments(self.scalars)[1:] if name not in shared)

    @property
    def defaults(self) -> dict[str, float]:
        """What does nothing, by name: `OF_THE_STEP`, and those of `hyper` that a caller may leave out."""
        own = inspect.signature(self.scalars).parameters.values()
        return OF_THE_STEP | {p.name: p.default for p in own if p.default is not p.empty}

    @property
    def flags(self) -> set[str]:
        """Those of `hyper` that are True or False."""
        functions: tuple[Callable[..., Any], ...] = (prepare_scalars, self.scalars)
        return {p.name for f in functions for p in inspect.signature(f).parameters.values() if p.annotation is bool}

    @property
    def n_prepare_scalars(self) -> int:
        """How many of a step's scalars are `prepare`'s; they come first."""
        return len(arguments(prepare)) - len(("p", "g"))

    @cached_property
    def kernels(self) -> dict[str, Any]:
        """By backend, what runs the rule there, once it was asked for (see `kernel.backends`)."""
        return {}

    @cached_property
    def n_scalars(self) -> int:
        """How many scalars a step has: `prepare`'s, then the update's."""
        return self.n_prepare_scalars + len(arguments(self.update)) - len(("p", "g", *self.states))

    def step_scalars(self, t: int, hyper: Any) -> list[float]:
        """All scalars of step `t`, given the values of `OF_THE_STEP` and `hyper` in their order."""
        values = dict(zip((*OF_THE_STEP, *self.hyper), hyper, strict=True), t=float(t))
        functions: tuple[Callable[..., Any], ...] = (prepare_scalars, self.scalars)
        return [
            float(scalar)
            for function in functions
            for scalar in function(*(values[name] for name in arguments(function)))
        ]


def arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's arguments, in order."""
    return tuple(inspect.signature(function).parameters)


#: a new rule comes last: its new hyper-parameters are then the last members of the C options
RULES = {
    rule.name: rule
    for rule in (
        Rule(adam, adam_scalars, ("m", "v")),
        Rule(amsgrad, adam_scalars, ("m", "v", "v_max")),
        Rule(adamax, adamax_scalars, ("m", "u")),
        Rule(adagrad, adagrad_scalars, ("v",)),
        Rule(rmsprop, rmsprop_scalars, ("v",)),
        Rule(rmsprop_momentum, rmsprop_momentum_scalars, ("v", "b")),
        Rule(rmsprop_centered, rmsprop_scalars, ("v", "m")),
        Rule(rmsprop_centered_momentum, rmsprop_momentum_scalars, ("v", "m", "b")),
        Rule(adadelta, adadelta_scalars, ("v", "d")),
    )
}
