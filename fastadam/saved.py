"""`Saved`: the methods that save and load an optimizer's state, as a dict and in files."""

from collections.abc import Mapping
from typing import Any

from . import options
from .core import Core
from .kernel._signals import deferred_signals
from .state import files
from .state.places import Place
from .state.snapshot import Loaded, fit_dict


class Saved:
    """Mixin with the methods that save and load."""

    core: Core

    def state_dict(self) -> dict[str, Any]:
        """A dict of plain values and arrays: a copy of all that a later run needs, except the parameters.

        The items are ``"optimizer"``, ``"t"``, ``"skipped"``, ``"seed"``; ``"param_groups"``: the options of each
        group, with the keys of its parameters; ``"steps"``: key of a parameter -> the number of its steps; ``"state"``:
        key of a parameter -> name of a state -> array. A key is the path in the structure, such as ``layers.0.W``. With
        several groups, the group's name and a dot come first, or its number if it has no name.

        An 8-bit state is stored as its bytes, in the memory order of its parameter. ``"shapes"`` has the shapes of
        these parameters. ``"orders"`` has their axes from the slowest to the fastest, if that is not C order.
        """
        with self.core.held_whole():
            return self.core.snapshot().as_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any], *, strict: bool = True, convert: bool = False) -> Loaded:
        """Continue from a dict of `state_dict`, made by an optimizer of the same class.

        Parameters
        ----------
        state_dict : mapping
            From this optimizer, or from one whose parameters have the same keys, shapes and dtypes.
        strict : bool, default True
            Refuse a dict that does not fit. With False, the parts that fit are loaded, as in `load`.
        convert : bool, default False
            Convert states of another dtype, as in `load`.

        Returns
        -------
        Loaded
            What was left out, as in `load`; ``params`` is False.

        Raises
        ------
        TypeError, ValueError
            If anything does not fit. Nothing has changed then.
        """
        core, strict, convert = self.core, options.flag("strict", strict), options.flag("convert", convert)
        with core.held() as plan:
            fit = fit_dict(core.snapshot(), state_dict, core.groups.check, plan.writes, strict, convert)
            core.take(fit)
        return fit.loaded

    def save(self, path: Place, *, params: bool = False) -> None:
        """Write the contents of `state_dict` to a file; with `params` also the parameters.

        Not in the file are: the parameters, unless `params` is True; gradients; a function as lr that is no schedule of
        `fastadam.schedules`; and what only the constructor takes, such as ``n_threads``, ``backend`` and ``state_dir``.

        Parameters
        ----------
        path : path or open binary file
            A file at a path is written atomically: under another name, synced, and then renamed. A crash at any moment
            leaves the old file or the new one, and perhaps a ``.fastadam-….tmp``. The mode of an old file stays, also
            while the new one is written. An open file (``io.BytesIO``,
            ``gzip.open(…, "wb")``, anything with ``write``) is written from its present position, and stays open. If
            that fails, a part of the data remains in it.
        params : bool, default False
            Write the parameters, too.

        Raises
        ------
        OSError
            If the file cannot be written. The old file has not changed then.
        TypeError, ValueError
            For a text file or a closed file, or if ``extra`` of a group cannot be written as JSON. Nothing is written
            then.

        Notes
        -----
        The file is an ``.npz`` of plain arrays. The state ``m`` of the parameter ``W`` is the array ``m/W``; an 8-bit
        state is stored as its bytes (see `state_dict`). The states may be larger than memory. If the name of the file
        ends in ``.safetensors``, the file has that format, with complex arrays as pairs of real numbers. ``extra`` is
        saved as JSON, so a tuple becomes a list.
        """
        with self.core.held_whole():
            files.save(path, self.core.snapshot(), params)

    def load(self, path: Place, *, strict: bool = True, params: bool | None = None, convert: bool = False) -> Loaded:
        """Continue from a file of `save`: options, step counts, states, and the parameters if the file has them.

        Parameters
        ----------
        path : path or open binary file
            The format is recognized by the contents. A path must be that of a regular file. An open file (anything with
            ``read``) is read into memory, from its present position to its end, and stays open.
        strict : bool, default True
            Refuse a file that does not fit. With False, a parameter is loaded if its key, shape, dtype and states are
            those in the file: all of its states, its step count, and its values if the file has them. Any other
            parameter keeps its own. A group takes over the options of the group that its parameters were in, except
            those that do not fit. If any parameter is loaded, ``t``, ``skipped`` and ``seed`` come from the file, with
            ``t`` at least the step count of every parameter. A damaged file, or one of another class, is refused.
        params : bool, optional
            Whether to load the parameters themselves. By default they are loaded if the file has them, which they are
            only after ``save(path, params=True)``; if not, there is a warning. With False they are not loaded. With
            True a file without parameters is refused.
        convert : bool, default False
            Convert states between 8 bits, bfloat16, float32 and float64, rounded to nearest, to the dtype that the
            optimizer has. By default other dtypes are refused, and so are 8-bit states of a parameter with another
            memory order. Parameters are never converted. The optimizer always keeps its own ``state_dtype`` and
            ``min_8bit_size``.

        Returns
        -------
        Loaded
            What was not loaded: ``missing`` (keys of parameters that the file does not have), ``unexpected`` (keys that
            only the file has), ``unfit`` (keys of parameters that differ), ``options`` (those that did not change). The
            flag ``params`` says whether the parameters were loaded. With `strict` the lists are empty.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is damaged, is not a checkpoint, or has other parameters. With `convert` also for a number that
            is too large for the optimizer's dtype, or that is negative in a state without sign. Nothing has changed
            then.

        Notes
        -----
        The arrays are first read into memory, and checked there. A file larger than half of the memory, or than what is
        left of it, is mapped instead. If another process shortens it meanwhile, the system ends this process.

        A schedule that follows a loss (`fastadam.schedules.plateau`) remains the same object, and takes the saved
        values. All code that reports to it, or shares it, continues to work. If the optimizer has another kind of
        rate, a new schedule is made.

        Examples
        --------
        Load the body of a model that has a new head:

        >>> import io, numpy as np, fastadam
        >>> old = fastadam.Adam({"body": np.zeros(4), "head": np.zeros(3)}, lr=0.1)
        >>> old.step({"body": np.ones(4), "head": np.ones(3)})
        >>> file = io.BytesIO()
        >>> old.save(file, params=True)
        >>> new = fastadam.Adam({"body": np.ones(4), "head": np.zeros(5)})
        >>> _ = file.seek(0)
        >>> new.load(file, strict=False)
        Loaded(missing=[], unexpected=[], unfit=['head'], options=[], params=True)
        >>> new.params["body"]
        array([-0.1, -0.1, -0.1, -0.1])
        """
        core, strict, convert = self.core, options.flag("strict", strict), options.flag("convert", convert)
        with core.plan.visit():
            core.read_anew()
            own, wanted = core.snapshot(), options.flag_or_none("params", params)
            with files.load(path, own, core.groups.check, strict, wanted, convert) as fit, deferred_signals():
                core.take(fit)
        return fit.loaded
