"""Measures the architecture of `fastadam/` from its source: its size, its dependencies, and lists that are kept by
hand.

``python tools/house.py`` prints a Markdown table. ``--where`` prints the places behind each figure, ``--layers`` the
layers and their imports. ``--check`` exits with 1 if a figure is above its limit. Python is read with `ast`,
Cython and C as text. Nothing is imported, so the package need not be built.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

#: the layers from the lowest up, and the modules in each; ``folder.`` stands for all modules in that folder
LAYERS = {
    "formulas": ("rule", "rules"),
    "kernel": ("kernel.",),
    "options, schedules": ("names", "options", "schedule", "schedules", "algorithm"),
    "tree, groups, state": ("tree", "structure", "groups", "state.", "checkpoint"),
    "core": ("core",),
    "optimizer": ("optimizer", "saved", "stepped", "stepping", "base"),
    "optimizers": ("optimizers", "optimizers.", "average"),
    "interfaces": ("functional", "embedded", "custom", "numba", "capi"),
    "adapters, mpi": ("adapters.", "mpi."),
    "the package": ("__init__",),
    "bench, demo": ("bench.", "plain", "demo", "__main__"),
}

#: the limit of each figure; docs/explanation/architecture.md says which of them should become smaller
LIMITS = {
    "lines of the optimizer's module": 280,
    "lines of the longest module": 505,
    "lines in all": 24_400,
    "methods of Optimizer": 25,
    "attributes of Optimizer": 6,
    "private names read elsewhere": 0,
    "places that make a Plan": 3,
    "writes into a plan from outside": 0,
    "option sets kept by hand": 4,
    "files that name one optimizer": 4,
    "import circles": 0,
    "imports upwards": 0,
    "most decisions in one function": 15,
}

#: the optimizer whose name is searched for; it stands for any new one
PROBE = "adamax"

#: attributes of Python's named tuples, which are public all the same
PUBLIC = {"_replace", "_asdict", "_fields", "_make"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DECISIONS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)
IN_CYTHON = re.compile(r"\b(?:if|elif|for|while|except|and|or)\b")
#: the first line of a function in Cython
HEAD = re.compile(r"^ *(?:cdef|cpdef|def)\b[^=\n]*?(\w+)\(", re.M)


# ---------------------------------------------------------------- the source


@dataclass(frozen=True)
class Module:
    """One file. Its name is that of the module within the package, or the path of a header."""

    name: str
    text: str
    suffix: str
    is_folder: bool = False

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the syntax tree; none where this is no Python."""
        return [*ast.walk(ast.parse(self.text))] if self.suffix == ".py" else []

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """All classes, in Python."""
        return [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    @cached_property
    def code(self) -> str:
        """The text without comments and docstrings; in Cython without strings too, its lines in their places."""
        if self.suffix == ".py":
            return ast.unparse(without_docstrings(self.text))
        pattern = r"/\*.*?\*/|//[^\n]*" if self.suffix == ".h" else r'""".*?"""|#[^\n]*|"[^"\n]*"'
        return re.sub(pattern, lambda m: "\n" * m[0].count("\n"), self.text, flags=re.S)

    def place(self, node: Any, what: str) -> str:
        """Where `what` stands."""
        return f"{self.name}:{node.lineno} {what}"

    def found(self, pattern: re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
        """What fits `pattern` in Cython, each with its place."""
        matches = pattern.finditer(self.code) if self.suffix in (".pyx", ".pxd") else ()
        return [(f"{self.name}:{self.code.count(chr(10), 0, m.start()) + 1} {m[m.lastindex or 0]}", m) for m in matches]


def without_docstrings(text: str) -> ast.Module:
    """The syntax tree without texts that stand for themselves."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(...)
    return tree


@dataclass(frozen=True)
class Source:
    """All modules of a package."""

    package: str
    modules: list[Module]

    def every(self, kind: type | tuple[type, ...]) -> Iterator[tuple[Module, Any]]:
        """All nodes of a kind, each with its module."""
        return ((module, node) for module in self.modules for node in module.nodes if isinstance(node, kind))

    @cached_property
    def optimizer(self) -> tuple[Module, ast.ClassDef]:
        """The class `Optimizer` and its module."""
        here = (module for module in self.modules if layer(module.name) == "optimizer")
        return next((module, c) for module in here for c in module.classes if c.name == "Optimizer")

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """By module, the modules of the package that it imports, those for types and those within functions too."""
        targets: dict[str, set[str]] = {module.name: set() for module in self.modules if module.suffix != ".h"}
        for module in (module for module in self.modules if module.suffix != ".h"):
            targets[module.name] |= {holder(path, targets) for path in imported(module, self.package)} - {module.name}
        return targets

    @cached_property
    def options(self) -> set[str]:
        """The names of all options: attributes made by `Option` or `option`, and arguments of the optimizers."""
        names = set()
        for module, node in self.every(ast.ClassDef):
            for n in node.body:
                if "ption(" in ast.unparse(getattr(n, "value", None) or ast.Pass()):
                    names |= {t.id for target in targets(n) for t in ast.walk(target) if isinstance(t, ast.Name)}
                if layer(module.name) == "optimizers" and getattr(n, "name", "") == "__init__":
                    names |= {a.arg for a in ast.walk(n) if isinstance(a, ast.arg)}
        return names - {"self", "params", "how"}


def read(package: Path) -> Source:
    """The source in this folder, without what a build generated."""
    modules = []
    for path in sorted(path for path in package.rglob("*.*") if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".h")):
        text, inside = path.read_text("utf-8"), path.relative_to(package)
        if not re.match(r"(?:[#/ ].*\n)*?[# ].*Generated from", text):
            name = str(inside) if path.suffix == ".h" else ".".join(inside.with_suffix("").parts)
            modules.append(Module(name.removesuffix(".__init__"), text, path.suffix, inside.stem == "__init__"))
    return Source(package.name, modules)


def layer(module: str) -> str:
    """The layer of a module; one that no layer names is in the highest."""
    names = {module, module.partition(".")[0] + "."}
    return next((layer for layer, held in LAYERS.items() if names & {*held}), [*LAYERS][-1])


def imported(module: Module, package: str) -> Iterator[str]:
    """What the module imports from the package, as dotted names within it."""
    paths = [alias.name for node in module.nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in (node for node in module.nodes if isinstance(node, ast.ImportFrom)):
        stem = absolute(module, package, "." * node.level + (node.module or ""))
        paths += [f"{stem}.{alias.name}" for alias in node.names]
    for _, line in module.found(re.compile(r"^\s*from ([\w.]+) c?import ([\w, ]*)", re.M)):
        paths += [f"{absolute(module, package, line[1])}.{name.strip()}" for name in line[2].split(",")]
    return (path[len(package) :].lstrip(".") for path in paths if f"{path}.".startswith(f"{package}."))


def absolute(module: Module, package: str, stem: str) -> str:
    """The full name of what a module imports from: that of ``..kernel``, say."""
    level = len(stem) - len(stem.lstrip("."))
    if not level:
        return stem
    folder = [package, *module.name.removesuffix("__init__").split(".")]
    folder = folder[: len(folder) + module.is_folder - level]
    return ".".join(filter(None, [*folder, stem[level:]]))


def holder(path: str, known: Container[str]) -> str:
    """The module that holds `path`: the longest known beginning of it, or the package."""
    parts = path.split(".")
    return next((name for k in range(len(parts), 0, -1) if (name := ".".join(parts[:k])) in known), "__init__")


def targets(node: ast.AST) -> list[ast.expr]:
    """What an assignment assigns to."""
    if isinstance(node, ast.Assign):
        return [t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [node.target] if isinstance(node, (ast.AnnAssign, ast.AugAssign)) else []


def methods(c: ast.ClassDef) -> set[str]:
    """The names of the functions in the body of a class."""
    return {node.name for node in c.body if isinstance(node, FUNCTIONS)}


def attributes(c: ast.ClassDef) -> set[str]:
    """The names that the methods of a class assign on `self`."""
    assigned = (t for node in ast.walk(c) for t in targets(node) if isinstance(t, ast.Attribute))
    return {t.attr for t in assigned if ast.unparse(t.value) == "self"}


# ---------------------------------------------------------------- the figures: a number, and its places

#: a figure's places, whose number it is, or a number and its places
Found = list[str] | tuple[int, list[str]]
FIGURES: dict[str, Callable[[Source], Found]] = {}


def figure(name: str) -> Callable[[Callable[[Source], Found]], None]:
    """A figure of the table; the docstring of its function says how it is counted."""
    return lambda function: FIGURES.update({name: function})


def measure(source: Source) -> dict[str, tuple[int, list[str]]]:
    """All figures, by name."""
    found = {name: function(source) for name, function in FIGURES.items()}
    return {name: one if isinstance(one, tuple) else (len(one), one) for name, one in found.items()}


@figure("lines of the optimizer's module")
def _(source: Source) -> Found:
    """Lines of the file that has the class `Optimizer`."""
    return source.optimizer[0].text.count("\n"), [source.optimizer[0].name]


@figure("lines of the longest module")
def _(source: Source) -> Found:
    """Lines of the longest file."""
    return max((module.text.count("\n"), [module.name]) for module in source.modules)


@figure("lines in all")
def _(source: Source) -> Found:
    """Lines of all Python, Cython and C, comments and docstrings with them; generated files do not count."""
    return sum(module.text.count("\n") for module in source.modules), []


@figure("methods of Optimizer")
def _(source: Source) -> Found:
    """Functions in the body of the class, properties and private ones with them."""
    module, c = source.optimizer
    return [module.place(c, name) for name in sorted(methods(c))]


@figure("attributes of Optimizer")
def _(source: Source) -> Found:
    """Names that its methods assign on `self`."""
    module, c = source.optimizer
    return [module.place(c, name) for name in sorted(attributes(c))]


@figure("private names read elsewhere")
def _(source: Source) -> Found:
    """Each `x._name`, x not `self`, `cls` or `super()`, where a class has that name, but none of the same module."""
    homes: dict[str, set[str]] = {}
    for module in source.modules:
        names = {name for c in module.classes for name in methods(c) | attributes(c)}
        for name in (names | {head[1] for _, head in module.found(HEAD)}) - PUBLIC:
            homes.setdefault(name, set()).add(module.name)
    reads = ((m, n, ast.unparse(n.value)) for m, n in source.every(ast.Attribute) if re.match("_[^_]", n.attr))
    return [
        m.place(n, f"{of}.{n.attr}")
        for m, n, of in reads
        if of not in ("self", "cls", "super()") and m.name not in homes.get(n.attr, {m.name})
    ]


@figure("places that make a Plan")
def _(source: Source) -> Found:
    """Each call `Plan(…)`."""
    calls = ((m, n) for m, n in source.every(ast.Call) if ast.unparse(n.func).split(".")[-1] == "Plan")
    in_cython = (place for m in source.modules for place, _ in m.found(re.compile(r"(?<!class )\bPlan\(")))
    return [*(m.place(n, "Plan(…)") for m, n in calls), *in_cython]


@figure("writes into a plan from outside")
def _(source: Source) -> Found:
    """Each assignment to an attribute of what is called `plan`, or ends in it, in Python."""
    assigned = ((m, t) for m, n in source.every(ast.stmt) for t in targets(n) if isinstance(t, ast.Attribute))
    return [m.place(t, ast.unparse(t)) for m, t in assigned if ast.unparse(t.value).endswith("plan")]


@figure("option sets kept by hand")
def _(source: Source) -> Found:
    """Each literal set, dict, list or tuple that spells three or more names of options."""
    found = []
    for module, node in source.every((ast.Dict, ast.Set, ast.List, ast.Tuple)):
        inside = node.keys if isinstance(node, ast.Dict) else node.elts
        spelled = [n.value for n in inside if isinstance(n, ast.Constant) and n.value in source.options]
        found += [module.place(node, ", ".join(spelled))] if len(spelled) >= 3 else []
    return found


@figure("files that name one optimizer")
def _(source: Source) -> Found:
    """Files whose code, comments and docstrings aside, names Adamax or its rule: what a new optimizer touches."""
    return [module.name for module in source.modules if re.search(rf"\b{PROBE}(\b|_)", module.code, re.I)]


@figure("import circles")
def _(source: Source) -> Found:
    """Groups of modules that reach one another by imports; those for types and within functions count."""
    reached = {name: set(found) for name, found in source.imports.items()}
    for through in reached:
        for found in reached.values():
            found |= reached[through] if through in found else set()
    groups = {
        tuple(sorted(o for o in reached[name] if name in reached[o])) for name in reached if name in reached[name]
    }
    return [" ↔ ".join(group) for group in sorted(groups)]


@figure("imports upwards")
def _(source: Source) -> Found:
    """Imports of a module in a higher layer; `--layers` prints the layers."""
    level = [*LAYERS].index
    arrows = ((name, target) for name, found in source.imports.items() for target in sorted(found))
    return [f"{name} → {target}" for name, target in arrows if level(layer(target)) > level(layer(name))]


@figure("most decisions in one function")
def _(source: Source) -> Found:
    """`if`, loop, `except`, `and`, `or`, choice, condition of a comprehension; in Cython those words in the text."""
    counts = [(sum(map(decisions, below(n))), m.place(n, n.name)) for m, n in source.every(FUNCTIONS)]
    for module in source.modules:
        heads = module.found(HEAD)
        ends = [head.start() for _, head in heads[1:]] + [len(module.code)]
        for (place, head), end in zip(heads, ends, strict=False):  # where no function is, there is an end all the same
            counts.append((len(IN_CYTHON.findall(module.code, head.end(), end)), place))
    most = sorted(counts, reverse=True)[:5]
    return most[0][0], [f"{place} {n}" for n, place in most]


def below(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions within, which are counted by themselves."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, FUNCTIONS):
            yield node
            yield from below(node)


def decisions(node: ast.AST) -> int:
    """The decisions of one node."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return len(node.ifs) if isinstance(node, ast.comprehension) else int(isinstance(node, DECISIONS))


# ---------------------------------------------------------------- what is printed


def table(figures: dict[str, tuple[int, list[str]]]) -> str:
    """The figures as Markdown, their places counted by module."""
    rows = ["| figure | now | at most | how it is counted | where |", "|---|---|---|---|---|"]
    for name, (value, places) in figures.items():
        counts = Counter(place.split(":")[0] for place in places)
        where = ", ".join(module if n == 1 else f"{module} {n}" for module, n in counts.most_common())
        rows.append(f"| {name} | {value} | {LIMITS[name]} | {FIGURES[name].__doc__} | {where} |")
    return "\n".join(rows)


def layers(source: Source) -> str:
    """The layers from the highest to the lowest: the modules in each, and what they import."""
    lowest_last = sorted(source.imports, key=lambda name: (-[*LAYERS].index(layer(name)), name))
    targets = {name: ", ".join(f"`{target}`" for target in sorted(source.imports[name])) for name in lowest_last}
    rows = [f"| {layer(name)} | `{name}` | {targets[name]} |" for name in lowest_last]
    return "\n".join(["| layer | module | imports |", "|---|---|---|", *rows])


def main(arguments: list[str]) -> int:
    """Print what was asked for; the exit status."""
    parser = argparse.ArgumentParser(description="Measures fastadam/ from its source.")
    parser.add_argument("package", nargs="?", type=Path, default=Path(__file__).resolve().parents[1] / "fastadam")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is above its limit")
    parser.add_argument("--layers", action="store_true", help="print the layers, and which module imports which")
    parser.add_argument("--where", action="store_true", help="print the places behind each figure")
    given = parser.parse_args(arguments)
    source = read(given.package)
    figures = measure(source)
    wrong = [name for name, (value, _) in figures.items() if value > LIMITS[name]] if given.check else []
    print(layers(source) if given.layers else table(figures))
    for name in figures if given.where else wrong:
        value, places = figures[name]
        print(f"\n{name}: {value}, at most {LIMITS[name]}", *places, sep="\n  ")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
