"""river's models with its own Adam and with fastadam's: linear models by examples and by mini-batches, and factors."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from clock import OURS, Clock, Run


def optimizer(way: str, clock: Clock) -> Any:
    """An Adam of the smallest rate that learns these well."""
    from river import optim

    from fastadam.adapters import river as adapter

    made = (adapter if way == OURS else optim).Adam(0.01)
    type(made).step = clock.around(type(made).step)
    return made


def examples(features: int, count: int) -> Iterator[tuple[dict[str, float], float]]:
    """Numbers and what a linear law makes of them, with noise."""
    rng = np.random.default_rng(0)
    law, names = rng.standard_normal(features), [f"feature {k}" for k in range(features)]
    for x in rng.standard_normal((count, features)):
        yield dict(zip(names, x.tolist(), strict=True)), float(x @ law + 0.1 * rng.standard_normal())


def by_examples(way: str, clock: Clock, features: int) -> tuple[float, float]:
    """``learn_one`` of a linear regression with a scaler before it, 1.5 million numbers in all."""
    from river import linear_model, preprocessing

    model = preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer(way, clock))
    stream, loss = list(examples(features, 1_500_000 // features)), 0.0
    start = time.perf_counter()
    for x, y in stream:
        loss = 0.99 * loss + 0.01 * (model.predict_one(x) - y) ** 2
        model.learn_one(x, y)
    return time.perf_counter() - start, loss


def by_batches(way: str, clock: Clock, features: int) -> tuple[float, float]:
    """``learn_many`` of a linear regression, 32 examples at a time, 2,000 times."""
    import pandas as pd
    from river import linear_model

    model = linear_model.LinearRegression(optimizer(way, clock))
    xs, ys = zip(*examples(features, 3200), strict=True)
    x, y = pd.DataFrame(xs), pd.Series(ys, name="y")
    batches = [(x[k : k + 32], y[k : k + 32]) for k in range(0, 3200, 32)]
    start = time.perf_counter()
    for xb, yb in batches * 20:
        model.learn_many(xb, yb)
    return time.perf_counter() - start, float(((model.predict_many(x) - y) ** 2).mean())


def by_factors(way: str, clock: Clock, factors: int) -> tuple[float, float]:
    """``learn_one`` of a factorization machine of so many factors, 20 features, 1,000 examples."""
    from river import facto

    made = optimizer(way, clock)
    model = facto.FMRegressor(factors, weight_optimizer=made, latent_optimizer=made.clone(), seed=0)
    stream, loss = list(examples(20, 1000)), 0.0
    start = time.perf_counter()
    for x, y in stream:
        loss = 0.99 * loss + 0.01 * (model.predict_one(x) - y) ** 2
        model.learn_one(x, y)
    return time.perf_counter() - start, loss


CASES: dict[str, Run] = {
    "river learn_one, 10 features": partial(by_examples, features=10),
    "river learn_one, 300 features": partial(by_examples, features=300),
    "river learn_many, 300 features": partial(by_batches, features=300),
    "river factorization machine, 32 factors": partial(by_factors, factors=32),
}
