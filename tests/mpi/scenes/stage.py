"""Helpers of the scenes: marks, an optimizer among ranks with its plain twin, parameters, refusals."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import inside
import numpy as np
from mpi4py import MPI

import fastadam
from fastadam.mpi import Disagreement, Sharded

#: by name, in the order of the files; ENDINGS end the job, and are played by themselves
SCENES: dict[str, Callable[[MPI.Intracomm, Path], None]] = {}
ENDINGS: set[str] = set()


def scene(play):
    SCENES[play.__name__] = play
    return play


def ending(play):
    ENDINGS.add(play.__name__)
    return scene(play)


#: marks what needs more than one rank
several = scene


def tell(folder: Path, name: str, failure: str, seconds: float = 0) -> None:
    """Ranks write in turn: a line is added by one call of the system."""
    line = json.dumps({"scene": name, "failure": failure, "seconds": seconds}) + "\n"
    handle = os.open(folder / "results.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


# ---------------------------------------------------------------- an optimizer among ranks, and its plain twin


def own_rule(p, g, m, lr, beta, one_minus_beta):
    m = beta * m + one_minus_beta * g
    return p - lr * np.sign(m), m


def own_scalars(t, lr, beta):
    return lr / np.sqrt(t), beta, 1.0 - beta


OwnRule = fastadam.optimizer(own_rule, own_scalars, ("m",), lr=0.01, beta=0.9)


def params_of(dtypes=("float32",), order="C", times=1) -> dict[str, np.ndarray]:
    """Parameters of each dtype: some elements, one without axes, one that is empty, and a matrix; `times` as many."""
    rng = np.random.default_rng(0)
    shapes = {"W": (13 * times, 7), "scalar": (), "empty": (0, 3), "b": (7 * times,)}
    return {
        f"{name} {dtype}": np.asarray(rng.standard_normal(shape), order=order).astype(dtype)
        for dtype in map(np.dtype, dtypes)
        for name, shape in shapes.items()
    }


def arrays_in(params) -> list[np.ndarray]:
    if isinstance(params, np.ndarray):
        return [params]
    values = params.values() if isinstance(params, dict) else params
    return [array for value in values for array in (arrays_in(value["params"]) if isinstance(value, dict) else [value])]


def like(params, arrays: list[np.ndarray]):
    """These arrays in the structure of the parameters; of groups, all of them in a row."""
    if isinstance(params, np.ndarray):
        return arrays[0]
    return dict(zip(params, arrays, strict=True)) if isinstance(params, dict) else arrays


def draw(params, t: int, rank: int, whole: bool) -> list[np.ndarray]:
    """A rank's gradients of step t, whose sums over ranks are exact if they are `whole`."""
    rng = np.random.default_rng([t, rank])
    found = []
    for p in arrays_in(params):
        g = rng.integers(-9, 10, p.shape) if whole else rng.standard_normal(p.shape)
        found.append(np.asarray(g, np.float64 if p.dtype == np.float64 else np.float32))
    return found


def average(gradients: list[list[np.ndarray]], weights: list[float] | None = None) -> list[np.ndarray]:
    """Of the ranks' gradients; those that weigh 0 are left out."""
    weights = weights or [1.0] * len(gradients)
    counted = [
        [np.multiply(g, w, dtype=g.dtype) for g in grads] for grads, w in zip(gradients, weights, strict=True) if w
    ]
    return [np.asarray(sum(parts[1:], parts[0]) / sum(weights), parts[0].dtype) for parts in zip(*counted, strict=True)]


