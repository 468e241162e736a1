"""A network for handwritten digits, trained by several processes. Each has a part of every batch, and of the states.
Run ``mpiexec -n 2 python examples/mpi_digits.py [--out FILE]``. It needs mpi4py, MPI, scikit-learn, Matplotlib and
tqdm.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mpi4py import MPI
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import fastadam
from fastadam.mpi import Sharded, flat

SIZES, BATCH, TEST_SIZE = (64, 512, 256, 10), 96, 450
OPTIONS = {"lr": 2e-3, "weight_decay": 0.05}
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.6"

Arrays = list[np.ndarray]


def weights() -> Arrays:
    """The weights and biases of each layer, the same in every process."""
    rng = np.random.default_rng(0)
    params: Arrays = []
    for n_in, n_out in pairwise(SIZES):
        params.append(rng.normal(scale=np.sqrt(2 / n_in), size=(n_in, n_out)).astype(np.float32))
        params.append(np.zeros(n_out, np.float32))
    return params


def forward(params: Arrays, x: np.ndarray) -> Arrays:
    """The values of each layer. The last are the probabilities of the classes."""
    layers = [x]
    for weight, bias in zip(params[::2], params[1::2], strict=True):
        layers.append(np.maximum(layers[-1] @ weight + bias, 0))
    scores = layers[-2] @ params[-2] + params[-1]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    layers[-1] = scores / scores.sum(axis=1, keepdims=True)
    return layers


def backward(params: Arrays, x: np.ndarray, labels: np.ndarray, grads: Arrays) -> float:
    """The mean cross-entropy of these images. Its gradients are written to `grads`."""
    layers = forward(params, x)
    picked = np.arange(len(x)), labels
    loss = -np.log(np.maximum(layers[-1][picked], 1e-12)).mean()
    error = layers[-1].copy()
    error[picked] -= 1
    error /= len(x)
    for k in range(len(params) - 2, -1, -2):
        np.matmul(layers[k // 2].T, error, out=grads[k])
        error.sum(axis=0, out=grads[k + 1])
        error = error @ params[k].T * (layers[k // 2] > 0)
    return float(loss)


def train(
    params: Arrays, grads: Arrays, step: Callable[[], None], data: tuple, comm: MPI.Comm, epochs: int, shown: bool
) -> list[float]:
    """The losses of all steps. Each is that of a whole batch, which the ranks of `comm` share equally."""
    losses = []
    for epoch in tqdm(range(epochs), desc=f"{comm.size} at work", unit="epoch", disable=not shown):
        rows = np.random.default_rng(epoch).permutation(len(data[0]))
        for batch in np.split(rows[: len(rows) // BATCH * BATCH], len(rows) // BATCH):
            mine = np.split(batch, comm.size)[comm.rank]
            loss = backward(params, data[0][mine], data[1][mine], grads)
            step()
            losses.append(comm.allreduce(loss) / comm.size)
    return losses


def draw(losses: dict[str, list[float]], kept: dict[str, dict[str, int]]) -> Figure:
    """Both loss curves, their difference, and the bytes that each process keeps."""
    figure = Figure(figsize=(16, 8), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2.2, 1])
    curves, difference = left.subplots(2, 1, height_ratios=[2, 1], sharex=True)
    (one, serial), (many, parallel) = losses.items()
    curves.semilogy(serial, color=ORANGE, linewidth=4, alpha=0.5, label=one)
    curves.semilogy(parallel, color=BLUE, linewidth=1, label=many)
    curves.set(title=f"A {' – '.join(map(str, SIZES))} network on digits: the same training", ylabel="cross-entropy")
    curves.legend()
    difference.semilogy(np.maximum(np.abs(np.subtract(serial, parallel)), 1e-9), ".", color=GREY)
    difference.set(title="How far the curves are apart: the order of sums", xlabel="step", ylabel="|difference|")
    bars, below = right.subplots(), np.zeros(len(kept))
    for name, colour in zip(kept["alone"], (GREY, "0.8", ORANGE, BLUE), strict=True):
        sizes = np.array([of[name] for of in kept.values()]) / 2**20
        bars.bar(list(kept), sizes, bottom=below, color=colour, label=name, width=0.6)
        below += sizes
    bars.set(title="What each process keeps", ylabel="MiB")
    bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2)
    for axes in (curves, difference, bars):
        axes.grid(alpha=0.25)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with all processes, then with one, compare, draw."""
    parser = argparse.ArgumentParser(description="Train a NumPy network on digits with several processes.")
    parser.add_argument("--out", type=Path, default=Path("mpi_digits.png"), help="the picture (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="how often the digits are seen (default: %(default)s)")
    given = parser.parse_args(arguments)
    out, epochs = given.out, given.epochs
    comm = MPI.COMM_WORLD
    if comm.size == 1:
        print("This is one process. For two: mpiexec -n 2 python examples/mpi_digits.py")
    if BATCH % comm.size:
        parser.error(f"a batch of {BATCH} images has no {comm.size} equal parts; take another number of processes")
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(images))
    test, data = (((images[part] / 16).astype(np.float32), labels[part]) for part in np.split(rows, [TEST_SIZE]))

    threadpool_limits(1)  # in matrix products: the processes share the processors
    params = flat(weights())  # one piece of memory, from which MPI sends the parameters
    opt = Sharded(fastadam.AdamW, params, comm, **OPTIONS)  # the changed line: fastadam.AdamW(params, **OPTIONS)
    parallel = train(params, opt.grads, opt.step, data, comm, epochs, shown=comm.rank == 0)

    states = sum(state.nbytes for arrays in opt.state.values() for state in arrays)
    whole = sum(p.nbytes for p in params)
    share = comm.gather(
        {"parameters": whole, "gradients": whole, "sums of gradients": (comm.size > 1) * states // 2, "states": states}
    )
    if comm.rank != 0:
        return
    alone = weights()
    grads = [np.zeros_like(p) for p in alone]
    step = fastadam.AdamW(alone, grads=grads, **OPTIONS).step
    serial = train(alone, grads, step, data, MPI.COMM_SELF, epochs, shown=True)
    print(f"loss of the last epoch: {np.mean(parallel[-len(parallel) // epochs :]):.2g} with {comm.size} processes, "
          f"{np.mean(serial[-len(serial) // epochs :]):.2g} with one")  # fmt: skip
    right = [np.mean(forward(p, test[0])[-1].argmax(axis=1) == test[1]) for p in (params, alone)]
    print(f"accuracy in test: {right[0]:.1%} and {right[1]:.1%}")
    print(f"largest difference of the losses: {np.abs(np.subtract(serial, parallel)).max():.2g}")
    kept = {"alone": share[0] | {"sums of gradients": 0, "states": 2 * whole}}
    kept |= {f"rank {rank}": of for rank, of in enumerate(share)}
    draw({"one process": serial, f"{comm.size} processes, sharded": parallel}, kept).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
