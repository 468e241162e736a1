"""Who is measured: each way of making one step of a list of arrays, under one name, with its library's defaults.
A library is imported when its step is made.
"""

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..average import Average
from ..base import Optimizer
from ..names import offer
from ..optimizers import CLASSES, Adam
from ..plain import PlainAdam
from .measure import Arrays, Contestant, Step

OURS = "fastadam"
ALL = ("float32", "float64", "float16", "bfloat16")

# ---------------------------------------------------------------- NumPy


def article_numpy(params: Arrays, grads: Arrays) -> Step:
    """The article's class, one instance an array: a new array for every operation."""
    optimizers = [PlainAdam(SimpleNamespace(parameters=p, grad=g)) for p, g in zip(params, grads, strict=True)]

    def step() -> None:
        for optimizer in optimizers:
            optimizer.step()

    return step


def tuned_numpy(params: Arrays, grads: Arrays) -> Step:
    """What a careful NumPy user writes: every operation into one of two work arrays, or in place."""
    m, v, a, b = ([np.zeros_like(p) for p in params] for _ in range(4))
    beta1, beta2, lr, eps = 0.9, 0.999, 1e-3, 1e-8
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        rate = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        for p_, g_, m_, v_, a_, b_ in zip(params, grads, m, v, a, b, strict=True):
            np.multiply(m_, beta1, out=m_)
            np.multiply(g_, 1 - beta1, out=a_)
            np.add(m_, a_, out=m_)
            np.multiply(g_, g_, out=a_)
            np.multiply(a_, 1 - beta2, out=a_)
            np.multiply(v_, beta2, out=v_)
            np.add(v_, a_, out=v_)
            np.sqrt(v_, out=a_)
            np.add(a_, eps, out=a_)
            np.multiply(m_, rate, out=b_)
            np.divide(b_, a_, out=b_)
            np.subtract(p_, b_, out=p_)

    return step


# ---------------------------------------------------------------- fastadam


def of_fastadam(cls: Callable[..., Optimizer] = Adam, **options: Any) -> Callable[[Arrays, Arrays], Step]:
    """An optimizer of fastadam with its gradients passed at each step."""

    def make(params: Arrays, grads: Arrays) -> Step:
        optimizer = cls(params, **options)
        return lambda: optimizer.step(grads)

    return make


def of_average(params: Arrays, grads: Arrays) -> Step:
    """An average of weights: the gradients stand for the model."""
    return Average(grads).update


# ---------------------------------------------------------------- peers


