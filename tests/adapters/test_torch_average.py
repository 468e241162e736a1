"""`fastadam.adapters.torch.Average`, compared with torch's averaged models; changes of tensors between updates.
The tests need torch, which CI installs.
"""

import copy
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip("torch is not installed; CI installs it", allow_module_level=True)

import torch
from torch.optim import swa_utils

from fastadam.adapters.torch import Adam, Average

GIVEN = {
    "module": lambda model: model,
    "parameters": lambda model: model.parameters(),
    "named parameters": lambda model: model.named_parameters(),
    "dict": lambda model: {"first": dict(model[0].named_parameters()), "rest": [*model[2].parameters()]},
}


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).to(dtype)


def train(model, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for t in steps:
        optimizer.zero_grad()
        model(
            torch.sin(torch.arange(20.0).reshape(4, 5) + t).to(next(model.parameters()).dtype)
        ).square().mean().backward()
        optimizer.step()
        yield t


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("decay", [0.9, None])
def test_is_the_averaged_model(given, decay):
    model = network()
    theirs = swa_utils.AveragedModel(
        model, multi_avg_fn=swa_utils.get_swa_multi_avg_fn() if decay is None else swa_utils.get_ema_multi_avg_fn(decay)
    )
    ours = Average(GIVEN[given](model), decay)
    x = torch.ones(3, 5)
    for _ in train(model, range(10)):
        theirs.update_parameters(model)
        ours.update()
    before = [p.detach().clone() for p in model.parameters()]
    with ours.swapped(), torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x), rtol=1e-6, atol=1e-7)
        for p, q in zip(model.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert ours.t == 10


def test_averages_are_tensors_in_the_structure():
    model = network()
    average = Average(GIVEN["dict"](model))
    assert average.params["first"]["weight"].shape == (8, 5)
    assert average.params["rest"][1].shape == (1,)
    average.params["rest"][1][...] = 7  # in its memory
    with average.swapped():
        assert model[2].bias.item() == 7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype):
    model = network(dtype)
    average = Average(model, 0.5)
    expected = None
    for _ in train(model, range(4)):
        average.update()
        now = model[0].weight.detach().double().numpy().copy()
        expected = now if expected is None else expected + (now - expected) / 2
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert average.params["0.weight"].dtype == wide
    np.testing.assert_allclose(average.params["0.weight"], expected, rtol=1e-6)
    before = model[0].weight.detach().clone()
    with average.swapped():
        assert torch.equal(model[0].weight, average.params["0.weight"].to(dtype)) or dtype == torch.float64
        assert not torch.equal(model[0].weight, before)
    assert torch.equal(model[0].weight, before)


def test_memory_that_moves_is_followed():
    p = torch.nn.Parameter(torch.zeros(3))
    average = Average([p], 0.5)
    average.update()
    p.data = torch.ones(3)
    average.update()
    assert average.params[0].tolist() == [0.5] * 3
    with average.swapped():
        assert p.tolist() == [0.5] * 3
    average.reset()
    assert average.params[0].tolist() == [1.0] * 3


def test_a_tensor_grows():
    given = {"E": torch.zeros(2, 1)}
    average = Average(given, 0.5)
    average.update()
    average.replace("E", torch.tensor([[4.0], [6.0]]), rows=[1, -1])
    average.update()
    assert average.params["E"].tolist() == [[2.0], [6.0]]
    with average.swapped():
        assert given["E"].tolist() == [[2.0], [6.0]]


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "file"])
def test_goes_on_from(way, tmp_path):
    model = network()
    average = Average(model, 0.9)
    list(zip(train(model, range(3)), iter(average.update, 0), strict=False))
    if way == "file":
        average.save(tmp_path / "average.npz")
        other = copy.deepcopy(model)
        again = Average(other)
        again.load(tmp_path / "average.npz")
    else:
        both = model, average
        other, again = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
    for net, averaged in ((model, average), (other, again)):
        for _ in train(net, range(3, 6)):
            averaged.update()
    assert all(torch.equal(average.params[name], again.params[name]) for name in average.params)
    with again.swapped():
        assert torch.equal(other[0].weight, again.params["0.weight"]) is False
        assert torch.equal(other[0].weight, average.params["0.weight"])


def test_beside_an_optimizer_of_the_adapter():
    model = network()
    optimizer, average = Adam(model.parameters(), lr=0.1), Average(model.parameters(), None)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 5)).square().mean().backward()
        optimizer.step()
        average.update()
    with average.swapped():
        assert model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (lambda: [torch.ones(2, device="meta")], TypeError, r"params\[0\] lies on meta"),
        (lambda: [torch.ones(2, 2).to_sparse()], TypeError, r"params\[0\] is sparse"),
        (lambda: [torch.ones(2, dtype=torch.int64)], TypeError, r"params\[0\] is of torch.int64"),
        (lambda: [{"params": [torch.ones(2)]}], TypeError, "params: expected tensors without groups"),
        (lambda: [np.ones(3)], TypeError, r"params\[0\]: expected a tensor, got ndarray; fastadam.Average takes"),
        (lambda: [torch.ones(1).expand(3)], ValueError, r"params\[0\]: several of its elements share memory"),
    ],
)
def test_refused(given, error, text):
    with pytest.raises(error, match=text):
        Average(given())
