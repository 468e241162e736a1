"""`stepping()`: a step that is done one parameter at a time has the bits of one call of `step` with all gradients."""

import copy
import itertools
import pickle
import subprocess
import sys
import threading
import weakref
from typing import Any

import inside
import numpy as np
import pytest
from cases import CASES, DTYPES, make
from ml_dtypes import bfloat16
from tables import EVERY_DTYPE, assert_same, numbers, some_rows

import fastadam
from fastadam import Rows, schedules

#: small ones that share a tile, one that is empty, and some that lie on several tiles and threads
SHAPES = [(7,), (3, 5), (), (0,), (20_003,), (33_001,), (2, 3, 4), (8192,), (5,)]
EXTRAS: list[dict[str, Any]] = [
    {},
    {"grad_scale": 3.0, "clip_value": 0.5},
    {"max_norm_each": 0.25},
    {"max_norm_each": 0.5, "grad_scale": 0.5, "clip_value": 0.01},
    {"clip_value": 1e-39},  # denormals are kept
]


def in_parts(opt: fastadam.Optimizer, grads: dict[str, Any], order: Any, **extras: Any) -> None:
    """A step in parts, by copies of the gradients, in this order of the keys."""
    with opt.stepping(**extras) as step:
        for key in order:
            step(key, copy.deepcopy(grads[key]))


class Pair:
    """Two optimizers of the same kind: one steps whole, the other in parts."""

    def __init__(self, make_one: Any, params: dict[str, np.ndarray], **more: Any) -> None:
        self.rng = np.random.default_rng(1)
        self.params, self.others = ({k: p.copy("K") for k, p in params.items()} for _ in range(2))
        self.whole, self.parts = make_one(self.params, **more), make_one(self.others, **more)

    def step(self, grads: dict[str, Any], **extras: Any) -> None:
        self.whole.step(grads, **extras)
        in_parts(self.parts, grads, self.rng.permutation(list(grads)).tolist(), **extras)
        assert_same(self.whole, self.parts)
        assert self.whole.grad_norm == self.parts.grad_norm


def problem(dtype: Any, shapes: Any = SHAPES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"p{k}": np.asarray(numbers(rng, shape, dtype)) for k, shape in enumerate(shapes)}


def gradients(params: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {key: np.asarray(numbers(rng, p.shape, p.dtype)) for key, p in params.items()}


# ---------------------------------------------------------------- the bits


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_bits_of_one_whole_step(case, dtype, backend):
    pair = Pair(lambda params, **more: make(case, params, **more), problem(dtype), backend=backend)
    for t, extras in enumerate(EXTRAS):
        grads = gradients(pair.params, t)
        if t > 1:  # cohorts are split, and split again
            grads["p1"] = grads[f"p{t + 1}"] = None
        pair.step(grads, **extras)


BFLOAT16, INT8 = {"state_dtype": "bfloat16"}, {"state_dtype": "int8", "min_8bit_size": 1}
STORED = [(dtype, {}) for dtype in EVERY_DTYPE]
STORED += [(dtype, BFLOAT16) for dtype in EVERY_DTYPE if dtype.itemsize <= 4]
STORED += [(dtype, INT8) for dtype in EVERY_DTYPE if dtype.itemsize <= 4 or dtype == np.complex64]


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("dtype", "how"), STORED, ids=str)
def test_every_storage(dtype, how, n_threads):
    pair = Pair(fastadam.AdamW, problem(dtype), n_threads=n_threads, master_weights=dtype.itemsize == 2, seed=3, **how)
    for t in range(4):
        pair.step(gradients(pair.params, t), max_norm_each=0.5)


def test_gradients_as_people_have_them():
    params = {
        "a": np.ones((3, 4)),
        "b": np.asfortranarray(np.ones((4, 2), np.float32)),
        "c": np.ones(2),
        "d": np.ones(()),
    }
    pair = Pair(fastadam.Adam, params)
    grads = {"a": np.arange(24.0).reshape(4, 6)[:, ::2].T, "b": np.ones((4, 2), bfloat16), "c": [1, 2], "d": 3.0}
    for _ in range(3):
        pair.step(grads)
    pair.step(dict.fromkeys(grads))
    assert pair.parts.t == 4


@pytest.mark.parametrize("rows", ["lazy", "exact"])
@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("case", ["adam", "sgd_momentum", "nadam", "schedule_free"])
def test_rows(case, backend, rows):
    params = problem(np.float32, [(30, 5), (12, 64), (25,), (6, 2, 3), (400, 100)])
    pair = Pair(lambda params, **more: make(case, params, **more), params, backend=backend, rows=rows)
    rng = np.random.default_rng(2)
    for t in range(20):
        grads = {key: some_rows(rng, p.shape, p.dtype) for key, p in params.items()}
        if t % 5 == 4:
            grads["p1"], grads["p4"] = numbers(rng, (12, 64), np.float32), numbers(rng, (400, 100), np.float32)
            grads["p2"] = None
        pair.whole.step(copy.deepcopy(grads), **EXTRAS[t % 5])
        in_parts(pair.parts, grads, rng.permutation(list(grads)).tolist(), **EXTRAS[t % 5])
    pair.whole.flush()
    pair.parts.flush()
    assert_same(pair.whole, pair.parts)


