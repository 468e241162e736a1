"""`bounds`: a step with them has the bits of `numpy.clip` after the same step without, and the same states.
test_bits.py compares backends and instruction sets with bounds, too, in some of its cases.
"""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from cases import BY_RULE, bits, gradients, make
from inside import backends
from numpy import inf, nan
from test_bits import say

import fastadam
from fastadam import functional
from fastadam.rules import RULES

#: of two, of one, of none, and of no float32; within some of them 0 is an end
BOUNDS = [(-0.5, 1.0), (0.0, None), (None, -0.0), (-0.3, 0.7), (-inf, inf), (0.25, 0.25), (inf, inf)]
#: dtype of the parameter -> options
KINDS = {
    "float64": {},
    "float32": {},
    "complex128": {},
    "float16": {},
    "bfloat16": {},
    "float16 master": {"master_weights": True},
    "bfloat16 master": {"master_weights": True, "state_dtype": "bfloat16"},
}
each_backend = pytest.mark.parametrize("backend", backends.BACKENDS)
each_bounds = pytest.mark.parametrize("bounds", BOUNDS, ids=str)
#: their averages are of what is between the bounds
AVERAGED = ("asgd", "schedule_free")
each_case = pytest.mark.parametrize("case", [case for case in BY_RULE if case not in AVERAGED])


def clipped(p: np.ndarray, bounds) -> np.ndarray:
    """What `numpy.clip` makes of it: of both parts of complex numbers, and of 16 bits as float32, which is stepped."""
    if p.dtype.kind == "c":
        return clipped(p.view(p.real.dtype), bounds).view(p.dtype)
    computed = p.astype("f4") if p.itemsize == 2 else p
    low, high = (None if end is None else computed.dtype.type(end) for end in bounds)
    return np.clip(computed, low, high).astype(p.dtype)


def numbers(kind: str, seed: int, n: int = 256) -> np.ndarray:
    """Numbers near the bounds and on them, and what floats can be."""
    rng = np.random.default_rng(seed)
    found = rng.choice([nan, inf, -inf, 0.0, -0.0, -0.5, 0.25, 1.0], n)
    found = np.where(rng.random(n) < 0.8, rng.standard_normal(n), found)
    return found.view(complex) if kind == "complex128" else found.astype(kind.split()[0])


def compare(case: str, kind: str, bounds, backend: str) -> None:
    """At each step a copy of the optimizer makes it without bounds."""
    held = make(case, numbers(kind, 0), backend=backend, bounds=bounds, **KINDS[kind])
    for t in range(1, 5):
        free, g = copy.deepcopy(held), numbers(kind, t)
        free.bounds = None
        free.step(g)
        held.step(g)
        assert bits(held.params) == bits(clipped(free.params, bounds)), f"step {t}"
        for name in held.state:
            expected = free.state[name][0]
            expected = clipped(expected, bounds) if name == "master" else expected
            assert bits(held.state[name][0]) == bits(expected), f"{name} of step {t}"


@each_backend
@pytest.mark.parametrize("kind", KINDS)
@each_bounds
def test_bits_are_those_of_clip(bounds, kind, backend):
    compare("adam", kind, bounds, backend)
    compare("sgd", kind, bounds, backend)


@each_backend
@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16 master"])
@each_case
def test_every_rule_ends_with_it(case, kind, backend):
    compare(case, kind, (-0.5, 1.0), backend)


@pytest.mark.parametrize("case", AVERAGED)
def test_averages_are_between_the_bounds(case):
    """For as long as the gradient pulls out of them, which a point that is not projected would follow."""
    opts = [make(case, np.full(40, 0.3), lr=0.5, bounds=(0, 1), backend=backend) for backend in backends.BACKENDS]
    for t in range(60):
        for opt in opts:
            opt.step(np.linspace(-3, 3, 40) if t < 50 else np.full(40, 2.0))
        assert all(((array >= 0) & (array <= 1)).all() for array in [opts[0].params, *weights_of(opts[0])])
        if t == 49:
            assert (opts[0].params[:19] > 0.99).all()
    assert (opts[0].params < 1).all()  # it comes back at once
    assert len({bits(opt.params) + b"".join(map(bits, weights_of(opt))) for opt in opts}) == 1


def weights_of(opt) -> list[np.ndarray]:
    return [opt.state[name][0] for name in ("ax", "z", "x") if name in opt.state]


def compare_all() -> None:
    for case in BY_RULE.keys() - AVERAGED:
        for kind in KINDS:
            compare(case, kind, (-0.3, 0.7), "cython")


@pytest.mark.parametrize("isa", backends.available_isas())
def test_every_instruction_set(isa):
    assert say(isa, "import test_bounds as t; print(t.backends.ISA); t.compare_all(); print('done')") == [isa, "done"]