class NumbaKernel:
    """A kernel as a Numba user writes it: one fused parallel loop, called for each array, on OpenMP where found."""

    def __init__(self, params: Arrays) -> None:
        import numba

        @numba.njit(parallel=True, error_model="numpy")
        def kernel(p, g, m, v, rate, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
            for i in numba.prange(p.size):
                m[i] = beta1 * m[i] + one_minus_beta1 * g[i]
                v[i] = beta2 * v[i] + one_minus_beta2 * g[i] * g[i]
                p[i] -= rate * m[i] / (np.sqrt(v[i]) + eps)

        self.kernel, self.t = kernel, 0
        self.arrays = [(p.reshape(-1), np.zeros(p.size, p.dtype), np.zeros(p.size, p.dtype)) for p in params]

    def step(self, grads: Arrays) -> None:
        """Step each array."""
        self.t += 1
        rate = 1e-3 * (1 - 0.999**self.t) ** 0.5 / (1 - 0.9**self.t)
        for (p, m, v), g in zip(self.arrays, grads, strict=True):
            scalars = (p.dtype.type(x) for x in (rate, 0.9, 1 - 0.9, 0.999, 1 - 0.999, 1e-8))
            self.kernel(p, g.reshape(-1), m, v, *scalars)


def of_class(cls: type) -> Callable[[Arrays, Arrays], Step]:
    """A class made of the parameters, whose `step` takes the gradients."""

    def make(params: Arrays, grads: Arrays) -> Step:
        optimizer = cls(params)
        return lambda: optimizer.step(grads)

    return make


def over_tensors(
    module: str, name: str, stored_in: str | None = None, **options: Any
) -> Callable[[Arrays, Arrays], Step]:
    """An optimizer of torch.optim or our adapter, over tensors that share the arrays' memory, or are in `stored_in`."""

    def make(params: Arrays, grads: Arrays) -> Step:
        import torch

        def tensor_of(array: np.ndarray) -> Any:
            if array.dtype.name == "bfloat16":  # torch takes its bits, not its dtype
                return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
            return torch.from_numpy(array).to(getattr(torch, stored_in or array.dtype.name))

        tensors = [tensor_of(p).requires_grad_() for p in params]
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = tensor_of(g)
        return getattr(importlib.import_module(module), name)(tensors, **options).step

    return make


def deepspeed_cpu(params: Arrays, grads: Arrays) -> Step:
    """DeepSpeedCPUAdam, compiled on its first use."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import torch
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    tensors = [torch.nn.Parameter(torch.from_numpy(p)) for p in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g)
    return DeepSpeedCPUAdam(tensors, lr=1e-3, adamw_mode=False).step


def thinc_adam(params: Arrays, grads: Arrays) -> Step:
    """thinc's Adam, called for each array. It zeroes the gradient; that is filled again, a small part of its time."""
    from thinc.api import Adam

    optimizer = Adam(1e-3, L2=0.0, grad_clip=0.0)  # a constant rate: no schedules to step
    given = [g.copy() for g in grads]

    def step() -> None:
        for k, (p, g, kept) in enumerate(zip(params, grads, given, strict=True)):
            optimizer((k, "p"), p, g)
            np.copyto(g, kept)

    return step


def sklearn_adam(params: Arrays, grads: Arrays) -> Step:
    """scikit-learn's own, of its multilayer perceptrons."""
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

    optimizer = AdamOptimizer(params, 1e-3)
    return lambda: optimizer.update_params(params, grads)


def of_optax(name: str) -> Callable[[Arrays, Arrays], Step]:
    """An optimizer of optax with apply_updates, jitted, its arguments donated; waits for the result."""

    def make(params: Arrays, grads: Arrays) -> Step:
        import jax
        import optax

        jax.config.update("jax_enable_x64", True)
        transform = getattr(optax, name)(1e-3)

        def update(p, g, state):
            updates, state = transform.update(g, state, p)
            return optax.apply_updates(p, updates), state

        jitted = jax.jit(update, donate_argnums=(0, 2))
        held = [jax.numpy.array(p) for p in params]
        given = [jax.numpy.array(g) for g in grads]
        state = transform.init(held)

        def step() -> None:
            nonlocal held, state
            held, state = jitted(held, given, state)
            jax.block_until_ready(held)

        return step

    return make


# ---------------------------------------------------------------- who takes part

CONTESTANTS = [
    Contestant(OURS, of_fastadam(), dtypes=ALL),
    Contestant(f"{OURS}, backend numba", of_fastadam(backend="numba"), "numba"),
    Contestant(f"{OURS}, backend numpy", of_fastadam(backend="numpy")),
    Contestant("article's NumPy", article_numpy),
    Contestant("tuned NumPy", tuned_numpy),
    Contestant("numba parallel", of_class(NumbaKernel), "numba"),
    Contestant(f"{OURS} over tensors", over_tensors("fastadam.adapters.torch", "Adam"), "torch", ALL),
    Contestant("PyTorch fused", over_tensors("torch.optim", "Adam", fused=True), "torch", ALL),
    Contestant("PyTorch foreach", over_tensors("torch.optim", "Adam", foreach=True), "torch", ALL),
    Contestant("DeepSpeed CPUAdam", deepspeed_cpu, "deepspeed", ("float32",)),
    Contestant("thinc", thinc_adam, "thinc", ("float32",)),
    Contestant("scikit-learn", sklearn_adam, "sklearn"),
    Contestant("optax jit", of_optax("adam"), "optax", max_arrays=100),
]

#: name of a rule that its class does not choose by itself -> the options that do
_CHOSEN_BY: dict[str, dict[str, Any]] = {
    "amsgrad": {"amsgrad": True},
    "rmsprop_momentum": {"momentum": 0.9},
    "rmsprop_centered": {"centered": True},
    "rmsprop_centered_momentum": {"centered": True, "momentum": 0.9},
    "sgd_momentum": {"momentum": 0.9},
    "sgd_nesterov": {"momentum": 0.9, "nesterov": True},
}


def chosen(name: str) -> tuple[type[Optimizer], dict[str, Any]]:
    """The optimizer of this name, in any case, or the one of this rule, and the options that choose it."""
    by_name = {own.lower(): cls for own, cls in CLASSES.items()}
    by_rule = {rule: cls for cls in CLASSES.values() for rule in cls.rules if "rules" in vars(cls)}
    found = by_name.get(name.lower()) or by_rule.get(name)
    if found is None:
        raise ValueError(offer(name, sorted({*by_name, *by_rule}), "there are"))
    return found, _CHOSEN_BY.get(name, {})


def peers(cls: type[Optimizer], options: dict[str, Any]) -> list[Contestant]:
    """All that are installed and have this optimizer, and the other ways of fastadam."""
    if cls is Adam and not options:
        return [c for c in CONTESTANTS[1:] if c.installed]
    found = [
        Contestant(f"{OURS}, backend numpy", of_fastadam(cls, backend="numpy", **options)),
        *of_torch(cls, options),
    ]
    name = cls.__name__.lower()
    if importlib.util.find_spec("optax") and not options and hasattr(importlib.import_module("optax"), name):
        found.append(Contestant("optax jit", of_optax(name), "optax", max_arrays=100))
    return found


def of_torch(cls: type[Optimizer], options: dict[str, Any]) -> list[Contestant]:
    """The ways in which torch's optimizer of this name steps on a CPU; none where it has none."""
    if importlib.util.find_spec("torch") is None:
        return []
    theirs = getattr(importlib.import_module("torch.optim"), cls.__name__, None)
    known = () if theirs is None else (*inspect.signature(theirs).parameters, "single")
    hows: dict[str, dict[str, Any]] = {
        "fused": {"fused": True},
        "foreach": {"foreach": True},
        "single": {"foreach": False},
    }
    return [
        Contestant(f"PyTorch {name}", over_tensors("torch.optim", cls.__name__, **options, **how), "torch", ALL)
        for name, how in hows.items()
        if name in known
    ]


def contestants(*names: str) -> list[Contestant]:
    """Adam's contestants of these names, or all of them, where their library is installed."""
    return [c for c in CONTESTANTS if c.installed and (not names or c.name in names)]