def test_groups_and_what_is_frozen():
    def grouped(params, **more):
        items = list(params.items())
        return fastadam.Adam(
            [{"params": dict(items[:4]), "lr": 0.1}, {"params": dict(items[4:]), "weight_decay": 0.5, "name": "rest"}]
        )

    pair = Pair(grouped, problem(np.float64))
    for t in range(6):
        for opt in (pair.whole, pair.parts):
            opt.param_groups[0]["frozen"] = t in (2, 3)
        flat = list(gradients(pair.params, t).values())
        named = dict(zip(inside.keys(pair.parts), flat, strict=True))
        by_name = dict(zip(pair.params, flat, strict=True))
        pair.whole.step([{key: by_name.pop(key) for key in list(by_name)[:4]}, by_name])
        if t == 2:
            named["0.p1"] = "unread"
        in_parts(pair.parts, named, named)
        assert_same(pair.whole, pair.parts)
    assert inside.keys(pair.parts)[-1] == "rest.p8"


def test_parts_and_whole_steps_take_turns():
    pair = Pair(fastadam.NAdam, problem(np.float32))
    for t in range(8):
        grads = gradients(pair.params, t)
        pair.whole.step(grads)
        if t % 2:
            pair.parts.step(grads)
        else:
            in_parts(pair.parts, grads, grads)
        assert_same(pair.whole, pair.parts)


@pytest.mark.parametrize("after", [5, 5000, 0])
def test_all_of_a_parameter_after_some_of_its_rows(after):
    """The step before worked on little of it, so its work has to be cut anew."""
    params = {"a": np.ones((5000, 8)), "b": np.ones((after, 8))}
    pair = Pair(fastadam.Adam, params)
    for a in (Rows([1], np.ones((1, 8))), np.ones((5000, 8)), Rows([1, 4999], np.ones((2, 8))), np.ones((5000, 8))):
        pair.whole.step({"a": a, "b": np.ones((after, 8))})
        in_parts(pair.parts, {"a": a, "b": np.ones((after, 8))}, ["a", "b"])
        assert_same(pair.whole, pair.parts)
        row = Rows([2], np.ones((1, 8)))
        for opt in (pair.whole, pair.parts):
            opt.step({"a": row, "b": None})
        assert_same(pair.whole, pair.parts)


def test_one_buffer_serves_all_gradients_and_zeros_are_left():
    pair = Pair(fastadam.Adam, problem(np.float32, [(40,), (40,), (10,)]))
    grads, buffer = gradients(pair.params, 0), np.empty(40, np.float32)
    pair.whole.step(grads)
    with pair.parts.stepping(zero_grads=True) as step:
        for key, g in grads.items():
            buffer[: g.size] = g
            step(key, buffer[: g.size])
            assert not buffer[: g.size].any()
    assert_same(pair.whole, pair.parts)


def test_no_gradient_is_kept():
    class Array(np.ndarray):
        pass

    opt = fastadam.Adam({"a": np.ones(1000), "b": np.ones(3)})
    with opt.stepping() as step:
        for key, size, dtype in (("a", 1000, float), ("b", 3, np.float32)):  # one of them is taken as it is
            g = np.ones(size, dtype).view(Array)
            gone = weakref.ref(g)
            step(key, g)
            del g
            assert gone() is None


# ---------------------------------------------------------------- what a block is


def test_what_came_is_counted():
    params = {"a": np.ones(3), "b": np.ones(2), "c": np.ones(2)}
    opt = fastadam.Adam(params)
    with opt.stepping():
        pass
    assert opt.t == 0
    with opt.stepping() as step:
        step("b", np.ones(2))
        step("c", None)
        assert opt.t == 0
    assert (opt.t, inside.plan(opt).steps.tolist()) == (1, [0, 1, 0])
    assert params["a"].tolist() == [1, 1, 1]


