"""Writes the loops around the rules: at build time a Cython module of all sweeps, for Numba the two bodies alone.
A rule's own source goes under a typed signature as it stands.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

HEADER = '''# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, cpow=True
"""Generated from fastadam/rules.py by fastadam/kernel/generate.py: do not edit."""
from libc.math cimport fabs, fabsf, sqrt as sqrt_f64, sqrtf
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #if defined(_MSC_VER)
      #define RESTRICT __restrict
    #else
      #define RESTRICT __restrict__
    #endif
    typedef float *RESTRICT floats;
    typedef double *RESTRICT doubles;
    """
    ctypedef float* floats
    ctypedef double* doubles

ctypedef fused real:
    float
    double

cdef inline real sqrt(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt_f64(x)

cdef inline real absolute(real x) noexcept nogil:
    if real is float:
        return fabsf(x)
    else:
        return fabs(x)

cdef inline real maximum(real a, real b) noexcept nogil:
    cdef real larger = a if a >= b else b  # b where one of them is NaN
    return larger if a == a else a  # NaN propagates, as in numpy.maximum; two selects, since `or` defeats gcc

cdef inline real minimum(real a, real b) noexcept nogil:
    # one instruction, minss: b where b is NaN. a, the bound, never is: a NaN gradient stays NaN, as in numpy.minimum
    return a if a < b else b

cdef inline real where(real condition, real a, real b) noexcept nogil:
    return a if condition else b

'''

#: the functions of codecs.h, by their C arguments
CODECS = {
    "Py_ssize_t n, const char* data, Py_ssize_t stride, void* tile": (
        *("load_float16", "load_bfloat16", "load_float32", "load_float64", "load_double"),
        *("widen_load_float16", "widen_load_bfloat16", "widen_load_float32"),
    ),
    "Py_ssize_t n, char* data, Py_ssize_t stride, const void* tile, uint64_t key, uint64_t place": (
        *("store_float16", "store_bfloat16", "store_bfloat16_random", "store_float32", "store_float64", "store_double"),
        *("narrow_store_float16", "narrow_store_bfloat16", "narrow_store_float32"),
    ),
    "Py_ssize_t n, const void* tile, double scale, double* sum": ["squares_float32", "squares_float64"],
}

SWEEP = """
cdef void {name}_{dtype}_loop(Py_ssize_t n, const {ctype}* s, {parameters}) noexcept nogil:
    cdef {ctype} p_, g_, {scalars}
    cdef Py_ssize_t i
{body}

cdef void {name}_{dtype}(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil:
    {name}_{dtype}_loop(n, <const {ctype}*> scalars, {arguments})
"""

STEP = """
cdef void {name}_step(double t, const double* hyper, double* out) noexcept nogil:
{body}
"""


def arrays(rule: Any) -> list[str]:
    """What the loop calls the rule's arrays; a state's own name might be one of the loop's."""
    return ["p", "g", *(f"state_{name}" for name in rule.states)]


def sweep_body(rule: Any, update: str) -> str:
    """The loop over `n` elements, given the `arrays`, the scalars `s`, and what the rule's update is called there."""
    scalars = [f"s{k}" for k in range(rule.n_scalars)]
    shared, own = scalars[: rule.n_prepare_scalars], scalars[rule.n_prepare_scalars :]
    states = [f"{name}[i]" for name in arrays(rule)[2:]]
    lines = [f"{name} = s[{k}]" for k, name in enumerate(scalars)]  # locals, which no store can change
    lines += [
        "for i in range(n):",
        f"    p_, g_ = prepare({', '.join(['p[i]', 'g[i]', *shared])})",
        f"    ({', '.join(['p[i]', *states])},) = {update}({', '.join(['p_', 'g_', *states, *own])})",
    ]
    return textwrap.indent("\n".join(lines), "    ")


def step_body(rules: ModuleType, rule: Any, scalars: str) -> str:
    """The scalars of step `t`, written to `out`, given the values of the rule's `hyper` and its function's name."""
    place = {name: f"hyper[{k}]" for k, name in enumerate((*rules.OF_THE_STEP, *rule.hyper))} | {"t": "t"}
    out = [f"out[{k}]" for k in range(rule.n_scalars)]
    calls = (
        ("prepare_scalars", rules.prepare_scalars, out[: rule.n_prepare_scalars]),
        (scalars, rule.scalars, out[rule.n_prepare_scalars :]),
    )
    lines = [
        f"({', '.join(results)},) = {name}({', '.join(place[argument] for argument in rules.arguments(function))})"
        for name, function, results in calls
        if results
    ]
    return textwrap.indent("\n".join(lines), "    ")


def generate(rules: ModuleType) -> str:
    """The text of a ``.pyx`` module that holds all sweeps of `rules.RULES` and a table of their addresses."""
    scalar_functions = dict.fromkeys(rule.scalars for rule in rules.RULES.values())
    parts = [HEADER]
    parts += [_function(rules, f, "double") for f in (rules.prepare_scalars, *scalar_functions)]
    parts += [_function(rules, f, "real") for f in (rules.prepare, *(rule.update for rule in rules.RULES.values()))]
    for rule in rules.RULES.values():
        parts += [_sweep(rule, *dtype) for dtype in (("float32", "float"), ("float64", "double"))]
        parts.append(STEP.format(name=rule.name, body=step_body(rules, rule, rule.scalars.__name__)))
    parts += [_table(rules.RULES), _codecs()]
    return "".join(parts)


def _function(rules: ModuleType, function: Callable[..., Any], ctype: str) -> str:
    """The function's own body under a C signature: all arguments and results are `ctype`."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    statements = [s for s in definition.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    returned = statements[-1].value if isinstance(statements[-1], ast.Return) else None
    result = f"({f'{ctype}, ' * len(returned.elts)})" if isinstance(returned, ast.Tuple) else ctype
    arguments = ", ".join(f"{ctype} {name}" for name in rules.arguments(function))
    assigned = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    declared = [f"cdef {ctype} {name}" for name in sorted(assigned - set(rules.arguments(function)))]
    body = textwrap.indent("\n".join([*declared, *map(ast.unparse, statements)]), "    ")
    return f"\ncdef inline {result} {function.__name__}({arguments}) noexcept nogil:\n{body}\n"


def formula(rules: ModuleType, name: str) -> str:
    """A function of `rules`, of float64 numbers, in Cython: for the kernel to include."""
    return _function(rules, getattr(rules, name), "double")


def _sweep(rule: Any, dtype: str, ctype: str) -> str:
    # The pointers are parameters of a function: only there does gcc heed `restrict`, and vectorise many arrays.
    names = arrays(rule)
    return SWEEP.format(
        name=rule.name,
        dtype=dtype,
        ctype=ctype,
        parameters=", ".join(f"{ctype}s {name}" for name in names),
        arguments=", ".join(f"<{ctype}s> arrays[{k}]" for k in range(len(names))),
        scalars=", ".join(f"s{k}" for k in range(rule.n_scalars)),
        body=sweep_body(rule, rule.name),
    )


def _table(rules: dict[str, Any]) -> str:
    rows = "".join(
        f'    "{name}": (<size_t> &{name}_step, <size_t> &{name}_float32, <size_t> &{name}_float64),\n'
        for name in rules
    )
    return f"\n#: name of the rule -> addresses of its step's scalars and of its sweeps\nADDRESSES = {{\n{rows}}}\n"


def _codecs() -> str:
    declared = (f"    void {name}({taken}) nogil\n" for taken, names in CODECS.items() for name in names)
    rows = (f'    "{name}": <size_t> &{name},\n' for names in CODECS.values() for name in names)
    return f'\ncdef extern from "codecs.h":\n{"".join(declared)}\nCODECS = {{\n{"".join(rows)}}}\n'
