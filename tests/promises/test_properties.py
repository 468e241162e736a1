"""For any structure, layout, dtypes, options and threads: the bits are those of the NumPy rule on plain arrays, and no
byte outside of the arrays is touched. `--hypothesis-profile=long` tries more of them.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import inside
import numpy as np
import pytest
from cases import ALL, bits, factors, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ml_dtypes import bfloat16

import fastadam
from fastadam import schedules

CLASSES = list(fastadam.optimizers.CLASSES.values())
DTYPES = [np.dtype(dtype) for dtype in (np.float16, bfloat16, np.float32, np.float64)]  # the last has no 16-bit states
STRUCTURES = ["array", "list", "dict", "pairs", "groups", "object"]


# ---------------------------------------------------------------- what is drawn: options

flags = st.booleans()
below_one = st.sampled_from([0.0, 0.5, 0.9, 0.999]) | st.floats(0, 1, exclude_max=True)
small = st.sampled_from([0.0, 1e-8, 1e-3, 0.1]) | st.floats(0, 10)
rates = small | st.builds(schedules.cosine, small, st.integers(1, 5)) | st.just(lambda t: 0.5 / t)

#: every option of every optimizer
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "lr": rates,
    "betas": st.tuples(below_one, below_one),
    "eps": small,
    "weight_decay": small,
    "amsgrad": flags,
    "maximize": flags,
    "decoupled_weight_decay": flags,
    "beta_decay": st.just(1.0) | below_one,
    "alpha_decay": flags,
    "eps_hat": flags,
    "lr_decay": small,
    "initial_accumulator_value": small,
    "alpha": st.just(1.0) | below_one,
    "momentum": small,
    "centered": flags,
    "eps_in_sqrt": flags,
    "rho": st.just(1.0) | below_one,
    "bounds": st.none() | st.sampled_from([(None, 0.5), (-0.25, None), (-1.0, 1.0), (0.0, -0.0)]),
    "dampening": below_one,
    "momentum_decay": small,
    "lambd": small,
    "t0": st.sampled_from([0, 1, 1e6]),
    "etas": st.tuples(st.floats(0.01, 0.99), st.floats(1.01, 10)),
    "step_sizes": st.tuples(st.floats(1e-6, 0.1), st.floats(0.1, 50)),
    "alpha_warmup": small,
    "beta3_warmup": small,
    "use_clipping": flags,
    "warmup_steps": st.integers(0, 5),
    "r": small,
    "weight_lr_power": small,
    "rows": st.sampled_from(["lazy", "exact"]),
}

#: options that have another range in one class, or that depend on one another
OWN = {
    fastadam.SGD: {"nesterov": st.just(False)},
    fastadam.Rprop: {"lr": small},
    fastadam.AdEMAMix: {"betas": st.tuples(below_one, below_one, below_one)},
    fastadam.ScheduleFreeAdamW: {"lr": small},
}


def test_every_option_is_drawn() -> None:
    options = [option for cls in fastadam.optimizers.CLASSES.values() for option in cls.options.values()]
    no_constructor_takes, of_storage = (
        {"frozen", "name", "extra"},
        {"state_dtype", "min_8bit_size"},
    )  # drawn beside them
    assert {*VALUES, "nesterov"} == {option.name for option in options} - no_constructor_takes - of_storage


def options_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    names = [name for name in inspect.signature(cls).parameters if name in VALUES]
    own = {name: VALUES[name] for name in names} | OWN.get(cls, {})
    drawn = st.fixed_dictionaries({}, optional=own)
    if cls is not fastadam.SGD:
        return drawn
    # A group may inherit `nesterov`, which fits neither every momentum nor every dampening.
    return drawn.map(lambda own: {"nesterov": False} | own if own else own) | st.just(
        {"momentum": 0.9, "dampening": 0.0, "nesterov": True}
    )


# what a step is given beside its gradients
STEPS = st.fixed_dictionaries(
    {},
    optional={
        "grad_scale": st.sampled_from([1.0, 3.0, 1024.0, 2.0**-126, 2.0**126]) | st.floats(1e-6, 1e6),
        "max_norm": st.sampled_from([1e-40, 1.0, math.inf]) | st.floats(1e-3, 1e3),
        "clip_value": st.sampled_from([1e-40, 1.0, math.inf]) | st.floats(1e-3, 1e3),
        "skip_nonfinite": flags,
        "zero_grads": flags,
        "max_norm_each": st.sampled_from([1e-40, 1.0, math.inf]) | st.floats(1e-3, 1e3),
    },
).filter(lambda extras: not {"max_norm", "max_norm_each"} <= extras.keys())


# ---------------------------------------------------------------- what is drawn: memory


@dataclass(frozen=True)
class Layout:
    """Where an array lies in a buffer of bytes: from a place on, axes in this order, each with a step and a sign."""

    lead: int  # bytes before it, so that it may be misaligned
    order: tuple[int, ...]
    steps: tuple[int, ...]

    def strides(self, shape: tuple[int, ...], itemsize: int) -> tuple[list[int], int]:
        """Strides by axis, and the bytes from its first to its last."""
        strides, reach = [0] * len(shape), itemsize
        for axis in reversed(self.order):
            strides[axis] = reach * self.steps[axis]
            reach *= max(shape[axis], 1) * abs(self.steps[axis])
        return strides, reach


def layouts(ndim: int) -> st.SearchStrategy[Layout]:
    plain = st.builds(Layout, st.sampled_from([0, 64]), st.just(tuple(range(ndim))), st.just((1,) * ndim))
    steps = st.tuples(*[st.sampled_from([1, 1, 2, 3, -1, -2])] * ndim)
    return plain | st.builds(Layout, st.integers(0, 70), st.permutations(range(ndim)).map(tuple), steps)


class Memory:
    """Arrays of any layout behind one another in one buffer of random bytes, of which none beside them may change."""

    def __init__(self, arrays: Sequence[np.ndarray], chosen: Sequence[Layout], rng: np.random.Generator) -> None:
        places, end = [], 0
        for values, layout in zip(arrays, chosen, strict=True):
            strides, reach = layout.strides(values.shape, values.itemsize)
            back = sum(-s * (n - 1) for s, n in zip(strides, values.shape, strict=True) if s < 0 and n > 0)
            places.append((end + layout.lead + back, strides))
            end += layout.lead + reach
        self.buffer = rng.integers(0, 256, end + 64, np.uint8)
        self.free = np.ones(self.buffer.shape, bool)
        self.views = []
        for values, (first, strides) in zip(arrays, places, strict=True):
            view = np.ndarray(values.shape, values.dtype, self.buffer, first, strides)
            view[...] = values
            self.views.append(view)
            np.ndarray((*values.shape, values.itemsize), bool, self.free, first, (*strides, 1))[...] = False
        self.beside = self.buffer[self.free]

    def assert_untouched_beside(self) -> None:
        np.testing.assert_array_equal(self.buffer[self.free], self.beside)


#: mostly small; now and then around the borders of chunks, tiles, and of what stays on the caller
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4) | st.sampled_from(
    [
        (1023,),
        (1024,),
        (1025,),
        (8191,),
        (8193,),
        (30_001,),
        (29_999,),
        (3, 2731),
        (173, 174),
        (2, 64, 65),
        (1, 1025, 1),
    ]
)


def computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def cast(values: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return values.astype(dtype)


# ---------------------------------------------------------------- what is drawn: a problem


@dataclass
class Step:
    extras: dict[str, Any]
    of_grads: list[tuple[Any, Layout, str]]  # each gradient's dtype, layout, and whether read-only or broadcast


@dataclass
class Problem:
    """An optimizer, its parameters, and the steps that it takes."""

    cls: Callable[..., fastadam.Optimizer]
    options: dict[str, Any]
    structure: str
    of_params: list[tuple[tuple[int, ...], Any, Layout]]  # shape, dtype, layout
    groups: list[tuple[int, dict[str, Any]]]  # how many parameters, and their options
    how: dict[str, Any]
    steps: list[Step]
    seed: int
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)


@st.composite
def problems(draw: Any, backends: list[str]) -> Problem:
    cls = draw(st.sampled_from(CLASSES))
    structure = draw(st.sampled_from(STRUCTURES))
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=1 if structure == "array" else 4))
    state_dtype = draw(st.sampled_from([None, None, "bfloat16", "int8"]))
    dtypes = st.sampled_from(DTYPES)
    own_dtypes = [draw(st.sampled_from(DTYPES[:-1]) if state_dtype else dtypes) for _ in shapes]
    cuts = draw(st.sets(st.integers(1, len(shapes) - 1))) if structure == "groups" and len(shapes) > 1 else set()
    borders = [0, *sorted(cuts), len(shapes)]
    more = options_of(cls) if structure == "groups" else st.just({})
    how = {
        "backend": draw(st.sampled_from(backends)),
        "n_threads": draw(st.integers(1, 8)),
        "master_weights": draw(flags),
        "state_dtype": state_dtype,
        "min_8bit_size": draw(st.sampled_from([0, 5, 1025])),
        "seed": draw(st.integers(0, 2**64 - 1)),
    }
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        extras = draw(STEPS)
        if state_dtype:  # see `Plain`: a step of all parameters has one factor there
            extras.pop("max_norm_each", None)
        kinds = st.sampled_from(["plain"] if extras.get("zero_grads") else ["plain", "plain", "read-only", "broadcast"])
        of_grads = [
            (dtype if dtype.itemsize == 8 else draw(dtypes), draw(layouts(len(shape))), draw(kinds))
            for shape, dtype in zip(shapes, own_dtypes, strict=True)
        ]
        steps.append(Step(extras, of_grads))
    return Problem(
        cls,
        draw(options_of(cls)),
        structure,
        [(shape, dtype, draw(layouts(len(shape)))) for shape, dtype in zip(shapes, own_dtypes, strict=True)],
        [(last - first, draw(more)) for first, last in pairwise(borders)],
        how,
        steps,
        draw(st.integers(0, 2**32 - 1)),
    )


def structured(problem: Problem, arrays: Sequence[Any], grads: bool = False) -> Any:
    """Arrays in the structure of the problem's parameters, or of their gradients."""
    if problem.structure == "array":
        return arrays[0]
    if problem.structure == "dict":
        return dict(enumerate(arrays))
    if problem.structure == "pairs":
        return [(f"p{k}", array) for k, array in enumerate(arrays)]
    if problem.structure == "groups":
        rest = iter(arrays)
        groups = [{"params": [next(rest) for _ in range(count)], **own} for count, own in problem.groups]
        return [group["params"] for group in groups] if grads else groups
    return list(arrays)


