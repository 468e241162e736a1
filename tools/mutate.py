"""Mutation testing: how many small faults in the sources do the tests notice?

``python tools/mutate.py --number 300 --seed 0`` draws faults (tools/faults.py) over Python, Cython, C, the rules and
the generators. Each goes into a copy of the tree. What depends on it is rebuilt, and the tests that may see it run, the
nearest first. What is printed: the score of each kind of source, and the faults that survived. Started again, it goes
on where it was.

No mutation tester was found that could do this: mutmut and cosmic-ray know Python alone, and universalmutator changes
lines by regular expressions, also in strings, comments and docstrings, and builds everything anew.

A fault is *killed* if a test fails that passes without it, or hangs. It does not count if it does not compile, if the
compiler makes the same machine code of it, or if tools/equivalents.json names it, with a reason. Linux only.
"""

import argparse
import fnmatch
import importlib.util
import json
import random
import resource
import shlex
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from faults import Fault, faults, is_python
from mutants import Tests, build, copy_tree, dependents, restore, same_modules, stamp

ROOT = Path(__file__).parents[1]
#: kind of source -> its share of the faults, and its files below fastadam/; the first kind that fits counts
KINDS = {
    "rules, generators": (0.10, ["rule.py", "rules.py", "kernel/generate*.py"]),
    "state": (0.15, ["state/*.py", "saved.py"]),
    "mpi": (0.10, ["mpi/*.py"]),
    "adapters": (0.15, ["adapters/*.py"]),
    "Cython": (0.22, ["*.pyx", "*.pxd"]),
    "C": (0.08, ["kernel/*.h"]),
    "Python core": (0.20, ["*.py"]),
}
LEFT_OUT = ["bench/*", "demo.py", "capi.pxd", "include/*"]
#: adapter -> the library that it needs, where the two have different names
LIBRARIES = {"tensors": "torch", "lent": "jax", "qiskit": "qiskit_algorithms", "article": "", "hyper": "", "rule": ""}

