"""The public interface of an optimizer: structures of parameters and gradients, groups, options, bound gradients,
layouts. Results are compared with the same optimizer over one plain array.
"""

import sys
import tracemalloc

import inside
import numpy as np
import pytest
from cases import BY_RULE, DTYPES, arrays_of, make

import fastadam
from fastadam.adapters import article
from fastadam.rules import RULES

A, B, C = np.arange(6.0).reshape(2, 3), np.linspace(-1, 1, 4), np.array(3.0)
GRADS = [np.sin(A) + 1, np.cos(B), np.array(-2.0)]


def stepped(array, grad, steps=3, **options):
    """What Adam makes of one array alone."""
    p = array.copy()
    opt = fastadam.Adam(p, **options)
    for _ in range(steps):
        opt.step(grad)
    return p


EXPECTED = [stepped(p, g) for p, g in zip((A, B, C), GRADS, strict=True)]


class Instance:
    """An object of the article's protocol."""

    def __init__(self, parameters, grad):
        self.parameters, self.grad = parameters, grad
        self.zeroed = 0

    def zero_grad(self):
        self.zeroed += 1


def structures(make_array, values):
    a, b, c = (make_array(v) for v in values)
    return {
        "list": [a, b, c],
        "tuple": (a, b, c),
        "mapping": {"a": a, "b": b, 3: c},
        "groups": [{"params": [a, b]}, {"params": c}],
        "groups of mappings": [{"params": {"a": a, "b": b}}, {"params": [c]}],
    }


