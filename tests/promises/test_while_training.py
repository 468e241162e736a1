"""Changes during training: missing gradients, frozen groups, arrays that grow or are replaced, states that are reset.
Each is compared, bit for bit, with a run that was never changed.
"""

import copy
import inspect
import pickle
from collections import namedtuple

import inside
import ml_dtypes
import numpy as np
import pytest
from cases import BY_RULE, bits, make

import fastadam
from fastadam import functional

Layer = namedtuple("Layer", "W b")
SHAPES = [(3, 4), (40_000,), ()]


def arrays(dtype="float64"):
    return [np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype) for shape in SHAPES]


def gradients(t, dtype="float64"):
    return [np.cos(t + np.arange(np.prod(shape))).reshape(shape).astype(dtype) for shape in SHAPES]


def everything(opt):
    states = [array for named in opt.state.values() for array in named]
    return [bits(array) for array in (*inside.planned(opt), *states)]


# ---------------------------------------------------------------- None in the place of a gradient


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", BY_RULE)
def test_none_leaves_a_parameter_its_states_and_its_count(case, dtype, backend):
    both, alone, first = (make(case, p, backend=backend) for p in (arrays(dtype), arrays(dtype)[1:], arrays(dtype)[:1]))
    for t in range(1, 7):
        g = gradients(t, dtype)
        both.step([g[0] if t % 3 == 0 else None, *g[1:]], grad_scale=2.0)
        alone.step(g[1:], grad_scale=2.0)
        if t % 3 == 0:
            first.step(g[:1], grad_scale=2.0)
    assert (both.t, first.t) == (6, 2)
    assert list(inside.plan(both).steps) == [2, 6, 6]
    for k, (opt, place) in enumerate([(first, 0), (alone, 0), (alone, 1)]):
        assert bits(inside.planned(both)[k]) == bits(inside.planned(opt)[place])
        for name in both.state:
            assert bits(both.state[name][k]) == bits(opt.state[name][place])


GIVEN = {
    "list": (lambda a, b: [a, b], lambda g: [g, None]),
    "mapping": (lambda a, b: {"a": a, "b": b}, lambda g: {"b": None, "a": g}),
    "nested": (lambda a, b: {"x": [a], "y": (b,)}, lambda g: {"x": [g], "y": (None,)}),
    "a whole part": (lambda a, b: {"x": a, "y": {"z": [b]}}, lambda g: {"x": g, "y": None}),
    "named tuple": (Layer, lambda g: Layer(g, None)),
    "pairs": (lambda a, b: [("a", a), ("b", b)], lambda g: {"a": g, "b": None}),
    "groups": (lambda a, b: [{"params": [a]}, {"params": b}], lambda g: [[g], None]),
    "groups in a row": (lambda a, b: [{"params": [a]}, {"params": {"W": b}}], lambda g: [g, None]),
    "groups as dicts": (lambda a, b: [{"params": [a]}, {"params": [b]}], lambda g: [{"grads": [g]}, {"grads": None}]),
}


@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("kind", GIVEN)
def test_none_in_every_structure(kind, is_bound):
    structure, given = GIVEN[kind]
    a, b, g = np.ones(3), np.ones(2), np.full(3, 2.0)
    opt = fastadam.Adam(structure(a, b), lr=0.1, grads=given(g) if is_bound else None)
    opt.step(*([] if is_bound else [given(g)]), max_norm=1.0, skip_nonfinite=True, zero_grads=True)
    assert np.allclose(a, 0.9)
    assert np.array_equal(b, np.ones(2))
    assert opt.grad_norm == np.sqrt(12.0)
    assert not g.any()
    opt.grads is None or opt.zero_grad()


def test_none_in_an_objects_gradient():
    class Model:
        parameters, grad = [np.ones(2), np.ones(2)], [None, np.ones(2)]

    fastadam.Adam(Model, lr=0.1).step()
    assert np.array_equal(Model.parameters[0], np.ones(2))
    assert np.allclose(Model.parameters[1], 0.9)