def test_an_error_in_the_block_ends_it():
    params = {"a": np.ones(3), "b": np.ones(2)}
    opt, other = fastadam.Adam(params), fastadam.Adam({"a": np.ones(3), "b": np.ones(2)})

    def fail() -> None:
        with opt.stepping() as step:
            step("a", np.ones(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    other.step({"a": np.ones(3), "b": None})
    assert_same(opt, other)
    opt.step({"a": np.ones(3), "b": np.ones(2)})


def test_options_and_structure_are_read_at_its_beginning():
    params = {"a": np.ones(3), "b": np.ones(2)}
    opt = fastadam.SGD(params, lr=schedules.linear(1.0, 0.0, 4))
    first = params["b"]
    expected = opt.param_groups[0]["lr"](1)
    with opt.stepping() as step:
        step("a", np.ones(3))
        opt.lr = 100.0
        params["b"] = np.zeros(2)
        step("b", np.ones(2))
    assert (1 - params["a"]).tolist() == [expected] * 3
    assert (1 - first).tolist() == [expected] * 2
    with opt.stepping() as step:
        step("b", np.ones(2))
    assert params["b"].tolist() == [-100.0] * 2


def test_a_block_may_be_entered_again_after_its_end():
    opt = fastadam.SGD([np.zeros(2)], lr=1.0)
    block = opt.stepping()
    for _ in range(3):
        with block as step:
            step("0", np.ones(2))
    assert inside.planned(opt)[0].tolist() == [-3.0] * 2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("key", "grad", "error", "text"),
    [
        ("a", np.ones(3), ValueError, r"params\['a'\]: came in this block before"),
        ("d", np.ones(3), ValueError, "did you mean|there are"),
        (0, np.ones(3), ValueError, "no parameter is called 0"),
        (["b"], np.ones(3), ValueError, "no parameter is called"),
        ("b", np.ones(3), ValueError, r"expected shape \(2,\) like the parameter, got \(3,\)"),
        ("b", "x", TypeError, "gradient of"),
        ("b", Rows([5], np.ones(1)), ValueError, "rows"),
        ("b", "itself", ValueError, "shares memory|share memory"),
        ("b", "state", ValueError, "shares memory|share memory"),
    ],
)
def test_a_refused_gradient_touches_nothing(key, grad, error, text):
    params = {"a": np.ones(3), "b": np.ones(2), "c": np.ones(1)}
    opt, other = fastadam.Adam(params), fastadam.Adam({k: p.copy() for k, p in params.items()})
    if isinstance(grad, str) and grad != "x":
        grad = params["b"] if grad == "itself" else inside.state_arrays(opt)[-1][:1].repeat(0)
    if isinstance(grad, np.ndarray) and grad.size == 0:
        key, grad = "c", inside.state_arrays(opt)[-1]
    with opt.stepping() as step:
        step("a", np.ones(3))
        for _ in range(2):
            with pytest.raises(error, match=text):
                step(key, grad)
        step("b", np.ones(2))
    other.step({"a": np.ones(3), "b": np.ones(2), "c": None})
    assert_same(opt, other)


def test_gradients_that_cannot_be_zeroed():
    opt = fastadam.Adam({"a": np.ones(3)})
    read_only = np.ones(3)
    read_only.flags.writeable = False
    with opt.stepping(zero_grads=True) as step:
        for g in ([1, 2, 3], read_only, np.broadcast_to(1.0, 3)):
            with pytest.raises((TypeError, ValueError), match=r"zero_grads|read-only|memory"):
                step("a", g)
    assert opt.t == 0


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"max_norm": 1.0}, ValueError, "max_norm: needs all gradients .* max_norm_each"),
        ({"skip_nonfinite": True}, ValueError, "skip_nonfinite: needs all gradients"),
        ({"grad_scale": 0}, ValueError, "grad_scale"),
        ({"clipnorm": 1.0}, TypeError, "did you mean max_norm_each"),
    ],
)
def test_what_needs_all_gradients(given, error, text):
    with pytest.raises(error, match=text):
        fastadam.Adam([np.ones(2)]).stepping(**given)


def test_other_calls_in_the_block():
    opt = fastadam.Adam({"a": np.ones(3), "b": np.ones(2)})
    calls = [
        lambda: opt.step({"a": np.ones(3), "b": np.ones(2)}),
        opt.state_dict,
        lambda: opt.load_state_dict({}),
        lambda: copy.deepcopy(opt),
        lambda: pickle.dumps(opt),
        lambda: opt.add_param_group({"params": [np.ones(2)]}),
        lambda: opt.replace("a", np.ones(3)),
        lambda: opt.reset(),
        lambda: opt.stepping().__enter__(),
    ]
    state = opt.state_dict()
    calls[2] = lambda: opt.load_state_dict(state)
    with opt.stepping() as step:
        for call, key in itertools.zip_longest(calls, ["a", None, None, "b"]):
            with pytest.raises(RuntimeError, match=r"until the block of stepping\(\) is over"):
                call()
            if key:
                step(key, np.ones(3 if key == "a" else 2))
        assert opt.lr == 0.001
        assert len(opt.state["m"]) == 2
    opt.step({"a": np.ones(3), "b": np.ones(2)})
    assert inside.plan(opt).steps.tolist() == [2, 2]


