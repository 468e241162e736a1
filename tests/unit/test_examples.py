"""The examples with pictures: each runs, shows progress, draws, and prints correct results.
The tests of schedules and of own rules run their examples.
"""

import json
import re
import runpy

import drawn
import pytest
from places import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path, capsys):
    """Runs an example's main with --out and other constants, checks its progress bar and its picture, and returns the
    lines printed."""

    def run_example(name, *arguments, **constants):
        out = tmp_path / "picture.png"
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        main.__globals__.update(constants)
        main([*arguments, "--out", str(out)])
        captured = capsys.readouterr()
        *lines, last = captured.out.splitlines()
        assert last == f"wrote {out}"
        assert "100%" in captured.err
        drawn.check(out, 800, 1400, 500)
        return lines

    return run_example


def numbers(line):
    """The numbers of a line, in order."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", line)]


def test_article_demo(run):
    _, *rows, difference = run("article_demo")
    assert len(rows) == 6
    for row in rows:
        straight, turned = numbers(row)[-2:]
        assert straight < 0.05
        assert turned > 10 * straight
    assert difference.startswith("largest difference between the paths of Adam and of plain NumPy: ")
    assert numbers(difference)[-1] < 1e-12


def test_numpy_mlp(run):
    loss, accuracy, clipped, halves = run("numpy_mlp")
    assert numbers(loss)[0] < 0.1
    in_training, in_test = numbers(accuracy)
    assert 97 < in_test < in_training <= 100
    assert 0 < numbers(clipped)[0] < 50
    assert halves == "in two halves: the same weights to the bit"


def test_njit_logistic(run):
    compiled, *loops, decays = run("njit_logistic")
    assert numbers(compiled)[0] > 0
    assert [line[:20].strip() for line in loops] == ["one @njit loop", "Python, fastadam", "Python, plain NumPy"]
    for line in loops:
        microseconds, ratio, off, accuracy = numbers(line)
        assert microseconds > 0
        assert off < 1e-9
        assert accuracy > 95
        assert ratio == 1 if "njit" in line else ratio > 0
    least, most = numbers(decays)[1:]
    assert 80 < least < most <= 100


def test_scipy_physics_fit(run):
    message, *values, deviation, other = run("scipy_physics_fit", "--fits", "5")
    assert message == "Converged: no element of the projected gradient is larger than tol = 0.001."
    fitted = {re.split(r"  +", line)[0]: numbers(line)[-2:] for line in values}
    expected = {"V_c": -42.8, "rate at V_c": 0.218, "rate at -30 mV": 0.87, "V at the end": -26.97}
    assert fitted.keys() == expected.keys()
    for name, (value, error) in fitted.items():
        assert value == pytest.approx(expected[name], rel=0.02)
        assert 0 < error < 0.05 * abs(value)
    fit, mean = numbers(deviation)
    assert fit < 1.5 * mean
    assert numbers(other)[0] < 0.01


def test_sklearn_grid_search(run):
    stock, ours, difference = run("sklearn_grid_search", EPOCHS=4)
    assert stock.startswith("stock")
    assert ours.startswith("fastadam")
    assert stock.split("best")[1] == ours.split("best")[1]
    assert numbers(difference)[0] < 0.2


def test_matrix_factorization(run, tmp_path):
    small = {"USERS": 400, "ITEMS": 100, "WIDTH": 8, "STEPS": 400, "BATCH": 64, "POINTS": 10, "TEST_SIZE": 2_000}
    *lines, same = run("matrix_factorization", **small)
    assert same == "exact rows and dense gradients: the same tables to the bit"
    assert [line[:10].strip() for line in lines] == ["dense", "lazy rows", "exact rows"]
    losses = [numbers(line)[0] for line in lines]
    assert max(losses) < 0.5  # of 1.09 at first
    assert losses[2] == losses[0]
    measured = json.loads((tmp_path / "picture.json").read_text())
    assert all(len(found["steps, seconds, loss"]) == 10 for found in measured.values())
