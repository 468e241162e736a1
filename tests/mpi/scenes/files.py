"""Files of checkpoints: damaged and foreign files, leftovers of a save, and saves that fail."""

import shutil
import warnings
from functools import partial

import numpy as np

import fastadam
from fastadam.mpi import Disagreement, Sharded

from .stage import (
    Twins,
    error_of,
    everything,
    n_files,
    params_of,
    refused,
    refused_somehow,
    same_states,
    scene,
    several,
)


@scene
def damaged_checkpoints(comm, folder):
    """Refused on every rank, or, where a byte means nothing, read as they were; never half of one."""
    make, path = params_of, folder / "kept"
    writer = Twins(comm, make, of_ranks={"bucket_bytes": 100}).steps(2).sharded
    writer.save(path, params=True)
    reader = Sharded(fastadam.Adam, make(), comm, bucket_bytes=64)
    before, whole = everything(reader), writer.state_dict()
    files = sorted(path.iterdir())
    rng = np.random.default_rng(5)

    def cut(data):
        return data[: rng.integers(len(data))]

    def flip(data):
        place = int(rng.integers(len(data)))
        return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]

    n_refused = 0
    for number, spoil in enumerate([lambda _: None, lambda _: b"", cut, *[flip] * 25]):
        for file in files if number < 12 else files[-1:]:  # the index, whose every byte means something
            good, bad = file.read_bytes(), spoil(file.read_bytes())
            comm.Barrier()
            if comm.rank == 0:
                file.unlink() if bad is None else file.write_bytes(bad)
            comm.Barrier()
            error = error_of(partial(reader.load, path))
            told = comm.allgather(type(error).__name__)
            if error is None:
                assert spoil is flip, number
                assert set(told) == {"NoneType"}
                same_states(reader.state_dict(), whole)
                reader = Sharded(fastadam.Adam, make(), comm, bucket_bytes=64)
            else:
                n_refused += 1
                assert isinstance(error, ValueError | OSError | Disagreement), repr(error)
                assert "NoneType" not in told
                assert set(told) != {"Disagreement"}
                assert everything(reader) == before
            comm.Barrier()
            if comm.rank == 0:
                file.write_bytes(good)
            comm.Barrier()
    assert n_refused > 6 * len(files) + 5
    reader.load(path)
    same_states(reader.state_dict(), whole)


@scene
def checkpoints_of_others(comm, folder):
    """Another optimizer's, other parameters', another form of file; an index of other files."""
    opt = Sharded(fastadam.Adam, {"W": np.ones((4, 5))}, comm)
    opt.step({"W": np.ones((4, 5))})
    before = everything(opt)
    opt.save(folder / "good", params=True)
    others = {
        "optimizer": Sharded(fastadam.RMSprop, {"W": np.ones((4, 5))}, comm),
        "rule": Sharded(fastadam.Adam, {"W": np.ones((4, 5))}, comm, amsgrad=True),
        "shape": Sharded(fastadam.Adam, {"W": np.ones((5, 4))}, comm),
        "key": Sharded(fastadam.Adam, {"V": np.ones((4, 5))}, comm),
        "dtype": Sharded(fastadam.Adam, {"W": np.ones((4, 5), np.float32)}, comm),
        "more": Sharded(fastadam.Adam, {"W": np.ones((4, 5)), "b": np.ones(3)}, comm),
        "groups": Sharded(fastadam.Adam, [{"params": {"W": np.ones((4, 5))}}, {"params": np.ones(2)}], comm),
    }
    for name, other in others.items():
        other.save(folder / name)
        refused_somehow(comm, lambda name=name: opt.load(folder / name), ValueError)
        assert everything(opt) == before, name
    refused_somehow(comm, lambda: opt.load(folder / "missing"), FileNotFoundError)
    if comm.rank == 0:
        fastadam.Adam(np.ones(3)).save(folder / "plain.npz")
    comm.Barrier()
    refused_somehow(comm, lambda: opt.load(folder / "plain.npz"), OSError)
    opt.step({"W": np.ones((4, 5))})
    opt.save(folder / "later", params=True)
    if comm.rank == 0:  # files of a later step, under the names of these
        for old, new in zip(*(sorted((folder / name).glob("*.npz")) for name in ("good", "later")), strict=True):
            shutil.copy(new, old)
    comm.Barrier()
    before = everything(opt)
    refused_somehow(comm, lambda: opt.load(folder / "good"), ValueError)
    assert everything(opt) == before
    opt.load(folder / "later")


