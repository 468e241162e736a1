cdef enum:                  # the norm by which gradients are clipped
    NO_NORM = 0
    OF_ALL = 1
    OF_EACH = 2

cdef struct Extras:         # the checked arguments of a step after its gradients; `read_extras` fills it
    double factor           # gradients are multiplied by it
    int clips_by            # then the norm by which they are clipped
    double max_norm         # and its limit
    double clip_value       # then the limit of each element; infinity for none
    bint skip_nonfinite     # whether to skip a step with a NaN or an infinity in a gradient
    bint zero_grads         # whether to set the gradients to zero

cdef Extras PLAIN           # the arguments that change nothing

cdef int read_extras(
    Extras* extras, double factor, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each
) except -1
cdef int read_named(Extras* extras, double factor, dict named) except -1
