"""PyBOP's AdamW and fastadam's, on two parameters of a single-particle battery model."""

import time

import numpy as np
from clock import OURS, Clock, Run


def battery(way: str, clock: Clock) -> tuple[float, float]:
    """60 points of a fit to a voltage that the model itself gives."""
    import pybamm
    import pybop

    from fastadam.adapters import pybop as adapter

    model = pybamm.lithium_ion.SPM()
    names = [f"{side} electrode active material volume fraction" for side in ("Negative", "Positive")]
    values, times = model.default_parameter_values, np.linspace(0, 360, 50)
    values.update(dict(zip(names, (0.62, 0.53), strict=True)))
    solved = pybamm.Simulation(model, parameter_values=values).solve(t_eval=[0, 360], t_interp=times)
    columns = {name: solved[name](times) for name in ("Current [A]", "Voltage [V]")}
    dataset = pybop.Dataset({"Time [s]": times, **columns})
    parameters = [pybop.Parameter(pybop.Gaussian(mean, 0.02)) for mean in (0.6, 0.5)]
    values = model.default_parameter_values
    values.update(dict(zip(names, parameters, strict=True)))
    simulator = pybop.pybamm.Simulator(model, parameter_values=values, protocol=dataset)
    problem = pybop.Problem(simulator, pybop.SumSquaredError(dataset))
    np.random.seed(0)  # noqa: NPY002  which draws PyBOP's first point
    options = pybop.PintsOptions(max_iterations=60, max_unchanged_iterations=None)
    fit = (adapter if way == OURS else pybop).AdamW(problem, options=options)
    fit.optimiser.tell = clock.around(fit.optimiser.tell)
    start = time.perf_counter()
    result = fit.run()
    return time.perf_counter() - start, float(result.best_cost)


CASES: dict[str, Run] = {"PyBOP AdamW, a battery": battery}