# ---------------------------------------------------------------- the plain way


class Plain:
    """The NumPy rule on contiguous arrays of what is computed in: a parameter at a time, unless states are rounded by
    random bits, which differ from parameter to parameter; parameters of 16 bits are kept by rounding here."""

    def __init__(self, problem: Problem, params: Sequence[np.ndarray]) -> None:
        own = [more for count, more in problem.groups for _ in range(count)]
        how = {name: problem.how[name] for name in ("state_dtype", "min_8bit_size", "seed")} | {"backend": "numpy"}
        self.dtypes = [p.dtype for p in params]
        self.wide = [cast(p, computed_in(p.dtype)).copy(order="K") for p in params]
        self.is_rounded = [p.itemsize == 2 and not problem.how["master_weights"] for p in params]
        groups = [{"params": p, **more} for p, more in zip(self.wide, own, strict=True)]
        parts = [groups] if problem.how["state_dtype"] else [[group] for group in groups]
        self.opts = [problem.cls(part, **problem.options, **how) for part in parts]
        self.t = self.skipped = 0

    def step(self, grads: Sequence[np.ndarray], norm: float | None, extras: dict[str, Any]) -> None:
        computed = [cast(g, p.dtype) for g, p in zip(grads, self.wide, strict=True)]
        if extras.get("skip_nonfinite") and not all(np.isfinite(g).all() for g in computed):
            self.skipped += 1
            return
        rest = zip(computed, factors(computed, norm, extras), strict=True)
        for opt in self.opts:
            given, [factor, *_] = zip(*[next(rest) for _ in inside.params(opt)], strict=True)
            inside.plain_step(opt, given, factor=factor, clip_value=extras.get("clip_value", math.inf))
        for p, dtype, is_rounded in zip(self.wide, self.dtypes, self.is_rounded, strict=True):
            if is_rounded:
                p[...] = cast(p, dtype)
        self.t += 1

    def arrays(self) -> list[dict[str, np.ndarray]]:
        """Of each parameter: itself, and its states by name."""
        states = [found for opt in self.opts for found in inside.named_states(opt)]
        return [
            {"params": cast(p, dtype), **found, **({} if dtype.itemsize > 2 or is_rounded else {"master": p})}
            for p, dtype, found, is_rounded in zip(self.wide, self.dtypes, states, self.is_rounded, strict=True)
        ]


