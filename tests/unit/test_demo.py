"""``python -m fastadam``: the demo trains, draws and reports; wrong arguments end with one clear line.
Most tests start their own process, as a user does.
"""

import subprocess
import sys
from pathlib import Path

import drawn
import numpy as np
import pytest
from inside import backends

import fastadam
from fastadam import __main__, demo

SMALL = ("demo", "--epochs", "1", "--hidden", "16")
MAIN = "import sys; from fastadam.__main__ import main; sys.exit(main(sys.argv[1:]))"


def run(*arguments, patch=None):
    """The finished process of ``python -m fastadam``, or of the same after the statements `patch`."""
    start = ["-m", "fastadam"] if patch is None else ["-c", f"{patch}; {MAIN}"]
    root = Path(fastadam.__file__).parents[1]
    command = [sys.executable, "-X", "utf8", *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=root, timeout=120)


def error_line(result, status):
    """What the process says on stderr, which must be one line of its own (argparse prints its usage before)."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "pictures"
    return out, run(*SMALL, "--out", out)


def test_demo_prints_an_aligned_table_and_the_paths(small_demo):
    out, result = small_demo
    assert result.returncode == 0, result.stderr
    table, rest = result.stdout.split("\n\n")
    heading, *rows = table.splitlines()
    assert heading.split() == ["digits", "plain", "NumPy", "fastadam", "ratio"]
    end = heading.index("fastadam") + len("fastadam")
    for row, beginning in zip(rows, ("training loss", "test accuracy", "seconds of training", "of these"), strict=True):
        assert row.startswith(beginning)
        assert row[end - 1].strip()
        assert not row[end : end + 1].strip()  # the column ends where its heading does
    assert "(the same to rounding)" in rest
    assert rest.splitlines()[1:] == [f"wrote {out / 'digits.png'}", f"wrote {out / 'trajectories.png'}"]


def test_demo_shows_progress(small_demo):
    assert "training on digits: 100%" in small_demo[1].stderr


@pytest.mark.parametrize("name", ["digits.png", "trajectories.png"])
def test_pictures_are_large_enough_and_not_blank(small_demo, name):
    drawn.check(small_demo[0] / name, 600, 1200, 100)


def test_demo_fails_where_the_losses_differ(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.PlainAdam, "step", lambda self: None)
    assert __main__.main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "(FAILED, more than 1e-09)" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib", "tqdm"])
def test_demo_names_the_way_out_of_missing_packages(missing):
    line = error_line(run(*SMALL, patch=f"import sys; sys.modules[{missing!r}] = None"), status=1)
    assert missing in line
    assert "pip install scikit-learn matplotlib tqdm" in line


def test_demo_refuses_a_file_as_out_before_it_trains(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("mine")
    assert f"--out {file}: expected a directory" in error_line(run(*SMALL, "--out", file), status=1)
    monkeypatch.setattr(demo, "run", None)
    assert __main__.main([*SMALL, "--out", str(file / "below")]) == 1
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--epochs", "0", "at least 1, got '0'"),
        ("--epochs", "many", "at least 1, got 'many'"),
        ("--epochs", "1.5", "at least 1, got '1.5'"),
        ("--hidden", "-3", "at least 1, got '-3'"),
        ("--seed", "-1", "at least 0, got '-1'"),
    ],
)
def test_bad_numbers_are_refused(option, value, expected):
    line = error_line(run("demo", f"{option}={value}"), status=2)
    assert f"argument {option}: expected a whole number of {expected}" in line


def test_a_subcommand_is_required():
    assert "required: command" in error_line(run(), status=2)


def test_help_says_the_defaults_that_there_are(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["bench", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "such as sgd_momentum (default: adam)" in said
    assert "(default: None)" not in said


def test_info_prints_versions_and_instruction_sets():
    result = run("info")
    assert result.returncode == 0, result.stderr
    facts = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["fastadam"] == fastadam.__version__
    assert facts["NumPy"] == np.__version__
    assert facts["instruction set"] == backends.ISA
    assert {"cython", "numpy"} <= set(facts["backends"].split(", "))
    assert set(backends.describe()) <= set(facts)
    assert facts["state_dtype"] == "int8, bfloat16"


def test_info_says_what_bfloat16_states_need():
    result = run("info", patch="import sys; sys.modules['ml_dtypes'] = None")
    assert "int8, bfloat16 once ml_dtypes is installed" in result.stdout, result.stderr


def test_info_does_not_import_what_only_the_demo_needs():
    missing = "sys.modules.update(dict.fromkeys(('sklearn', 'matplotlib', 'tqdm')))"
    assert run("info", patch=f"import sys; {missing}").returncode == 0


def test_the_network_computes_its_gradient():
    rng = np.random.default_rng(0)
    network, x, labels = demo.Network([5, 4, 3, 2], seed=1), rng.normal(size=(6, 5)), rng.integers(0, 2, 6)
    network.loss(x, labels)
    gradient, numeric = network.grad.copy(), np.empty_like(network.grad)
    for k in range(len(numeric)):
        old = network.parameters[k]
        losses = []
        for h in (1e-6, -1e-6):
            network.parameters[k] = old + h
            losses.append(network.loss(x, labels))
        network.parameters[k] = old
        numeric[k] = (losses[0] - losses[1]) / 2e-6
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)
