"""`step(max_norm_each=c)` scales each gradient down to a norm of c. The bits are those of an optimizer for each array,
whose step has the factor of that array. Here norms are summed without rounding, by `math.fsum`.
"""

import hashlib
import math

import inside
import ml_dtypes
import numpy as np
import pytest
from cases import CASES, DTYPES, arrays_of, bits, factors, make, norm_of
from hypothesis import example, given
from hypothesis import strategies as st
from test_bits import say

import fastadam
from fastadam.rule import OF_THE_STEP, arguments, prepare

BACKENDS = ["cython", "numba", "numpy"]
#: small ones that share a tile, one that is empty, and some that lie on several tiles and threads
SHAPES = [(7,), (3, 5), (), (0,), (20_003,), (2, 3, 4), (1024,), (8192,), (33_001,), (5,)]


def problem(dtype: str = "float32", seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters, and gradients of many sizes: some are clipped to a norm of 1, others are not."""
    rng = np.random.default_rng(seed)
    params = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]
    sizes = 10.0 ** np.linspace(-6, 3, len(SHAPES))
    return params, [
        np.asarray(size * rng.standard_normal(s)).astype(dtype) for size, s in zip(sizes, SHAPES, strict=True)
    ]


def copies(arrays):
    return [array.copy() for array in arrays]


def assert_same(opt, alone, case="") -> None:
    """One optimizer, and one for each of its arrays."""
    for k, one in enumerate(alone):
        expected = [inside.planned(one)[0], *(arrays[0] for arrays in one.state.values())]
        got = [inside.planned(opt)[k], *(arrays[k] for arrays in opt.state.values())]
        for array, other in zip(got, expected, strict=True):
            assert bits(array) == bits(other), (case, k)


# ---------------------------------------------------------------- the bits


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_each_array_has_a_factor_of_its_own(case, dtype, backend):
    params, grads = problem(dtype)
    before = copies(grads)
    opt = make(case, copies(params), backend=backend)
    alone = [make(case, [p.copy()]) for p in params]
    for t in range(3):
        extras = {"max_norm_each": 1.0, "grad_scale": 3.0 + t} | ({"clip_value": 0.01} if t == 2 else {})
        opt.step(grads, **extras)
        own = factors(grads, None, extras)
        assert min(own) < 0.1 < max(own) == 1 / extras["grad_scale"]
        for one, g, factor in zip(alone, grads, own, strict=True):
            inside.plain_step(one, [g], factor=factor, clip_value=extras.get("clip_value"))
    assert_same(opt, alone, case)
    assert [*map(bits, grads)] == [*map(bits, before)]
    opt.step(grads)  # what one step is told is not told the next
    for one, g in zip(alone, grads, strict=True):
        inside.plain_step(one, [g])
    assert_same(opt, alone, case)


def stepped(dtype="float32", **how) -> list[np.ndarray]:
    params, grads = problem(dtype)
    opt = fastadam.Adam(params, **how)
    for t in range(3):
        opt.step(grads, max_norm_each=10.0**-t)
    return [*arrays_of(opt), np.array(opt.grad_norm)]


def digest() -> str:
    return hashlib.sha256(b"".join(bits(array) for dtype in DTYPES for array in stepped(dtype))).hexdigest()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype):
    expected = [*map(bits, stepped(dtype, n_threads=1))]
    for n_threads in (2, 3, 8):
        assert [*map(bits, stepped(dtype, n_threads=n_threads))] == expected


@pytest.mark.parametrize("isa", inside.backends.available_isas())
def test_any_instruction_set_gives_the_same_bits(isa):
    assert say(isa, "import test_clip_each as t; print(t.digest())") == [digest()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_over_all_is_that_of_max_norm(dtype):
    params, grads = problem(dtype)
    grads[2][...] = 1e-40  # which counts as zero
    told = []
    for how in ({"max_norm_each": 1.0}, {"max_norm": math.inf}, {"skip_nonfinite": True}):
        opt = fastadam.Adam(copies(params))
        opt.step(grads, grad_scale=2.0, **how)
        told.append(opt.grad_norm)
    assert told == [0.5 * norm_of(np.concatenate([g.ravel() for g in grads]))] * 3
    opt.step(grads)
    assert opt.grad_norm is None


def test_the_first_scalar_is_the_factor():
    """By these places the kernel finds it, among a step's scalars and in front of the hyper-parameters."""
    assert arguments(prepare)[2 : 2 + len(OF_THE_STEP)] == tuple(OF_THE_STEP)
    assert next(iter(OF_THE_STEP)) == "factor"


def test_a_rule_of_ones_own():
    def update(p, g, m, lr, beta):
        m = beta * m + g
        return p - lr * np.where(m > 0.5, m, -m), m

    own = fastadam.optimizer(update, lambda t, lr, beta: (lr / t, beta), ("m",), lr=0.1, beta=0.9)
    params, grads = problem()
    results = []
    for backend in ("numba", "numpy"):
        opt, alone = own(copies(params), backend=backend), [own([p.copy()], backend=backend) for p in params]
        for _ in range(2):
            opt.step(grads, max_norm_each=0.5)
            own_factors = factors(grads, None, {"max_norm_each": 0.5})
            for one, g, factor in zip(alone, grads, own_factors, strict=True):
                inside.plain_step(one, [g], factor=factor)
        assert_same(opt, alone, backend)
        results.append([*map(bits, arrays_of(opt))])
    assert results[0] == results[1]


# ---------------------------------------------------------------- which norm


Descent = fastadam.optimizer(lambda p, g, lr: (p - lr * g,), lambda t, lr: (lr,), (), lr=1.0)


def clipped(g, most, **how):
    """What a step makes of a gradient, beside another one."""
    p = np.zeros_like(g)
    Descent([p, np.zeros(3)], backend="numpy").step([g, np.full(3, 2.0)], max_norm_each=most, **how)
    return -p


def test_a_gradient_within_its_norm_is_as_it_was():
    g = np.array([3.0, -4.0])
    for most in (5.0, np.nextafter(5.0, 6), 1e300, math.inf):
        np.testing.assert_array_equal(clipped(g, most), g)
    np.testing.assert_array_equal(clipped(g, 2.5), g / 2)
    np.testing.assert_array_equal(clipped(g, 2.5, grad_scale=2.0), g / 2)
    np.testing.assert_array_equal(clipped(g, 1.25, grad_scale=2.0), g / 4)
    np.testing.assert_array_equal(clipped(g, 2.5, clip_value=1.75), [1.5, -1.75])
    np.testing.assert_array_equal(clipped(np.zeros(4), 1e-300), np.zeros(4))


def test_complex_gradients_have_the_norm_of_complex_arrays():
    g = np.array([3.0 + 0j, 4.0j], np.complex128)
    np.testing.assert_array_equal(clipped(g, 2.5), g / 2)
    assert norm_of(g) == np.linalg.norm(g)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.sampled_from([1.0, 1e-300, 1e300]),
)
@example([1e300, -1e300], 1.0)
@example([1e-200, 1e-160], 1e-250)
@example([1e-300, 1e300], 1e-300)
@example([5e-324], 5e-324)
def test_numbers_whose_squares_are_none(values, most):
    """Of float64, squares overflow and vanish before numbers do: of each array by itself."""
    g, others = np.array(values), [np.full(3, 1e200), np.full(3, 1e-200), np.zeros(2), np.ones(2)]
    grads = [others[0], g, *others[1:], np.full(2, 3.0, np.float32)]
    opt = fastadam.Adagrad([np.zeros(x.shape, x.dtype) for x in grads], eps=0.0)
    alone = [fastadam.Adagrad([np.zeros(x.shape, x.dtype)], eps=0.0) for x in grads]
    opt.step(grads, max_norm_each=most)
    for one, x, factor in zip(alone, grads, factors(grads, None, {"max_norm_each": most}), strict=True):
        inside.plain_step(one, [x], factor=factor)
    assert_same(opt, alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_stays_in_its_array(backend):
    """As with max_norm a NaN makes all NaN, and an infinity the rest 0: all and the rest of its array alone."""
    for value, of_rest in ((np.nan, np.nan), (np.inf, 0.0), (-np.inf, 0.0)):
        params, grads = problem()
        opt = fastadam.Adam(copies(params), backend=backend)
        for k in (1, 4):
            grads[k].flat[-1] = value
        opt.step(grads, max_norm_each=1.0)
        for k, m in enumerate(opt.state["m"]):
            if k not in (1, 4):
                assert np.isfinite(m).all()
                continue
            assert np.isnan(m.flat[-1])
            np.testing.assert_array_equal(m.ravel()[:-1], np.full(m.size - 1, of_rest))
        before = [*map(bits, arrays_of(opt))]
        opt.step(grads, max_norm_each=1.0, skip_nonfinite=True, zero_grads=True)
        assert ([*map(bits, arrays_of(opt))], opt.t, opt.skipped) == (before, 1, 1)
        assert not np.isfinite(opt.grad_norm)
        assert all(g.any() for g in grads if g.size)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [1e38, 1e-3])