def normal(g: np.ndarray) -> np.ndarray:
    """Its numbers in float64; denormals count as zero."""
    return np.where(np.abs(g) < np.finfo(g.dtype).smallest_normal, 0.0, g).astype(float).ravel()


def assert_norm(norm: float | None, grads: Sequence[np.ndarray], params: Sequence[np.ndarray], extras: Any) -> None:
    """The norm over all gradients, as they are computed with, as far as float64 can say."""
    if extras.keys().isdisjoint({"max_norm", "max_norm_each"}) and not extras.get("skip_nonfinite"):
        assert norm is None
        return
    values = np.concatenate([normal(cast(g, computed_in(p.dtype))) for g, p in zip(grads, params, strict=True)])
    assert np.isfinite(values).all() or not np.isfinite(norm)
    if np.isfinite(values).all():
        largest = float(np.abs(values).max(initial=0)) or 1.0
        with np.errstate(all="ignore"):
            expected = math.hypot(*(values / largest)) * largest / extras.get("grad_scale", 1.0)
        assert norm == pytest.approx(expected, rel=1e-13, abs=1e-30)


# ---------------------------------------------------------------- what must hold


def gradients_of(problem: Problem, step: Step) -> tuple[Memory, list[Any]]:
    """New gradients in the layouts of this step."""
    made = []
    for (shape, dtype, _), (of_grad, _, kind) in zip(problem.of_params, step.of_grads, strict=True):
        shape = tuple(1 if kind == "broadcast" and n > 1 else n for n in shape)
        n = math.prod(shape)
        [_, values] = gradients(problem.rng, n, 2, computed_in(dtype).name, problem.seed % 3 == 0)
        made.append(cast(values.reshape(shape), of_grad))
    memory = Memory(made, [layout for _, layout, _ in step.of_grads], problem.rng)
    grads = []
    for view, (shape, _, _), (_, _, kind) in zip(memory.views, problem.of_params, step.of_grads, strict=True):
        view.flags.writeable = kind != "read-only"
        grads.append(np.broadcast_to(view, shape) if kind == "broadcast" else view)
    return memory, grads