@pytest.mark.parametrize("kind", structures(np.copy, (A, B, C)))
def test_structures(kind):
    params = structures(np.copy, (A, B, C))[kind]
    grads = structures(np.asarray, GRADS)[kind]
    opt = fastadam.Adam(params)
    for _ in range(3):
        opt.step(grads)
    for got, expected in zip(inside.planned(opt), EXPECTED, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert opt.t == 3
    assert list(opt.state) == ["m", "v"]
    assert [m.shape for m in opt.state["m"]] == [(2, 3), (4,), ()]


def test_gradients_of_groups_in_other_spellings():
    for grads in (GRADS, [GRADS[:2], GRADS[2:]], [{"grads": GRADS[:2]}, {"grads": GRADS[2:]}]):
        params = [A.copy(), B.copy(), C.copy()]
        opt = fastadam.Adam([{"params": params[:2]}, {"params": [params[2]]}])
        for _ in range(3):
            opt.step(grads)
        for got, expected in zip(params, EXPECTED, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_generator_of_parameters():
    arrays = [A.copy(), B.copy()]
    opt = fastadam.Adam(p for p in arrays)
    for _ in range(3):
        opt.step(g for g in GRADS[:2])
    np.testing.assert_array_equal(arrays[1], EXPECTED[1])


def test_names_in_pairs():
    params = {"a": A.copy(), "b": B.copy()}
    opt = fastadam.Adam([{"params": params.items()}, {"params": C.copy()}])
    grads = {"a": GRADS[0], "b": GRADS[1]}
    opt.step([grads.items(), GRADS[2]])
    opt.step([grads, GRADS[2]])
    opt.step([reversed(grads.items()), GRADS[2]])
    for got, expected in zip(inside.planned(opt), EXPECTED, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert inside.keys(opt) == ["0.a", "0.b", "1.0"]
    with pytest.raises(ValueError, match="params: expected different names, got"):
        fastadam.Adam([("a", A.copy()), ("a", B.copy())])
    with pytest.raises(TypeError, match=r"grads\[0\]: expected a mapping like params, got list"):
        opt.step([GRADS[:2], GRADS[2]])


def test_mapping_of_gradients_in_another_order():
    params = {"a": A.copy(), "b": B.copy()}
    opt = fastadam.Adam(params)
    for _ in range(3):
        opt.step({"b": GRADS[1], "a": GRADS[0]})
    np.testing.assert_array_equal(params["a"], EXPECTED[0])


def test_object_with_parameters_and_grad():
    x = Instance(B.copy(), GRADS[1].copy())
    opt = fastadam.Adam(x)
    opt.step()
    x.grad = GRADS[1].copy()  # a new array, as the article's zero_grad makes
    opt.step()
    opt.step(GRADS[1])
    np.testing.assert_array_equal(x.parameters, EXPECTED[1])
    opt.zero_grad()
    assert x.zeroed == 1


@pytest.mark.parametrize("zero_grad", [None, True, "zero"])
def test_object_whose_zero_grad_is_no_method(zero_grad):
    x = Instance([A.copy()], [np.ones_like(A)])
    x.zero_grad = zero_grad
    fastadam.Adam(x).zero_grad()
    assert not x.grad[0].any()


def test_object_that_is_refused_is_as_before():
    x = Instance([np.ones(3)], [np.ones(3)])
    opt = fastadam.Adam(x)
    opt.step()
    mine = x.parameters
    for wrong, error, text in (
        ([opt.state["m"][0]], ValueError, "share memory"),
        (mine * 2, ValueError, "params: .parameters does not have the structure"),
    ):
        x.parameters = wrong
        with pytest.raises(error, match=text):
            opt.step()
        with pytest.raises(error, match=text):
            opt.state_dict()
    x.parameters = mine
    assert opt.param_groups[0]["params"][0] is mine[0]
    x.grad = None
    with pytest.raises(RuntimeError, match=r"grads: none were given, and the object's \.grad is None"):
        opt.step()
    assert opt.t == 1


def test_groups_are_not_to_be_replaced():
    opt = fastadam.Adam([{"params": np.ones(2)}, {"params": np.ones(3)}])
    with pytest.raises(AttributeError):
        opt.param_groups = []
    with pytest.raises(AttributeError):
        opt.param_groups.sort(key=len)


def test_object_whose_parameters_are_replaced():
    x = Instance(B.copy(), GRADS[1])
    opt = fastadam.Adam(x)
    opt.step()
    x.parameters = x.parameters.copy()
    opt.step()
    opt.step()
    np.testing.assert_array_equal(x.parameters, EXPECTED[1])
    x.parameters = np.zeros(5)
    with pytest.raises(ValueError, match=r"expected shape \(4,\).*got \(5,\)"):
        opt.step()


def test_bound_gradients():
    p, g = B.copy(), np.zeros(4)
    opt = fastadam.Adam([p], grads=[g])
    for _ in range(3):
        g[:] = GRADS[1]
        opt.step()
    np.testing.assert_array_equal(p, EXPECTED[1])
    opt.zero_grad()
    assert not g.any()
    before = p.copy()
    opt.step([GRADS[1]])  # others may come between
    g[:] = 1e6
    opt.step()
    assert (np.abs(p - before) > 1e-4).all()
    assert opt.t == 5


def test_without_gradients_there_is_no_step():
    opt = fastadam.Adam(B.copy())
    with pytest.raises(RuntimeError, match="none are bound"):
        opt.step()
    with pytest.raises(RuntimeError, match="no gradients are bound"):
        opt.zero_grad()
    assert opt.t == 0


@pytest.mark.parametrize("case", BY_RULE)
def test_states_are_those_of_the_rule(case):
    opt = make(case, B.copy())
    assert tuple(opt.state) == RULES[case].states
    opt.step(GRADS[1])
    opt.step(GRADS[1])  # ADOPT's first step sets v alone
    assert all(array.any() for arrays in opt.state.values() for array in arrays)


def test_options_are_read_and_assigned():
    opt = fastadam.Adam([{"params": B.copy()}, {"params": A.copy(), "lr": 0.5}], lr=0.1)
    assert opt.lr == 0.1
    assert [group["lr"] for group in opt.param_groups] == [0.1, 0.5]
    opt.param_groups[1]["betas"] = (0.5, 0.5)
    opt.lr = 0.25
    assert [group["lr"] for group in opt.param_groups] == [0.25, 0.25]
    opt.step([GRADS[1], GRADS[0]])
    np.testing.assert_array_equal(inside.planned(opt)[1], stepped(A, GRADS[0], 1, lr=0.25, betas=(0.5, 0.5)))
    assert opt.rate == 0.25


def test_a_refused_assignment_changes_no_group():
    opt = fastadam.RMSprop([{"params": B.copy(), "momentum": 0.9}, {"params": A.copy()}])
    with pytest.raises(ValueError, match=r"momentum.*0.5 needs other states"):
        opt.momentum = 0.5  # fine for the first group, not for the second
    assert [group["momentum"] for group in opt.param_groups] == [0.9, 0.0]


def test_torch_idiom_for_schedules():
    p = B.copy()
    opt = fastadam.Adam(p, lr=0.1)
    for _ in range(3):
        opt.step(GRADS[1])
        for group in opt.param_groups:
            group["lr"] *= 0.5
    np.testing.assert_array_equal(p, stepped(B, GRADS[1], lr=lambda t: 0.1 * 0.5 ** (t - 1)))


def test_schedule_sees_each_step_count_once_in_order():
    seen = []
    opt = fastadam.Adam(B.copy(), lr=lambda t: seen.append(t) or 0.1)
    for _ in range(4):
        opt.step(GRADS[1])
    assert seen == [1, 2, 3, 4]
    opt.lr = 0.5
    opt.step(GRADS[1])
    assert seen == [1, 2, 3, 4]


def test_groups_with_their_own_rules():
    params = [A.copy(), B.copy()]
    opt = fastadam.Adam([{"params": params[0], "amsgrad": True}, {"params": params[1]}])
    for _ in range(3):
        opt.step(GRADS[:2])
    np.testing.assert_array_equal(params[0], stepped(A, GRADS[0], amsgrad=True))
    np.testing.assert_array_equal(params[1], EXPECTED[1])
    assert opt.state["v_max"][1] is None


def test_mixed_dtypes():
    params = [A.astype(np.float32), B.copy()]
    opt = fastadam.Adam(params)
    for _ in range(3):
        opt.step([GRADS[0].astype(np.float32), GRADS[1]])
    np.testing.assert_array_equal(params[1], EXPECTED[1])
    np.testing.assert_array_equal(params[0], stepped(A.astype(np.float32), GRADS[0].astype(np.float32)))


def views(base):
    """The same 4 × 6 values, in many layouts."""
    misaligned = np.zeros(base.nbytes + 1, np.uint8)[1:].view(base.dtype).reshape(base.shape)
    made = {
        "C": base.copy(),
        "F": np.asfortranarray(base),
        "strided": np.zeros((10, 14), base.dtype)[1:9:2, 1:13:2],
        "negative": np.zeros((10, 14), base.dtype)[9:1:-2, 13:1:-2],
        "transposed": np.zeros((6, 4), base.dtype).T,
        "columns": np.zeros((4, 12), base.dtype)[:, ::2],
        "misaligned": misaligned,
    }
    for view in made.values():
        view[...] = base
    return made


LAYOUTS = list(views(np.zeros((4, 6))))


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_grad", [*LAYOUTS, "broadcast"])
@pytest.mark.parametrize("of_param", LAYOUTS)
def test_any_layout_gives_the_same_bits(of_param, of_grad, dtype, backend):
    rng = np.random.default_rng(0)
    p0, g0 = rng.standard_normal((2, 4, 6)).astype(dtype)
    if of_grad == "broadcast":
        g0 = np.broadcast_to(g0[0], (4, 6))
    g = views(g0)[of_grad] if of_grad in LAYOUTS else g0
    expected = p0.copy()
    plain = fastadam.Adam(expected)
    p = views(p0)[of_param]
    opt = fastadam.Adam(p, backend=backend)
    for _ in range(5):
        plain.step(np.ascontiguousarray(g0))
        opt.step(g)
    np.testing.assert_array_equal(p, expected)
    np.testing.assert_array_equal(opt.state["v"][0], plain.state["v"][0])
    if of_param in ("strided", "negative", "columns"):  # what lies between its elements is still zero
        assert np.count_nonzero(p.base) == p.size


def test_many_chunks_of_strided_memory():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((7, 5, 3, 211))
    p, plain = base.copy()[:, ::2, ::-1, ::3], base[:, ::2, ::-1, ::3].copy()
    g = rng.standard_normal(p.T.shape).T
    for array in (p, plain):
        opt = fastadam.Adam(array)
        for _ in range(3):
            opt.step(g)
    np.testing.assert_array_equal(p, plain)


def test_interleaved_parameter_and_gradient():
    pairs = np.zeros(8, [("p", float), ("g", float)])
    pairs["g"] = 1
    fastadam.Adam(pairs["p"], lr=0.1).step(pairs["g"])
    np.testing.assert_allclose(pairs["p"], -0.1, rtol=1e-7)
    assert (pairs["g"] == 1).all()


@pytest.mark.parametrize("case", BY_RULE)
@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
def test_a_step_allocates_nothing_of_the_arrays_size(case, backend):
    p = np.ones(2_000_000, np.float32)
    opt = make(case, p, backend=backend)
    g = np.ones_like(p)
    opt.step(g)
    tracemalloc.start()
    opt.step(g)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < p.nbytes / 4


def test_a_plain_step_runs_no_python_but_its_own_method():
    params = {"a": [np.ones(3) for _ in range(20)], "b": np.ones(2)}
    opt = fastadam.Adam([{"params": params}, {"params": [np.ones(3)] * 1, "lr": 0.1}])
    grads = [{"a": [np.ones(3)] * 20, "b": np.ones(2)}, [np.ones(3)]]
    opt.step(grads)
    called = []
    sys.setprofile(lambda frame, event, _: event == "call" and called.append(frame.f_code.co_qualname))
    opt.step(grads)
    sys.setprofile(None)
    assert called == ["Optimizer.step"]
    assert opt.t == 2


def test_repr_tells_the_options():
    text = repr(fastadam.AdamW([A.copy(), B.copy()], lr=0.5))
    assert text.startswith("AdamW at t = 0, backend cython")
    assert "2 arrays: lr=0.5" in text


def test_arrays_stay_where_they_are():
    opt = fastadam.Adam(p := B.copy())
    address = p.ctypes.data
    kept = arrays_of(opt)
    opt.step(GRADS[1])
    assert p.ctypes.data == address
    assert all(new is old for new, old in zip(arrays_of(opt), kept, strict=True))


class Layers:
    """An object whose ``parameters`` is a property: a new array at each read, unlike what the protocol says."""

    def __init__(self):
        self.a, self.b, self.grad = np.ones(2), np.ones(2), np.ones(4)

    @property
    def parameters(self):
        return np.concatenate([self.a, self.b])

    @parameters.setter
    def parameters(self, value):
        self.a, self.b = value[:2], value[2:]


def test_object_that_makes_its_parameters_anew_is_refused():
    opt = fastadam.Adam(Layers())
    with pytest.raises(TypeError, match="gives another array at each read"):
        opt.step()


def test_articles_face_uses_a_propertys_setter():
    layers = Layers()
    optimizer = article.Adam(layers, alpha=0.5, epsilon=0)
    for _ in range(2):
        optimizer.step()
    np.testing.assert_allclose(layers.parameters, 0.0, atol=1e-12)


def test_object_with_groups_whose_arrays_are_replaced():
    x = Instance([{"params": [A.copy(), B.copy()]}, {"params": C.copy(), "lr": 0.1}], [GRADS[:2], GRADS[2]])
    opt = fastadam.Adam(x)
    opt.step()
    x.parameters = [{"params": [p.copy() for p in x.parameters[0]["params"]]}, {"params": x.parameters[1]["params"]}]
    opt.step()
    opt.step()
    np.testing.assert_array_equal(x.parameters[0]["params"][1], EXPECTED[1])
    np.testing.assert_array_equal(x.parameters[1]["params"], stepped(C, GRADS[2], lr=0.1))
    assert [len(group["params"]) for group in opt.param_groups] == [2, 1]


@pytest.mark.parametrize("layout", ["F", "transposed", "strided", "negative", "misaligned"])
def test_articles_face_in_any_layout(layout):
    base = np.arange(24.0).reshape(4, 6)
    results = []
    for p in (base.copy(), views(base)[layout]):
        x = Instance(p, np.cos(base))
        optimizer = article.Adam(x, alpha=0.1)
        for _ in range(3):
            optimizer.step()
            optimizer.m = optimizer.m.copy(order="F")
        x.grad = np.asfortranarray(np.cos(base)) * 2
        optimizer.step()
        results.append((p, optimizer.m))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
