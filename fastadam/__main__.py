"""The command line: ``python -m fastadam demo`` shows the optimizers at work, ``bench`` measures a step beside peers,
``info`` says what they run on here. The demo, which needs more than NumPy, is imported only when asked for.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, options
from .bench import command
from .kernel import backends


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    given = _parser().parse_args(arguments)
    if given.command == "info":
        print(info())
        return 0
    if given.command == "bench":
        return command.run(given)
    try:
        from . import demo
    except ImportError as error:
        return _fail(f"{error}; what the demo needs: pip install scikit-learn matplotlib tqdm")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=given.out).close()  # a long training should not end in an error
    except OSError as error:
        return _fail(f"--out {given.out}: expected a directory that can be written ({error.strerror})")
    return demo.run(given.out, given.epochs, given.hidden, given.seed)


def info() -> str:
    """What fastadam runs on here, a line each."""
    facts: dict[str, Any] = {"fastadam": __version__, "Python": platform.python_version(), "NumPy": np.__version__}
    facts |= {"machine": platform.machine()} | backends.describe()
    facts["backends"] = [name for name in backends.BACKENDS if facts.get(name) != "not installed"]
    facts["state_dtype"] = ["int8", _bfloat16()]
    width = max(map(len, facts))
    return "\n".join(
        f"{name:<{width}}  {', '.join(value) if isinstance(value, list) else value}" for name, value in facts.items()
    )


def _bfloat16() -> str:
    """Whether states can be bfloat16 here."""
    try:
        return options.bfloat16().name
    except ImportError:
        return "bfloat16 once ml_dtypes is installed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fastadam", description="Adam and its relatives for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"fastadam {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, backends and instruction sets")
    what = "measure one step beside NumPy and every peer that is installed"
    command.add_arguments(commands.add_parser("bench", help=what, description=what, formatter_class=_Defaults))
    what = "train on handwritten digits beside plain NumPy, and draw the paths of six optimizers through a valley"
    demo = commands.add_parser("demo", help=what, description=what, formatter_class=_Defaults)
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="directory for the pictures")
    demo.add_argument("--epochs", type=_at_least(1), default=12, help="how often the digits are seen")
    demo.add_argument("--hidden", type=_at_least(1), default=512, help="units of each of the two hidden layers")
    demo.add_argument("--seed", type=_at_least(0), default=0, help="of the weights and of the batches")
    return parser


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text) if text.removeprefix("-").isdecimal() else None
        if value is None or value < lowest:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {lowest}, got {text!r}")
        return value

    return whole_number


def _fail(message: str) -> int:
    print(f"fastadam demo: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
