"""JAX pytrees stepped in place: compared with optax; shared memory, and its remaining readers."""

import copy
import inspect
import pickle
import threading
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402
from cases import BY_RULE, DTYPES  # noqa: E402
from conftest import python  # noqa: E402

import fastadam  # noqa: E402
import fastadam.adapters.jax as adapter  # noqa: E402
from fastadam.adapters._lent import Memory  # noqa: E402
from fastadam.optimizers import CLASSES  # noqa: E402


class Layer(NamedTuple):
    W: object
    b: object


def model(dtype="float32"):
    rng = np.random.default_rng(0)
    new = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    return {"layers": [Layer(new(7, 5), new(5)), Layer(new(5, 300), new(300))], "scale": new(), "none": new(0, 3)}


def gradient(params, t=1):
    return jax.tree.map(lambda p: jnp.cos(p * 3 + t), params)


def plain(tree):
    """Copies of the leaves, in NumPy."""
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def equal(some, others):
    for a, b in zip(plain(some), plain(others), strict=True):
        np.testing.assert_array_equal(a, b)


def address(array):
    return array.unsafe_buffer_pointer()


@contextmanager
def doubles(wanted):
    """JAX with float64, within the block."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", wanted)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@jax.jit
def slow(x, other):
    """Reads x after some hundred milliseconds with another array."""
    return (jax.lax.fori_loop(0, 150, lambda k, y: jnp.sin(y) + other, other) + x).sum()


# ---------------------------------------------------------------- numbers

PAIRS = {
    "Adam": ({"lr": 0.01}, lambda: optax.adam(0.01)),
    "AdamW": ({"lr": 0.01, "weight_decay": 0.1}, lambda: optax.adamw(0.01, weight_decay=0.1)),
    "SGD": ({"lr": 0.01, "momentum": 0.9, "nesterov": True}, lambda: optax.sgd(0.01, 0.9, nesterov=True)),
    "Lion": ({"lr": 0.01, "weight_decay": 0.1}, lambda: optax.lion(0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_of_optax(name):
    options, peer = PAIRS[name]
    params, peer = model(), peer()
    opt, state = getattr(adapter, name)(params, **options), peer.init(params)
    theirs, ours = params, opt.params
    for t in range(50):
        updates, state = peer.update(gradient(theirs, t), state, theirs)
        theirs, ours = optax.apply_updates(theirs, updates), opt.step(gradient(ours, t))
    for a, b in zip(plain(ours), plain(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rule", sorted(BY_RULE.keys() - {"average"}))
def test_bits_signature_and_defaults_of_the_class(rule):
    cls, options = BY_RULE[rule]
    ours = getattr(adapter, cls.__name__)
    assert inspect.signature(ours) == inspect.signature(cls)
    opt = ours(model(), **options)
    arrays = plain(opt.params)
    other = cls(arrays, **options)
    for t in range(5):
        grads = gradient(opt.params, t)
        equal(opt.step(grads), (other.step(plain(grads)), arrays)[1])
    assert ours.__name__ == cls.__name__
    assert opt.t == 5


def test_every_class_is_there():
    assert all(issubclass(getattr(adapter, name), cls) for name, cls in CLASSES.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64", *DTYPES])
def test_dtypes(dtype):
    with doubles(dtype == "float64"):
        params = {"a": jnp.ones((3, 4), dtype), "b": jnp.ones((), dtype)}
        opt = adapter.Adam(params, lr=0.1)
        new = opt.step(jax.tree.map(jnp.ones_like, params))
        assert new["a"].dtype == dtype
        arrays = [np.ones((3, 4), new["a"].dtype), np.ones((), new["a"].dtype)]
        fastadam.Adam(arrays, lr=0.1).step([np.ones_like(a) for a in arrays])
        equal(new, arrays)


def test_options_of_a_step():
    options = {"grad_scale": 4.0, "max_norm": 0.5}
    opt, arrays = adapter.Adam(model(), lr=0.1), plain(model())
    grads, other = gradient(opt.params), fastadam.Adam(arrays, lr=0.1)
    other.step(plain(grads), **options)
    equal(opt.step(grads, **options), arrays)
    assert opt.grad_norm == other.grad_norm
    before = plain(opt.params)
    bad = jax.tree.map(lambda g: g * jnp.nan, grads)
    equal(opt.step(bad, skip_nonfinite=True), before)
    assert opt.skipped == 1


def test_no_gradient_leaves_a_parameter():
    opt = adapter.Adam({"a": jnp.ones(3), "b": jnp.ones(3)}, lr=0.1)
    new = opt.step({"a": None, "b": jnp.ones(3)})
    assert (new["a"] == 1).all()
    assert (new["b"] < 1).all()


def test_options_and_schedules():
    opt = adapter.Adam(jnp.ones(3), lr=lambda t: 0.1 * t)
    assert opt.step(jnp.ones(3))[0] == pytest.approx(0.9)
    opt.lr = 0.0
    assert opt.step(jnp.ones(3))[0] == pytest.approx(0.9)
    assert list(opt.state_dict()["steps"]) == ["0"]


def test_a_jitted_loop_compiles_once():
    compiled = []

    @jax.jit
    def grads(p):
        compiled.append(1)
        return jax.grad(lambda p: (p["x"] ** 2).sum())(p)

    opt = adapter.Adam({"x": jnp.ones(100)}, lr=0.1)
    params = opt.params
    for _ in range(100):
        params = opt.step(grads(params))
    assert len(compiled) == 1
    assert abs(params["x"]).max() < 0.1


# ---------------------------------------------------------------- memory


def test_steps_are_in_place_and_old_arrays_are_deleted():
    given = model()
    opt = adapter.Adam(given)
    old, at = opt.params, [*map(address, jax.tree.leaves(opt.params))]
    kept = plain(given)
    for _ in range(20):
        new = opt.step(gradient(given))
    assert [*map(address, jax.tree.leaves(new))] == at
    with pytest.raises(RuntimeError, match="deleted"):
        old["scale"] + 1
    equal(given, kept)
    assert jax.tree.structure(new) == jax.tree.structure(given)


def test_a_computation_that_still_reads_gets_the_old_numbers():
    x = jnp.full(1_000_000, 1e-3)
    expected = slow(x, x).block_until_ready()
    opt = adapter.SGD(x, lr=1.0)
    running = slow(opt.params, x)  # reads while the steps below are made
    at = address(opt.params)
    new = opt.step(np.ones(1_000_000, np.float32))  # of JAX a gradient would be computed after that
    assert not running.is_ready()
    assert running == expected
    assert new[0] == jnp.float32(1e-3) - 1
    assert address(new) != at


def test_every_step_is_seen_as_it_was_handed_out():
    """Computations that nobody waits for, each on the parameters of another step."""
    ends = jax.jit(lambda x: (x.min(), x.max()))
    opt, one = adapter.SGD(jnp.zeros(300_000), lr=1.0), np.ones(300_000, np.float32)
    found = [ends(opt.step(one)) for _ in range(200)]
    assert found == [(-t, -t) for t in range(1, 201)]


@pytest.mark.parametrize("view", [np.asarray, np.from_dlpack])
def test_a_view_keeps_the_old_numbers(view):
    opt = adapter.SGD(jnp.ones(1000), lr=1.0)
    seen, at = view(opt.params), address(opt.params)
    new = opt.step(jnp.ones(1000))
    assert (seen == 1).all()
    assert (np.asarray(new) == 0).all()
    assert address(new) != at
    assert address(opt.step(jnp.ones(1000))) == address(opt.params)


def test_the_parameters_are_their_own_gradients():
    opt = adapter.SGD(jnp.ones(1000), lr=0.5)
    assert (opt.step(opt.params) == 0.5).all()
    assert (opt.step(opt.params) == 0.25).all()


def test_a_donated_parameter():
    opt = adapter.SGD(jnp.ones(1000), lr=1.0)
    doubled = jax.jit(lambda x: x * 2, donate_argnums=0)(opt.params)
    new = opt.step(jnp.ones(1000))
    assert (new == 0).all()
    assert (doubled == 2).all()


def test_arrays_outlive_the_optimizer():
    params = adapter.SGD(jnp.ones(1000), lr=1.0).params
    np.full(1000, 5.0)
    assert (params == 1).all()


def test_memory_knows_that_it_is_lent():
    memory = Memory("float32", (3, 2))
    assert not memory.is_lent
    capsule = memory.__dlpack__()
    assert memory.is_lent
    del capsule
    assert not memory.is_lent
    array = jax.dlpack.from_dlpack(memory)
    assert memory.is_lent
    assert address(array) == memory.array.ctypes.data
    assert array.shape == (3, 2)
    del array
    assert not memory.is_lent


@pytest.mark.parametrize("last", ["jax.jit(lambda x: x + 1, donate_argnums=0)(opt.params)", "slow(opt.params)"])
def test_a_process_ends_while_computations_read(last, tmp_path):
    code = f"""
