"""`Saved`: the methods by which an optimizer's state survives, as a dict and in files."""

from collections.abc import Mapping
from typing import Any

from . import options
from .core import Core
from .kernel._signals import deferred_signals
from .state import files
from .state.places import Place
from .state.snapshot import Loaded, fit_dict


class Saved:
    """What an optimizer can be saved as, and go on from."""

    core: Core

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that a later run needs beside the parameters, as a dict of plain values and arrays.

        ``"optimizer"``, ``"t"``, ``"skipped"``, ``"seed"``; ``"param_groups"``: options by group, with the keys of its
        parameters; ``"steps"``: key of a parameter -> the steps that it has done; ``"state"``: key of a parameter ->
        name of a state -> array. A key is the path in the structure, as ``layers.0.W``; with several groups the group's
        name, or its number where it has none, and a dot come first.

        An 8-bit state is its bytes, in the order in which its parameter lies in memory: ``"shapes"`` has the shape of
        such parameters, and ``"orders"`` their axes from the slowest to the fastest where that is not C order.
        """
        with self.core.held_whole():
            return self.core.snapshot().as_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any], *, strict: bool = True, convert: bool = False) -> Loaded:
        """Go on from what `state_dict` of an optimizer of this class gave.

        Parameters
        ----------
        state_dict : mapping
            Of this optimizer, or of one over parameters of the same keys, shapes and dtypes.
        strict : bool, default True
            Refuse what does not fit. With False, what fits is taken, as in `load`.
        convert : bool, default False
            Take states of another dtype, too, as in `load`.

        Returns
        -------
        Loaded
            What was left out, as in `load`; ``params`` is False.

        Raises
        ------
        TypeError, ValueError
            If anything does not fit: nothing has changed then.
        """
        core, strict, convert = self.core, options.flag("strict", strict), options.flag("convert", convert)
        with core.held() as plan:
            fit = fit_dict(core.snapshot(), state_dict, core.groups.check, plan.writes, strict, convert)
            core.take(fit)
        return fit.loaded

    def save(self, path: Place, *, params: bool = False) -> None:
        """Write what `state_dict` tells to a file, with `params` also the parameters.

        Parameters
        ----------
        path : path or open binary file
            A path is written whole, or not at all: beside it, synced, and put in its place, so that a crash at any
            moment leaves the old file or the new one, and perhaps a ``.fastadam-….tmp``. An open file (``io.BytesIO``,
            ``gzip.open(…, "wb")``, anything with ``write``) is written from where it stands, and left open; a save that
            fails leaves a part there.
        params : bool, default False
            Write the parameters, too.

        Raises
        ------
        OSError
            If the file cannot be written: the old one is as it was.
        TypeError, ValueError
            For a file of text, or one that is closed; for ``extra`` of a group that JSON has no form for. Nothing is
            written then.

        Notes
        -----
        The file is an ``.npz`` of plain arrays: the state ``m`` of the parameter ``W`` is the array ``m/W``, of 8 bits
        its bytes (see `state_dict`); it may be of states larger than memory. By the suffix ``.safetensors`` of the
        path, or of the open file's name, it is of that format, in which complex arrays are pairs of real numbers. A
        function as lr is not saved, schedules of `fastadam.schedules` are. ``extra`` is saved as JSON: a tuple comes
        back as a list.
        """
        with self.core.held_whole():
            files.save(path, self.core.snapshot(), params)

    def load(self, path: Place, *, strict: bool = True, params: bool | None = None, convert: bool = False) -> Loaded:
        """Go on from what `save` wrote: options, step counts, states, and the parameters where the file has them.

        Parameters
        ----------
        path : path or open binary file
            What it holds tells the format. An open file (anything with ``read``) is read into memory, from where it
            stands to its end, and left open.
        strict : bool, default True
            Refuse a file that does not fit. With False each parameter is taken whose key, shape, dtype and states are
            those of the file, with all of its states and its step count, and with its values where they are there; any
            other keeps its own. A group takes the options of the group that its parameters were in, but for those that
            cannot be taken. Where any parameter is taken, ``t``, ``skipped`` and ``seed`` are those of the file, but
            ``t`` is no less than the steps of any parameter. A damaged file, or one of another class, is refused.
        params : bool, optional
            Whether to load the parameters themselves. By default they are where the file has them, and a warning says
            where it has not: with False it says nothing, and with True such a file is refused.
        convert : bool, default False
            Take states of another dtype, too: those of 8 bits, bfloat16, float32 or float64, rounded to nearest, to
            what the optimizer keeps. By default they are refused, and so are 8-bit states of a parameter that lies in
            memory in another order. Parameters themselves are never converted. In either case the optimizer keeps its
            own ``state_dtype`` and ``min_8bit_size``.

        Returns
        -------
        Loaded
            What was left out: ``missing`` (keys of parameters that the file has not), ``unexpected`` (of those that
            only the file has), ``unfit`` (of those that are others there), ``options`` (that stay as they are); and
            whether the parameters were loaded, ``params``. With `strict` the lists are empty.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, no checkpoint, or one of other parameters; with `convert` also for a number too large for
            the optimizer's dtype, or below zero where that has no sign. Nothing has changed then.

        Notes
        -----
        A schedule that follows a loss (`fastadam.schedules.plateau`) stays the object that it is, and becomes what was
        saved: all who report to it, or share it, go on with it. Where the optimizer has another kind of rate, it gets a
        new one.

        Examples
        --------
        A new head on an old body:

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
        with core.plan:
            core.read_anew()
            own, wanted = core.snapshot(), options.flag_or_none("params", params)
            with files.load(path, own, core.groups.check, strict, wanted, convert) as fit, deferred_signals():
                core.take(fit)
        return fit.loaded
