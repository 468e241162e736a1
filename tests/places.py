"""Where things lie: the repository, the tests, what they compare with, the tools."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DATA = TESTS / "data"
TOOLS = ROOT / "tools"
