"""The interfaces for other libraries (functions, C, Cython, Numba), compared bit for bit with the Python classes.
Five clients and the examples of docs/how-to/embedding.md are compiled here, as a user would compile them.
"""

import ctypes
import inspect
import itertools
import json
import pickle
import re
import runpy
from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path

import inside
import numpy as np
import pytest
from cases import BY_RULE, CASES, DTYPES, VARIANTS, arrays_of, gradients, make, some
from conftest import HERE, python
from numba import njit
from places import ROOT

import fastadam
import fastadam.numba
from fastadam import capi, functional
from fastadam.kernel import generate_c
from fastadam.rule import OF_THE_STEP, arguments
from fastadam.rules import RULES

DOC = ROOT / "docs/how-to/embedding.md"
#: of fastadam_options, after its size; a new one comes last
MEMBERS = ["lr", "weight_decay", "decoupled", "maximize", "beta1", "beta2", "eps", "eps_hat"]
MEMBERS += ["lr_decay", "alpha", "eps_in_sqrt", "momentum", "accumulate_lr"]
OF_THE_FIRST_HEADER = len(MEMBERS)
MEMBERS += ["dampening", "momentum_decay", "lambd", "t0", "eta_minus", "eta_plus", "shortest", "longest", "beta3"]
MEMBERS += ["alpha_warmup", "beta3_warmup", "use_clipping", "decay", "warmup_steps", "r", "weight_lr_power", "equal"]
OK, BAD_OPTIONS, BAD_LENGTH, NULL_POINTER, BAD_STEP = 0, -1, -2, -3, -4
#: functions beyond one a rule
ALSO = {"adamw": (fastadam.AdamW, {})}


def rule_of(opt):
    return inside.rule_of(opt)


def members_of(opt) -> dict[str, float]:
    """The hyper-parameters of an optimizer under the names that C and the scalars of the rules have for them."""
    rule, [values] = rule_of(opt), opt.param_groups
    rate = values["lr"](1) if callable(values["lr"]) else values["lr"]
    return dict.fromkeys(MEMBERS, 0.0) | dict(zip(rule.hyper, opt.hyper_values(rule, values, rate), strict=True))


# ---------------------------------------------------------------- functions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"schedule"}))
def test_function_is_the_class(case, dtype):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal((20, 31)).astype(dtype), rng.standard_normal(7).astype(dtype)]
    theirs, mine = [p.copy() for p in start], [p.copy() for p in start]
    mine[0] = np.zeros((40, 31), dtype)[::2]  # strided here, plain there
    mine[0][...] = start[0]
    opt = make(case, theirs)
    rule, options = rule_of(opt), dict(CASES[case][1])
    states = [[array.copy("F") for array in opt.state[name]] for name in rule.states]
    alpha_decay = options.pop("alpha_decay", False)
    for chooses_the_rule in ("amsgrad", "centered", "nesterov", "initial_accumulator_value"):
        options.pop(chooses_the_rule, None)
    step = functional.adamw if isinstance(opt, fastadam.AdamW) else getattr(functional, rule.name)
    for t in range(1, 6):
        g = [gradients(rng, p.size, 2, dtype)[1].reshape(p.shape) for p in start]
        if alpha_decay:
            options["lr"] = opt.lr / sqrt(t)
        opt.step(g)
        assert step(mine, g, *states, t, **options) is None
    for ours, name in zip([mine, *states], ["p", *rule.states], strict=True):
        for a, b in zip(ours, theirs if name == "p" else opt.state[name], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(BY_RULE.keys() | ALSO))
def test_one_array_and_the_defaults(name):
    cls, chosen = (BY_RULE | ALSO)[name]
    p, theirs = np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)
    opt = cls(theirs, **chosen)
    states = [opt.state[state][0].copy() for state in rule_of(opt).states]
    step = getattr(functional, name)
    options = {option: value for option, value in chosen.items() if option in inspect.signature(step).parameters}
    for t in range(1, 4):
        opt.step(np.cos(theirs + t))
        step(p, np.cos(p + t), *states, t, **options, n_threads=1)
    np.testing.assert_array_equal(p, theirs)

    of_class = inspect.signature(cls).parameters
    for parameter in inspect.signature(step).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert parameter.default == of_class[parameter.name].default
    assert [*inspect.signature(step).parameters][: 3 + len(states)] == ["p", "g", *rule_of(opt).states, "t"]


