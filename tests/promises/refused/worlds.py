"""The worlds for bad input: the objects before the call, and a good call after it.
Each function makes a world in its own folder, always the same. `seen` returns everything that is in it.
"""

import pickle
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import inside
import numpy as np

import fastadam
from fastadam import functional

SHAPES = [(2, 3), (4,), (3,)]
DTYPES = [np.float32, np.float64, np.float16]


def seen(thing: Any) -> Any:
    """All that can be told of a thing and of what it holds, down to the bits of arrays and files."""
    if isinstance(thing, np.ndarray):
        bits = thing.tolist() if thing.dtype.hasobject else thing.tobytes()
        return type(thing), thing.dtype.str, thing.shape, thing.strides, thing.flags.writeable, bits
    if isinstance(thing, (fastadam.Optimizer, fastadam.Average)):
        groups = [dict(group) for group in thing.param_groups]
        return [seen(part) for part in (groups, *inside.everything(thing))]
    if isinstance(thing, Path):
        return {str(file.relative_to(thing)): file.is_file() and file.read_bytes() for file in thing.rglob("*")}
    if isinstance(thing, SimpleNamespace):
        return seen(thing.look() if hasattr(thing, "look") else vars(thing))
    if isinstance(thing, Mapping):
        return [(seen(key), seen(value)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [seen(part) for part in thing]
    if isinstance(thing, memoryview):
        return thing.tobytes()
    if hasattr(thing, "detach"):
        return str(thing.layout), seen(thing.detach().to_dense().numpy()), seen(thing.grad)
    return getattr(thing, "__qualname__", None) or repr(thing)  # NaN equals itself in words


# ---------------------------------------------------------------- arrays and optimizers


def fresh(folder: Path, cls: Any = fastadam.Adam, **options: Any) -> SimpleNamespace:
    """Arrays that no optimizer has yet."""
    w = SimpleNamespace(folder=folder, p=np.linspace(-1, 1, 3), q=np.ones((2, 3), np.float32), g=np.ones(3))
    w.half, w.frozen = np.ones(4, np.float16), np.ones(3)
    w.frozen.flags.writeable = False

    def go_on() -> None:
        w.opt = cls([w.p, w.q], **options)
        w.opt.step([w.g, w.q * 2])

    w.go_on = go_on
    return w


def params() -> list[np.ndarray]:
    return [np.linspace(-1, 1, np.prod(s)).reshape(s).astype(d) for s, d in zip(SHAPES, DTYPES, strict=True)]


def grads(t: int = 3) -> list[np.ndarray]:
    return [np.full(s, t - 1.5, d) for s, d in zip(SHAPES, DTYPES, strict=True)]


def as_list(arrays: list[Any]) -> Any:
    return arrays


def as_mapping(arrays: list[Any]) -> Any:
    return {f"layer{k}": array for k, array in enumerate(arrays)}


def as_groups(arrays: list[Any]) -> Any:
    """Three groups, of a list, a mapping and a list."""
    a, b = len(arrays) // 3, 2 * len(arrays) // 3
    return [arrays[:a], as_mapping(arrays[a:b]), arrays[b:]]


def groups_of(given: Any, **options: Any) -> Any:
    return [{"params": part} | options for part in given]


def running(
    folder: Path,
    give: Callable[[list[Any]], Any] = list,
    shape: Callable[[list[Any]], Any] = as_list,
    cls: Any = fastadam.Adam,
    **options: Any,
) -> SimpleNamespace:
    """An optimizer over three arrays after two steps; `given` is what `give` makes of the third step's gradients."""
    own = params()
    start = groups_of(as_groups(own), lr=lambda t: 0.1 / t) if shape is as_groups else shape(own)
    w = SimpleNamespace(folder=folder, params=own, good=grads())
    w.opt = cls(start, **options)
    for t in range(2):
        w.opt.step(shape(grads(t)), max_norm=2.0)
    w.parts = [*own, *inside.state_arrays(w.opt), *w.good]
    w.given = give(w.good) if give is not list else None
    w.go_on = lambda: w.opt.step(shape(grads()))
    return w


def bound(folder: Path) -> SimpleNamespace:
    """Gradients that are bound, one of them read-only."""
    own, w = params(), SimpleNamespace(folder=folder, good=grads())
    w.good[1].flags.writeable = False
    w.opt = fastadam.Adam(own, grads=w.good)
    w.opt.step()
    w.go_on = w.opt.step
    return w


def of_names(folder: Path, wrap: Callable[[Any], Any], make: Callable[[Any], Any]) -> SimpleNamespace:
    """Parameters by name within a structure, with bound gradients in mappings that `make` makes, and rows that lag.
    `given` makes gradients with other items; `with_more` calls something while the bound ones have a key more."""
    w, bound = SimpleNamespace(folder=folder), make({"W": np.full((3, 2), 0.5), "b": np.ones(2)})
    w.params, w.fresh = (wrap({"W": np.ones((3, 2)), "b": np.ones(2)}) for _ in range(2))
    w.bound, w.rest = wrap(bound), np.ones(1)
    w.given = lambda **items: wrap(make({"W": np.ones((3, 2)), "b": np.ones(2), **items}))
    w.opt = fastadam.Adam(w.params, grads=w.bound, rows="exact")
    w.opt.step(w.given(W=fastadam.Rows([1], np.ones((1, 2)))))

    def with_more(call: Callable[[], None]) -> None:
        is_list = isinstance(bound, list)
        bound.append(("more", np.ones(2))) if is_list else bound.update(more=np.ones(2))
        try:
            call()
        finally:
            bound.pop() if is_list else bound.pop("more")

    w.with_more, w.look = with_more, lambda: [w.opt, bound]
    w.go_on = w.opt.step
    return w


class Instance:
    """An object of the article's protocol."""

    def __init__(self, p: Any, g: Any) -> None:
        self.parameters, self.grad = p, g


def of_object(folder: Path, **wrong: Any) -> SimpleNamespace:
    w = SimpleNamespace(folder=folder, instance=Instance(np.ones(3), np.ones(3)))
    good = dict(vars(w.instance))
    w.opt = fastadam.Adam(w.instance)
    w.opt.step()
    vars(w.instance).update(wrong)
    w.look = lambda: [w.opt, vars(w.instance), good]

    def go_on() -> None:
        vars(w.instance).update(good)
        w.opt.step()

    w.go_on = go_on
    return w


def hundred(folder: Path, shape: Callable[[list[Any]], Any], wrong: Callable[[Any], Any]) -> SimpleNamespace:
    """A hundred arrays, of whose gradients the 57th is `wrong`."""
    own = [np.linspace(-1, 1, k % 5 + 3).astype((np.float32, np.float64)[k % 2]) for k in range(100)]
    w = SimpleNamespace(folder=folder, params=own, good=[np.full_like(p, 0.5) for p in own])
    start = groups_of(as_groups(own)) if shape is as_groups else shape(own)
    w.opt = fastadam.Adam(start, lr=lambda t: 0.1 / t, amsgrad=True)
    w.opt.step(shape([np.cos(p) for p in own]), max_norm=1.0)
    w.wrong = wrong(w)
    w.given = shape([*w.good[:56], w.wrong, *w.good[57:]])
    w.go_on = lambda: w.opt.step(shape([np.sin(p) for p in own]), max_norm=1.0)
    return w


def own_rule(folder: Path, scalars: Callable[..., Any]) -> SimpleNamespace:
    """A rule of one's own in NumPy, after a step with a norm."""

    def heavy(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return p - lr * m, m + g

    w = SimpleNamespace(folder=folder, p=np.ones(3), g=np.ones(3))
    armed = []
    rule = fastadam.optimizer(heavy, lambda t, lr: scalars(lr) if armed else (lr,), ["m"], lr=0.1)
    w.opt = rule([{"params": w.p}, {"params": np.ones(2), "lr": 0.5}], backend="numpy")
    w.opt.step([np.ones(3), np.ones(2)], max_norm=1.0)

    def call() -> None:
        armed.append(True)
        try:
            w.opt.step([w.g, np.ones(2)], max_norm=1.0)
        finally:
            armed.clear()

    w.call, w.go_on = call, lambda: w.opt.step([w.g, np.ones(2)])
    return w


# ---------------------------------------------------------------- files


@cache
def files_of(cls: Any) -> tuple[dict[str, bytes], bytes, Any]:
    """The files, the pickle and the dict of an optimizer after three steps."""
    with TemporaryDirectory() as name:
        other = running(Path(name), cls=cls)
        other.go_on()
        for suffix in ("npz", "safetensors"):
            other.opt.save(Path(name) / f"state.{suffix}", params=True)
        files = {path.name: path.read_bytes() for path in Path(name).iterdir()}
    files |= {"cut.npz": files["state.npz"][:-100], "text.safetensors": b"import torch\n" * 10}
    return files, pickle.dumps(other.opt), other.opt.state_dict()


def saved(folder: Path, cls: Any = fastadam.Adam) -> SimpleNamespace:
    """An optimizer, and files of another one."""
    w = running(folder, cls=cls)
    files, w.data, w.told = files_of(cls)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.npz").mkdir()
    return w


def in_blocks(folder: Path) -> SimpleNamespace:
    """An optimizer with 8-bit states, over an array in Fortran order and one of one axis; its dict of a step before."""
    shapes = {"W": (20, 30), "b": (300,)}
    w = SimpleNamespace(folder=folder, params={key: np.ones(shape, np.float32).T for key, shape in shapes.items()})
    w.opt = fastadam.Adam(w.params, state_dtype="int8", min_8bit_size=1)
    w.go_on = lambda: w.opt.step({key: np.cos(np.arange(p.size)).reshape(p.shape) for key, p in w.params.items()})
    w.go_on()
    w.told = w.opt.state_dict()
    w.go_on()
    return w


def in_folder(folder: Path) -> SimpleNamespace:
    """An optimizer whose states are files, and a folder in which another has its own."""
    fastadam.Adamax(np.ones(3), state_dir=folder / "others")
    (folder / "file").touch()
    return running(folder, state_dir=folder / "states")


# ---------------------------------------------------------------- functions


def function(folder: Path) -> SimpleNamespace:
    """The arguments of functional.adam, of two arrays each."""
    w = SimpleNamespace(folder=folder)
    w.a = {name: [np.full(3, 0.5), np.full((2, 2), 0.25)] for name in ("p", "g", "m", "v")} | {"t": 1}
    w.go_on = lambda: functional.adam(**w.a)
    return w


def jitted(folder: Path) -> SimpleNamespace:
    """The arguments of fastadam.numba.adam_step."""
    from fastadam.numba import adam_step

    w = SimpleNamespace(folder=folder, a={name: np.full((2, 3), 0.5) for name in "pgmv"})

    def step(t: float = 1, **changed: Any) -> None:
        adam_step(*(w.a | changed).values(), t, 0.1, 0.9, 0.999, 1e-8, 1.0, False)

    w.step = w.go_on = step
    return w


class Refused(Exception):
    """What a code of the C interface says, by its name in fastadam.h."""


def in_c(folder: Path, client: Any, dtype: str) -> SimpleNamespace:
    """The arguments of a client of the C interface; codes become errors."""
    w = SimpleNamespace(folder=folder, p=np.ones(5, dtype), g=np.ones((1, 5), dtype), states=np.zeros((2, 5), dtype))
    members = (0.1, 0.0, 0.0, 0.0, 0.9, 0.999, 1e-8, *[0.0] * 6)
    names = {-1: "BAD_OPTIONS", -2: "BAD_LENGTH", -3: "NULL_POINTER", -4: "BAD_STEP"}

    def step(t: int = 1, n: int = 5, size: int = client.SIZE, null: int = -2, **changed: Any) -> None:
        arrays = {"p": w.p, "g": w.g, "states": w.states} | changed
        code = client.steps("adam", *arrays.values(), members, t, n, size, null)
        if code:
            raise Refused(f"FASTADAM_{names[code]}")

    w.step = w.go_on = step
    return w


# ---------------------------------------------------------------- adapters


def article(folder: Path, warm: bool = True, **wrong: Any) -> SimpleNamespace:
    """The article's class, after a step or before it; `wrong` is put into the instance or else into the optimizer."""
    from fastadam.adapters.article import Adam

    w = SimpleNamespace(folder=folder, instance=Instance(np.linspace(-1, 1, 3), np.ones(3)))
    w.opt = Adam(w.instance)
    if warm:
        w.opt.step()
    kept = {}
    for name, value in wrong.items():
        owner = w.instance if name in ("grad", "parameters") else w.opt
        kept[name] = (owner, getattr(owner, name))
        setattr(owner, name, value)
    w.look = lambda: [
        vars(w.instance),
        inside.article_states(w.opt),
        w.opt.timestep,
        w.opt.beta1,
        *(value for _, value in kept.values()),
    ]

    def go_on() -> None:
        for name, (owner, value) in kept.items():
            setattr(owner, name, value)
        w.opt.step()

    w.go_on = go_on
    return w


def scipy(folder: Path) -> SimpleNamespace:
    from scipy.optimize import minimize

    from fastadam.adapters.scipy import adam

    w = SimpleNamespace(folder=folder, x0=np.array([3.0, -2.0]), low=np.full(2, -5.0), high=np.full(2, 5.0), asked=[])

    def bowl(x: np.ndarray) -> Any:
        w.asked.append(x)
        return x @ x, 2 * x

    def call(**given: Any) -> None:
        w.found = minimize(**{"fun": bowl, "x0": w.x0, "jac": True, "method": adam} | given).x

    w.call, w.go_on = call, lambda: call(options={"maxiter": 3})
    return w


def sklearn(folder: Path) -> SimpleNamespace:
    """A perceptron that has been fitted."""
    from fastadam.adapters.sklearn import MLPRegressor

    x = np.linspace(-1, 1, 40).reshape(20, 2)
    w = SimpleNamespace(folder=folder, model=MLPRegressor(hidden_layer_sizes=(3,), random_state=0))
    w.model.partial_fit(x, x[:, 0])
    w.fit = lambda: w.model.partial_fit(x, x[:, 0])
    kept = [array.copy() for array in w.model.coefs_]

    def look() -> Any:
        m, made = w.model, inside.fitted(w.model)
        return [m.coefs_, m.intercepts_, m.t_, made.ms, made.vs, made.t]

    def go_on() -> None:
        w.model.coefs_ = kept
        w.fit()

    w.look, w.go_on = look, go_on
    return w


def thinc(folder: Path, **given: Any) -> SimpleNamespace:
    """thinc's optimizer after a step of one parameter."""
    from fastadam.adapters.thinc import Adam

    w = SimpleNamespace(folder=folder, w=np.linspace(-1, 1, 3).astype("f4"), g=np.full(3, 0.5, "f4"))
    w.opt, w.key = Adam(0.1, **given), (1, "W")
    w.opt(w.key, w.w, w.g.copy())

    def look() -> Any:
        o = w.opt
        return [w.w, w.g, o.mom1, o.mom2, o.mom3, o.averages, o.nr_update]

    w.look, w.go_on = look, lambda: w.opt(w.key, w.w, w.g.copy())
    return w


def torch(folder: Path, warm: bool, change: Callable[[Any], Any] = lambda w: None) -> SimpleNamespace:
    """torch's Adam over two tensors, after a step or before the first; what `change` returns puts things right."""
    from torch import linspace, ones

    from fastadam.adapters.torch import Adam

    w = SimpleNamespace(folder=folder, a=linspace(-1, 1, 3).requires_grad_(), b=ones(2, 2).requires_grad_())
    w.opt = Adam([{"params": [w.a]}, {"params": [w.b], "lr": 0.5}])
    w.group = w.opt.param_groups[1]

    def good() -> None:
        w.a.grad, w.b.grad = ones(3), ones(2, 2)

    good()
    if warm:
        w.opt.step()
    w.state = w.opt.state[w.b] if warm else {}
    mend = change(w)
    w.look = lambda: [w.opt.state_dict(), w.a, w.b]

    def go_on() -> None:
        if mend is not None:
            mend()
        good()
        w.opt.step()

    w.go_on = go_on
    return w


def from_torch(folder: Path) -> SimpleNamespace:
    """An optimizer of fastadam, and the state of one of torch."""
    import torch

    w = running(folder)
    theirs = torch.optim.Adam([torch.ones(s) for s in SHAPES[:2]])
    w.opt = fastadam.Adam([np.ones(s, np.float32) for s in SHAPES[:2]])
    for p in theirs.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    theirs.step()
    w.state = theirs.state_dict()
    w.go_on = lambda: w.opt.step([np.ones(s, np.float32) for s in SHAPES[:2]])
    return w