def test_factors_below_the_smallest_normal_number_count(value, backend):
    """Denormals are kept for the array that needs it, and are zero for others as without it."""
    tiny = np.full(3, 1e-39, np.float32)
    grads = [np.full(3, value, np.float32), tiny]
    p, beside = np.zeros((2, 3), np.float32)
    beside[...] = 1e-39
    opt = fastadam.Adagrad([p, beside], lr=1.0, eps=1e-30, backend=backend)
    opt.step(grads, max_norm_each=1e-40 * value)
    np.testing.assert_allclose(opt.state["v"][0], (1e-40 * value) ** 2 / 3, rtol=1e-4, atol=1e-45)
    assert (p < 0).all()
    assert not opt.state["v"][1].any()
    assert not beside.any()


# ---------------------------------------------------------------- which arrays


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_gradients_and_frozen_groups(backend):
    params, grads = problem()
    groups = [
        {"params": copies(params[:5])},
        {"params": copies(params[5:8])},
        {"params": copies(params[8:]), "lr": 0.1},
    ]
    opt = fastadam.Adam(groups, backend=backend)
    opt.param_groups[1]["frozen"] = True
    alone = [fastadam.Adam([p.copy()], lr=1e-3 if k < 8 else 0.1) for k, p in enumerate(params)]
    grads[6][...] = np.nan
    for t in range(4):
        left_out = {5, 6, 7, *range(t % 3, 10, 4)}
        given = [None if k in left_out else g for k, g in enumerate(grads)]
        opt.step([given[:5], given[5:8], given[8:]], max_norm_each=1.0)
        there = [g for g in given if g is not None]
        assert opt.grad_norm == norm_of(np.concatenate([g.ravel() for g in there]))
        for one, g in zip(alone, given, strict=True):
            if g is not None:
                inside.plain_step(one, [g], factor=factors([g], None, {"max_norm_each": 1.0})[0])
    assert_same(opt, alone)
    opt.step([None, None, None], max_norm_each=1.0)
    assert opt.grad_norm == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("of_params", ["float16", "float32", "float64", ml_dtypes.bfloat16])