def check(problem: Problem) -> None:
    rng = problem.rng
    starts = [cast(np.asarray(rng.standard_normal(shape)), dtype) for shape, dtype, _ in problem.of_params]
    memory = Memory(starts, [layout for _, _, layout in problem.of_params], rng)
    plain = Plain(problem, memory.views)
    params = structured(problem, memory.views)
    if problem.structure == "object":
        params = SimpleNamespace(parameters=params, grad=None)
    opt = problem.cls(params, **problem.options, **problem.how)
    for step in problem.steps:
        around, grads = gradients_of(problem, step)
        before = [g.copy() for g in grads]
        if problem.structure == "object":
            params.grad = grads
            opt.step(**step.extras)
        else:
            opt.step(structured(problem, grads, grads=True), **step.extras)
        assert_norm(opt.grad_norm, before, memory.views, step.extras)
        took = plain.t
        plain.step(before, opt.grad_norm, step.extras)
        zeroed = step.extras.get("zero_grads") and plain.t > took
        for g, old in zip(grads, before, strict=True):
            assert bits(g) == bits(np.zeros_like(old) if zeroed else old)
        around.assert_untouched_beside()
    memory.assert_untouched_beside()
    assert (opt.t, opt.skipped) == (plain.t, plain.skipped)
    for p, states, expected in zip(memory.views, inside.named_states(opt), plain.arrays(), strict=True):
        assert {"params", *states} == set(expected)
        for name, array in {"params": p, **states}.items():
            assert array.dtype == expected[name].dtype
            assert bits(array) == bits(expected[name]), name


@given(problems(["cython", "numpy"]))
def test_any_step_is_the_numpy_rule(problem: Problem) -> None:
    check(problem)


@settings(max_examples=settings().max_examples // (4 if ALL else 12))  # each compiles
@given(problems(["numba"]))
def test_any_step_of_numba_is_the_numpy_rule(problem: Problem) -> None:
    check(problem)
