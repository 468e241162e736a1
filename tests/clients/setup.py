"""Builds the clients of fastadam's C interface beside their sources: python setup.py build_ext --inplace.
One cimports fastadam. The others include fastadam.h, in C and in C++.
The first two call every rule, in lines that are generated here.
"""

import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastadam
from fastadam.rules import RULES

SUFFIXES = ("f32", "f64")


def call(name: str, suffix: str) -> str:
    states = "".join(f", s[{k}]" for k in range(len(RULES[name].states)))
    return f"return fastadam_{name}_{suffix}(o, t, n, p, g{states})"


for suffix in SUFFIXES:
    lines = [f'if (!strcmp(rule, "{name}")) {call(name, suffix)};\n' for name in RULES]
    Path(f"rules_{suffix}.inc").write_text("".join(lines))
functions = ", ".join(f"fastadam_{name}_{suffix}" for name in RULES for suffix in SUFFIXES)
text = f"from fastadam.capi cimport {functions}\nRULES = {[*RULES]}\n"
taken = "int rule, const fastadam_options* o, int64_t t, int64_t n, real* p, real* g, real** s"
text += f"cdef int one({taken}) noexcept nogil:\n"
for branch, suffix in zip(("if real is float", "else"), SUFFIXES, strict=True):
    text += f"    {branch}:\n"
    text += "".join(f"        if rule == {k}:\n            {call(name, suffix)}\n" for k, name in enumerate(RULES))
Path("rules.pxi").write_text(text + "    return 1\n")

clients = [
    Extension(name, [source], include_dirs=[fastadam.get_include()])
    for name, source in (("cython_client", "cython_client.pyx"), ("c_client", "c_client.c"))
]
STRICT = [] if sys.platform == "win32" else ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
include = [fastadam.get_include()]
clients += [Extension("cpp_client", ["cpp_client.cpp"], include_dirs=include, extra_compile_args=STRICT)]
setup(name="clients", ext_modules=cythonize(clients, quiet=True))
