"""Each step reads these again: the arrays in the structure given as `params`, bound gradients, options.
A new array is stepped with the states of the array that it replaced, or refused before anything is touched.
"""

import copy
import io
import pickle
import weakref
from collections import OrderedDict, UserDict, UserList, namedtuple
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import fastadam

Layer = namedtuple("Layer", "W b")
PLACES = {
    "dict": (lambda a, b: {"W": a, "b": b}, "W"),
    "list": (lambda a, b: [a, b], 0),
    "ordered dict": (lambda a, b: OrderedDict(W=a, b=b), "W"),
    "user dict": (lambda a, b: UserDict(W=a, b=b), "W"),
    "user list": (lambda a, b: UserList([a, b]), 0),
}
NESTS = {
    "bare": (lambda part: part, lambda whole: whole),
    "in a dict": (lambda part: {"layer": part}, lambda whole: whole["layer"]),
    "in a list": (lambda part: [[part]], lambda whole: whole[0][0]),
    "in a tuple": (lambda part: ((part,),), lambda whole: whole[0][0]),
}


def twin(steps):
    """Two arrays after steps with gradients of ones, by an optimizer of their own."""
    arrays = [np.ones(3), np.zeros(2)]
    opt = fastadam.Adam(arrays, lr=0.1)
    for _ in range(steps):
        opt.step([np.ones(3), np.ones(2)])
    return opt, arrays


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("kind", PLACES)
def test_another_array_is_stepped_with_the_same_states(kind, nest):
    make, key = PLACES[kind]
    wrap, unwrap = NESTS[nest]
    given = wrap(make(np.ones(3), np.zeros(2)))
    grads = wrap(make(np.ones(3), np.ones(2)))
    opt = fastadam.Adam(given, lr=0.1)
    opt.step(grads)
    old, new = unwrap(given)[key], np.full(3, 5.0)
    unwrap(given)[key] = new
    kept = old.copy()
    opt.step(grads)
    other, _ = twin(1)
    other.core.plan.params[0][...] = 5.0
    other.step([np.ones(3), np.ones(2)])
    assert np.array_equal(old, kept)
    assert np.array_equal(new, other.core.plan.params[0])
    assert opt.param_groups[0]["params"][0] is new
    assert opt.t == 2


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (np.ones(4), "shape"),
        (np.ones(3, np.float32), "dtype"),
        ([1.0, 2.0, 3.0], "does not have the structure|numpy array"),
        (None, "numpy array"),
        (np.broadcast_to(1.0, 3), "read-only"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(new, message):
    params = {"W": np.ones(3), "b": np.zeros(2)}
    opt = fastadam.Adam(params)
    grads = {"W": np.ones(3), "b": np.ones(2)}
    opt.step(grads)
    before, b, old = opt.state_dict(), params["b"].copy(), params["W"]
    params["W"] = new
    with pytest.raises((TypeError, ValueError), match=message):
        opt.step(grads)
    assert opt.t == 1
    assert np.array_equal(params["b"], b)
    params["W"] = old
    after = opt.state_dict()
    assert all(np.array_equal(after["state"]["W"][name], before["state"]["W"][name]) for name in ("m", "v"))
    opt.step(grads)


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_name_that_is_gone_or_new_is_refused(is_first, kind, nest):
    wrap, _ = NESTS[nest]
    params, arrays = kind(), {"W": np.ones(3), "b": np.zeros(2)}
    params.update(arrays)
    opt = fastadam.Adam(wrap(params))
    grads = wrap({"W": np.ones(3), "b": np.ones(2)})
    for names, text in (
        ("cWb" if is_first else "Wbc", r"unknown: \['c'\]"),
        ("cW" if is_first else "Wc", r"missing: \['b'\], unknown: \['c'\]"),
        ("b" if is_first else "W", r"missing: \['"),
        ("", r"missing: \['W', 'b'\]"),
    ):
        params.clear()
        params.update({name: arrays.get(name, np.ones(1)) for name in names})
        for read in (lambda: opt.step(grads), opt.state_dict, lambda: copy.deepcopy(opt), opt.stepping().__enter__):
            with pytest.raises(ValueError, match=text):
                read()
    assert opt.t == 0
    params.clear()
    params.update(reversed(arrays.items()) if is_first else arrays)
    opt.step(grads)
    assert arrays["b"].tolist() != [0, 0]


def test_one_array_in_two_places_is_refused():
    params = [np.ones(3), np.zeros(3)]
    opt = fastadam.Adam(params)
    params[1] = params[0]
    with pytest.raises(ValueError, match="share memory"):
        opt.step([np.ones(3), np.ones(3)])
    assert opt.t == 0
    assert np.array_equal(params[0], np.ones(3))


def test_arrays_may_change_places():
    params = {"a": np.zeros(2), "b": np.ones(2)}
    opt = fastadam.Adam(params, lr=0.5)
    params["a"], params["b"] = params["b"], params["a"]
    opt.step({"a": np.ones(2), "b": np.zeros(2)})
    assert np.allclose(params["a"], 0.5)
    assert np.array_equal(params["b"], [0, 0])


def test_bound_gradients_are_read_anew():
    params, grads = {"W": np.ones(2)}, {"W": np.zeros(2)}
    opt = fastadam.Adam(params, lr=0.5, grads=grads)
    grads["W"] = np.ones(2)
    opt.step()
    assert np.allclose(params["W"], 0.5)
    grads["W"] = np.ones(3)
    with pytest.raises(ValueError, match="shape"):
        opt.step()
    assert opt.t == 1


def write(opt, params, new):
    params["W"][...] = new


def rebind(opt, params, new):
    params["W"] = new


def replace(opt, params, new):
    opt.replace("W", new)


def load(opt, params, new):
    """A file whose parameters are others, and whose masters are theirs."""
    file = io.BytesIO()
    fastadam.SGD({"W": new, "b": params["b"].copy()}, lr=1.0, master_weights=True).save(file, params=True)
    file.seek(0)
    opt.load(file)


def read(opt, params, new):
    """Rebound, and read before the next step."""
    params["W"] = new
    copy.deepcopy(opt).state_dict()


def whole(opt, grads):
    opt.step(grads)


def in_parts(opt, grads):
    with opt.stepping() as step:
        for key in ("b", "W"):
            step(key, grads[key])


def by_rows(opt, grads):
    opt.step(grads | {"W": fastadam.Rows(np.arange(len(grads["W"])), grads["W"])})


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("step", [whole, in_parts, by_rows])
@pytest.mark.parametrize("change", [write, rebind, replace, load, read])
def test_a_master_follows_its_parameter_however_that_is_changed(change, step, dtype, order, backend):
    """It begins anew from each element that is another, to the bit, and goes on from what is the same."""

    def laid_out(values):
        made = np.zeros((70, 86), dtype, "F" if order == "F" else "C")[:, :: 2 if order == "strided" else 1][:, :43]
        made[...] = values
        return made

    ulp = 2.0**-12 if dtype == "float16" else 2.0**-10  # steps that the parameter alone would never see
    params = {"W": laid_out(1.0), "b": np.zeros(2)}
    opt = fastadam.SGD(params, lr=1.0, master_weights=True, backend=backend, rows="exact")
    grads = {"W": np.full((70, 43), ulp, np.float32), "b": np.ones(2)}
    for _ in range(2):
        step(opt, grads)
    values = np.where(np.arange(43) % 3 == 0, 2.0, np.asarray(params["W"], float))
    change(opt, params, laid_out(values))
    for k in (1, 2):
        step(opt, grads)
        expected = np.where(np.arange(43) % 3 == 0, 2.0 - k * ulp, 1.0 - (2 + k) * ulp)
        if change is load:  # its masters are new ones
            expected = values - k * ulp
        master = opt.state["master"][0]
        np.testing.assert_array_equal(master, np.broadcast_to(expected, (70, 43)))
        np.testing.assert_array_equal(params["W"], master.astype(dtype))


def loaded(opt, params):
    file = io.BytesIO()
    fastadam.ScheduleFreeAdamW({"W": np.full(3, 7.0)}).save(file, params=True)
    file.seek(0)
    opt.load(file)
    params["W"] -= 2.0
    return params["W"]


def saved(opt, params):
    again, file = {"W": np.zeros(3)}, io.BytesIO()
    opt.save(file, params=True)
    file.seek(0)
    fastadam.ScheduleFreeAdamW(again).load(file)
    return again["W"]


def reset(opt, params):
    opt.reset()
    return opt.state["z"][0]


def grown(opt, params):
    opt.add_param_group({"params": np.ones(1)})
    assert opt.param_groups[0]["params"][0] is params["W"]
    return params["W"]


def flushed(opt, params):
    opt.flush()
    return params["W"]


READ = {
    "copied": lambda opt, params: copy.deepcopy(opt).param_groups[0]["params"][0],
    "pickled": lambda opt, params: pickle.loads(pickle.dumps(opt)).param_groups[0]["params"][0],
    "saved": saved,
    "loaded": loaded,
    "reset": reset,
    "grown": grown,
    "flushed": flushed,
}


@pytest.mark.parametrize("name", READ)
def test_whatever_reads_an_optimizer_follows_an_array_first(name):
    params = {"W": np.ones(3)}
    opt = fastadam.ScheduleFreeAdamW(params, lr=0.1)
    opt.step({"W": np.ones(3)})
    old, params["W"] = params["W"], np.full(3, 5.0)
    kept = old.copy()
    assert READ[name](opt, params).tolist() == [5.0] * 3
    assert old.tolist() == kept.tolist()
    opt.step({"W": np.ones(3)} if name != "grown" else [{"W": np.ones(3)}, np.ones(1)])
    assert params["W"].tolist() != [5.0] * 3
    assert old.tolist() == kept.tolist()


def test_groups_are_followed():
    inner = {"W": np.ones(2)}
    group = {"params": [np.ones(2)], "lr": 0.25}
    opt = fastadam.Adam([{"params": inner}, group], lr=0.5)
    inner["W"] = first = np.zeros(2)
    group["params"] = [np.zeros(2)]
    opt.step([{"W": np.ones(2)}, [np.ones(2)]])
    assert np.allclose(first, -0.5)
    assert np.allclose(group["params"][0], -0.25)


def test_an_object_is_followed():
    model = SimpleNamespace(parameters={"W": np.ones(2)}, grad={"W": np.ones(2)})
    opt = fastadam.Adam(model, lr=0.5)
    model.parameters["W"] = np.zeros(2)
    opt.step()
    assert np.allclose(model.parameters["W"], -0.5)
    model.parameters = {"W": np.ones(2)}
    model.grad = {"W": np.zeros(2)}
    opt.step()
    assert not np.array_equal(model.parameters["W"], [1, 1])


def test_an_object_that_gives_other_arrays_at_each_read_is_refused():
    class Model:
        grad = np.ones(2)
        kept = np.ones(2)
        fresh = False

        @property
        def parameters(self):
            return self.kept.copy() if self.fresh else self.kept

    model = Model()
    opt = fastadam.Adam(model)
    opt.step()
    model.fresh = True
    with pytest.raises(TypeError, match="another array at each read"):
        opt.step()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_a_copy_follows_its_own_structure(copied):
    params = {"W": np.ones(2)}
    opt = fastadam.Adam(params, lr=0.5)
    other = copied(opt)
    other.params["W"] = np.zeros(2)
    other.step({"W": np.ones(2)})
    assert np.allclose(other.params["W"], -0.5)
    assert np.array_equal(params["W"], [1, 1])
    assert (opt.t, other.t) == (0, 1)


def test_structures_nest():
    params = {"layers": [Layer(np.ones((2, 2)), np.zeros(2)), Layer(np.ones(2), np.zeros(1))], "scale": np.ones(())}
    grads = {"layers": [Layer(np.ones((2, 2)), np.ones(2)), [np.ones(2), np.ones(1)]], "scale": np.ones(())}
    opt = fastadam.Adam(params, lr=0.5)
    opt.step(grads)
    assert list(opt.state_dict()["state"]) == ["layers.0.W", "layers.0.b", "layers.1.W", "layers.1.b", "scale"]
    assert np.allclose(params["layers"][0].W, 0.5)
    with pytest.raises(ValueError, match=r"grads\['layers'\]\[1\]: expected 2"):
        opt.step({**grads, "layers": [grads["layers"][0], [np.ones(2)]]})
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="levels"):
        fastadam.Adam(endless)


