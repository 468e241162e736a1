"""Memory: layouts of parameters and gradients; what is copied, shared or replaced; which rank's values are used."""

import itertools
import sys

import inside
import numpy as np
from ml_dtypes import bfloat16

import fastadam
from fastadam.mpi import Sharded, flat

from .stage import Twins, average, digest, draw, error_of, everything, like, odd_arrays, params_of, refused, scene


def one_buffer() -> list[np.ndarray]:
    memory = np.arange(60, dtype=np.float32) / 7
    return [memory[:24].reshape(4, 6), memory[24:25].reshape(()), memory[25:25], memory[25:60].reshape(5, 7)]


@scene
def layouts_of_parameters(comm, folder):
    one = np.linspace(-1, 1, 50, dtype=np.float32)
    makers = {
        "array": (lambda: one.copy(), False),
        "matrix": (lambda: one.reshape(10, 5).copy(), False),
        "without axes": (lambda: np.array(1.5), False),
        "nothing": (lambda: np.ones((3, 0)), True),
        "fewer elements than ranks": (lambda: [np.ones(1), np.ones(1, np.float32)], False),
        "list": (lambda: [np.ones(3), np.ones((2, 2))], True),
        "dict": (params_of, True),
        "pairs": (lambda: list(params_of().items()), True),
        "one buffer": (one_buffer, False),
        "part of a buffer": (lambda: one_buffer()[1:], False),
        "another order": (lambda: one_buffer()[::-1], True),
        "with a gap": (lambda: one_buffer()[::3], True),
        "odd": (odd_arrays, True),
        "flat": (lambda: flat(params_of()), False),
        "flat of odd": (lambda: flat(odd_arrays()), False),
        "flat of dtypes": (lambda: flat(params_of(("float16", "float64", "float16"))), False),
        "flat array": (lambda: flat(one.reshape(5, 10)), False),
        "flat list": (lambda: flat([one, one.copy()]), False),
    }
    for (name, (make, is_buffer)), bucket_bytes in itertools.product(makers.items(), (1, 1 << 24)):
        if name == "pairs":
            twins = Twins(comm, lambda make=make: dict(make()), of_ranks={"bucket_bytes": bucket_bytes})
        else:
            twins = Twins(comm, make, of_ranks={"bucket_bytes": bucket_bytes})
        assert {memory.is_buffer for memory in inside.memories(twins.sharded)} == {is_buffer}, name
        twins.steps(2).steps(1, max_norm=0.1, given=False)
        twins.exact &= "odd" not in name  # another order of summation for the norm
        twins.check()


@scene
def flat_of_a_million(comm, folder):
    """No line of Python runs for each element."""
    lines = 0

    def count(*_):
        nonlocal lines
        lines += 1
        return count

    sys.settrace(count)
    made = flat([np.ones(1_000_000, np.float32), np.ones(5)])
    sys.settrace(None)
    assert lines < 10_000
    assert made[0].sum() == 1_000_000


@scene
def gradients_as_they_come(comm, folder):
    kinds = {
        "float16": lambda g, view: g.astype(np.float16),
        "bfloat16": lambda g, view: g.astype(bfloat16),
        "float64": lambda g, view: g.astype(np.float64),
        "Fortran": lambda g, view: np.asarray(g, order="F"),
        "backwards": lambda g, view: np.flip(np.flip(g).copy()),
        "broadcast": lambda g, view: np.broadcast_to(g.flat[0] if g.size else np.float32(0), g.shape),
        "in .grads": lambda g, view: view,
        "in .grads, backwards": lambda g, view: np.flip(view),
    }
    for name, kind in kinds.items():
        params, plain_params = params_of(), params_of()
        opt, plain = Sharded(fastadam.Adam, params, comm), fastadam.Adam(plain_params)
        for t in range(2):
            for view, g in zip(inside.grad_views(opt), draw(params, t, comm.rank, whole=True), strict=True):
                view[...] = g
            given = [kind(g.copy(), g) if "in" not in name else kind(g, g) for g in inside.grad_views(opt)]
            all_given = comm.allgather([np.array(g, np.float32) for g in given])
            kept = [g.copy() for g in given]
            opt.step(like(params, given))
            assert "in" in name or digest(given) == digest(kept)
            plain.step(like(plain_params, average(all_given)))
        for p, expected in zip(params.values(), plain_params.values(), strict=True):
            np.testing.assert_allclose(p, expected, rtol=0 if comm.size in (1, 2, 4) else 1e-5, err_msg=name)


