"""What a step does to its gradients in the same pass (scaling, clipping, skipping, zeroing), and groups added later.
It is compared with the separate passes that it replaces.
"""

import pickle
import re
import weakref

import inside
import ml_dtypes
import numpy as np
import pytest
from cases import CASES, DTYPES, arrays_of, keras_factor, make, torchs_factor
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastadam
from fastadam.rule import Rule

SHAPES = [(7,), (3, 5), (), (0,), (20_003,), (2, 3, 4)]
BACKENDS = ["cython", "numba", "numpy"]


def problem(dtype: str = "float64", seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    params = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]
    return params, [np.asarray(rng.standard_normal(p.shape)).astype(dtype) for p in params]


def copies(arrays):
    return [array.copy() for array in arrays]


def transposed(g):
    return g.T.copy().T


def every_second(g):
    return np.repeat(g, 2)[::2].reshape(g.shape)


def norm_of(grads) -> float:
    return float(np.linalg.norm(np.concatenate([g.astype(float).ravel() for g in grads])))


def equal(some, others):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_scaled_and_clipped_in_the_pass(case, dtype, backend):
    """Scaling by a power of two and clipping by value round nowhere, so the bits are those of separate passes."""
    params, grads = problem(dtype)
    opt, other = make(case, copies(params), backend=backend), make(case, copies(params), backend=backend)
    for _ in range(3):
        opt.step([g * 8 for g in grads], grad_scale=8.0, clip_value=0.5)
        other.step([np.clip(g, -0.5, 0.5) for g in grads])
    equal(arrays_of(opt), arrays_of(other))
    other.step(grads)
    opt.step(grads)
    equal(arrays_of(opt), arrays_of(other))  # options of one step are not those of the next


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e9, np.inf])
def test_clipped_to_a_norm(max_norm, dtype):
    params, grads = problem(dtype)
    before = copies(grads)
    opt, other = fastadam.Adam(copies(params)), fastadam.Adam(copies(params))
    for _ in range(3):
        opt.step(grads, max_norm=max_norm, grad_scale=3.0)
        factor = torchs_factor(norm_of(grads) / 3, max_norm) / 3
        inside.plain_step(other, grads, factor=factor)
    assert opt.grad_norm == pytest.approx(norm_of(grads) / 3, rel=1e-15)
    equal(grads, before)
    for one, another in zip(arrays_of(opt), arrays_of(other), strict=True):
        np.testing.assert_allclose(one, another, rtol=1e-6 if dtype == "float32" else 1e-14)
    opt.step(grads)
    assert opt.grad_norm is None


@pytest.mark.parametrize("of_norm", [1e-9, 0.5, 1.0, 1.0 + 1e-6, 1.0 + 1e-3, 4.0])
@pytest.mark.parametrize("norm", [0.0, 1e-300, 1e-9, 1e-7, 1e-6, 2e-6, 1e-3, 1.0, 1e200])
@pytest.mark.parametrize(("how", "convention"), [("max_norm", torchs_factor), ("max_norm_each", keras_factor)])
def test_norms_of_every_size_are_limited_by_their_convention(how, convention, norm, of_norm):
    """To the last bits, where torch's 1e-6 is most of the sum, and where it is nothing."""
    limit = max(norm * of_norm, 1e-305)
    p, rest = np.zeros(4), np.zeros(3)
    opt = fastadam.SGD([{"params": [p]}, {"params": [rest]}], lr=1.0)
    opt.step([[np.array([0.6, 0.0, -0.8, 0.0]) * norm * 8], [np.zeros(3)]], grad_scale=8.0, **{how: limit})
    expected = np.array([-0.6, 0.0, 0.8, 0.0]) * norm * convention(opt.grad_norm, limit)
    np.testing.assert_allclose(p, expected, rtol=1e-15, atol=3e-308)
    assert opt.grad_norm == pytest.approx(norm, rel=1e-15)
    assert not rest.any()