def test_none_in_lists_of_functional():
    p, m, v = ([np.ones(2), np.ones(2)], [np.zeros(2), np.zeros(2)], [np.zeros(2), np.zeros(2)])
    functional.adam(p, [np.ones(2), None], m, v, 3, lr=0.1)
    alone = np.ones(2), np.ones(2), np.zeros(2), np.zeros(2)
    functional.adam(*alone, 3, lr=0.1)
    assert np.array_equal(p[0], alone[0])
    assert np.array_equal(m[0], alone[2])
    assert np.array_equal(p[1], np.ones(2))
    assert not m[1].any()
    assert not v[1].any()


def test_a_gradient_that_is_not_finite_beside_none():
    a, b = np.ones(2), np.ones(2)
    opt = fastadam.Adam([a, b])
    opt.step([np.full(2, np.nan), None], skip_nonfinite=True)
    assert (opt.t, opt.skipped) == (0, 1)
    opt.step([None, None], max_norm=1.0)
    assert opt.t == 1
    assert opt.grad_norm == 0
    assert np.array_equal([a, b], np.ones((2, 2)))


def test_a_missing_name_says_to_pass_none():
    with pytest.raises(
        ValueError, match=r"missing: \['b'\], unknown: \[\]; pass None for a parameter that has no grad"
    ):
        fastadam.Adam({"a": np.ones(2), "b": np.ones(2)}).step({"a": np.ones(2)})


def test_zeros_are_not_left_in_memory_that_another_gradient_reads():
    """Which gradients lie apart is known from the last step: one that was None then is looked at again."""
    a, b, g = np.ones(2), np.ones(2), np.ones(3)
    opt = fastadam.Adam([a, b])
    opt.step([g[:2], g[1:]])
    opt.step([g[:2], None], zero_grads=True)
    with pytest.raises(ValueError, match="share memory"):
        opt.step([g[:2], g[1:]], zero_grads=True)


def test_random_rounding_goes_by_the_steps_of_each_parameter():
    def run(pattern):
        p = [np.ones(5000, np.float32), np.ones(7, np.float32)]
        opt = fastadam.Adam(p, state_dtype="bfloat16", seed=3)
        for t, is_out in enumerate(pattern):
            g = np.cos(np.arange(5000, dtype=np.float32) + sum(not out for out in pattern[:t]))
            opt.step([None if is_out else g, np.ones(7, np.float32)])
        return [bits(p[0]), opt.state["m"][0].tobytes()]

    assert run([0, 1, 1, 0, 1, 0]) == run([0, 0, 0])


# ---------------------------------------------------------------- frozen groups


def two_groups(**second):
    return [{"params": [np.ones(3)]}, {"params": {"W": np.ones(2)}, **second}]


def test_a_frozen_group_is_left_out_and_its_gradients_are_not_read():
    groups = two_groups(frozen=True)
    opt = fastadam.Adam(groups, lr=0.1)
    for odd in (None, {"W": np.ones(77)}, {"W": np.full(2, np.nan)}, "nothing", [1, 2, 3], {"V": None}):
        opt.step([[np.ones(3)], odd], max_norm=10.0, skip_nonfinite=True)
    assert opt.t == 6
    assert opt.grad_norm == np.sqrt(3)
    assert np.array_equal(groups[1]["params"]["W"], np.ones(2))
    assert not opt.state["m"][1].any()


def test_freezing_and_thawing_leave_the_bits_of_a_run_without_the_frozen_steps():
    frozen, plain = two_groups(), two_groups()
    opt, other = fastadam.Adam(frozen, lr=0.1), fastadam.Adam(plain, lr=0.1)
    for t in range(12):
        g = [[np.cos(t + np.arange(3.0))], {"W": np.sin(t + np.arange(2.0))}]
        opt.param_groups[1]["frozen"] = 3 <= t < 7
        opt.step(g)
        if not 3 <= t < 7:
            other.step(g)
    assert np.array_equal(frozen[1]["params"]["W"], plain[1]["params"]["W"])
    assert bits(opt.state["v"][1]) == bits(other.state["v"][1])


def test_what_belongs_to_groups_is_no_argument():
    with pytest.raises(TypeError, match="frozen: no argument of Adam; write it into a group"):
        fastadam.Adam(np.ones(3), frozen=True)


def test_a_frozen_parameter_may_be_read_only():
    p = np.ones(3)
    opt = fastadam.Adam(p)
    opt.frozen = True
    p.flags.writeable = False
    opt.step(np.ones(3))
    opt.frozen = False
    with pytest.raises(ValueError, match="read-only"):
        opt.step(np.ones(3))


