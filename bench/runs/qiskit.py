"""qiskit-algorithms' ADAM and fastadam's in its place: a VQE, and a loss with its gradient in NumPy."""

import time
from typing import Any

import numpy as np
from clock import OURS, Clock, Run
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import VQE, optimizers

from fastadam.adapters import qiskit as adapter


def _optimizer(way: str, clock: Clock, **options: Any) -> Any:
    """An optimizer whose `minimize` leaves its time to the clock, that of the user's functions apart."""
    optimizer = (adapter if way == OURS else optimizers).ADAM(**options)
    minimize = optimizer.minimize

    def timed(fun: Any, x0: Any, jac: Any = None, bounds: Any = None) -> Any:
        functions = Clock()
        start = time.perf_counter()
        result = minimize(functions.around(fun), x0, jac and functions.around(jac), bounds)
        clock.seconds += time.perf_counter() - start - functions.seconds
        return result

    optimizer.minimize = timed
    return optimizer


def ground_state(way: str, clock: Clock) -> tuple[float, float]:
    """A VQE of two qubits, 100 steps of Adam on 8 angles; its gradient by differences, all in one batch."""
    operator = SparsePauliOp.from_list([("ZZ", -1.0), ("XI", -0.5), ("IX", -0.5)])
    optimizer = _optimizer(way, clock, maxiter=100, lr=0.05, tol=0.0, eps=1e-6)
    optimizer.set_max_evals_grouped(8)
    start_point = np.random.default_rng(0).uniform(0, 1, 8)
    vqe = VQE(StatevectorEstimator(), real_amplitudes(2, reps=3), optimizer, initial_point=start_point)
    start = time.perf_counter()
    result = vqe.compute_minimum_eigenvalue(operator)
    return time.perf_counter() - start, float(result.eigenvalue.real)


def regression(way: str, clock: Clock) -> tuple[float, float]:
    """Least squares of 20 weights with AMSGrad, 30,000 steps."""
    rng = np.random.default_rng(0)
    inputs, target = rng.standard_normal((100, 20)), rng.standard_normal(100)

    def loss(w: Any) -> float:
        return float(np.mean((inputs @ w - target) ** 2))

    def gradient(w: Any) -> Any:
        return inputs.T @ (inputs @ w - target) * (2 / len(inputs))

    optimizer = _optimizer(way, clock, maxiter=30_000, tol=0.0, amsgrad=True)
    start = time.perf_counter()
    result = optimizer.minimize(loss, np.zeros(20), gradient)
    return time.perf_counter() - start, float(result.fun)


CASES: dict[str, Run] = {
    "qiskit, VQE": ground_state,
    "qiskit, least squares": regression,
}
