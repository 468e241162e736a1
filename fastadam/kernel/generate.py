"""Writes the loops around the rules: at build time a Cython module of all sweeps, for Numba only the two bodies.
The source of a rule is used unchanged, under a typed signature. A packed sweep is the same loop over operands that are
stored in 16 bits. It decodes and encodes them in registers, with the functions of codecs.h.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import rules
from ..rule import OF_THE_STEP, Rule, arguments, finish, prepare

HEADER = '''# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, cpow=True
"""Generated from fastadam/rules.py by fastadam/kernel/generate.py: do not edit."""
from libc.math cimport INFINITY, fabs, fabsf, log, sqrt as sqrt_f64, sqrtf
from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef extern from "codecs.h":
    float decode_bfloat16(uint16_t x) nogil
    float followed(float master, uint16_t now) nogil
    uint16_t encode_bfloat16(float x) nogil
    uint16_t encode_bfloat16_random(float x, uint32_t random) nogil
    uint32_t random_first(uint64_t key, uint64_t place) nogil
    uint32_t random_bits(uint32_t at, uint64_t key) nogil
    uint32_t random_half(uint32_t random, int half) nogil
    uint32_t rounded(float x, uint32_t added) nogil
    uint32_t rounded_to_nearest(float x) nogil
    uint16_t upper_half(uint32_t bits) nogil
    uint32_t load_pair(const uint16_t* x, Py_ssize_t i) nogil
    float first_of(uint32_t pair) nogil
    float second_of(uint32_t pair) nogil
    void store_pair(uint16_t* x, Py_ssize_t i, uint32_t first, uint32_t second) nogil
    uint32_t RANDOM_STEP

cdef extern from *:
    """
    typedef float *RESTRICT floats;
    typedef double *RESTRICT doubles;
    typedef uint16_t *RESTRICT halves;
    """
    ctypedef float* floats
    ctypedef double* doubles
    ctypedef uint16_t* halves

ctypedef fused real:
    float
    double

cdef double inf = INFINITY

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

cdef inline real sign(real x) noexcept nogil:
    cdef real s = 1 if x > 0 else 0
    s = -1 if x < 0 else s
    return s if x == x else x

cdef inline real maximum(real a, real b) noexcept nogil:
    cdef real larger = a if a >= b else b  # b where one of them is NaN
    return larger if a == a else a  # NaN propagates, as in numpy.maximum; two selects, since `or` defeats gcc

cdef inline real minimum(real a, real b) noexcept nogil:
    # one instruction, minss: b where b is NaN. a, the bound, never is: a NaN gradient stays NaN, as in numpy.minimum
    return a if a < b else b

cdef inline real where(real condition, real a, real b) noexcept nogil:
    return a if condition else b

'''

#: C arguments -> the functions of codecs.h that take them
CODECS = {
    "Py_ssize_t n, const char* data, Py_ssize_t stride, void* tile": (
        *("load_float16", "load_bfloat16", "load_float32", "load_float64", "load_double", "load_blocks"),
        *("widen_load_float16", "widen_load_bfloat16", "widen_load_float32"),
    ),
    "Py_ssize_t n, char* data, Py_ssize_t stride, const void* tile, uint64_t key, uint64_t place": (
        *("store_float16", "store_bfloat16", "store_bfloat16_random", "store_float32", "store_float64", "store_double"),
        *("store_blocks", "store_blocks_nearest"),
        *("narrow_store_float16", "narrow_store_bfloat16", "narrow_store_float32"),
    ),
    "Py_ssize_t n, const void* tile, double scale, double* sum": ["squares_float32", "squares_float64"],
    "Py_ssize_t n, void* sums, const char* values, Py_ssize_t stride, const Py_ssize_t* row, Py_ssize_t count": [
        *("add_float32", "add_float64"),
    ],
}

#: the storage of the operands of each packed sweep: parameter, gradient, states. A "master" is a bfloat16 parameter
#: with a master weight, which the sweep steps. _segments.pxd has their numbers
PACKED = (
    ("float32", "float32", "bfloat16"),
    ("bfloat16", "bfloat16", "bfloat16"),
    ("master", "bfloat16", "float32"),
    ("master", "bfloat16", "bfloat16"),
)

SWEEP = """
cdef void {name}_loop(Py_ssize_t n, const {ctype}* s, {parameters}) noexcept nogil:
    cdef {ctype} p_, g_, {numbers}
    cdef Py_ssize_t i
{body}