def test_bound_gradients_of_a_frozen_group_are_not_read():
    for odd in (None, "nothing"):
        opt = fastadam.Adam(two_groups(frozen=True), grads=[[np.ones(3)], odd], lr=0.1)
        opt.step()
        copy.deepcopy(opt).step()
        opt.zero_grad()
        assert not opt.grads[0][0].any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_counts_and_groups_survive_copies_and_checkpoints(copied):
    opt = fastadam.Adam(two_groups(frozen=True, name="head", extra={"scale": [1, 2]}), lr=0.1)
    opt.step([[np.ones(3)], None])
    other = copied(opt)
    assert other.param_groups[1]["name"] == "head"
    assert other.param_groups[1]["extra"] == {"scale": [1, 2]}
    fresh = fastadam.Adam(two_groups(name="head"))
    fresh.load_state_dict(opt.state_dict())
    for again in (other, fresh):
        assert again.param_groups[1]["frozen"] is True
        again.frozen = False
        again.step([[np.ones(3)], [("W", np.ones(2))]])
        assert list(inside.plan(again).steps) == [2, 1]
        assert np.allclose(inside.planned(again)[1], 0.9)


# ---------------------------------------------------------------- groups: names, data, none


def test_a_frozen_group_is_added_with_gradients_that_are_not_read():
    a, g = np.ones(2), [np.ones(2)]
    opt = fastadam.Adam([{"params": a}], grads=g)
    opt.add_param_group({"params": {"b": np.ones(2)}, "frozen": True, "grads": "unread"})
    opt.step()
    assert a.tolist() != [1, 1]
    with pytest.raises(TypeError, match="expected real numbers"):
        opt.add_param_group({"params": {"c": np.ones(2)}, "grads": "unread"})
    opt.param_groups[1]["frozen"] = False
    with pytest.raises(TypeError, match="expected real numbers"):
        opt.step()


def test_a_group_may_be_given_its_own_name_again():
    opt = fastadam.Adam([{"params": np.ones(2), "name": "a"}, {"params": np.ones(2), "name": "b"}])
    for k, name in enumerate("ab"):
        opt.param_groups[k]["name"] = name
    for k, name in enumerate("ba"):
        with pytest.raises(ValueError, match="another group is called"):
            opt.param_groups[k]["name"] = name
    opt.param_groups[0].update(name=None)
    opt.param_groups[1]["name"] = "a"
    assert [group["name"] for group in opt.param_groups] == [None, "a"]


def test_groups_are_equal_if_their_arrays_are_the_same():
    p = np.ones(2)
    opt, same, other, more = (fastadam.Adam([{"params": own}]) for own in ([p], [p], [p.copy()], [p, np.ones(1)]))
    assert opt.param_groups == same.param_groups
    assert opt.param_groups != other.param_groups
    assert opt.param_groups != more.param_groups
    same.lr = 0.5
    assert opt.param_groups != same.param_groups


def test_groups_are_called_by_their_names():
    opt = fastadam.Adam([{"params": np.ones(2), "name": "body"}, {"params": {"W": np.ones(2)}}])
    assert inside.keys(opt) == ["body.0", "1.W"]
    opt.param_groups[1]["name"] = "head"
    assert list(opt.state_dict()["state"]) == ["body.0", "head.W"]
    with pytest.raises(ValueError, match=r"gradient of group 'head'\['W'\]: expected shape"):
        opt.step([np.ones(2), {"W": np.ones(3)}])
    with pytest.raises(ValueError, match=r"group 'head'\['lr'\]: expected a number"):
        opt.param_groups[1]["lr"] = -1
    with pytest.raises(ValueError, match="another group is called 'body'"):
        opt.param_groups[1]["name"] = "body"
    with pytest.raises(AttributeError, match="each group has its own"):
        opt.name = "all"


def test_a_group_may_be_empty():
    p = np.ones(2)
    opt = fastadam.Adam([{"params": []}, {"params": p}], lr=0.1)
    opt.step([[], np.ones(2)])
    opt.step([None, np.ones(2)])
    opt.step([np.ones(2)])
    opt.add_param_group({"params": {}})
    opt.load_state_dict(opt.state_dict())
    opt.step([[], np.ones(2), {}])
    assert opt.t == 4
    assert np.allclose(p, 0.6)
    assert fastadam.Adam([{"params": []}]).step([[]]) is None