@each_backend
def test_zeros_have_the_sign_of_the_bound(backend):
    p = np.array([-0.0, -0.0, 0.0, 0.0, -1.0])
    fastadam.SGD(p, bounds=(0.0, None), backend=backend).step(np.zeros(5))
    assert not np.signbit(p).any()
    p = np.array([-0.0, -0.0, 0.0, 0.0, 1.0])
    fastadam.SGD(p, bounds=(None, -0.0), backend=backend).step(np.zeros(5))
    assert np.signbit(p).all()


def test_each_group_has_its_own():
    a, b, c = np.zeros(2), np.zeros(2), np.zeros(2)
    opt = fastadam.SGD(
        [{"params": a, "bounds": (-1, 2)}, {"params": b, "bounds": (None, 3)}, {"params": c}], lr=1.0, bounds=(0, None)
    )
    assert [group["bounds"] for group in opt.param_groups] == [(-1, 2), (-inf, 3), (0, inf)]
    opt.step([np.array([9.0, -9.0])] * 3)
    np.testing.assert_array_equal([a, b, c], [[-1, 2], [-9, 3], [0, 9]])
    opt.add_param_group({"params": (d := np.zeros(2)), "bounds": (4, 4)})
    opt.step([None, None, None, np.ones(2)])
    np.testing.assert_array_equal(d, 4)


@each_backend
def test_assigned_between_steps(backend):
    p = np.array([0.0])
    opt = fastadam.SGD(p, lr=1.0, backend=backend)
    assert opt.bounds == (-inf, inf)
    found = []
    for bounds in (None, (None, 2.5), (-1, 0.5), (2, 3), None):
        opt.bounds = bounds
        opt.step(np.array([-2.0]))
        found.append(float(p[0]))
    assert found == [2.0, 2.5, 0.5, 2.5, 4.5]
    opt.param_groups[0]["bounds"] = (None, 4)
    assert opt.bounds == (-inf, 4)
    opt.step(np.array([-2.0]))
    assert p == 4


def test_what_is_not_stepped_is_not_clipped():
    """A missing gradient, a frozen group and a step that is skipped leave parameters as they are."""
    a, b = np.array([5.0]), np.array([5.0])
    opt = fastadam.Adam([{"params": a}, {"params": b}], bounds=(0, 1))
    opt.step([None, np.array([nan])], skip_nonfinite=True)
    opt.step([np.array([nan]), None], skip_nonfinite=True)
    assert (a, b) == (5, 5)
    opt.param_groups[1]["frozen"] = True
    opt.step([np.zeros(1), np.zeros(1)])
    assert (a, b) == (1, 5)


@pytest.mark.parametrize("end", ["state.npz", "state.safetensors"])
@each_bounds
def test_saved_with_the_state(bounds, end, tmp_path):
    rng = np.random.default_rng(0)
    opt = fastadam.Adam(rng.standard_normal(9), lr=0.5, bounds=bounds)
    grads = gradients(rng, 9, 6, "float64", special=False)
    for g in grads[:3]:
        opt.step(g)
    opt.save(tmp_path / end, params=True)
    loaded, given, pickled = (
        fastadam.Adam(np.zeros(9)),
        fastadam.Adam(opt.params.copy()),
        pickle.loads(pickle.dumps(opt)),
    )
    loaded.load(tmp_path / end)
    given.load_state_dict(opt.state_dict())
    for g in grads[3:]:
        opt.step(g)
        for other in (loaded, given, pickled):
            other.step(g)
    for other in (loaded, given, pickled):
        assert other.bounds == opt.bounds
        assert bits(other.params) == bits(opt.params)


@each_case
def test_functional(case):
    if case == "average":  # which has no bounds
        with pytest.raises(TypeError, match="bounds"):
            functional.average(*np.ones((2, 3)), 1, bounds=(0, 1))
        return
    rule, cls_options = RULES[case], BY_RULE[case][1]
    p, g = numbers("float64", 0), numbers("float64", 1)
    step = getattr(functional, case)
    options = {name: value for name, value in cls_options.items() if name in step.__signature__.parameters}
    free, held = p.copy(), p.copy()
    step(free, g, *(np.zeros_like(p) for _ in rule.states), 1, **options)
    step(held, g, *(np.zeros_like(p) for _ in rule.states), 1, **options, bounds=(-0.5, None))
    assert bits(held) == bits(clipped(free, (-0.5, None)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jitted_steps(dtype):
    jitted = pytest.importorskip("fastadam.numba")
    p, g = numbers(dtype, 0), numbers(dtype, 1)
    free, held = p.copy(), p.copy()
    jitted.sgd_step(free, g, 1, 0.1)
    jitted.sgd_step(held, g, 1, 0.1, low=-0.3, high=0.7)
    assert bits(held) == bits(clipped(free, (-0.3, 0.7)))


def test_c_leaves_them_out():
    """There a caller clips, as it pleases."""
    header = Path(fastadam.get_include(), "fastadam.h").read_text()
    members = header.partition("typedef struct")[2].partition("} fastadam_options;")[0]
    assert "double lr;" in members
    assert "double low;" not in members
    assert "double high;" not in members
