"""Optimizers with 8-bit states: every rule, groups with different options, reading and assigning states, and training
that continues as in 32 bits. test_blocks.py has the format.
"""

import copy

import inside
import numpy as np
import pytest
from cases import BY_RULE, arrays_of, bits, gradients, make
from lowbits import check_step, decoded, encoded
from ml_dtypes import bfloat16

import fastadam

INT8 = {"state_dtype": "int8", "min_8bit_size": 0}


def kinds(opt, place: int = 0) -> list[str]:
    """How the states of a parameter are stored: the dtypes by name, of bytes what their codes are for."""

    def kind(state):
        return state.dtype.name if state.dtype != np.uint8 else "non-negative" if state[1] & 1 else "signed"

    return [kind(state) for state in inside.named_states(opt)[place].values()]


# ---------------------------------------------------------------- every rule


@pytest.mark.parametrize(("dtype", "more"), [("float32", {}), (bfloat16, {"master_weights": True}), ("float16", {})])
def test_what_is_stored_is_what_float32_makes(dtype, more):
    for case in BY_RULE:
        rng = np.random.default_rng(0)
        p = rng.standard_normal(700).astype(dtype)
        opt = make(case, p, seed=11, **INT8, **more)
        with np.errstate(over="ignore"):
            grads = [g.astype(dtype) for g in gradients(rng, p.size, 6, "float32")]
        for g in grads:
            check_step(case, opt, p, g, seed=11)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", BY_RULE)
def test_what_is_not_finite_stays_in_its_element(case, special):
    """The other elements of its block have the bits of a life without it; its own is what it is in float32."""
    rng = np.random.default_rng(1)
    start = rng.standard_normal(600).astype(np.float32)
    start[300] = 1e-3
    grads = rng.standard_normal((4, 600)).astype(np.float32)
    grads[:, 300] *= 1e-3  # the largest of the block is another
    lives = []
    for options, has in ((INT8, True), (INT8, False), ({}, True)):
        p, life = start.copy(), []
        opt = make(case, p, **options)
        for t, g in enumerate(grads):
            opt.step(np.where(np.arange(600) == 300, special, g).astype(np.float32) if has and t == 0 else g)
            life += [p.copy(), *(np.array(state[0]) for state in opt.state.values())]
        lives.append(life)
    for hit, calm, wide in zip(*lives, strict=True):
        np.testing.assert_array_equal(np.delete(hit, 300), np.delete(calm, 300))
        for kind in (np.isnan, np.isposinf, np.isneginf):
            assert kind(hit[300]) == kind(wide[300])


@pytest.mark.parametrize("case", BY_RULE)
def test_which_codes_have_a_sign(case):
    """Where a state may be below zero it is; where it may not, the codes have no sign, and nothing else is lost.
    Weights, and what is subtracted from one another, stay float32."""
    opt, wide = (make(case, np.linspace(-1, 1, 300, dtype=np.float32), **options) for options in (INT8, {}))
    rng = np.random.default_rng(0)
    seen = dict.fromkeys(wide.state, 0.0)
    for _ in range(20):
        g = rng.standard_normal(300).astype(np.float32)
        wide.step(g)
        opt.step(g)
        seen = {name: min(least, wide.state[name][0].min()) for name, least in seen.items()}
    for (name, least), kind in zip(seen.items(), kinds(opt), strict=True):
        full = {"z", "x", "ax"} | ({"v", "m"} if "centered" in case else set())
        assert kind == ("float32" if name in full else "signed" if least < 0 else "non-negative"), name


# ---------------------------------------------------------------- arrays, groups and sizes


