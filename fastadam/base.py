"""`Optimizer`: the public methods that all optimizers share. `core.Core` does their work. The classes in `optimizers`
say what each algorithm adds.
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
    """The base class of all optimizers. It has no rule of its own: use `Adam` or another class.

    Parameters
    ----------
    params : array, sequence, mapping, sequence of dicts, or object
        The arrays to step. They are updated in place. Their dtypes may be float32, float64, float16, bfloat16 (of
        ml_dtypes), complex64 and complex128. `params` is one array; any nesting of dicts, lists and tuples of arrays;
        pairs of names and arrays; a list of groups as in torch, each a dict with its arrays under ``"params"`` and its
        own values of any option; or an object with ``.parameters`` (one of the former) and ``.grad`` (its gradients).
        Any memory layout is allowed; C or Fortran order is the fastest. The structure is read at each step: after
        ``params["W"] = new``, the new array is stepped, with the same states. The real and the imaginary part of a
        complex number are stepped as two numbers, as in torch.
    lr : float or callable
        The learning rate, or a function that takes the step count t = 1, 2, … and returns it.
    weight_decay : float
        The factor of the decay. Each class says whether it is L2, added to the gradient, or decoupled.
    maximize : bool
        Ascend along the gradient instead of descending.
    bounds : (float or None, float or None), default (-inf, inf)
        The smallest and the largest value of each element of a parameter. The step clips its result to them in the same
        pass, like ``numpy.clip``. A NaN stays NaN. Both parts of a complex number are clipped.
    grads : optional
        Gradients in the structure of `params`, bound once. Each ``step()`` without arguments reads this structure.
    backend : {"cython", "numba", "numpy"}
        What runs the rule. All give the same bits. "numpy" uses no compiled rule; "numba" needs Numba.
    n_threads : int, optional
        The number of threads that a step may use, with the caller's. Any number gives the same bits. The default is
        ``FASTADAM_NUM_THREADS``, or the number of processors that this process may run on. Only the caller's thread
        works on fewer than 30,000 elements, and with backend "numpy".
    master_weights : bool, default False
        Keep a float32 copy of each float16 and bfloat16 parameter among the states (``"master"``). The copy is stepped,
        and rounded to the parameter, so that steps too small for 16 bits add up. Where other code has changed an
        element of the parameter since, the next step starts from the changed value.
    state_dtype : {None, "bfloat16", "int8"}
        Keep the states in 16 bits, or in blocks of 8-bit floating-point codes (258 bytes for 256 elements): a half or a
        quarter of the memory. Rounding is stochastic: up with a probability equal to the discarded fraction, and so
        without bias. "bfloat16" needs ml_dtypes and real parameters. Neither is allowed for float64 and complex128.
        With "int8", states that are weights or are subtracted from one another stay float32: those of ASGD, z and x of
        ScheduleFreeAdamW, v and m of RMSprop with `centered`. A group may have its own value. Fixed at construction.
    min_8bit_size : int, default 4096
        With "int8", arrays with fewer elements have float32 states. Such states need little memory, and often matter
        most (biases, scales). A group may have its own value. Fixed at construction.
    rows : {"lazy", "exact"}, default "lazy"
        What a step by `Rows` does to the other rows of the parameter. "lazy": nothing, as ``SparseAdam`` of torch and
        ``LazyAdam`` of TensorFlow. Such a row and its states stay; only the step count of the parameter rises.
        "exact": what a gradient of zeros would do, but later, when `Rows` has the row again, or at `flush`. A group may
        have its own value. Fixed at construction.
    seed : int, default 0
        The seed of the stochastic rounding, in [0, 2**64). The same seed gives the same bits, with any `n_threads`.
    state_dir : path, optional
        Keep the states in this folder, in one memory-mapped file, so that they may be larger than memory. If the folder
        already has states of the same parameters, continue from these and their step counts, with the parameters,
        options and seed given here. The folder is locked: one optimizer at a time may use it, and only in
        the process that made the optimizer. The lock ends with the optimizer, or with `close`. The folder outlives the
        process. A folder whose process ended within a step is refused. After a power cut only a file of `save` is safe.

    Attributes
    ----------
    t : int
        The number of steps done.
    skipped : int
        The number of steps that ``skip_nonfinite`` left out.
    grad_norm : float or None
        The norm of the last step's gradients; None if that step did not measure it.
    state : mapping
        Name of a state (``"m"``, ``"v"``, …) -> its arrays, one for each parameter. Assignment copies the values. An
        8-bit state is read as a read-only copy in float32, or complex64.
    param_groups : sequence
        The groups, each a mapping from option to value. A value that is assigned holds from the next step on.

    Raises
    ------
    TypeError, ValueError
        For an option, array or structure that is not as described. Nothing has changed then.

    Notes
    -----
    A step releases the GIL. While it runs, nothing else may write the arrays or the gradients, or free their memory
    (``ndarray.resize(refcheck=False)``). A second thread that steps, saves, loads or copies the optimizer meanwhile
    gets a RuntimeError. An option that a second thread assigns meanwhile holds from the next step on. An interrupt
    (KeyboardInterrupt, or an exception from another signal's handler) is raised after the step, save or load is
    complete.

    Options are attributes too: ``opt.lr = 0.01`` sets the learning rate of every group. A group has three more options.
    ``"frozen"`` leaves the group out of every step; its gradients are not read. ``"name"`` is its name in messages and
    checkpoints. ``"extra"`` holds the caller's own data.
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
        """Do one step of every parameter, in place. The gradients stay as they are, except with `zero_grads`.

        Parameters
        ----------
        grads : optional
            Gradients in the structure of the parameters. Each has the shape of its parameter, and any memory layout.
            Its dtype may be any that a parameter can have (a float64 value too large for a float32 parameter becomes
            infinite). Other objects that ``numpy.asarray`` reads as real numbers are accepted: integers, lists, arrays
            of JAX, CPU tensors of PyTorch, a number for a 0-dimensional parameter. A complex parameter takes complex
            gradients, with torch's convention. None, for one parameter or for a part of the structure, leaves the
            parameters there unchanged, with their states and step counts. `grads` may be omitted if gradients were
            bound, or if the object has them.
        grad_scale : float, default 1
            Divide the gradients by this number, for a scaled loss or a sum over several batches. In [2**-126, 2**126].
        max_norm : float, optional
            The largest norm over all gradients, after `grad_scale`. If the norm is larger, the gradients are scaled
            down to it, as by ``clip_grad_norm_`` of torch. This reads the gradients once more, and sets
            ``opt.grad_norm``.
        max_norm_each : float, optional
            The largest norm of each parameter's own gradient, as ``clipnorm`` of Keras (torch's 1e-6 is not added).
            It excludes `max_norm`. It sets ``opt.grad_norm`` to the norm over all gradients, too.
        clip_value : float, optional
            Clip each element to [-clip_value, clip_value], after the norm was limited.
        skip_nonfinite : bool, default False
            If any gradient has a NaN or an infinity, change nothing, not even t and the gradients; only
            ``opt.skipped`` is incremented.
        zero_grads : bool, default False
            Set the gradients to zero, ready for the next accumulation.

        Raises
        ------
        TypeError, ValueError
            For a gradient, structure, option or scheduled learning rate that does not fit. Nothing has changed then.
        RuntimeError
            If there are no gradients, or if another thread is within a step of this optimizer.
        """
        if unknown:
            names.refuse_arguments(unknown, self.step)
        self.core.step(grads, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a new group of arrays to step. Its step count, which its bias corrections use, starts at zero.

        Parameters
        ----------
        group : dict
            The arrays under ``"params"``, and the group's own values of any option. If gradients are bound, also the
            group's gradients under ``"grads"``. From now on `step` takes a list of gradients, one item for each group.

        Raises
        ------
        TypeError, ValueError
            For a group that is not valid at construction either, or that cannot be added to this optimizer.
        """
        with self.core.held():
            self.core.add_group(group)

    def replace(self, name: str, array: np.ndarray, rows: Any = None) -> None:
        """Replace the array of a parameter, also by one of another length.

        The new array is put into the structure that was given. A tuple cannot be changed, so a new tuple takes its
        place in the structure. If the structure itself is that tuple, the new one is ``opt.params``.

        Parameters
        ----------
        name : str
            The name of the parameter, as in `state_dict`: ``"layers.0.W"``.
        array : array
            The new array. It has the shape and dtype of the old one; with `rows` its length may differ.
        rows : sequence of int, or -1, optional
            For each row of the new array (first axis), the old row whose states it takes over, or -1 for a new row. An
            old row may be named several times, or not at all. A single -1 means that every row is new; the array may
            then have any shape. By default all rows stay.

        Raises
        ------
        TypeError, ValueError
            For an array, a name or rows that do not fit. Nothing has changed then.

        Notes
        -----
        The step count of the parameter goes on, unless every row is new. The caller replaces bound gradients.

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
        """Apply the steps that rows have missed, if the option `rows` is "exact". Otherwise nothing happens.

        The rows and their states then have the same bits as after dense steps, with zero gradients where `Rows` had no
        row. Call this before you read or write a parameter, and before you update an `Average` of it. The following
        flush all rows by themselves: saving, loading, copying, ``opt.state``, `reset`, `replace` and ``swapped()``. A
        step with a gradient of all rows flushes its parameter.

        Parameters
        ----------
        rows : arrays of int, optional
            The numbers of the rows, in any order, in the structure of the parameters. A `Rows` stands for its numbers,
            and None for no rows of a parameter. By default all rows of all parameters.
        """
        self.core.flush(rows)

    def zero_grad(self) -> None:
        """Set the bound gradients, or those of the object, to zero. If the object has a ``zero_grad``, call that."""
        self.core.zero_grads()

    def close(self) -> None:
        """Unlock the folder of ``state_dir`` for another optimizer; this one cannot step any more. Else do nothing."""
        if self.core.store.is_open:
            with self.core.plan.visit():
                self.core.store.close()

    @property
    def rate(self) -> float | None:
        """The learning rate of the first group in the last step; None before the first step."""
        return self.core.rate()

    @property
    def skipped(self) -> int:
        """The number of steps that ``skip_nonfinite`` left out."""
        return self.core.plan.skipped

    @property
    def grad_norm(self) -> float | None:
        """The norm over all gradients of the last step, before clipping. None if that step did not measure it."""
        return self.core.plan.grad_norm

    @property
    def state(self) -> States:
        """Name of a state -> its arrays, one for each parameter, None where it has none. Assignment copies values."""
        return States(self.core)
