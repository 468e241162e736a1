"""`fastadam.mpi` with real ranks: each of scenes/, run by 1 and 2 ranks, some by 3; the end of a job.
There are two ways: each rank steps its share, or each steps everything. Two ranks play in both, three in the second.
FASTADAM_TEST_RANKS=4, as in `.ci/builds openmpi`, adds three and four in the first: two processors take long for four.
One `mpiexec` runs all scenes in a row. Also tests that need no ranks: the arithmetic of the layout.
"""

import ast
import importlib.util
import itertools
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import drawn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from sklearn.datasets import load_digits

import fastadam

if importlib.util.find_spec("mpi4py") is None:  # which must not be imported: the tests' process is no rank
    pytest.skip("needs mpi4py and an MPI library: pip install mpi4py mpich", allow_module_level=True)

HERE = Path(__file__).parent
#: what matters most where the average of the ranks is not exact, shares are uneven, and gradients of all go to all
BY_THREE = (
    "worlds_by_chance",
    "groups_of_parameters",
    "layouts_of_parameters",
    "gradients_of_16_bits",
    "checkpoints_for_other_numbers_of_ranks",
    "part_of_the_ranks",
    "steps_that_disagree",
    "weighted_averages",
    "ranks_without_a_batch",
    "rows_of_a_table",
    "rows_with_weights",
    "rows_through_checkpoints",
    "no_table_travels",
    "rows_that_are_refused",
    "rows_on_one_rank_and_an_array_on_another",
    "worlds_of_rows_by_chance",
    "both_ways_have_the_same_bits",
    "every_rank_has_the_same_bits",
    "sums_in_the_order_of_the_ranks",
    "checkpoints_of_the_other_way",
    "folders_of_the_other_way",
    "dicts_of_other_states",
    "one_exchange_of_gradients",
    "arguments_of_a_step",
    "what_is_not_finite_on_one_rank",
    "interrupted_steps",
)
#: seconds that a job may take, on a machine that does much else: one that hangs is ended by its ranks before
LIMIT = 330
#: of Open MPI, which else refuses root, and more ranks than cores
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "FASTADAM_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def marked(*marks: str) -> list[str]:
    """The scenes with one of these decorators."""
    trees = [ast.parse(path.read_text()) for path in sorted((HERE / "scenes").glob("*.py"))]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [f.name for f in functions if any(getattr(d, "id", None) in marks for d in f.decorator_list)]


def mpiexec(n: int, folder: Path, *scenes: str, **more: str) -> subprocess.CompletedProcess:
    """Let so many ranks play scenes; what hangs is ended, and an error."""
    return start(n, str(HERE / "ranks.py"), str(folder), *scenes, **more)


