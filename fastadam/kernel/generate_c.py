"""Writes the C interface from the rules: the header, its declarations for Cython, and the functions.
Each hyper-parameter of a rule is a member of the options struct, in the order in which the rules first use it.
"""

from itertools import chain

from ..rule import OF_THE_STEP, Rule
from ..rules import RULES

#: the suffix of a function's name -> the type of its numbers
DTYPES = {"f32": "float", "f64": "double"}

HEADER = """\
/* fastadam's C interface: one step of contiguous arrays, on the calling thread, without the GIL.
 * Call import_fastadam() once, with the GIL, in each file that includes this header. It returns 0, or sets an exception
 * and returns -1.
 *
 * While a function runs, denormal numbers count as zero. The function restores the thread's floating-point mode.
 *
 * Compatibility: functions and members of the options are only added, and only at the end. A program that was compiled
 * against an older header runs with a newer fastadam.
 *
 * Generated from fastadam/rules.py by fastadam/kernel/generate_c.py: do not edit.
 */
#ifndef FASTADAM_H
#define FASTADAM_H

#include <Python.h>
#include <stdint.h>

#define FASTADAM_VERSION 1

/* The return values. If it is not FASTADAM_OK, nothing was touched. */
#define FASTADAM_OK 0
#define FASTADAM_BAD_OPTIONS (-1)  /* NULL, a size that this fastadam does not know, or refused by a check */
#define FASTADAM_BAD_LENGTH (-2)   /* n < 0 */
#define FASTADAM_NULL_POINTER (-3) /* an array is NULL, and n > 0 */
#define FASTADAM_BAD_STEP (-4)     /* t < 1 */

/* The hyper-parameters of all algorithms. fastadam_adam_defaults(&options, sizeof options) fills it for Adam. */
typedef struct {
    size_t size; /* sizeof(fastadam_options) */
@members
} fastadam_options;

/* Two functions for each algorithm, to call before a loop. They take the GIL themselves, and return FASTADAM_OK or
 * FASTADAM_BAD_OPTIONS.
 * …_defaults: writes the size, and the defaults of fastadam's Python functions. Members that the algorithm does not
 * read are zero.
 * …_check: checks the options like fastadam's Python functions. If they are refused, `message`, of `size` bytes, gets
 * the reason. `message` may be NULL.
 */
#define FASTADAM_OF_OPTIONS(X) \\
@of_options

/* Step t = 1, 2, … of n elements. The options are not checked. Before each function stand the members that it reads. */
#define FASTADAM_FUNCTIONS(X, real, suffix) \\
@functions
#define FASTADAM_ARGS(real) const fastadam_options *options, int64_t t, int64_t n, real *p, const real *g

#ifndef FASTADAM_NO_IMPORT /* a Cython module cimports the functions from fastadam.capi instead */

#define FASTADAM_DECLARE(name, arguments) static int(*fastadam_##name) arguments;
FASTADAM_FUNCTIONS(FASTADAM_DECLARE, float, f32)
FASTADAM_FUNCTIONS(FASTADAM_DECLARE, double, f64)
FASTADAM_OF_OPTIONS(FASTADAM_DECLARE)
#undef FASTADAM_DECLARE

static inline void *fastadam_find(PyObject *table, const char *name) {
    PyObject *capsule = PyDict_GetItemString(table, name);
    if (capsule) return PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
    PyErr_Format(PyExc_ImportError, "the installed fastadam has no %s: it is older than this header", name);
    return NULL;
}

static inline int import_fastadam(void) {
    PyObject *module = PyImport_ImportModule("fastadam.capi");
    PyObject *table = module ? PyObject_GetAttrString(module, "__pyx_capi__") : NULL;
    int found = table != NULL;
#define FASTADAM_FIND(name, arguments) \\
    found = found && (*(void **)&fastadam_##name = fastadam_find(table, "fastadam_" #name)) != NULL;
    FASTADAM_FUNCTIONS(FASTADAM_FIND, float, f32)
    FASTADAM_FUNCTIONS(FASTADAM_FIND, double, f64)
    FASTADAM_OF_OPTIONS(FASTADAM_FIND)
#undef FASTADAM_FIND
    Py_XDECREF(table);
    Py_XDECREF(module); /* the interpreter keeps the module, and with it the functions */
    return found ? 0 : -1;
}

#endif
#endif
"""

