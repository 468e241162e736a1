"""A state that is read-only is refused before anything changes, as a read-only parameter is."""

from typing import Any

import inside
import numpy as np
import pytest

import fastadam

BACKENDS = ["cython", "numpy"]


def snapshot(opt: Any) -> Any:
    return [array.tobytes() for array in (*opt.params, *opt.state["m"], *opt.state["v"])], opt.t


def with_one(name: str, backend: str = "cython", n: int = 3, **more: Any) -> fastadam.Adam:
    """An optimizer after a step, with a state that has become read-only."""
    params = [np.ones(n, np.float32), np.ones(n, np.float32)]
    opt = fastadam.Adam(params, backend=backend, **more)
    opt.step([np.ones(n, np.float32)] * 2)
    opt.state[name][1].flags.writeable = False
    return opt


def in_parts(opt: Any, grads: Any) -> None:
    with opt.stepping() as step:
        step("1", grads[1])


CALLS = {
    "step": lambda opt, grads: opt.step(grads),
    "step to the end of a norm": lambda opt, grads: opt.step(grads, max_norm=1.0, skip_nonfinite=True),
    "stepping": in_parts,
    "reset": lambda opt, grads: opt.reset(),
    "reset of one": lambda opt, grads: opt.reset(["1"]),
    "load": lambda opt, grads: opt.load_state_dict(opt.state_dict()),
    "assignment": lambda opt, grads: opt.state.update(m=grads, v=grads),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["m", "v"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [3, 50_000])
def test_refused(call: str, name: str, backend: str, n: int) -> None:
    opt = with_one(name, backend, n)
    grads, before = [np.ones(n, np.float32)] * 2, snapshot(opt)
    with pytest.raises(ValueError, match="read-only"):
        CALLS[call](opt, grads)
    if call != "assignment" or name == "m":
        assert snapshot(opt) == before
    opt.state[name][1].flags.writeable = True
    opt.step(grads)
    assert opt.t == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_message_of_a_step(backend: str) -> None:
    opt = with_one("v", backend)
    with pytest.raises(ValueError, match=r"a state of params\[1\]: the array is read-only and would be"):
        opt.step([np.ones(3, np.float32)] * 2)


def test_bound_gradients() -> None:
    grads = [np.ones(3), np.ones(2)]
    opt = fastadam.Adam([np.ones(3), np.ones(2)], grads=grads)
    opt.step()
    opt.state["m"][0].flags.writeable = False
    with pytest.raises(ValueError, match=r"a state of params\[0\]: the array is read-only"):
        opt.step()
    assert opt.t == 1


def test_a_master_weight() -> None:
    p = np.ones(3, np.float16)
    opt = fastadam.Adam([p], master_weights=True)
    opt.step([np.ones(3, np.float16)])
    opt.state["master"][0].flags.writeable = False
    before = p.copy()
    with pytest.raises(ValueError, match="read-only"):
        opt.step([np.ones(3, np.float16)])
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("what", ["parameter", "state"])
def test_rows_that_lag(what: str) -> None:
    opt = fastadam.AdamW([p := np.ones((4, 2))], rows="exact")
    for row in (1, 0):
        opt.step([fastadam.Rows([row], np.ones((1, 2)))])
    state, before = inside.state_arrays(opt)[0], p.copy()  # a read of opt.state would make up
    array = p if what == "parameter" else state
    array.flags.writeable = False
    for call in (opt.flush, opt.state_dict, lambda: opt.step([np.ones((4, 2))])):
        with pytest.raises(ValueError, match="read-only"):
            call()
        np.testing.assert_array_equal(p, before)
    array.flags.writeable = True
    opt.flush()
    assert (p != before).any()


def test_an_average_in_place_of_the_parameters() -> None:
    opt = fastadam.ASGD([p := np.ones(3)], t0=0)
    opt.step([np.ones(3)])
    opt.state["ax"][0].flags.writeable = False
    before = p.copy()
    with pytest.raises(ValueError, match=r"ax of params\[0\]: the array is read-only"), opt.swapped():
        pass
    np.testing.assert_array_equal(p, before)


def test_states_in_a_folder(tmp_path: Any) -> None:
    opt = with_one("m", state_dir=tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        opt.step([np.ones(3, np.float32)] * 2)
