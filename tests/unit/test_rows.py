"""`fastadam.Rows`: its construction, all places where it may be used, and refusals before anything is touched."""

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import inside
import numpy as np
import pytest
import scipy.sparse
from numpy.lib.stride_tricks import as_strided
from tables import EVERY_DTYPE, assert_same, bits, computed_in, numbers, some_rows, step_rows_alone, summed

import fastadam
from fastadam import Rows, functional

F4 = np.float32


def table(n: int = 6, width: int = 3, dtype: Any = F4) -> np.ndarray:
    return numbers(np.random.default_rng(n), (n, width), dtype)


def ones(index: Any, width: int = 3, dtype: Any = F4) -> Rows:
    return Rows(index, np.ones((len(index), width), dtype))


# ---------------------------------------------------------------- what it is made of


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int32, np.int64, np.uint64, ">i8", "<i4"])
def test_index_of_any_whole_numbers(dtype: Any) -> None:
    rows = ones(np.array([3, 1, 3], dtype))
    assert rows.index.dtype == np.int64
    assert rows.index.tolist() == [3, 1, 3]
    assert len(rows) == 3


def test_arrays_that_fit_are_kept_as_they_are() -> None:
    index, values = np.array([2, 0]), np.ones((2, 3), np.float16)
    rows = Rows(index, values)
    assert rows.index is index
    assert rows.values is values
    with pytest.raises(AttributeError):
        rows.index = index


def test_lists_strided_indices_and_no_rows() -> None:
    assert Rows([1, 2], [[1.0], [2.0]]).values.tolist() == [[1.0], [2.0]]
    assert Rows(np.arange(6)[::2], np.ones((3, 1))).index.tolist() == [0, 2, 4]
    assert len(Rows([], np.ones((0, 3)))) == 0
    assert Rows([], np.ones((0, 3))).index.dtype == np.int64


def test_repr_tells_numbers_and_shape() -> None:
    assert repr(ones([5, 1])) == "Rows(index=array([5, 1]), values: float32 of shape (2, 3))"
    assert "shape (1000,)" in repr(ones(np.arange(1000)))


def test_there_are_no_rows_without_arrays() -> None:
    with pytest.raises(TypeError):
        Rows.__new__(Rows)


def test_an_index_whose_dtype_was_changed_is_refused() -> None:
    rows = Rows(np.zeros(4, np.int64), np.ones(4))
    rows.index.dtype, rows.values.dtype = np.int32, F4  # eight numbers each, as if they belonged together
    with pytest.raises(ValueError, match="index: its dtype or shape was changed"):
        fastadam.SGD(np.zeros(3, F4)).step(rows)


def test_every_int64_of_c_is_one() -> None:
    p = np.zeros(3)
    opt = fastadam.SGD(p, lr=1.0)
    opt.step(Rows(np.array([2, 0, 2], np.longlong), np.ones(3)))
    assert p.tolist() == [-1, 0, -2]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_copies_and_pickles(again: Callable[[Rows], Rows]) -> None:
    rows = again(ones([5, 1, 5]))
    assert type(rows) is Rows
    assert rows.index.tolist() == [5, 1, 5]
    assert bits(rows.values) == bits(np.ones((3, 3), F4))