PXD = '''\
# The C interface for Cython: cimport these functions and compile with include_dirs=[fastadam.get_include()].
# They need no GIL. fastadam.h describes their arguments and return values.
# Generated from fastadam/rules.py by fastadam/kernel/generate_c.py: do not edit.

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #define FASTADAM_NO_IMPORT
    """

cdef extern from "fastadam.h":
    enum:
        FASTADAM_VERSION
        FASTADAM_OK
        FASTADAM_BAD_OPTIONS
        FASTADAM_BAD_LENGTH
        FASTADAM_NULL_POINTER
        FASTADAM_BAD_STEP

    ctypedef struct fastadam_options:
        size_t size
@members

@functions
'''

PYX = '''\
# cython: language_level=3, cdivision=True
"""The C interface, which fastadam.h declares. Generated from fastadam/rules.py: do not edit."""
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from fastadam import embedded
from fastadam.kernel import backends
from fastadam.names import offer

#: the members of fastadam_options after `size`, all of them doubles
MEMBERS = @names

def address(name):
    """The address of a function of fastadam.h, for ctypes and cffi."""
    functions = globals()["__pyx_capi__"]
    if name not in functions:
        raise ValueError(f"name: fastadam.h has no {name!r}; {offer(name, functions, 'it has')}")
    capsule = functions[name]
    return <size_t> PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))

cdef extern from "denormals.h":
    uint64_t denormals_off() nogil
    void denormals_restore(uint64_t mode) nogil

cdef enum:
    OF_THE_FIRST_HEADER = 13  # the number of members, without `size`, in the first header
    OF_ALL = @n_members

ctypedef void (*sweep_t)(Py_ssize_t n, void** arrays, const void* scalars) noexcept nogil
ctypedef void (*step_t)(double t, const double* hyper, double* out) noexcept nogil

cdef inline size_t size_of(int n_members) noexcept nogil:
    return sizeof(fastadam_options) - (OF_ALL - n_members) * sizeof(double)

cdef inline double member(const fastadam_options* options, int k) noexcept nogil:
    """The member number k, or zero if the caller's header is too old to have it."""
    return (&options.lr)[k] if options.size >= size_of(k + 1) else 0.0

cdef inline bint is_known(size_t size) noexcept nogil:
    """Whether a header had options of this size."""
    return size_of(OF_THE_FIRST_HEADER) <= size <= sizeof(fastadam_options)

cdef int defaults(fastadam_options* options, size_t size, name) except -1:
    cdef fastadam_options filled
    memset(&filled, 0, sizeof(filled))
    for k, value in enumerate(embedded.defaults(name, MEMBERS)):
        (&filled.lr)[k] = value
    filled.size = size
    memcpy(options, &filled, size)
    return 0

cdef bint is_wrong(const fastadam_options* options, char* message, size_t size, name) except -1:
    cdef bytes why = b"options: expected a size of sizeof(fastadam_options), got another, or NULL"
    if options is not NULL and is_known(options.size):
        why = embedded.wrong(name, {own: member(options, k) for k, own in enumerate(MEMBERS)}).encode()
    if message is not NULL and size > 0:
        why = why[: size - 1]
        memcpy(message, <const char*> why, len(why) + 1)
    return len(why) > 0

cdef inline int refused(const fastadam_options* options, int64_t t, int64_t n) noexcept nogil:
    if options is NULL or not is_known(options.size):
        return FASTADAM_BAD_OPTIONS
    return FASTADAM_BAD_LENGTH if n < 0 else FASTADAM_BAD_STEP if t < 1 else FASTADAM_OK

'''

FUNCTION = """
cdef step_t {name}_step_{suffix} = <step_t> <size_t> backends.sweep_addresses("{name}")[0]
cdef sweep_t {name}_sweep_{suffix} = <sweep_t> <size_t> backends.sweep_addresses("{name}")[{place}]

{signature}:
    cdef int status = refused(options, t, n)
    cdef double hyper[{n_hyper}]
    cdef double scalars[{n_scalars}]
    cdef {real} rounded[{n_scalars}]
    cdef void* arrays[{n_arrays}]
    cdef uint64_t mode
    cdef int k
    if status != FASTADAM_OK:
        return status
{arrays}
    for k in range({n_arrays}):
        if arrays[k] is NULL and n > 0:
            return FASTADAM_NULL_POINTER
{values}
    {name}_step_{suffix}(<double> t, hyper, scalars)
    for k in range({n_scalars}):
        rounded[k] = <{real}> scalars[k]
    mode = denormals_off()
    {name}_sweep_{suffix}(n, arrays, rounded)
    denormals_restore(mode)
    return FASTADAM_OK
"""

