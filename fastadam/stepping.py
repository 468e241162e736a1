"""`Stepping`: steps during the backward pass, while gradients arrive."""

from typing import NoReturn

from . import names
from .core import Core
from .kernel._parts import stepping


class Stepping:
    """Mixin, placed before `Stepped`, for a class that takes gradients."""

    __slots__ = ()
    core: Core

    def stepping(
        self,
        *,
        grad_scale: float = 1.0,
        max_norm: None = None,
        clip_value: float | None = None,
        skip_nonfinite: bool = False,
        zero_grads: bool = False,
        max_norm_each: float | None = None,
        **unknown: NoReturn,
    ) -> stepping:
        """A context manager for one step. Within its block, each parameter is stepped as soon as its gradient is known.

        ``with opt.stepping() as step:`` gives a function. ``step(key, grad)`` steps the parameter that has this key in
        `state_dict`. After the call, the gradient may be freed, or its memory used again. So the gradients need not be
        in memory all at once. The order of the calls does not matter. After the block, parameters, states and counts
        have the same bits as after one call of `step` with all of these gradients.

        Parameters
        ----------
        grad_scale, clip_value, zero_grads, max_norm_each :
            As in `step`. They hold for all gradients of the block.
        max_norm, skip_nonfinite :
            Not possible: both need all gradients before the first parameter is stepped. Use `max_norm_each`, or `step`.

        Raises
        ------
        ValueError, TypeError
            From ``step(key, grad)``: for an unknown key, for a key that was given before in this block, or for a
            gradient that does not fit. That parameter has not changed then, and the block continues.
        RuntimeError
            Within the block, for any other step, for saving, loading or copying, and for a second block.

        Notes
        -----
        A parameter without a gradient, or with None, does not change, nor does its step count. The same holds for a
        parameter of a frozen group, with any gradient. A block without a call of ``step`` does not count: `t` stays.

        Options, schedules and the structure are read when the block begins. An option that is assigned within the block
        holds from the next step on. After the block, `t` and ``opt.grad_norm`` are those of this step.

        An exception or an interrupt ends the block. The parameters that were stepped before it have done the step.

        Examples
        --------
        >>> import numpy as np, fastadam
        >>> params = {"W": np.ones((2, 3)), "b": np.zeros(3)}
        >>> opt = fastadam.Adam(params, lr=0.5)
        >>> with opt.stepping() as step:  # the last layer's gradients come first
        ...     step("b", np.ones(3))
        ...     step("W", np.ones((2, 3)))
        >>> params["b"].round(3).tolist(), opt.t
        ([-0.5, -0.5, -0.5], 1)
        """
        if unknown:
            names.refuse_arguments(unknown, self.stepping)
        return stepping(self.core, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)
