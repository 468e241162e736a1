"""What the measuring programs share: the folder they write to, and how. Each writes one JSON, with the machine's facts.
`python bench/pages.py` makes the pages, the tables and the pictures of these files.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastadam.bench.tables import machine


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the argument that all programs have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("report-output"), help="folder for the JSON")
    return parser


def write(out: Path, name: str, measured: dict[str, Any], quick: bool = False) -> None:
    """Write what was measured, and say where, and whether it was a quick run."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.json"
    facts = {"machine": machine()} | ({"quick": True} if quick else {})
    file.write_text(json.dumps(facts | measured, indent=1, default=asdict) + "\n")
    note = "This was a quick run: few sizes, few rounds. Do not quote its figures.\n" if quick else ""
    print(f"{note}wrote {file}; `python bench/pages.py --reports {out}` makes pages and pictures of it")
