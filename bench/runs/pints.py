"""PINTS's Adam and fastadam's: a model of few parameters, and a curve of many."""

import time
from functools import partial

import numpy as np
from clock import OURS, Clock, Run


def controlled(way: str, clock: Clock, problem: str) -> tuple[float, float]:
    """4,000 points of a run of ``OptimisationController``."""
    import pints
    import pints.toy

    from fastadam.adapters import pints as adapter

    if problem == "logistic":
        model, times = pints.toy.LogisticModel(), np.linspace(0, 1000, 100)
        values = model.simulate([0.015, 500], times) + 10 * np.random.default_rng(1).standard_normal(100)
        error = pints.SumOfSquaresError(pints.SingleOutputProblem(model, times, values))
        x0, sigma0 = [0.02, 450], [1e-4, 5]
    else:
        error, x0, sigma0 = pints.toy.ParabolicError(np.linspace(-1, 1, 1000)), np.zeros(1000), 0.01
    method = (adapter if way == OURS else pints).Adam
    method.tell = clock.around(method.tell)
    controller = pints.OptimisationController(error, x0, sigma0, method=method)
    controller.set_log_to_screen(False)
    controller.set_max_iterations(4000)
    controller.set_function_tolerance(None)
    start = time.perf_counter()
    _, loss = controller.run()
    return time.perf_counter() - start, loss


CASES: dict[str, Run] = {
    "PINTS Adam, logistic model": partial(controlled, problem="logistic"),
    "PINTS Adam, 1,000 parameters": partial(controlled, problem="bowl"),
}