#: a gradient that is not finite, the limit -> what becomes of (its element, its neighbour, another parameter), all
#: stepped by -1: torch's clip_grad_norm_ scales all by NaN, or by zero; Keras's clipnorm those of its parameter
NOT_FINITE = [
    (np.nan, {"max_norm": 1.0}, (np.nan, np.nan, np.nan)),
    (np.nan, {"max_norm": np.inf}, (np.nan, np.nan, np.nan)),
    (np.inf, {"max_norm": 1.0}, (np.nan, 0.0, 0.0)),
    (-np.inf, {"max_norm": 1.0}, (np.nan, 0.0, 0.0)),
    (-np.inf, {"max_norm": np.inf}, (np.inf, 1.0, 1.0)),  # no limit, where torch has NaN
    (np.nan, {"max_norm_each": 1.0}, (np.nan, np.nan, 1.0)),
    (np.nan, {"max_norm_each": np.inf}, (np.nan, np.nan, 1.0)),
    (np.inf, {"max_norm_each": 1.0}, (np.nan, 0.0, 1.0)),
    (-np.inf, {"max_norm_each": np.inf}, (np.inf, 1.0, 1.0)),
    (np.nan, {}, (np.nan, 1.0, 1.0)),
    (np.inf, {"clip_value": 0.5}, (-0.5, 0.5, 0.5)),
    (np.nan, {"clip_value": 0.5}, (np.nan, 0.5, 0.5)),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bad", "extras", "expected"), NOT_FINITE)
def test_what_a_gradient_that_is_not_finite_makes_of_the_others(bad, extras, expected, dtype, backend):
    def grads():
        return {"a": np.array([bad, -1.0], dtype), "b": np.array([-1.0], dtype)}

    def step(opt):
        opt.step(grads(), grad_scale=1.0, **extras)

    def step_in_parts(opt):
        with opt.stepping(**extras) as step:
            for key, g in grads().items():
                step(key, g)

    for way in (step, *([] if "max_norm" in extras else [step_in_parts])):
        params = {"a": np.zeros(2, dtype), "b": np.zeros(1, dtype)}
        opt = fastadam.SGD(params, lr=1.0, backend=backend)
        way(opt)
        np.testing.assert_array_equal([*params["a"], *params["b"]], expected)
        norm = opt.grad_norm
        assert norm is None if extras.keys() <= {"clip_value"} else str(norm) == str(abs(bad))
        assert (opt.t, opt.skipped) == (1, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_the_same_however_it_is_computed(dtype):
    """For any number of threads, instruction set or layout: it is summed in twice the precision."""
    rng = np.random.default_rng(0)
    shape = (701, 401)  # more than 1 MiB: helpers are woken
    g = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-9, 9, shape)).astype(dtype)
    exact = np.sqrt((g.astype(np.longdouble) ** 2).sum(dtype=np.longdouble))
    norms = set()
    for n_threads in (1, 2, 3, 8):
        for p in (np.zeros_like(g), np.zeros_like(g, order="F"), np.zeros((1402, 401), dtype)[::-2]):
            opt = fastadam.Adam([p], n_threads=n_threads)
            opt.step([g], max_norm=1.0)
            norms.add(opt.grad_norm)
    assert len(norms) == 1
    assert norms.pop() == pytest.approx(float(exact), rel=4e-16)


@settings(max_examples=200, deadline=None)
@example([3.55e-305])
@example([1e-160, 1e-155])
@example([1.7e308] * 3)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=40))
def test_norm_of_anything(values):
    g = np.array(values)
    opt = fastadam.Adam(np.zeros(len(g)))
    opt.step(g, max_norm=np.inf)
    finite = bool(np.isfinite(g).all())
    if finite:
        largest = float(np.abs(g).max()) or 1.0
        with np.errstate(over="ignore", under="ignore"):
            expected = float(np.linalg.norm(g / largest) * largest)
        denormal = 1e-307 * len(g)  # what counts as zero
        assert opt.grad_norm == pytest.approx(expected, rel=1e-14, abs=denormal)
    else:
        assert not np.isfinite(opt.grad_norm)
    opt.step(g, skip_nonfinite=True)
    assert opt.skipped == (not finite)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", range(6))