# ---------------------------------------------------------------- other arrays


PLACED = {
    "dict": (lambda a: {"E": a, "b": np.zeros(2)}, "E", lambda s: s["E"]),
    "list": (lambda a: [np.zeros(2), a], "1", lambda s: s[1]),
    "nested": (lambda a: {"layers": [{"W": a}]}, "layers.0.W", lambda s: s["layers"][0]["W"]),
    "tuple in a list": (lambda a: [(a, np.zeros(2))], "0.0", lambda s: s[0][0]),
    "named tuple": (lambda a: {"x": Layer(a, np.zeros(2))}, "x.W", lambda s: s["x"].W),
    "pairs": (lambda a: [("W", a), ("b", np.zeros(2))], "W", lambda s: s[0][1]),
    "group": (lambda a: [{"params": [np.zeros(2), a]}], "1", lambda s: s[0]["params"][1]),
    "tuple of a group": (lambda a: [{"params": (a,)}, {"params": [np.zeros(2)]}], "0.0", lambda s: s[0]["params"][0]),
    "array of a group": (lambda a: [{"params": a, "name": "out"}, {"params": []}], "out.0", lambda s: s[0]["params"]),
}


def ones_like(opt):
    return opt.core.tree.unflatten(np.ones_like(p) for p in inside.planned(opt))


@pytest.mark.parametrize("kind", PLACED)
def test_an_array_is_replaced_in_every_structure(kind):
    build, key, at = PLACED[kind]
    given = build(np.zeros((2, 3)))
    opt = fastadam.Adam(given, lr=0.1)
    opt.step(ones_like(opt))
    new = np.full((4, 3), 5.0)
    opt.replace(key, new, rows=[1, -1, 0, 1])
    assert at(given) is new
    place = inside.keys(opt).index(key)
    assert np.allclose(opt.state["m"][place][:, 0], [0.1, 0, 0.1, 0.1])
    opt.step(ones_like(opt))
    assert at(given) is new
    assert np.allclose(new[0], 4.9)
    assert list(inside.plan(opt).steps)[place] == 2
    assert next(group["params"] for group in opt.param_groups) is not None
    if isinstance(given, type(opt.params)):
        assert at(opt.params) is new


def test_rows_go_on_as_if_nothing_had_happened():
    """A table that grows, is pruned and is put in another order takes the bits of one that was whole all along."""
    rng = np.random.default_rng(0)
    whole = {"E": rng.normal(size=(6, 4)).astype("f4")}
    table = {"E": whole["E"][:4].copy()}
    opt, other = fastadam.Adam(table, lr=0.1), fastadam.Adam(whole, lr=0.1)
    for t in range(9):
        g = rng.normal(size=(6, 4)).astype("f4")
        other.step({"E": g})
        if t < 3:
            opt.step({"E": g[:4]})
        elif t < 6:
            if t == 3:
                opt.replace("E", table["E"][[3, 1]], rows=np.array([3, 1]))
            opt.step({"E": g[[3, 1]]})
        else:
            if t == 6:
                opt.replace("E", np.asfortranarray(np.vstack([table["E"], whole["E"][4:]])), rows=[0, 1, -1, -1])
            opt.step({"E": g[[3, 1, 4, 5]]})
    assert np.array_equal(table["E"][:2], whole["E"][[3, 1]])
    assert np.array_equal(opt.state["v"][0][:2], other.state["v"][0][[3, 1]])
    assert not np.array_equal(table["E"][2:], whole["E"][4:])