def test_groups_that_differ():
    """Each parameter's states are as its group says; each group's bits are those of an optimizer of its own."""
    rng = np.random.default_rng(0)
    sizes = (5000, 33, 5000, 300, 9001)
    starts = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    said = [{"state_dtype": "int8"}, {"state_dtype": "int8"}, {"state_dtype": "bfloat16"}, {}, {"frozen": True}]
    params = [p.copy() for p in starts]
    opt = fastadam.Adam([{"params": p, **own} for p, own in zip(params, said, strict=True)], state_dtype="int8", seed=3)
    assert [kinds(opt, k) for k in range(5)] == [
        ["signed", "non-negative"],
        ["float32"] * 2,
        ["bfloat16"] * 2,
        ["float32"] * 2,
        ["signed", "non-negative"],
    ]
    frozen = [state.copy() for state in inside.named_states(opt)[4].values()]
    alone = starts[0].copy()
    one = fastadam.Adam(alone, state_dtype="int8", seed=3)
    for t in range(4):
        grads = [rng.standard_normal(n).astype(np.float32) for n in sizes]
        opt.step([None if k == t else g for k, g in enumerate(grads)])
        if t:
            one.step(grads[0])
    assert bits(params[0]) == bits(alone)  # though its first step was the optimizer's second: noise is that of t
    assert bits(params[4]) == bits(starts[4])
    for state, before in zip(inside.named_states(opt)[4].values(), frozen, strict=True):
        assert bits(state) == bits(before)


def test_small_arrays_keep_float32():
    params = [np.ones(n, np.float32) for n in (4095, 4096)]
    assert [kinds(fastadam.Lion(params, state_dtype="int8"), k) for k in (0, 1)] == [["float32"], ["signed"]]
    params = [np.ones(shape, np.complex64) for shape in ((3, 3), (2, 5), ())]
    opt = fastadam.Lion(params, state_dtype="int8", min_8bit_size=10)
    assert [kinds(opt, k) for k in range(3)] == [["complex64"], ["signed"], ["complex64"]]
    assert inside.named_states(opt)[1]["m"].size == 2 + 20
    own = [{"params": params[0], "min_8bit_size": 9}, {"params": params[2], "min_8bit_size": 0}]
    opt = fastadam.Lion(own, state_dtype="int8")
    assert [kinds(opt, k) for k in (0, 1)] == [["signed"]] * 2


def test_complex_numbers_are_two_real_ones():
    rng = np.random.default_rng(0)
    start, *grads = rng.standard_normal((4, 700)).astype(np.float32).view(np.complex64)
    whole, parts = start.copy(), start.copy().view(np.float32)
    opts = [fastadam.Adam(p, **INT8) for p in (whole, parts)]
    for g in grads:
        opts[0].step(g)
        opts[1].step(g.view(np.float32))
    assert bits(whole) == bits(parts.view(np.complex64))
    m = opts[0].state["m"][0]
    assert (m.dtype, m.shape, m.flags.writeable) == (np.complex64, (350,), False)
    np.testing.assert_array_equal(m.view(np.float32), opts[1].state["m"][0])


def test_odd_arrays_beside_one_another():
    """Blocks begin with arrays, so there are gaps between these in the plan: no array feels them."""
    rng = np.random.default_rng(0)
    sizes = (1, 255, 0, 257, 8191, 3, 8193, 30_011, 2)
    starts = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    grads = [[rng.standard_normal(n).astype(np.float32) for n in sizes] for _ in range(3)]
    made = []
    for how in ({"n_threads": 1}, {"n_threads": 2}, {"n_threads": 7}, {"backend": "numpy"}):
        params = [p.copy() for p in starts]
        groups = [{"params": params[:4]}, {"params": params[4:6], "state_dtype": None}, {"params": params[6:]}]
        opt = fastadam.Adam(groups, **INT8, **how)
        norms = []
        for t, g in enumerate(grads):
            given = [None if k == 2 * t else x for k, x in enumerate(g)]
            opt.step(given, max_norm=10.0)
            whole = np.concatenate([x for x in given if x is not None]).astype(float)
            assert opt.grad_norm == pytest.approx(np.linalg.norm(whole), rel=1e-12)
            norms.append(opt.grad_norm)
        made.append((norms, [bits(array) for array in arrays_of(opt)]))
    assert made[1:] == made[:1] * 3


def test_own_rules_have_signed_codes():
    """Where it is not said which states are never below zero."""

    def own(p, g, m, v, lr, beta):
        return p - lr * m, beta * m + g, beta * v + g * g

    def made_of(**more):
        return fastadam.optimizer(own, lambda t, lr, beta: (lr, beta), ["m", "v"], lr=0.1, beta=0.5, **more)

    for more, expected in (({}, "signed"), ({"non_negative": ["v"]}, "non-negative")):
        opt = made_of(**more)(np.ones(300, np.float32), backend="numpy", **INT8)
        for _ in range(3):
            opt.step(np.linspace(-1, 1, 300, dtype=np.float32))
        assert kinds(opt) == ["signed", expected]
        assert (opt.state["m"][0] < 0).any()
        np.testing.assert_allclose(opt.state["v"][0], 1.75 * np.linspace(-1, 1, 300) ** 2, rtol=0.4, atol=1e-8)