def test_a_gradient_that_is_not_finite_skips_the_step(where, bad, backend):
    params, grads = problem("float32")
    if not grads[where].size:
        return
    opt = fastadam.Adam(params, backend=backend)
    opt.step(grads)
    before = copies(arrays_of(opt))
    broken = copies(grads)
    broken[where].flat[-1] = bad
    kept = copies(broken)
    opt.step(broken, skip_nonfinite=True, zero_grads=True, max_norm=1.0, clip_value=1.0)
    equal(arrays_of(opt), before)
    equal(broken, kept)
    assert (opt.t, opt.skipped) == (1, 1)
    opt.step(grads, skip_nonfinite=True)
    assert (opt.t, opt.skipped) == (2, 1)


def test_a_norm_that_overflows_is_no_reason_to_skip():
    opt = fastadam.Adam(np.zeros(3))
    opt.step(np.array([1e300, -1e300, 0.0]), skip_nonfinite=True, max_norm=1.0)
    assert (opt.t, opt.skipped) == (1, 0)
    assert opt.grad_norm == pytest.approx(2**0.5 * 1e300, rel=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make_grad", [np.copy, transposed, every_second])
@pytest.mark.parametrize("dtype", [*DTYPES, np.float16, ml_dtypes.bfloat16])
def test_gradients_are_left_zero(dtype, make_grad, backend):
    params, grads = problem("float32")
    grads = [g.astype(dtype) for g in grads] if dtype != "float64" else [g.astype(dtype) for g in problem()[1]]
    params = params if dtype != "float64" else problem()[0]
    opt, other = fastadam.Adam(copies(params), backend=backend), fastadam.Adam(copies(params))
    summed = [make_grad(g) for g in grads]
    for _ in range(3):
        opt.step(summed, zero_grads=True)
        assert not any(g.any() for g in summed)
        for total, g in zip(summed, grads, strict=True):
            total[...] += g
        other.step(grads)
    equal(arrays_of(opt), arrays_of(other))


def test_bound_gradients_are_left_zero():
    p, g = np.ones(3), np.ones(3)
    opt = fastadam.Adam([p], grads=[g])
    opt.step(zero_grads=True)
    assert not g.any()
    g.flags.writeable = False
    with pytest.raises(ValueError, match=re.escape("gradient of params[0]: the array is read-only")):
        opt.step(zero_grads=True)
    assert opt.t == 1
    opt.step()


def test_scalars_are_gradients_of_arrays_without_axes():
    """Arithmetic on them gives scalars: the gradient of x ** 2 is 2 * x."""
    x, y = np.array(3.0), np.array(3.0, np.float32)
    opt = fastadam.Adam([x, y], lr=0.1)
    opt.step([2 * x, 2 * y])
    np.testing.assert_allclose([x, y], 2.9)
    with pytest.raises(TypeError, match=re.escape("zero_grads: the gradient of params[0] came as float64")):
        opt.step([2 * x, 2 * y], zero_grads=True)
    assert opt.t == 1


def test_gradients_that_cannot_be_left_zero():
    g = np.ones(5)
    opt = fastadam.Adam([np.ones(4), np.ones(4)])
    opt.step([g[:4], g[1:]])  # reading them is fine
    with pytest.raises(ValueError, match=re.escape("gradient of params[1] and gradient of params[0] share memory")):
        opt.step([g[:4], g[1:]], zero_grads=True)
    with pytest.raises(ValueError, match="several of its elements share memory"):
        opt.step([np.broadcast_to(1.0, 4).copy(), np.lib.stride_tricks.as_strided(g, (4,), (0,))], zero_grads=True)
    frozen = np.ones(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="gradient of params\\[0\\]: the array is read-only"):
        opt.step([frozen, np.ones(4)], zero_grads=True)
    assert opt.t == 1
    assert (g == 1).all()


# ---------------------------------------------------------------- groups added later


@pytest.mark.parametrize("case", CASES)
def test_a_group_added_later_counts_its_own_steps(case):
    """As if it had an optimizer of its own from there on; so in torch."""
    (a, b, *_), (ga, gb, *_) = problem()
    one, two = make(case, a.copy()), make(case, b.copy())
    both = make(case, [params := a.copy()])
    one.step(ga)
    both.step([ga])
    added = b.copy()
    schedule = CASES[case][1].get("lr")
    both.add_param_group({"params": {"b": added}, **({"lr": lambda t: schedule(t - 1)} if schedule else {})})
    for _ in range(3):
        one.step(ga)
        two.step(gb)
        both.step([[ga], {"b": gb}])
    assert params is inside.params(both)[0]
    first = [params, *(arrays[0] for arrays in both.state.values())]
    equal(first, arrays_of(one))
    if "article" not in case:  # whose rate falls with the optimizer's t
        equal([added, *(arrays[1] for arrays in both.state.values())], arrays_of(two))
    assert both.t == 4
    assert inside.keys(both) == ["0.0", "1.b"]


def test_added_group_with_its_options_and_bound_gradients():
    a, b, ga, gb = np.ones(2), np.ones(3), np.ones(2), np.ones(3)
    opt = fastadam.Adam(a, grads=ga)
    opt.step()
    opt.add_param_group({"params": b, "lr": 0.5, "weight_decay": 0.1, "grads": gb})
    opt.step()
    assert [g["lr"] for g in opt.param_groups] == [1e-3, 0.5]
    np.testing.assert_allclose(b, 0.5, rtol=1e-6)
    opt.zero_grad()
    assert not gb.any()


# ---------------------------------------------------------------- denormals


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_denormals_count_as_zero_on_every_backend(case, dtype):
    tiny = float(np.finfo(dtype).smallest_normal)
    rng = np.random.default_rng(0)
    grads = [(rng.standard_normal(999) * tiny * 10.0 ** rng.uniform(-9, 9, 999)).astype(dtype) for _ in range(3)]
    results = []
    for backend in BACKENDS:
        start = (np.linspace(-1, 1, 999) * tiny * 4).astype(dtype)
        opt = make(case, start, backend=backend)
        for g in [*grads, *[np.zeros(999, dtype)] * 20]:
            opt.step(g)
        results.append(arrays_of(opt))
        for array in results[-1]:
            assert not ((array != 0) & (np.abs(array) < tiny)).any()
    equal(results[0], results[1])
    equal(results[0], results[2])


def product_is_denormal() -> bool:
    return bool((np.full(1, 1e-20, np.float32) * np.full(1, 1e-20, np.float32))[0])


def test_the_mode_outside_the_kernel_is_as_before():
    assert product_is_denormal()
    for backend in BACKENDS:
        opt = fastadam.Adam(np.ones(100_000, np.float32), backend=backend, n_threads=2)
        opt.step(np.full(100_000, 1e-30, np.float32), max_norm=1.0)
        assert product_is_denormal()
    said = []

    def sweep(scalars, p, g):
        said.append(product_is_denormal())
        raise KeyboardInterrupt

    rule = Rule(lambda p, g: (p,), lambda t: (), ())
    with pytest.raises(KeyboardInterrupt):
        inside.stepped_once([np.ones(3)], rule, python=(sweep, lambda t, hyper: [1.0] * rule.n_scalars))
    assert said == [False]
    assert product_is_denormal()


# ---------------------------------------------------------------- what is remembered of the last gradients


def test_gradients_that_change_from_step_to_step():
    """Whatever the last one was, each is looked at anew: its place, stride, dtype, and what it shares."""
    rng = np.random.default_rng(0)
    buffer = rng.standard_normal(4000).astype(np.float32)
    wide = buffer.astype(np.float64)
    views = [buffer[:1000], buffer[:2000:2], buffer[:1000], buffer[1999:999:-1], wide[:1000], buffer[:1000]]
    views += [buffer[:1].repeat(1000), np.broadcast_to(buffer[:1], 1000), buffer.astype(np.float16)[:1000], views[1]]
    p, expected = np.ones(1000, np.float32), np.ones(1000, np.float32)
    opt, plain = fastadam.Adam(p), fastadam.Adam(expected)
    for g in views:
        opt.step(g)
        plain.step(np.array(g, np.float32))
        np.testing.assert_array_equal(p, expected)


@pytest.mark.parametrize("shape", [(8, 3, 1), (1, 8, 1, 3), (1, 1, 24), (24, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_of_one_element(shape, order):
    rng = np.random.default_rng(0)
    start, g = rng.standard_normal((2, *shape))
    base = np.zeros((2, *shape[:-1], shape[-1] * 2))
    p = base[0, ..., : shape[-1]]
    p[...] = start
    expected = start.copy()
    opt, plain = fastadam.Adam(p), fastadam.Adam(expected)
    for _ in range(3):
        opt.step(np.asarray(g, order=order))
        plain.step(g)
    np.testing.assert_array_equal(p, expected)
    with pytest.raises(ValueError, match="expected shape"):
        opt.step(g.reshape(*shape, 1))


@pytest.mark.parametrize("strides", [(0, 16), (8, 16), (-8, 16), (16, 0), (4, 16)])
def test_the_stride_of_an_axis_of_one_element_means_nothing(strides):
    base = np.zeros(6)
    shape = (3, 1) if strides == (16, 0) else (1, 3)
    p = np.lib.stride_tricks.as_strided(base, shape, strides)
    fastadam.SGD(p, lr=1.0).step(np.ones(shape))
    assert base.tolist() == [-1, 0] * 3


@pytest.mark.parametrize("zero_before", [True, False])
@pytest.mark.parametrize(
    "bad",
    [
        lambda base: [base[:4], base[3:7]],
        lambda base: [base[:8:2], base[2:10:2]],
        lambda base: [base[3::-1], base[:4]],
        lambda base: [base[:4], base.view(np.float32)[6:10]],
        lambda base: [fastadam.Rows([0, 1], base[:2]), fastadam.Rows([0, 1], base[1:3])],
        lambda base: [base[:4], fastadam.Rows([3], base[2:3])],
    ],
)
def test_gradients_of_any_layout_that_share_memory_are_not_zeroed(bad, zero_before):
    """Those before them lay apart."""
    params, base = [np.ones(4), np.ones(4)], np.arange(1.0, 13.0)
    opt = fastadam.SGD(params)
    for _ in range(2):
        opt.step([np.ones(4), np.ones(4)], zero_grads=zero_before)
    opt.step(bad(base))
    for _ in range(2):
        with pytest.raises(ValueError, match="share memory"):
            opt.step(bad(base), zero_grads=True)
    assert (opt.t, base.tolist()) == (3, [*range(1, 13)])


@pytest.mark.parametrize("stride", [1, 2])
def test_overlaps_are_seen_after_good_gradients(stride):
    params = [np.ones(4), np.ones(4)]
    opt = fastadam.Adam(params)
    buffer = np.ones(20)
    good = [buffer[: 4 * stride : stride], buffer[10 : 10 + 4 * stride : stride]]
    opt.step(good, zero_grads=True)
    opt.step(good, zero_grads=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="share memory"):
            opt.step([good[0], buffer[stride : 5 * stride : stride]], zero_grads=True)
        with pytest.raises(ValueError, match="shares memory with a parameter"):
            opt.step([good[0], params[0]])
    assert opt.t == 2
    both = np.ones((4, 2))  # in turns: their extents meet, they do not
    opt.step([both[:, 0], both[:, 1]], zero_grads=True)
    assert not both.any()


def test_bound_gradients_after_a_refused_step():
    params, bound = [np.ones(2), np.ones(2)], [np.ones(2), np.full(2, 2.0)]
    opt = fastadam.Adagrad(params, grads=bound)
    opt.step()
    with pytest.raises(ValueError, match="expected shape"):
        opt.step([np.full(2, 7.0), np.ones(3)])
    opt.step()
    np.testing.assert_array_equal(opt.state["v"][0], 2 * bound[0] ** 2)
    params[0].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.step()
    params[0].flags.writeable = True
    bound[1].dtype = np.int64
    opt.step()  # integers are numbers, too
    assert opt.t == 3


@pytest.mark.parametrize("dtype", [np.int64, np.dtype(np.float64).newbyteorder()], ids=str)
def test_parameters_that_change_their_dtype(dtype):
    p = np.ones(4)
    opt = fastadam.Adam(p)
    p.dtype = dtype
    before = p.tobytes()
    for g in (np.ones(4), np.ones(4, dtype)):
        with pytest.raises(TypeError, match=f"params: its dtype was changed to {p.dtype}"):
            opt.step(g)
    assert opt.t == 0
    assert p.tobytes() == before


def test_a_gradient_that_is_the_16_bit_parameter_of_a_master():
    p = np.ones(4, np.float16)
    opt = fastadam.Adam(p, master_weights=True)
    for g in (p, opt.state["master"][0]):
        with pytest.raises(ValueError, match="shares memory with a parameter or a state"):
            opt.step(g)


def test_a_state_is_no_parameter():
    opt = fastadam.Adam([np.ones(3)])
    with pytest.raises(ValueError, match=re.escape("a state of params[0] and params[1]['params'] share memory")):
        opt.add_param_group({"params": opt.state["m"][0]})
    assert len(opt.param_groups) == 1
    opt.step([np.ones(3)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("value", "options"), [(1e38, {"max_norm": 0.5}), (3.0, {"clip_value": 1e-40})])
def test_factors_below_the_smallest_normal_number_count(value, options, backend):
    """In such a step denormals are not zero, else the gradient would vanish."""
    results = []
    for dtype in (np.float32, np.float64):
        p = np.zeros(3, dtype)
        opt = fastadam.Adagrad(p, lr=1.0, eps=1e-30, backend=backend)
        opt.step(np.full(3, value, dtype), **options)
        results.append(p)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    assert (results[0] != 0).all()


def test_gradients_of_groups_may_be_scalars():
    x = np.array(3.0)
    opt = fastadam.Adam([{"params": x}, {"params": np.ones(2)}], lr=0.1)
    opt.step([2 * x, np.ones(2)])
    assert x == pytest.approx(2.9)


# ---------------------------------------------------------------- while another thread is inside


def test_nothing_reads_or_changes_states_within_a_step(tmp_path):
    opt = fastadam.Adam([np.ones(3)])
    kept = opt.state_dict()
    calls = (
        lambda: opt.step([np.ones(3)]),
        lambda: opt.save(tmp_path / "a.npz"),
        lambda: opt.load(tmp_path / "a.npz"),
        opt.state_dict,
        lambda: opt.load_state_dict(kept),
        lambda: opt.add_param_group({"params": np.ones(2)}),
        lambda: pickle.dumps(opt),
    )
    with inside.hold(opt):
        for call in calls:
            with pytest.raises(RuntimeError, match="thread is inside a step"):
                call()
    assert not list(tmp_path.iterdir())
    opt.step([np.ones(3)])
    assert opt.t == 1


def test_a_state_dict_of_its_own_arrays():
    opt = fastadam.Adam([np.ones(3)])
    opt.step([np.ones(3)])
    told = opt.state_dict()
    m, v = opt.state["m"][0].copy(), opt.state["v"][0].copy()
    told["state"]["0"] = {"m": opt.state["v"][0], "v": opt.state["m"][0]}
    opt.load_state_dict(told)
    equal([opt.state["m"][0], opt.state["v"][0]], [v, m])


def test_states_go_with_the_optimizer():
    opt = fastadam.Adam([np.ones(3)])
    group, state = opt.param_groups[0], weakref.ref(opt.state["m"][0])
    del opt
    assert state() is None
    assert group["lr"] == 1e-3  # plain data, which outlives it
