"""fastadam's results, states, argument order and defaults are those of torch.optim.
They are compared with recorded results, and with torch itself if it is installed.
"""

import importlib.util
import inspect
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from torch_cases import ASSIGNED, CASES, DTYPES, GROUPS, OPTIONS, RECORDED, STEPS, Case, follow, gradient, key, start

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

#: what torch keeps beside the states of each element; it follows from the count of steps
SHARED = {"step", "mu_product", "eta", "mu"}
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
    with np.load(RECORDED) as data:
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
    assert RECORDED.stem == f"torch-{major}.{minor}"


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
        assert theirs.get("step", [self.ours.t]) == [self.ours.t] * len(theirs.get("step", [0]))
        assert {self.ours.torch_names[name] for name in mine} == theirs.keys() - SHARED
        for name, arrays in mine.items():
            others = theirs[self.ours.torch_names[name]]
            assert [a is None for a in arrays] == [a is None for a in others], name
            assert_close(flat(arrays), flat(others), f"{name} after step {self.ours.t}")


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
                for k in (1, 2):
                    optimizer.param_groups[k].update(ASSIGNED[name][k - 1])
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


@live
@each_dtype
@pytest.mark.parametrize("norm_type", ["norm", "value", "both"])
def test_gradients_are_clipped_as_in_torch(norm_type: str, dtype: str) -> None:
    """Unscaled, clipped to a norm, then by value, in torch's separate passes and in one step of ours."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape).astype(dtype) for shape in ((20, 3), (7,), (1, 1, 2))]
    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    opt, theirs = fastadam.Adam(params, lr=0.1), torch.optim.Adam(tensors, lr=0.1)
    clipping = {"max_norm": 2.0} if norm_type != "value" else {}
    clipping |= {"clip_value": 0.2} if norm_type != "norm" else {}
    for _ in range(STEPS[-1]):
        grads = [(64 * rng.standard_normal(p.shape)).astype(dtype) for p in params]
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(g) / 64
        norm = torch.nn.utils.clip_grad_norm_(tensors, clipping["max_norm"]) if "max_norm" in clipping else None
        if "clip_value" in clipping:
            torch.nn.utils.clip_grad_value_(tensors, clipping["clip_value"])
        theirs.step()
        opt.step(grads, grad_scale=64.0, **clipping)
        assert (opt.grad_norm is None) == (norm is None)
        if norm is not None:
            assert opt.grad_norm == pytest.approx(float(norm), rel=1e-6)
    for p, tensor in zip(params, tensors, strict=True):
        np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)


@live
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_master_weights_are_torchs_float32_training(half: str) -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(500)
    tensor = torch.tensor(start).to(getattr(torch, half)).to(torch.float32).requires_grad_()
    p = tensor.detach().numpy().astype(np.float16 if half == "float16" else bfloat16)
    opt, theirs = fastadam.AdamW(p, lr=0.1, master_weights=True), torch.optim.AdamW([tensor], lr=0.1)
    for _ in range(STEPS[-1]):
        g = rng.standard_normal(500).astype(p.dtype)
        opt.step(g)
        tensor.grad = torch.tensor(g.astype(np.float32))
        theirs.step()
    assert_close(opt.state["master"][0], tensor.detach().numpy())
    np.testing.assert_allclose(p.astype(np.float32), tensor.detach().numpy(), rtol=2**-8)


@live
@each_dtype
def test_a_group_added_later_is_torchs(dtype: str) -> None:
    """torch counts the steps of each parameter, so the bias corrections of a new one begin at step 1."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(9).astype(dtype) for _ in range(2)]
    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    opt, theirs = fastadam.Adam([params[0]], lr=0.1), torch.optim.Adam([tensors[0]], lr=0.1)
    for t in range(STEPS[-1]):
        if t == 5:
            opt.add_param_group({"params": params[1], "lr": 0.05, "weight_decay": 0.1})
            theirs.add_param_group({"params": tensors[1], "lr": 0.05, "weight_decay": 0.1})
        grads = [rng.standard_normal(9).astype(dtype) for _ in range(2)]
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(g)
        opt.step(grads if t >= 5 else grads[:1])
        theirs.step()
    for p, tensor in zip(params, tensors, strict=True):
        assert_close(p, tensor.detach().numpy())
