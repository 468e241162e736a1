"""Processes that are killed at random moments: of saves, and of steps whose states are in a folder. What they leave
goes on as if they had not been killed, or is refused. `FASTADAM_TEST_TRIALS=200` makes that many kills of each kind.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import checkpoint_runs
import numpy as np
import pytest
from checkpoint_files import assert_same_arrays, command, each_suffix

import fastadam

#: of each kind
KILLS = int(os.environ.get("FASTADAM_TEST_TRIALS", "4"))


def kills(*started: str | Path) -> Iterator[int]:
    """The numbers of processes that began and were killed, one after another."""
    moments = random.Random()
    for number in range(KILLS):
        with subprocess.Popen([*map(str, started)], stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"begins\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.02 + moments.random() / 10)
            process.kill()
        yield number


@each_suffix
def test_of_saves(suffix: str, tmp_path: Path) -> None:
    """Each process goes on from what the last one left; together they are one uninterrupted run."""
    path, expected = tmp_path / f"state{suffix}", checkpoint_runs.make()
    for _ in kills(*command("run", path, 10**6)):
        if path.exists():  # else all of them were killed before their first save
            opt = checkpoint_runs.make()
            opt.load(path)
            checkpoint_runs.advance(expected, opt.t)
            assert expected.t == opt.t > 0
            assert_same_arrays(opt, expected)
    assert len(list(tmp_path.iterdir())) <= 1 + KILLS  # a temporary file of each, at most


IN_FOLDER = """
import sys, numpy as np, fastadam
opt = fastadam.Adam([np.zeros(60_000, np.float32), np.zeros(7)], state_dir=sys.argv[1])
grads = [np.ones(60_000, np.float32), np.ones(7)]
print("begins", flush=True)
while True:
    opt.step(grads)
"""


def test_of_steps_in_a_folder(tmp_path: Path) -> None:
    """The states are those of a whole step, or the folder says that they are not, and is begun anew."""
    folder = tmp_path / "states"

    def optimizer(**options: Path) -> fastadam.Adam:
        return fastadam.Adam([np.zeros(60_000, np.float32), np.zeros(7)], **options)

    expected = optimizer()
    for _ in kills(sys.executable, "-c", IN_FOLDER, folder):
        try:
            opt = optimizer(state_dir=folder)
        except ValueError as error:
            if not re.search("within (a )?step|of two steps", str(error)):
                raise
            shutil.rmtree(folder)
            expected = optimizer()
            continue
        while expected.t < opt.t:
            expected.step([np.ones(60_000, np.float32), np.ones(7)])
        assert expected.t == opt.t
        for name in "mv":
            for found, right in zip(opt.state[name], expected.state[name], strict=True):
                np.testing.assert_array_equal(found, right)
        opt.close()
