"""Numbers, flags and counts in arrays without axes, of NumPy, JAX or PyTorch, and counts as whole floats: as options,
as arguments of a step and of schedules, and as results of a schedule, they become Python's own.
Other values are refused: tests/promises/refused/.
"""

import math
from fractions import Fraction

import numpy as np
import pytest

import fastadam
from fastadam import functional, schedules
from fastadam.kernel import checks

G = np.array([3.0, -0.5])


def of_jax(value):
    return pytest.importorskip("jax.numpy").asarray(value)


def of_torch(value):
    return pytest.importorskip("torch").tensor(value)


def learned_in_torch(value):
    return of_torch(value).requires_grad_() if isinstance(value, float) else of_torch(value)


class Lazy:
    """An array that NumPy can read, and no more: TensorFlow's have no item()."""

    ndim = 0

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)


KINDS = [np.asarray, lambda value: np.asarray(value)[()], of_jax, of_torch, learned_in_torch, Lazy]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=["numpy", "of numpy", "jax", "torch", "learned", "lazy"])


def run(kind):
    """The parameters after three steps, everything that is a number or a flag made by `kind`; with its options."""
    x = np.array([1.0, 2.0])
    opt = fastadam.Adam(
        x,
        lr=lambda t: kind(0.5 / t),
        betas=(kind(0.5), kind(0.75)),
        eps=kind(0.125),
        weight_decay=kind(0.25),
        amsgrad=kind(True),
        seed=kind(3),
        n_threads=kind(1),
    )
    given = {"grad_scale": kind(2.0), "max_norm": kind(1.0), "clip_value": kind(0.5), "skip_nonfinite": kind(False)}
    for _ in range(2):
        opt.step(G, **given)
    opt.lr = kind(0.25)
    opt.param_groups[0]["eps"] = kind(0.5)
    opt.step(G, **{**given, "max_norm": None, "max_norm_each": kind(0.25)})
    return x, dict(opt.param_groups[0]), (opt.seed, opt.n_threads)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the libraries import
@each_kind
def test_arrays_without_axes_are_the_numbers_in_them(kind):
    x, options, settings = run(kind)
    expected, plain, plain_settings = run(lambda value: value)
    np.testing.assert_array_equal(x, expected)
    for name in plain.keys() - {"params"}:
        assert options[name] == plain[name]
        assert type(options[name]) is type(plain[name])
    assert settings == plain_settings
    assert {type(value) for value in (*options["betas"], *settings)} == {float, int}


@each_kind
def test_arguments_of_schedules(kind):
    rate = schedules.join([schedules.warmup(kind(0.5), kind(4)), schedules.cosine(kind(0.5), kind(4.0))], [kind(4)])
    plain = schedules.join([schedules.warmup(0.5, 4), schedules.cosine(0.5, 4)], [4])
    assert rate == plain
    assert repr(rate) == repr(plain)
    assert [rate(kind(t)) for t in (1, 2, 6)] == [plain(float(t)) for t in (1, 2, 6)]
    assert rate * kind(0.5) == plain * 0.5
    assert rate / kind(2.0) == plain / 2


@each_kind
def test_functions(kind):
    def stepped(kind):
        p, m, v = np.ones(2), np.zeros(2), np.zeros(2)
        functional.adam(p, G, m, v, kind(3), lr=kind(0.5), betas=(kind(0.5), kind(0.75)), eps_hat=kind(True))
        return p

    np.testing.assert_array_equal(stepped(kind), stepped(lambda value: value))


def test_a_pair_is_any_array_of_two():
    for kind in (np.asarray, of_jax, of_torch):
        assert fastadam.Adam(np.ones(1), betas=kind([0.5, 0.75])).betas == (0.5, 0.75)


def test_a_rule_of_ones_own_has_flags_and_rates_of_numpy():
    def sgd(p, g, rate):
        return (p - rate * g,)

    def scalars(t, lr, fast):
        return (lr * (2.0 if fast else 1.0),)

    SGD = fastadam.optimizer(sgd, scalars, (), lr=lambda t: np.asarray(0.5), fast=np.True_)
    x = np.ones(2)
    opt = SGD(x, backend="numpy")
    opt.step(G)
    np.testing.assert_array_equal(x, 1 - G)
    assert opt.fast is True


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int8(3), np.longdouble(3), Fraction(3), Fraction(6, 2)])
def test_counts_may_be_whole_floats(value):
    count = checks.whole("steps", value)
    assert count == 3
    assert type(count) is int


def test_a_large_float_is_the_count_that_it_is():
    assert checks.whole("steps", 1e4) == 10**4
    assert checks.whole("steps", 2.0**62) == 2**62
    with pytest.raises(ValueError, match=r"^steps: expected a whole number >= 0 and < 2\*\*62, got 1e\+30$"):
        checks.whole("steps", 1e30, below=2**62)


def test_what_has_no_number_yet_says_so():
    jax = pytest.importorskip("jax")
    with pytest.raises(
        TypeError, match=r"^lr: expected a number >= 0 and finite, got .*Tracer.*: Abstract tracer value"
    ):
        jax.jit(lambda lr: fastadam.Adam(np.ones(1), lr=lr).lr)(0.1)


def test_any_function_of_t_is_a_rate():
    class Rate:
        def __call__(self, t, scale=1.0):
            return scale * 0.5

    for rate in (Rate(), lambda *t: 0.5, lambda t, scale=0.5: scale, [0.0, 0.5].__getitem__):
        x = np.ones(1)
        fastadam.Adam(x, lr=rate, eps=0.0).step(np.ones(1))
        assert x == 0.5


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (fastadam.Adam, {"lr": 0.0, "betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.0}),
        (fastadam.Adam, {"bounds": (0.5, 0.5), "seed": 2**64 - 1, "min_8bit_size": 0, "n_threads": 1}),
        (fastadam.Adam, {"bounds": (-math.inf, math.inf), "seed": 0, "min_8bit_size": 2**62 - 1}),
        (fastadam.ScheduleFreeAdamW, {"r": 0.0, "weight_lr_power": 10.0, "warmup_steps": 0}),
        (fastadam.ScheduleFreeAdamW, {"r": 10.0, "weight_lr_power": 0.0}),
        (fastadam.Rprop, {"step_sizes": (0.5, 0.5)}),
        (fastadam.Average, {"decay": 0.0, "first": 1}),
        (fastadam.Average, {"decay": 1.0}),
    ],
)
def test_the_ends_of_ranges_belong_to_them(make, options):
    opt = make([np.ones(3)], **options)
    assert {name: getattr(opt, name) for name in options} == options


@pytest.mark.parametrize("scale", [2.0**-126, 2.0**126])
@pytest.mark.parametrize("limit", [5e-324, math.inf])
@pytest.mark.parametrize("name", ["max_norm", "max_norm_each", "clip_value"])
def test_the_ends_of_what_a_step_takes(name, limit, scale):
    opt = fastadam.SGD(np.zeros(1), lr=1.0)
    opt.step(np.ones(1), grad_scale=scale, **{name: limit})
    for beyond in (scale * 2.0, scale / 2.0):
        if not 2.0**-126 <= beyond <= 2.0**126:
            with pytest.raises(ValueError, match="grad_scale"):
                opt.step(np.ones(1), grad_scale=beyond, **{name: limit})
    with pytest.raises(ValueError, match=name):
        opt.step(np.ones(1), grad_scale=scale, **{name: 0.0})
    assert opt.t == 1
