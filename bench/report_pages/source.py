"""The reports as they are read: JSON of a folder, and figures as all pages spell them."""

import json
import os
import re
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import Any

from fastadam.bench.measure import Row
from fastadam.bench.tables import tabled

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/reports"

Found = dict[str, Any]
Lines = list[str]


class Reports:
    """The reports of a folder, by name, each read when it is asked for."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.read: dict[str, Found] = {}

    def __getitem__(self, name: str) -> Found:
        if name not in self.read:
            self.read[name] = json.loads((self.folder / f"{name}.json").read_text("utf-8"), object_hook=row_or_dict)
        return self.read[name]

    @cached_property
    def names(self) -> set[str]:
        """All that there are."""
        return {path.stem for path in self.folder.glob("*.json")}


def row_or_dict(one: dict[str, Any]) -> Any:
    """A `Row` where the object is one."""
    return Row(**one) if {"median", "rounds"} <= set(one) else one


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


# ---------------------------------------------------------------- spelling


def spelled(text: str) -> str:
    """With commas in numbers of four digits and more."""
    return re.sub(r"(?<![\d.,])\d{4,}(?![\d.])", lambda number: f"{int(number[0]):,}", text)


def bold(text: str, is_met: bool) -> str:
    """What falls short is bold."""
    return text if is_met else f"**{text}**"


def table(head: Lines, lines: list[Lines]) -> Lines:
    """A Markdown table with a blank line below."""
    return [*tabled(head, lines), ""]


def threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


# ---------------------------------------------------------------- what every page has


def page(title: str, intro: Lines, command: str, measured: Found, body: Lines) -> str:
    """A page: what it is for, how it was made, the figures, and the machine."""
    quick = ["**A quick run: few sizes, few rounds. Its figures are rough.**\n"] if measured.get("quick") else []
    made = (
        f"Made by `python bench/{command} --out docs/reports` and `python bench/pages.py`. The machine and the versions"
    )
    paragraphs = [fill(paragraph, 120, break_on_hyphens=False) + "\n" for paragraph in "\n".join(intro).split("\n\n")]
    lines = [f"# {title}\n", *paragraphs, made, "stand [at the end](#machine-and-versions).\n", *quick, *body]
    facts = [[name, value] for name, value in measured["machine"].items()]
    return "\n".join([*lines, "## Machine and versions\n", *table(["", ""], facts)]).rstrip() + "\n"


def machine(measured: Found) -> str:
    """The machine in a few words."""
    facts = measured["machine"]
    n_threads = f", {threads(int(facts['threads']))}" if "threads" in facts else ""
    return f"{facts['processor']}{n_threads}"


def link(where: Path, target: Path) -> str:
    """From a page to another file, as Markdown writes it."""
    return Path(os.path.relpath(target, where.parent)).as_posix()


def source(reports: Reports, where: Path, name: str, title: str) -> Lines:
    """Below a block: the machine, and the page that has more."""
    return [f"Measured on {machine(reports[name])}: [{title}]({link(where, FOLDER / f'{name}.md')})."]
