"""Ranks that disagree, at construction or in a step: refused on all of them, before anything is touched."""

from collections.abc import Callable, Iterator

import inside
import numpy as np

import fastadam
from fastadam.mpi import Sharded

from .stage import Twins, digest, draw, error_of, everything, like, params_of, refused, several


@several
def makers_that_disagree(comm, folder):
    def make(**changes):
        given = {"optimizer": fastadam.Adam, "params": {"W": np.ones((4, 5)), "b": np.ones(5)}, **changes}
        return Sharded(given.pop("optimizer"), given.pop("params"), comm, **given)

    guilty = comm.size - 1
    W, b = np.ones((4, 5)), np.ones(5)
    differing = [
        ("shape and dtype of W", {"params": {"W": np.ones((5, 4)), "b": b}}),
        ("shape and dtype of W", {"params": {"W": np.ones((4, 5), np.float32), "b": b}}),
        ("shape and dtype of b", {"params": {"W": W, "c": b}}),
        ("keys of the parameters", {"params": {"b": b, "W": W}}),
        ("shape and dtype of b", {"params": {"W": W}}),
        ("keys of the parameters", {"params": {"W": W, "b": b, "c": b + 1}}),
        ("shape and dtype of", {"params": [W, b]}),
        ("shape and dtype of", {"params": [{"params": W}, {"params": b}]}),
        ("lr of group 0", {"lr": 0.5}),
        ("lr of group 0", {"lr": lambda t: 0.1}),
        ("betas of group 0", {"betas": (0.5, 0.9)}),
        ("amsgrad of group 0", {"amsgrad": True}),
        ("maximize of group 0", {"maximize": True}),
        ("seed", {"seed": 1}),
        ("state_dtype", {"state_dtype": "bfloat16", "params": {"W": W.astype("f4"), "b": b.astype("f4")}}),
        ("min_8bit_size of group 0", {"min_8bit_size": 10}),
        ("master_weights", {"master_weights": True}),
        ("bucket_bytes", {"bucket_bytes": 100}),
        ("optimizer", {"optimizer": fastadam.Adamax}),
        ("optimizer", {"optimizer": fastadam.RMSprop}),
    ]
    for name, changes in differing:
        base = {"params": {"W": W.astype("f4"), "b": b.astype("f4")}} if name == "state_dtype" else {}
        with refused(comm, f"disagree in {name}"):
            make(**(changes if comm.rank == guilty else base))
    with refused(comm, "disagree in comm_dtype"):
        make(params=W.astype("f4"), comm_dtype="bfloat16" if comm.rank == guilty else None)
    wrong = [
        (TypeError, "optimizer", {"optimizer": None}),
        (TypeError, "optimizer", {"optimizer": fastadam.Optimizer}),
        (TypeError, "lr", {"lr": "x"}),
        (ValueError, "lr", {"lr": -1}),
        (TypeError, "learning_rate", {"learning_rate": 1}),
        (TypeError, "params", {"params": None}),
        (ValueError, "params", {"params": []}),
        (TypeError, "params", {"params": {"W": W.astype(int), "b": b}}),
        (ValueError, "share memory", {"params": {"W": W, "b": W[0]}}),
        (ValueError, "comm_dtype", {"comm_dtype": "bfloat16"}),
        (ValueError, "comm_dtype", {"comm_dtype": "int8"}),
        (ValueError, "bucket_bytes", {"bucket_bytes": 0}),
        (ValueError, "grads", {"grads": None}),
        (ValueError, "backend", {"backend": "fortran"}),
        (ValueError, "state_dtype: params['W'] is float64", {"state_dtype": "bfloat16"}),
        (ValueError, "state_dtype: params['W'] is float64", {"state_dtype": "int8"}),
        (
            ValueError,
            "state_dtype: params['b'] is float64",
            {"params": {"W": W.astype("f4"), "b": b}, "state_dtype": "int8"},
        ),
        (ValueError, "state_dtype", {"state_dtype": "int4"}),
        (ValueError, "min_8bit_size", {"min_8bit_size": -1}),
        (TypeError, "state_dir", {"state_dir": 3}),
    ]
    for kind, said, changes in wrong:
        with refused(comm, f"rank {guilty} refused it: {kind.__name__}", {guilty: (kind, said)}):
            make(**(changes if comm.rank == guilty else {}))
    opt = make()
    opt.step({"W": W, "b": b})
    assert opt.t == 1