def test_outside_of_the_block():
    opt = fastadam.Adam({"a": np.ones(3)})
    block = opt.stepping()
    with pytest.raises(RuntimeError, match="not begun"):
        block("a", np.ones(3))
    with block as step:
        pass
    with pytest.raises(RuntimeError, match="is over"):
        step("a", np.ones(3))
    for function in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            function(block)
    opt.step({"a": np.ones(3)})
    assert opt.t == 1


def test_a_rule_in_python_that_fails_half_way_leaves_it_torn():
    opt = fastadam.SGD({"p": np.ones(20_000)}, backend="numpy")
    swept = []

    def sweep(scalars, *arrays):
        swept.append(arrays[0])
        arrays[0][...] = 0
        if len(swept) > 2:
            raise ArithmeticError("half-way")

    inside.replace_kernel(opt, (sweep, lambda t, hyper: [0.0] * inside.rule_of(opt).n_scalars))
    with opt.stepping() as step:
        with pytest.raises(ArithmeticError, match="half-way"):
            step("p", np.ones(20_000))
        with pytest.raises(RuntimeError, match="half-way"):
            step("p", np.ones(20_000))
    assert inside.is_torn(opt)
    with pytest.raises(RuntimeError, match="half-way"):
        opt.step({"p": np.ones(20_000)})


def test_rows_that_fail_to_make_up_leave_it_torn(monkeypatch):
    opt = fastadam.SGD({"a": np.ones(3), "p": np.ones((20, 4))}, momentum=0.9, rows="exact", backend="numpy")
    for row in (1, 2):
        opt.step({"a": None, "p": Rows([row], np.ones((1, 4)))})

    def fail(*_: Any) -> None:
        raise ArithmeticError("while rows make up")

    with opt.stepping() as step:
        step("a", np.ones(3))
        with monkeypatch.context() as patched:
            patched.setattr(inside.backends, "prepare", fail)
            with pytest.raises(ArithmeticError, match="make up"):
                step("p", np.ones((20, 4)))
        with pytest.raises(RuntimeError, match="half-way"):
            step("p", np.ones((20, 4)))
    assert inside.is_torn(opt)


# ---------------------------------------------------------------- threads and processes


def test_any_thread_may_step():
    pair = Pair(fastadam.Adam, problem(np.float32))
    grads = gradients(pair.params, 0)
    pair.whole.step(grads)
    with pair.parts.stepping() as step:
        for key, g in grads.items():
            thread = threading.Thread(target=step, args=(key, g))
            thread.start()
            thread.join()
    assert_same(pair.whole, pair.parts)


def test_a_block_that_is_left_while_a_part_is_stepped_ends_with_it():
    opt = fastadam.SGD({"p": np.ones(10)}, backend="numpy")
    began, may_end = threading.Event(), threading.Event()

    def sweep(scalars, *arrays):
        began.set()
        assert may_end.wait(60)
        arrays[0][...] = 5.0

    inside.replace_kernel(opt, (sweep, lambda t, hyper: [0.0] * inside.rule_of(opt).n_scalars))
    with opt.stepping() as step:
        thread = threading.Thread(target=step, args=("p", np.ones(10)))
        thread.start()
        assert began.wait(60)
        with pytest.raises(RuntimeError, match="another thread"):
            step("p", np.ones(10))
    assert opt.t == 0
    with pytest.raises(RuntimeError):
        opt.state_dict()
    may_end.set()
    thread.join()
    with pytest.raises(RuntimeError, match="is over"):  # another thread is late
        step("p", np.ones(10))
    assert opt.t == 1
    assert inside.planned(opt)[0].tolist() == [5.0] * 10
    opt.state_dict()


@pytest.mark.parametrize("parts", [0, 1])
def test_a_process_that_ends_in_the_block_leaves_a_folder_of_two_steps(tmp_path, parts):
    code = (
        "import os, sys, numpy as np, fastadam\n"
        "opt = fastadam.Adam({'a': np.ones(3), 'b': np.ones(2)}, state_dir=sys.argv[1])\n"
        "opt.step({'a': np.ones(3), 'b': np.ones(2)})\n"
        "with opt.stepping() as step:\n"
        "    for key in ['a'][: int(sys.argv[2])]:\n"
        "        step(key, np.ones(3))\n"
        "    os._exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "s"), str(parts)]).returncode == 7
    params = {"a": np.ones(3), "b": np.ones(2)}
    if parts:
        with pytest.raises(ValueError, match=r"within a step|of two steps"):
            fastadam.Adam(params, state_dir=tmp_path / "s")
    else:
        assert fastadam.Adam(params, state_dir=tmp_path / "s").t == 1