def test_rows_of_8_bit_states_go_on_where_others_come_and_go():
    """They become float32 where few rows are left, and bytes again where there are many."""
    rng = np.random.default_rng(0)
    params = {"E": rng.normal(size=(300, 20)).astype("f4")}
    opt = fastadam.Adam(params, state_dtype="int8")
    opt.step({"E": params["E"] * 2})
    before = {name: opt.state[name][0].copy() for name in "mv"}
    rows = rng.permutation(300)[:100]
    opt.replace("E", np.asfortranarray(params["E"][rows]), rows=rows)
    assert [state.dtype for state in inside.state_arrays(opt)] == [np.float32] * 2
    for name, own in before.items():
        assert np.array_equal(opt.state[name][0], own[rows])
    opt.replace("E", np.ones((400, 20), "f4"), rows=[*range(100), *[-1] * 300])
    assert [state.dtype for state in inside.state_arrays(opt)] == [np.uint8] * 2
    for name, own in before.items():
        assert np.allclose(opt.state[name][0][:100], own[rows], rtol=1 / 8, atol=2.0**-27 * abs(own).max())
        assert not opt.state[name][0][100:].any()
    opt.add_param_group({"params": {"more": np.ones(5000, "f4")}})
    opt.reset(["0.E"])
    assert [state.dtype for state in inside.state_arrays(opt)] == [np.uint8] * 4
    assert not any(opt.state[name][0].any() for name in "mv")


def test_an_exchanged_array_keeps_its_states_and_a_new_one_begins():
    p, q = np.ones(3), np.full(3, 7.0)
    opt, other = fastadam.Adam(p, lr=0.1), fastadam.Adam([q.copy()], lr=0.1)
    opt.step(np.ones(3))
    other.core.plan.params[0][...] = 1.0
    other.step([np.ones(3)])
    other.core.plan.params[0][...] = 7.0
    opt.replace("0", q)
    assert opt.params is q
    opt.step(np.full(3, 2.0))
    other.step([np.full(3, 2.0)])
    assert np.array_equal(q, inside.planned(other)[0])
    new = np.ones((2, 2), np.float32)
    opt.replace("0", new, rows=-1)
    opt.step(np.ones((2, 2), np.float32))
    assert list(inside.plan(opt).steps) == [1]
    assert np.allclose(new, 0.9)


def test_what_was_put_there_by_hand_is_replaced_too():
    params = {"E": np.zeros((2, 3))}
    opt = fastadam.Adam(params, lr=0.1)
    opt.step({"E": np.ones((2, 3))})
    params["E"] = np.vstack([params["E"], np.zeros((1, 3))])
    with pytest.raises(ValueError, match="expected shape"):
        opt.step({"E": np.ones((3, 3))})
    opt.replace("E", params["E"], rows=[0, 1, -1])
    opt.step({"E": np.ones((3, 3))})
    assert np.allclose(params["E"][0], -0.2)


def test_a_master_weight_follows_its_rows():
    p = np.ones((2, 3), np.float16)
    opt = fastadam.Adam({"E": p}, lr=1e-4, master_weights=True)
    for _ in range(3):
        opt.step({"E": np.ones((2, 3), np.float16)})
    old = opt.state["master"][0].copy()
    opt.replace("E", np.vstack([p[1:], np.full((1, 3), 2, np.float16)]), rows=[1, -1])
    assert np.array_equal(opt.state["master"][0], [old[1], [2, 2, 2]])


@pytest.mark.parametrize(
    ("array", "rows", "error", "message"),
    [
        (np.ones((3, 3)), None, ValueError, "rows: params\\['E'\\] had the shape"),
        (np.ones((3, 3)), [0, 1], ValueError, "rows: expected a number for each row"),
        (np.ones((3, 3)), [0, 1, 2], ValueError, r"rows: expected -1 … 1, .* got 2"),
        (np.ones((3, 3)), [0, 1, -2], ValueError, r"rows: expected -1 … 1, .* got -2"),
        (np.ones((1, 3)), [True, False], TypeError, "numpy.flatnonzero"),
        (np.ones((2, 3)), [0.0, 1.0], TypeError, "rows: expected whole numbers"),
        (np.ones((2, 3)), [[0], [0, 1]], TypeError, "rows: expected whole numbers"),
        (np.ones((2, 4)), [0, 1], ValueError, "rows: params\\['E'\\] was float64 of shape \\(…, 3\\)"),
        (np.ones((2, 3), "f4"), None, TypeError, "dtype"),
        (np.ones((2, 3), "f4"), [0, 1], ValueError, "was float64"),
        ([[1.0] * 3] * 2, None, TypeError, "numpy array"),
        (np.broadcast_to(1.0, (2, 3)), None, ValueError, "read-only"),
    ],
)
def test_a_replacement_that_does_not_fit_changes_nothing(array, rows, error, message):
    params = {"E": np.zeros((2, 3)), "b": np.zeros(2)}
    opt = fastadam.Adam(params, lr=0.1)
    opt.step({"E": np.ones((2, 3)), "b": np.ones(2)})
    before, had = everything(opt), dict(params)
    with pytest.raises(error, match=message):
        opt.replace("E", array, rows)
    with pytest.raises(ValueError, match=r"name: no parameter is called 'e'"):
        opt.replace("e", np.ones((2, 3)))
    with pytest.raises(ValueError, match="share memory"):
        opt.replace("b", params["E"][0, :2])
    assert everything(opt) == before
    assert all(params[key] is had[key] for key in had)
    opt.step({"E": np.ones((2, 3)), "b": np.ones(2)})
    assert opt.t == 2


