"""Steps while gradients arrive, against whole steps: the gradients that are held at once, and the time of a training.
`python bench/stepping.py --out FOLDER` writes stepping.json; torch may be absent.

What is held is measured: in NumPy by tracemalloc, which sees every array; in PyTorch by a hook that adds up, after each
gradient, those that are there. Times are of whole iterations of one process, the ways in turn; medians are quoted.
"""

import importlib.util
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from results import arguments, write

import fastadam

WHOLE, PARTS, STOCK = "step", "stepping", "torch, fused"
MIB = 2**20


# ---------------------------------------------------------------- NumPy, layer by layer


def backward(weights: list[np.ndarray], x: np.ndarray, take: Callable[[str, np.ndarray], None]) -> None:
    """Gradients of the mean square of a chain of layers with tanh, from the last one to the first, each to `take`."""
    outputs = [x]
    for w in weights:
        outputs.append(np.tanh(outputs[-1] @ w))
    delta = 2 * outputs[-1] / outputs[-1].size
    for k in reversed(range(len(weights))):
        delta = delta * (1 - outputs[k + 1] ** 2)
        before, g = delta @ weights[k].T, outputs[k].T @ delta
        take(str(k), g)
        delta = before


def numpy_iteration(way: str, width: int, depth: int, batch: int) -> Callable[[], None]:
    """One iteration of a training in plain NumPy."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((width, width), np.float32) / np.float32(width**0.5) for _ in range(depth)]
    opt, x = fastadam.Adam(weights), rng.standard_normal((batch, width), np.float32)

    def whole() -> None:
        grads: dict[str, np.ndarray] = {}
        backward(weights, x, grads.__setitem__)
        opt.step([grads[str(k)] for k in range(depth)])

    def parts() -> None:
        with opt.stepping() as step:
            backward(weights, x, step)

    return whole if way == WHOLE else parts


def numpy_memory(iteration: Callable[[], None]) -> float:
    """The most that an iteration allocates beyond what was there before, in MiB: gradients, and activations."""
    iteration()
    tracemalloc.start()
    iteration()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / MIB


# ---------------------------------------------------------------- PyTorch


def torch_iteration(way: str, width: int, depth: int, batch: int) -> tuple[Callable[[], None], Any]:
    """One iteration of the network of `bench/endtoend.py`, and its model."""
    import torch

    from fastadam.adapters import torch as adapter

    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, width), torch.nn.ReLU()]
    for _ in range(depth):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
    stock = way == STOCK
    optimizer = torch.optim.Adam(model.parameters(), fused=True) if stock else adapter.Adam(model.parameters())
    x, y = torch.randn(batch, 64), torch.randint(0, 10, (batch,))

    def whole() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    def parts() -> None:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        with optimizer.stepping():
            loss.backward()

    return (parts if way == PARTS else whole), model


def torch_memory(iteration: Callable[[], None], model: Any) -> float:
    """The most bytes of gradients that are there at once, in MiB."""
    params, most = list(model.parameters()), 0

    def count(_: Any) -> None:
        nonlocal most
        most = max(most, sum(p.grad.nbytes for p in params if p.grad is not None))

    handles = [p.register_post_accumulate_grad_hook(count) for p in params]
    iteration()
    for handle in handles:
        handle.remove()
    return most / MIB


# ---------------------------------------------------------------- the measurement

#: what is run: name, where, width and depth, batch, iterations a round
CASES: list[tuple[str, str, int, int, int, int]] = [
    ("NumPy, 8 layers of 1024", "numpy", 1024, 8, 64, 5),
    ("PyTorch, 20 layers of 32", "torch", 32, 19, 32, 40),
    ("PyTorch, 20 layers of 512", "torch", 512, 19, 32, 10),
    ("PyTorch, 20 layers of 1024", "torch", 1024, 19, 32, 3),
]


def measure(name: str, where: str, width: int, depth: int, batch: int, iterations: int, rounds: int) -> dict[str, Any]:
    """Time and memory of one case, each way."""
    found: dict[str, Any] = {"case": name}
    runs: dict[str, Callable[[], None]] = {}
    for way in (WHOLE, PARTS) if where == "numpy" else (STOCK, WHOLE, PARTS):
        if where == "numpy":
            runs[way] = numpy_iteration(way, width, depth, batch)
            memory = numpy_memory(runs[way])
        else:
            runs[way], model = torch_iteration(way, width, depth, batch)
            runs[way]()
            memory = torch_memory(runs[way], model)
        found[way] = {"MiB": memory}
    times: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, iteration in runs.items():
            start = time.perf_counter()
            for _ in range(iterations):
                iteration()
            times[way].append((time.perf_counter() - start) / iterations)
    for way, taken in times.items():
        found[way]["ms"] = 1e3 * statistics.median(taken)
    return found


def main() -> None:
    """Measure, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="rounds of each case and way (default: %(default)s)")
    options = parser.parse_args()
    has_torch = importlib.util.find_spec("torch") is not None
    found = [measure(*case, options.rounds) for case in CASES if case[1] != "torch" or has_torch]
    write(options.out, "stepping", {"runs": found})


if __name__ == "__main__":
    main()