@several
def steps_that_disagree(comm, folder):
    guilty = comm.size - 1
    is_guilty = comm.rank == guilty
    twins = Twins(comm, params_of).steps(2)
    opt = twins.sharded
    good = like(twins.params, draw(twins.params, 99, comm.rank, whole=True))

    def bad(**changes):
        return {**good, **changes} if is_guilty else good

    def calls() -> Iterator[tuple[Callable[[], object], str, dict | None]]:
        for name, how in (
            ("grad_scale", {"grad_scale": 2.0}),
            ("max_norm", {"max_norm": 1.0}),
            ("max_norm_each", {"max_norm_each": 1.0}),
            ("clip_value", {"clip_value": 1.0}),
            ("skip_nonfinite", {"skip_nonfinite": True}),
            ("zero_grads", {"zero_grads": True}),
        ):
            yield lambda how=how: opt.step(good, **(how if is_guilty else {})), f"disagree in {name}", None
        for call in (lambda: opt.save(folder / "no"), opt.state_dict):
            yield lambda call=call: call() if is_guilty else opt.step(good), "the ranks call different things", None
        yield (
            lambda: opt.load(folder / "no") if is_guilty else opt.step(good),
            f"rank {guilty} refused it",
            {guilty: (FileNotFoundError, "no")},
        )
        wrong = [
            (TypeError, "max_norm", lambda: opt.step(good, max_norm="x" if is_guilty else 1.0)),
            (
                ValueError,
                "max_norm_each",
                lambda: opt.step(good, max_norm=1.0, max_norm_each=1.0 if is_guilty else None),
            ),
            (ValueError, "grad_scale", lambda: opt.step(good, grad_scale=0.0 if is_guilty else 1.0)),
            (ValueError, "gradient of", lambda: opt.step(bad(**{"b float32": np.ones(6, np.float32)}))),
            (TypeError, "gradient of", lambda: opt.step(bad(**{"b float32": np.ones(7, complex)}))),
            (TypeError, "gradient of", lambda: opt.step(bad(**{"b float32": None}))),
            (ValueError, "grads", lambda: opt.step(bad(more=np.ones(7)))),
            (TypeError, "grads", lambda: opt.step(5 if is_guilty else good)),
        ]
        for kind, said, call in wrong:
            yield call, f"rank {guilty} refused it: {kind.__name__}", {guilty: (kind, said)}

    before = everything(opt)
    for call, text, own in calls():
        with refused(comm, text, own):
            call()
        assert everything(opt) == before
    twins.steps(1).check()
    if is_guilty:
        opt.lr = 0.5
    before = everything(opt)
    for call in (lambda: opt.step(good), lambda: opt.save(folder / "no"), opt.state_dict):
        with refused(comm, f"disagree in lr of group 0: 0.001 on rank{'s' if guilty > 1 else ''} 0"):
            call()
    assert everything(opt) == before
    for both in (twins.sharded, twins.plain):
        both.lr = 0.25
    twins.steps(1).check()
    for both in (twins.sharded, twins.plain):
        both.lr = lambda t: 0.125
    if is_guilty:
        opt.lr = lambda t: -1.0
    before = (digest(twins.params.values()), opt.t)
    with refused(comm, f"rank {guilty} refused it: ValueError: lr(5)", {guilty: (ValueError, "lr(5)")}):
        opt.step(good)
    assert (digest(twins.params.values()), opt.t) == before
    opt.lr = lambda t: 0.125
    twins.steps(1).check()
    if is_guilty:
        inside.set_counts(opt, opt.t + 1, opt.t)
    with refused(comm, "disagree in t"):
        opt.step(good)


@several
def errors_name_no_step_that_was(comm, folder):
    """A rule of one's own whose scalars fail at some step: on all ranks, before anything is touched."""

    def scalars(t, lr):
        return (lr,) if t < 3 else (lr, lr)

    def update(p, g, lr):
        return (p - lr * g,)

    cls = fastadam.optimizer(update, scalars, (), lr=0.5)
    params = np.ones(9)
    opt = Sharded(cls, params, comm, backend="numpy")
    opt.step(np.ones(9))
    opt.step(np.ones(9))
    before = everything(opt)
    for how in ({}, {"max_norm": 1.0}):
        error = error_of(lambda how=how: opt.step(np.ones(9), **how))
        assert isinstance(error, ValueError), repr(error)
        assert everything(opt) == before
