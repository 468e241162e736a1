"""16-bit parameters, gradients and states: converted tile by tile, computed in float32, the same bits everywhere.
The references convert with NumPy and ml_dtypes.
"""

import re
import sys
import tracemalloc

import numpy as np
import pytest
from cases import BY_RULE, CASES, arrays_of, gradients, make
from lowbits import random_bits, rounded_to_bfloat16
from ml_dtypes import bfloat16
from sklearn.datasets import load_digits

import fastadam
from fastadam.kernel import _bfloat16

HALVES = [np.float16, bfloat16]
BACKENDS = ["cython", "numba", "numpy"]


def assign(p, g):
    """A rule that stores its gradient: what is left is conversion."""
    return (g,)


Assign = fastadam.optimizer(assign, lambda t, lr: (), (), lr=0.0)


def converted(values: np.ndarray, dtype) -> np.ndarray:
    p = np.zeros(values.shape, dtype)
    Assign(p, backend="numpy").step(values)
    return p


def same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal, zeros of one sign, and NaN where NaN is."""
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    bits = f"u{got.itemsize}"
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(got.view(bits)[finite], expected.view(bits)[finite])


@pytest.mark.parametrize("dtype", HALVES)
def test_every_number_of_16_bits_is_read(dtype):
    values = np.arange(2**16, dtype=np.uint16).view(dtype)
    expected = values.astype(np.float32)
    expected[np.abs(expected) < np.finfo(np.float32).smallest_normal] *= 0  # bfloat16 has denormals of float32's size
    same_bits(converted(values, np.float32), expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_are_rounded_to_nearest_even(dtype):
    numbers = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    above = np.nextafter(numbers, np.float32(np.inf))
    middle = np.sort(numbers)[1:] / 2 + np.sort(numbers)[:-1] / 2
    special = np.array([np.inf, -np.inf, np.nan, -np.nan, 65519.9, 65520, 3.3e38, 3.4e38, 1e-8, 2.9802322e-8], "f4")
    rng = np.random.default_rng(0)
    random = rng.integers(0, 2**32, 300_000, dtype=np.uint32).view(np.float32)
    near = [np.nextafter(middle, np.float32(towards)) for towards in (-np.inf, np.inf)]
    values = np.concatenate([numbers, above, middle, *near, special, random])
    values = values[~(np.abs(values) < np.finfo(np.float32).smallest_normal)]
    with np.errstate(all="ignore"):
        same_bits(converted(values, dtype), values.astype(dtype))


def test_float64_gradients_are_rounded_to_float32():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(10_000) * 10.0 ** rng.uniform(-30, 39, 10_000)
    with np.errstate(over="ignore"):
        same_bits(converted(values, np.float32), values.astype(np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("of_grad", [np.float16, bfloat16, np.float64])
@pytest.mark.parametrize("case", BY_RULE)
def test_gradients_of_other_precisions(case, of_grad, backend):
    rng = np.random.default_rng(0)
    p, other = (np.linspace(-1, 1, 3001, dtype=np.float32) for _ in range(2))
    opt, expected = make(case, p, backend=backend), make(case, other)
    for _ in range(4):
        g = rng.standard_normal(3001).astype(of_grad)
        opt.step(g)
        expected.step(g.astype(np.float32))
    for got, wanted in zip(arrays_of(opt), arrays_of(expected), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("master", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", CASES)
def test_parameters_of_16_bits(case, dtype, master, backend):
    """With master weights the trajectory is float32's; without, it is rounded to the parameter at every step."""
    rng = np.random.default_rng(0)
    p = np.linspace(-1, 1, 2500).astype(dtype)
    wide = p.astype(np.float32)
    opt = make(case, p, backend=backend, master_weights=master)
    expected = make(case, wide)
    for _ in range(5):
        g = rng.standard_normal(2500).astype(dtype)
        opt.step(g)
        expected.step(g.astype(np.float32))
        if not master:
            wide[:] = wide.astype(dtype)
        np.testing.assert_array_equal(p, wide.astype(dtype))
    assert ("master" in opt.state) == master
    for name, arrays in expected.state.items():
        np.testing.assert_array_equal(opt.state[name][0], arrays[0])
        assert opt.state[name][0].dtype == np.float32


def test_master_weights_take_steps_too_small_for_16_bits():
    lost, kept = np.ones(8, bfloat16), np.ones(8, bfloat16)
    opts = [fastadam.Adam(lost), fastadam.Adam(kept, master_weights=True)]
    for _ in range(100):
        for opt in opts:
            opt.step(np.ones(8, bfloat16))
    assert (lost == 1).all()
    assert (np.abs(kept.astype(float) - 0.9) < 0.003).all()


