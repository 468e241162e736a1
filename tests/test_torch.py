"""fastadam's numbers, states, argument order and defaults are those of torch.optim.
Against recorded numbers everywhere; against torch itself where it is installed.
"""

import importlib.util
import inspect
from typing import Any

import numpy as np
import pytest
from torch_cases import CASES, DATA, DTYPES, GROUPS, OPTIONS, STEPS, Case, follow, gradient, key, start

import fastadam

if importlib.util.find_spec("torch") is not None:
    import record_torch
    import torch

live = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed; CI installs it")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_optimizer = pytest.mark.parametrize("name", OPTIONS)

# In units of the last place of the largest value (an element rounded where it once was): half of one for each step.
# The two sides order their operations differently, and torch fuses multiplication and addition where the CPU can; 3.5
# units were seen in float64 and 2.9 in float32. A gradient that hangs on the parameters magnifies an error, in these
# cases 21 times at most.
ULPS = STEPS[-1] / 2

#: torch's names of states -> ours
STATES = {
    "exp_avg": "m",
    "exp_avg_sq": "v",
    "max_exp_avg_sq": "v_max",
    "exp_inf": "u",
    "sum": "v",
    "square_avg": "v",
    "grad_avg": "m",
    "momentum_buffer": "b",
    "acc_delta": "d",
}
#: torch's arguments that choose how to compute, not what
NOT_OURS = {"foreach", "fused", "capturable", "differentiable"}


def assert_close(actual: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    assert actual.dtype == expected.dtype, what
    allowed = ULPS * np.finfo(expected.dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed, err_msg=what)


def ours(name: str, params: list[np.ndarray], options: dict[str, Any], **more: Any) -> fastadam.Optimizer:
    return getattr(fastadam, name)(params, **options, **more)


def flat(arrays: list[np.ndarray | None]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays if a is not None])


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(DATA) as data:
        return dict(data)


# ---------------------------------------------------------------- recorded numbers


@pytest.mark.parametrize("backend", ["cython", "numpy"])
@each_dtype
@each_case
def test_parameters_are_those_recorded(case: Case, dtype: str, backend: str, recorded: dict[str, np.ndarray]) -> None:
    params = start(dtype)
    values = follow(params, ours(case.optimizer, params, case.options, backend=backend).step)
    assert_close(values, recorded[key(case, dtype)])


def test_data_holds_each_case_once_and_the_version_of_its_name(recorded: dict[str, np.ndarray]) -> None:
    keys = [key(case, dtype) for case in CASES for dtype in DTYPES]
    assert sorted(recorded) == sorted([*keys, "torch"])
    major, minor, *_ = str(recorded["torch"]).split(".")
    assert DATA.stem == f"torch-{major}.{minor}"


# ---------------------------------------------------------------- torch itself


@live
@each_dtype
@each_case
def test_recorded_is_what_torch_makes_now(case: Case, dtype: str, recorded: dict[str, np.ndarray]) -> None:
    assert_close(record_torch.record(case, dtype), recorded[key(case, dtype)])


class Pair:
    """The same optimizer here and in torch, each on parameters of its own."""

    def __init__(self, name: str, dtype: str, options: dict[str, Any], groups: tuple[dict[str, Any], ...] = ()) -> None:
        self.ours_params, self.theirs_params = start(dtype), start(dtype)
        grouped = [{"params": [p], **group} for p, group in zip(self.ours_params, groups, strict=False)]
        self.ours = ours(name, grouped or self.ours_params, options)
        self.theirs = record_torch.TorchOptimizer(name, self.theirs_params, options, groups)

    def step(self, t: int) -> None:
        self.ours.step([gradient(k, p, t) for k, p in enumerate(self.ours_params)])
        self.theirs.step([gradient(k, p, t) for k, p in enumerate(self.theirs_params)])

    def assert_close(self) -> None:
        assert_close(flat(self.ours_params), flat(self.theirs_params), f"parameters after step {self.ours.t}")
        mine, theirs = self.ours.state, self.theirs.states()
        assert theirs.pop("step") == [self.ours.t] * len(self.ours_params)
        assert sorted(mine) == sorted(STATES[name] for name in theirs)
        for name, arrays in theirs.items():
            assert [a is None for a in mine[STATES[name]]] == [a is None for a in arrays], name
            assert_close(flat(mine[STATES[name]]), flat(arrays), f"{name} after step {self.ours.t}")


@live
@each_dtype
@each_case
def test_parameters_and_states_are_torchs(case: Case, dtype: str) -> None:
    pair = Pair(case.optimizer, dtype, case.options)
    for t in range(1, STEPS[-1] + 1):
        pair.step(t)
        if t in STEPS:
            pair.assert_close()


@live
@each_dtype
@each_optimizer
def test_groups_override_as_in_torch(name: str, dtype: str) -> None:
    pair = Pair(name, dtype, {"lr": 0.05}, GROUPS[name])
    for t in range(1, 21):
        pair.step(t)
    pair.assert_close()


@live
@each_optimizer
def test_options_assigned_between_steps_take_effect_as_in_torch(name: str) -> None:
    pair = Pair(name, "float64", {"lr": 0.05}, GROUPS[name])
    for t in range(1, 21):
        if t == 11:
            for optimizer in (pair.ours, pair.theirs.optimizer):
                optimizer.param_groups[1]["lr"] = 0.01
                optimizer.param_groups[2]["weight_decay"] = 0.5
        pair.step(t)
    pair.assert_close()


def arguments(optimizer: type) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in inspect.signature(optimizer).parameters.items() if name != "self"}


def positional(optimizer: type) -> list[str]:
    return [name for name, p in arguments(optimizer).items() if p.kind is p.POSITIONAL_OR_KEYWORD]


@live
@each_optimizer
def test_arguments_and_defaults_are_torchs(name: str) -> None:
    mine, theirs = arguments(getattr(fastadam, name)), arguments(getattr(torch.optim, name))
    shared = [argument for argument in theirs if argument not in NOT_OURS]
    assert [argument for argument in mine if argument in theirs] == shared
    assert {a: mine[a].default for a in shared} == {a: theirs[a].default for a in shared}


@live
@each_optimizer
def test_positional_arguments_mean_the_same_in_torch(name: str) -> None:
    mine, theirs = positional(getattr(fastadam, name)), positional(getattr(torch.optim, name))
    assert mine == theirs[: len(mine)]


@live
@each_optimizer
def test_cases_vary_every_option_of_torch(name: str) -> None:
    defaults = {
        a: p.default for a, p in arguments(getattr(torch.optim, name)).items() if a not in NOT_OURS | {"params"}
    }
    varied = {option for options in OPTIONS[name] for option, value in options.items() if value != defaults[option]}
    assert varied == set(defaults)
