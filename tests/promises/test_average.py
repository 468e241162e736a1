"""Averages of weights: the results of `Average`, changes of the model that it follows, and its files. The exchange by
`swapped`, for an average and for an optimizer that keeps one: both are restored bit for bit after any block.
"""

import copy
import io
import pickle
import shutil
import signal
import threading
import tracemalloc
from collections import namedtuple
from types import SimpleNamespace

import inside
import ml_dtypes
import numpy as np
import pytest

import fastadam

Pair = namedtuple("Pair", "W b")
DTYPES = ["float32", "float64", "float16", ml_dtypes.bfloat16, "complex64", "complex128"]
SHAPES = [(40, 1000), (7, 3), (), (0, 4)]
LAYOUTS = {
    "C": np.copy,
    "F": lambda a: a.copy("F"),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "reversed": lambda a: np.repeat(a, 2, axis=0)[::-2] if a.ndim else a,
}


def models(dtype, steps, layout=np.copy):
    """A model's arrays at each of `steps` updates: other arrays each time, some of them NaN and infinite."""
    rng = np.random.default_rng(0)
    for t in range(steps):
        found = [rng.standard_normal(shape) for shape in SHAPES]
        if np.dtype(dtype).kind == "c":
            found = [a + 1j * rng.standard_normal(a.shape) for a in found]
        found[0][t, :3] = np.nan, np.inf, -0.0
        yield [layout(np.asarray(a).astype(dtype)) for a in found]


def reals(array):
    """The same numbers in a row, a complex one as two."""
    return np.ascontiguousarray(array).reshape(-1).view(array.real.dtype)


def averaged(arrays, decay, first, dtype):
    """The formula of the docstring, in NumPy, in the dtype that averages are kept in, as `reals`."""
    averages = [reals(a.astype(dtype)) for a in arrays[0]]
    for t, now in enumerate(arrays, 1):
        w = 1.0 if t <= first else 1 / (t - first + 1) if decay is None else 1 - decay
        with np.errstate(invalid="ignore"):
            pairs = [(a, reals(n.astype(dtype))) for a, n in zip(averages, now, strict=True)]
            averages = [n if w == 1 else a + a.dtype.type(w) * (n - a) for a, n in pairs]
    return averages


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        a, b = reals(a), reals(b)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("how", [{}, {"decay": None}, {"decay": 0.75, "first": 3}, {"decay": None, "first": 2}])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_is_the_formula_to_the_bit(dtype, how):
    kept = np.float32 if np.dtype(dtype).itemsize == 2 else np.dtype(dtype)
    expected = averaged(list(models(dtype, 5)), how.get("decay", 0.999), how.get("first", 1), kept)
    for n_threads in (1, 2):
        for layout in LAYOUTS.values():
            arrays = next(models(dtype, 1, layout))
            avg = fastadam.Average(arrays, **how, n_threads=n_threads)
            for now in models(dtype, 5):
                for p, n in zip(arrays, now, strict=True):
                    p[...] = n
                avg.update()
            assert {average.dtype for average in avg.params} == {np.dtype(kept)}
            same(map(reals, avg.params), expected)
            assert avg.t == 5


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_backends_give_the_same_bits(backend):
    made = []
    for chosen in ("cython", backend):
        arrays = next(models("float32", 1))
        avg = fastadam.Average(arrays, 0.9, first=2, backend=chosen)
        for now in models("float32", 5):
            arrays[:] = now
            avg.update()
        with avg.swapped():
            made.append([p.copy() for p in arrays])
    same(*made)


@pytest.mark.parametrize("decay", [0.999, 0.0, 1.0, None])
def test_is_torchs_averaged_model(decay):
    torch = pytest.importorskip("torch")
    swa_utils = torch.optim.swa_utils
    model = torch.nn.Linear(5, 3)
    multi = None if decay is None else swa_utils.get_ema_multi_avg_fn(decay)
    theirs = swa_utils.AveragedModel(model, multi_avg_fn=multi)
    ours = fastadam.Average({name: p.detach().numpy() for name, p in model.named_parameters()}, decay)
    for t in range(20):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.sin(p + t)
        theirs.update_parameters(model)
        ours.update()
        for name, p in theirs.module.named_parameters():
            np.testing.assert_allclose(ours.params[name], p.detach().numpy(), rtol=1e-6, atol=1e-7)


def test_an_update_is_exact_where_nothing_is_left_of_the_average():
    p = np.array([np.inf, np.nan, -0.0, 1e30], np.float32)
    for avg in (fastadam.Average(p), fastadam.Average(p, decay=0), fastadam.Average(p, decay=None, first=9)):
        avg.params[...] = np.nan
        for _ in range(1 if avg.decay else 3):
            avg.update()
        assert avg.params.tobytes() == p.tobytes()


