"""Sparse gradients of whole rows in the torch adapter: lazy steps, compared with torch's where torch has such a step,
and with dense gradients, in every dtype and memory layout that embeddings give.
"""

import re
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip("torch is not installed; CI installs it", allow_module_level=True)

import torch

import fastadam
from fastadam.adapters import torch as adapter

CLOSE = {"rtol": 2e-6, "atol": 1e-7}
#: each has an item twice
BATCHES = [torch.tensor(batch) for batch in ([1, 4, 1], [4, 0, 0], [2, 2, 6], [1, 6, 1])]
NAMES = [name for name in adapter.__all__ if isinstance(getattr(adapter, name), type) and name != "Average"]


def tables(n=2, dtype=torch.float32, **options):
    """As many embeddings of the same weights."""
    weights = torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3).to(dtype)
    make = torch.nn.Embedding.from_pretrained
    return [make(weights.clone(), freeze=False, sparse=True, **options) for _ in range(n)]


def train(model, optimizer, batches=BATCHES):
    for batch in batches:
        optimizer.zero_grad()
        out = model(batch)
        (out * torch.arange(1.0, 1 + out.numel()).reshape(out.shape).to(out.dtype)).sum().backward()
        optimizer.step()


def same(ours, theirs, **close):
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(own.detach().numpy(), other.detach().numpy(), **(close or CLOSE))


# ---------------------------------------------------------------- torch's numbers


def test_adam_is_torchs_sparse_adam():
    """Where ε is too small to count: SparseAdam adds it before the correction."""
    ours, theirs = tables()
    opt = adapter.Adam(ours.parameters(), lr=0.1, eps=1e-14)
    other = torch.optim.SparseAdam(theirs.parameters(), lr=0.1, eps=1e-14)
    train(ours, opt)
    train(theirs, other)
    same(ours, theirs)
    own, their = opt.state[ours.weight], other.state[theirs.weight]
    assert own["step"] == their["step"] == len(BATCHES)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(own[name], their[name], rtol=1e-6, atol=1e-12)


def test_sparse_adams_epsilon_is_eps_hat_over_arrays():
    (theirs,) = tables(1)
    p = theirs.weight.detach().numpy().copy()
    ours = fastadam.Adam(p, lr=0.1, eps=0.5, eps_hat=True)
    other = torch.optim.SparseAdam(theirs.parameters(), lr=0.1, eps=0.5)
    for batch in BATCHES:
        other.zero_grad()
        theirs(batch).square().sum().backward()
        ours.step(theirs.weight.grad)
        other.step()
    np.testing.assert_allclose(p, theirs.weight.detach().numpy(), **CLOSE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {}),
        ("SGD", {"maximize": True}),
        ("Adagrad", {}),
        ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant")  # torch's own, in its Adagrad
def test_what_torch_steps_sparsely(name, options):
    ours, theirs = tables()
    opt = getattr(adapter, name)(ours.parameters(), lr=0.1, **options)
    other = getattr(torch.optim, name)(theirs.parameters(), lr=0.1, **options)
    train(ours, opt)
    train(theirs, other)
    same(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_every_class_steps_rows_as_arrays_are_stepped(name):
    """To the bit as over NumPy arrays; rows that no batch brings keep parameters and states."""
    (table,) = tables(1)
    before = table.weight.detach().clone()
    opt = getattr(adapter, name)(table.parameters(), lr=0.1)
    p = table.weight.detach().numpy().copy()
    over_arrays = getattr(fastadam, name)(p, lr=0.1)
    for batch in BATCHES:
        opt.zero_grad()
        table(batch).square().sum().backward()
        over_arrays.step(fastadam.Rows(table.weight.grad._indices()[0].numpy(), table.weight.grad._values().numpy()))
        opt.step()
    assert table.weight.detach().numpy().tobytes() == p.tobytes()
    untouched = [3, 5]
    assert torch.equal(table.weight.detach()[untouched], before[untouched])
    assert not torch.equal(table.weight.detach()[[0, 1, 2, 4, 6]], before[[0, 1, 2, 4, 6]])


# ---------------------------------------------------------------- beside others, and in any memory


class Mixed(torch.nn.Module):
    """A bag of embeddings, and a dense layer behind it."""

    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.bag = torch.nn.EmbeddingBag(9, 4, sparse=sparse, mode="sum")
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, batch):
        return self.linear(self.bag(batch.reshape(1, -1)))