@scene
def what_a_save_leaves(comm, folder):
    """The files of the last save, and those that are not ours: not older ones, nor what a crash left."""
    path = folder / "kept"
    opt = Sharded(fastadam.Adam, np.ones(50), comm)
    opt.save(path)
    if comm.rank == 0:
        (path / f"{'0' * 16}-0.npz").write_bytes(b"of a save that was killed")
        (path / f".fastadam-{'0' * 16}.tmp").write_bytes(b"and this")
        (path / "notes.txt").write_text("a user's own")
    for _ in range(2):
        opt.step(np.ones(50))
        opt.save(path)
        comm.Barrier()
    names = {file.name for file in path.iterdir()}
    assert len(names) == n_files(opt) + 2
    assert {"checkpoint.json", "notes.txt"} < names
    assert f"{'0' * 16}-0.npz" not in names


@scene
def saves_that_fail(comm, folder):
    opt = Sharded(fastadam.Adam, np.ones(50), comm)
    opt.save(folder / "kept")
    opt.step(np.ones(50))
    (folder / "file").write_text("no folder")
    refused_somehow(comm, lambda: opt.save(folder / "file"), OSError)
    guilty = comm.size - 1
    for path in (3, ""):
        with refused(comm, f"rank {guilty} refused it: ", {guilty: ((TypeError, ValueError), "path")}):
            opt.save(path if comm.rank == guilty else folder / "kept")
    with refused(comm, f"rank {guilty} refused it: ", {guilty: (TypeError, "params")}):
        opt.save(folder / "kept", params=None if comm.rank == guilty else True)
    other = Sharded(fastadam.Adam, np.ones(50), comm)
    other.load(folder / "kept")
    assert other.t == 0
    opt.save(folder / "kept")
    other.load(folder / "kept")
    assert other.t == 1


@several
def checkpoints_that_ranks_disagree_in(comm, folder):
    opt, mine = Sharded(fastadam.Adam, np.ones(50), comm), folder / str(comm.rank % 2)
    for name in "01":
        opt.save(folder / name)
    before = everything(opt)
    with refused(comm, "disagree in path"):
        opt.save(mine)
    with refused(comm, "disagree in params"):
        opt.save(folder / "0", params=comm.rank == 0)
    with refused(comm, "disagree in files"):
        opt.load(mine)
    assert everything(opt) == before
    opt.load(folder / "1")


@scene
def loads_that_half_fit(comm, folder):
    """All or nothing; parameters that a checkpoint has not are missed aloud, or by name."""
    opt, guilty = Sharded(fastadam.Adam, np.ones(50), comm), comm.size - 1
    told, before = opt.state_dict(), everything(opt)
    opt.save(folder / "states")
    for call in (lambda **how: opt.load(folder / "states", **how), lambda **how: opt.load_state_dict(told, **how)):
        with refused(
            comm, f"rank {guilty} refused it: ", {guilty: (TypeError, "strict: a sharded optimizer loads all")}
        ):
            call(strict=comm.rank != guilty)
    refused_somehow(comm, lambda: opt.load(folder / "states", params=True), ValueError)
    assert everything(opt) == before
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert opt.load(folder / "states") == ([], [], [], [], False)
        opt.load(folder / "states", params=False)
    assert [w.filename for w in warned] == [__file__]
    opt.step(np.ones(50))
    opt.save(folder / "all", params=True)
    kept = np.array(opt.params)
    opt.step(np.ones(50))
    stepped = np.array(opt.params)
    assert not opt.load(folder / "all", params=False).params
    assert np.array_equal(opt.params, stepped)
    assert opt.load(folder / "all", params=True).params
    assert np.array_equal(opt.params, kept)