def test_dtypes_of_bfloat16_are_followed_too():
    params = [np.ones(2, ml_dtypes.bfloat16)]
    opt = fastadam.Adam(params, lr=0.5, master_weights=True)
    params[0] = np.zeros(2, ml_dtypes.bfloat16)
    opt.step([np.ones(2, np.float32)])
    assert np.allclose(params[0].astype(float), -0.5)


def test_a_refused_step_leaves_masters_and_reads_change_nothing():
    params = {"W": np.ones(2, np.float16)}
    opt = fastadam.Adam(params, lr=2.0**-14, master_weights=True)
    for _ in range(3):
        opt.step({"W": np.ones(2, np.float16)})
    own, master = params["W"], opt.state["master"][0].copy()
    assert 0.999 < master[0] < 1
    params["W"] = np.full(2, 7.0, np.float16)
    with pytest.raises(ValueError, match="shape"):
        opt.step({"W": np.ones(3, np.float16)})
    again = copy.deepcopy(opt)
    again.step({"W": np.zeros(2, np.float16)})
    assert np.allclose(again.state["master"][0], 7, atol=1e-3)
    assert np.array_equal(opt.state["master"][0], master)
    params["W"] = own
    opt.step({"W": np.zeros(2, np.float16)})
    assert opt.state["master"][0][0] < master[0]


