"""Steps that are made while gradients arrive: `Stepping`."""

from typing import NoReturn

from . import names
from .core import Core
from .kernel._parts import stepping


class Stepping:
    """Mixed in before a `Stepped` class that takes gradients."""

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
        """A context manager: one step, within whose block each parameter is stepped as soon as its gradient is known.

        ``with opt.stepping() as step:`` gives a function: ``step(key, grad)`` steps the parameter that `state_dict`
        calls by this key. When the call returns, the gradient may be freed, or its memory used again. So the gradients
        need not be in memory all at once. The order of the calls does not matter. When the block is over, parameters,
        states and counts have the bits that one call of `step` with all of these gradients gives them.

        Parameters
        ----------
        grad_scale, clip_value, zero_grads, max_norm_each :
            As in `step`, and the same for all gradients of the block.
        max_norm, skip_nonfinite :
            Refused: both need all gradients before the first parameter is stepped. Take `max_norm_each`, or `step`.

        Raises
        ------
        ValueError, TypeError
            By ``step(key, grad)``: for an unknown key, for one that came in this block before, or for a gradient that
            does not fit. That parameter is not touched, and the block goes on.
        RuntimeError
            Within the block, for whatever else steps, saves, loads or copies the optimizer, and for a second block.

        Notes
        -----
        A parameter whose gradient is None, or does not come, is left as it is, its count of steps included. So is a
        parameter of a frozen group, whatever comes. A block in which ``step`` was not called is no step: `t` stays.

        Options, schedules and the structure are read when the block begins. What is assigned within the block holds
        from the next step on. When the block is over, `t` and ``opt.grad_norm`` are those of this step.

        An exception, or an interrupt, ends the block. The parameters that were stepped before have done the step.

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