import jax, jax.numpy as jnp, fastadam.adapters.jax as adapter
slow = jax.jit(lambda x: jax.lax.fori_loop(0, 50, lambda k, y: jnp.sin(y) + x, x).sum())
opt = adapter.Adam(jnp.ones(100_000))
kept = {last}
opt.step(jnp.ones(100_000))
print("ends")
"""
    assert python("-W", "ignore", "-c", code, cwd=tmp_path) == "ends\n"


def test_taken_back():
    opt = adapter.Adam({"x": jnp.ones(3)})
    with opt.taken_back() as arrays:
        arrays["x"][0] = 5
        with pytest.raises(RuntimeError, match="wait"):
            opt.step({"x": jnp.ones(3)})
    assert opt.params["x"].tolist() == [5, 1, 1]


def test_one_thread_at_a_time():
    opt, met, errors = adapter.Adam(jnp.ones(3)), threading.Barrier(2), []

    def rate(t):
        if t == 2:
            met.wait()
            met.wait()
        return 0.1

    opt.lr = rate
    opt.step(jnp.ones(3))
    thread = threading.Thread(target=opt.step, args=(jnp.ones(3),))
    thread.start()
    met.wait()
    try:
        opt.step(jnp.ones(3))
    except RuntimeError as error:
        errors.append(str(error))
    met.wait()
    thread.join()
    assert "inside a step" in errors[0]
    assert opt.t == 2


# ---------------------------------------------------------------- copies and checkpoints


@pytest.mark.parametrize("way", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_go_on_alone(way):
    opt = adapter.AdamW(model(), lr=0.1)
    opt.step(gradient(opt.params))
    other, kept = way(opt), plain(opt.params)
    grads = gradient(opt.params, 2)
    new = other.step(grads)
    equal(opt.params, kept)
    equal(opt.step(grads), new)
    assert address(other.params["scale"]) % 64 == 0
    other.step(grads)
    equal(other.params, other.core.plan.params[: len(plain(grads))])


def test_a_checkpoint_goes_on_here_and_in_numpy(tmp_path):
    opt = adapter.Adam(model(), lr=0.1)
    opt.step(gradient(opt.params))
    opt.save(tmp_path / "saved.npz", params=True)
    again = adapter.Adam(jax.tree.map(jnp.zeros_like, model()))
    old = again.params
    assert again.load(tmp_path / "saved.npz").params
    assert old["scale"].is_deleted()
    equal(again.params, opt.params)
    keys = list(opt.state_dict()["steps"])
    assert keys == ["layers.0.W", "layers.0.b", "layers.1.W", "layers.1.b", "none", "scale"]
    arrays = dict(zip(keys, map(np.zeros_like, plain(model())), strict=True))
    in_numpy = fastadam.Adam(arrays)
    in_numpy.load(tmp_path / "saved.npz")
    grads = gradient(opt.params, 2)
    in_numpy.step(dict(zip(keys, plain(grads), strict=True)))
    equal(opt.step(grads), list(arrays.values()))
    equal(again.step(grads), list(arrays.values()))


# ---------------------------------------------------------------- what is refused


def test_a_schedule_that_fails_changes_no_number():
    opt = adapter.Adam(jnp.ones(3), lr=lambda t: -1.0)
    with pytest.raises(ValueError, match=r"lr\(1\)"):
        opt.step(jnp.ones(3))
    assert opt.params.tolist() == [1, 1, 1]
    assert opt.t == 0


REFUSED = {
    "structure": (lambda opt: opt.step({"y": jnp.ones(3)}), ValueError, "x"),
    "shape": (lambda opt: opt.step({"x": jnp.ones(4)}), ValueError, "shape"),
    "complex": (lambda opt: opt.step({"x": jnp.ones(3, complex)}), TypeError, "real"),
    "option": (lambda opt: opt.step({"x": jnp.ones(3)}, max_norm=-1), ValueError, "max_norm"),
    "unknown": (lambda opt: opt.step({"x": jnp.ones(3)}, clip=1), TypeError, "clip"),
    "traced": (lambda opt: jax.jit(opt.step)({"x": jnp.ones(3)}), TypeError, "outside of jax.jit"),
    "zeros": (lambda opt: opt.step({"x": jnp.ones(3)}, zero_grads=True), ValueError, "zero_grads"),
    "swapped": (lambda opt: opt.swapped(), TypeError, "opt.state"),
    "stepping": (lambda opt: opt.stepping(grad_scale=2.0), TypeError, "step\\(grads\\)"),
    "replace": (lambda opt: opt.replace("x", np.ones(4)), TypeError, "new optimizer"),
    "group": (lambda opt: opt.add_param_group({"params": jnp.ones(3)}), TypeError, "second optimizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_changes(case):
    call, kind, words = REFUSED[case]
    opt = adapter.Adam({"x": jnp.ones(3)})
    params = opt.params
    with pytest.raises(kind, match=words):
        call(opt)
    assert opt.t == 0
    assert params["x"].tolist() == [1, 1, 1]
    assert opt.step({"x": jnp.ones(3)})["x"][0] < 1


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"x": jnp.arange(3)}, TypeError, "x: "),
        ({"x": "text"}, TypeError, "x: "),
        ({"x": 1.0}, TypeError, "x: "),
        ({}, ValueError, "at least one array"),
        ({"x": np.ones(3)}, TypeError, "jax_enable_x64"),
    ],
)
def test_refused_parameters(params, kind, words):
    with pytest.raises(kind, match=words):
        adapter.Adam(params)


def test_bound_gradients_are_refused():
    with pytest.raises(TypeError, match="grads"):
        adapter.Adam(jnp.ones(3), grads=jnp.ones(3))


def test_other_devices_are_refused(tmp_path):
    code = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, fastadam.adapters.jax as adapter
from jax.sharding import Mesh, NamedSharding, PartitionSpec
over = NamedSharding(Mesh(jax.devices(), "i"), PartitionSpec("i"))
opt = adapter.Adam(jnp.ones(4))
for place in (over, jax.devices()[1]):
    for call in (lambda x: adapter.Adam(x), opt.step):
        try:
            call(jax.device_put(jnp.ones(4), place))
        except TypeError as error:
            print(str(error), opt.params.is_deleted())
"""
    lines = python("-c", code, cwd=tmp_path).splitlines()
    assert len(lines) == 4
    assert all("jax.device_put" in line and line.endswith("False") for line in lines)
    assert ["lies on 2 devices;" in line for line in lines] == [True, True, False, False]
    assert [" devices;" in line for line in lines] == [True, True, False, False]