def test_only_steps_ask_a_schedule():
    asked = []
    opt = fastadam.Adam(np.ones(2), lr=lambda t: asked.append(t) or [0.1, 0.1][t - 1])
    for _ in range(2):
        opt.step(np.ones(2))
    opt.load_state_dict(opt.state_dict())
    copy.deepcopy(opt)
    assert asked == [1, 2]


def test_pairs_are_followed_by_name():
    pairs = [("W", np.zeros(2)), ("b", np.zeros(2))]
    opt = fastadam.Adam(pairs, lr=1.0)
    pairs.reverse()
    with pytest.raises(ValueError, match="expected the pair of 'W', got that of 'b'"):
        opt.step({"W": np.ones(2), "b": -np.ones(2)})
    pairs.reverse()
    pairs[0] = ("W", np.ones(2))
    opt.step({"W": np.ones(2), "b": -np.ones(2)})
    assert np.allclose(pairs[0][1], 0)


def test_bound_gradients_of_groups_are_read_anew_after_a_group_was_added():
    groups, grads = [{"params": np.zeros(2)}, {"params": [np.zeros(2)]}], [np.ones(2), [np.ones(2)]]
    opt = fastadam.Adam(groups, lr=1.0, grads=grads)
    opt.add_param_group({"params": np.zeros(1), "grads": np.ones(1)})
    grads[0] = -np.ones(2)
    opt.step()
    assert np.allclose(groups[0]["params"], 1)
    assert len(opt.grads) == 3


