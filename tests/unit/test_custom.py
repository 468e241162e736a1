"""A user's own rules: the examples against their references, a copy of Adam against the built-in one, and mistakes.
Each runs under Numba and under NumPy, with the same bits.
"""

import gc
import importlib.util
import inspect
import weakref

import numpy as np
import pytest
from places import ROOT

import fastadam
from fastadam.rules import adam, adam_scalars

EXAMPLE = ROOT / "examples/own_rules.py"
spec = importlib.util.spec_from_file_location("own_rules", EXAMPLE)
own_rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own_rules)
HAS_TORCH = importlib.util.find_spec("torch") is not None

BACKENDS = ("numba", "numpy")
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "beta_decay": 1.0, "eps_hat": False}


def my_adam(p, g, m, v, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    return adam(p, g, m, v, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_as_ones_own_rule_is_adam(dtype, backend):
    cls = fastadam.optimizer(my_adam, adam_scalars, ["m", "v"], **ADAM)
    rng = np.random.default_rng(0)
    start = rng.standard_normal((300, 401)).astype(dtype)
    mine, theirs = start[:, ::2].copy(order="F"), start[:, ::2].copy()
    own, built_in = cls([mine], backend=backend, weight_decay=0.1), fastadam.Adam([theirs], weight_decay=0.1)
    for _ in range(5):
        g = rng.standard_normal(mine.shape).astype(dtype)
        own.step([g])
        built_in.step([g])
    np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(own.state["v"][0], built_in.state["v"][0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lion_is_its_paper(backend):
    p = np.linspace(-1, 1, 7)
    expected, m = p.copy(), np.zeros(7)
    opt = own_rules.Lion(p, lr=0.01, weight_decay=0.1, backend=backend)
    for t in range(20):
        g = np.sin(np.arange(7.0) + t)
        opt.step(g)
        c = 0.9 * m + (1 - 0.9) * g
        expected = expected - 0.01 * (np.sign(c) + 0.1 * expected)
        m = 0.99 * m + (1 - 0.99) * g
        # the decay is a factor (1 - 0.001) here and a difference there
        np.testing.assert_allclose(p, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed; CI installs it")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("cls", "name", "options"),
    [
        (own_rules.Nesterov, "SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
        (own_rules.Nesterov, "SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (own_rules.NAdam, "NAdam", {}),
        (own_rules.NAdam, "NAdam", {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": 0.01}),
    ],
)
def test_against_torch(cls, name, options, backend):
    import torch

    p = np.linspace(-1, 1, 9)
    tensor = torch.tensor(p, requires_grad=True)
    theirs = getattr(torch.optim, name)([tensor], **options)
    ours = cls(p, backend=backend, **{key: value for key, value in options.items() if key != "nesterov"})
    for t in range(600):  # NAdam's product of momenta has run out by then
        g = np.cos(np.arange(9.0) + 0.1 * t) + p
        tensor.grad = torch.tensor(np.cos(np.arange(9.0) + 0.1 * t)) + tensor.detach()
        ours.step(g)
        theirs.step()
    np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=1e-11, atol=1e-11)  # of 600 steps of about 1e-2


def test_options_groups_schedules_and_attributes():
    a, b = np.ones(3), np.ones(2)
    opt = own_rules.Nesterov([{"params": a}, {"params": b, "momentum": 0.0}], lr=lambda t: 0.1 / t, backend="numpy")
    opt.step([np.ones(3), np.ones(2)])
    opt.step([np.ones(3), np.ones(2)])
    np.testing.assert_allclose(b, 1 - 0.1 - 0.05)
    opt.momentum = 0.5
    assert [group["momentum"] for group in opt.param_groups] == [0.5, 0.5]
    assert opt.state["b"][0].shape == (3,)


@pytest.mark.parametrize("name", ["rho", "alpha", "momentum", "eps", "beta_decay", "centered", "lr_decay"])
def test_hyper_parameters_mean_what_the_rule_says(name):
    """Not what a built-in optimizer means by such a name: any finite number will do, wherever it is given."""
    scope = {}
    exec(f"def scalars(t, lr, {name}): return (lr * {name},)", scope)
    cls = fastadam.optimizer(lambda p, g, rate: (p - rate * g,), scope["scalars"], (), lr=0.5, **{name: 4})
    p, q = np.ones(2), np.ones(3)
    opt = cls([{"params": p}, {"params": q, name: -1.0}], backend="numpy")
    opt.step([np.ones(2), np.ones(3)])
    np.testing.assert_array_equal(np.concatenate([p, q]), [-1, -1, 1.5, 1.5, 1.5])
    setattr(opt, name, 2.5)
    assert [group[name] for group in opt.param_groups] == [2.5, 2.5]
    opt.load_state_dict(cls([{"params": p}, {"params": q, name: -3.0}], backend="numpy").state_dict())
    assert [group[name] for group in opt.param_groups] == [4.0, -3.0]
    for wrong, error in ((np.inf, ValueError), (np.nan, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"{name}: expected a number that is finite, got "):
            setattr(opt, name, wrong)
        with pytest.raises(error, match=rf"params\[0\]\['{name}'\]: expected a number that is finite, got "):
            cls([{"params": p, name: wrong}], backend="numpy")
    for shared in ("lr", "weight_decay"):
        with pytest.raises(ValueError, match=f"{shared}: expected a number >= 0 and finite, got -1"):
            cls(p, backend="numpy", **{shared: -1})


def shifted(p, g, last, before, lr):
    """Old states in new places."""
    return p - lr * (g - before), g, last


def exchanged(p, g, a, b, lr):
    return p - lr * a, b, a


def views_of_old(p, g, a, b, lr):
    return p - lr * g, np.real(b), np.real(a)


@pytest.mark.parametrize("update", [shifted, exchanged, views_of_old])
def test_results_are_made_of_the_old_values(update):
    names = list(inspect.signature(update).parameters)[2:4]
    cls = fastadam.optimizer(update, lambda t, lr: (lr,), names, lr=0.5)
    for dtype in ("float32", "float64"):
        kept = []
        for backend in BACKENDS:
            p = np.linspace(-1, 1, 20_000).astype(dtype)  # several chunks
            opt = cls(p, backend=backend)
            for place, name in enumerate(names):
                opt.state[name][0][...] = place
            for t in range(1, 4):
                opt.step(np.full_like(p, t))
            kept.append([p, *(opt.state[name][0] for name in names)])
        for numba, numpy in zip(*kept, strict=True):
            np.testing.assert_array_equal(numba, numpy)


def doubled(x):
    return x + x


def tripled(x, y=3.0):
    return doubled(x) * y / y + x


def sign(x):
    return np.sign(x)  # by the name of a global that is this function


def closing_over(power):
    def inner(x, k=1.0):
        return tripled(x) * k

    def update(p, g, lr):
        return (p - lr * inner(g) * power * sign(g),)

    def scalars(t, lr):
        return (inner(lr) * power,)

    return update, scalars


def test_rules_call_functions_around_them():
    kept = []
    for backend in BACKENDS:
        p = np.linspace(-1, 1, 7)
        fastadam.optimizer(*closing_over(2.0), (), lr=0.25)(p, backend=backend).step(np.cos(p))
        kept.append(p)
    np.testing.assert_array_equal(*kept)
    start = np.linspace(-1, 1, 7)
    np.testing.assert_allclose(kept[0], start - 9.0 * np.cos(start), rtol=1e-14)


def branching(p, g, m, lr):
    if g > m:
        m *= lr
        return p - lr, m + lr
    return p + lr, m - lr


def noisy(p, g, m, lr):
    return p - lr * g * np.random.standard_normal(), m  # noqa: NPY002 - the one that Numba has


def test_what_only_numba_takes_is_left_to_it():
    """`if`, assignments in place and random numbers: what fails on arrays, or changes by itself, mixes no elements."""
    for update in (branching, noisy):
        p, g = np.zeros(4), np.array([1.0, -1.0, 2.0, -2.0])
        opt = fastadam.optimizer(update, lambda t, lr: (lr,), ["m"], lr=0.5)(p)
        opt.step(g)
        if update is branching:
            np.testing.assert_array_equal(p, -0.5 * np.sign(g))
            np.testing.assert_array_equal(opt.state["m"][0], 0.5 * np.sign(g))
        assert len(set(p)) == (2 if update is branching else 4)


def test_signature_shows_the_options():
    sgd = fastadam.optimizer(lambda p, g, a: (p - a * g,), lambda t, lr, mu: (lr * mu,), (), lr=0.5, mu=2.0)
    shown = inspect.signature(sgd).parameters
    assert sorted(list(shown)[:6]) == ["bounds", "lr", "maximize", "mu", "params", "weight_decay"]
    assert {*shown} >= {"grads", "backend", "n_threads"}
    assert (shown["lr"].default, shown["mu"].default, shown["backend"].default) == (0.5, 2.0, "numba")


def test_states_and_scalars_of_any_name():
    """Names that the generated loops use themselves."""

    def rule(p, g, i, n, s, s0, p_):
        return p - p_ * g, i + g, n + g, s + g, s0 + g

    cls = fastadam.optimizer(rule, lambda t, lr: (lr,), ["i", "n", "s", "s0"], lr=0.5)
    for backend in BACKENDS:
        p = np.ones(5)
        opt = cls(p, backend=backend)
        opt.step(np.ones(5))
        np.testing.assert_array_equal(p, 0.5)
        assert all((arrays[0] == 1).all() for arrays in opt.state.values())


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_rule_goes_with_its_class(backend):
    """With all that its functions hold: one that is made in a loop would else fill the memory."""

    def update(p, g, lr):
        return (p - lr * g,)

    cls, gone = fastadam.optimizer(update, lambda t, lr: (lr,), (), lr=0.1), weakref.ref(update)
    cls(np.ones(2), backend=backend).step(np.ones(2))
    del cls, update
    gc.collect()
    assert gone() is None


def test_example_runs(capsys):
    own_rules.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Adam", "lion", "nesterov", "nadam"]
    assert max(float(line.split("= ")[1]) for line in lines) < 1e-4