def start(n: int, *command: str, **more: str) -> subprocess.CompletedProcess:
    """Let so many ranks run a script."""
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert launcher, "no mpiexec beside Python or on the PATH"
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI", "PRTE_"))}
    path = os.pathsep.join([str(Path(fastadam.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [launcher, "-n", str(n), sys.executable, *command],
        env=outside | ENVIRONMENT | {"PYTHONPATH": path} | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        try:
            out, err = job.communicate(timeout=LIMIT)
        except BaseException:
            os.killpg(job.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)


def results(folder: Path) -> list[dict]:
    file = folder / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="session")
def played(request, tmp_path_factory):
    """What became of each scene, by number of ranks and by way. Of the scenes, those are played whose tests run."""
    found = {}
    calls = [item.callspec.params for item in request.session.items if getattr(item, "callspec", None)]
    asked = [(call["n"], call["way"], call.get("scene")) for call in calls if {"n", "way"} <= set(call)]

    def play(n: int, way: str) -> dict[str, str]:
        if (n, way) not in found:
            scenes = [scene for *cast, scene in asked if cast == [n, way] and scene]
            folder = tmp_path_factory.mktemp(f"ranks-{n}-{way}")
            digits = load_digits()
            np.savez(folder / "digits.npz", x=digits.data, labels=digits.target)
            job = mpiexec(n, folder, *scenes, FASTADAM_TEST_WAY=way)
            ended = f"was not played: the job ended, {job.returncode}\n{job.stderr[-5000:]}"
            became = found[n, way] = {"": "" if job.returncode == 0 else ended}
            for result in results(folder):
                became[result["scene"]] = became.get(result["scene"], "") + result["failure"]
        return found[n, way]

    return play


#: numbers of ranks, and how they step. One rank steps everything in either way; where every rank does, two exchange
#: gradients in one way, three and more in another
MORE = [(3, "divided"), (4, "divided")] if os.environ.get("FASTADAM_TEST_RANKS") == "4" else []
CASTS = [(1, "divided"), (2, "divided"), (2, "replicated"), (3, "replicated"), *MORE]


@pytest.mark.parametrize(
    ("scene", "n", "way"),
    [
        (scene, n, way)
        for n, way in CASTS
        for scene in (BY_THREE if n == 3 else [*marked("scene"), *(marked("several") if n > 1 else [])])
    ],
)
def test_scene(scene, n, way, played):
    became = played(n, way)
    failure = became.get(scene, became[""] or "was not played")
    assert not failure, failure


@pytest.mark.parametrize(("n", "way"), CASTS)
def test_job_ends_well(n, way, played):
    assert not played(n, way)[""]


# ---------------------------------------------------------------- what ends a job


@pytest.mark.parametrize(
    "scene", ["uncaught_beside_a_message", "uncaught_beside_a_step", "uncaught_before_the_optimizer"]
)
def test_uncaught_error_ends_the_job_and_names_the_rank(scene, tmp_path):
    job = mpiexec(3, tmp_path, scene)
    assert job.returncode != 0
    assert "rank 1 of 3 was ended by ZeroDivisionError: a bug in the data of rank 1" in job.stderr
    assert "Traceback" in job.stderr
    assert "last checkpoint" in job.stderr


def test_error_of_all_ranks_is_told_by_all(tmp_path):
    job = mpiexec(3, tmp_path, "uncaught_on_all")
    assert job.returncode != 0
    refused = "ValueError: gradient of params: expected shape (9,)"
    assert job.stderr.count(f"Disagreement: step: rank 1 refused it: {refused}") == 2
    assert job.stderr.count(f"\n{refused}") == 1
    assert "was ended by" not in job.stderr


def test_error_that_only_its_rank_does_not_catch(tmp_path):
    """Which waits a moment for the others to end with it."""
    job = mpiexec(3, tmp_path, "uncaught_on_one_that_others_caught")
    assert job.returncode != 0
    assert "rank 1 of 3 was ended by ValueError: gradient of params: expected shape (9,)" in job.stderr


def test_killed_rank_ends_the_job_and_the_last_checkpoint_resumes(tmp_path):
    assert mpiexec(3, tmp_path, "killed").returncode != 0
    job = mpiexec(2, tmp_path, "resumed_after_a_kill")
    assert job.returncode == 0, job.stderr


@pytest.mark.parametrize("scene", ["left_by_sys_exit", "left_by_finalize"])
def test_rank_that_leaves_is_named(scene, tmp_path):
    mpiexec(3, tmp_path, scene)
    assert sorted(result["failure"] for result in results(tmp_path)) == ["rank 0 was told", "rank 2 was told"]


@pytest.mark.parametrize("way", ["ended", "sys_exit", "finalize"])
def test_rank_that_leaves_before_the_optimizer_is_named(way, tmp_path):
    mpiexec(3, tmp_path, f"{way}_before_the_optimizer")
    assert sorted(result["failure"] for result in results(tmp_path)) == ["rank 0 was told", "rank 2 was told"]


def test_process_that_ends_before_the_optimizer_ends_the_job(tmp_path):
    mpiexec(3, tmp_path, "end_of_the_process_before_the_optimizer")  # with whatever code mpiexec tells it
    assert not results(tmp_path)


@pytest.mark.parametrize("scene", ["late_for_the_optimizer", "ended_before_the_optimizer_of_a_part"])
def test_rank_that_does_not_come_to_the_optimizer_ends_the_job(scene, tmp_path):
    job = mpiexec(3, tmp_path, scene, FASTADAM_MPI_TIMEOUT="2")
    assert job.returncode != 0
    assert "of 3 waited 2 s for rank 1 to make the first optimizer (see FASTADAM_MPI_TIMEOUT); the job" in job.stderr


def test_rank_without_an_optimizer_ends_as_it_may(tmp_path):
    job = mpiexec(3, tmp_path, "part_without_an_optimizer")
    assert (job.returncode, job.stderr) == (0, "")


UNSEEN = """
from mpi4py import MPI
if MPI.COMM_WORLD.rank:
    import numpy as np, fastadam.mpi
    part = MPI.COMM_WORLD if MAKES else MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Excl([0]))
    fastadam.mpi.Sharded(fastadam.Adam, np.ones(9), part)
"""


def test_rank_that_does_not_import():
    """It is waited for in vain, if it is to make an optimizer; else its job ends well, if a moment later."""
    job = start(3, "-c", f"MAKES = True\n{UNSEEN}", FASTADAM_MPI_TIMEOUT="2")
    assert job.returncode != 0
    assert "waited 2 s for rank 0" in job.stderr
    job = start(3, "-c", f"MAKES = False\n{UNSEEN}")
    assert job.returncode == 0, job.stderr


def test_time_limit_that_is_no_number():
    job = start(2, "-c", f"MAKES = True\n{UNSEEN}", FASTADAM_MPI_TIMEOUT="2s")
    assert job.returncode != 0
    assert "TypeError: FASTADAM_MPI_TIMEOUT: expected a whole number >= 1, got '2s' of type str" in job.stderr


BEFORE_AND_AFTER = """
import mpi4py
mpi4py.rc.initialize = False
import numpy as np, fastadam
from fastadam.mpi import Sharded
from mpi4py import MPI
def refused(act):
    try: act()
    except RuntimeError as error: print(error)
make = lambda: Sharded(fastadam.Adam, np.ones(3))
refused(make)
MPI.Init()
opt = make()
opt.step(np.ones(3))
MPI.Finalize()
refused(make)
refused(lambda: opt.step(np.ones(3)))
"""


@pytest.mark.parametrize("n", [1, 2])
def test_before_and_after_mpi(n):
    job = start(n, "-c", BEFORE_AND_AFTER)
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("comm: MPI is not running; call MPI.Init() before, and MPI.Finalize() after") == 2 * n
    assert job.stdout.count("step: MPI is finalized") == n


def test_one_step_more_on_one_rank(tmp_path):
    job = mpiexec(3, tmp_path, "one_step_more_on_one_rank")
    assert job.returncode != 0
    assert (
        "Disagreement: step: ranks 1, 2 left the job, rank 0 did not; continue from the last checkpoint" in job.stderr
    )


def test_rank_killed_while_saving(tmp_path):
    """Again and again; more often: FASTADAM_TEST_TRIALS=50."""
    for number in range(int(os.environ.get("FASTADAM_TEST_TRIALS", "3"))):
        delay = 0.05 + number * 0.618 % 1 / 5
        job = mpiexec(2 + number % 2, tmp_path, "saves_until_killed", KILL_AFTER=str(delay))
        assert job.returncode != 0
        assert "Assertion" not in job.stderr + "".join(result["failure"] for result in results(tmp_path))
    job = mpiexec(2, tmp_path, "saves_until_killed", KILL_AFTER="0")
    assert job.returncode == 0, job.stderr


def test_example(tmp_path):
    """It shows progress once, draws, and what it prints is so."""
    out = tmp_path / "picture.png"
    job = start(2, str(ROOT / "examples/mpi_digits.py"), "--epochs", "5", "--out", str(out))
    assert job.returncode == 0, job.stderr
    losses, accuracies, difference, wrote = job.stdout.splitlines()
    assert wrote == f"wrote {out}"
    assert job.stderr.count("2 at work:   0%") == 1  # by one of the ranks
    assert "2 at work: 100%" in job.stderr
    assert "1 at work: 100%" in job.stderr
    first, last = re.findall(r"[\d.]+ with", losses)[0], re.findall(r"[\d.]+", losses)[-1]
    assert float(first.split()[0]) == float(last) < 0.1
    assert all(float(percent) > 93 for percent in re.findall(r"([\d.]+)%", accuracies))
    assert 0 < float(difference.split()[-1]) < 1e-5
    drawn.check(out, 800, 1400, 500)


# ---------------------------------------------------------------- who steps what

LAYOUT = runpy.run_path(str(Path(fastadam.__file__).parent / "mpi/layout.py"))
ARRAYS = st.lists(
    st.builds(
        LAYOUT["Array"],
        st.integers(0, 40),
        st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
        st.sampled_from([1, 1, 4, 16]),
        st.sampled_from([1, 1, 2, 16]),
    ),
    min_size=1,
    max_size=6,
)
GROUPS = st.lists(ARRAYS, min_size=1, max_size=4)


@pytest.mark.parametrize(("n_ranks", "share", "expected"), [(2, 64, 4), (2, 63, 1), (1, 1, 4)])
def test_a_parameter_is_cut_between_rows_of_which_a_share_has_sixteen(n_ranks, share, expected):
    assert LAYOUT["Array"](1000, "float32", row=4).cut_for(n_ranks, share) == expected


def test_default_size_is_that_of_the_page():
    said = re.search(r"\*\*Default\.\*\* (\d+) MiB divided", (ROOT / "docs/how-to/scaling.md").read_text())
    assert said
    assert LAYOUT["REPLICATE_BELOW"] == int(said[1]) << 20


@given(GROUPS, st.integers(1, 9), st.integers(1, 200))
def test_ranks_divide_all_elements(groups, n_ranks, bucket_bytes):
    layout = LAYOUT["Layout"](groups, n_ranks, bucket_bytes)
    arrays = [array for group in groups for array in group]
    owners = [np.zeros(array.size, int) for array in arrays]
    loads = np.zeros((n_ranks, len(layout.buckets)), int)
    off = max(grain for run in layout.runs for grain in run.grains) - 1  # so far from its place may a cut be
    for rank in range(n_ranks):
        for k, piece, place in layout.pieces(rank):
            assert piece.begin < piece.end
            size, grain = arrays[piece.param].size, arrays[piece.param].grain
            assert piece.begin % grain == 0
            assert piece.end % grain == 0 or piece.end == size
            if piece.param in layout.by_rows:
                row = arrays[piece.param].row
                assert piece.begin % row == 0
                assert piece.end % row == 0 or piece.end == size
            owners[piece.param][piece.begin : piece.end] += 1
            loads[rank, k] += piece.end - piece.begin
            run = layout.runs[layout.buckets[k].run]
            assert run.dtype == arrays[piece.param].dtype
            assert place == run.starts[run.params.index(piece.param)] + piece.begin
    assert all((owner == 1).all() for owner in owners)
    assert (loads.max(axis=0, initial=0) - loads.min(axis=0, initial=1 << 30) <= 1 + 2 * off).all()
    assert loads.T.tolist() == [bucket.counts for bucket in layout.buckets]
    for bucket in layout.buckets:
        size = np.dtype("float16" if (name := layout.runs[bucket.run].dtype) == "bfloat16" else name).itemsize
        assert 0 < sum(bucket.counts) * size <= max(bucket_bytes, size) + off * size


@given(GROUPS, st.integers(1, 9), st.integers(1, 200), st.data())
def test_buckets_without_some_parameters(groups, n_ranks, bucket_bytes, data):
    layout = LAYOUT["Layout"](groups, n_ranks, bucket_bytes)
    arrays = [array for group in groups for array in group]
    out = data.draw(st.sets(st.integers(0, len(arrays) - 1)))
    for bucket, parts in zip(layout.buckets, layout.without(out), strict=True):
        run = layout.runs[bucket.run]
        for rank in range(n_ranks):
            share = bucket.share(rank)
            expected = [
                place + k
                for piece, place in run.pieces(share.start, share.stop)
                for k in range(piece.end - piece.begin)
                if piece.param not in out
            ]
            found = [range(part.share(rank).start, part.share(rank).stop) for part in parts]
            assert [place for places in found for place in places] == expected
        assert all(sum(part.counts) > 0 for part in parts)
        assert all(one.bounds[-1] < other.bounds[0] for one, other in itertools.pairwise(parts))


@given(GROUPS, st.integers(1, 9), st.integers(1, 200), st.data())
def test_holders_are_those_who_have_elements_of_a_piece(groups, n_ranks, bucket_bytes, data):
    layout = LAYOUT["Layout"](groups, n_ranks, bucket_bytes)
    arrays = [array for group in groups for array in group]
    param = data.draw(st.integers(0, len(arrays) - 1))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, arrays[param].size)] * 2)))
    expected = {
        (rank, piece)
        for rank in range(n_ranks)
        for _, piece, _ in layout.pieces(rank)
        if piece.param == param and max(begin, piece.begin) < min(end, piece.end)
    }
    found = list(layout.holders(LAYOUT["Piece"](param, begin, end)))
    assert len(found) == len(set(found))
    assert set(found) == expected