# ---------------------------------------------------------------- reading and assigning


def test_states_are_read_and_assigned():
    p = np.ones((40, 50), np.float32, order="F")
    opt = fastadam.Adam(p, **INT8)
    opt.step(np.full_like(p, 0.3))
    v, codes = opt.state["v"][0], inside.named_states(opt)[0]["v"].copy()
    assert (v.dtype, v.shape, v.flags.writeable) == (np.float32, p.shape, False)
    with pytest.raises(ValueError, match="read-only"):
        v[0] = 1
    rng = np.random.default_rng(0)
    for name, values in {"m": rng.standard_normal(p.shape), "v": rng.random(p.shape)}.items():
        opt.state[name][0] = values
        in_memory = values.astype(np.float32).T.ravel()  # in Fortran's order
        np.testing.assert_array_equal(inside.named_states(opt)[0][name], encoded(in_memory, name == "v"))
        got = opt.state[name][0]
        np.testing.assert_array_equal(got.T.ravel(), decoded(inside.named_states(opt)[0][name]))
        np.testing.assert_allclose(got, values, rtol=1 / 8)
        opt.state[name] = [got]  # what codes mean, they stay
        np.testing.assert_array_equal(opt.state[name][0], got)
    np.testing.assert_array_equal(v.T.ravel(), decoded(codes))  # what was read was a copy


def test_an_assignment_below_zero_changes_nothing():
    opt = fastadam.Adam([np.ones(300, np.float32), np.ones(300, np.float32)], **INT8)
    before = [bits(state) for state in inside.state_arrays(opt)]
    bad = np.ones(300)
    bad[299] = -1e-9
    with pytest.raises(ValueError, match=r"state\['v'\]\[1\]: expected no number below zero, whose 8-bit codes"):
        opt.state["v"] = [np.ones(300), bad]
    assert [bits(state) for state in inside.state_arrays(opt)] == before
    opt.state["v"][1] = np.full(300, np.nan)
    assert np.isnan(opt.state["v"][1]).all()


def test_a_gradient_in_the_bytes_of_a_state_is_refused():
    opt = fastadam.Adam([np.ones(64, np.float32), np.ones(1024, np.float32)], **INT8)
    state = inside.named_states(opt)[1]["v"]
    before = state.copy()
    with pytest.raises(ValueError, match=r"gradient of params\[0\]: shares memory with a parameter or a state"):
        opt.step([state[-256:].view(np.float32), None])
    assert bits(state) == bits(before)
    assert opt.t == 0


def test_reset_and_first_values():
    opt = fastadam.Adagrad(np.ones(600, np.float32), initial_accumulator_value=0.3, **INT8)
    first = opt.state["v"][0]
    assert np.unique(first).tolist() == [0.3125]  # the nearest code
    opt.step(np.full(600, 2.0, np.float32))
    assert (opt.state["v"][0] > 3).all()
    opt.reset()
    np.testing.assert_array_equal(opt.state["v"][0], first)