@pytest.mark.parametrize("error", [TypeError, ValueError, AttributeError, KeyError, IndexError, OSError])
def test_a_structure_that_fails_refuses_a_replacement(error):
    class Kept(dict):
        def __setitem__(self, key, value):
            raise error("kept")

    params = Kept(W=np.ones(2))
    opt, expected = fastadam.Adam(params), OSError if error is OSError else TypeError
    for _ in range(2):
        with pytest.raises(expected, match="kept" if error is OSError else "cannot be put into the structure"):
            opt.replace("W", np.zeros(2))
    opt.step({"W": np.ones(2)})
    assert params["W"].tolist() != [1, 1]


def test_a_structure_that_cannot_be_written_refuses_a_replacement():
    class Model:
        grad = None

        @property
        def parameters(self):
            return [self.W]

    model = Model()
    model.W = np.ones(2)
    opt = fastadam.Adam(model)
    with pytest.raises(TypeError, match="does not keep another array"):
        opt.replace("0", np.zeros(2))
    model.grad = [np.ones(2)]
    opt.step()
    assert opt.t == 1


# ---------------------------------------------------------------- states


def test_an_assigned_state_is_checked_and_copied():
    p = [np.ones(3), np.ones((2, 2), np.float32)]
    opt = fastadam.Adam(p)
    opt.step([np.ones(3), np.ones((2, 2))])
    live, zeros = opt.state["m"][0], np.zeros(3)
    opt.state["m"][0] = zeros
    assert opt.state["m"][0] is live
    assert not live.any()
    zeros += 1
    assert not live.any()
    opt.state["v"] = [np.full(3, 2.0), [[1, 2], [3, 4]]]
    assert opt.state["v"][1].tolist() == [[1, 2], [3, 4]]
    assert opt.state["v"][1].dtype == np.float32
    before = everything(opt)
    for wrong, error in (
        (lambda: opt.state["m"].__setitem__(0, np.zeros(4)), ValueError),
        (lambda: opt.state["m"].__setitem__(0, None), TypeError),
        (lambda: opt.state["m"].__setitem__(0, np.zeros(3, complex)), TypeError),
        (lambda: opt.state["m"].__setitem__(5, np.zeros(3)), IndexError),
        (lambda: opt.state.__setitem__("m", [np.zeros(3)]), ValueError),
        (lambda: opt.state.__setitem__("m", [np.zeros(3), np.zeros(3)]), ValueError),
        (lambda: opt.state.__setitem__("k", []), KeyError),
        (lambda: opt.state.clear(), TypeError),
        (lambda: opt.state.pop("m"), TypeError),
        (lambda: opt.state["m"].clear(), AttributeError),
        (lambda: setattr(opt.state, "m", []), AttributeError),
        (lambda: opt.state["m"].__setitem__(1, np.full((2, 2), 1e300)), ValueError),
        (lambda: opt.state["m"].__setitem__("0", np.zeros(3)), TypeError),
        (lambda: setattr(opt, "step", None), AttributeError),
    ):
        with pytest.raises(error):
            wrong()
    assert everything(opt) == before
    assert list(opt.state) == ["m", "v"]


@pytest.mark.parametrize("case", BY_RULE)
def test_reset_begins_anew(case):
    opt, fresh = make(case, arrays()), make(case, arrays())
    for t in range(4):
        opt.step(gradients(t))
    for p, q in zip(inside.planned(fresh), inside.planned(opt), strict=True):
        p[...] = q
    opt.reset()
    assert opt.t == 0
    assert opt.rate is None
    for t in range(3):
        opt.step(gradients(t))
        fresh.step(gradients(t))
    assert everything(opt) == everything(fresh)


