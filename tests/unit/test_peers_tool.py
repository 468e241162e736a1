"""tools/peers.py, run on tiny suites whose outcomes are known."""

import json
import tomllib

import peers
import pytest
from places import TOOLS

LIBRARY = """
class Optimizer:
    def step(self): return 1
class Ours(Optimizer):
    def step(self): return 2
def replace():
    import peers_plugin
    peers_plugin.witness(Ours, "step")
    globals()["Optimizer"] = Ours
"""
TESTS = """
import pytest
import tiny

def test_steps(): assert tiny.Optimizer().step()
def test_does_not_step(): assert tiny.Optimizer
def test_by_design(): assert tiny.Optimizer().step() == 1
def test_theirs(): assert tiny.Optimizer().step() == 3
@pytest.mark.parametrize("k", [1, 2])
def test_some(k): assert tiny.Optimizer().step() == k
@pytest.mark.skip
def test_not_here(): raise AssertionError
"""
BY_DESIGN = peers.Expected("::test_by_design", "ours steps by 2")
SOME = peers.Expected("::test_some[[]1]", "1 is not 2")


def suite(folder, tests=TESTS):
    """A suite of which pytest's version is shown."""
    (folder / "tiny.py").write_text(LIBRARY)
    (folder / "test_tiny.py").write_text(tests)
    return peers.Suite("tiny", "tiny", "pytest", folder, ("test_tiny.py",))


@pytest.fixture(scope="module", autouse=True)
def without_plugins():
    """pytest starts in a quarter of the time without those that are installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        yield


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The suite, and its outcomes with the replaced library and without."""
    tiny = suite(tmp_path_factory.mktemp("tiny"))
    return tiny, {library: peers.play(tiny, library, tiny.files) for library in ("tiny", "")}


@pytest.fixture
def tiny(played, monkeypatch):
    """The suite; it is not played again."""
    found, outcomes = played
    monkeypatch.setattr(
        peers,
        "play",
        lambda _, library, tests: {
            test: own for test, own in outcomes[library].items() if tests == found.files or test in tests
        },
    )
    return found


def counts(row):
    return {column: row[column] for column in peers.COLUMNS if row[column]}


def test_each_outcome_has_its_column(tiny, capsys):
    row = peers.measure(tiny, [BY_DESIGN, SOME])
    assert counts(row) == {"passed": 2, "idle": 1, "expected": 2, "theirs": 1, "skipped": 1}
    assert row["version"] == pytest.__version__
    assert row["reasons"] == {BY_DESIGN.reason: 1, SOME.reason: 1}
    assert not capsys.readouterr().out


def test_what_is_not_expected_fails_and_is_shown(tiny, capsys):
    row = peers.measure(tiny, [BY_DESIGN])
    assert counts(row) == {"passed": 2, "idle": 1, "expected": 1, "theirs": 1, "failed": 1, "skipped": 1}
    assert "tiny: FAILED test_tiny.py::test_some[1]: AssertionError: assert 2 == 1" in capsys.readouterr().out


def test_an_expected_difference_that_is_none_is_told(tiny, capsys):
    peers.measure(tiny, [BY_DESIGN, SOME, peers.Expected("::test_steps", ""), peers.Expected("::test_gone*", "")])
    assert capsys.readouterr().out.splitlines() == [
        "tiny: expected difference ::test_steps: passes now",
        "tiny: expected difference ::test_gone*: is no test of this version",
    ]


@pytest.mark.parametrize("text", ["import nowhere", "", "import os; os._exit(3)"])
def test_a_suite_that_cannot_run_fails(tmp_path, text, capsys):
    assert counts(peers.measure(suite(tmp_path, text), [])).keys() == {"failed"}
    assert ("No module named 'nowhere'" in capsys.readouterr().out) == (text == "import nowhere")


@pytest.mark.parametrize(("expected", "status"), [([BY_DESIGN, SOME], 0), ([BY_DESIGN], 1)])
def test_the_exit_status_and_the_report(tiny, tmp_path, monkeypatch, capsys, expected, status):
    monkeypatch.setattr(peers, "suites", lambda _: {"tiny": tiny, "absent": None})
    monkeypatch.setattr(peers, "read_expected", lambda _: {"tiny": expected})
    out = tmp_path / "peers.json"
    out.write_text('[{"suite": "other", "passed": 3}, {"suite": "tiny", "passed": 9}]')
    assert peers.main(["--write", str(out)]) == status
    other, row = json.loads(out.read_text())
    assert other["passed"] == 3
    assert bool(row["failed"]) == status
    said = capsys.readouterr().out
    assert "absent: NOT RUN" in said
    assert f"| tiny | {pytest.__version__} | 2 | 1 | {2 - status} | 1 | {status} | 1 |" in said
    assert peers.main(["absent"]) == 1  # it was named


def test_torchs_files_without_those_that_one_of_them_imports(tmp_path):
    (tmp_path / "optim").mkdir()
    for name in ("test_optim.py", "optim/test_a.py", "optim/test_b.py", "test_other.py"):
        (tmp_path / name).write_text("from optim.test_a import TestA\n")
    assert peers.torch_files(tmp_path) == ("test_optim.py", "optim/test_b.py")
    with pytest.raises(SystemExit, match=r"expected the folder `test` of torch's sources"):
        peers.torch_files(tmp_path / "optim")


def test_the_list_of_expected_differences_can_be_read():
    kept = peers.read_expected(TOOLS / "peers.toml")
    assert kept.keys() <= peers.suites(None).keys()
    assert all(own.reason and own.pattern for listed in kept.values() for own in listed)
    assert tomllib.loads((TOOLS / "peers.toml").read_text()).keys() == kept.keys()
