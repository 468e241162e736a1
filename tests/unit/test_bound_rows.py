"""Rows as bound gradients, or as gradients of an object: read at each step, checked at construction, zeroed."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastadam
from fastadam import Rows


def table():
    return np.zeros((4, 2), np.float32)


def rows(value=1.0):
    return Rows([3, 1, 3], np.full((3, 2), value, np.float32))


def test_bound_rows_are_read_at_each_step():
    params, grads = {"table": table(), "b": np.zeros(2)}, {"table": rows(), "b": np.ones(2)}
    opt = fastadam.SGD(params, lr=1.0, grads=grads)
    opt.step()
    assert params["table"][:, 0].tolist() == [0, -1, 0, -2]
    grads["table"].values[:] = 2
    opt.step()
    assert params["table"][:, 0].tolist() == [0, -3, 0, -6]
    grads["table"] = Rows([0], np.ones((1, 2)))
    opt.step()
    assert params["table"][:, 0].tolist() == [-1, -3, 0, -6]
    assert params["b"].tolist() == [-3, -3]


def test_rows_of_an_object():
    model = SimpleNamespace(parameters=table(), grad=rows())
    opt = fastadam.SGD(model, lr=1.0)
    opt.step()
    assert model.parameters[:, 0].tolist() == [0, -1, 0, -2]
    opt.zero_grad()
    assert not model.grad.values.any()


def test_zero_grad_zeroes_the_values():
    bound = rows()
    opt = fastadam.SGD(table(), lr=1.0, grads=bound)
    opt.zero_grad()
    assert not bound.values.any()
    assert bound.index.tolist() == [3, 1, 3]


def test_a_group_that_is_added_may_bind_rows():
    added = table()
    opt = fastadam.SGD([{"params": [table()]}], lr=1.0, grads=[{"grads": [rows()]}])
    opt.add_param_group({"params": [added], "grads": [rows(3.0)]})
    opt.step()
    assert added[:, 0].tolist() == [0, -3, 0, -6]


def test_bound_rows_that_do_not_fit_are_refused_at_once():
    with pytest.raises(ValueError, match=r"gradient of params: expected shape \(1, 2\), rows of the parameter"):
        fastadam.SGD(table(), lr=1.0, grads=Rows([0], np.ones((1, 3))))
    with pytest.raises(ValueError, match=r"gradient of params: index: expected .*, 0 … 3, got 4 at place 0"):
        fastadam.SGD(table(), lr=1.0, grads=Rows([4], np.ones((1, 2))))
    with pytest.raises(ValueError, match="gradient of params: expected an array, got Rows"):
        fastadam.SGD(np.zeros(()), lr=1.0, grads=Rows([0], np.ones(1)))


def test_bound_sparse_matrices():
    sparse = pytest.importorskip("scipy.sparse")
    p = table()
    opt = fastadam.SGD(p, lr=1.0, grads=sparse.csr_array(np.array([[0, 0], [1, 2], [0, 0], [0, 0]], float)))
    opt.step()
    assert p.tolist() == [[0, 0], [-1, -2], [0, 0], [0, 0]]
    opt.zero_grad()
    opt.step()
    assert p.tolist() == [[0, 0], [-1, -2], [0, 0], [0, 0]]
