# cython: language_level=3, cdivision=True
"""Rows that lag. A step of some rows does not change the other rows. Before such a row is stepped again, the steps with
zero gradient that it has missed are applied. `_flush` does this for all rows, or for some rows on demand.

`visits` has the number of steps that each row has done. Its last number says whether any row may lag; if not, the other
numbers have no meaning. `history` has the scalars of the last steps, in the type in which the parameter is computed,
and whether each step kept denormals. So a step that is applied later gives the same bits.
"""

from libc.float cimport DBL_MAX, DBL_MIN, FLT_MAX, FLT_MIN
from libc.math cimport fabs, signbit
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ._layout cimport Kernel
from ._segments cimport HISTORY, MAX_OPERANDS, PYTHON_STRIP, Operand, sweep_t
from ._strips cimport Run, Strip, cut_strip, noise_of, number_of, parameter_of, step_strip

cdef extern from "denormals.h":
    uint64_t denormals_off() nogil
    void denormals_restore(uint64_t mode) nogil

cdef enum:
    N_PROBES = 8
    MAX_SCALARS = 32        # the most scalars of a rule whose steps are known to fade
    EVERY = 8               # after each 8 steps, it is checked whether a row's parameters still move

#: the number of steps whose scalars are kept
globals()["HISTORY"] = <int> HISTORY

cdef double[PYTHON_STRIP] ZEROS  # zero, since it is static

#: parameters on which a step of a built-in rule is tried, with zeros for states and gradient. If the step moves none of
#: them, it moves no parameter that `is_common`. The last two are set to the largest numbers of the dtype
cdef double[N_PROBES] PROBES = [0.0, 1.0, -1.0, 1e-3, -0.37, 1e3, 0.0, 0.0]


# ---------------------------------------------------------------- around a step


cdef void note_step(Segment* segment, const void* scalars) noexcept:
    """Note the coming step for the rows that it leaves out. A step of all rows leaves out none, so nothing is noted."""
    cdef char* record = record_of(segment, segment.done)
    cdef Py_ssize_t k
    if segment.rows.n < 0:
        return
    if not segment.visits[segment.n_rows]:
        for k in range(segment.n_rows):
            segment.visits[k] = segment.done
        segment.visits[segment.n_rows] = 1
        segment.oldest = segment.done
    for k in range(segment.n_scalars):
        if segment.itemsize == 4:
            (<float*> record)[k] = (<float*> scalars)[k]
        else:
            (<double*> record)[k] = (<double*> scalars)[k]
    if segment.itemsize == 4:
        (<float*> record)[segment.n_scalars] = segment.keeps_denormals
    else:
        (<double*> record)[segment.n_scalars] = segment.keeps_denormals
    if moves_at_rest(segment, segment.done):
        segment.rests_since = segment.done + 1
    if not fades(segment, segment.done):
        segment.fades_since = segment.done + 1


cdef void know_history(Segment* segment) noexcept:
    """Find `oldest`, `rests_since` and `fades_since` of a parameter that was just laid out."""
    cdef Py_ssize_t k
    segment.knows_history = True
    segment.oldest = segment.rests_since = segment.fades_since = segment.done
    if not segment.visits[segment.n_rows]:
        return
    for k in range(segment.n_rows):
        segment.oldest = min(segment.oldest, segment.visits[k])
    while segment.rests_since > segment.oldest:
        if moves_at_rest(segment, segment.rests_since - 1):
            break
        segment.rests_since -= 1
    while segment.fades_since > segment.oldest and fades(segment, segment.fades_since - 1):
        segment.fades_since -= 1


cdef inline char* record_of(Segment* segment, int64_t steps) noexcept nogil:
    """The place in `history` of the step after `steps` steps."""
    return segment.history + steps % HISTORY * (segment.n_scalars + 1) * segment.itemsize


cdef bint moves_at_rest(Segment* segment, int64_t steps) noexcept:
    """Whether the step after `steps` steps may change elements whose gradient and states are zero. It is tried on some.
    """
    cdef double[MAX_OPERANDS * N_PROBES] numbers
    cdef void* arrays[MAX_OPERANDS]
    cdef double[N_PROBES] before
    cdef Py_ssize_t size = N_PROBES * segment.itemsize
    cdef uint64_t mode
    cdef int k
    if segment.sweep is NULL or not (<Kernel> segment.cohort.bundle.kernel).is_built_in:
        return True
    memset(numbers, 0, sizeof(numbers))
    for k in range(segment.n_operands):
        arrays[k] = &numbers[k * N_PROBES]
    for k in range(N_PROBES):
        if segment.itemsize == 4:
            (<float*> before)[k] = <float> PROBES[k] if k < N_PROBES - 2 else FLT_MAX * (1 if k % 2 else -1)
        else:
            before[k] = PROBES[k] if k < N_PROBES - 2 else DBL_MAX * (1 if k % 2 else -1)
        if segment.itemsize == 4:
            (<float*> numbers)[k] = (<float*> before)[k]
        else:
            numbers[k] = before[k]
    mode = 0 if kept_denormals(segment, steps) else denormals_off()  # a denormal eps may be zero
    segment.sweep(N_PROBES, arrays, record_of(segment, steps))
    if not kept_denormals(segment, steps):
        denormals_restore(mode)
    if memcmp(numbers, before, size) != 0:
        return True
    return not are_zeros(<char*> &numbers[N_PROBES], (segment.n_operands - 1) * N_PROBES * sizeof(double))