@scene
def gradients_among_the_gradients(comm, folder):
    """Given ones that lie where those of others are put."""
    params, plain_params = [np.ones(4), np.ones(4)], [np.ones(4), np.ones(4)]
    opt, plain = Sharded(fastadam.Adagrad, params, comm), fastadam.Adagrad(plain_params)
    opt.grads[0][...], opt.grads[1][...] = np.arange(4.0) + 1, -np.arange(4.0) * 3
    plain_grads = [g.copy() for g in opt.grads]
    opt.step(opt.grads[::-1])
    plain.step(plain_grads[::-1])
    np.testing.assert_allclose(params, plain_params, rtol=1e-12)


@scene
def gradients_that_were_replaced(comm, folder):
    """An entry of `.grads` is to be written to; another array in its place would never be read."""
    opt = Sharded(fastadam.Adam, params_of(), comm)
    error = error_of(lambda: setattr(opt, "grads", params_of()))
    assert isinstance(error, AttributeError), repr(error)
    assert "grads: is fixed at construction" in str(error)
    for name, text in (
        ("comm", "no setter"),
        ("learning_rate", "learning_rate: Adam has no such attribute; did you mean lr?"),
    ):
        error = error_of(lambda name=name: setattr(opt, name, 1))
        assert isinstance(error, AttributeError), repr(error)
        assert text in str(error)
    with refused(
        comm, "step", {comm.size - 1: (TypeError, "maxnorm: unknown argument of step(); did you mean max_norm?")}
    ):
        opt.step(**({"maxnorm": 1.0} if comm.rank == comm.size - 1 else {}))
    if comm.rank == comm.size - 1:
        opt.grads["b float32"] = np.ones(7, np.float32)
    before = everything(opt)
    with refused(comm, "grads", {comm.size - 1: (TypeError, "write into")}):
        opt.step()
    assert everything(opt) == before
    opt.step(params_of())
    assert opt.t == 1


@scene
def parameters_that_were_replaced(comm, folder):
    """Shares are cut from the arrays that were given: others in their places are refused, in all that reads these."""
    guilty, b = comm.size - 1, "b float32"
    grouped = [{"params": params_of(), "lr": 0.1}, {"params": [np.ones(3)]}]
    for params, inner, grads in (
        (one := params_of(), one, params_of()),
        (moved := flat(params_of()), moved, params_of()),
        (grouped, grouped[0]["params"], [params_of(), [np.ones(3)]]),
    ):
        opt = Sharded(fastadam.Adam, params, comm)
        opt.save(folder / "kept", params=True)
        opt.step(grads)
        kept, whole, before = dict(inner), opt.state_dict(), everything(opt)
        calls = [
            lambda opt=opt, grads=grads: opt.step(grads),
            lambda opt=opt: opt.save(folder / "no"),
            lambda opt=opt: opt.load(folder / "kept"),
            opt.state_dict,
            lambda opt=opt, whole=whole: opt.load_state_dict(whole),
        ]
        for spoil, kind, text in (
            (lambda inner: inner.update({b: inner[b].copy()}), ValueError, "another array than the one that was cut"),
            (lambda inner: inner.update({b: inner[b][:3]}), ValueError, "another array than the one that was cut"),
            (lambda inner: inner.pop(b), ValueError, "does not have the structure"),
            (lambda inner: inner.update(more=np.ones(3)), ValueError, "does not have the structure"),
        ):
            if comm.rank == guilty:
                spoil(inner)
            for call in calls:
                with refused(comm, f"rank {guilty} refused it: {kind.__name__}", {guilty: (kind, text)}):
                    call()
                assert everything(opt) == before
            inner.clear()
            inner.update(kept)
        assert not (folder / "no").exists()
        opt.step(grads)
        assert opt.t == 2


@scene
def values_of_the_first_rank(comm, folder):
    """And master weights of these values, not of those that a rank had."""
    for make in (params_of, lambda: flat(params_of()), lambda: params_of(("float16",))):
        params = make()
        expected = [p.copy() for p in params.values()]
        for p in params.values():
            p += comm.rank
        opt = Sharded(fastadam.Adam, params, comm, master_weights=True, lr=0.0)
        for p, values in zip(params.values(), expected, strict=True):
            np.testing.assert_array_equal(p, values)
        opt.step(opt.grads)
        for p, values in zip(params.values(), expected, strict=True):
            np.testing.assert_array_equal(p, values)


@scene
def arrays_that_cannot_be_written_any_more(comm, folder):
    for make in (params_of, lambda: flat(params_of())):
        params = make()
        opt = Sharded(fastadam.Adam, params, comm)
        opt.save(folder / "kept", params=True)
        before = everything(opt)
        if comm.rank == 0:
            params["W float32"].flags.writeable = False
        for call, argument in ((opt.step, params_of()), (opt.load, folder / "kept")):
            with refused(comm, "read-only", {0: (ValueError, "W float32")}):
                call(argument)
        assert everything(opt) == before
        params["W float32"].flags.writeable = True
        opt.step(params_of())