def test_reset_of_all_counts_and_of_some():
    opt = fastadam.Adam({"a": np.ones(2), "b": np.ones(2)})
    good, bad = ({"a": np.full(2, value), "b": np.ones(2)} for value in (1.0, np.inf))
    for names, expected in ((["a"], (1, 1, [0, 1])), ([], (2, 2, [1, 2])), (None, (0, 0, [0, 0]))):
        opt.step(good)
        opt.step(bad, skip_nonfinite=True)
        opt.reset(names)
        assert (opt.t, opt.skipped, inside.plan(opt).steps.tolist()) == expected
    with pytest.raises(ValueError, match="no parameter is called 'c'"):
        opt.reset(["a", "c"])


def test_reset_of_some_parameters():
    params = {"layers": [{"W": np.ones(2, np.float16)}, {"W": np.ones(2)}]}
    opt = fastadam.Adam(params, lr=0.1, master_weights=True)
    g = {"layers": [{"W": np.ones(2)}, {"W": np.ones(2)}]}
    opt.step(g)
    opt.reset(["layers.0.W"])
    assert opt.t == 1
    assert list(inside.plan(opt).steps) == [0, 1]
    assert not opt.state["m"][0].any()
    assert opt.state["m"][1].all()
    assert np.array_equal(opt.state["master"][0], params["layers"][0]["W"].astype("f4"))
    opt.step(g)
    with pytest.raises(ValueError, match=r"names: no parameter is called 'layers.1.w'"):
        opt.reset(["layers.1.w"])
    with pytest.raises(TypeError, match="names: expected names of parameters, or None for all, got 0"):
        opt.reset(0)
    opt.reset("layers.1.W")
    assert list(inside.plan(opt).steps) == [1, 0]


# ---------------------------------------------------------------- master weights, rates, complex numbers


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_a_master_weight_follows_what_others_write(dtype, backend):
    p, q = (np.linspace(-2, 2, 3001).astype(dtype) for _ in range(2))
    opt, other = (fastadam.Adam(a, lr=1e-4, master_weights=True, backend=backend) for a in (p, q))
    g = np.cos(np.arange(3001)).astype(dtype)
    for _ in range(3):
        opt.step(g)
        other.step(g)
    p[7], p[2000] = 3, np.nan
    opt.step(g)
    other.step(g)
    own, theirs = opt.state["master"][0], other.state["master"][0]
    untouched = np.ones(3001, bool)
    untouched[[7, 2000]] = False
    assert np.array_equal(own[untouched], theirs[untouched])
    assert abs(own[7] - 3) < 2e-4
    assert own[7] != 3
    assert np.isnan(own[2000])
    assert np.array_equal(p[untouched].view(np.uint16), q[untouched].view(np.uint16))


def test_the_rate_of_the_last_step():
    opt = fastadam.Adam(np.ones(2), lr=fastadam.schedules.linear(1.0, 0.5, steps=4))
    assert opt.rate is None
    rates = []
    for _ in range(4):
        with pytest.raises(ValueError, match="shape"):  # asks for the rate of a step that is not done
            opt.step(np.ones(3))
        assert opt.rate == (rates[-1] if rates else None)
        opt.step(np.ones(2))
        rates.append(opt.rate)
    assert rates == [1.0, 0.875, 0.75, 0.625]
    again = fastadam.Adam(np.ones(2), lr=fastadam.schedules.linear(1.0, 0.5, steps=4))
    again.load_state_dict(opt.state_dict())
    assert again.rate == 0.625
    plain = fastadam.Adam(np.ones(2), lr=0.25)
    for _ in range(3):
        plain.step(np.ones(2))
    plain.lr = 0.125
    assert plain.rate == 0.25
    plain.step(np.ones(2))
    assert plain.rate == copy.deepcopy(plain).rate == 0.125


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("mine", [0.25, lambda t: 0.125 / t])
@pytest.mark.parametrize("lr", [0.5, lambda t: 0.5 * t])
def test_the_rate_of_a_loaded_step_is_that_of_its_options(lr, mine, steps):
    opt, other = fastadam.Adam(np.ones(2), lr=mine), fastadam.Adam(np.ones(2), lr=lr)
    for _ in range(steps):
        other.step(np.ones(2))
    for _ in range(3):
        opt.step(np.ones(2))
    opt.load_state_dict(other.state_dict())
    assert (opt.t, opt.rate) == (steps, lr(steps) if callable(lr) else lr)
    opt.reset()
    assert opt.rate is None


