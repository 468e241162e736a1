"""Optimizers that arrive with read-only arrays, as from joblib or out-of-band pickles, can step, and so can arrays that
other objects of the same pickle refer to. test_processes.py has joblib's own processes.
"""

import pickle
from types import SimpleNamespace
from typing import Any, NamedTuple

import inside
import numpy as np
import pytest

import fastadam
from fastadam.adapters import article


def arrived(value: Any) -> Any:
    """What a process gets that is handed the memory of all arrays read-only."""
    kept: list[pickle.PickleBuffer] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=kept.append)
    assert kept
    return pickle.loads(text, buffers=[bytes(buffer.raw()) for buffer in kept])


class Layer(NamedTuple):
    W: np.ndarray
    b: np.ndarray


def fortran() -> np.ndarray:
    return np.asfortranarray(np.arange(6.0).reshape(2, 3))


#: makes a structure of two arrays, of shapes (2, 3) and (4,), in the order of `leaves`
STRUCTURES = {
    "list": lambda: [fortran(), np.ones(4)],
    "tuple": lambda: (fortran(), np.ones(4)),
    "named tuple": lambda: Layer(fortran(), np.ones(4)),
    "dict": lambda: {"W": fortran(), "b": np.ones(4)},
    "pairs": lambda: [("W", fortran()), ("b", np.ones(4))],
    "nested": lambda: {"layers": [{"W": fortran()}, (np.ones(4),)]},
    "groups": lambda: [{"params": fortran()}, {"params": [np.ones(4)], "lr": 0.2}],
    "float32": lambda: [fortran().astype("f4"), np.ones(4, "f4")],
}


def leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [leaf for part in parts for leaf in leaves(part)]


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_came_with_an_optimizer_is_what_is_stepped(name):
    """Every array of a structure that arrives beside the optimizer is the optimizer's own, before and after."""
    params = STRUCTURES[name]()
    opt = fastadam.Adam(params, lr=0.1)
    grads = STRUCTURES[name]()
    opt.step(grads)
    also, came, first = arrived((params, opt, leaves(params)[0]))
    assert first is leaves(also)[0]
    assert inside.planned(came)[0] is first
    for one in (opt, came):
        one.step(grads)
    for ours, theirs in zip(leaves(also), leaves(params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    for ours, theirs in zip(inside.state_arrays(came), inside.state_arrays(opt), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert came.t == 2


def test_bound_gradients():
    w, g = np.ones(4), np.ones(4)
    came, sent = arrived((fastadam.Adam([w], grads=[g]), g))
    sent[...] = 3.0
    came.step(zero_grads=True)
    np.testing.assert_array_equal(sent, 0)
    sent[...] = 1.0
    came.zero_grad()
    np.testing.assert_array_equal(sent, 0)
    assert came.t == 1


def test_an_array_of_several_owners_stays_one():
    w, g = np.ones(4), np.ones(4)
    a, b = arrived((fastadam.Adam([w], grads=[g]), fastadam.Adamax([w], grads=[g])))
    assert inside.planned(a)[0] is inside.planned(b)[0]
    a.step()
    b.step()
    assert (inside.planned(a)[0] < 1 - 1e-3).all()  # two steps of a thousandth or more


def test_the_object_and_its_gradient():
    owner = SimpleNamespace(parameters=np.ones(4), grad=np.ones(4))
    came, own = arrived((fastadam.Adam(owner, lr=0.5), owner))
    came.step()
    came.zero_grad()
    np.testing.assert_allclose(own.parameters, 0.5)
    np.testing.assert_array_equal(own.grad, 0)


def test_master_weights_and_counts():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    params = [np.ones(4, bfloat16) for _ in range(3)]
    opt = fastadam.Adam(params, lr=1e-4, master_weights=True, state_dtype="bfloat16")
    came = arrived(opt)
    for one in (opt, came):
        for _ in range(3):
            one.step([np.ones(4, bfloat16)] * 3)
    for ours, theirs in zip(inside.state_arrays(came), inside.state_arrays(opt), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_states_of_8_bits():
    params = [np.asfortranarray(np.ones((20, 30), np.float32)), np.ones(300, np.float32)]
    opt = fastadam.Adam(params, state_dtype="int8", min_8bit_size=1)
    opt.step([np.cos(np.arange(600)).reshape(20, 30), np.ones(300)])
    came = arrived(opt)
    for one in (opt, came):
        one.step([np.ones((20, 30)), np.arange(300)])
    for ours, theirs in zip(inside.state_arrays(came), inside.state_arrays(opt), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_views_of_what_arrived_stay_readable():
    """An array without memory of its own gets some; what looks into the old memory still does."""
    array = np.frombuffer(bytes(range(16)), np.float32)
    view = array[1:]
    before = view.copy()
    inside.arrived.make_writeable([array])
    array[...] = 1.0
    np.testing.assert_array_equal(view, before)
    assert array.flags.owndata


@pytest.mark.parametrize("cls", [article.Adam, article.AdaDelta])
def test_the_articles_class(cls):
    owner = SimpleNamespace(parameters=np.ones(4), grad=np.ones(4))
    opt = cls(owner)
    opt.step()
    came, own = arrived((opt, owner))
    for one in (opt, came):
        one.step()
    np.testing.assert_array_equal(own.parameters, owner.parameters)
    assert came.timestep == 2


def test_thincs_optimizer():
    pytest.importorskip("thinc")
    from fastadam.adapters.thinc import Adam

    opt, w = Adam(0.1, use_averages=True), np.ones(4, "f4")
    opt((1, "W"), w, np.ones(4, "f4"))
    came, own = arrived(opt), w.copy()
    for one, weights in ((opt, w), (came, own)):
        one((1, "W"), weights, np.ones(4, "f4"))
    np.testing.assert_array_equal(own, w)
    np.testing.assert_array_equal(came.averages[1, "W"], opt.averages[1, "W"])
