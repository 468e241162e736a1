"""Paths: the repository, the tests, their reference data, the tools."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DATA = TESTS / "data"
TOOLS = ROOT / "tools"