# ---------------------------------------------------------------- C and Cython


def of_client(client, opt, p, grads, states, *, t=1, n=None, size=None, null=-2) -> int:
    """Steps of the client, with the options and the rule of `opt`; the code that it returned."""
    values = members_of(opt)
    members = tuple(float(values[name]) for name in MEMBERS)
    n, size = len(p) if n is None else n, client.SIZE if size is None else size
    return client.steps(rule_of(opt).name, p, grads, states, members, t, n, size, null)


def problem(case: str, n: int, steps: int, dtype: str):
    """An optimizer, and what a client is to step beside it: p, gradients and states, a row for each."""
    rng = np.random.default_rng(n)
    p = rng.standard_normal(n).astype(dtype)
    opt = make(case, p.copy(), n_threads=1)
    grads = np.array(gradients(rng, n, steps, dtype), dtype).reshape(steps, n)
    states = np.array([opt.state[name][0] for name in rule_of(opt).states], dtype).reshape(-1, n)
    return opt, p, grads, states


# those that a C client can ask for: rates by function and decaying betas are the caller's own there
C_CASES = sorted(CASES.keys() - {"schedule", "adam-article", "sgd-bounds", "schedule_free-r"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", C_CASES)
def test_client_is_the_class(client, case, dtype):
    for n in (1, 16, 1025):
        opt, p, grads, states = problem(case, n, 30, dtype)
        for g in grads:
            opt.step(g)
        assert of_client(client, opt, p, grads[:20], states) == OK
        assert of_client(client, opt, p, grads[20:], states, t=21) == OK
        for ours, theirs in zip([p, *states], arrays_of(opt), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_client_leaves_epsilon_uncorrected(client):
    p, states, grads = np.ones(5), np.zeros((2, 5)), np.random.default_rng(0).standard_normal((9, 5))
    opt = fastadam.AdamW(p.copy(), eps=0.1, eps_hat=True, maximize=True)
    for g in grads:
        opt.step(g)
    assert of_client(client, opt, p, grads, states) == OK
    np.testing.assert_array_equal(p, inside.planned(opt)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", sorted(BY_RULE))
def test_client_gets_a_code_and_nothing_is_touched(client, case, dtype):
    opt, p, grads, states = problem(case, 9, 2, dtype)
    before = p.copy(), grads.copy(), states.copy()
    expected = {
        BAD_OPTIONS: [{"null": -1}, {"size": 0}, {"size": OF_THE_FIRST_HEADER * 8}, {"size": client.SIZE + 8}],
        BAD_LENGTH: [{"n": -1}, {"n": -(2**62)}],
        NULL_POINTER: [{"null": k} for k in range(2 + len(states))],
        BAD_STEP: [{"t": 0}, {"t": -5}],
    }
    for code, mistakes in expected.items():
        for mistake in mistakes:
            assert of_client(client, opt, p, grads, states, **mistake) == code, mistake
    for array, copy in zip((p, grads, states), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("case", sorted(BY_RULE))
def test_client_with_no_elements(client, case):
    opt, p, grads, states = problem(case, 9, 2, "float64")
    before = p.copy(), states.copy()
    for null in range(-2, 2 + len(states)):
        assert of_client(client, opt, p, grads, states, n=0, null=null) == (BAD_OPTIONS if null == -1 else OK)
    np.testing.assert_array_equal(p, before[0])
    np.testing.assert_array_equal(states, before[1])


def test_client_on_many_threads(client):
    problems = [problem("amsgrad", 1025, 200, "float32") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda given: of_client(client, *given), problems)) == [OK] * 4
    opt, _, grads, _ = problems[0]
    for g in grads:
        opt.step(g)
    for _, p, _, _ in problems:
        np.testing.assert_array_equal(p, inside.planned(opt)[0])


def test_version_and_size(client):
    assert client.VERSION == 1
    assert client.SIZE == 31 * 8
    assert tuple(MEMBERS) == capi.MEMBERS


def test_members_that_an_older_header_has_not_are_zero(client):
    opt, p, grads, states = problem("sgd_momentum", 9, 20, "float64")
    size = (1 + OF_THE_FIRST_HEADER) * 8  # without the dampening, which it is given
    assert of_client(client, opt, p, grads, states, size=size) == OK
    opt.dampening = 0
    for g in grads:
        opt.step(g)
    np.testing.assert_array_equal(p, inside.planned(opt)[0])


def test_client_adds_the_step_with_its_rate(client):
    p, states, [g] = np.ones(5), np.zeros((2, 5)), np.random.default_rng(0).standard_normal((1, 5))
    opt = fastadam.Adadelta(p.copy(), lr=0.5)
    rule = RULES["adadelta"]
    members = [dict.fromkeys(MEMBERS, 0.0) | members_of(opt) | {"accumulate_lr": flag} for flag in (False, True)]
    accumulated = []
    for values in members:
        mine, into = p.copy(), states.copy()
        given = tuple(float(values[name]) for name in MEMBERS)
        assert client.steps("adadelta", mine, g[None], into, given, 1, 5, client.SIZE, -2) == OK
        hyper = [values.get(name, 0.0) for name in rule.hyper]
        _, scalars, _ = rule.divided(rule.step_scalars(1, [*OF_THE_STEP.values(), *hyper]))
        for ours, theirs in zip([mine, *into], rule.update(p, g, *states, *scalars), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        accumulated.append(into[1])
    assert (accumulated[0] > accumulated[1]).all()


@pytest.fixture(params=["cpp_client", "ctypes_client", "cffi_client"])
def descend(request, clients):
    """Of each client that steps Adam alone, on the sum of x**2."""
    if request.param in clients:
        return clients[request.param].descend
    if request.param == "cffi_client":
        pytest.importorskip("cffi")
    return runpy.run_path(str(HERE / "clients" / f"{request.param}.py"))["descend"]


def test_other_languages_are_the_class(descend):
    x, p = np.linspace(-1, 1, 1025), np.linspace(-1, 1, 1025)
    opt = fastadam.Adam(p, lr=0.1)
    for _ in range(50):
        opt.step(2 * p)
    descend(x, 50, 0.1)
    np.testing.assert_array_equal(x, p)
    with pytest.raises(ValueError, match=re.escape("lr: expected a number >= 0 and finite, got -0.1")):
        descend(x, 50, -0.1)
    np.testing.assert_array_equal(x, p)


def test_an_address_of_no_function():
    with pytest.raises(ValueError, match="fastadam_adam_f64"):
        capi.address("fastadam_adam_f46")


# ---------------------------------------------------------------- options of C


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), *((name, ctypes.c_double) for name in MEMBERS)]


def of_options(name, *taken):
    return ctypes.CFUNCTYPE(ctypes.c_int, *taken)(capi.address(f"fastadam_{name}"))


SIZE = ctypes.sizeof(Options)


def filled(rule, size=SIZE):
    options = Options(-1, *[-7.0] * len(MEMBERS))
    code = of_options(f"{rule}_defaults", ctypes.c_void_p, ctypes.c_size_t)(ctypes.addressof(options), size)
    return code, options


def reason_of(rule, options, size=200):
    check = of_options(f"{rule}_check", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    reason = ctypes.create_string_buffer(b"untouched", 200)
    code = check(None if options is None else ctypes.addressof(options), reason, size)
    return code, reason.value.decode()


@pytest.mark.parametrize("rule", RULES)
def test_defaults_are_those_of_the_class(rule):
    code, options = filled(rule)
    assert (code, options.size) == (OK, SIZE)
    opt = BY_RULE[rule][0](np.ones(1))
    values = dict(
        zip(RULES[rule].hyper, opt.hyper_values(RULES[rule], opt.param_groups[0], getattr(opt, "lr", 0.0)), strict=True)
    )
    read = generate_c.members(RULES[rule])
    assert {name: getattr(options, name) for name in MEMBERS} == {
        name: values[name] if name in read else 0.0 for name in MEMBERS
    }
    assert reason_of(rule, options)[0] == (BAD_OPTIONS if rule == "sgd_nesterov" else OK)  # it needs a momentum


def test_defaults_know_the_size_of_an_older_header():
    size = (1 + OF_THE_FIRST_HEADER) * 8
    code, options = filled("nadam", size)
    assert (code, options.size, options.beta2) == (OK, size, 0.999)
    assert options.momentum_decay == -7.0  # beyond what the caller has
    assert reason_of("nadam", options) == (OK, "")
    assert filled("adam", 8)[0] == filled("adam", SIZE + 8)[0] == BAD_OPTIONS
    assert filled("adam", 8)[1].lr == -7.0
    assert of_options("adam_defaults", ctypes.c_void_p, ctypes.c_size_t)(None, size) == BAD_OPTIONS


WRONG = {
    ("adam", "lr", -1.0): "lr: expected a number >= 0 and finite, got -1.0",
    ("adam", "beta1", 1.0): "beta1: expected a number >= 0 and < 1, got 1.0",
    ("adam", "beta2", np.nan): "beta2: expected a number >= 0 and < 1, got nan",
    ("adamax", "weight_decay", np.inf): "weight_decay: expected a number >= 0 and finite, got inf",
    ("adadelta", "beta2", 0.5): "beta2: expected 0.9, as beta1, got 0.5",
    ("ademamix", "beta3", 2.0): "beta3: expected a number >= 0 and < 1, got 2.0",
    ("rprop", "eta_plus", 1.0): "eta_plus: expected a number > 1 and finite, got 1.0",
    ("rprop", "shortest", 99.0): "shortest, longest: expected the smaller number first, got (99.0, 50.0)",
    ("sgd_nesterov", "dampening", 0.5): "nesterov: needs a momentum above 0",
    ("schedule_free", "decay", -0.5): "decay: expected a number >= 0 and finite, got -0.5",
    ("schedule_free", "warmup_steps", 0.5): "warmup_steps: expected a whole number",
    ("average", "decay", 1.5): "decay: expected a number >= 0 and <= 1, got 1.5",
    ("rprop", "weight_decay", np.nan): "weight_decay: expected a number >= 0 and finite, got nan",  # of C alone
    ("schedule_free", "weight_decay", -1.0): "weight_decay: expected a number >= 0 and finite, got -1.0",
}


@pytest.mark.parametrize(("rule", "member", "value"), WRONG)
def test_options_are_checked_as_in_python(rule, member, value):
    _, options = filled(rule)
    setattr(options, member, value)
    code, reason = reason_of(rule, options)
    expected = WRONG[rule, member, value]
    assert (code, reason[: len(expected)]) == (BAD_OPTIONS, expected)
    assert reason_of(rule, options, 5) == (BAD_OPTIONS, expected[:4])
    assert reason_of(rule, options, 0) == (BAD_OPTIONS, "untouched")


def test_options_of_no_size_are_refused():
    _, options = filled("adam")
    options.size = 8
    for given in (options, None):
        code, reason = reason_of("adam", given)
        assert (code, reason[:23]) == (BAD_OPTIONS, "options: expected a siz")


def test_header_and_pxd_have_every_rule():
    header = (Path(fastadam.get_include()) / "fastadam.h").read_text()
    pxd = Path(fastadam.__file__).with_name("capi.pxd").read_text()
    declared = re.findall(r"X\((\w+)_##suffix, \(FASTADAM_ARGS\(real\)(.*?)\)\)", header)
    assert {name: tuple(re.findall(r"\*(\w+)", states)) for name, states in declared} == {
        name: rule.states for name, rule in RULES.items()
    }
    cimported = re.findall(r"cdef int fastadam_(\w+)_(f32|f64)\((.*?)\)", pxd, re.S)
    assert {(name, suffix): tuple(re.findall(r"\* (\w+)", taken)) for name, suffix, taken in cimported} == {
        (name, suffix): ("options", "p", "g", *rule.states) for name, rule in RULES.items() for suffix in ("f32", "f64")
    }
    assert re.findall(r"^    double (\w+);", header, re.M) == MEMBERS
    assert re.findall(r"^        double (\w+)$", pxd, re.M) == MEMBERS
    flags = {"decoupled", "maximize", "eps_hat", "eps_in_sqrt", "accumulate_lr", "use_clipping", "equal"}
    assert {*re.findall(r"^    double (\w+); /\* a flag", header, re.M)} == flags


# ---------------------------------------------------------------- Numba


@njit(nogil=True)
def gradient(x, y, w, g):
    """The gradient of the mean logistic loss of w, into g."""
    g[:] = 0.0
    for i in range(x.shape[0]):
        z = 0.0
        for j in range(x.shape[1]):
            z += x[i, j] * w[j]
        residual = 1.0 / (1.0 + np.exp(-z)) - y[i]
        for j in range(x.shape[1]):
            g[j] += residual * x[i, j] / x.shape[0]


@njit(nogil=True)
def train(x, y, w, epochs, lr):
    g, m, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t in range(1, epochs + 1):
        gradient(x, y, w, g)
        fastadam.numba.adam_step(w, g, m, v, t, lr, 0.9, 0.999, 1e-8, 1.0, False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logistic_regression_without_the_interpreter(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 19)).astype(dtype)
    y = (x @ np.arange(19) + rng.standard_normal(200) > 0).astype(dtype)
    w, theirs = np.zeros(19, dtype), np.zeros(19, dtype)
    train(x, y, w, 100, 0.05)
    assert [signature.args for signature in train.nopython_signatures] == train.signatures

    opt, g = fastadam.Adam(theirs, lr=0.05), np.zeros_like(theirs)
    for _ in range(100):
        gradient(x, y, theirs, g)
        opt.step(g)
    np.testing.assert_array_equal(w, theirs)
    assert np.mean((x @ w > 0) == y) > 0.9


def taken_by_step(opt) -> tuple[list[float], dict[str, float]]:
    """What `<rule>_step` takes after t: the arguments of the scalars, and what all rules share."""
    values = members_of(opt)
    shared = ("weight_decay", "decoupled", "maximize", "low", "high")
    own = [values[name] for name in arguments(rule_of(opt).scalars)[1:] if name not in shared]
    return own, {name: values[name] for name in shared}


#: dtype, and whether what all rules share is given: Numba compiles each anew, for a second
CALLS = list(itertools.product(DTYPES, (False, True)))


@pytest.mark.parametrize(
    ("case", "dtype", "is_given"),
    some(
        [
            (case, *call)
            for k, case in enumerate(sorted(BY_RULE))
            for call in (CALLS if k == 0 else CALLS[k % 4 : k % 4 + 1])
        ]
    ),
)
def test_numba_sweep_is_the_class(case, dtype, is_given):
    opt, p, grads, states = problem(case, 1025, 9, dtype)
    step = getattr(fastadam.numba, f"{rule_of(opt).name}_step")
    own, prepared = taken_by_step(opt)
    for t, g in enumerate(grads, 1):
        opt.step(g)
        step(p, g, *states, t, *own, **(prepared if is_given else {}))
    for ours, theirs in zip([p, *states], arrays_of(opt), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("case", some(sorted(VARIANTS.keys() - {"schedule", "adam-article"})))
def test_numba_sweep_takes_every_option(case):
    opt, p, grads, states = problem(case, 33, 9, "float32")
    step = getattr(fastadam.numba, f"{rule_of(opt).name}_step")
    own, prepared = taken_by_step(opt)
    for t, g in enumerate(grads, 1):
        opt.step(g)
        step(p, g, *states, t, *own, **prepared)
    for ours, theirs in zip([p, *states], arrays_of(opt), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@njit(nogil=True)
def own_loop(p, grads, m, v, v_max):
    for k in range(grads.shape[0]):
        a, b, c, d, e, f = fastadam.numba.amsgrad_scalars(k + 1.0, 1e-3, 0.9, 0.999, 1e-8, 1.0, False)
        for i in range(p.size):
            p[i], m[i], v[i], v_max[i] = fastadam.numba.amsgrad(
                p[i], grads[k, i], m[i], v[i], v_max[i], a, b, c, d, e, f
            )  # fmt: skip


def test_numba_scalar_rule_in_a_loop_of_ones_own():
    opt, p, grads, states = problem("amsgrad", 33, 9, "float64")
    own_loop(p, grads, *states)
    for g in grads:
        opt.step(g)
    for ours, theirs in zip([p, *states], arrays_of(opt), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", sorted(RULES))
def test_numba_has_every_rule(name):
    for function in (name, f"{name}_scalars", f"{name}_step"):
        assert callable(getattr(fastadam.numba, function))


#: a user's module: of each rule a cached function with its step, or with its scalars and its update of one element
CACHED = """
import json

import numpy as np
from numba import njit
"""
CACHED_RULE = """
from fastadam.numba import {name}, {name}_scalars, {name}_step

@njit(cache=True)
def fit_{name}({arrays}):
    {name}_step({arrays}, 1, {own})
    ({scalars},) = {name}_scalars(2.0, {own})
    for i in range(p.size):
        ({results},) = {name}({elements}, {scalars})

arrays = np.array([np.linspace(-1, 1, 5), np.linspace(1, 2, 5), {first}])
fit_{name}(*arrays)
print(json.dumps([sum(fit_{name}.stats.cache_hits.values()), arrays.tolist()]))
"""


def test_numba_keeps_what_calls_the_rules(tmp_path):
    """Compiled by one process, taken from the cache by the next, with the class's values in both. All rules' functions
    are made alike: here are one without a state, one with most, one with flags, and one that chooses by `where`.
    """
    parts, expected = [CACHED], []
    names = ["sgd", "rmsprop_centered_momentum", "ademamix", "rprop"]
    for name in names:
        opt = make(name, np.linspace(-1, 1, 5), lr=0.1)
        arrays = ["p", "g", *rule_of(opt).states]
        elements = [f"{array}[i]" for array in arrays]
        lists = {
            "arrays": arrays,
            "elements": elements,
            "results": [elements[0], *elements[2:]],
            "own": map(repr, taken_by_step(opt)[0]),
            "scalars": arguments(rule_of(opt).update)[len(arrays) :],
            "first": [str(opt.state[state][0].tolist()) for state in arrays[2:]],
        }
        joined = {what: ", ".join(words) for what, words in lists.items()}
        parts.append(CACHED_RULE.format(name=name, **joined))
        for _ in range(2):
            opt.step(np.linspace(1, 2, 5))
        expected.append([array.tolist() for array in arrays_of(opt)])
    (tmp_path / "fitting.py").write_text("".join(parts))
    for hits in (0, 1):
        came = [json.loads(line) for line in python("-W", "error", "fitting.py", cwd=tmp_path).splitlines()]
        assert [found for found, _ in came] == [hits] * len(names)
        assert [[arrays[0], *arrays[2:]] for _, arrays in came] == expected


def test_numba_code_goes_to_another_process(tmp_path):
    """By value, as Numba pickles it: there nothing else imports this module."""
    (tmp_path / "fit").write_bytes(pickle.dumps(train))
    code = """
import pickle, sys
import numpy as np
train = pickle.load(open("fit", "rb"))
x, w = np.ones((3, 2)), np.zeros(2)
train(x, np.ones(3), w, 5, 0.05)
print(w.tobytes().hex())
"""
    x, w = np.ones((3, 2)), np.zeros(2)
    train(x, np.ones(3), w, 5, 0.05)
    assert python("-c", code, cwd=tmp_path).strip() == w.tobytes().hex()


def test_documented_signature():
    [printed] = re.findall(r"- `adam_step(\(.*?\))`", DOC.read_text(), re.S)
    assert " ".join(printed.split()) == str(inspect.signature(fastadam.numba.adam_step.py_func))


def test_numba_is_imported_only_when_asked_for(tmp_path):
    code = "import sys, fastadam, fastadam.functional, fastadam.capi; print('numba' in sys.modules)"
    assert python("-c", code, cwd=tmp_path) == "False\n"


# ---------------------------------------------------------------- docs/how-to/embedding.md


def test_documented_clients_are_those_that_are_compiled():
    blocks = re.findall(r"```(?:cpp|python)\n(?:#|//) (\w+_client\.\w+)\n(.*?)```", DOC.read_text(), re.S)
    assert {name for name, _ in blocks} == {"cpp_client.cpp", "ctypes_client.py", "cffi_client.py"}
    for name, block in blocks:
        assert block in (HERE / "clients" / name).read_text()


def test_documented_examples(tmp_path):
    blocks = re.findall(r"```(python|cython|c)\n(.*?)```", DOC.read_text(), re.S)
    names = [re.match(r"(?:#|/\*) (\S+\.(?:pyx?|c))\b", block) for _, block in blocks]
    files = {name[1]: block for name, (_, block) in zip(names, blocks, strict=True) if name}
    assert {Path(name).suffix for name in files} == {".py", ".pyx", ".c"}
    for name, block in files.items():
        (tmp_path / name).write_text(block)
    python("setup.py", "build_ext", "--inplace", cwd=tmp_path, CFLAGS="-O0 -g0")
    scripts = [block for name, (_, block) in zip(names, blocks, strict=True) if not name]
    assert len(scripts) >= 4
    for k, script in enumerate(scripts):
        (tmp_path / f"example{k}.py").write_text(script)  # Numba wants a file
        promised = re.findall(r"print\(.*\)  +# (.*)", script)
        assert promised
        assert python(f"example{k}.py", cwd=tmp_path).splitlines() == promised
