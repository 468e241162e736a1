"""Changes while ranks train: frozen groups, states that are reset; and things that are fixed when shares are cut."""

import numpy as np

import fastadam
from fastadam.mpi import Sharded

from .stage import error_of, refused, same_everywhere, scene


def groups():
    return [{"params": {"W": np.ones((7, 11))}}, {"params": {"b": np.ones(5)}, "name": "head"}]


def ones(gradient=1.0):
    return [{"W": np.full((7, 11), gradient)}, {"b": np.full(5, gradient)}]


@scene
def frozen_groups(comm, folder):
    """Are left out on every rank, and go on with the bits of a run without the frozen steps."""
    params, plain_params = groups(), groups()
    opt, plain = Sharded(fastadam.Adam, params, comm, lr=0.1), fastadam.Adam(plain_params, lr=0.1)
    for t in range(9):
        is_frozen = 3 <= t < 6
        opt.param_groups[1]["frozen"] = plain.param_groups[1]["frozen"] = is_frozen
        grads = ones(t - 1.5)
        opt.step(
            [grads[0], {"b": np.full(5, np.nan)}] if is_frozen else grads, max_norm=2.0, skip_nonfinite=not is_frozen
        )
        plain.step([grads[0], None] if is_frozen else grads, max_norm=2.0)
    for k, name in enumerate("Wb"):
        np.testing.assert_allclose(params[k]["params"][name], plain_params[k]["params"][name], rtol=1e-12)
    assert opt.state_dict()["steps"] == plain.state_dict()["steps"] == {"0.W": 9, "head.b": 6}
    same_everywhere(comm, [group["params"][name] for group, name in zip(params, "Wb", strict=True)])
    if comm.size > 1:
        opt.param_groups[1]["frozen"] = comm.rank == 0
        with refused(comm, "frozen"):
            opt.step(ones())


@scene
def states_that_begin_anew(comm, folder):
    params, plain_params = groups(), groups()
    opt, plain = Sharded(fastadam.Adam, params, comm, lr=0.1), fastadam.Adam(plain_params, lr=0.1)
    for names in (["0.W"], "head.b", None):
        for one in (opt, plain):
            for _ in range(2):
                one.step(ones())
            one.reset(names)
        assert opt.state_dict()["steps"] == plain.state_dict()["steps"]
        assert opt.t == plain.t
    opt.step(ones())
    plain.step(ones())
    np.testing.assert_array_equal(params[0]["params"]["W"], plain_params[0]["params"]["W"])
    with refused(comm, "", dict.fromkeys(range(comm.size), (ValueError, "names: no parameter is called 'W'"))):
        opt.reset(["W"])


@scene
def what_is_fixed_when_shares_are_cut(comm, folder):
    params = groups()
    opt = Sharded(fastadam.Adam, params, comm)
    assert "replace: a sharded optimizer" in str(error_of(lambda: opt.replace("0.W", np.ones((7, 11)))))
    said = "gradient of params[0]['params']['W']: is None; to leave it out, freeze its group on every rank"
    with refused(comm, "", dict.fromkeys(range(comm.size), (TypeError, said))):
        opt.step([None, {"b": np.ones(5)}])
    assert "complex arrays are not divided" in str(error_of(lambda: Sharded(fastadam.Adam, np.ones(2, complex), comm)))
    opt.step([{"W": [[1.0] * 11] * 7}, {"b": [1] * 5}])  # what reads as numbers
    assert opt.t == 1