MALFORMED: dict[str, tuple[Any, Any, Any, str]] = {
    "bool": (np.array([True, False]), np.ones((2, 3)), TypeError, "index: expected whole numbers.*numpy.flatnonzero"),
    "masked": (
        np.ma.masked_array([1, 2], [0, 1]),
        np.ones((2, 3)),
        TypeError,
        "index: a masked array is not supported",
    ),
    "float": ([1.0, 2.0], np.ones((2, 3)), TypeError, "index: expected whole numbers, one a row, got float64"),
    "text": ("ab", np.ones((2, 3)), TypeError, "index: expected whole numbers"),
    "ragged": ([[1], [2, 3]], np.ones((2, 3)), TypeError, "index: expected whole numbers"),
    "masked values": ([1], np.ma.ones((1, 3)), TypeError, "values: a masked array is not supported"),
    "none": (None, np.ones((2, 3)), TypeError, "index: expected whole numbers"),
    "a number": (3, np.ones((1, 3)), ValueError, "index: expected one axis, got the shape"),
    "two axes": ([[1, 2]], np.ones((2, 3)), ValueError, r"index: expected one axis, got the shape \(1, 2\)"),
    "huge": (np.array([2**64 - 1], np.uint64), np.ones((1, 3)), ValueError, "index: .*18446744073709551615"),
    "too many values": ([1], np.ones((2, 3)), ValueError, r"values: expected 1 row, .*got the shape \(2, 3\)"),
    "too few values": ([1, 2], np.ones((1, 3)), ValueError, "values: expected 2 rows"),
    "values without axes": ([1], np.float32(1), ValueError, r"values: expected 1 row, .*\(\)"),
    "values of text": ([1], ["a"], TypeError, "values: expected .*numbers"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    index, values, error, text = MALFORMED[case]
    with pytest.raises(error, match=text):
        Rows(index, values)


# ---------------------------------------------------------------- where it may stand


def in_list(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    opt = fastadam.Adam([W, b], lr=0.1)
    opt.step([g, h])
    return opt


def in_nested_dict(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    opt = fastadam.Adam({"words": {"W": W}, "rest": (b,)}, lr=0.1)
    opt.step({"words": {"W": g}, "rest": (h,)})
    return opt


def in_groups(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    opt = fastadam.Adam([{"params": {"W": W}, "lr": 0.1}, {"params": b, "lr": 0.1}])
    opt.step([{"W": g}, h])
    return opt


def bound(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    opt = fastadam.Adam([W, b], lr=0.1, grads=[g, h])
    opt.step()
    return opt


def bound_later(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    grads = [np.zeros_like(W), h]
    opt = fastadam.Adam([W, b], lr=0.1, grads=grads)
    grads[0] = g
    opt.step()
    return opt


def of_an_object(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    model = SimpleNamespace(parameters=[W, b], grad=[g, h])
    opt = fastadam.Adam(model, lr=0.1)
    opt.step()
    return opt


def in_added_group(W: np.ndarray, b: np.ndarray, g: Any, h: Any) -> fastadam.Optimizer:
    opt = fastadam.Adam([{"params": W}], lr=0.1)
    opt.add_param_group({"params": b})
    opt.step([g, h])
    return opt


WAYS = [in_list, in_nested_dict, in_groups, bound, bound_later, of_an_object, in_added_group]


@pytest.mark.parametrize("way", WAYS)
def test_rows_stand_wherever_a_gradient_may(way: Callable[..., fastadam.Optimizer]) -> None:
    rows, h = Rows([4, 1, 4], numbers(np.random.default_rng(0), (3, 3), F4)), np.full(2, 0.5)
    W, V = table(), table()
    opt, other = way(W, np.ones(2), rows, h), fastadam.Adam([V, np.ones(2)], lr=0.1)
    step_rows_alone(other, [rows, h])
    assert_same(opt, other)
    changed = table() != W
    assert changed.any(axis=1).tolist() == [False, True, False, False, True, False]


def test_one_array_alone() -> None:
    W, V, rows = table(), table(), ones([2])
    opt, other = fastadam.Lion(W), fastadam.Lion([V])
    opt.step(rows)
    step_rows_alone(other, [rows])
    assert_same(opt, other)


def test_bound_rows_are_left_zero_by_zero_grad_and_come_in_a_group_that_is_added() -> None:
    rows, more = ones([1, 1]), ones([0], 2)
    opt = fastadam.SGD([{"params": table()}], lr=0.1, grads=[rows])
    opt.add_param_group({"params": np.zeros((3, 2), F4), "grads": more})
    opt.step()
    assert inside.planned(opt)[1].tolist() == [[-F4(0.1)] * 2, [0, 0], [0, 0]]
    opt.zero_grad()
    assert not rows.values.any()
    assert not more.values.any()
    copied = pickle.loads(pickle.dumps(opt))
    copied.step()
    assert copied.t == 2


@pytest.mark.parametrize("rows", [ones([1], 4), Rows([1], np.ones((1, 3), complex)), ones([6])])
def test_bound_rows_that_do_not_fit_are_refused(rows: Rows, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        fastadam.Adam([table()], grads=[rows], state_dir=tmp_path)
    assert fastadam.Adam([table()], state_dir=tmp_path).t == 0


@pytest.mark.parametrize("n_threads", [None, 2])
def test_functional(n_threads: int | None) -> None:
    rows, W, V = Rows([4, 1, 4], np.ones((3, 3), F4)), table(), table()
    m, v, b = np.zeros_like(W), np.zeros_like(W), np.ones(2)
    more = {} if n_threads is None else {"n_threads": n_threads}
    other = fastadam.Adam([V])
    for t in (1, 2):
        functional.adam([W], [rows], [m], [v], t, **more)
        step_rows_alone(other, [rows])
    assert bits(W) == bits(V)
    assert bits(v) == bits(other.state["v"][0])
    functional.sgd([W, b], [ones([0]), np.ones(2)], 1, **more)
    with pytest.raises(ValueError, match="index: expected numbers of rows, 0 … 5, got 6 at place 0"):
        functional.sgd(W, ones([6]), 1, **more)


def damped(p, g, m, lr, keep):
    m = keep * m + g
    return p - lr * m, m


def damped_scalars(t, lr, keep):
    return lr, keep


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_rule_of_ones_own(backend: str) -> None:
    cls = fastadam.optimizer(damped, damped_scalars, ["m"], lr=0.1, keep=0.5)
    opt, other = (cls([table()], backend=backend) for _ in range(2))
    rng = np.random.default_rng(1)
    for _ in range(4):
        rows = some_rows(rng, (6, 3), F4)
        opt.step([rows])
        step_rows_alone(other, [rows])
    assert_same(opt, other)


def test_an_average_beside_sees_the_rows_that_were_stepped() -> None:
    W, V = table(), table()
    opt, other = fastadam.Adam([W]), fastadam.Adam([V])
    average, expected = fastadam.Average([W], decay=0.5), fastadam.Average([V], decay=0.5)
    for rows in (ones([1, 2]), ones([2, 2, 5])):
        opt.step([rows])
        average.update()
        step_rows_alone(other, [rows])
        expected.update()
    with average.swapped(), expected.swapped():
        assert bits(W) == bits(V)


# ---------------------------------------------------------------- other libraries' sparse matrices


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "coo_matrix", "coo_array"])
def test_scipy(kind: str) -> None:
    matrix = getattr(scipy.sparse, kind)((np.arange(1.0, 7.0), (np.repeat([4, 1], 3), [0, 1, 2] * 2)), shape=(6, 3))
    before = matrix.toarray()
    opt, other = fastadam.Adam([table()]), fastadam.Adam([table()])
    opt.step([matrix])
    step_rows_alone(other, [Rows([1, 4], before[[1, 4]])])
    assert_same(opt, other)
    assert (matrix.toarray() == before).all()


def test_scipy_sums_what_is_there_twice() -> None:
    twice = ([1.0, 2.0, 3.0, 4.0, 5.0], ([2, 2, 2, 2, 2], [0, 1, 2, 1, 1]))
    for matrix in (scipy.sparse.coo_matrix(twice, shape=(6, 3)), unsorted()):
        n = matrix.nnz
        opt, other = fastadam.SGD([table()], lr=1.0), fastadam.SGD([table()], lr=1.0)
        opt.step([matrix])
        step_rows_alone(other, [Rows([2], [[1.0, 11.0, 3.0]])])
        assert_same(opt, other)
        assert matrix.nnz == n  # the caller's own is as it was


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    words = torch.nn.Embedding(6, 3, sparse=True)
    (words(torch.tensor([4, 1, 4])) * torch.tensor([[1.0], [2.0], [3.0]])).sum().backward()
    opt, other = fastadam.Adam([table()]), fastadam.Adam([table()])
    opt.step([words.weight.grad])
    step_rows_alone(other, [Rows([4, 1], np.repeat([[4.0], [2.0]], 3, axis=1))])
    assert_same(opt, other)
    with pytest.raises(TypeError, match="expected a sparse tensor of whole rows, got one that is sparse in 2 axes"):
        opt.step([torch.ones(6, 3).to_sparse()])
    assert opt.t == 1


def unsorted() -> Any:
    """A csr matrix whose columns are in no order, one of them twice."""
    columns, starts = [2, 1, 0, 1], [0, 0, 0, 4, 4, 4, 4]
    return scipy.sparse.csr_matrix(([3.0, 5.0, 1.0, 6.0], columns, starts), shape=(6, 3))


def test_values_that_were_given_another_shape_are_refused() -> None:
    rows, p = Rows([0, 1, 2], np.ones((3, 2))), np.ones((5, 3))
    rows.values.shape = (2, 3)
    opt = fastadam.Adam(p)
    with pytest.raises(ValueError, match=r"expected shape \(3, 3\), rows of the parameter, got \(2, 3\)"):
        opt.step(rows)
    assert (p == 1).all()
    assert opt.t == 0


def test_an_array_of_another_library_with_sparse_axes_is_an_array() -> None:
    """Some libraries have `sparse_dim` on every array; only torch's tensors have `is_sparse`."""

    class Other:
        sparse_dim = 0

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.ones((2, 3))

    p = np.ones((2, 3))
    fastadam.SGD(p, lr=0.5).step(Other())  # type: ignore[arg-type]
    assert (p == 0.5).all()


def test_scipy_without_entries() -> None:
    opt, W = fastadam.Adam([table()]), table()
    opt.step([scipy.sparse.csr_matrix((6, 3))])
    assert opt.t == 1
    assert bits(inside.planned(opt)[0]) == bits(W)


# ---------------------------------------------------------------- what is refused


def partial(w: SimpleNamespace) -> Any:
    return scipy.sparse.coo_matrix(([1.0, 2.0], ([2, 2], [0, 1])), shape=(6, 3))


REFUSED: dict[str, tuple[Callable[[SimpleNamespace], Any], dict[str, Any], Any, str]] = {
    "too large": (lambda w: ones([0, 6]), {}, ValueError, "index: expected numbers of rows, 0 … 5, got 6 at place 1"),
    "negative": (lambda w: ones([2, -1]), {}, ValueError, "index: expected numbers of rows, 0 … 5, got -1 at place 1"),
    "smallest": (lambda w: ones([-(2**63)]), {}, ValueError, "got -9223372036854775808 at place 0"),
    "far down": (lambda w: ones([*range(6)] * 1000 + [7]), {}, ValueError, "got 7 at place 6000"),
    "width": (lambda w: ones([1], 4), {}, ValueError, r"expected shape \(1, 3\), rows of the parameter, got \(1, 4\)"),
    "axes": (lambda w: Rows([1], np.ones(1, F4)), {}, ValueError, r"expected shape \(1, 3\).*got \(1,\)"),
    "more axes": (lambda w: Rows([1], np.ones((1, 3, 1), F4)), {}, ValueError, r"expected shape \(1, 3\)"),
    "complex": (lambda w: ones([1], 3, complex), {}, TypeError, "expected real numbers like the parameter"),
    "objects": (lambda w: ones([1], 3, object), {}, TypeError, "expected .*got object"),
    "the parameter": (lambda w: Rows([1, 2], w.W[:2]), {}, ValueError, "shares memory with a parameter or a state"),
    "a state": (lambda w: Rows([3], w.opt.state["v"][0][4:5]), {}, ValueError, "shares memory with a parameter"),
    "a broadcast row of it": (
        lambda w: Rows([1, 2], np.broadcast_to(w.W[5], (2, 3))),
        {},
        ValueError,
        "shares memory with a parameter",
    ),
    "no zeros in one row for all": (
        lambda w: Rows([1, 2], np.broadcast_to(np.ones(3, F4), (2, 3))),
        {"zero_grads": True},
        ValueError,
        "read-only",
    ),
    "no zeros where rows meet": (
        lambda w: Rows([1, 2], as_strided(np.ones(8, F4), (2, 3), (4, 4))),
        {"zero_grads": True},
        ValueError,
        "several of its elements share memory; pass a copy",
    ),
    "no zeros in what was converted": (
        lambda w: ones([1], 3, int),
        {"zero_grads": True},
        TypeError,
        "zero_grads: the gradient of params",
    ),
    "partial": (partial, {}, ValueError, "expected whole rows, got 2 of 3 entries in row 2; pass .toarray"),
    "other format": (
        lambda w: scipy.sparse.csc_matrix((6, 3)),
        {},
        TypeError,
        "expected a sparse matrix of format csr or coo, got csc; pass .tocsr",
    ),
    "other shape": (lambda w: scipy.sparse.csr_matrix(np.ones((2, 4))), {}, ValueError, r"shape \(6, 3\) like the p"),
    "sparse of more rows": (
        lambda w: scipy.sparse.csr_matrix(([1.0, 1.0, 1.0], ([2] * 3, [0, 1, 2])), shape=(7, 3)),
        {},
        ValueError,
        r"gradient of params\[1\]: expected shape \(6, 3\) like the parameter, got \(7, 3\)",
    ),
}


@pytest.mark.parametrize("rows", ["lazy", "exact"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_touched(case: str, rows: str) -> None:
    make, extras, error, text = REFUSED[case]
    made = []
    for is_bad in (True, False):
        w = SimpleNamespace(W=table(), b=np.ones(4))
        w.opt = fastadam.Adam([w.b, w.W, np.zeros((2, 2))], rows=rows)
        w.opt.step([np.ones(4), ones([1, 2]), ones([0], 2)])
        w.opt.flush()
        if is_bad:
            before = [bits(array) for array in seen(w.opt)]
            with pytest.raises(error, match=text):
                w.opt.step([np.ones(4), make(SimpleNamespace(W=w.W, opt=Second(w.opt))), np.ones((2, 2))], **extras)
            assert [bits(array) for array in seen(w.opt)] == before
        w.opt.step([None, ones([3, 3]), np.ones((2, 2))])
        w.opt.step([np.ones(4), np.ones((6, 3)), None])
        w.opt.flush()
        made.append(w.opt)
    assert_same(*made)


class Second:
    """An optimizer as if its second parameter were its only one."""

    def __init__(self, opt: fastadam.Optimizer) -> None:
        self.state = {name: arrays[1:] for name, arrays in opt.state.items()}


def seen(opt: fastadam.Optimizer) -> list[np.ndarray]:
    return [*inside.planned(opt), *inside.state_arrays(opt), inside.plan(opt).counts]


@pytest.mark.parametrize(
    "refused",
    [
        lambda grads, params: [grads[0], np.ones(3, F4)],
        lambda grads, params: [ones([100], 8), grads[1]],
        lambda grads, params: [Rows([1], params[0][:1]), grads[1]],
        lambda grads, params: [Rows([1, 2], np.ones((2, 7), F4)), grads[1]],
        lambda grads, params: [ones([1], 8), params[1]],
    ],
)
def test_after_a_step_that_was_refused_half_way_gradients_by_address_reach_every_element(refused: Any) -> None:
    params, grads = [np.zeros((100, 8), F4), np.zeros(50, F4)], [np.ones((100, 8), F4), np.ones(50, F4)]
    opt = fastadam.SGD(params, lr=1.0)
    opt.step(grads)
    opt.step([ones([1], 8), grads[1]])
    before = [p.copy() for p in params]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"expected|shares memory"):
            opt.step(refused(grads, params))
    if not inside.plan(opt).step_at(np.array([g.ctypes.data for g in grads])):  # that calls for a closer look
        opt.step(grads)
    for p, was in zip(params, before, strict=True):
        assert bits(p) == bits(was - 1)


def test_a_parameter_without_axes_has_no_rows() -> None:
    p = np.array(1.0)
    opt = fastadam.Adam([p], rows="exact")
    with pytest.raises(ValueError, match="a 0-dimensional parameter has no rows"):
        opt.step([Rows([0], np.ones(1))])
    opt.step([2.0])
    assert p < 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_skip_nonfinite_changes_nothing(bad: float) -> None:
    W = table()
    opt, rows = fastadam.Adam([W]), Rows([1, 4], np.array([[1, 2, 3], [1, bad, 3]], F4))
    opt.step([rows], skip_nonfinite=True, zero_grads=True)
    assert (opt.t, opt.skipped) == (0, 1)
    assert bits(W) == bits(table())
    assert not opt.state["m"][0].any()
    assert rows.values.any()
    opt.step([Rows([2], np.full((1, 3), bad, F4))])
    assert np.isnan(W).any(axis=1).tolist() == [False, False, True, False, False, False]


def test_a_sum_that_is_not_finite_is_seen() -> None:
    """Each of the values is finite."""
    opt = fastadam.Adam([table()])
    opt.step([Rows([1, 1], np.full((2, 3), 3e38, F4))], skip_nonfinite=True)
    assert (opt.t, opt.skipped) == (0, 1)


@pytest.mark.parametrize("values_dtype", [*EVERY_DTYPE, np.dtype(np.int16), np.dtype(">f4")])
@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_values_of_every_dtype(dtype: Any, values_dtype: Any) -> None:
    rng = np.random.default_rng(2)
    made = [fastadam.Adam([table(dtype=dtype)]) for _ in range(2)]
    for index in ([4, 1, 4], [2], []):
        rows = Rows(index, numbers(rng, (len(index), 3), values_dtype))
        if values_dtype.kind == "c" and dtype.kind != "c":
            with pytest.raises(TypeError, match="expected real numbers like the parameter"):
                made[0].step([rows])
            return
        made[0].step([rows])
        step_rows_alone(made[1], [rows])
    assert_same(*made)


def test_helpers_sum_in_the_order_given() -> None:
    """What the tests compare with: a sum that depends on its order."""
    values = np.array([[1e8], [1.0], [-1e8], [1.0]], F4)
    for order in itertools.permutations(range(4)):
        rows = Rows([0] * 4, values[list(order)])
        total = F4(0)
        for k in order:
            total += values[k, 0]
        assert summed(rows, (1, 1), F4)[0, 0] == total
        p = np.zeros((1, 1), F4)
        fastadam.SGD(p, lr=1.0).step(rows)
        assert p[0, 0] == -total
    assert computed_in(np.float16) == F4
