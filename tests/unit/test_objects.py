"""The compiler's output: each module of sweeps divides and takes roots in vectors of its own width, and no wider.
The tests read the built objects with objdump, which comes with the compiler.
"""

import inspect
import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest
from inside import BUILT_ISAS, SWEEPS

from fastadam.rules import RULES

#: instruction set -> vector register, and the form of its packed root and division
VECTORS = {"base": ("xmm", ""), "v3": ("ymm", "v"), "v4": ("zmm", "v")}
#: instruction -> what calls for it in a formula; `prepare` multiplies and clips
SIGNS = {"div": " / ", "sqrt": "sqrt("}


def disassemble(isa):
    """The whole listing of a module, and the instructions of each sweep's loop by name."""
    path = find_spec(SWEEPS.format(isa=isa)).origin
    command = ["objdump", "--disassemble", "--no-show-raw-insn", path]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bodies = re.findall(r"^[0-9a-f]+ <(\w+)[.\w]*>:\n((?:.+\n)+)", listing, re.M)
    sweeps = {}
    for symbol, body in bodies:
        if sweep := re.search(rf"_sweeps_{isa}_(\w+_float(?:32|64))", symbol):
            sweeps[sweep[1]] = sweeps.get(sweep[1], "") + body
    return listing, sweeps


@pytest.mark.skipif("v3" not in BUILT_ISAS, reason="x86-64 alone has several instruction sets")
@pytest.mark.parametrize("isa", VECTORS)
def test_every_sweep_is_vectorised(isa):
    assert shutil.which("objdump"), "objdump is part of binutils, as the compiler's assembler is"
    register, prefix = VECTORS[isa]
    listing, sweeps = disassemble(isa)
    for name, rule in RULES.items():
        formula = inspect.getsource(rule.update)
        needed = {"mul", "min", *(op for op, sign in SIGNS.items() if sign in formula)}
        for dtype, suffix in (("float32", "ps"), ("float64", "pd")):
            for op in needed:
                found = re.search(rf"\b{prefix}{op}{suffix} .*%{register}", sweeps[f"{name}_{dtype}"])
                assert found, f"{name} {dtype} has no vector {op}"
    if isa == "base":
        assert "ymm" not in listing
        assert "zmm" not in listing
        assert not re.search(r"\bv(?:add|mul|div|sqrt|mov)[a-z]*[ps][sd]\b", listing)
    if isa == "v3":
        assert "zmm" not in listing
    assert not re.search(r"\bvf(?:n?madd|n?msub)\d", listing), "contraction changes bits"
