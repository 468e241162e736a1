"""A network in JAX on the CPU: its loss and gradient jitted, stepped by optax, jitted and donated, or by fastadam.
A case of bench/endtoend.py. The clock has the optimizer's part: until optax's new parameters are there.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from clock import OURS, Clock, Run
from sklearn.datasets import load_digits


def loss_of(params: Any, x: Any, y: Any) -> Any:
    """The mean cross-entropy of a network with one layer for each pair of weights and biases."""
    import jax
    import jax.numpy as jnp

    *hidden, (w, b) = params
    for own, bias in hidden:
        x = jnp.maximum(x @ own + bias, 0)
    return -jnp.take_along_axis(jax.nn.log_softmax(x @ w + b), y[:, None], axis=1).mean()


def stock_step(params: Any) -> Callable[[Any, Any], Any]:
    """optax's Adam as its users jit it: the old parameters and states are donated."""
    import jax
    import optax

    peer = optax.adam(1e-3)
    held = {"state": peer.init(params)}

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any, grads: Any) -> Any:
        updates, state = peer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def step(params: Any, grads: Any) -> Any:
        params, held["state"] = update(params, held["state"], grads)
        return jax.block_until_ready(params)

    return step


def jax_model(way: str, clock: Clock, width: int, depth: int) -> tuple[float, float]:
    """Digits in batches of 32, 5 epochs; compiled before the time is taken."""
    import jax
    import jax.numpy as jnp

    from fastadam.adapters import jax as adapter

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    rng, sizes = np.random.default_rng(0), [64, *[width] * depth, 10]
    params: Any = [
        (jnp.asarray(rng.standard_normal(shape, np.float32) * (2 / shape[0]) ** 0.5), jnp.zeros(shape[1]))
        for shape in pairwise(sizes)
    ]
    gradient = jax.jit(jax.value_and_grad(loss_of))
    if way == OURS:
        optimizer = adapter.Adam(params, lr=0.0)
        params, step = optimizer.params, lambda _, grads: optimizer.step(grads)
    else:
        step = stock_step(params)
    loss, grads = gradient(params, x[:32], y[:32])
    params = step(params, jax.tree.map(jnp.zeros_like, grads))  # compiles; of zeros it steps by nothing
    if way == OURS:
        optimizer.lr = 1e-3
    timed = clock.around(step)
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x) - 31, 32):
            loss, grads = gradient(params, x[first : first + 32], y[first : first + 32])
            jax.block_until_ready(grads)  # so that the clock has the optimizer's part alone
            params = timed(params, grads)
    return time.perf_counter() - start, float(loss)


CASES: dict[str, Run] = {
    "JAX, 64 hidden": partial(jax_model, width=64, depth=1),
    "JAX, 3 layers of 512": partial(jax_model, width=512, depth=3),
    "JAX, 2 layers of 1024": partial(jax_model, width=1024, depth=2),
}