#: files -> what of tests/ sees a fault there first
NEAR = {
    "rule*.py": "unit/test_bits.py -k 'kept and cython'; unit/test_paper.py unit/test_recent.py unit/test_errors.py",
    "kernel/generate_c.py": "adapters/test_embedding.py",
    "kernel/generate.py": "unit/test_bits.py -k cython; unit/test_packed.py unit/test_literals.py",
    "state/snapshot.py": "unit/test_snapshot.py promises/test_damaged.py promises/test_partial.py",
    "state/folder.py": "unit/test_folder.py promises/test_state_dir.py",
    "state/store.py": "promises/test_followed.py promises/test_while_training.py promises/test_state_dir.py",
    "state/rates.py": "unit/test_plateau.py promises/test_partial.py",
    "state/view.py": "promises/test_partial.py unit/test_face.py unit/test_eight_bits.py promises/test_converted.py",
    "state/mismatch.py": "unit/test_errors.py promises/test_files.py promises/test_damaged.py",
    "state/atomic.py": "promises/test_files.py promises/test_checkpoint.py promises/test_kills.py",
    "state/numbers.py": "promises/test_converted.py unit/test_eight_bits.py unit/test_precision.py",
    "state/*.py": "promises/test_damaged.py promises/test_files.py promises/test_partial.py promises/test_converted.py "
    "promises/test_checkpoint.py promises/test_refused.py",
    "saved.py": "promises/test_partial.py promises/test_converted.py promises/test_refused.py",
    "mpi/layout.py": "mpi/test_mpi.py -k 'divide_all or buckets_without or holders or default_size or sixteen'",
    "mpi/ra*.py mpi/ro*.py": "mpi/test_mpi.py -k 'not scene and not killed'; mpi/test_mpi.py -k 2-divided",
    "mpi/*.py": "mpi/test_mpi.py -k '2-divided and (chance or checkpoint or disagree)'; mpi/test_mpi.py -k 2-divided",
    "adapters/torch_*.py": "adapters/{stem}.py adapters/test_torch_adapter.py adapters/test_torch_inputs.py",
    "adapters/torch.py": "adapters/test_torch_memory.py adapters/test_torch_inputs.py adapters/test_torch_adapter.py "
    "adapters/test_torch_rows.py",
    "adapters/*tensors.py*": "adapters/test_torch_adapter.py adapters/test_torch_inputs.py adapters/test_jax.py",
    "adapters/_lent.pyx": "adapters/test_jax.py",
    "adapters/thinc*.py": "adapters/test_thinc.py",
    "adapters/article.py": "unit/test_face.py unit/test_paper.py promises/test_arrived.py unit/test_names.py",
    "adapters/rule_steps.py": "adapters/test_scipy.py adapters/test_river.py adapters/test_qiskit.py",
    "adapters/hyper.py": "adapters/test_climin.py adapters/test_pints.py adapters/test_river.py",
    "adapters/*.py": "adapters/{stem}.py",
    "kernel/*block*": "unit/test_blocks.py unit/test_eight_bits.py",
    "kernel/*bfloat*": "unit/test_precision.py unit/test_packed.py",
    "kernel/*cpu*": "unit/test_cpu.py",
    "kernel/backends.py": "unit/test_cpu.py unit/test_objects.py; unit/test_bits.py -k refused",
    "kernel/codecs.h": "unit/test_packed.py unit/test_precision.py unit/test_eight_bits.py unit/test_rows_steps.py",
    "kernel/*signals*": "unit/test_signals.py promises/test_interrupts.py",
    "kernel/pool.h kernel/system.h": "promises/test_threads.py promises/test_processes.py unit/test_plan.py",
    "kernel/atomics.h": "promises/test_threads.py promises/test_sharing.py",
    "kernel/_rows* kernel/_lag* kernel/_flush*": "unit/test_rows.py unit/test_rows_steps.py "
    "promises/test_exact_rows.py promises/test_lagging_rows.py unit/test_flush_rows.py promises/test_long_lags.py",
    "kernel/_norms*": "unit/test_step_options.py unit/test_clip_each.py",
    "kernel/_extras*": "unit/test_step_options.py unit/test_clip_each.py unit/test_scalars.py",
    "kernel/_stepper*": "adapters/test_scipy.py adapters/test_embedding.py unit/test_scalars.py",
    "kernel/_parts*": "unit/test_stepping.py adapters/test_torch_stepping.py",
    "kernel/_swapped*": "promises/test_average.py",
    "kernel/_follow*": "promises/test_followed.py promises/test_sharing.py unit/test_plan.py",
    "kernel/literals.py": "unit/test_literals.py unit/test_custom.py",
    "kernel/jit.py": "unit/test_custom.py unit/test_literals.py",
    "kernel/threads.py": "promises/test_threads.py",
    "kernel/sparse.py": "unit/test_rows.py adapters/test_torch_rows.py",
    "kernel/arrived.py": "promises/test_arrived.py",
    "kernel/checks.py": "unit/test_errors.py promises/test_refused.py unit/test_plan.py unit/test_face.py",
    "kernel/*.py": "unit/test_plan.py unit/test_scalars.py unit/test_step_options.py promises/test_refused.py",
    "kernel/*": "unit/test_plan.py unit/test_packed.py unit/test_step_options.py unit/test_precision.py "
    "unit/test_rows_steps.py promises/test_followed.py",
    "average.py": "promises/test_average.py promises/test_half_way.py",
    "custom.py": "unit/test_custom.py unit/test_literals.py",
    "numba.py": "adapters/test_embedding.py",
    "embedded.py": "adapters/test_embedding.py",
    "stepping.py": "unit/test_stepping.py",
    "schedule*.py": "unit/test_documented_defaults.py unit/test_schedules.py unit/test_plateau.py",
    "tree.py": "unit/test_tree.py promises/test_followed.py promises/test_while_training.py unit/test_names.py",
    "names.py": "unit/test_names.py",
    "functional.py": "unit/test_scalars.py unit/test_bounds.py unit/test_rows.py promises/test_refused.py",
    "optimizers/*.py": "unit/test_documented_defaults.py unit/test_paper.py unit/test_recent.py unit/test_face.py",
    "plain.py": "unit/test_objects.py",
    "__main__.py": "unit/test_bench.py unit/test_demo.py",
    "options.py base.py": "unit/test_option_ends.py unit/test_documented_defaults.py unit/test_face.py "
    "promises/test_refused.py unit/test_eight_bits.py",
    "*": "unit/test_face.py promises/test_followed.py promises/test_refused.py unit/test_errors.py unit/test_names.py "
    "promises/test_while_training.py",
}
#: files -> more that may see it: what is slow comes last, and is cut off by --limit
WIDE = {
    "mpi/*.py": ["mpi/test_mpi.py -k 'not 2-divided'"],
    "adapters/*": [
        "adapters/test_torch*.py",
        "adapters",
        "unit/test_face.py promises/test_refused.py unit/test_docs.py",
    ],
    "*": ["promises/test_refused.py", "unit promises {left_out}", "adapters", "{last}"],
}
NUMBA = ["kernel/j*", "kernel/l*", "kernel/generate.py", "custom.py", "numba.py"]
#: what Numba and JAX compile takes long: for the other files it comes last
SLOW = "numba or optax or backends_agree or both_backends or killed"
FOLDERS = ("unit", "promises", "adapters", "mpi")
#: the slowest, which come last
LAST = ["unit/test_bits.py", "unit/test_docs.py", "promises/test_new_optimizer.py"]
#: tests of the repository, not of the package
NOT_NOW = [
    f"unit/test_{name}.py"
    for name in ("house", "reports", "mutate", "bench", "demo", "examples", "lowbit", "packaging", "memory")
]