def test_an_array_of_another_memory_order_goes_on():
    """Codes are in the order of memory, so the states are stored anew: what they mean is the same number."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal((40, 30)).astype(np.float32)]
    opt = fastadam.Adam(params, **INT8)
    for g in rng.standard_normal((3, 40, 30)).astype(np.float32):
        opt.step([g])
    before = {name: arrays[0] for name, arrays in opt.state.items()}
    params[0] = np.asfortranarray(params[0])
    opt.step([None])
    for name, expected in before.items():
        np.testing.assert_array_equal(opt.state[name][0], expected)
        in_memory = expected.T.ravel()
        np.testing.assert_array_equal(inside.named_states(opt)[0][name], encoded(in_memory, name == "v"))


def life(backend: str, seed: int) -> list[bytes]:
    """What comes of thirty things in a random order that may happen to an optimizer."""
    rng = np.random.default_rng(seed)
    case = rng.choice(sorted(BY_RULE))
    params = [rng.standard_normal(shape).astype(np.float32) for shape in ((30, 41), (300,), ())]
    opt = make(case, params, backend=backend, seed=seed, state_dtype="int8", min_8bit_size=int(rng.choice([0, 300])))
    saved = opt.state_dict()
    for _ in range(30):
        what = rng.choice(["step"] * 4 + ["turn", "copy", "save", "load", "reset", "assign", "write"])
        k = int(rng.integers(len(params)))
        if what == "step":
            grads = [rng.standard_normal(p.shape).astype(np.float32) for p in params]
            opt.step([None if i == k else g for i, g in enumerate(grads)], max_norm=float(rng.choice([1, 50])))
        elif what == "turn":
            params[0] = np.array(params[0], order=rng.choice(["C", "F"]))
        elif what == "copy":
            opt, params = copy.deepcopy((opt, params))
        elif what == "save":
            saved = opt.state_dict()
        elif what == "load":
            opt.load_state_dict(saved, convert=True)  # it may be of another memory order
        elif what == "reset":
            opt.reset()
        elif what == "write":
            params[k][...] = 0.5
        else:
            for name in opt.state:
                opt.state[name][k] = rng.random(params[k].shape)
    return [np.array(case).tobytes(), *(bits(array) for array in [*params, *arrays_of(opt)])]


def test_random_lives_are_the_same_on_every_backend():
    for seed in range(25):
        assert life("cython", seed) == life("numpy", seed), seed


def test_swapped_averages():
    p = np.linspace(1, 2, 600, dtype=np.float32)
    opt = fastadam.ScheduleFreeAdamW(p, **INT8)
    for _ in range(3):
        opt.step(p.copy())
    before, x, stored = p.copy(), opt.state["x"][0].copy(), [bits(state) for state in inside.state_arrays(opt)]
    with opt.swapped():
        np.testing.assert_array_equal(p, x)
    np.testing.assert_array_equal(p, before)
    assert [bits(state) for state in inside.state_arrays(opt)] == stored


# ---------------------------------------------------------------- training


def losses(options: dict, seed: int) -> float:
    """What is left of a least-squares loss, where gradients are of sizes over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal((400, 256)) * 10.0 ** rng.uniform(-3, 0, 256)).astype(np.float32)
    b = a @ (rng.standard_normal(256) / np.abs(a).max(axis=0)).astype(np.float32)
    b += rng.standard_normal(400).astype(np.float32)
    x = np.zeros(256, np.float32)
    opt = fastadam.Adam(x, lr=fastadam.schedules.cosine(0.1, 600), seed=seed, **options)
    for _ in range(600):
        rows = rng.integers(0, 400, 64)
        opt.step(a[rows].T @ (a[rows] @ x - b[rows]) / 64)
    return float(np.mean((a @ x - b) ** 2))


def test_training_in_eight_bits_converges_as_in_32():
    in_32, in_8 = (np.mean([losses(options, seed) for seed in range(3)]) for options in ({}, INT8))
    assert in_8 < 1.05 * in_32


# ---------------------------------------------------------------- numbers at the edge


def test_the_largest_numbers_stay_finite():
    opt = fastadam.SGD(np.zeros(600, np.float32), momentum=0.9, **INT8)
    opt.state["b"][0] = np.full(600, np.finfo(np.float32).max)
    assert (opt.state["b"][0] == 1.75 * 2.0**127).all()


def test_no_part_of_a_complex_state_is_below_zero():
    opt = fastadam.Adam(np.zeros(600, np.complex64), **INT8)
    for bad in (-1, 1 - 1j):
        with pytest.raises(ValueError, match="below zero"):
            opt.state["v"][0] = np.full(600, bad)


@pytest.mark.parametrize(("first", "wrong"), [(0, 254), (1, 0), (1, 5), (258, 255)])
def test_a_folder_with_damaged_heads(tmp_path, first, wrong):
    fastadam.Adam(np.zeros(600, np.float32), state_dir=tmp_path, **INT8).close()
    inside.folder_arrays(tmp_path, "r+")["0.v"][first] = wrong
    with pytest.raises(ValueError, match=r"state_dir: .*: v of parameter 0: expected blocks of 8-bit codes"):
        fastadam.Adam(np.zeros(600, np.float32), state_dir=tmp_path, **INT8)
