"""An optimizer's life in any order: steps, refusals, saves, loads, copies, groups, options. After each, every bit is
that of a model: the rule itself, on plain arrays. `--hypothesis-profile=long` runs longer and more often.
"""

import copy
import math
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import inside
import numpy as np
import pytest
from cases import BY_RULE, bits, factors
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastadam
from fastadam import schedules
from fastadam.options import rate_or_schedule
from fastadam.rule import Rule, finish, prepare

#: a shape, and a dtype
ARRAYS = [((3, 2), "f4"), ((), "f8"), ((4,), "f2"), ((0, 2), "f4"), ((5,), "f8")]
ELEMENTS = [0.0, -0.0, 1.0, -2.0, 0.25, 3e-3, 700.0]
#: the files that are written here; no suffix is `state_dict`
SUFFIXES = [".npz", ".safetensors", ""] if find_spec("safetensors") else [".npz", ""]


def per_t(t: int) -> float:
    return 0.5 / t


RATES = [0.1, 0.0, 2.0, schedules.cosine(0.1, 9), schedules.warmup(0.5, 3), per_t]
OPTIONS: dict[str, list[Any]] = {
    "lr": RATES,
    "weight_decay": [0.0, 0.1],
    "maximize": [True, False],
    "eps": [1e-8, 0.5],
    "betas": [(0.5, 0.75), (0.0, 0.0), (0.9, 0.999)],
    "alpha": [0.5, 1.0],
    "rho": [0.5, 1.0],
    "momentum": [0.5, 0.9],
    "alpha_decay": [True, False],
    "decoupled_weight_decay": [True, False],
    "lr_decay": [0.0, 0.5],
}


# ---------------------------------------------------------------- the model


@dataclass
class ModelGroup:
    """What a group is: its arrays, its states, its options, and its own count of steps."""

    params: list[np.ndarray]
    states: list[dict[str, np.ndarray]]
    values: dict[str, Any]
    steps: int = 0


@dataclass
class Model:
    """An optimizer in a few lines: a loop over parameters, each stepped whole by its rule as it stands."""

    cls: type[fastadam.Optimizer]
    master_weights: bool
    groups: list[ModelGroup] = field(default_factory=list)
    t: int = 0
    skipped: int = 0

    def add(self, params: list[np.ndarray], values: dict[str, Any]) -> None:
        rule, group = inside.rule_for(self.cls, values), ModelGroup([p.copy() for p in params], [], values)
        for p in params:
            wide = p.astype(np.float32 if p.dtype == np.float16 else p.dtype)
            first = self.cls.initial(values, wide)
            states = {name: np.full_like(wide, first.get(name, 0.0)) for name in rule.states}
            group.states.append(states | ({"master": wide} if self.master_weights and p.itemsize == 2 else {}))
        self.groups.append(group)

    def rate(self, values: dict[str, Any]) -> float:
        rate = values["lr"](self.t + 1) if callable(values["lr"]) else values["lr"]
        return rate / math.sqrt(self.t + 1) if values.get("alpha_decay") else rate

    def step(self, grads: list[np.ndarray], norm: float | None, extras: dict[str, Any]) -> bool:
        """Whether that was a step, and not skipped."""
        if extras.get("skip_nonfinite") and not all(np.isfinite(g).all() for g in grads):
            self.skipped += 1
            return False
        rest = zip(grads, factors(grads, norm, extras), strict=True)
        for group in self.groups:
            group.steps += 1
            rule = inside.rule_for(self.cls, group.values)
            hyper = [extras.get("clip_value", math.inf)]
            hyper += self.cls.hyper_values(rule, group.values, self.rate(group.values))
            for p, states in zip(group.params, group.states, strict=True):
                g, factor = next(rest)
                self.step_one(rule, rule.step_scalars(group.steps, [factor, *hyper]), p, g, states)
        self.t += 1
        return True

    @staticmethod
    def step_one(rule: Rule, scalars: list[float], p: np.ndarray, g: np.ndarray, states: dict[str, np.ndarray]) -> None:
        dtype = np.dtype(np.float64 if p.dtype == np.float64 else np.float32).type
        first, own, last = rule.divided([dtype(scalar) for scalar in scalars])
        with np.errstate(all="ignore"):
            if "master" in states:  # which follows what a script has written
                master = states["master"]
                master[...] = np.where(master.astype(p.dtype).view(np.uint16) == p.view(np.uint16), master, p)
            new, prepared = prepare(states.get("master", p.astype(dtype)), g.astype(dtype), *first)
            old = [states[name] for name in rule.states]
            new, *after = rule.update(new, prepared, *old, *own)
            new = finish(new, *last)
            p[...] = new
        if "master" in states:
            states["master"][...] = new
        for state, value in zip(old, after, strict=True):
            state[...] = value

    def rebind(self, params: list[np.ndarray]) -> None:
        """Other values for the parameters: masters follow at the next step."""
        for p, new in zip(self.all_params(), params, strict=True):
            p[...] = new

    def all_params(self) -> list[np.ndarray]:
        return [p for group in self.groups for p in group.params]