cdef bint fades(Segment* segment, int64_t steps) noexcept:
    """Whether the step after `steps` steps moves each element of zero gradient less than the step before it did.

    Less means at least one percent less: no rounding error is as large. Among denormals a rounding error may be as
    large, so steps that kept denormals do not fade.
    """
    cdef double[MAX_SCALARS] last, next
    cdef int k
    if segment.fading is NULL or segment.n_scalars > MAX_SCALARS:
        return False
    if steps <= segment.oldest:
        return True
    if kept_denormals(segment, steps - 1) or kept_denormals(segment, steps):
        return False
    for k in range(segment.n_scalars):
        last[k] = scalar_of(segment, record_of(segment, steps - 1), k)
        next[k] = scalar_of(segment, record_of(segment, steps), k)
    return segment.fading(last, next) <= 0.99


cdef inline double scalar_of(Segment* segment, const char* record, int k) noexcept nogil:
    return (<float*> record)[k] if segment.itemsize == 4 else (<double*> record)[k]


cdef inline bint kept_denormals(Segment* segment, int64_t steps) noexcept nogil:
    """Whether the step after `steps` steps kept denormals."""
    return scalar_of(segment, record_of(segment, steps), segment.n_scalars) != 0


cdef bint are_zeros(const char* memory, Py_ssize_t n_bytes) noexcept nogil:
    cdef Py_ssize_t n
    while n_bytes > 0:
        n = min(n_bytes, <Py_ssize_t> sizeof(ZEROS))
        if memcmp(memory, ZEROS, n) != 0:
            return False
        memory += n
        n_bytes -= n
    return True


# ---------------------------------------------------------------- rows


cdef void make_up(Job* job, Segment* segment, Py_ssize_t begin, Py_ssize_t end, char* buffer) noexcept nogil:
    """Apply the missed steps to the elements begin … end of the rows that are the segment's work."""
    cdef Strip strip, one
    cdef int k
    one.n_runs = 1
    while begin < end:
        cut_strip(segment, begin, end, False, &strip)
        for k in range(strip.n_runs):
            one.runs[0], one.n = strip.runs[k], strip.runs[k].n
            make_up_run(job, segment, &one, buffer)
        begin += strip.n


cdef void make_up_run(Job* job, Segment* segment, Strip* strip, char* buffer) noexcept nogil:
    """The same for one run, which is part of one row."""
    cdef int64_t k = segment.visits[number_of(segment, strip.runs[0].row)]
    cdef uint64_t mode
    cdef bint keeps_denormals
    if k >= segment.done or k >= segment.rests_since and rests(segment, strip, buffer):
        return
    if segment.others_direct and segment.sweep is not NULL:
        make_up_in_place(segment, &strip.runs[0], k)
        return
    for k in range(k, segment.done):
        keeps_denormals = kept_denormals(segment, k)
        mode = 0 if keeps_denormals else denormals_off()
        step_strip(job, segment, strip, record_of(segment, k), noise_of(job.seed, k), ZEROS, buffer)
        if not keeps_denormals:
            denormals_restore(mode)


cdef void make_up_in_place(Segment* segment, Run* run, int64_t first) noexcept nogil:
    """Do all steps from number `first` on, for a run that is swept in place.

    If the steps fade, and one has moved no parameter of the run, later ones will not either: they only change states.
    """
    cdef void* arrays[MAX_OPERANDS]
    cdef double[PYTHON_STRIP] before
    cdef Py_ssize_t n_bytes = run.n * segment.itemsize
    cdef uint64_t mode = denormals_off()
    cdef bint keeps_denormals = False  # the present mode
    cdef sweep_t sweep = segment.sweep
    cdef bint looks
    cdef int i
    cdef int64_t k
    for i in range(segment.n_operands):
        arrays[i] = segment.operands[i].data + run.at * segment.itemsize
    arrays[1] = ZEROS
    for k in range(first, segment.done):
        if keeps_denormals != kept_denormals(segment, k):
            keeps_denormals = not keeps_denormals
            denormals_restore(mode)
            if not keeps_denormals:
                denormals_off()
            sweep = segment.sweep  # in the other mode, a step may move parameters again
        looks = (k - first) % EVERY == EVERY - 1 and k + 1 >= segment.fades_since and sweep is not segment.idle
        if looks:
            memcpy(before, arrays[0], n_bytes)
        sweep(run.n, arrays, record_of(segment, k))
        if looks and memcmp(before, arrays[0], n_bytes) == 0:
            sweep = segment.idle
    denormals_restore(mode)


cdef bint rests(Segment* segment, Strip* strip, char* buffer) noexcept nogil:
    """Whether all states of a run are zero, and the result of the probes holds for all its parameters."""
    cdef Operand* operand
    cdef void* p
    cdef int k
    for k in range(2, segment.n_operands):
        operand = &segment.operands[k]
        if not (
            operand.in_place and are_zeros(operand.data + strip.runs[0].at * operand.step, strip.n * operand.step)
        ):
            return False
    p = parameter_of(segment, strip, buffer)
    for k in range(<int> strip.n):
        if segment.itemsize == 4:
            if not is_common((<float*> p)[k], FLT_MIN, FLT_MAX):
                return False
        elif not is_common((<double*> p)[k], DBL_MIN, DBL_MAX):
            return False
    return True


cdef inline bint is_common(double x, double least, double most) noexcept nogil:
    """Whether reading and storing a number does not change it: it is not denormal, -0, infinite or NaN."""
    return least <= fabs(x) <= most or (x == 0 and not signbit(x))