def test_options_are_assigned_and_groups_have_their_own():
    a, b = np.zeros(2), np.zeros(2)
    given = [{"params": a, "lr": 0.1, "frozen": True}, {"params": {"b": b}, "decay": 0.5, "name": "head"}]
    avg = fastadam.Average(given, 0.75)
    assert [group["decay"] for group in avg.param_groups] == [0.75, 0.5]
    avg.update()
    a += 1
    b += 1
    avg.update()
    assert avg.params[0]["params"].tolist() == [0.25] * 2
    assert avg.params[1]["params"]["b"].tolist() == [0.5] * 2
    avg.decay = None
    avg.update()
    np.testing.assert_array_equal(avg.params[0]["params"], np.full(2, 0.25 + 0.75 * (1 / 3)))
    avg.param_groups[0]["frozen"] = True
    avg.update()
    np.testing.assert_array_equal(avg.params[0]["params"], np.full(2, 0.25 + 0.75 * (1 / 3)))
    assert list(avg.state_dict()["steps"].items()) == [("0.0", 3), ("head.b", 4)]


# ---------------------------------------------------------------- what is followed


class Holder:
    def __init__(self, parameters):
        self.parameters, self.grad = parameters, None


STRUCTURES = {
    "array": lambda a, b: a,
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, (b,)),
    "dict": lambda a, b: {"layers": [{"W": a}, {"b": b}]},
    "named tuple": lambda a, b: {"net": Pair(a, b)},
    "pairs": lambda a, b: [("W", a), ("b", b)],
    "generator": lambda a, b: (x for x in (a, b)),
    "groups": lambda a, b: [{"params": [a]}, {"params": {"b": b}}],
    "object": lambda a, b: Holder({"W": a, "b": b}),
    "object of groups": lambda a, b: Holder([{"params": [a]}, {"params": [b]}]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_any_structure(name):
    a, b = np.zeros(3), np.zeros(2)
    given = STRUCTURES[name](a, b)
    avg = fastadam.Average(given, 0.5)
    twin = fastadam.Adam(STRUCTURES[name](a, b))
    assert inside.keys(avg) == inside.keys(twin)
    for t in range(3):
        a[...], b[...] = t, -t
        avg.update()
    assert [p.tolist() for p in inside.planned(avg)] == [[1.25] * 3, [-1.25] * 2][: len(inside.keys(avg))]
    with avg.swapped():
        assert a.tolist() == [1.25] * 3
    again = pickle.loads(pickle.dumps((given, avg) if name != "generator" else (None, avg)))[1]
    again.update()
    avg.update()
    same(inside.planned(again), inside.planned(avg))


def test_averages_stand_under_the_paths_of_the_structure():
    a, b = np.zeros(3), np.zeros(2)
    assert fastadam.Average({"layers": [{"W": a}, (b,)]}).params["layers"][1][0].shape == (2,)
    assert fastadam.Average(a).params.shape == (3,)
    assert fastadam.Average(Holder({"W": a})).params["W"].shape == (3,)


def test_another_array_and_none_are_followed():
    params = {"W": np.zeros(3), "b": np.zeros(2)}
    avg = fastadam.Average(params, 0.5)
    avg.update()
    params["W"] = np.ones(3)
    params["b"] = None
    avg.update()
    assert avg.params["W"].tolist() == [0.5] * 3
    assert avg.params["b"].tolist() == [0.0] * 2
    assert list(avg.state_dict()["steps"].values()) == [2, 1]
    with avg.swapped():
        assert params["W"].tolist() == [0.5] * 3
        assert avg.params["b"].tolist() == [0.0] * 2
    params["b"] = np.full(2, 8.0)
    avg.update()
    assert avg.params["b"].tolist() == [4.0] * 2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_array_grows(dtype):
    params = {"E": np.arange(6, dtype=dtype).reshape(3, 2), "b": np.zeros(2, dtype)}
    avg = fastadam.Average(params, 0.5)
    avg.update()
    params["E"] += 2
    avg.update()
    grown = np.vstack([params["E"], np.full((1, 2), 9, dtype)])
    params["E"] = grown
    with pytest.raises(ValueError, match=r"params\['E'\]: expected the shape \(3, 2\) of its average, got \(4, 2\); "):
        avg.update()
    avg.replace("E", grown, rows=[2, 1, 0, -1])
    assert avg.params["E"].tolist() == [[5, 6], [3, 4], [1, 2], [9, 9]]
    assert avg.params["E"].dtype == np.float32
    avg.update()
    assert avg.params["E"].tolist() == [[3.5, 4.5]] * 3 + [[9, 9]]
    assert avg.t == 3
    avg.replace("E", np.ones((1, 5), dtype), rows=-1)
    assert params["E"].shape == (1, 5)
    avg.update()
    assert list(avg.state_dict()["steps"].values()) == [1, 4]


def test_a_lone_array_is_replaced():
    avg = fastadam.Average(np.zeros(2), 0.5)
    avg.update()
    new = np.full(3, 4.0)
    avg.replace("0", new, rows=[0, 1, -1])
    avg.update()
    assert avg.params.tolist() == [2.0, 2.0, 4.0]
    with avg.swapped():
        assert new.tolist() == [2.0, 2.0, 4.0]


def test_reset():
    params = [np.zeros(2), np.zeros(3)]
    avg = fastadam.Average(params, 0.5)
    for _ in range(3):
        params[0] += 1
        params[1] += 1
        avg.update()
    avg.reset("1")
    assert avg.t == 3
    assert avg.params[1].tolist() == [3.0] * 3
    assert avg.params[0].tolist() == [2.25] * 2
    avg.reset()
    assert avg.t == 0
    assert avg.params[0].tolist() == [3.0] * 2
    params[0] += 1
    avg.update()
    assert avg.params[0].tolist() == [4.0] * 2


# ---------------------------------------------------------------- checkpoints and copies


def trained(steps=4, dtype="float32", **how):
    params = {"W": np.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "b": np.ones(2, dtype)}
    avg = fastadam.Average(params, **{"decay": 0.5, **how})
    go_on(params, avg, range(steps))
    return params, avg


def go_on(params, avg, steps):
    for t in steps:
        for p in params.values():
            p += p.dtype.type(np.sin(t))
        avg.update()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_goes_on_from_a_file(tmp_path, suffix, dtype):
    params, avg = trained(4, dtype)
    avg.save(tmp_path / f"avg{suffix}")
    other, again = trained(0, dtype, decay=None)
    for name, p in params.items():
        other[name][...] = p
    told = again.load(tmp_path / f"avg{suffix}")
    assert (told.missing, again.decay, again.t) == ([], 0.5, 4)
    for pair in ((params, avg), (other, again)):
        go_on(*pair, range(4, 7))
    same(again.params.values(), avg.params.values())


@pytest.mark.parametrize("way", ["dict", "pickle", "deepcopy", "open file"])
def test_goes_on_from(way):
    params, avg = trained()
    if way in ("pickle", "deepcopy"):
        both = (params, avg)
        other, again = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
    else:
        other, again = trained(0)
        for name, p in params.items():
            other[name][...] = p
        if way == "dict":
            again.load_state_dict(avg.state_dict())
        else:
            file = io.BytesIO()
            avg.save(file)
            file.seek(0)
            again.load(file)
    for pair in ((params, avg), (other, again)):
        go_on(*pair, range(4, 7))
    same(again.params.values(), avg.params.values())
    with again.swapped():
        same(other.values(), avg.params.values())


def test_a_checkpoint_fits_in_part(tmp_path):
    _, avg = trained()
    avg.save(tmp_path / "avg.npz")
    other = {"W": np.zeros((2, 3), np.float32), "c": np.zeros(2)}
    told = (again := fastadam.Average(other)).load(tmp_path / "avg.npz", strict=False)
    assert (told.missing, told.unexpected) == (["c"], ["b"])
    np.testing.assert_array_equal(again.params["W"], avg.params["W"])


# ---------------------------------------------------------------- swapped


def of_average(arrays, n_threads):
    avg = fastadam.Average(arrays, n_threads=n_threads)
    avg.update()
    return avg


def of_asgd(arrays, n_threads, **how):
    return fastadam.ASGD(arrays, lr=0.5, t0=0, n_threads=n_threads, **how)


def of_schedule_free(arrays, n_threads):
    return fastadam.ScheduleFreeAdamW(arrays, n_threads=n_threads)


def kept(opt):
    """The averages."""
    return opt.state[opt.average] if opt.average else inside.planned(opt)


def strange(shape, dtype, layout):
    """Bits of any kind: denormal numbers, NaNs with what they carry, both zeros."""
    kind = np.dtype(dtype)
    n = int(np.prod(shape)) * kind.itemsize
    return layout(np.random.default_rng(n).integers(0, 256, n, np.uint8).view(kind).reshape(shape))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("make", [of_average, of_asgd, of_schedule_free])
def test_exchanges_every_bit_and_back(make, dtype, layout):
    for n_threads in (1, 2):
        arrays = [strange(shape, dtype, LAYOUTS[layout]) for shape in SHAPES]
        opt = make(arrays, n_threads)
        if opt.average:
            opt.step([np.zeros_like(p) for p in arrays])
            for p in arrays:
                p[...] = strange(p.shape, dtype, LAYOUTS[layout])
        for k, average in enumerate(kept(opt)):
            average[...] = strange(average.shape, dtype, np.copy)[::-1] if average.ndim else k
        before = [[a.tobytes() for a in some] for some in (arrays, kept(opt))]
        for error in (None, ZeroDivisionError):
            try:
                with opt.swapped():
                    assert [[a.tobytes() for a in some] for some in (kept(opt), arrays)] == before
                    if error:
                        raise error
            except ZeroDivisionError:
                pass
            assert [[a.tobytes() for a in some] for some in (arrays, kept(opt))] == before


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_narrow_parameters_are_copied_aside(dtype):
    arrays = [strange(shape, dtype, np.copy) for shape in SHAPES]
    before = [p.tobytes() for p in arrays]
    avg = fastadam.Average(arrays)
    for average in avg.params:
        average[...] = 1 / 3
    with avg.swapped():
        assert all((p == np.float32(1 / 3).astype(dtype)).all() for p in arrays)
        assert all((average == np.float32(1 / 3)).all() for average in avg.params)
    assert [p.tobytes() for p in arrays] == before


@pytest.mark.parametrize(
    ("dtype", "how"),
    [
        ("float16", {}),
        ("float16", {"master_weights": True}),
        (ml_dtypes.bfloat16, {"master_weights": True}),
        (ml_dtypes.bfloat16, {"master_weights": True, "state_dtype": "bfloat16"}),
        ("float32", {"state_dtype": "bfloat16"}),
    ],
)
def test_optimizers_of_16_bits(dtype, how):
    arrays = [np.linspace(-1, 1, 3000).astype(dtype), np.ones((3, 4), dtype)[:, ::2]]
    opt = of_asgd(arrays, 2, **how)
    for _ in range(3):
        opt.step([np.full(p.shape, 0.001, np.float32) for p in arrays])
    before = [a.tobytes() for a in (*arrays, *inside.state_arrays(opt))]
    averages = [a.astype("float32").astype(dtype) for a in opt.state["ax"]]
    with opt.swapped():
        same(arrays, averages)
    assert [a.tobytes() for a in (*arrays, *inside.state_arrays(opt))] == before


def test_what_the_block_writes_is_in_the_average():
    params = {"W": np.ones(3)}
    avg = fastadam.Average(params)
    with avg.swapped():
        params["W"] += 1
    assert avg.params["W"].tolist() == [2.0] * 3
    assert params["W"].tolist() == [1.0] * 3


def test_an_array_replaced_within_the_block():
    params = {"W": np.zeros(3)}
    avg = fastadam.Average(params)
    old, new = params["W"], np.full(3, 7.0)
    avg.params["W"][...] = 5
    with avg.swapped():
        params["W"] = new
    assert old.tolist() == [0.0] * 3
    assert new.tolist() == [7.0] * 3
    assert avg.params["W"].tolist() == [5.0] * 3


@pytest.mark.parametrize("make", [of_asgd, of_schedule_free])
def test_what_has_made_no_step_is_shown_as_it_is(make):
    """Weights that were loaded after the optimizer was made, into a layer that stays frozen."""
    a, b = np.zeros(3), np.zeros(3)
    opt = make([{"params": a}, {"params": b}], 1)
    opt.param_groups[1]["frozen"] = True
    a[...], b[...] = 5, 9
    for _ in range(2):
        with opt.swapped():
            assert a.round(2).tolist() == [5.0] * 3
            assert b.tolist() == [9.0] * 3
        opt.step([np.zeros(3), None])


@pytest.mark.parametrize("make", [of_average, of_asgd, of_schedule_free])
def test_nothing_is_allocated(make):
    arrays = [np.ones((1000, 1000), np.float32), np.ones((300, 300), np.float32).T]
    opt = make(arrays, 2)
    if opt.average:
        opt.step([np.zeros_like(p) for p in arrays])
    with opt.swapped():
        pass
    tracemalloc.start()
    with opt.swapped():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


def test_a_second_thread_is_kept_out_and_the_block_ends(switching):
    arrays = [np.zeros(1000)]
    opt = of_asgd(arrays, 1)
    opt.step([np.zeros(1000)])
    opt.state["ax"][0][...] = 1
    refused, stop = [], threading.Event()

    def other():
        while not stop.is_set():
            try:
                opt.state_dict()
            except RuntimeError:
                refused.append(1)

    thread = threading.Thread(target=other)
    thread.start()
    entered = 0
    while not (entered and refused):
        try:
            with opt.swapped():
                entered += 1
                assert (arrays[0] == 1).all()
        except RuntimeError:  # the other thread was inside
            pass
    stop.set()
    thread.join()
    assert (arrays[0] == 0).all()


def test_an_interrupt_at_any_moment_leaves_both_as_they_were():
    arrays = [np.zeros(100_000, np.float32), np.zeros(100, np.float16)]
    avg = fastadam.Average(arrays, n_threads=1)
    for average in avg.params:
        average[...] = 1

    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm

    old = signal.signal(signal.SIGALRM, handler)
    came = 0
    try:
        while came < 60:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + came * 1e-5)
                while True:
                    with avg.swapped():
                        assert arrays[0][0] == 1
                        assert arrays[1][0] == 1
            except Alarm:
                came += 1
            assert [a[0] for a in (*arrays, *avg.params)] == [0, 0, 1, 1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_an_array_made_read_only_within_the_block_is_an_error_and_no_silence():
    arrays = [np.zeros(3, np.float16), np.zeros(3)]
    avg = fastadam.Average(arrays)
    avg.params[1][...] = 1
    with pytest.raises(ValueError, match="read-only"), avg.swapped():
        arrays[0].flags.writeable = False
    assert arrays[1].tolist() == [0.0] * 3
    with pytest.raises(RuntimeError, match="load a checkpoint"):
        avg.update()


def test_only_classes_that_keep_averages_have_it():
    found = [name for name, cls in vars(fastadam).items() if isinstance(cls, type) and hasattr(cls, "swapped")]
    assert sorted(found) == ["ASGD", "Average", "ScheduleFreeAdamW"]


@pytest.mark.parametrize("make", [of_asgd, of_schedule_free])
def test_an_optimizer_shows_its_averages_and_goes_on(make):
    """Looked at or not, the steps are the same; what is shown is the state; before any step it is the parameter."""
    plain, looked = ([np.linspace(-1, 1, 5000)] for _ in range(2))
    one, other = make(plain, 1), make(looked, 2)
    for t in range(5):
        before, average = looked[0].copy(), kept(other)[0].copy()
        with other.swapped():
            np.testing.assert_array_equal(looked[0], average)
            assert t or (looked[0] == before).all()
            for call in (lambda: other.step([looked[0]]), other.state_dict, lambda: copy.deepcopy(other), other.reset):
                with pytest.raises(RuntimeError, match="exchanged until the block of swapped"):
                    call()
            other.lr = 0.25  # options may be assigned
        one.lr = 0.25
        one.step([np.cos(plain[0] + t)])
        other.step([np.cos(looked[0] + t)])
    same([*plain, *inside.state_arrays(one)], [*looked, *inside.state_arrays(other)])


def test_states_in_a_folder_are_exchanged_and_a_death_within_is_seen(tmp_path):
    p = np.zeros(5000)
    opt = of_asgd([p], 1, state_dir=tmp_path / "states")
    opt.step([np.ones(5000)])
    opt.state["ax"][0][...] = 7
    with opt.swapped():
        assert (p == 7).all()
        shutil.copytree(tmp_path / "states", tmp_path / "died")
    assert (p == -0.5).all()
    with pytest.raises(ValueError, match="step"):
        of_asgd([p], 1, state_dir=tmp_path / "died")


# ---------------------------------------------------------------- other libraries


def test_thincs_models():
    thinc = pytest.importorskip("thinc.api")
    model = thinc.chain(thinc.Linear(4, 3), thinc.Linear(2, 4))
    model.initialize()
    given = {(node.id, name): node.get_param(name) for node in model.walk() for name in node.param_names}
    avg = fastadam.Average(given, 0.5)
    avg.update()
    for node in model.walk():
        for name in node.param_names:
            node.get_param(name)[...] *= -1
    avg.update()
    after = model.predict(np.ones((1, 3), "f"))
    with avg.swapped():
        inputs = model.predict(np.ones((1, 3), "f"))
        for p, other in zip(given.values(), avg.params.values(), strict=True):
            np.testing.assert_allclose(p, 0 * other, atol=1e-7)
    assert model.predict(np.ones((1, 3), "f")).tobytes() == after.tobytes() != inputs.tobytes()


def test_object_that_is_replaced_within():
    model = SimpleNamespace(parameters=[np.zeros(2)], grad=None)
    avg = fastadam.Average(model, 0.5)
    avg.update()
    model.parameters = [np.ones(2)]
    avg.update()
    assert avg.params[0].tolist() == [0.5] * 2