def test_dense_and_sparse_gradients_in_one_step():
    """Where no row misses a step, lazily is densely."""
    ours, theirs = Mixed(sparse=True), Mixed(sparse=False)
    every = [torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3])] * 4
    train(ours, adapter.Adam(ours.parameters(), lr=0.1), every)
    train(theirs, torch.optim.Adam(theirs.parameters(), lr=0.1), every)
    same(ours, theirs)


def test_a_gradient_may_be_sparse_in_one_step_and_dense_in_the_next():
    ours, theirs = (torch.nn.Parameter(torch.ones(4, 2)) for _ in range(2))
    opt, other = adapter.Adagrad([ours], lr=0.1), torch.optim.Adagrad([theirs], lr=0.1)
    dense = torch.arange(8.0).reshape(4, 2)
    rows = torch.sparse_coo_tensor(torch.tensor([[3, 1, 3]]), dense[:3], (4, 2))
    for grad in (dense, rows, dense, dense, rows, rows.coalesce(), dense):
        ours.grad = theirs.grad = grad.clone()
        opt.step()
        other.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtypes(dtype):
    """16 bits are stepped in float32 from what torch has in 16 bits."""
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    ours, exact = tables(1, dtype)[0], tables(1, torch.float64)[0]
    with torch.no_grad():
        exact.weight.copy_(ours.weight)
    opt, other = (adapter.SGD(model.parameters(), lr=0.125) for model in (ours, exact))
    for model, optimizer in ((ours, opt), (exact, other)):
        train(model, optimizer, BATCHES[:1])
    np.testing.assert_array_equal(ours.weight.detach().double(), exact.weight.detach().to(dtype).double())


def test_memory_that_is_not_contiguous():
    """Indices of torch's may be every second number, values a transpose."""
    p, q = (torch.nn.Parameter(torch.zeros(5, 3)) for _ in range(2))
    index, values = torch.tensor([[4, 0], [1, 0], [4, 0]]).T[:1], torch.arange(9.0).reshape(3, 3).T
    p.grad = torch.sparse_coo_tensor(index, values, (5, 3), check_invariants=True)
    assert not p.grad._indices()[0].is_contiguous()
    q.grad = p.grad.to_dense()
    for own in (p, q):
        adapter.SGD([own], lr=1.0).step()
    assert torch.equal(p, q)
    assert torch.equal(p, -q.grad)


def test_values_that_stand_for_many():
    """A gradient of a plain sum may be one number, expanded."""
    p = torch.nn.Parameter(torch.zeros(3, 2))
    p.grad = torch.sparse_coo_tensor(torch.tensor([[2, 0]]), torch.ones(1, 1).expand(2, 2), (3, 2))
    assert p.grad._values().stride() == (0, 0)
    adapter.SGD([p], lr=1.0).step()
    assert p.tolist() == [[-1, -1], [0, 0], [-1, -1]]


def test_the_gradient_is_read_where_it_lies_and_stays():
    (table,) = tables(1)
    opt = adapter.SGD(table.parameters(), lr=1.0)
    table(BATCHES[0]).square().sum().backward()
    grad = table.weight.grad
    index, values = grad._indices().clone(), grad._values().clone()
    opt.step()
    assert torch.equal(grad._indices(), index)
    assert torch.equal(grad._values(), values)
    before = table.weight.detach().clone()
    grad._values().zero_()
    opt.step()
    assert torch.equal(table.weight, before)


def test_no_rows_count_as_a_step():
    """As in SparseAdam, and as after ``zero_grad(set_to_none=False)``."""
    ours, theirs = tables()
    opt = adapter.Adam(ours.parameters(), lr=0.1, eps=1e-14)
    other = torch.optim.SparseAdam(theirs.parameters(), lr=0.1, eps=1e-14)
    for model, optimizer in ((ours, opt), (theirs, other)):
        train(model, optimizer, BATCHES[:1])
        optimizer.zero_grad(set_to_none=False)
        assert model.weight.grad._nnz() == 0
        optimizer.step()
        train(model, optimizer, BATCHES[:1])
    same(ours, theirs)
    assert opt.state[ours.weight]["step"] == other.state[theirs.weight]["step"] == 3