# ---------------------------------------------------------------- what is drawn


def fits(file: str, patterns: list[str]) -> bool:
    """Whether a file below fastadam/ fits one of these."""
    return any(fnmatch.fnmatch(file.removeprefix("fastadam/"), pattern) for pattern in patterns)


def kind_of(file: str) -> str | None:
    """The kind of a source; None if it gets no fault."""
    if fits(file, LEFT_OUT):
        return None
    name = Path(file).stem.strip("_").split("_")[0]
    library = LIBRARIES.get(name, name) if "/adapters/" in file else "mpi4py" if "/mpi/" in file else ""
    if library and name and importlib.util.find_spec(library) is None:
        return None
    return next((kind for kind, (_, patterns) in KINDS.items() if fits(file, patterns)), None)


def sources(root: Path, only: str) -> dict[str, list[str]]:
    """The files of each kind."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in sorted((root / "fastadam").rglob("*.*")):
        file = path.relative_to(root).as_posix()
        if path.suffix in (".py", ".pyx", ".pxd", ".h") and fnmatch.fnmatch(file, only) and (kind := kind_of(file)):
            found[kind].append(file)
    return found


def equivalents(path: Path) -> list[dict[str, str]]:
    """What is named by hand: a file, a line before and after, a reason, and the line above where it is needed."""
    return json.loads(path.read_text()) if path.exists() else []


def is_named(fault: Fault, named: list[dict[str, str]]) -> bool:
    """Whether these have a fault."""
    said = vars(fault)
    return any(all(said.get(name, value) == value for name, value in one.items()) for one in named)


def drawn(root: Path, files: list[str], seed: str) -> Iterator[Fault]:
    """The faults of some files in an order that the seed decides; one for each line."""
    found = [fault for file in files for fault in faults(file, (root / file).read_text("utf-8"))]
    random.Random(seed).shuffle(found)
    lines = set()
    for fault in found:
        if (fault.file, fault.line) not in lines:
            lines.add((fault.file, fault.line))
            yield fault


def shares(number: int, files: dict[str, list[str]]) -> Counter[str]:
    """How many faults each kind gets."""
    there = {kind: share for kind, (share, _) in KINDS.items() if files[kind]}
    counts = Counter({kind: int(number * share / sum(there.values())) for kind, share in there.items()})
    for kind in sorted(there, key=there.get, reverse=True)[: number - counts.total()]:
        counts[kind] += 1
    return counts


# ---------------------------------------------------------------- one fault


def stages(file: str) -> Iterator[list[str]]:
    """What pytest is called with for a fault in this file, one after the other; no file of tests twice."""
    left_out = " ".join(f"--ignore=tests/{name}" for name in (*NOT_NOW, *LAST))
    names = {"stem": f"test_{Path(file).stem}", "last": " ".join(LAST), "left_out": left_out}
    near = next(tests.split(";") for patterns, tests in NEAR.items() if fits(file, patterns.split()))
    wide = next(tests for patterns, tests in WIDE.items() if fits(file, patterns.split()))
    had: list[str] = []
    slow: list[str] = []
    for tests in (*near, *wide):
        words = shlex.split(tests.format_map(names))
        options = words[sum(word.startswith(FOLDERS) for word in words) :]
        found = [
            str(path.relative_to(ROOT))
            for word in words
            if word.startswith(FOLDERS)
            for path in sorted((ROOT / "tests").glob(word))
        ]
        again = [f"--ignore={name}" for name in had if str(Path(name).parent) in found]
        if "-k" not in options and not fits(file, NUMBA):
            slow += found if tests in near else []
            options += ["-k", f"not ({SLOW})"]
        if new := [name for name in found if name not in had]:
            yield [*new, *options, *again]
        had += [] if "-k" in words else found
    if slow:
        yield [*slow, "-k", SLOW]


class Run:
    """A sample of faults, and what became of each; kept in a file, so that a run can go on."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.work, self.lock = given, given.work.absolute(), threading.Lock()
        self.work.mkdir(parents=True, exist_ok=True)
        self.clean, self.kept = self.work / "clean", self.work / "results.jsonl"
        self.end = time.monotonic() + given.seconds
        self.prepare()
        self.tests = Tests(self.clean)
        files = sources(self.clean, given.only)
        self.wanted = shares(given.number, files)
        self.number = self.wanted.copy()
        named = equivalents(given.equivalents)
        self.queues = {
            kind: (f for f in drawn(self.clean, files[kind], f"{given.seed} {kind}") if not is_named(f, named))
            for kind in self.wanted
        }
        self.known: dict[str, dict[str, str]] = {}
        for line in self.kept.read_text().splitlines() if self.kept.exists() else ():
            one = json.loads(line)
            self.known[one["fault"]] = one
        self.done: list[dict[str, str]] = []

    def prepare(self) -> None:
        """The copy without a fault; whatever was built of other sources is worth nothing."""
        if copy_tree(self.clean):
            self.kept.unlink(missing_ok=True)
            for place in self.work.glob("worker*"):
                shutil.rmtree(place) if place.is_dir() else place.unlink()
            if not build(self.clean, [], self.work / "clean.log"):
                sys.exit(f"the build failed: {self.work / 'clean.log'}")
            self.clean.with_name("sources").write_text(stamp())

    def next(self) -> tuple[str, Fault] | None:
        """A fault to try, of the kind that lacks most. What became of one before counts as it is."""
        with self.lock:
            while kinds := [kind for kind, n in self.wanted.items() if n > 0]:
                kind = max(kinds, key=lambda kind: self.wanted[kind] / self.number[kind])
                fault = next(self.queues[kind], None)
                known = self.known.get(fault.key) if fault else None
                if known and not (self.given.again and known["became"] == "survived"):
                    self.count(known)
                elif fault and time.monotonic() < self.end:
                    self.wanted[kind] -= 1
                    return kind, fault
                else:
                    self.wanted[kind] = 0
        return None

    def count(self, one: dict[str, str]) -> None:
        """Count a fault, if it says something about the tests."""
        if one["became"] in ("killed", "survived"):
            self.wanted[one["kind"]] -= 1
            self.done.append(one)

    def work_off(self, place: Path) -> None:
        """Try one fault after the other, in a copy."""
        while found := self.next():
            kind, fault = found
            start = time.monotonic()
            became, by = self.tried(place, fault)
            one = {"fault": fault.key, "kind": kind, "became": became, "by": by}
            with self.lock, self.kept.open("a") as file:
                self.wanted[kind] += 1
                self.count(one)
                file.write(json.dumps(one) + "\n")
                print(f"{kind}: {fault.key}\n    {became.upper()} {by} {time.monotonic() - start:.0f} s", flush=True)

    def tried(self, place: Path, fault: Fault) -> tuple[str, str]:
        """What becomes of a fault, and by which test."""
        restore(self.clean, place)
        path = place / fault.file
        text = fault.put(path.read_text("utf-8"))
        if path.suffix == ".py" and not is_python(text):
            return "not compiled", ""
        path.write_text(text, "utf-8")
        is_generator = fits(fault.file, KINDS["rules, generators"][1])
        if is_generator or path.suffix != ".py":
            modules = dependents(self.clean, fault.file, is_generator)
            if not build(place, modules, place.with_suffix(".build")):
                return ("killed", "the build") if is_generator else ("not compiled", "")
            if path.suffix != ".py" and same_modules(self.clean, place, modules):
                return "the same machine code", ""
        test = self.tests.failed(place, stages(fault.file), self.given.limit)
        return "killed" if test else "survived", test

    def report(self) -> dict[str, object]:
        """The score of each kind, and the survivors."""
        counts = Counter((one["kind"], one["became"]) for one in self.done)
        kinds = {
            kind: {became: counts[kind, became] for became in ("killed", "survived")}
            for kind in KINDS
            if self.number[kind]
        }
        killed = sum(kind["killed"] for kind in kinds.values())
        return {
            "seed": self.given.seed,
            "faults": len(self.done),
            "killed": killed,
            "score": round(killed / max(1, len(self.done)), 3),
            "equivalents named by hand": len(equivalents(self.given.equivalents)),
            "kinds": kinds,
            "survivors": sorted(one["fault"] for one in self.done if one["became"] == "survived"),
        }