cdef void {name}(Py_ssize_t n, void** arrays, const void* scalars{taken}) noexcept nogil:
    {name}_loop(n, <const {ctype}*> scalars, {arguments})
"""

STEP = """
cdef void {name}_step(double t, const double* hyper, double* out) noexcept nogil:
{body}
"""

FADING = """
cdef double {name}_fades(const double* last, const double* next) noexcept nogil:
    if not ({is_still}):
        return INFINITY
    return {fading}({arguments})
"""

#: the condition that a step with a zero gradient is the rule's update alone: no decay, no bounds, a finite factor
STILL = (
    "{factor} - {factor} == 0 and {weight_decay} == 0 and {shrink} == 1 and {low} == -INFINITY and {high} == INFINITY"
)


def arrays(rule: Rule) -> list[str]:
    """The names of the rule's arrays in the loop. States have a prefix, since their names may be names of the loop."""
    return ["p", "g", *(f"state_{name}" for name in rule.states)]


def new(rule: Rule) -> list[str]:
    """The names in the loop of an element of each state after its step."""
    return [f"new_{name}" for name in rule.states]


def sweep_body(rule: Rule, update: str, stored: Mapping[str, str] | None = None) -> str:
    """The loop over `n` elements of the `arrays`, with the scalars `s`. `update` is the name of the rule's update
    there.

    See `_element` for `stored`.
    """
    lines = [*_locals(rule), "for i in range(n):", *_indented(_element(rule, update, stored=stored))]
    return textwrap.indent("\n".join(lines), "    ")


def _locals(rule: Rule) -> list[str]:
    """The scalars as local variables, which no store can change."""
    return [f"s{k} = s[{k}]" for k in range(rule.n_scalars)]


def _element(
    rule: Rule, update: str, loaded: Mapping[str, str] | None = None, stored: Mapping[str, str] | None = None
) -> list[str]:
    """The step of one element. By default an array is read and written at i. `loaded` has expressions for arrays that
    are read differently, and `stored` statements for arrays that are written differently."""
    before, own, after = rule.divided([f"s{k}" for k in range(rule.n_scalars)])
    p, g, *states = ({name: f"{name}[i]" for name in arrays(rule)} | dict(loaded or {})).values()
    numbers = dict(zip(["p", *arrays(rule)[2:]], ["p_", *new(rule)], strict=True))
    written = {name: f"{name}[i] = {number}" for name, number in numbers.items()} | dict(stored or {})
    return [
        f"p_, g_ = prepare({', '.join([p, g, *before])})",
        f"({', '.join(['p_', *new(rule)])},) = {update}({', '.join(['p_', 'g_', *states, *own])})",
        f"p_ = finish({', '.join(['p_', *after])})",
        *written.values(),
    ]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def step_body(rule: Rule, scalars: str) -> str:
    """The code that computes the scalars of step `t` from `hyper` into `out`. `scalars` names the rule's function."""
    place = {name: f"hyper[{k}]" for k, name in enumerate((*OF_THE_STEP, *rule.hyper))} | {"t": "t"}
    out = [f"out[{k}]" for k in range(rule.n_scalars)]
    names = ("prepare_scalars", scalars, "finish_scalars")
    lines = [
        f"({', '.join(results)},) = {name}({', '.join(place[argument] for argument in arguments(function))})"
        for name, function, results in zip(names, rule.of_scalars, rule.divided(out), strict=True)
        if results
    ]
    return textwrap.indent("\n".join(lines), "    ")


def generate() -> str:
    """The text of a ``.pyx`` module with all sweeps and a table of their addresses."""
    every = rules.COMPILED.values()
    of_scalars = dict.fromkeys(function for rule in every for function in rule.of_scalars)
    updates: list[Callable[..., Any]] = [prepare, finish, *(rule.update for rule in every)]
    scalars: list[Callable[..., Any]] = [rules.nadam_mu, rules.power_sum, *of_scalars]
    parts = [HEADER]
    parts += [_function(f, "double") for f in scalars]
    parts += [_function(f, "real") for f in updates]
    parts += [_function(f, "double") for f in dict.fromkeys(rule.fading for rule in every) if f is not None]
    for rule in every:
        parts += [_sweep(rule, *dtype) for dtype in (("float32", "float"), ("float64", "double"))]
        parts += [_fading(rule, rule.fading)] if rule.fading is not None else []
        parts += [_packed(rule, packing) for packing in PACKED if rule.name in rules.RULES]
        parts.append(STEP.format(name=rule.name, body=step_body(rule, rule.scalars.__name__)))
    parts += [_table(), _codecs()]
    return "".join(parts)


