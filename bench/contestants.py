"""Who is measured: each way of making one Adam step of a list of arrays, under one name, with its defaults.
Shared by the pytest-benchmark suites and by report.py; a library that is not installed is left out.
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import fastadam
from fastadam.plain import PlainAdam

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cases import BY_RULE

Arrays = list[np.ndarray]
Step = Callable[[], object]


def article_numpy(params: Arrays, grads: Arrays) -> Step:
    """The article's class, one instance an array: a new array for every operation."""
    optimizers = [PlainAdam(SimpleNamespace(parameters=p, grad=g)) for p, g in zip(params, grads, strict=True)]
    return lambda: [optimizer.step() for optimizer in optimizers]


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


def of_fastadam(cls: type[fastadam.Optimizer] = fastadam.Adam, **options: object) -> Callable[[Arrays, Arrays], Step]:
    """An optimizer of fastadam with its gradients passed at each step."""

    def make(params: Arrays, grads: Arrays) -> Step:
        optimizer = cls(params, **options)
        return lambda: optimizer.step(grads)

    return make


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
        self.t += 1
        rate = 1e-3 * (1 - 0.999**self.t) ** 0.5 / (1 - 0.9**self.t)
        for (p, m, v), g in zip(self.arrays, grads, strict=True):
            scalars = (p.dtype.type(x) for x in (rate, 0.9, 1 - 0.9, 0.999, 1 - 0.999, 1e-8))
            self.kernel(p, g.reshape(-1), m, v, *scalars)


class PythonThreads:
    """fastadam on one thread a half of each array, the second half in a Python thread: the simplest way to use two."""

    def __init__(self, params: Arrays) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.halves = [fastadam.Adam([half(p, k) for p in params], eps_hat=True, n_threads=1) for k in range(2)]

    def step(self, grads: Arrays) -> None:
        other = self.pool.submit(self.halves[1].step, [half(g, 1) for g in grads])
        self.halves[0].step([half(g, 0) for g in grads])
        other.result()


def half(array: np.ndarray, which: int) -> np.ndarray:
    """A view of the first or second half of an array's elements."""
    flat, middle = array.reshape(-1), array.size // 2
    return flat[middle:] if which else flat[:middle]


def of_class(cls: type) -> Callable[[Arrays, Arrays], Step]:
    """A class made of the parameters, whose `step` takes the gradients."""

    def make(params: Arrays, grads: Arrays) -> Step:
        optimizer = cls(params)
        return lambda: optimizer.step(grads)

    return make


def over_tensors(
    module: str, name: str, stored_in: str | None = None, **options: object
) -> Callable[[Arrays, Arrays], Step]:
    """An optimizer of torch.optim or our adapter, over tensors that share the arrays' memory, or have another dtype."""

    def make(params: Arrays, grads: Arrays) -> Step:
        import torch

        def tensor_of(array: np.ndarray) -> torch.Tensor:
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


def optax_adam(params: Arrays, grads: Arrays) -> Step:
    """optax.adam with apply_updates, jitted, its arguments donated; waits for the result."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    transform = optax.adam(1e-3)

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


@dataclass(frozen=True)
class Contestant:
    """A way of stepping a list of arrays; `make` returns the function that does it once."""

    name: str
    make: Callable[[Arrays, Arrays], Step]
    needs: str = "numpy"
    dtypes: tuple[str, ...] = ("float32", "float64")
    max_arrays: int = 1_000_000

    @property
    def installed(self) -> bool:
        """Whether the library that it needs is here."""
        return importlib.util.find_spec(self.needs) is not None


CONTESTANTS = [
    Contestant("fastadam", of_fastadam()),
    Contestant("fastadam, backend numba", of_fastadam(backend="numba"), "numba"),
    Contestant("fastadam, backend numpy", of_fastadam(backend="numpy")),
    Contestant("article's NumPy", article_numpy),
    Contestant("tuned NumPy", tuned_numpy),
    Contestant("numba parallel", of_class(NumbaKernel), "numba"),
    Contestant("fastadam over tensors", over_tensors("fastadam.adapters.torch", "Adam"), "torch"),
    Contestant("PyTorch fused", over_tensors("torch.optim", "Adam", fused=True), "torch"),
    Contestant("PyTorch foreach", over_tensors("torch.optim", "Adam", foreach=True), "torch"),
    Contestant("DeepSpeed CPUAdam", deepspeed_cpu, "deepspeed", ("float32",)),
    Contestant("thinc", thinc_adam, "thinc", ("float32",)),
    Contestant("scikit-learn", sklearn_adam, "sklearn"),
    Contestant("optax jit", optax_adam, "optax", max_arrays=100),
]


def rule_contestants(rule: str) -> list["Contestant"]:
    """fastadam and torch's variants of one rule, with the options of the tests' case of it."""
    cls, options = BY_RULE[rule]
    name = cls.__name__
    found = [Contestant("fastadam", of_fastadam(cls, **options))]
    for variant in torch_variants(name):
        how = {"foreach": False} if variant == "single" else {variant: True}
        found.append(Contestant(f"PyTorch {variant}", over_tensors("torch.optim", name, **options, **how), "torch"))
    return found


def torch_variants(name: str) -> list[str]:
    """The ways in which torch's optimizer of this name steps on a CPU; none where it has none."""
    if importlib.util.find_spec("torch") is None:
        return []
    theirs = getattr(importlib.import_module("torch.optim"), name, None)
    known = () if theirs is None else (*inspect.signature(theirs).parameters, "single")
    return [variant for variant in ("fused", "foreach", "single") if variant in known]


def contestants(*names: str) -> list[Contestant]:
    """Those of the names given, or all, that are installed."""
    return [c for c in CONTESTANTS if c.installed and (not names or c.name in names)]


def arrays(count: int, size: int, dtype: str) -> tuple[Arrays, Arrays]:
    """Parameters and gradients of ordinary magnitude: never zeros, nor values that decay to denormals."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(size, np.float32).astype(dtype) for _ in range(count)]
    grads = [rng.standard_normal(size, np.float32).astype(dtype) for _ in range(count)]
    return params, grads