# ---------------------------------------------------------------- refusals, and what torch does around a step


def test_refused_before_anything_is_touched():
    first, p = (torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    opt = adapter.Adam([first, p])
    first.grad, p.grad = torch.ones(3, 3), torch.eye(3).to_sparse()
    text = r"gradient of param_groups\[0\]\['params'\]\[1\]: .* sparse in 2 axes; pass \.to_dense\(\)"
    with pytest.raises(TypeError, match=text):
        opt.step()
    assert torch.equal(first, torch.ones(3, 3))
    assert not opt.state


def test_over_arrays_a_tensor_of_another_shape_is_refused():
    """Of an array's gradient nobody but the step looks at the shape."""
    p = np.ones((3, 2), np.float32)
    opt = fastadam.SGD(p, lr=1.0)
    with pytest.raises(ValueError, match=re.escape("expected shape (3, 2) like the parameter, got (4, 2)")):
        opt.step(torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 2), (4, 2)))
    opt.step(torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 2), (3, 2)))
    assert p.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_rows_out_of_range_are_refused():
    p = torch.nn.Parameter(torch.ones(3, 2))
    opt = adapter.SGD([p], lr=1.0)
    p.grad = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.ones(2, 2), (3, 2))
    p.grad._indices()[0, 1] = 7
    with pytest.raises(ValueError, match="expected numbers of rows, 0 … 2, got 7 at place 1"):
        opt.step()
    assert torch.equal(p, torch.ones(3, 2))


def test_a_closure_that_clips_the_values():
    ours, theirs = tables()

    def closure_of(model, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = (model(BATCHES[0]) * torch.tensor([0.5, 2.0, 100.0])).sum()
            loss.backward()
            model.weight.grad._values().clamp_(max=1.0)
            return loss

        return closure

    losses = []
    for cls, model in ((adapter.SGD, ours), (torch.optim.SGD, theirs)):
        optimizer = cls(model.parameters(), lr=0.25)
        losses.append([optimizer.step(closure_of(model, optimizer)).item() for _ in range(3)])
    assert losses[0] == losses[1]
    same(ours, theirs)


def test_a_grad_scaler_skips_what_is_not_finite():
    (table,) = tables(1)
    before = table.weight.detach().clone()
    opt = adapter.SGD(table.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, steps in ((float("inf"), False), (1.0, True)):
        opt.zero_grad()
        scaler.scale((table(BATCHES[0]) * factor).sum()).backward()
        scaler.step(opt)
        scaler.update()
        assert torch.equal(table.weight, before) != steps
    moved = before - table.weight.detach()
    torch.testing.assert_close(moved[:, 0], torch.tensor([0.0, 2, 0, 0, 1, 0, 0]))


def test_states_go_to_torch_and_come_back():
    """torch's Adagrad steps sparse gradients as well: each goes on from the other's state."""
    ours, theirs = tables()
    opt, other = (cls(m.parameters(), lr=0.1) for cls, m in ((adapter.Adagrad, ours), (torch.optim.Adagrad, theirs)))
    train(ours, opt)
    train(theirs, other)
    mine, its = opt.state_dict(), other.state_dict()
    opt.load_state_dict(its)
    other.load_state_dict(mine)
    train(ours, opt)
    train(theirs, other)
    same(ours, theirs)


def test_a_sparse_state_of_torchs_is_refused():
    """SGD keeps the momentum of sparse gradients sparse."""
    ours, theirs = tables()
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    train(theirs, other, BATCHES[:1])
    opt = adapter.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    opt.load_state_dict(other.state_dict())
    before = ours.weight.detach().clone()
    with pytest.raises(TypeError, match=r"state of .* is sparse"):
        train(ours, opt, BATCHES[:1])
    assert torch.equal(ours.weight, before)
