"""The memory that states need in a process, as `bench/memory.py` prints it."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

SIZE = 10_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell it here")
@pytest.mark.parametrize(("state_dtype", "most"), [("bfloat16", 4.1), ("int8", 2.13)])
def test_adam_takes_what_its_states_have_also_at_the_peak_of_a_step(state_dtype, most):
    command = [sys.executable, str(ROOT / "bench/memory.py"), str(SIZE), state_dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    arrays, resident, peak = map(float, done.stdout.split())
    assert resident == pytest.approx(arrays, rel=0.03)  # the system counts with some delay
    assert peak <= most
