"""`stepping()` of the torch adapter: each parameter is stepped as soon as autograd has accumulated its gradient."""

import copy
import pickle
import signal
import warnings
import weakref
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from fastadam.adapters import torch as adapter  # noqa: E402
from fastadam.adapters._tensors import Block  # noqa: E402

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {"lr": 0.05}),
    ("AdamW", {"amsgrad": True}),
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adadelta", {}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"momentum_decay": 0.1}),
    ("RAdam", {}),
    ("ASGD", {"t0": 5}),
    ("Rprop", {}),
]
IDS = [f"{name}-{k}" for k, (name, _) in enumerate(OPTIONS)]


class Model(nn.Module):
    """Three layers, of which the middle one may be passed over, and a parameter that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 2)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, x: Any, passed_over: bool = False) -> Any:
        h = torch.tanh(self.first(x))
        return self.last(h if passed_over else torch.tanh(self.middle(h))) * self.scale


def model_of(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model()


def batch(t: int) -> Any:
    return torch.from_numpy(np.random.default_rng(t).standard_normal((5, 6)).astype(np.float32))


def test_a_block_leaves_once_and_is_told_of_an_error() -> None:
    told: list[Any] = []
    for error in (None, ValueError("of the block")):
        block = Block(lambda: told.append("entered"), told.append)
        try:
            with block:
                told.append("within")
                if error is not None:
                    raise error
        except ValueError:
            pass
        del block
        assert told == ["entered", "within", error]
        told.clear()
    Block(lambda: told.append("entered"), told.append)
    assert told == []


def step_whole(model: Any, optimizer: Any, t: int, **how: Any) -> None:
    optimizer.zero_grad()
    model(batch(t), **how).square().mean().backward()
    optimizer.step()


def step_in_parts(model: Any, optimizer: Any, t: int, **how: Any) -> None:
    with optimizer.stepping():
        model(batch(t), **how).square().mean().backward()


def plain(optimizer: Any) -> Any:
    """A state dict with numbers for tensors."""
    found = optimizer.state_dict()
    states = {
        k: {name: v.tolist() if isinstance(v, torch.Tensor) else v for name, v in own.items()}
        for k, own in found["state"].items()
    }
    return states, found["param_groups"]


def assert_same(one: Any, one_optimizer: Any, other: Any, other_optimizer: Any) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    assert plain(one_optimizer) == plain(other_optimizer)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
def test_numbers_and_states_are_those_of_step(name, options):
    models = model_of(), model_of()
    whole, parts = (getattr(adapter, name)(m.parameters(), **options) for m in models)
    for t in range(50):
        how = {"passed_over": t % 7 in (2, 3)}
        step_whole(models[0], whole, t, **how)
        step_in_parts(models[1], parts, t, **how)
        assert all(p.grad is None for p in models[1].parameters())
        assert_same(models[0], whole, models[1], parts)
    assert (models[1].unused in parts.state) is (name == "Adagrad")  # whose states torch makes at the beginning


@pytest.mark.parametrize(("name", "options"), OPTIONS[:9], ids=IDS[:9])
def test_numbers_are_torchs(name, options):
    models = model_of(), model_of()
    stock, parts = (
        getattr(torch.optim, name)(models[0].parameters(), **options),
        getattr(adapter, name)(models[1].parameters(), **options),
    )
    for t in range(30):
        step_whole(models[0], stock, t)
        step_in_parts(models[1], parts, t)
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=2e-4, atol=2e-5)
    stock.load_state_dict(parts.state_dict())
    assert {own["step"].item() for own in stock.state.values() if "step" in own} - {0} == (
        set() if name == "SGD" else {30}
    )


def test_steps_take_turns_and_go_on_from_a_checkpoint():
    models = model_of(), model_of()
    whole, parts = (adapter.NAdam(m.parameters()) for m in models)
    for t in range(12):
        step_whole(models[0], whole, t)
        if t == 5:
            state, parts = parts.state_dict(), adapter.NAdam(models[1].parameters())
            parts.load_state_dict(state)
        if t == 8:
            models = models[0], copy.deepcopy(models[1])
            state, parts = parts.state_dict(), adapter.NAdam(models[1].parameters())
            parts.load_state_dict(state)
        (step_whole if t % 3 == 0 else step_in_parts)(models[1], parts, t)
        parts.zero_grad()
        assert_same(models[0], whole, models[1], parts)


def test_one_gradient_at_a_time():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(50, 50, bias=False) for _ in range(8)))
    optimizer, most = adapter.Adam(model.parameters()), 0
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda _: count())

    def count() -> None:
        nonlocal most
        most = max(most, sum(p.grad is not None for p in model.parameters()))

    x = torch.ones(3, 50)
    model(x).sum().backward()
    assert most == 8
    optimizer.step()
    optimizer.zero_grad()
    most = 0
    with optimizer.stepping():
        model(x).sum().backward()
    assert most == 1


def test_no_gradient_is_kept():
    p = torch.ones(50, requires_grad=True)
    optimizer, seen = adapter.Adam([p]), []
    p.register_post_accumulate_grad_hook(lambda own: seen.append(weakref.ref(own.grad)))
    for _ in range(2):
        optimizer.zero_grad()
        p.square().sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    with optimizer.stepping():
        p.square().sum().backward()
        assert [gone() for gone in seen] == [None] * 3


def test_gradients_from_before_the_block():
    models = model_of(), model_of()
    whole, parts = (adapter.Adam(m.parameters()) for m in models)
    for t in range(3):
        for m in models:
            m(batch(t)).square().mean().backward()
        models[0](batch(t + 9), passed_over=True).square().mean().backward()
        whole.step()
        whole.zero_grad()
        step_in_parts(models[1], parts, t + 9, passed_over=True)
        assert_same(models[0], whole, models[1], parts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_dtypes(dtype):
    params = [[torch.ones(5, dtype=dtype, requires_grad=True), torch.ones(3, 4, dtype=dtype).t().requires_grad_()] * 1]
    params.append([p.detach().clone().requires_grad_() for p in params[0]])
    whole, parts = (adapter.AdamW(own) for own in params)
    for t in range(4):
        for own, optimizer, in_parts in ((params[0], whole, False), (params[1], parts, True)):
            loss = sum((p * (t + 1)).abs().square().sum() for p in own)
            if in_parts:
                with optimizer.stepping():
                    loss.backward()
            else:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for p, q in zip(*params, strict=True):
            assert torch.equal(p, q)


def test_sparse_gradients():
    models = [nn.Embedding(20, 4, sparse=True) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    whole, parts = (adapter.Adam(m.parameters()) for m in models)
    for t in range(6):
        index = torch.from_numpy(np.random.default_rng(t).integers(0, 20, 7))
        whole.zero_grad()
        models[0](index).square().sum().backward()
        whole.step()
        with parts.stepping():
            models[1](index).square().sum().backward()
        assert_same(models[0], whole, models[1], parts)


def test_schedulers_and_hooks():
    models = model_of(), model_of()
    whole, parts = (adapter.Adam(m.parameters(), lr=0.1) for m in models)
    seen = []
    parts.register_step_post_hook(lambda optimizer, args, kwargs: seen.append(optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5) for optimizer in (whole, parts)]
        for t in range(6):
            step_whole(models[0], whole, t)
            step_in_parts(models[1], parts, t)
            for scheduler in schedulers:
                scheduler.step()
            assert_same(models[0], whole, models[1], parts)
    assert seen == [parts] * 6


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("graph", ["new", "kept"])
def test_a_second_backward_in_the_block(graph):
    model, other = model_of(), model_of()
    optimizer, expected = adapter.Adam(model.parameters()), adapter.Adam(other.parameters())
    step_whole(other, expected, 0)
    loss = model(batch(0)).square().mean()
    error, text = {"new": (ValueError, "came in this block"), "kept": (RuntimeError, "inplace operation")}[graph]
    again = (lambda: loss) if graph == "kept" else (lambda: model(batch(0)).square().mean())
    with pytest.raises(error, match=text), optimizer.stepping():
        (loss.backward(retain_graph=True), again().backward())
    assert_same(model, optimizer, other, expected)
    optimizer.zero_grad()
    step_whole(other, expected, 1)
    step_in_parts(model, optimizer, 1)
    assert_same(model, optimizer, other, expected)


def test_an_error_in_backward_ends_the_block():
    model = model_of()
    optimizer = adapter.Adam(model.parameters())

    def fail(_: Any) -> None:
        raise ArithmeticError("in backward")

    handle = model.middle.bias.register_hook(fail)
    with pytest.raises(ArithmeticError, match="in backward"), optimizer.stepping():
        model(batch(0)).square().mean().backward()
    steps = {
        name: int(optimizer.state[p]["step"]) if p in optimizer.state else 0 for name, p in model.named_parameters()
    }
    assert steps["last.weight"] == 1
    assert steps["first.weight"] == steps["unused"] == 0
    assert model.first.weight._post_accumulate_grad_hooks in (None, {})
    handle.remove()
    optimizer.zero_grad()
    step_in_parts(model, optimizer, 1)
    assert int(optimizer.state[model.last.weight]["step"]) == 2
    assert int(optimizer.state[model.first.weight]["step"]) == 1


def test_other_calls_in_the_block():
    model = model_of()
    optimizer = adapter.Adam(model.parameters())
    step_whole(model, optimizer, 0)
    state = optimizer.state_dict()
    calls = [
        optimizer.step,
        optimizer.state_dict,
        lambda: optimizer.load_state_dict(state),
        lambda: copy.deepcopy(optimizer),
        lambda: pickle.dumps(optimizer),
        lambda: optimizer.add_param_group({"params": [torch.ones(2, requires_grad=True)]}),
        lambda: optimizer.stepping().__enter__(),
    ]
    with optimizer.stepping():
        for call in calls:
            with pytest.raises(RuntimeError, match=r"until the block of stepping\(\) is over"):
                call()
        model(batch(0)).square().mean().backward()
    assert len(optimizer.param_groups) == 1
    optimizer.step()
    assert int(optimizer.state[model.scale]["step"]) == 2


def test_what_needs_all_gradients():
    model = model_of()
    optimizer = adapter.Adam(model.parameters())
    handle = optimizer.register_step_pre_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="hook needs all gradients before the step"), optimizer.stepping():
        pass
    handle.remove()
    optimizer.found_inf = torch.zeros(())
    with pytest.raises(RuntimeError, match="GradScaler"), optimizer.stepping():
        pass
    del optimizer.found_inf
    step_in_parts(model, optimizer, 0)


def test_a_scaler_finds_no_gradients():
    model = model_of()
    optimizer, scaler = adapter.Adam(model.parameters()), torch.amp.GradScaler("cpu")
    with optimizer.stepping():
        scaler.scale(model(batch(0)).square().mean()).backward()
    with pytest.raises(AssertionError, match="No inf checks"):
        scaler.step(optimizer)


def test_autograd_knows_that_a_parameter_was_stepped():
    early, late = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = adapter.SGD([early, late], lr=1.0)
    loss = (torch.ones(1, 2) @ early @ late.detach()).square().sum() + late.sum()  # late is stepped before it is read
    with pytest.raises(RuntimeError, match="modified by an inplace operation"), optimizer.stepping():
        loss.backward()
    assert torch.equal(early, torch.ones(2, 2))


def test_a_gradient_that_another_hook_took():
    model = model_of()
    first, second = (adapter.SGD(model.parameters(), lr=0.1) for _ in range(2))
    text = r"params'\]\[\d\]: expected a tensor, got None; another hook took it"
    with pytest.raises(RuntimeError, match=text), first.stepping(), second.stepping():
        model(batch(0)).sum().backward()


def test_a_tensor_that_was_not_waited_for():
    model = model_of()
    model.first.requires_grad_(False)
    optimizer = adapter.Adam(model.parameters())

    def train() -> None:
        with optimizer.stepping():
            model.first.requires_grad_(True)
            model(batch(0)).square().mean().backward()

    with pytest.raises(RuntimeError, match=r"params'\]\[2\]: has a gradient, but needed none"):
        train()
    assert int(optimizer.state[model.last.weight]["step"]) == 1
    model.requires_grad_(False)
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="no parameter needs a gradient"), optimizer.stepping():
        pass


def test_a_gradient_that_does_not_fit_is_left():
    p = torch.ones(3, 2, requires_grad=True)
    optimizer = adapter.Adam([p])
    with pytest.raises(TypeError, match="sparse"), optimizer.stepping():
        p.grad = torch.ones(3, 2).to_sparse()  # not of whole rows
    assert p not in optimizer.state
    assert p.grad.is_sparse
    with pytest.raises(RuntimeError, match="not entered"):
        optimizer.stepping().__exit__(None, None, None)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer of that kind")
def test_interrupts_at_any_moment():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(20, 20) for _ in range(6)))
    optimizer, x, rng = adapter.Adam(model.parameters()), torch.ones(3, 20), np.random.default_rng(0)

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    def train() -> None:
        loss = model(x).square().mean()
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-3))
        with optimizer.stepping():
            loss.backward()

    before, interrupted, done = signal.signal(signal.SIGALRM, handler), 0, np.zeros(12)
    try:
        for _ in range(300):
            optimizer.zero_grad()
            try:
                train()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            counts = np.array(
                [float(optimizer.state[p]["step"]) if p in optimizer.state else 0 for p in model.parameters()]
            )
            assert set(counts - done) <= {0, 1}
            assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
            done = counts
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
