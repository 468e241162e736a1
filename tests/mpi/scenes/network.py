"""A network learns from parts of each batch as well as from whole batches."""

import numpy as np

import fastadam
from fastadam import schedules
from fastadam.mpi import Sharded, flat

from .stage import scene


class Network:
    """64 → 32 → 10 on digits: parameters, and gradients of the mean cross-entropy of a batch."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.params = flat(
            {
                "W1": rng.normal(scale=0.2, size=(64, 32)),
                "b1": np.zeros(32),
                "W2": rng.normal(scale=0.2, size=(32, 10)),
                "b2": np.zeros(10),
            }
        )

    def forward(self, x):
        p = self.params
        hidden = np.maximum(x @ p["W1"] + p["b1"], 0)
        scores = hidden @ p["W2"] + p["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def backward(self, x, labels, grads) -> float:
        hidden, log_p = self.forward(x)
        error = (np.exp(log_p) - np.eye(10)[labels]) / len(x)
        back = error @ self.params["W2"].T * (hidden > 0)
        grads["W1"][...], grads["b1"][...] = x.T @ back, back.sum(axis=0)
        grads["W2"][...], grads["b2"][...] = hidden.T @ error, error.sum(axis=0)
        return float(-log_p[np.arange(len(x)), labels].mean())

    def accuracy(self, x, labels) -> float:
        return float((self.forward(x)[1].argmax(axis=1) == labels).mean())


def parts(batch, n: int) -> list:
    """Of unequal numbers of rows, some of none."""
    cuts = np.random.default_rng(batch).integers(0, len(batch), n - 1, endpoint=True)
    return np.split(batch, np.sort(cuts))


@scene
def digits(comm, folder):
    """A network learns from parts of each batch as it does from whole ones."""
    with np.load(folder.parent / "digits.npz") as data:
        x, labels = data["x"] / 16, data["labels"]
    train, test = slice(0, 1400), slice(1400, None)
    alone, shared = Network(), Network()
    options = {"lr": schedules.cosine(0.03, 160), "weight_decay": 1e-4}
    grads = {key: np.zeros_like(p) for key, p in alone.params.items()}
    plain = fastadam.AdamW(alone.params, grads=grads, **options)
    opt = Sharded(fastadam.AdamW, shared.params, comm, bucket_bytes=4000, **options)
    rng, curves = np.random.default_rng(1), ([], [])
    for _ in range(160):
        batch = rng.permutation(train.stop)[:60]
        mine = parts(batch, comm.size)[comm.rank]
        curves[0].append(alone.backward(x[batch], labels[batch], grads))
        plain.step(max_norm=1.0)
        loss = shared.backward(x[mine], labels[mine], opt.grads) if len(mine) else 0.0
        opt.step(max_norm=1.0, weight=len(mine))
        curves[1].append(loss * len(mine))
    shared_curve = comm.allreduce(np.array(curves[1])) / 60
    np.testing.assert_allclose(shared_curve, curves[0], rtol=1e-7, atol=1e-9)
    assert np.mean(curves[0][-10:]) < 0.1 * curves[0][0]
    assert shared.accuracy(x[test], labels[test]) == alone.accuracy(x[test], labels[test]) > 0.9
