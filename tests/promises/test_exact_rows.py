"""The promise of rows="exact": after `flush`, parameters and states have the bits of steps whose gradients had zeros in
the missing rows. For every optimizer, and with anything else that may happen while rows lag.
"""

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from cases import CASES, make
from tables import EVERY_DTYPE, assert_same, numbers, some_rows, summed

import fastadam
from fastadam import Rows

F4 = np.float32
#: tables, and what is no table
SHAPES = [(30, 5), (12, 64), (25,), (6, 2, 3)]
#: by the number of a step, what else it does to its gradients
EXTRAS: dict[int, dict[str, Any]] = {
    3: {"max_norm": 0.5},
    7: {"max_norm_each": 0.25, "grad_scale": 2.0},
    12: {"clip_value": 0.125},
    16: {"clip_value": 1e-39},  # denormals are kept
    18: {"grad_scale": 2.0**126},
    17: {"max_norm": 0.01, "skip_nonfinite": True},
}
#: by the number of a step, options that change before it, where the optimizer has them
CHANGES: dict[int, dict[str, Any]] = {
    5: {"lr": 0.5},
    9: {"weight_decay": 0.25, "momentum": 0.5},
    14: {"betas": (0.5, 0.75), "alpha": 0.5, "bounds": (-1.5, 1.5)},
    20: {"weight_decay": 0.0, "lr": 0.0078125},
}


class Pair:
    """An exact optimizer, and one that takes the same steps with gradients of all rows."""

    def __init__(self, make_one: Callable[..., fastadam.Optimizer], starts: list[np.ndarray], **more: Any) -> None:
        self.rng = np.random.default_rng(len(starts))
        self.params, self.plain = ({str(k): p.copy("K") for k, p in enumerate(starts)} for _ in range(2))
        self.exact, self.dense = make_one(self.params, rows="exact", **more), make_one(self.plain, **more)
        self.n = 0

    @property
    def both(self) -> list[fastadam.Optimizer]:
        return [self.exact, self.dense]

    def step(self, n: int = 1, **extras: Any) -> None:
        for _ in range(n):
            self.n += 1
            self._change(CHANGES.get(self.n, {}))
            grads = {key: self._gradient(int(key), p) for key, p in self.params.items()}
            dense = {
                key: summed(g, p.shape, p.dtype) if isinstance(g, Rows) else g
                for (key, g), p in zip(grads.items(), self.params.values(), strict=True)
            }
            extras_now = EXTRAS.get(self.n, {}) | extras
            self.exact.step(grads, **extras_now)
            self.dense.step(dense, **extras_now)

    def _gradient(self, k: int, p: np.ndarray) -> Any:
        """Mostly rows, now and then of all rows, or none at all."""
        if (self.n + k) % 11 == 10:
            return None
        rows = some_rows(self.rng, p.shape, p.dtype, 5)
        return summed(rows, p.shape, p.dtype) if (self.n + k) % 13 == 12 else rows

    def _change(self, options: dict[str, Any]) -> None:
        for (name, value), opt in itertools.product(options.items(), self.both):
            own = opt.param_groups[0].get(name)
            is_free = own is not None and not callable(own) and not type(opt).options[name].fixed
            if is_free and (name != "momentum" or own):  # 0 has no state of momentum
                if name == "betas" and len(opt.betas) == 3:
                    value = (*value, 0.9)
                setattr(opt, name, value)

    def check(self) -> None:
        """They are the same, after `flush`."""
        self.exact.flush()
        assert not any(inside.lagging(self.exact))
        assert_same(self.exact, self.dense)


def tables(dtype: Any = F4, order: Any = "C", shapes: Any = SHAPES) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.array(numbers(rng, shape, dtype), order=order) for shape in shapes]


# ---------------------------------------------------------------- every optimizer, dtype, layout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_every_optimizer(case: str, dtype: Any) -> None:
    pair = Pair(lambda *args, **more: make(case, *args, **more), tables(dtype))
    pair.step(18)
    assert all(inside.lagging(pair.exact))
    pair.check()
    pair.step(15)
    pair.check()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_every_dtype_and_order(dtype: Any, order: str) -> None:
    for cls in (fastadam.AdamW, fastadam.ScheduleFreeAdamW, fastadam.SGD):
        pair = Pair(cls, tables(dtype, order), weight_decay=0.1)
        pair.step(26)
        pair.check()


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", EVERY_DTYPE[:3])
def test_fewer_bits(dtype: Any, order: str, n_threads: int) -> None:
    for state_dtype, master in (("bfloat16", False), ("bfloat16", True), (None, True)):
        own = {"state_dtype": state_dtype, "master_weights": master, "seed": 7, "n_threads": n_threads}
        pair = Pair(fastadam.AdamW, tables(dtype, order), weight_decay=0.1, **own)
        pair.step(26)
        pair.check()