def layouts(values):
    misaligned = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
    made = {
        "F": np.asfortranarray(values),
        "every second": np.zeros((2 * len(values), *values.shape[1:]), values.dtype)[::2],
        "reversed": np.zeros_like(values)[::-1, ::-1],
        "columns": np.zeros((values.shape[0], 2 * values.shape[1]), values.dtype)[:, ::2],
        "misaligned": misaligned,
    }
    for view in made.values():
        view[...] = values
    return made


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("options", [{}, {"master_weights": True}])
def test_layouts_of_16_bits(dtype, options):
    rng = np.random.default_rng(0)
    start, g = rng.standard_normal((2, 60, 41)).astype(dtype)
    expected = start.copy()
    opt = fastadam.Adam(expected, **options)
    for _ in range(3):
        opt.step(g)
    for of_param, p in layouts(start).items():
        for of_grad, grad in layouts(g).items():
            p[...] = start
            opt = fastadam.Adam(p, **options)
            for _ in range(3):
                opt.step(grad)
            np.testing.assert_array_equal(p, expected, err_msg=f"{of_param}, {of_grad}")


@pytest.mark.parametrize("options", [{}, {"master_weights": True}, {"state_dtype": "bfloat16"}])
def test_no_copies_of_the_arrays_size(options):
    p, g = np.ones(2_000_000, bfloat16), np.ones(2_000_000, np.float16)
    opt = fastadam.Adam(p, **options)
    opt.step(g)
    tracemalloc.start()
    opt.step(g, max_norm=1.0, zero_grads=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


# ---------------------------------------------------------------- stochastic rounding


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_states_of_16_bits_are_a_function_of_the_seed(backend, n_threads):
    rng = np.random.default_rng(0)
    sizes = (300_001, 7)  # more than 1 MiB: helpers are woken
    params = [np.ones(n, np.float32) for n in sizes]
    opt = fastadam.RMSprop(params, backend=backend, n_threads=n_threads, state_dtype="bfloat16", seed=2**64 - 3)
    expected = [np.zeros(n, bfloat16) for n in sizes]
    for t in range(3):
        grads = [rng.standard_normal(n, np.float32) for n in sizes]
        opt.step(grads)
        for k, g in enumerate(grads):
            v = np.float32(0.99) * expected[k].astype(np.float32) + np.float32(1 - 0.99) * g * g
            expected[k] = rounded_to_bfloat16(v, random_bits(v.size, 2**64 - 3, t, k, state=0))
            np.testing.assert_array_equal(opt.state["v"][k], expected[k])


def test_rounding_is_right_in_the_mean():
    """Over many elements the mean of what is stored is what was to be stored, at any place between two neighbours."""
    n = 200_000
    for part in (0.01, 0.25, 0.5, 0.9):
        value = np.float32(1 + part * 2**-7)  # between 1 and its neighbour
        opt = fastadam.Adagrad(np.ones(n, np.float32), state_dtype="bfloat16", seed=1)
        opt.step(np.full(n, np.sqrt(value), np.float32))
        stored = opt.state["v"][0].astype(np.float64)
        assert set(np.unique(stored)) == {1.0, 1 + 2.0**-7}
        up = (stored - 1).mean() * 2**7
        assert abs(up - part) < 5 * np.sqrt(part * (1 - part) / n) + 1e-4


def test_rounding_is_independent_of_element_step_state_and_seed():
    """Whether two roundings go up is uncorrelated, for neighbours, steps, states, parameters and seeds."""
    n = 100_000
    value = np.float32(np.sqrt(1 + 2.0**-8))

    def ups(seed):
        params = [np.ones(n, np.float32) for _ in range(2)]
        opt = fastadam.Adam(params, betas=(0.0, 0.0), state_dtype="bfloat16", seed=seed)
        found = []
        for _ in range(2):
            opt.step([np.full(n, value)] * 2)
            found += [v.astype(np.float64) > 1 for v in opt.state["v"]]
        return found

    series = [*ups(0), *ups(1)]
    series += [np.roll(series[0], shift) for shift in (1, 2, 3, 8, 1024, 8192)]
    correlation = np.corrcoef(np.array(series, float))
    assert np.abs(correlation - np.eye(len(series))).max() < 5 / np.sqrt(n)


def test_states_of_16_bits_keep_what_has_no_finite_value():
    opt = fastadam.Adagrad(np.ones(4, np.float32), state_dtype="bfloat16")
    opt.step(np.array([np.nan, np.inf, 1e30, 0], np.float32))
    v = opt.state["v"][0].astype(np.float32)
    assert np.isnan(v[0])
    assert (v[1:3] == np.inf).all()
    assert v[3] == 0


@pytest.mark.parametrize("case", CASES)
def test_threads_and_backends_agree_on_16_bits(case):
    grads = gradients(np.random.default_rng(0), 33_001, 6, "float32")
    results = []
    for options in ({"n_threads": 1}, {"n_threads": 3}, {"backend": "numba"}, {"backend": "numpy"}):
        p = np.linspace(-1, 1, 33_001).astype(np.float16)
        opt = make(case, p, master_weights=True, state_dtype="bfloat16", seed=5, **options)
        for g in grads:
            opt.step(g)
        results.append(arrays_of(opt))
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            same_bits(got, expected)


# ---------------------------------------------------------------- training


def digits_accuracy(param_dtype, options, seed=0) -> tuple[float, float]:
    """Test accuracy and last loss of a small network on digits, its arithmetic in float32."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    layers = [rng.standard_normal(shape) * shape[0] ** -0.5 for shape in ((64, 64), (64, 10))]
    params = [np.asarray(w).astype(param_dtype) for w in (layers[0], np.zeros(64), layers[1], np.zeros(10))]
    opt = fastadam.Adam(params, lr=3e-3, **options)
    target = np.eye(10, dtype=np.float32)[y]
    for step in range(600):
        batch = slice(step * 64 % 1280, step * 64 % 1280 + 64)
        w1, b1, w2, b2 = (p.astype(np.float32) for p in params)
        hidden = np.maximum(x[batch] @ w1 + b1, 0)
        out = np.exp(hidden @ w2 + b2)
        out /= out.sum(axis=1, keepdims=True)
        loss = -np.log(out[target[batch] > 0]).mean()
        delta = (out - target[batch]) / 64
        back = (delta @ w2.T) * (hidden > 0)
        grads = [x[batch].T @ back, back.sum(0), hidden.T @ delta, delta.sum(0)]
        opt.step([g.astype(param_dtype) for g in grads])
    w1, b1, w2, b2 = (p.astype(np.float32) for p in params)
    right = (np.maximum(x[1280:] @ w1 + b1, 0) @ w2 + b2).argmax(axis=1) == y[1280:]
    return float(right.mean()), float(loss)


def test_training_in_16_bits_converges_as_in_32():
    """Differences of single runs are noise: of 517 test images, a few."""
    reference = np.mean([digits_accuracy(np.float32, {}, seed)[0] for seed in range(3)])
    assert reference > 0.94
    for dtype, options in [
        (np.float32, {"state_dtype": "bfloat16"}),
        (bfloat16, {"master_weights": True}),
        (bfloat16, {"master_weights": True, "state_dtype": "bfloat16"}),
        (np.float16, {"master_weights": True}),
    ]:
        accuracy = np.mean([digits_accuracy(dtype, options, seed)[0] for seed in range(3)])
        assert abs(accuracy - reference) < 0.01, (dtype, options)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [case for case, (_, how) in BY_RULE.items() if case not in ("adagrad", "adopt")])
def test_large_gradients_beside_their_weights(case, backend):
    """3e19 squared is no float32, but times 1 - beta2 it is one: the second moment stays finite, as in float64.

    Left out: Adagrad, which has no such weight, and ADOPT, whose first step has the weight 1.
    """
    params = [np.ones(3, dtype) for dtype in (np.float32, np.float64)]
    single, double = (make(case, p, backend=backend) for p in params)
    for g in (3e19, -2.0, 3.0):
        for opt, p in zip((single, double), params, strict=True):
            opt.step(np.full_like(p, g))
    for name in {"v", "v_max"} & set(single.state):
        assert np.isfinite(single.state[name][0]).all()
        np.testing.assert_allclose(single.state[name][0], double.state[name][0], rtol=1e-5)
    assert np.isfinite(params[0]).all()


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, bfloat16])
def test_narrow_gradients_of_float64(dtype, backend):
    """Are widened exactly, denormal numbers too."""
    values = [1.0, -0.0, 3.5, -(2.0**-14), 2.0**-24, 2.0**-133, -(2.0**-149), np.inf, np.nan, 6e4]
    for g in (np.array(values * 300).astype(dtype), np.array(values * 600).astype(dtype)[::2]):
        narrow, wide = np.ones(3000), np.ones(3000)
        one, other = (fastadam.Adagrad(p, eps=0, backend=backend) for p in (narrow, wide))
        one.step(g)
        other.step(g.astype(np.float64))
        assert np.array_equal(narrow, wide, equal_nan=True)
        assert one.state["v"][0].tobytes() == other.state["v"][0].tobytes()
    zeroed = np.ones(3000, dtype)
    one.step(zeroed, zero_grads=True)
    assert not zeroed.astype(float).any()


def test_ml_dtypes_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=re.escape("pip install ml_dtypes")):
        fastadam.Adam(np.ones(3, np.float32), state_dtype="bfloat16")


@pytest.mark.parametrize("n", [0, 1, 1024, 1025])
def test_what_ranks_exchange_is_rounded_to_nearest_and_added(n):
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    bits, total = np.zeros(n, np.uint16), np.ones(n, np.float32)
    _bfloat16.to_bfloat16(x, bits)
    np.testing.assert_array_equal(bits.view(bfloat16), x.astype(bfloat16))
    _bfloat16.add_bfloat16(bits, total)
    np.testing.assert_array_equal(total, 1 + bits.view(bfloat16).astype(np.float32))
    with pytest.raises(ValueError, match=f"expected {n} elements, got {n + 1}"):
        _bfloat16.to_bfloat16(x, np.zeros(n + 1, np.uint16))