def _function(function: Callable[..., Any], ctype: str) -> str:
    """The function's body under a C signature, with the type `ctype` for all arguments and results."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef)
    statements = [s for s in definition.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    returned = statements[-1].value if isinstance(statements[-1], ast.Return) else None
    result = f"({f'{ctype}, ' * len(returned.elts)})" if isinstance(returned, ast.Tuple) else ctype
    taken = ", ".join(f"{ctype} {name}" for name in arguments(function))
    assigned = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    declared = [f"cdef {ctype} {name}" for name in sorted(assigned - set(arguments(function)))]
    body = textwrap.indent("\n".join([*declared, *map(ast.unparse, statements)]), "    ")
    return f"\ncdef inline {result} {function.__name__}({taken}) noexcept nogil:\n{body}\n"


def formula(function: Callable[..., Any]) -> str:
    """The Cython text of a function of float64 numbers, which the kernel includes."""
    return _function(function, "double")


def _sweep(rule: Rule, dtype: str, ctype: str, idle: bool = False) -> str:
    """The sweep for a dtype. An `idle` one does not change the parameter."""
    # The pointers are parameters of a function: only there does gcc use `restrict`, and vectorise with many arrays.
    names = arrays(rule)
    return SWEEP.format(
        name=f"{rule.name}_{dtype}{'_idle' if idle else ''}",
        ctype=ctype,
        parameters=", ".join(f"{ctype}s {name}" for name in names),
        arguments=", ".join(f"<{ctype}s> arrays[{k}]" for k in range(len(names))),
        numbers=_numbers(rule),
        taken="",
        body=sweep_body(rule, rule.name, {"p": "pass"} if idle else None),
    )


def _fading(rule: Rule, fading: Callable[..., Any]) -> str:
    """The idle sweeps of a rule, and its `fading` as a function of the scalars of two steps."""
    named = [*arguments(prepare)[2:], *arguments(rule.update)[2 + len(rule.states) :], *arguments(finish)[1:]]
    place = {name: f"last[{k}]" for k, name in enumerate(named)}
    place |= {f"next_{name}": f"next[{k}]" for k, name in enumerate(named)}
    still = STILL.format(
        **{name: place[f"next_{name}"] for name in ("factor", "weight_decay", "shrink", "low", "high")}
    )
    body = FADING.format(
        name=rule.name,
        is_still=still,
        fading=fading.__name__,
        arguments=", ".join(place[name] for name in arguments(fading)),
    )
    return _sweep(rule, "float32", "float", True) + _sweep(rule, "float64", "double", True) + body


def _numbers(rule: Rule) -> str:
    return ", ".join([*new(rule), *(f"s{k}" for k in range(rule.n_scalars))])


def _packed_name(rule: Rule, packing: tuple[str, str, str]) -> str:
    return "_".join((rule.name, *packing))


def _packed(rule: Rule, packing: tuple[str, str, str]) -> str:
    """The sweep over operands with this storage."""
    parameter, gradient, state = packing
    kinds = dict.fromkeys(arrays(rule), state) | {"p": "float32" if parameter == "master" else parameter, "g": gradient}
    if parameter == "master":
        kinds["whole"] = "bfloat16"
    ctypes = {name: "halves" if kind == "bfloat16" else "floats" for name, kind in kinds.items()}
    lines = _pairs(rule) if set(packing) == {"bfloat16"} else _one_by_one(rule, kinds)
    return SWEEP.format(
        name=_packed_name(rule, packing),
        ctype="float",
        parameters=", ".join([*(f"{ctype} {name}" for name, ctype in ctypes.items()), *_RANDOM]),
        arguments=", ".join([*(f"<{ctype}> arrays[{k}]" for k, ctype in enumerate(ctypes.values())), "keys", "place"]),
        numbers=_numbers(rule),
        taken=", " + ", ".join(_RANDOM),
        body=textwrap.indent("\n".join([*_locals(rule), *lines]), "    "),
    )


_RANDOM = ["const uint64_t* keys", "uint64_t place"]


def _one_by_one(rule: Rule, kinds: Mapping[str, str]) -> list[str]:
    """The loop over single elements, for operands stored as `kinds` says."""
    loaded = {name: f"decode_bfloat16({name}[i])" for name, kind in kinds.items() if kind == "bfloat16"}
    stored = {"p": "p[i] = encode_bfloat16(p_)"} if kinds["p"] == "bfloat16" else {}
    if "whole" in kinds:
        del loaded["whole"]  # not an argument of the rule
        loaded["p"], stored["whole"] = "followed(p[i], whole[i])", "whole[i] = encode_bfloat16(p_)"
    states = [name for name in rule.states if kinds[f"state_{name}"] == "bfloat16"]
    for k, name in enumerate(states):
        stored[f"state_{name}"] = f"state_{name}[i] = encode_bfloat16_random(new_{name}, {_half(k)})"
    return [
        *_random_begins(len(states)),
        "for i in range(n):",
        *_indented([*_random(len(states)), *_random_step(len(states))]),
        *_indented(_element(rule, rule.name, loaded, stored)),
    ]


def _pairs(rule: Rule) -> list[str]:
    """The loop over pairs of elements, for operands that are all bfloat16. An odd last element is stepped alone."""
    names, n_states = arrays(rule), len(rule.states)
    rounded = {"p": "rounded_to_nearest(p_)"}
    rounded |= {f"state_{name}": f"rounded(new_{name}, {_half(k)})" for k, name in enumerate(rule.states)}
    alone = {name: f"{name}[i] = upper_half({bits})" for name, bits in rounded.items()}
    first = {name: f"first_{name} = {bits}" for name, bits in rounded.items()}
    second = {name: f"store_pair({name}, i, first_{name}, {bits})" for name, bits in rounded.items()}
    return [
        f"cdef uint32_t {', '.join([f'pair_{name}' for name in names] + [f'first_{name}' for name in rounded])}",
        *_random_begins(n_states),
        "for i in range(n // 2):",
        *_indented(f"pair_{name} = load_pair({name}, i)" for name in names),
        *_indented(_random(n_states)),
        *_indented(_element(rule, rule.name, {name: f"first_of(pair_{name})" for name in names}, first)),
        *_indented([*_random_step(n_states), *_random(n_states), *_random_step(n_states)]),
        *_indented(_element(rule, rule.name, {name: f"second_of(pair_{name})" for name in names}, second)),
        "if n % 2:",
        *_indented(["i = n - 1", *_random(n_states)]),
        *_indented(_element(rule, rule.name, {name: f"decode_bfloat16({name}[i])" for name in names}, alone)),
    ]


def _n_keys(n_states: int) -> int:
    """The number of keys of random bits: each two states share one, as in `_tiles.key_of`."""
    return (n_states + 1) // 2


def _half(k: int) -> str:
    """The random bits of state number k."""
    return f"random_half(random{k // 2}, {k % 2})"


def _random_begins(n_states: int) -> list[str]:
    """The statements that start the random bits of a loop."""
    return [f"cdef uint32_t random{k}, at{k} = random_first(keys[{k}], place)" for k in range(_n_keys(n_states))]


def _random(n_states: int) -> list[str]:
    """The statements that make the random bits of an element."""
    return [f"random{k} = random_bits(at{k}, keys[{k}])" for k in range(_n_keys(n_states))]


def _random_step(n_states: int) -> list[str]:
    """The statements that move the random bits to the next element."""
    return [f"at{k} += RANDOM_STEP" for k in range(_n_keys(n_states))]


def _table() -> str:
    rows = "".join(
        f'    "{name}": (<size_t> &{name}_step, <size_t> &{name}_float32, <size_t> &{name}_float64),\n'
        for name in rules.COMPILED
    )
    packed = "".join(
        f'    "{name}": ({", ".join(f"<size_t> &{_packed_name(rule, packing)}" for packing in PACKED)},),\n'
        for name, rule in rules.RULES.items()
    )
    idle = "".join(
        f'    "{name}": (<size_t> &{name}_fades, <size_t> &{name}_float32_idle, <size_t> &{name}_float64_idle),\n'
        for name, rule in rules.RULES.items()
        if rule.fading is not None
    )
    return (
        f"\n#: name of the rule -> addresses of its step's scalars and of its sweeps\nADDRESSES = {{\n{rows}}}\n"
        f"\n#: name of the rule -> addresses of its packed sweeps\nPACKED = {{\n{packed}}}\n"
        f"\n#: name of the rule -> addresses of its fading and of its idle sweeps\nIDLE = {{\n{idle}}}\n"
    )


def _codecs() -> str:
    declared = (f"    void {name}({taken}) nogil\n" for taken, names in CODECS.items() for name in names)
    rows = (f'    "{name}": <size_t> &{name},\n' for names in CODECS.values() for name in names)
    return f'\ncdef extern from "codecs.h":\n{"".join(declared)}\nCODECS = {{\n{"".join(rows)}}}\n'
