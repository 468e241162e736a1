"""SciPy's minimize."""

import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from clock import OURS, Clock, Run

import fastadam
from fastadam.plain import PlainAdam


def scipy_minimize(way: str, clock: Clock, size: int) -> tuple[float, float]:
    """SciPy's minimize of Rosenbrock's function, 2,000 steps: Adam in plain NumPy as the method, or fastadam's."""
    from scipy.optimize import OptimizeResult, minimize, rosen, rosen_der

    from fastadam.adapters import scipy as adapter

    def plain(fun: Any, x0: Any, args: Any = (), jac: Any = None, **_: Any) -> OptimizeResult:
        held = SimpleNamespace(parameters=np.array(x0, float), grad=None)
        optimizer = PlainAdam(held)
        optimizer.alpha = 0.01
        step = clock.around(optimizer.step)
        for _ in range(2000):
            held.grad = jac(held.parameters)
            fun(held.parameters)
            step()
        return OptimizeResult(x=held.parameters, fun=fun(held.parameters))

    x0 = np.linspace(-1.2, 1.2, size)
    start = time.perf_counter()
    if way == OURS:
        fastadam.Adam.step = clock.around(fastadam.Adam.step)  # type: ignore[method-assign]
        options = {"lr": 0.01, "maxiter": 2000, "eps_hat": True}
        result = minimize(rosen, x0, jac=rosen_der, method=adapter.adam, tol=0.0, options=options)
    else:
        result = minimize(rosen, x0, jac=rosen_der, method=plain)
    return time.perf_counter() - start, float(result.fun)


CASES: dict[str, Run] = {
    "SciPy minimize, 10": partial(scipy_minimize, size=10),
    "SciPy minimize, 100,000": partial(scipy_minimize, size=100_000),
}
