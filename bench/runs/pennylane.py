"""Circuits of PennyLane's, trained by PennyLane's Adam and by fastadam's in its place."""

import time
from typing import Any

import numpy
import pennylane as qml
from clock import OURS, Clock, Run
from pennylane import numpy as np

from fastadam.adapters import pennylane as adapter


def _optimizer(way: str, clock: Clock, stepsize: float) -> Any:
    optimizer = (adapter if way == OURS else qml).AdamOptimizer(stepsize)
    optimizer.apply_grad = clock.around(optimizer.apply_grad)
    return optimizer


def ground_state(way: str, clock: Clock) -> tuple[float, float]:
    """The lowest energy of a chain of four spins: 100 steps of Adam on 24 angles."""
    n = 4
    terms = [qml.PauliZ(k) @ qml.PauliZ(k + 1) for k in range(n - 1)] + [qml.PauliX(k) for k in range(n)]
    energy = qml.Hamiltonian([-1.0] * len(terms), terms)

    @qml.qnode(qml.device("default.qubit", wires=n))
    def circuit(angles: Any) -> Any:
        qml.StronglyEntanglingLayers(angles, wires=range(n))
        return qml.expval(energy)

    angles = np.array(numpy.random.default_rng(0).uniform(0, 1, (2, n, 3)), requires_grad=True)
    optimizer = _optimizer(way, clock, 0.05)
    start = time.perf_counter()
    for _ in range(100):
        angles = optimizer.step(circuit, angles)
    return time.perf_counter() - start, float(circuit(angles))


def classifier(way: str, clock: Clock) -> tuple[float, float]:
    """The parity of bits by a circuit and a bias: 50 batches of five, Adam, two trainable arguments."""
    n = 3
    inputs = numpy.array([[k >> bit & 1 for bit in range(n)] for k in range(2**n)])
    labels = 1 - 2 * (inputs.sum(axis=1) % 2)

    @qml.qnode(qml.device("default.qubit", wires=n))
    def circuit(weights: Any, bits: Any) -> Any:
        qml.BasisState(bits, wires=range(n))
        qml.StronglyEntanglingLayers(weights, wires=range(n))
        return qml.expval(qml.PauliZ(0))

    def cost(weights: Any, bias: Any, rows: Any) -> Any:
        return sum((labels[k] - circuit(weights, inputs[k]) - bias) ** 2 for k in rows) / len(rows)

    rng = numpy.random.default_rng(0)
    weights = np.array(0.1 * rng.standard_normal((2, n, 3)), requires_grad=True)
    bias = np.array(0.0, requires_grad=True)
    optimizer = _optimizer(way, clock, 0.1)
    start = time.perf_counter()
    for _ in range(50):
        weights, bias, _ = optimizer.step(cost, weights, bias, rng.integers(0, 2**n, 5))
    return time.perf_counter() - start, float(cost(weights, bias, range(2**n)))


CASES: dict[str, Run] = {
    "PennyLane, ground state": ground_state,
    "PennyLane, classifier": classifier,
}
