"""`Optimizer`: the public methods that all optimizers share. What they do is `core.Core`'s; what an algorithm adds is
said by the classes of `optimizers`.
"""

from collections.abc import Mapping
from math import inf
from os import PathLike
from typing import Any, NoReturn

import numpy as np

from . import names, options
from .core import Core
from .options import Rate, option, setting
from .state.view import States
from .stepped import Stepped
from .stepping import Stepping
from .tree import Grads


class Optimizer(Stepping, Stepped):
    """What all optimizers share. Not used by itself: take `Adam` or one of its relatives.

    Parameters
    ----------
    params : array, sequence, mapping, sequence of dicts, or object
        The arrays to step, updated in place, of dtype float32, float64, float16, (ml_dtypes') bfloat16, complex64 or
        complex128: one array; any nesting of dicts, lists and tuples of arrays; pairs of names and arrays; group dicts
        as in torch, each with its arrays under ``"params"`` and its own values of any option; or an object with
        ``.parameters`` (one of the former) and ``.grad`` (its gradients). Any memory layout will do; C or Fortran order
        is the fastest. The structure is read anew at each step: after ``params["W"] = new`` the new array is stepped,
        with the same states. Real and imaginary part of a complex number are stepped as two numbers, as in torch.
    lr : float or callable
        The rate, or a function that returns it given the step count t = 1, 2, …
    weight_decay : float
        The factor of the decay: L2, added to the gradient, or decoupled, as each class says.
    maximize : bool
        Step up the gradient instead of down.
    bounds : (float or None, float or None), default (-inf, inf)
        The smallest and the largest value of each element of a parameter. The step clips to them what it has computed,
        in the same pass, as ``numpy.clip`` would; a NaN stays one. Of a complex parameter both parts are clipped.
    grads : optional
        Gradients in the structure of `params`, bound once: the structure is read at each ``step()`` without arguments.
    backend : {"cython", "numba", "numpy"}
        What runs the rule. All give the same bits; "numpy" needs no compiled sweep, "numba" needs Numba.
    n_threads : int, optional
        How many threads a step may use, the caller included; the bits are the same for any number. By default
        ``FASTADAM_NUM_THREADS``, or the processors that this process may run on. Fewer than 30 000 elements are always
        stepped by the caller alone, and so is every array with backend "numpy".
    master_weights : bool, default False
        Keep of every float16 and bfloat16 parameter a float32 copy among the states (``"master"``), step that, and
        round it to the parameter: steps too small for 16 bits add up. Where others have changed an element of the
        parameter, so that it is not the rounded copy, the next step begins with what it is now.
    state_dtype : {None, "bfloat16", "int8"}
        Keep the states in 16 bits, or in blocks of 8-bit floating-point codes (258 bytes for 256 elements): a half or a
        quarter of the memory. They are rounded stochastically: up with a probability equal to the discarded fraction,
        so without bias. "bfloat16" needs ml_dtypes and is for real parameters; neither is for float64 and complex128.
        With "int8", states that are weights or are subtracted from one another stay float32: those of ASGD, z and x of
        ScheduleFreeAdamW, v and m of RMSprop with `centered`. A group may have its own; chosen at construction.
    min_8bit_size : int, default 4096
        With "int8", the states of arrays of fewer elements are float32: they take little memory, and are often the ones
        that matter (biases, scales). A group may have its own; chosen at construction.
    rows : {"lazy", "exact"}, default "lazy"
        What a step by `Rows` does to all other rows of the parameter. "lazy": nothing, as torch's ``SparseAdam`` and
        TensorFlow's ``LazyAdam``. Such a row keeps parameter and states; only the parameter's count of steps goes on.
        "exact": what a gradient of zeros would do, but later, when `Rows` has the row again, or at `flush`. A group may
        have its own; chosen at construction.
    seed : int, default 0
        The seed of the stochastic rounding, in [0, 2**64). The same seed gives the same bits, whatever the threads.
    state_dir : path, optional
        Keep the states in this folder, as memory-mapped ``.npy`` files, so that they may be larger than memory; where
        the folder has states of the same parameters, go on from them and their step counts. Parameters, options and
        seed are those given. One optimizer at a time may use a folder, in the process that made it: the folder is
        locked until the optimizer is gone, or `close` is called. It outlives the process, but one that ended within a
        step is refused, and only `save` is sure to outlive a power cut.

    Attributes
    ----------
    t : int
        The number of steps done.
    skipped : int
        The number of steps left out by ``skip_nonfinite``.
    grad_norm : float or None
        The norm of the last step's gradients, where it was asked to measure it.
    state : mapping
        Name of a state (``"m"``, ``"v"``, …) -> its arrays, one for each parameter; what is assigned is copied. One of
        8 bits is read as a read-only copy in float32, or complex64.
    param_groups : sequence
        The groups, each a mapping from option to value: assigning a value holds from the next step on.

    Raises
    ------
    TypeError, ValueError
        Before anything is touched: for an option, array or structure that is not as described.

    Notes
    -----
    A step releases the GIL: nothing else may write the arrays or the gradients, nor free their memory
    (``ndarray.resize(refcheck=False)``), while it runs. A second thread that steps, saves, loads or copies the
    optimizer meanwhile gets a RuntimeError; one that assigns options does so for the next step. An interrupt
    (KeyboardInterrupt, or what another signal's handler raises) is raised when the step, save or load that it came in
    is whole.

    Options are attributes too: ``opt.lr = 0.01`` sets the rate of every group. A group has three more. ``"frozen"``
    leaves it out of every step, its gradients unread. ``"name"`` is what messages and checkpoints call it. ``"extra"``
    has data of the caller's own.
    """

    __slots__ = ()
    grads: Grads | None = setting(default=None, kw_only=True)
    master_weights: bool = setting(default=False, check=options.flag, kw_only=True)
    state_dir: str | PathLike[str] | None = setting(default=None, kw_only=True)
    seed: int = setting(default=0, check=options.seed, kw_only=True)
    lr: Rate = option(check=options.rate_or_schedule)
    maximize: bool = option(default=False, check=options.flag, kw_only=True)
    bounds: tuple[float | None, float | None] | None = option(
        default=(-inf, inf), check=options.bounds, kw_only=True, hyper=("low", "high")
    )

    state_dtype: str | None = option(default=None, check=options.state_dtype, kw_only=True, fixed=True)
    rows: str = option(default="lazy", check=options.rows, kw_only=True, fixed=True)
    min_8bit_size: int = option(default=4096, check=options.count, kw_only=True, fixed=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.rules:
            raise TypeError(f"{type(self).__name__} has no rule; use a class of fastadam.optimizers, such as Adam")
        self.core: Core = self.made_of.make(type(self), self.bind(args, kwargs))

    def step(
        self,
        grads: Grads | None = None,
        grad_scale: float = 1.0,
        max_norm: float | None = None,
        clip_value: float | None = None,
        skip_nonfinite: bool = False,
        zero_grads: bool = False,
        max_norm_each: float | None = None,
        **unknown: NoReturn,
    ) -> None:
        """One step of every parameter, in place; `grads` are left untouched unless `zero_grads`.

        Parameters
        ----------
        grads : optional
            Gradients in the structure of the parameters, each of its parameter's shape, in any memory layout. Its dtype
            may be any that a parameter can have (a float64 number too large for a float32 parameter is infinite).
            Whatever else ``numpy.asarray`` reads as real numbers will do: integers, lists, arrays of JAX, tensors of
            PyTorch on the CPU, a number for a parameter without axes. A complex parameter takes complex ones, by
            torch's convention. None, for a parameter or for a whole part of the structure, leaves what stands there as
            it is, states and counts of steps included. May be left out where gradients were bound or the object brings
            them.
        grad_scale : float, default 1
            The gradients are this many times too large, from a scaled loss or a sum over as many batches: divide.
            In [2**-126, 2**126].
        max_norm : float, optional
            If the norm over all gradients, after that, is larger, scale them down to it, as torch's
            ``clip_grad_norm_`` does. Costs one more read of the gradients. ``opt.grad_norm`` tells the norm.
        max_norm_each : float, optional
            The same for each parameter's gradient by its own norm, without torch's 1e-6, as Keras's ``clipnorm`` does.
            Not together with `max_norm`. ``opt.grad_norm`` is the norm over all gradients, too.
        clip_value : float, optional
            Then clip each element to [-clip_value, clip_value].
        skip_nonfinite : bool, default False
            If any gradient holds a NaN or an infinity, change nothing at all, t and gradients included, but count it
            in ``opt.skipped``.
        zero_grads : bool, default False
            Leave zeros in the gradients, for the next sum.

        Raises
        ------
        TypeError, ValueError
            For a gradient, a structure, an option or a scheduled rate that does not fit: nothing has changed then.
        RuntimeError
            If there are no gradients, or another thread is inside a step of this optimizer.
        """
        if unknown:
            names.refuse_arguments(unknown, self.step)
        self.core.step(grads, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Step more arrays from now on, as a new group; its own step count, for its bias corrections, begins at zero.

        Parameters
        ----------
        group : dict
            Its arrays under ``"params"``, its own values of any option, and, where gradients are bound, its gradients
            under ``"grads"``. Gradients are given by group from now on.

        Raises
        ------
        TypeError, ValueError
            For a group that could not have been given at construction, or cannot be added to this optimizer.
        """
        with self.core.held():
            self.core.add_group(group)

    def replace(self, name: str, array: np.ndarray, rows: Any = None) -> None:
        """Step another array in the place of a parameter, of another length if need be.

        The array is put into the structure that was given. A tuple cannot be changed, so a new tuple takes its place in
        the structure; if the whole structure is that tuple, the new one is ``opt.params``.

        Parameters
        ----------
        name : str
            The parameter, called as in `state_dict`: ``"layers.0.W"``.
        array : array
            The new array: of the old one's shape and dtype, but for its length where `rows` are given.
        rows : sequence of int, or -1, optional
            For each row (the first axis) of the new array the old row whose states it continues, -1 for a new row. An
            old row may be continued by several, or by none. One -1 alone says that every row is new: the array may have
            any shape then. By default all rows stay.

        Raises
        ------
        TypeError, ValueError
            For an array, a name or rows that do not fit: nothing has changed then.

        Notes
        -----
        The count of the parameter's steps goes on, unless every row is new. The caller exchanges bound gradients.

        Examples
        --------
        >>> import numpy as np, fastadam
        >>> params = {"words": np.zeros((2, 3))}
        >>> opt = fastadam.Adam(params, lr=0.1)
        >>> opt.step({"words": np.ones((2, 3))})
        >>> opt.replace("words", np.vstack([params["words"], np.zeros((1, 3))]), rows=[0, 1, -1])
        >>> params["words"].shape, opt.state["m"][0][:, 0].round(3).tolist()
        ((3, 3), [0.1, 0.1, 0.0])
        """
        self.core.replace(name, array, rows)

    def flush(self, rows: Any = None) -> None:
        """Have rows make up for the steps that they missed, where the option `rows` is "exact"; else nothing happens.

        These rows and their states then have the bits of dense steps, whose gradients were zero where `Rows` had no
        row. Call it before you read or write a parameter, and before an `Average` of it is updated. These have all
        rows make up by themselves: saves and loads, copies, ``opt.state``, `reset`, `replace`, and ``swapped()``; so
        does a step that has a gradient of all rows, for its parameter.

        Parameters
        ----------
        rows : arrays of int, optional
            The numbers of the rows that are to make up, in any order, in the structure of the parameters. `Rows` may
            stand for its numbers, and None for no rows of a parameter. Left out: all rows of all parameters.
        """
        self.core.flush(rows)

    def zero_grad(self) -> None:
        """Set the bound gradients, or the object's, to zero (by the object's own ``zero_grad`` where it has one)."""
        self.core.zero_grads()

    def close(self) -> None:
        """Let another optimizer use the folder of ``state_dir``; this one steps no more. Else nothing happens."""
        if self.core.store.is_open:
            with self.core.plan:
                self.core.store.close()

    @property
    def rate(self) -> float | None:
        """The learning rate of the last step, of the first group; None before any step."""
        return self.core.rate()

    @property
    def skipped(self) -> int:
        """The number of steps left out by ``skip_nonfinite``."""
        return self.core.plan.skipped

    @property
    def grad_norm(self) -> float | None:
        """The norm over all gradients of the last step, before clipping; None if that step did not measure it."""
        return self.core.plan.grad_norm

    @property
    def state(self) -> States:
        """Name of a state -> its arrays, one a parameter, None where it has none; what is assigned is copied."""
        return States(self.core)
