"""`Sharded`: an optimizer whose states and work are divided among the ranks of a communicator, if that is faster. It is
an optimizer of the given class over this rank's pieces of the parameters. This module has what all ranks do together.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any, NoReturn

import numpy as np
from mpi4py import MPI

from .. import names, options
from ..base import Optimizer
from ..core import Core, Origin, checked_groups
from ..kernel import checks
from ..kernel._signals import deferred_signals
from ..kernel._stepper import are_same
from ..kernel.checks import shown
from ..state.places import Place
from ..state.snapshot import Fit, Loaded
from ..stepped import Swapping
from ..tree import Grads, Params
from . import layout, shard_files, shards
from .exchange import Exchange
from .layout import ALL, Piece
from .memory import Memory, Whole
from .ranks import Disagreement, Ranks
from .swapping import SwappingOfRanks
from .tables import Moved, Tables


class Sharded(Optimizer):
    """An optimizer on each rank of a communicator that keeps and steps this rank's share of the states (ZeRO stage 1).

    Every rank holds all parameters, and computes gradients from its own part of a batch. A step averages the gradients
    over the ranks. Each rank steps its share of the elements, and all ranks get all stepped parameters. The result is
    that of one process that steps the averaged gradient, also for clipping by norm, ``skip_nonfinite``, schedules,
    groups, master weights and the random bits of 16-bit and 8-bit states. If the parameters are small, each rank keeps
    all states and steps all elements, with the same sums.

    Parameters
    ----------
    optimizer : type
        The class of the optimizer: `fastadam.Adam`, another one, or one made by `fastadam.optimizer`.
    params : array, sequence, mapping, or sequence of dicts
        As for that optimizer, with the same structure, shapes and dtypes on every rank. All ranks get the values of
        rank 0. The arrays are stepped in place. Arrays from `flat`, or arrays in a row in one array, are sent without a
        copy; others are copied to a buffer and back at each step. Shares are cut once: a new array in the structure,
        as after ``params["W"] = new``, is refused. Write into the old array.
    comm : mpi4py.MPI.Intracomm, optional
        The communicator, by default ``MPI.COMM_WORLD``. The optimizer uses a duplicate, so other messages do not
        interfere. The duplicate is freed with the communicator.
    comm_dtype : {None, "bfloat16"}
        The dtype in which gradients are sent. None: float64 for float64 parameters, float32 for others. "bfloat16":
        rounded to 16 bits, and summed in float32; not for float64 parameters. Parameters are sent in their own dtype.
    bucket_bytes : int, default 16 MiB
        The number of bytes of parameters that are sent and stepped at a time. For 8-bit states, shares and buckets are
        rounded to blocks of 256 elements, so that the blocks are those of whole parameters. If a rank's share of a
        bucket has at least 16 rows of a parameter, they are rounded to whole rows, for `Rows`.
    replicate_below : int, default 4 MiB over the square of the number of ranks
        If all parameters together have fewer bytes, nothing is divided: each rank sends its gradients to all, sums
        those of all in the order of the ranks, and steps everything. Parameters are not sent, so a change of them
        between steps must be the same on all ranks. With 0 the parameters are always divided.
    **options
        The options of the optimizer and of `fastadam.Optimizer`, the same on every rank, except `rows` = ``"exact"``.
        By default the ranks of a machine share its processors as threads. ``state_dir`` is a folder in which each rank
        has its own folder.

    Attributes
    ----------
    grads :
        The gradients, in the structure of `params`. Write them there to avoid a copy. They are float64 for float64
        parameters, else float32. A `Rows` may replace an array.
    groups and states : ``param_groups``, ``state``
        Those of this rank's pieces. The pieces are named by place (``W[0:500]``), and have whole rows or one axis.
    comm :
        The communicator that was given.

    Raises
    ------
    Disagreement
        On every rank, from any method that all ranks have to call (the constructor, `step`, `save`, `load`,
        `state_dict`, `load_state_dict`): if the ranks differ in shapes, dtypes, options, step counts, or in the method
        that they call; if another rank refuses its arguments, or has left. Nothing has changed then.
    TypeError, ValueError
        On the rank whose arguments are wrong. The other ranks raise `Disagreement`.

    Notes
    -----
    Runs with the same number of ranks give the same bits. With one rank they are those of the plain optimizer (except
    random bits, and 8-bit blocks, of arrays that are not in C order). With another number of ranks the sum over the
    ranks has another order, and so other bits. On more than two ranks a divided step differs in this way, too, from one
    that is not divided.

    An exception that ends the program on one of several ranks ends the job: importing `fastadam.mpi` makes
    ``sys.excepthook`` name the rank, and call ``Abort``. At the end of the program the ranks wait for one another, as
    MPI itself does.

    Source: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, 2020, stage 1.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> from fastadam.mpi import Sharded, flat
    >>> params = flat({"W": np.ones((2, 3)), "b": np.zeros(3)})
    >>> opt = Sharded(fastadam.Adam, params, lr=0.5)
    >>> opt.grads["W"][...] = 1.0  # each rank's own gradient
    >>> opt.step(max_norm=1.0)
    >>> params["W"]
    array([[0.50000001, 0.50000001, 0.50000001],
           [0.50000001, 0.50000001, 0.50000001]])
    """

    def __new__(
        cls, optimizer: type[Optimizer], params: Any = None, comm: "MPI.Intracomm | None" = None, **options: Any
    ) -> "Sharded":
        """An object of a class derived from both Sharded and the optimizer."""
        if cls is not Sharded:
            raise TypeError(f"{cls.__name__}: a subclass of Sharded; make one of the optimizer, and give it to Sharded")
        is_one = isinstance(optimizer, type) and issubclass(optimizer, Optimizer) and optimizer is not Optimizer
        if not is_one or issubclass(optimizer, Sharded):
            with Ranks.of(comm).all_or_none("Sharded"):
                raise TypeError(f"optimizer: expected a class, such as fastadam.Adam, got {shown(optimizer)}")
        return object.__new__(_sharded(optimizer))  # type: ignore[arg-type]

    def __init__(
        self,
        optimizer: type[Optimizer],
        params: Params,
        comm: "MPI.Intracomm | None" = None,
        *,
        comm_dtype: str | None = None,
        bucket_bytes: int = 1 << 24,
        replicate_below: int | None = None,
        **options: Any,
    ) -> None:
        self._comm = MPI.COMM_WORLD if comm is None else comm
        with deferred_signals():
            self._make(params, comm_dtype, bucket_bytes, replicate_below, options)

    @property
    def comm(self) -> "MPI.Intracomm":
        """The communicator that was given."""
        return self._comm

    def _make(
        self, params: Any, comm_dtype: Any, bucket_bytes: Any, replicate_below: Any, given: dict[str, Any]
    ) -> None:
        ranks = self._ranks = Ranks.of(self._comm)
        with ranks.all_or_none("Sharded") as agree:
            in_bfloat16 = options.in_bfloat16("comm_dtype", comm_dtype)
            bucket_bytes = checks.whole("bucket_bytes", bucket_bytes, 1)
            if replicate_below is None:
                replicate_below = layout.REPLICATE_BELOW // ranks.size**2
            replicate_below = checks.whole("replicate_below", replicate_below, 0)
            if "grads" in given:
                raise ValueError("grads: a sharded optimizer has its own; write to .grads, or pass them to step()")
            if given.get("state_dir") is not None:
                given["state_dir"] = shards.state_dir(given["state_dir"], ranks)
            self._whole = Whole(params)
            if in_bfloat16:
                self._whole.refuse_doubles("comm_dtype")
            fields = self.bind((params,), {"n_threads": ranks.n_threads, **given})
            groups = checked_groups(type(self), fields, self._whole.tree)
            if any(values["rows"] == "exact" for values in groups.values):
                raise ValueError(
                    "rows: 'exact' is not possible with ranks, which would read old rows of each other; leave rows out"
                )
            is_divided = sum(p.nbytes for p in self._whole.params) >= replicate_below
            n_shares, most = (ranks.size, bucket_bytes) if is_divided else (1, ALL)
            self._layout = self._whole.layout(n_shares, most, groups.values)
            self._memories = [Memory(run, self._whole.params) for run in self._layout.runs]
            self._exchange = Exchange(ranks, self._memories, self._layout, in_bfloat16)
            grads = dict(pair for memory in self._memories for pair in memory.grads_by_param().items())
            self._grads = [grads[number] for number in range(len(grads))]
            pieces, shares = self._cut()
            origins = [Origin(piece.param, piece.begin, self._whole.params[piece.param].size) for piece in self._own]
            arrays = [p for group in pieces for p in group["params"].values()]
            self._tables = Tables(ranks, self._whole, self._layout, self._own, arrays, in_bfloat16)
            with shards.folder_opened(n_shares):
                self.core = Core.make(type(self), fields | {"params": pieces, "grads": shares}, origins)
            self.core.settings |= {"params": params, "grads": self._whole.tree.unflatten(self._grads)}
            self._number = ranks.n_made
            more = {
                "number": self._number,
                "bucket_bytes": bucket_bytes,
                "replicate_below": replicate_below,
                "comm_dtype in bfloat16": in_bfloat16,
                "master_weights": self.master_weights,
            }
            with self._folder_undone_on_disagreement():
                agree(shards.description(self._shard(), **more))
            ranks.n_made += 1
        with self._folder_undone_on_disagreement():
            if self.t:  # the states were in folders
                shards.whole_steps("Sharded", ranks, self._shard())
            with ranks.all_or_none("Sharded: its values") as agree:
                agree({"number": self._number})
                self._take_values_of_first()

    @contextmanager
    def _folder_undone_on_disagreement(self) -> Iterator[None]:
        """Close the folder of a refused optimizer: the traceback would keep it locked."""
        try:
            yield
        except Disagreement:
            store = self.core.store
            if store.folder is not None:
                store.folder.undo()
                store.close()
            raise

    def _cut(self) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """The groups of this rank's pieces, and their gradients. Every group has at least one piece, perhaps an empty
        one. So has an empty array, since checkpoints have its states, too."""
        exchange, rank, whole = self._exchange, self._layout.share_of(self._ranks.rank), self._whole
        cut: list[list[tuple[int, Piece, np.ndarray, np.ndarray]]] = [[] for _ in whole.options]
        for k, piece, place in self._layout.pieces(rank):
            bucket = self._layout.buckets[k]
            first, size = place - bucket.share(rank).start, piece.end - piece.begin
            values = self._memories[bucket.run].values[place : place + size]
            is_rows = piece.param in self._layout.by_rows
            shape = (-1, *whole.params[piece.param].shape[1:]) if is_rows else (-1,)
            share = exchange.shares[k][first : first + size]
            cut[whole.group_of[piece.param]].append((k, piece, values.reshape(shape), share.reshape(shape)))
        for number, p in enumerate(whole.params):
            pieces_of_group = cut[whole.group_of[number]]
            if not (p.size and pieces_of_group):
                empty = np.empty(0, p.dtype), np.empty(0, checks.computed_in(p))
                pieces_of_group.append((-1, Piece(number, 0, 0), *empty))
        flat = [part for pieces in cut for part in pieces]
        self._own = [piece for _, piece, _, _ in flat]
        last = {k: place for place, (k, *_) in enumerate(flat, start=1)}
        end = 0
        for k in range(len(self._layout.buckets)):
            end = last.get(k, end)
            exchange.ends.append(end)
        groups = [
            {"params": {piece.label(whole.short_keys[piece.param]): p for _, piece, p, _ in pieces}, **own}
            for pieces, own in zip(cut, whole.options, strict=True)
        ]
        return groups, [share for *_, share in flat]

    def _take_values_of_first(self) -> None:
        """Copy the parameters of rank 0 to all, and to states that start as copies, unless a folder has states."""
        self._exchange.broadcast()
        if self.t == 0:
            self.core.begin_as_params()

    def _shard(self) -> shards.Shard:
        """This rank's share as plain data. The caller holds the plan."""
        own = self.core.snapshot()
        state = {key: {name: array.reshape(-1) for name, array in arrays.items()} for key, arrays in own.state.items()}
        own = replace(own, state=state, params={key: p.reshape(-1) for key, p in own.params.items()})
        return shards.Shard(own, self._own, self._whole, self._layout, self._number, self._hyper())

    def _hyper(self) -> list[dict[str, float]]:
        """The hyper-parameters of each group by name."""
        rules, plan = self.core.groups.rules, self.core.plan
        return [dict(zip(rule.hyper, plan.hyper(k), strict=True)) for k, rule in enumerate(rules)]

    @contextmanager
    def _held(self) -> Iterator[shards.Shard]:
        self._whole.need_same_arrays()
        with self.core.held():
            yield self._shard()

    @contextmanager
    def _held_whole(self) -> Iterator[shards.Shard]:
        self._whole.need_same_arrays()
        with self.core.held_whole():
            yield self._shard()

    def _take(self, fit: Fit, has_params: bool) -> None:
        self.core.take(fit)
        if has_params:
            self._exchange.gather()

    def step(
        self,
        grads: Grads | None = None,
        grad_scale: float = 1.0,
        max_norm: float | None = None,
        clip_value: float | None = None,
        skip_nonfinite: bool = False,
        zero_grads: bool = False,
        max_norm_each: float | None = None,
        weight: float = 1.0,
        **unknown: NoReturn,
    ) -> None:
        """Do one step on all ranks, with the average of their gradients; see `Optimizer.step`.

        The average is the sum of weight · gradient over the ranks, divided by the sum of the weights. If each rank's
        gradient is a mean over its rows of data, and `weight` is their number, it is the mean over all rows of data.

        Parameters
        ----------
        grads : optional
            This rank's gradients in the structure of the parameters, if they are not yet in ``.grads``. They are copied
            there, except `Rows`. If one rank passes `Rows` for a parameter, all must, perhaps without rows. Then rows
            are exchanged, and the average is that of the rows of all ranks, in the order of the ranks.
        grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each :
            As in `Optimizer.step`, the same on every rank. Norms, clipping and the test for finite numbers apply to the
            average, with norms of whole parameters. `zero_grads` zeroes ``.grads``.
        weight : float, default 1
            The weight of this rank's gradients in the average, from 0 to 2**126. Ranks may have different weights. Use
            0 for a rank without a batch: its gradients are not read and may be anything, but they must be `Rows` where
            other ranks pass `Rows`.

        Raises
        ------
        ValueError
            On every rank, if `weight` is 0 on every rank. Nothing has changed then.
        """
        with deferred_signals():
            extras = grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each
            self._step(grads, extras, weight, unknown)

    def _step(self, grads: Any, given_extras: tuple[Any, ...], weight: Any, unknown: dict[str, Any]) -> None:
        moved = self._moved(grads, weight)
        with self._ranks.all_or_none("step") as agree:
            if unknown:
                names.refuse_arguments(unknown, self.step)
            extras = checks.of_step(*given_extras)
            weight = checks.weight("weight", weight)
            self._whole.need_same_arrays()
            self._whole.need_writeable()
            given = self._fitting(grads, moved.params if moved else ()) if weight else []
            core = self.core

            def begin() -> None:
                self._exchange.weigh(agree(lambda: self._said(extras), weight, self._compared(extras)))
                if given:
                    _copy(given)

            with self._exchange.for_step(begin, extras["zero_grads"], moved):
                core.plan.step(
                    self._summed(moved),
                    factor=1.0 / self._ranks.size,
                    before=core.prepare_step,
                    exchange=self._exchange,
                    **{**extras, "zero_grads": False},  # the exchange zeroes `.grads`
                )

    def _compared(self, extras: dict[str, Any]) -> tuple[Any, ...]:
        """The values that must be equal on all ranks in a step: the counts and the present options."""
        plan, groups = self.core.plan, self.core.groups
        hyper = [plan.hyper(k) for k in range(len(groups))]
        return self._number, groups.frozen, plan.t, plan.seed, hyper, *extras.values()

    def _said(self, extras: dict[str, Any]) -> dict[str, Any]:
        """The same by name."""
        numbers = shards.numbers(self.core.plan.t, self.core.plan.seed, self._hyper())
        return {"number": self._number, "frozen": self.core.groups.frozen, **numbers, **extras}

    def _summed(self, moved: Moved | None) -> Sequence[Any]:
        """The plan's gradients: sums of gradients and rows of all ranks; None for frozen parameters."""
        groups = self.core.groups
        bound: Sequence[Any] = self.core.bound
        if moved is None and True not in groups.frozen:
            return bound
        rows, own = moved.grads if moved else {}, enumerate(zip(bound, groups.frozen_params, strict=True))
        return [None if is_out else rows.get(place, g) for place, (g, is_out) in own]

    def _moved(self, grads: Any, weight: Any) -> Moved | None:
        """The rows of all ranks, sent to the ranks that step them. None if this rank passes only arrays. Then no rank
        may pass rows: such a rank would be in another act than `step`."""
        given = self._tables.among(self.grads if grads is None else grads)
        if not given:
            return None
        with self._ranks.all_or_none("step by Rows") as agree:
            weight = checks.weight("weight", weight)
            found = {k: self._tables.fitting(k, g, weight > 0) for k, g in given.items()}
            keys = [self._whole.keys[k] for k in given]
            self._exchange.weigh(agree({"number": self._number, "parameters whose gradients are Rows": keys}, weight))
            return self._tables.move(found, self._exchange.weighed)

    def _fitting(self, grads: Any, but: Collection[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of the place in ``.grads`` and the checked gradient to copy there, without the parameters in `but`.
        None stands for ``.grads``, where nothing has to be copied."""
        found, whole = [], self._whole
        flat = whole.flat_grads(self.grads if grads is None else grads)
        if are_same(flat, self._grads):
            return []
        every = zip(whole.names, flat, whole.params, self._grads, strict=True)
        for number, (name, g, p, view) in enumerate(every):
            if g is view or number in but:
                continue
            if grads is None:
                raise TypeError(f"grads: that of {name} was replaced; write into the old array: opt.grads[…][...] = …")
            if g is None:
                raise TypeError(f"gradient of {name}: is None; to leave it out, freeze its group on every rank")
            g = checks.gradient(name, g, p)
            is_among = any(np.may_share_memory(g, memory.grads) for memory in self._memories)
            found.append((view, g.copy() if is_among else g))
        return found

    def zero_grad(self) -> None:
        """Set this rank's gradients to zero."""
        with self.core.held():
            for memory in self._memories:
                memory.grads[...] = 0

    def add_param_group(self, group: Mapping[str, Any]) -> NoReturn:
        """Not possible: the shares are cut when the optimizer is made."""
        raise ValueError("add_param_group: a sharded optimizer is cut into shares when it is made; make a new one")

    def replace(self, name: str, array: np.ndarray, rows: Any = None) -> NoReturn:
        """Not possible: the shares are cut when the optimizer is made."""
        raise ValueError("replace: a sharded optimizer is cut into shares when it is made; make a new one")

    def stepping(self, **of_step: Any) -> NoReturn:
        """Not possible: the ranks exchange gradients bucket by bucket, from ``.grads``."""
        raise ValueError("stepping: the ranks of a sharded optimizer exchange all gradients in one step; call step()")

    def reset(self, names: Sequence[str] | None = None) -> None:
        """Restart on every rank; see `Optimizer.reset`. The names are those of whole parameters."""
        with deferred_signals(), self._ranks.all_or_none("reset") as agree:
            given = options.names_or_none("names", names)
            known = self._whole.keys
            for name in given or ():
                if name not in known:
                    raise ValueError(f"names: no parameter is called {shown(name)}; there are {shown(known)}")
            agree({"number": self._number, "names": given})
            pairs = zip(self.core.tree.keys, self._own, strict=True)
            self.core.reset(None if given is None else [key for key, piece in pairs if known[piece.param] in given])

    def state_dict(self) -> dict[str, Any]:
        """The `state_dict` of the plain optimizer, with whole states, on every rank. If memory is short, use `save`."""
        with deferred_signals():
            return shards.state_dict(self._ranks, self._held_whole)

    def load_state_dict(self, state_dict: Mapping[str, Any], *, strict: bool = True, convert: bool = False) -> Loaded:
        """Continue from a dict of `state_dict`, from this optimizer on any number of ranks, or from the plain one.

        All of it must fit. If only a part does, load it into a plain optimizer with ``strict=False``, and pass the
        ``state_dict()`` of that one here. See `Optimizer.load` for `convert`. 8-bit states of ranks are in C order.

        Raises
        ------
        TypeError, ValueError
            If anything does not fit. Nothing has changed then on any rank.
        """
        core = self.core
        with deferred_signals():
            return shards.load_state_dict(
                self._ranks, self._held, state_dict, strict, convert, core.groups.check, core.plan.writes, self._take
            )

    def save(self, path: Place, *, params: bool = False) -> None:
        """Write a checkpoint, each rank its own share, to a folder that all ranks see. Any number of ranks can load it.

        The folder has an ``.npz`` file of each rank (only of the first, if each has all) and ``checkpoint.json``, which
        names them. Each save uses new file names, syncs the files, and then replaces ``checkpoint.json``. A crash at
        any moment leaves the old checkpoint or the new one, and perhaps files that the next save removes. See
        `Optimizer.save` for `params`.

        Raises
        ------
        OSError
            If a rank's file cannot be written. The old checkpoint has not changed then.
        """
        with deferred_signals():
            shard_files.save(self._ranks, self._held_whole, path, params, self._exchange.take)

    def load(self, path: Place, *, strict: bool = True, params: bool | None = None, convert: bool = False) -> Loaded:
        """Continue from a checkpoint of `save` from any number of ranks. All ranks get the parameters, if it has them.

        All of it must fit, as in `load_state_dict`. See `Optimizer.load` for `params` and `convert`.

        Raises
        ------
        OSError
            If a file cannot be read.
        ValueError
            If a file is damaged, or has other parameters. Nothing has changed then on any rank.
        """
        with deferred_signals():
            check = self.core.groups.check
            return shard_files.load(self._ranks, self._held, path, strict, params, convert, check, self._take)

    def __repr__(self) -> str:
        return f"rank {self._ranks.rank} of {self._ranks.size} of {super().__repr__()}"

    def __getstate__(self) -> NoReturn:
        """Not possible: the optimizer belongs to its communicator."""
        raise TypeError("a sharded optimizer cannot be copied or pickled; use save() or state_dict()")


def _copy(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy gradients into their places. A float64 number too large for float32 becomes infinite, as in `Plan.step`."""
    with np.errstate(over="ignore"):
        for view, g in pairs:
            view[...] = g


@cache
def _sharded(optimizer: type[Optimizer]) -> type[Sharded]:
    """The class derived from both. It has the optimizer's name, which checkpoints use."""
    own = {"__module__": __name__, "__doc__": Sharded.__doc__, "__signature__": signature(optimizer)}
    shared: tuple[type, ...] = (SwappingOfRanks,) if issubclass(optimizer, Swapping) else ()
    return type(optimizer.__name__, (*shared, Sharded, optimizer), own)