@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy(order: str) -> None:
    small = [(9, 5), (4, 2, 3)]
    for dtype, master in ((np.float16, True), (np.complex64, False), (np.float64, False)):
        pair = Pair(fastadam.AdamW, tables(dtype, order, small), master_weights=master, backend="numpy", lr=0.1)
        pair.step(15)
        pair.check()


@pytest.mark.parametrize(("backend", "n_threads"), [("cython", 1), ("cython", 2), ("cython", 3), ("numba", 2)])
def test_threads(backend: str, n_threads: int) -> None:
    shapes = [(3000, 33), (40, 5), (70, 256)]
    pair = Pair(fastadam.Adam, tables(shapes=shapes), n_threads=n_threads, backend=backend, lr=0.1)
    pair.step(12)
    pair.check()


def test_states_in_8_bits() -> None:
    pair = Pair(fastadam.Adam, tables(shapes=[(20, 256), (12, 512), (5, 3)]), lr=0.1, state_dtype="int8", seed=3)
    pair.step(26)
    pair.check()


def test_strided_parameters() -> None:
    wide = [np.zeros((2 * p.shape[0], *p.shape[1:]), F4) for p in tables()]
    params = {str(k): w[::2] for k, w in enumerate(wide)}
    opt, other = fastadam.Adam(params, rows="exact"), fastadam.Adam([np.zeros(s, F4) for s in SHAPES])
    rng = np.random.default_rng(1)
    for _ in range(12):
        grads = [some_rows(rng, shape, F4) for shape in SHAPES]
        opt.step(dict(zip(params, grads, strict=True)))
        other.step([summed(g, shape, F4) for g, shape in zip(grads, SHAPES, strict=True)])
    opt.flush()
    assert_same(opt, other)
    assert not any(w[1::2].any() for w in wide)


def schedule(t: int) -> float:
    return 0.5 / t


def test_schedules_and_groups_of_both_kinds() -> None:
    """A group that is exact, beside one that is lazy and has gradients of all rows."""
    starts = tables()

    def both(params: Any, **more: Any) -> fastadam.Optimizer:
        exact, others = dict(list(params.items())[:2]), dict(list(params.items())[2:])
        rows = more.pop("rows", "lazy")
        groups = [{"params": exact, "rows": rows, "lr": schedule}, {"params": others, "weight_decay": 0.1}]
        return fastadam.AdamW(groups, lr=fastadam.schedules.cosine(0.5, 20), **more)

    params, plain = ({str(k): p.copy() for k, p in enumerate(starts)} for _ in range(2))
    opt, other, rng = both(params, rows="exact"), both(plain), np.random.default_rng(2)
    for t in range(15):
        rows = [some_rows(rng, shape, F4) for shape in SHAPES]
        dense = [summed(g, shape, F4) for g, shape in zip(rows, SHAPES, strict=True)]
        grads = [rows, dense] if t % 4 else [dense, dense]
        opt.step([dict(zip("01", grads[0][:2], strict=True)), dict(zip("23", dense[2:], strict=True))])
        other.step([dict(zip("01", dense[:2], strict=True)), dict(zip("23", dense[2:], strict=True))])
    assert opt.param_groups[0]["rows"] == "exact"
    opt.flush()
    assert_same(opt, other)


def test_frozen_while_rows_lag() -> None:
    pair = Pair(fastadam.AdamW, tables(), weight_decay=0.1)
    pair.step(6)
    for opt in pair.both:
        opt.param_groups[0]["frozen"] = True
    pair.step(3)
    assert all(inside.lagging(pair.exact))
    for opt in pair.both:
        opt.param_groups[0]["frozen"] = False
    pair.step(6)
    pair.check()


# ---------------------------------------------------------------- longer than the history


@pytest.mark.parametrize("case", ["adam", "sgd", "sgd_momentum", "adamw", "rprop", "schedule_free"])
def test_more_steps_than_are_remembered(case: str) -> None:
    starts = tables(shapes=[(4, 2), (3,)])
    opt, other = (make(case, [p.copy() for p in starts], **more) for more in ({"rows": "exact"}, {}))
    g, h = np.zeros((4, 2), F4), np.zeros(3, F4)
    for t in range(9000):
        k = 0 if t % 3000 else 3  # rows 1 and 2 never come
        g[:] = 0
        g[k] = h[0] = np.sin(t)
        if t in (2000, 8900):
            for each in (opt, other) if case != "rprop" else ():
                each.lr = 2.0**-t if t > 8000 else 0.0625
        opt.step([Rows([k], g[[k]]), Rows([0], h[:1])])
        other.step([g, h])
        if t == 4095:
            assert inside.lagging(opt) == [3, 2]
        if t == 7000:
            opt, other = pickle.loads(pickle.dumps(opt)), pickle.loads(pickle.dumps(other))
    opt.flush()
    assert_same(opt, other)


# ---------------------------------------------------------------- what happens while rows lag


