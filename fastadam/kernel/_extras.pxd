cdef enum:                  # by which norm gradients are clipped, if by any
    NO_NORM = 0
    OF_ALL = 1
    OF_EACH = 2

cdef struct Extras:         # what a step does to its gradients, checked: `read_extras` fills it
    double factor           # they are multiplied by it;
    int clips_by            # then, if this norm of them
    double max_norm         # is above this, by what brings it down to that;
    double clip_value       # then each element is clipped; infinity where it is not
    bint skip_nonfinite     # a step with a NaN or an infinity in a gradient is left out
    bint zero_grads         # the gradients are left zero

cdef Extras PLAIN           # nothing of all that

cdef int read_extras(
    Extras* extras, double factor, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each
) except -1
cdef int read_named(Extras* extras, double factor, dict named) except -1
