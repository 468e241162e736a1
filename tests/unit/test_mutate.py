"""tools/mutate.py: what faults it draws. Nothing is built."""

import ast
import io
import itertools
import sys
import tokenize

import faults
import mutants
import mutate
import pytest
from places import ROOT

PYTHON = '''"""A docstring: 1 < 2 and not 3."""
from math import inf  # a comment: 4 + 5


def function(x: "int | None" = 1, *, y: dict[str, 7] = None) -> 8:
    """Returns x + 1."""
    for k in range(3):
        if x is not None and k not in x or not y:
            raise ValueError(f"{x + 1} is < 2, expected 'True'")
        x[k:] += -1.5 - k
        print(x)
    while x:
        x = min(x, inf)
    return x
'''
CYTHON = '''"""A docstring: 1 < 2."""
cdef int sum(double* x, int n=3) except -1:
    cdef Py_ssize_t k = <int> n  # 4 < 5
    if n >= 6 and x:
        raise ValueError("7 + 8")
    for k in range(n):
        x[k] = x[k] + 0.5
        call(&x[k])
    return n
'''
C = """#include <a/b.h> /* 1 + 2 */
#if A < 3
#define MOST 4
#endif
static int f(int *x, int y) { // 5 < 6
    int z = 0x10u;
    if (!y && *x <= z) return -1;
    *x = y << 2;
    call(x);
    return "7 + 8"[y] != '9';
}
"""
TEXTS = {"a.py": PYTHON, "a.pyx": CYTHON, "a.h": C}
needs_sources = pytest.mark.skipif(not (ROOT / "fastadam").exists(), reason="the sources are not here")


def changes(file: str) -> set[tuple[str, str]]:
    return {(TEXTS[file][f.start : f.end], f.new) for f in faults.faults(file, TEXTS[file])}


def test_faults_of_python():
    expected = {("and", "or"), ("or", "and"), ("is not", "is"), ("not ", ""), ("min", "max")}
    expected |= {("+=", "="), ("-", "+"), ("3", "4"), ("3", "2"), ("1.5", "3.0"), ("k", "(k) + 1"), ("1", "0")}
    expected |= {("x", "not (x)"), ("print(x)", "pass"), ("x = min(x, inf)", "pass"), ("x[k:] += -1.5 - k", "pass")}
    assert expected <= changes("a.py")
    assert any(before.startswith("raise") and after == "pass" for before, after in changes("a.py"))


def test_faults_of_cython():
    expected = {(">=", ">"), ("and", "or"), ("6", "7"), ("+", "-"), ("0.5", "1.0"), ("return n", "pass")}
    expected |= {("call(&x[k])", "pass"), ("x[k] = x[k] + 0.5", "pass"), ('raise ValueError("7 + 8")', "pass")}
    assert expected <= changes("a.pyx")


def test_faults_of_c():
    expected = {("&&", "||"), ("<=", "<"), ("<<", ">>"), ("0x10u", "0x11u"), ("4", "5"), ("!", ""), ("!=", "==")}
    assert expected | {("*x = y << 2;", ";"), ("call(x);", ";")} <= changes("a.h")


@pytest.mark.parametrize("file", TEXTS)
def test_strings_comments_hints_and_directives_stay(file):
    only_there = {"a.py": "24578", "a.pyx": "124578", "a.h": "356789"}[file]
    assert not {before for before, _ in changes(file)} & {*only_there}


def meaning(text: str) -> list[str]:
    """The comments and strings of Python."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING)]


@needs_sources
def test_draws_are_those_of_the_seed_and_leave_texts_alone():
    """A statement that is left out takes its strings with it. All else is code that compiles."""
    files = ["fastadam/options.py", "fastadam/state/npz.py", "fastadam/kernel/_norms.pyx", "fastadam/kernel/pool.h"]
    first, again, other = ([*itertools.islice(mutate.drawn(ROOT, files, seed), 60)] for seed in ("0", "0", "1"))
    assert first == again != other
    assert len({(fault.file, fault.line) for fault in first}) == 60
    assert {fault.file for fault in first} == set(files)
    for fault in first:
        text = (ROOT / fault.file).read_text()
        changed = fault.put(text)
        assert changed != text
        assert fault.before != fault.after
        if fault.file.endswith(".py"):
            assert faults.is_python(changed)
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
            assert fault.new == "pass" or meaning(changed) == meaning(text)


@needs_sources
def test_every_file_of_a_kind_has_tests():
    found = mutate.sources(ROOT, "*")
    assert all(found[kind] for kind in ("rules, generators", "state", "Cython", "C", "Python core"))
    for file in (file for files in found.values() for file in files):
        assert all(any("test_" in word or "tests/" in word for word in stage) for stage in mutate.stages(file)), file
    counts = mutate.shares(300, found)
    assert counts.total() == 300


@needs_sources
def test_equivalents_are_faults_with_a_reason():
    """One that no longer is drawn belongs to a line that has changed."""
    named = mutate.equivalents(ROOT / "tools/equivalents.json")
    assert len(named) > 10
    drawn = {file: faults.faults(file, (ROOT / file).read_text()) for file in {one["file"] for one in named}}
    for one in named:
        assert any(mutate.is_named(fault, [one]) for fault in drawn[one["file"]]), one
        assert one["reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process has used")
@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("pass", ""),
        ("assert 0", "tests/test_it.py::test_it[a b]"),
        ("__import__('os').abort()", "tests/test_it.py::test_it[a b] (ends the process)"),
    ],
)
def test_what_kills_is_named_unless_it_fails_without_a_fault(body, found, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # pytest starts in a quarter of the time
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p xdist.plugin")
    for place, text in (("clean", "pass"), ("worker", body)):
        (tmp_path / place / "tests").mkdir(parents=True)
        test = f"import pytest\n@pytest.mark.parametrize('x', ['a b'])\ndef test_it(x):\n    {text}\n"
        (tmp_path / place / "tests/test_it.py").write_text(test)
    calls = [["tests/test_it.py"]]
    assert mutants.Tests(tmp_path / "clean").failed(tmp_path / "worker", calls, 60) == found
    assert mutants.Tests(tmp_path / "worker").failed(tmp_path / "worker", calls, 60) == ""