def show(report: dict[str, object]) -> None:
    """Print a report."""
    for fault in report["survivors"]:
        print(f"SURVIVED {fault}")
    print("| source | faults | killed |", "|---|---|---|", sep="\n")
    for kind, found in report["kinds"].items():
        print(f"| {kind} | {sum(found.values())} | {found['killed']} |")
    print(f"| all, seed {report['seed']} | {report['faults']} | {report['killed']} ({report['score']:.1%}) |")


def main() -> None:
    """Draw, try, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="how many faults count")
    parser.add_argument("--seed", type=int, default=0, help="what draws them")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument("--only", default="*", help="files, such as 'fastadam/state/*'")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="after which no more faults are tried; 0: what is known"
    )
    parser.add_argument("--limit", type=float, default=120, help="seconds of processors for the tests of each fault")
    parser.add_argument("--again", action="store_true", help="try those that have survived once more")
    parser.add_argument("--equivalents", type=Path, default=ROOT / "tools/equivalents.json")
    parser.add_argument("--work", type=Path, default=ROOT / "build/mutants", help="where copies and results are kept")
    parser.add_argument("--write", type=Path, help="the report as JSON")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests need it, which a background job ignores
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]  # which tests of a limit of memory need
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, hard))  # a fault may ask for any amount
    run = Run(given)
    with ThreadPoolExecutor(given.jobs) as pool:
        for done in [pool.submit(run.work_off, run.work / f"worker-{k}") for k in range(given.jobs)]:
            done.result()
    report = run.report()
    show(report)
    if given.write:
        given.write.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