def loads_itself(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.load_state_dict(opt.state_dict())
    return opt


def loads_what_was(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    """The parameters stay, the states are those of some steps before."""
    kept, rng = opt.state_dict(), np.random.default_rng(5)
    for _ in range(4):
        rows = {k: some_rows(rng, p.shape, p.dtype) for k, p in enumerate(inside.planned(opt))}
        is_exact = opt.param_groups[0]["rows"] == "exact"
        opt.step({str(k): g if is_exact else summed(g, SHAPES[k], F4) for k, g in rows.items()})
    opt.load_state_dict(kept)
    return opt


def saved(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    for name in ("a.npz", "b.safetensors"):
        path = folder / f"{id(opt)}{name}"
        opt.save(path, params=True)
        for p in inside.planned(opt):
            p[...] = 0
        opt.load(path)
    return opt


def taken_over(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    """By an optimizer of the other kind, and back."""
    rows = {"lazy": "exact", "exact": "lazy"}[opt.param_groups[0]["rows"]]
    other = type(opt)({str(k): p.copy() for k, p in enumerate(inside.planned(opt))}, rows=rows)
    opt.save(folder / "other.npz", params=True)
    other.load(folder / "other.npz")
    assert other.param_groups[0]["rows"] == rows
    assert_same(opt, other)
    other.save(folder / "back.npz", params=True)
    opt.load(folder / "back.npz")
    return opt


def pickled(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    return pickle.loads(pickle.dumps(opt))


def copied(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    return copy.deepcopy(opt)


def copied_and_gone_on(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    """The copy does not write what the original reads."""
    other = copy.deepcopy(opt)
    other.step({str(k): np.ones(p.shape, F4) for k, p in enumerate(inside.planned(other))})
    return opt


def replaced(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.flush()
    opt.replace("0", inside.planned(opt)[0].copy())
    return opt


def replaced_at_once(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.replace("0", np.full(SHAPES[0], 0.5, F4))
    return opt


def in_another_order(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.flush()
    opt.replace("0", np.asfortranarray(inside.planned(opt)[0]))
    return opt


def of_fewer_rows(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.flush()
    n = len(inside.planned(opt)[0])
    rows = np.r_[0 : n - 9, -1, n - 5 : n]
    opt.replace("0", inside.planned(opt)[0][rows], rows=rows)
    return opt


def begun_anew_at_once(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.replace("0", np.ones((7, 2), F4), rows=-1)
    return opt


def reset(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.reset()
    return opt


def reset_one(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.reset(["1"])
    return opt


def put_into_the_structure(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    """The states are made up for; so is the array that goes, but not the one that comes."""
    inside.structure(opt)["0"] = np.full(SHAPES[0], 0.25, F4)
    return opt


def written_after_a_flush(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.flush()
    inside.planned(opt)[0][3:6] = 2.0
    return opt


def states_are_read(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    rows = opt.param_groups[0]["rows"]
    assert bool(sum(inside.lagging(opt))) == (rows == "exact")
    assert np.isfinite(opt.state["m"][1]).all()
    assert not any(inside.lagging(opt))
    return opt


def states_are_assigned(opt: fastadam.Optimizer, folder: Path) -> fastadam.Optimizer:
    opt.state["v"][0] = np.full(SHAPES[0], 2.0)
    return opt


MIDDLES = [
    loads_itself, loads_what_was, saved, taken_over, pickled, copied, copied_and_gone_on, replaced, replaced_at_once,
    in_another_order, of_fewer_rows, begun_anew_at_once, reset, reset_one, put_into_the_structure,
    written_after_a_flush, states_are_read, states_are_assigned,
]  # fmt: skip


@pytest.mark.parametrize("rows", ["lazy", "exact"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_state_from_before_there_were_rows_is_loaded(rows: str, strict: bool) -> None:
    opt, other = fastadam.Adam(tables(), rows=rows), fastadam.Adam(tables(), lr=0.5)
    other.step(tables())
    before = other.state_dict()
    del before["param_groups"][0]["rows"]
    loaded = opt.load_state_dict(before, strict=strict)
    assert not loaded.options
    assert (opt.t, opt.lr, opt.param_groups[0]["rows"]) == (1, 0.5, rows)


@pytest.mark.parametrize("middle", MIDDLES)
def test_in_the_middle(middle: Callable[..., fastadam.Optimizer], tmp_path: Path) -> None:
    """Twice, while rows lag."""
    pair = Pair(fastadam.Adam, tables(), lr=0.1)
    for _ in range(2):
        pair.step(7)
        assert any(inside.lagging(pair.exact))
        pair.exact, pair.dense = (middle(opt, tmp_path) for opt in pair.both)
        pair.params = {str(k): p for k, p in enumerate(inside.planned(pair.exact))}
        if middle is put_into_the_structure:
            pair.step(1)
            pair.params = {str(k): p for k, p in enumerate(inside.planned(pair.exact))}
    pair.step(7)
    pair.check()
