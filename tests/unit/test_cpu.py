"""Which instruction sets the processor runs, beside what Linux says of it, and what reports say of the machine."""

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from inside import BUILT_ISAS, backends

from fastadam.kernel import _cpu

CPUINFO = Path("/proc/cpuinfo")
#: instruction set -> what Linux calls the instructions that it needs
V3 = {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
NEEDED = {"v4": V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}, "v3": V3, "base": set()}


@pytest.mark.skipif(not CPUINFO.exists(), reason="Linux alone has this file")
def test_as_linux_says():
    found = re.search(r"^flags\s*: (.*)", CPUINFO.read_text(), re.M)
    flags = set(found[1].split()) if found else set()
    runs = [isa for isa, needed in NEEDED.items() if needed <= flags]
    assert backends.available_isas() == [isa for isa in runs if isa in BUILT_ISAS]
    assert (_cpu.cpu_supports_v3(), _cpu.cpu_supports_v4()) == ("v3" in runs, "v4" in runs)


def test_a_package_that_is_missing_is_described(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(backends, "version", version)
    assert backends.describe()["numba"] == "not installed"