OF_OPTIONS = {
    "defaults": """{signature}:
    if options is NULL or not is_known(size):
        return FASTADAM_BAD_OPTIONS
    with gil:
        defaults(options, size, "{name}")
    return FASTADAM_OK
""",
    "check": """{signature}:
    with gil:
        return FASTADAM_BAD_OPTIONS if is_wrong(options, message, size, "{name}") else FASTADAM_OK
""",
}

#: the arguments of the functions of options
TAKEN = {
    "defaults": "fastadam_options *options, size_t size",
    "check": "const fastadam_options *options, char *message, size_t size",
}


def generate() -> dict[str, str]:
    """Path below ``fastadam/`` -> the text of that file."""
    every = [*RULES.values()]
    names = dict.fromkeys(chain.from_iterable(map(members, every)))
    flags = {name for rule in every for name in rule.flags}
    in_header = [f"    double {name};{' /* a flag: zero or not */' if name in flags else ''}" for name in names]
    both = [(rule, suffix) for suffix in DTYPES for rule in every]
    of_options = [(rule, what) for rule in every for what in OF_OPTIONS]
    rows = [f"    X({rule.name}_{what}, ({TAKEN[what]}))" for rule, what in of_options]
    functions = "".join(function(*one, [*names]) for one in both)
    for rule, what in of_options:
        functions += "\n" + OF_OPTIONS[what].format(name=rule.name, signature=signature_of_options(rule, what))
    return {
        "include/fastadam.h": fill(
            HEADER,
            members="\n".join(in_header),
            of_options=" \\\n".join(rows),
            functions=" \\\n".join(map(row, every)),
        ),
        "capi.pxd": fill(
            PXD,
            members="\n".join(f"        double {name}" for name in names),
            functions="\n".join([signature(*one) for one in both] + [signature_of_options(*one) for one in of_options]),
        ),
        "capi.pyx": fill(PYX, n_members=str(len(names)), names=repr(tuple(names))) + functions,
    }


def signature_of_options(rule: Rule, what: str) -> str:
    """The Cython signature of the function that fills or checks the rule's options."""
    return f"cdef int fastadam_{rule.name}_{what}({TAKEN[what]}) noexcept nogil"


def members(rule: Rule) -> list[str]:
    """The options that the rule reads: its hyper-parameters without default, or whose neutral value is zero."""
    return [name for name in rule.hyper if not rule.defaults.get(name)]


def fill(template: str, **texts: str) -> str:
    """The template with ``@name`` replaced at the ends of lines. C and Cython have too many braces for `str.format`."""
    for name, text in texts.items():
        template = template.replace(f"@{name}\n", f"{text}\n")
    return template


def row(rule: Rule) -> str:
    """The row of the rule's function in the header's table."""
    states = "".join(f", real *{name}" for name in rule.states)
    read = ", ".join(members(rule))
    return f"    /* {read} */ \\\n    X({rule.name}_##suffix, (FASTADAM_ARGS(real){states}))"


def signature(rule: Rule, suffix: str) -> str:
    """The Cython signature of the rule's function."""
    real = DTYPES[suffix]
    states = "".join(f", {real}* {name}" for name in rule.states)
    return (
        f"cdef int fastadam_{rule.name}_{suffix}(\n"
        f"    const fastadam_options* options, int64_t t, int64_t n, {real}* p, const {real}* g{states}\n"
        ") noexcept nogil"
    )


def function(rule: Rule, suffix: str, names: list[str]) -> str:
    """The rule's function for one dtype: check, compute the scalars, sweep. `names` has the members of the options."""
    arrays = ["p", "g", *rule.states]
    own = members(rule)
    values = [
        f"member(options, {names.index(name)})  # {name}" if name in own else literal(rule.defaults[name])
        for name in (*OF_THE_STEP, *rule.hyper)
    ]
    return FUNCTION.format(
        name=rule.name,
        suffix=suffix,
        real=DTYPES[suffix],
        place=1 + [*DTYPES].index(suffix),
        signature=signature(rule, suffix),
        n_hyper=len(values),
        n_scalars=rule.n_scalars,
        n_arrays=len(arrays),
        arrays="\n".join(f"    arrays[{k}] = <void*> {name}" for k, name in enumerate(arrays)),
        values="\n".join(f"    hyper[{k}] = {value}" for k, value in enumerate(values)),
    )


def literal(value: float) -> str:
    """The number in C."""
    return repr(float(value)).replace("inf", "INFINITY")