@pytest.mark.parametrize("of_grads", ["float16", "float32", ml_dtypes.bfloat16])
def test_16_bits_masters_and_any_layout(of_params, of_grads, backend):
    params, grads = problem()
    params = [p.astype(of_params) for p in params]
    grads = [np.repeat(g, 2).reshape(*g.shape, 2)[..., 0].astype(of_grads) for g in grads]
    grads[1] = np.asfortranarray(grads[1])
    grads[4] = np.broadcast_to(grads[4][:1], grads[4].shape)
    grads[8] = grads[8][::-1]
    opt = fastadam.Adam(copies(params), backend=backend, master_weights=True)
    alone = [fastadam.Adam([p.copy()], master_weights=True) for p in params]
    wide = [g.astype("float64" if of_params == "float64" else "float32") for g in grads]
    for _ in range(2):
        opt.step(grads, max_norm_each=0.5)
        for one, g, factor in zip(alone, wide, factors(wide, None, {"max_norm_each": 0.5}), strict=True):
            inside.plain_step(one, [g], factor=factor)
    assert_same(opt, alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_that_are_rounded_stochastically(backend):
    """The random bits are those of any step. All norms are 5 here, so all factors are one."""
    params = [np.zeros(2000, np.float32), np.ones((2, 4), np.float32), np.ones(2, np.float32)]
    grads = [np.zeros(p.shape, np.float32) for p in params]
    for g in grads:
        g.flat[:2] = 3, 4
    one, other = (fastadam.Adam(copies(params), state_dtype="bfloat16", backend=backend) for _ in range(2))
    for _ in range(3):
        one.step(grads, max_norm_each=1.0)
        inside.plain_step(other, grads, factor=0.2)
    assert [*map(bits, arrays_of(one))] == [*map(bits, arrays_of(other))]


def test_gradients_are_left_zero():
    params, grads = problem()
    one, other = fastadam.Adam(copies(params)), fastadam.Adam(copies(params))
    one.step(copies(grads), max_norm_each=1.0)
    other.step(grads, max_norm_each=1.0, zero_grads=True)
    assert not any(g.any() for g in grads)
    assert [*map(bits, arrays_of(one))] == [*map(bits, arrays_of(other))]


def test_every_rule_has_scalars_of_its_own():
    """Groups of one optimizer may have different rules."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(50) for _ in range(4)]
    options = [{"amsgrad": True}, {}, {"amsgrad": True, "maximize": True}, {"weight_decay": 0.1}]
    grads = [size * rng.standard_normal(50) for size in (1e-3, 1.0, 10.0, 1e3)]
    opt = fastadam.Adam([{"params": [p.copy()], **own} for p, own in zip(params, options, strict=True)])
    alone = [fastadam.Adam([p.copy()], **own) for p, own in zip(params, options, strict=True)]
    for _ in range(3):
        opt.step([[g] for g in grads], max_norm_each=1.0)
        for one, g, factor in zip(alone, grads, factors(grads, None, {"max_norm_each": 1.0}), strict=True):
            inside.plain_step(one, [g], factor=factor)
    for k, one in enumerate(alone):
        assert bits(inside.planned(opt)[k]) == bits(inside.planned(one)[0])