def test_gradients_in_dicts_of_groups_with_one_array():
    groups = [{"params": np.zeros(2)}, {"params": np.zeros(1)}]
    opt = fastadam.Adam(groups, lr=1.0)
    opt.step([{"grads": np.ones(2)}, {"grads": -np.ones(1)}])
    assert np.allclose(groups[0]["params"], -1)
    assert opt.param_groups == opt.param_groups


def test_an_array_that_was_replaced_is_let_go():
    params = {"W": np.ones(2)}
    opt = fastadam.Adam(params)
    old = weakref.ref(params["W"])
    params["W"] = np.ones(2)
    opt.step({"W": np.ones(2)})
    assert old() is None


def test_a_checkpoint_mends_a_torn_step_whose_arrays_were_replaced():
    fails = []

    def update(p, g, lr):
        if fails:
            raise ArithmeticError
        return (p - lr * g,)

    params = {"W": np.ones(2)}
    opt = fastadam.optimizer(update, lambda t, lr: (lr,), (), lr=0.5)(params, backend="numpy")
    kept = opt.state_dict()
    fails.append(1)
    with pytest.raises(ArithmeticError):
        opt.step({"W": np.ones(2)})
    fails.clear()
    params["W"] = np.ones(2)
    opt.load_state_dict(kept)
    opt.step({"W": np.ones(2)})
    assert np.allclose(params["W"], 0.5)


def test_containers_whose_code_changes_the_structure():
    class Odd(dict):
        def __getitem__(self, key):
            if armed:
                layers.clear()
            return super().__getitem__(key)

    armed = []
    layers = [Odd(W=np.ones(2)) for _ in range(50)]
    opt = fastadam.Adam(layers)
    grads = [{"W": np.ones(2)}] * 50
    opt.step(grads)
    armed.append(1)
    with pytest.raises((TypeError, ValueError), match="does not have the structure"):
        opt.step(grads)
    assert opt.t == 1


def test_a_group_without_its_parameters_says_so():
    groups = [{"params": np.ones(2)}, {"params": np.ones(2)}]
    opt = fastadam.Adam(groups)
    del groups[0]["params"]
    with pytest.raises(ValueError, match="does not have the structure"):
        opt.step([np.ones(2), np.ones(2)])


def test_a_schedule_that_replaces_an_array():
    params = {"W": np.ones(2)}

    def lr(t):
        if t == 2:
            params["W"] = np.full(2, 5.0)
        return 1.0

    opt = fastadam.Adam(params, lr=lr)
    for _ in range(3):
        opt.step({"W": np.ones(2)})
    assert np.allclose(params["W"], 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_what_can_be_read_once_is_copied_as_a_list(copied):
    named = {"a": np.ones(2), "b": np.ones(1)}
    for params in (iter(named.values()), named.values()):
        other = copied(fastadam.Adam(params, lr=0.5, grads=iter([np.ones(2), np.ones(1)])))
        other.step()
        assert np.allclose(other.param_groups[0]["params"][0], 0.5)
