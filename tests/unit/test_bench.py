"""``python -m fastadam bench``, and the engine that it shares with the benchmarks of the repository."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastadam
from fastadam import __main__ as program
from fastadam.bench import command
from fastadam.bench.contestants import CONTESTANTS, OURS, chosen, of_average, of_torch, peers
from fastadam.bench.measure import Contestant, Rounds, Turn, arrays, in_turn, measure
from fastadam.bench.roofline import LIMIT, limit_of, roofline, streams
from fastadam.bench.tables import aligned, duration, times
from fastadam.optimizers import CLASSES
from fastadam.rules import RULES

QUICK = ["--seconds", "0", "--shapes", "1x16,2x1k"]


def bench(capsys, *arguments: str) -> str:
    assert program.main(["bench", *QUICK, *arguments]) == 0
    return capsys.readouterr().out


# ---------------------------------------------------------------- the engine


def test_contestants_take_turns_in_an_order_that_changes():
    order = []
    turns = {name: Turn(lambda name=name: order.append(name), lambda k: None) for name in "abc"}
    rows = in_turn(turns, Rounds(4, 4), "float32", 1, 16)
    rounds = ["".join(order[k : k + 3]) for k in range(0, 12, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds)) > 1
    assert [(row.name, row.rounds) for row in rows] == [(name, 4) for name in "abc"]
    assert all(row.low <= row.median <= row.high for row in rows)


@pytest.mark.parametrize(("until", "rounds"), [(0.0, 2), (float("inf"), 6)])
def test_rounds_go_on_until_time_is_up(until, rounds):
    [row] = in_turn({"a": Turn(lambda: None, lambda k: None)}, Rounds(2, 6, until), "float32", 1, 16)
    assert row.rounds == rounds


def test_who_fails_is_left_out_or_ends_it():
    def make(params, grads):
        raise OSError("no compiler")

    contestants = [Contestant("broken", make), CONTESTANTS[0]]
    failed = {}
    rows = measure(contestants, "float32", 1, 16, Rounds(1, 1), failed.__setitem__)
    assert [row.name for row in rows] == [OURS]
    assert str(failed["broken"]) == "no compiler"
    with pytest.raises(OSError, match="no compiler"):
        measure(contestants, "float32", 1, 16)


SEEN = [c for c in CONTESTANTS if c.needs not in ("optax", "deepspeed")]  # one keeps what it steps, one is compiled


@pytest.mark.parametrize("contestant", SEEN, ids=lambda contestant: contestant.name)
def test_contestants_do_the_same_work(contestant):
    if not contestant.installed:
        pytest.skip(f"{contestant.needs} is not installed")
    params, grads = arrays(3, 100, "float32")
    expected = [p.copy() for p in params]
    step, opt = contestant.make(params, grads), fastadam.Adam(expected)
    for _ in range(5):
        step()
        opt.step(grads)
    for p, q in zip(params, expected, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-6)


def test_every_rule_has_an_optimizer():
    for rule in set(RULES) - {"average"}:
        cls, options = chosen(rule)
        opt = cls(np.ones(3), **options)
        assert opt.core.groups.rules[0].name == rule
    assert chosen("AdamW") == chosen("adamw") == (fastadam.AdamW, {})
    for name, cls in CLASSES.items():
        assert chosen(name) == (cls, {})
        assert all(c.needs != "torch" or c.name.startswith("PyTorch") for c in of_torch(cls, {}))
        assert f"{OURS}, backend numpy" in [c.name for c in peers(cls, {})]


def test_an_average_is_measured_by_its_updates():
    params, grads = arrays(1, 10, "float32")
    of_average(params, grads)()


@pytest.mark.parametrize("n_states", range(4))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_roofline_reads_and_writes_all(n_states, dtype):
    params, grads = arrays(2, 1000, dtype)
    before = [p.copy() for p in params]
    step = roofline(params, grads, n_states=n_states)
    step()
    step()
    for p, q, g in zip(params, before, grads, strict=True):
        np.testing.assert_array_equal(p, (q + g) + g)


def test_a_roofline_of_fewer_bytes_moves_fewer(monkeypatch):
    sizes = []
    monkeypatch.setattr("fastadam.bench.roofline.roofline", lambda params, *rest: sizes.append(params[0].size))
    params, grads = arrays(1, 1000, "float32")
    for moved in (28.0, 14.0):
        limit_of(moved, 2).make(params, grads)
    assert sizes == [1000, 500]
    assert [streams(n) for n in range(4)] == [3, 5, 7, 9]


# ---------------------------------------------------------------- the command


def test_the_table(capsys):
    text = bench(capsys, "--against", "numpy")
    assert "1 array of 16 elements" in text
    assert "2 arrays of 1,000 elements" in text
    for name in (OURS, "tuned NumPy", "article's NumPy", LIMIT):
        assert sum(line.startswith(f"{name}  ") for line in text.splitlines()) == 2
    [ours, _] = [line.split() for line in text.splitlines() if line.startswith(f"{OURS}  ")]
    assert "1×" in ours


def test_json_and_markdown(capsys, tmp_path):
    path = tmp_path / "found.json"
    text = bench(capsys, "--against", "none", "--json", str(path), "--markdown")
    assert text.count("| fastadam |") == 2
    found = json.loads(path.read_text())
    assert (found["rule"], found["dtype"], found["left out"]) == ("adam", "float32", {})
    assert found["machine"]["fastadam"] == fastadam.__version__
    rows = found["cases"][1]["rows"]
    assert {(row["name"], row["count"], row["size"]) for row in rows} == {(OURS, 2, 1000), (LIMIT, 2, 1000)}
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in rows)


@pytest.mark.parametrize(("dtype", "moved"), [("bfloat16", 14), ("float32", 28), ("float64", 56)])
def test_bytes_of_peers_are_those_of_their_dtype(capsys, dtype, moved):
    pytest.importorskip("torch")
    [case, _] = json.loads(bench(capsys, "--against", "torch", "--dtype", dtype, "--json"))["cases"]
    assert case["bytes"]["PyTorch fused"] == moved  # p, g, m, v are read, all but g written
    ours = 2 + 2 * (2 + 8) if dtype == "bfloat16" else moved  # over such tensors, too, fastadam's states are float32
    assert case["bytes"]["fastadam over tensors"] == ours


def test_a_picture(capsys, tmp_path):
    path = tmp_path / "out.png"
    bench(capsys, "--against", "numpy", "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("states", "dtype", "size", "moved"),
    [
        ("float32", "float32", 16, 28),
        ("float32", "float64", 16, 56),
        ("float32", "float16", 16, 22),
        ("bfloat16", "float32", 16, 20),
        ("int8", "float32", 16, 28),  # small arrays keep float32 states
        ("int8", "float32", 1 << 14, 12 + 4 * 258 / 256),
    ],
)
def test_bytes_are_those_of_the_arrays(capsys, states, dtype, size, moved):
    shape = f"1x{size}"
    arguments = ["--states", states, "--dtype", dtype, "--against", "none", "--json", "--shapes", shape]
    [case] = json.loads(bench(capsys, *arguments))["cases"]
    assert case["bytes"][OURS] == case["bytes"][LIMIT] == moved


@pytest.mark.parametrize("rule", ["sgd", "SGD", "rmsprop_centered_momentum", "adamw", "schedule_free"])
def test_rules(capsys, rule):
    found = json.loads(bench(capsys, "--rule", rule, "--against", "numpy", "--json"))
    assert [row["name"] for row in found["cases"][0]["rows"]][:2] == [OURS, f"{OURS}, backend numpy"]


def test_a_peer_that_fails_is_named(capsys, monkeypatch):
    def make(params, grads):
        raise RuntimeError("it does not compile\nhere")

    monkeypatch.setattr(command, "peers", lambda cls, options: [Contestant("peer", make)])
    assert "peer was left out: RuntimeError: it does not compile\n" in bench(capsys, "--against", "numpy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "adan"], "no optimizer is called 'adan'; did you mean"),
        (["--shapes", "10"], "expected arrays x elements, as 100x1000 or 1x10M, got '10'"),
        (["--shapes", "0x10"], "expected arrays x elements"),
        (["--threads", "0"], "expected a whole number of at least 1, got '0'"),
        (["--threads", "99999"], "the processors that there are, got 99999"),
        (["--against", "tensorflow"], "expected auto, none, or some of numpy, numba"),
        (["--seconds", "-1"], "expected a number of seconds"),
        (["--seconds", "nan"], "expected a number of seconds"),
        (["--json", "no/such/folder.json"], "expected a file in a folder that there is"),
        (["--plot", "out.txt"], "expected a file that ends in .png"),
        (["--dtype", "int8"], "invalid choice"),
    ],
)
def test_arguments_that_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        program.main(["bench", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float64", "--states", "bfloat16"], "state_dtype"),
        (["--shapes", "1000x1G"], "4 contestants take 112,000 GB"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments, message):
    assert program.main(["bench", "--against", "numpy", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_peers_that_are_told_of_threads(capsys):
    text = bench(capsys, "--threads", "1")
    assert "fastadam on 1 threads" in text


def test_what_was_measured_before_an_interrupt(capsys, monkeypatch):
    kept, calls = command.measure, []

    def measured(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kept(*arguments)

    monkeypatch.setattr(command, "measure", measured)
    assert program.main(["bench", *QUICK, "--against", "none"]) == 130
    said = capsys.readouterr()
    assert "1 array of 16 elements" in said.out
    assert "2 arrays" not in said.out
    assert "interrupted" in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is of Linux")
def test_a_file_that_cannot_be_written_loses_no_table(capsys):
    assert program.main(["bench", *QUICK, "--against", "none", "--json", "/dev/full"]) == 2
    said = capsys.readouterr()
    assert "2 arrays of 1,000 elements" in said.out
    assert "No space left" in said.err


def test_output_is_of_the_table_alone():
    """What peers and the bar say goes where errors go."""
    command_ = [sys.executable, "-m", "fastadam", "bench", *QUICK, "--against", "none", "--json"]
    done = subprocess.run(command_, capture_output=True, text=True, check=True)
    json.loads(done.stdout)
    assert "| 2/2 done" in done.stderr


def test_numbers_as_text():
    assert [duration(x) for x in (2.0, 0.0123, 4.5e-6, 1e-9)] == ["2 s", "12.3 ms", "4.5 µs", "1 ns"]
    assert duration(999.7e-6) == "1 ms"
    assert [times(x) for x in (1.0, 1.234, 99.9, 20512.0)] == ["1×", "1.23×", "99.9×", "20,512×"]
    assert aligned(["", "time"], [["a", "1 µs"], ["long", "10 µs"]]) == ["       time", "a      1 µs", "long  10 µs"]