@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("case", BY_RULE)
def test_complex_numbers_are_pairs_of_real_ones(case, dtype, layout):
    rng = np.random.default_rng(1)
    start = (rng.normal(size=(30, 41)) + 1j * rng.normal(size=(30, 41))).astype(dtype)
    z = {
        "C": lambda: start.copy(),
        "F": lambda: np.asfortranarray(start),
        "strided": lambda: np.repeat(start, 2, axis=1)[:, ::2],
        "reversed": lambda: start[::-1, ::-1].copy()[::-1, ::-1],
    }[layout]()
    real = np.ascontiguousarray(start).view(start.real.dtype).copy()
    opt, pairs = make(case, [z]), make(case, [real])
    for _ in range(3):
        g = (rng.normal(size=z.shape) + 1j * rng.normal(size=z.shape)).astype(dtype)
        opt.step([g], max_norm=20.0, clip_value=0.5)
        pairs.step([g.view(real.dtype)], max_norm=20.0, clip_value=0.5)
        assert abs(opt.grad_norm - pairs.grad_norm) <= 1e-12 * pairs.grad_norm
    if layout == "C":  # the sum of a norm goes in memory order
        assert bits(np.ascontiguousarray(z).view(real.dtype)) == bits(real)
    assert np.allclose(np.ascontiguousarray(z).view(real.dtype), real, rtol=1e-6)
    for name in opt.state:
        assert opt.state[name][0].dtype == z.dtype
        assert np.allclose(np.ascontiguousarray(opt.state[name][0]).view(real.dtype), pairs.state[name][0], rtol=1e-5)


def test_complex_numbers_in_functional_checkpoints_and_groups(tmp_path):
    z, g = np.array([1 + 2j, -1j]), np.array([1 - 1j, 2])
    m, v, w = np.zeros(2, complex), np.zeros(2, complex), z.copy()
    functional.adam(w, g, m, v, 1, lr=0.1)
    opt = fastadam.Adam([{"params": [z]}, {"params": np.ones(2)}], lr=0.1)
    opt.step([[g], np.ones(2)])
    assert np.array_equal(z, w)
    assert np.array_equal(opt.state["v"][0], v)
    opt.save(tmp_path / "state.npz", params=True)
    again = fastadam.Adam([{"params": [np.zeros(2, complex)]}, {"params": np.zeros(2)}])
    again.load(tmp_path / "state.npz")
    again.step([[g], np.ones(2)])
    opt.step([[g], np.ones(2)])
    assert np.array_equal(inside.planned(again)[0], z)
    opt.step([[np.array([1.0, 2.0])], None])  # a real gradient has no imaginary part
    with pytest.raises(ValueError, match="state_dtype"):
        fastadam.Adam(z, state_dtype="bfloat16")
    with pytest.raises(TypeError, match="expected real numbers like the parameter, got complex128"):
        fastadam.Adam(np.ones(2)).step(g)


def states_of(name):
    """The states that a function takes: its arguments between g and t."""
    places = [*inspect.signature(getattr(functional, name)).parameters]
    return places[2 : places.index("t")]


@pytest.mark.parametrize("name", [name for name in functional.__all__ if states_of(name)])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_real_states_of_complex_parameters_are_refused(name, dtype):
    """They are half as long: a step would write behind them."""
    real = np.empty(0, dtype).real.dtype
    memory = np.zeros((len(states_of(name)), 20), real)
    states = [row[:10] for row in memory]
    for arguments in (
        (np.ones(10, dtype), np.ones(10, dtype), *states),
        ([np.ones(10, dtype)], [np.ones(10, dtype)], *([state] for state in states)),
    ):
        with pytest.raises(TypeError, match=f"expected dtype {dtype} like the parameter"):
            getattr(functional, name)(*arguments, 1)
    assert not memory.any()