class Twins:
    """The same parameters stepped by all ranks, and by a plain optimizer on each that knows all ranks' gradients."""

    def __init__(self, comm, make, optimizer=fastadam.Adam, whole=True, of_ranks=None, **options) -> None:
        self.comm, self.whole = comm, whole
        self.params, self.plain_params = make(), make()
        self.sharded = Sharded(optimizer, self.params, comm, **options, **(of_ranks or {}))
        options.pop("state_dir", None)
        self.plain = optimizer(self.plain_params, **options)
        self.tries = 0
        #: where the ranks' sums are exact, so is the average of 2**k of them
        self.exact = comm.size == 1 or (whole and comm.size in (2, 4))

    def steps(self, n: int = 3, **how) -> "Twins":
        for _ in range(n):
            self.step(**how)
        return self

    def step(self, given=True, change=lambda rank, grads: None, weights=None, **how) -> None:
        drawn = [draw(self.params, self.tries, rank, self.whole) for rank in range(self.comm.size)]
        for rank, grads in enumerate(drawn):
            change(rank, grads)
        self.tries += 1
        mine, own = drawn[self.comm.rank], {"weight": weights[self.comm.rank]} if weights else {}
        if given:
            self.sharded.step(like(self.params, mine), **own, **how)
        else:
            for view, g in zip(inside.grad_views(self.sharded), mine, strict=True):
                view[...] = g
            self.sharded.step(**own, **how)
        with np.errstate(invalid="ignore"):
            self.plain.step(like(self.plain_params, average(drawn, weights)), **how)

    def check(self) -> "Twins":
        """That they are the same, and all ranks too: to the bit where sums are exact, else to rounding."""
        sharded, plain = self.sharded, self.plain
        assert (sharded.t, sharded.skipped, sharded.seed) == (plain.t, plain.skipped, plain.seed)
        if plain.grad_norm is None:
            assert sharded.grad_norm is None
        else:
            np.testing.assert_allclose(sharded.grad_norm, plain.grad_norm, rtol=0 if self.exact else 1e-6)
        for p, expected in zip(arrays_in(self.params), arrays_in(self.plain_params), strict=True):
            self.same(p, expected)
        one, other = sharded.state_dict(), plain.state_dict()
        assert one.keys() == other.keys()
        assert one["steps"] == other["steps"]
        assert one["state"].keys() == other["state"].keys()
        for key, arrays in other["state"].items():
            assert one["state"][key].keys() == arrays.keys(), key
            for name, array in arrays.items():
                self.same(one["state"][key][name], array)
        same_everywhere(self.comm, arrays_in(self.params))
        return self

    def same(self, array: np.ndarray, expected: np.ndarray) -> None:
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        if self.exact:
            np.testing.assert_array_equal(array, expected)
        else:
            near = 0.03 if expected.itemsize == 2 else 1e-4
            np.testing.assert_allclose(array.astype(float), expected.astype(float), rtol=near, atol=near / 100)


def digest(arrays) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(array.tobytes())
    return total.hexdigest()


def same_everywhere(comm, arrays) -> None:
    assert len(set(comm.allgather(digest(arrays)))) == 1


def everything(opt) -> str:
    """All that a refused call must leave as it was, on this rank."""
    states = [array for arrays in inside.named_states(opt) for array in arrays.values()]
    values = [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups]
    counts = (opt.t, opt.skipped, inside.plan(opt).steps.tolist())
    return f"{digest([*inside.whole_params(opt), *states])} {counts} {values}"


def n_files(opt) -> int:
    """How many ranks write a file of a checkpoint."""
    return inside.layout(opt).n_ranks


def same_states(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"state", "param_groups"}:
        assert one[name] == other[name]
    for mine, theirs in zip(one["param_groups"], other["param_groups"], strict=True):
        assert repr(mine) == repr(theirs)
    for key, arrays in other["state"].items():
        for name, array in arrays.items():
            assert one["state"][key][name].dtype == array.dtype
            np.testing.assert_array_equal(one["state"][key][name], array)


# ---------------------------------------------------------------- parameters


def groups() -> list[dict]:
    """Of options of their own, fewer elements than ranks, none at all, and several dtypes."""
    rng = np.random.default_rng(1)
    return [
        {"params": rng.standard_normal((9, 5)), "lr": 0.1},
        {"params": {"one": np.ones(1), "none": np.ones(0)}, "weight_decay": 0.5, "betas": (0.5, 0.6)},
        {"params": [rng.standard_normal(30).astype(dtype) for dtype in ("float32", "float64", "float32")]},
        {"params": np.ones((0, 2), np.float32), "amsgrad": True},
        {"params": [np.ones(3, np.float32)], "amsgrad": True, "maximize": True},
    ]


def odd_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "Fortran": np.asfortranarray(rng.standard_normal((6, 5))),
        "strided": rng.standard_normal((8, 9))[::-2, 1::3],
        "transposed": rng.standard_normal((3, 4, 5)).transpose(2, 0, 1),
        "none": rng.standard_normal((0, 4)),
        "scalar": np.array(2.0),
        "C": rng.standard_normal((2, 9)),
    }


def params_of_blocks(dtypes=("float32",)) -> dict[str, np.ndarray]:
    """Of more elements than a block of 8-bit codes has: of 14 blocks and 2 of each dtype, the last ones shorter."""
    return params_of(dtypes, times=40)


# ---------------------------------------------------------------- what is refused


def error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


@contextmanager
def refused(comm, text: str, own: dict | None = None) -> Iterator[None]:
    """What is refused on every rank: by a Disagreement, or where it is a rank's `own` fault by its error."""
    try:
        yield
    except Exception as error:
        kind, said = (own or {}).get(comm.rank, (Disagreement, text))
        assert isinstance(error, kind), repr(error)  # noqa: PT017
        assert said in str(error), str(error)  # noqa: PT017
        assert isinstance(error, Disagreement) == (comm.rank not in (own or {}))  # noqa: PT017
    else:
        raise AssertionError(f"was not refused on rank {comm.rank}")


def refused_somehow(comm, call: Callable[[], object], kind: type[Exception]) -> None:
    """On every rank, with the true reason on one at least."""
    error = error_of(call)
    assert isinstance(error, kind | Disagreement), repr(error)
    assert any(comm.allgather(isinstance(error, kind)))
