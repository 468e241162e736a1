"""Writes every page, every block of figures and every picture of the reports, from the JSON of the measuring programs.
`pip install '.[report]' && python bench/pages.py` does so for docs/reports; `--check` only says what is not up to date.

With `--reports FOLDER` it writes the pages and pictures of another folder, and leaves the documentation alone. A block
stands in a page between `<!-- reports: NAME -->` and `<!-- end -->`; what stands between is written anew.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from report_pages import bits, calls, drawing, losses, ranks, runs, steps, table_rows
from report_pages.source import FOLDER, ROOT, Lines, Reports

PARTS = (steps, bits, runs, table_rows, losses, ranks, calls)
PAGES: dict[str, Callable[[Reports, Path], str]] = {name: own for part in PARTS for name, own in part.PAGES.items()}
PICTURES = {name: own for part in PARTS for name, own in part.PICTURES.items()}
BLOCKS: dict[str, Callable[..., Lines]] = {name: own for part in PARTS for name, own in part.BLOCKS.items()}
BLOCKS["picture"] = lambda reports, where, name, *alt: drawing.shown(where, name, " ".join(alt), FOLDER / "pictures")

BLOCK = re.compile(r"(<!-- reports: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.S)


def filled(text: str, reports: Reports, where: Path) -> str:
    """A page with its blocks written anew."""

    def block(match: re.Match[str]) -> str:
        name, *given = match[2].split(" ")
        if name not in BLOCKS:
            raise ValueError(f"{where}: no block is called {name!r}; there are {', '.join(sorted(BLOCKS))}")
        return match[1] + "\n".join(BLOCKS[name](reports, where, *given)) + "\n" + match[4]

    return BLOCK.sub(block, text)


def texts(reports: Reports) -> Iterator[tuple[Path, str]]:
    """Each page and what it should be: those of the reports that are there; of docs/reports, those with blocks, too."""
    for name in sorted(reports.names & set(PAGES)):
        path = reports.folder / f"{name}.md"
        yield path, PAGES[name](reports, path)
    if reports.folder == FOLDER:
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
            text = path.read_text("utf-8")
            if BLOCK.search(text):
                yield path, filled(text, reports, path)


def pictures(reports: Reports) -> dict[str, str]:
    """The pictures of the reports that are there, and the report of each."""
    return {name: report for name, (report, _) in PICTURES.items() if report in reports.names}


def stale(reports: Reports) -> list[str]:
    """What is not as the reports have it: pages by their text, pictures where there is none."""
    wrong = [path for path, text in texts(reports) if not path.exists() or path.read_text("utf-8") != text]
    files = [
        reports.folder / f"pictures/{name}-{suffix}.svg" for name in pictures(reports) for suffix in drawing.THEMES
    ]
    return [str(path) for path in [*wrong, *(path for path in files if not path.exists())]]


def main() -> None:
    """Write all, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, default=FOLDER, help="the folder of the JSON (default: docs/reports)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something is stale")
    options = parser.parse_args()
    reports = Reports(options.reports.resolve())
    if options.check:
        wrong = stale(reports)
        sys.exit("stale; run `python bench/pages.py`:\n" + "\n".join(wrong) if wrong else 0)
    for path, text in texts(reports):
        path.write_text(text, "utf-8")
    for name, report in pictures(reports).items():
        drawing.save(PICTURES[name][1], reports[report], reports.folder / "pictures", name)
    print(f"wrote the pages of {', '.join(sorted(reports.names & set(PAGES)))}")


if __name__ == "__main__":
    main()