@dataclass
class Saved:
    """What was saved, and the model as it was."""

    model: Model
    path: Path | None  # or, where it is none:
    state: dict[str, Any] | None
    has_params: bool = False

    def fits(self, model: Model) -> bool:
        """Whether it can be loaded there: a file keeps no function, so there must be one."""
        pairs = list(zip(self.model.groups, model.groups, strict=False))
        lost = self.path is not None and any(
            then.values["lr"] is per_t and not callable(now.values["lr"]) for then, now in pairs
        )
        return len(self.model.groups) == len(model.groups) and not lost

    def restored(self, model: Model) -> Model:
        """The model after that was loaded."""
        again = copy.deepcopy(self.model)
        for then, now in zip(again.groups, model.groups, strict=True):
            if self.path is not None and then.values["lr"] is per_t:
                then.values["lr"] = now.values["lr"]
            if not self.has_params:
                then.params = now.params
        return again


# ---------------------------------------------------------------- the machine


class Life(RuleBasedStateMachine):
    """Real and model side by side."""

    saved = Bundle("saved")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.rng = np.random.default_rng(0)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def new_arrays(self, count: int) -> list[np.ndarray]:
        return [np.asarray(self.rng.choice(ELEMENTS, shape)).astype(dtype) for shape, dtype in ARRAYS[:count]]

    @initialize(
        case=st.sampled_from(sorted(BY_RULE)),
        way=st.sampled_from(["list", "dict", "groups", "object", "bound"]),
        count=st.integers(1, len(ARRAYS)),
        master=st.booleans(),
        backend=st.sampled_from(["cython", "cython", "numpy"]),
        seed=st.integers(0, 99),
    )
    def begin(self, case: str, way: str, count: int, master: bool, backend: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        cls, self.options = BY_RULE[case]
        self.way = way
        self.how = {"master_weights": master, "backend": backend, "seed": seed}
        self.model = Model(cls, master)
        params = self.new_arrays(count)
        self.bound = [np.zeros_like(p) for p in params] if way == "bound" else None
        self.opt = self.build([params])
        self.model.add(params, {**self.opt.defaults})

    def build(self, groups: list[list[np.ndarray]]) -> fastadam.Optimizer:
        """An optimizer over these arrays, in the structure of this life."""
        [first, *others] = groups
        params: Any = first
        if self.way == "dict":
            params = {f"p{k}": p for k, p in enumerate(first)}
        if self.way == "groups":
            params = [{"params": first}]
        if self.way == "object":
            self.object = params = SimpleNamespace(parameters=first, grad=None)
        more = {} if self.bound is None else {"grads": self.bound[: len(first)]}
        opt = self.model.cls(params, **self.options, **self.how, **more)
        begun = len(first)
        for arrays in others:
            own = {} if self.bound is None else {"grads": self.bound[begun : begun + len(arrays)]}
            opt.add_param_group({"params": arrays, **own})
            begun += len(arrays)
        return opt

    def structured(self, flat: list[Any]) -> Any:
        """Gradients in the structure of the parameters."""
        if len(self.model.groups) > 1 or self.way == "groups":
            rest = iter(flat)
            first, *others = [[next(rest) for _ in group.params] for group in self.model.groups]
            return [self.structured_alone(first), *others]
        return self.structured_alone(flat)

    def structured_alone(self, flat: list[Any]) -> Any:
        return {f"p{k}": g for k, g in enumerate(flat)} if self.way == "dict" else flat

    def call_step(self, grads: list[np.ndarray], **extras: Any) -> None:
        if self.way == "object":
            self.object.grad = grads
            self.opt.step(**extras)
        elif self.bound is not None:
            for own, g in zip(self.bound, grads, strict=True):
                own[...] = g
            self.opt.step(**extras)
        else:
            self.opt.step(self.structured(grads), **extras)

    def new_grads(self) -> list[np.ndarray]:
        return [np.asarray(self.rng.choice(ELEMENTS, p.shape)).astype(p.dtype) for p in self.model.all_params()]

    # ------------------------------------------------ steps

    @rule(
        extras=st.fixed_dictionaries(
            {},
            optional={
                "grad_scale": st.sampled_from([0.5, 3.0]),
                "max_norm": st.sampled_from([0.1, 1e9]),
                "clip_value": st.sampled_from([0.01, 5.0]),
                "zero_grads": st.booleans(),
                "skip_nonfinite": st.booleans(),
                "max_norm_each": st.sampled_from([0.1, 1e9]),
            },
        ).filter(lambda extras: not {"max_norm", "max_norm_each"} <= extras.keys()),
        bad=st.sampled_from([None, None, None, math.inf, math.nan]),
    )
    def step(self, extras: dict[str, Any], bad: float | None) -> None:
        grads = self.new_grads()
        if bad is not None and extras.get("skip_nonfinite") and grads[-1].size:
            grads[-1].flat[0] = bad
        given = copy.deepcopy(grads)
        self.call_step(given, **extras)
        stepped = self.model.step(grads, self.opt.grad_norm, extras)
        for g, then in zip(given if self.bound is None else self.bound, grads, strict=True):
            assert bits(g) == bits(np.zeros_like(g) if stepped and extras.get("zero_grads") else then)

    @rule(data=st.data())
    def refused_step(self, data: st.DataObject) -> None:
        """Whatever is wrong with a step: nothing changes, as the invariant sees."""
        grads = self.new_grads()
        wrong = data.draw(st.sampled_from(sorted(self.wrong_steps(grads))))
        given, extras = self.wrong_steps(grads)[wrong]
        with pytest.raises((TypeError, ValueError)):
            self.opt.step(given, **extras)

    def wrong_steps(self, grads: list[np.ndarray]) -> dict[str, tuple[Any, dict[str, Any]]]:
        last = grads[-1]
        flat: dict[str, list[Any]] = {
            "shape": [*grads[:-1], np.zeros((7, 7), last.dtype)],
            "dtype": [*grads[:-1], np.zeros(last.shape, complex)],
            "text": [*grads[:-1], "none"],
            "one too many": [*grads, last],
        }
        largest = max(range(len(grads)), key=lambda k: grads[k].size)
        flat["a parameter"] = [inside.params(self.opt)[k] if k == largest else g for k, g in enumerate(grads)]
        found: dict[str, tuple[Any, dict[str, Any]]] = {name: (wrong, {}) for name, wrong in flat.items()}
        found |= {
            "scale": (grads, {"grad_scale": 0.0}),
            "norm": (grads, {"max_norm": -1.0}),
            "both norms": (grads, {"max_norm": 1.0, "max_norm_each": 1.0}),
            "clip": (grads, {"clip_value": math.nan}),
            "flag": (grads, {"zero_grads": 1}),
        }
        nested = len(self.model.groups) > 1 or self.way in ("groups", "dict")
        return {
            name: (self.structured(given) if nested and name != "one too many" else given, extras)
            for name, (given, extras) in found.items()
        }

    @precondition(lambda self: self.way not in ("object", "bound"))
    @rule()
    def no_gradients(self) -> None:
        for call in (self.opt.step, self.opt.zero_grad):
            with pytest.raises(RuntimeError, match="grad"):
                call()

    @precondition(lambda self: self.takes_schedules())
    @rule(k=st.integers(0, 9))
    def a_schedule_without_a_rate(self, k: int) -> None:
        group = self.opt.param_groups[k % len(self.opt.param_groups)]
        before = group["lr"]
        group["lr"] = lambda t: -1.0
        with pytest.raises(ValueError, match="lr"):
            self.call_step(self.new_grads())
        group["lr"] = before

    @precondition(lambda self: self.way in ("object", "bound"))
    @rule()
    def zero_grad(self) -> None:
        grads = self.new_grads()
        if self.bound is None:
            self.object.grad = grads
        else:
            for own, g in zip(self.bound, grads, strict=True):
                own[...] = g
            grads = self.bound
        self.opt.zero_grad()
        assert not any(g.any() for g in grads)

    # ------------------------------------------------ options and groups

    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        choices = [(name, value) for name in OPTIONS for value in OPTIONS[name] if self.may_be(name, value)]
        name, value = data.draw(st.sampled_from(choices))
        k = data.draw(st.integers(-1, len(self.model.groups) - 1))
        if k < 0:
            setattr(self.opt, name, value)
        else:
            self.opt.param_groups[k][name] = value
        for group in self.model.groups if k < 0 else [self.model.groups[k]]:
            group.values[name] = value

    def may_be(self, name: str, value: Any) -> bool:
        """Whether the class has such an option, of which it takes this value between steps."""
        option = self.model.cls.options.get(name)
        if option is None or option.fixed or (name == "momentum" and self.opt.defaults[name] == 0):
            return False
        is_free = name != "lr" or self.takes_schedules() or not callable(value)
        return is_free and np.shape(value) == np.shape(option.default)

    def takes_schedules(self) -> bool:
        return self.model.cls.options["lr"].check is rate_or_schedule

    @rule(
        wrong=st.sampled_from(
            [("lr", -1.0), ("lr", "0.1"), ("lr", math.nan), ("weight_decay", True), ("maximize", 1), ("nesterov", 1)]
        ),
        k=st.integers(0, 9),
    )
    def refused_option(self, wrong: tuple[str, Any], k: int) -> None:
        with pytest.raises((TypeError, ValueError), match=wrong[0]):
            self.opt.param_groups[k % len(self.opt.param_groups)][wrong[0]] = wrong[1]

    @precondition(lambda self: "amsgrad" in self.opt.defaults or "momentum" in self.opt.defaults)
    @rule()
    def refused_rule(self) -> None:
        name = "amsgrad" if "amsgrad" in self.opt.defaults else "momentum"
        with pytest.raises(ValueError, match="needs other states"):
            setattr(self.opt, name, type(getattr(self.opt, name))(not getattr(self.opt, name)))

    @precondition(lambda self: self.way != "object" and len(self.model.groups) < 3)
    @rule(count=st.integers(1, 3), rate=st.sampled_from(RATES))
    def add_group(self, count: int, rate: Any) -> None:
        if not self.takes_schedules():
            rate = self.opt.defaults["lr"]  # which may be fixed, as in the optimizer that a file is loaded into
        params = self.new_arrays(count)
        self.model.add(params, {**self.opt.defaults, "lr": rate})
        more: dict[str, Any] = {"lr": rate}
        if self.bound is not None:
            more["grads"] = [np.zeros_like(p) for p in params]
            self.bound += more["grads"]
        self.opt.add_param_group({"params": params, **more})

    @rule(wrong=st.sampled_from(["itself", "option", "grads", "int"]))
    def refused_group(self, wrong: str) -> None:
        p = np.ones(2)
        largest = max(inside.params(self.opt), key=lambda p: p.size)
        group = {
            "itself": {"params": largest if largest.size else np.ones(2, bool)},
            "option": {"params": p, "lr": -1},
            "grads": {"params": p} if self.bound is not None else {"params": p, "grads": p.copy()},
            "int": {"params": np.ones(2, int)},
        }[wrong]
        if self.bound is not None and wrong != "grads":
            group["grads"] = np.ones(2)
        with pytest.raises((TypeError, ValueError)):
            self.opt.add_param_group(group)

    @precondition(lambda self: self.way == "object")
    @rule()
    def rebind(self) -> None:
        """A script gives the object other arrays."""
        params = self.new_arrays(len(self.model.all_params()))
        self.object.parameters = [p.copy() for p in params]
        self.model.rebind(params)
        self.opt.state_dict()

    # ------------------------------------------------ what survives

    @rule(target=saved, suffix=st.sampled_from(SUFFIXES), params=st.booleans())
    def save(self, suffix: str, params: bool) -> Saved:
        model = copy.deepcopy(self.model)
        if not suffix:
            return Saved(model, None, self.opt.state_dict())
        path = self.folder / f"{len(list(self.folder.iterdir()))}{suffix}"
        self.opt.save(path, params=params)
        return Saved(model, path, None, params)

    def load_into(self, opt: fastadam.Optimizer, saved: Saved) -> None:
        if saved.path is None:
            opt.load_state_dict(saved.state)
        else:
            opt.load(saved.path, params=saved.has_params)

    @rule(saved=saved)
    def load(self, saved: Saved) -> None:
        if saved.fits(self.model):
            self.load_into(self.opt, saved)
            self.model = saved.restored(self.model)
        else:
            with pytest.raises(ValueError, match=r"expected|missing|function"):
                self.load_into(self.opt, saved)

    @rule(saved=saved)
    def load_into_another(self, saved: Saved) -> None:
        """A new process would: other arrays of the same structure, then what was saved."""
        groups = [[p.copy() for p in group.params] for group in self.model.groups]
        if self.bound is not None:
            self.bound = [np.zeros_like(g) for g in self.bound]
        fresh = self.build(groups)
        for group, own in zip(fresh.param_groups, self.model.groups, strict=True):
            group["lr"] = own.values["lr"]
        if not saved.fits(self.model):
            with pytest.raises(ValueError, match=r"expected|missing|function"):
                self.load_into(fresh, saved)
            saved = Saved(copy.deepcopy(self.model), None, self.opt.state_dict())
        self.load_into(fresh, saved)
        self.opt, self.model = fresh, saved.restored(self.model)

    @rule(saved=saved, cut=st.integers(1, 400))
    def refused_file(self, saved: Saved, cut: int) -> None:
        if saved.path is not None:
            whole = saved.path.read_bytes()
            saved.path.write_bytes(whole[: -min(cut, len(whole))])
            with pytest.raises(ValueError, match=r"not a complete (checkpoint|zip)|not a checkpoint|expected|missing"):
                self.opt.load(saved.path)
            saved.path.write_bytes(whole)

    @rule(way=st.sampled_from(["pickle", "deepcopy"]))
    def go_on_with_a_copy(self, way: str) -> None:
        if self.way == "object":
            self.object.grad = None
        before = self.opt
        self.opt = copy.deepcopy(self.opt) if way == "deepcopy" else pickle.loads(pickle.dumps(self.opt))
        for p in inside.params(before):
            p[...] = 7  # the copy has arrays of its own
        if self.way == "object":
            self.object = inside.held_object(self.opt)
        if self.bound is not None:
            self.bound = list(inside.bound(self.opt))

    # ------------------------------------------------ and after each of them

    @invariant()
    def is_the_model(self) -> None:
        if not hasattr(self, "opt"):  # before `begin`
            return
        assert (self.opt.t, self.opt.skipped) == (self.model.t, self.model.skipped)
        assert self.opt.seed == self.how["seed"]
        assert len(self.opt.param_groups) == len(self.model.groups)
        states: Iterator[dict[str, np.ndarray]] = iter(inside.named_states(self.opt))
        for k, (group, expected) in enumerate(zip(self.opt.param_groups, self.model.groups, strict=True)):
            assert inside.steps(self.opt, k) == expected.steps
            assert {name: value for name, value in group.items() if name != "params"} == expected.values
            for p, own, of_own in zip(group["params"], expected.params, expected.states, strict=True):
                assert {"p": bits(p)} | {name: bits(array) for name, array in next(states).items()} == {
                    "p": bits(own)
                } | {name: bits(array) for name, array in of_own.items()}


TestLife: Callable[..., Any] = Life.TestCase
