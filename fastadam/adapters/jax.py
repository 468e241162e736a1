"""fastadam's optimizers for JAX pytrees of CPU arrays, stepped in place: ``params = opt.step(grads)``.

The optimizer owns the memory of the parameters and lends it to JAX. A step takes the memory back, writes to it, and
lends it again. The old arrays are deleted, like arrays that are donated to a jitted function. JAX returns memory only
when no computation and no view reads it any more (`_lent.Memory.is_lent`). Memory that is still read keeps its values,
and the step continues in a copy.

Every class of `fastadam.optimizers` is here, with its arguments and defaults.

Examples
--------
>>> import jax, jax.numpy as jnp
>>> from fastadam.adapters.jax import Adam
>>> gradient = jax.jit(jax.grad(lambda params: (params["x"] ** 2).sum()))
>>> opt = Adam({"x": jnp.ones(3)}, lr=0.1)
>>> old = params = opt.params
>>> for _ in range(100):
...     params = opt.step(gradient(params))
>>> bool(abs(params["x"]).max() < 0.1), old["x"].is_deleted()
(True, True)
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import new_class
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

try:
    import jax
except ImportError as error:
    raise ImportError("fastadam.adapters.jax needs JAX: pip install jax") from error

from ..base import Optimizer
from ..kernel import checks
from ..optimizers import CLASSES
from ..state.places import Place
from ..state.snapshot import Loaded
from ._lent import Memory

#: how many seconds a step waits for memory to return before it makes a copy
PATIENCE = 1e-3


class _Lending:
    """Mixin, placed before an `Optimizer`, that lends the parameters to JAX between steps."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        given = self.bind(args, kwargs)
        if given["grads"] is not None:
            raise TypeError("grads: JAX makes new gradients at each step; leave grads out, and call step(grads)")
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(given["params"])
        arrays = {key: _as_array(key, p) for key, p in _keyed(leaves)}
        for key, array in arrays.items():
            checks.array(key, array)
        self._own(arrays)
        self.core = self.made_of.make(type(self), given | {"params": self._arrays})
        self._lend()

    @property
    def params(self) -> Any:
        """The parameters as read-only JAX arrays, in the structure that was given, valid until the next step."""
        return jax.tree_util.tree_unflatten(self._tree, self._lent)

    def step(self: Any, grads: Any, *extras: Any, **options: Any) -> Any:
        """Do one step of every parameter, in place. Return the new parameters, and delete the old arrays.

        Parameters
        ----------
        grads : pytree
            Gradients in the structure of the parameters: arrays of JAX or NumPy. The step waits for them, and reads
            them without a copy. None leaves a parameter as it is.
        grad_scale, max_norm, clip_value, skip_nonfinite, max_norm_each
            As in `Optimizer.step`.

        Returns
        -------
        pytree
            ``opt.params``.

        Raises
        ------
        TypeError, ValueError
            For gradients or options that do not fit. Nothing has changed then, and the old parameters remain valid.
            After an error in a schedule no number has changed, either, but ``opt.params`` are new arrays.
        RuntimeError
            If another thread is within a step.
        """
        if checks.of_step(*extras, **options)["zero_grads"]:
            raise ValueError("zero_grads: arrays of JAX cannot be written; leave it out")
        read = self._read(grads)
        with self.taken_back():
            super().step(read, *extras, **options)  # type: ignore[misc]
        return self.params

    def load(self: Any, path: Place, **options: Any) -> Loaded:
        """See `Optimizer.load`. The old arrays are deleted; ``opt.params`` has the new ones."""
        with self.taken_back():
            return super().load(path, **options)  # type: ignore[misc,no-any-return]

    def flush(self: Any, rows: Any = None) -> None:
        """See `Optimizer.flush`. The old arrays are deleted; ``opt.params`` has the new ones."""
        with self.taken_back():
            super().flush(rows)  # type: ignore[misc]

    def swapped(self) -> NoReturn:
        """Not possible. The averages are NumPy arrays in ``opt.state``, in the order of ``jax.tree.leaves(params)``."""
        raise TypeError("swapped: JAX's arrays do not change; give a model copies of the averages in opt.state instead")

    def stepping(self, **_: Any) -> NoReturn:
        """Not possible: JAX gives all gradients at once."""
        raise TypeError("stepping: JAX gives all gradients at once, and its arrays do not change; use step(grads)")

    def replace(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: make a new optimizer."""
        raise TypeError("replace: JAX's arrays do not change their shape; make a new optimizer")

    def add_param_group(self, *_: Any) -> NoReturn:
        """Not possible: make an optimizer for each group."""
        raise TypeError("add_param_group: the parameters are one pytree; make a second optimizer for others")

    @contextmanager
    def taken_back(self: Any) -> Iterator[dict[str, np.ndarray]]:
        """A context manager that gives path -> NumPy array of a parameter. The block may write to the arrays.

        JAX's arrays are deleted. After the block, ``opt.params`` has new ones.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("the optimizer is inside a step, or its parameters are taken back; wait for its end")
        try:
            try:
                self._take_back()
                yield self._arrays
            finally:
                self._lend()
        finally:
            self._lock.release()

    # Lending memory, and taking it back.

    def _own(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy these arrays into memory that can be lent."""
        self._lock, self._memories = Lock(), {key: _filled(array) for key, array in arrays.items()}
        self._arrays = {key: memory.array for key, memory in self._memories.items()}

    def _lend(self) -> None:
        self._lent = [jax.dlpack.from_dlpack(memory) for memory in self._memories.values()]
        for array, memory in zip(self._lent, self._memories.values(), strict=True):
            if array.dtype != memory.dtype:
                raise TypeError(f"params: JAX reads {memory.dtype} as {array.dtype}; set jax_enable_x64")

    def _take_back(self) -> None:
        for array in self._lent:
            if not array.is_deleted():
                array.delete()
        until = time.perf_counter() + PATIENCE
        while any(memory.is_lent for memory in self._memories.values()) and time.perf_counter() < until:
            time.sleep(0)  # releases the GIL
        for key, memory in self._memories.items():
            if memory.is_lent:
                self._memories[key] = _filled(self._arrays[key])
                self._arrays[key] = self._memories[key].array

    def _read(self, grads: Any) -> dict[str, Any]:
        """Key of a parameter -> its gradient as a NumPy array."""
        leaves = zip(self._arrays.items(), self._tree.flatten_up_to(grads), strict=True)
        return {key: g if g is None else checks.gradient(key, _as_array(key, g), p) for (key, p), g in leaves}

    # Copies.

    def __getstate__(self: Any) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        for name in ("_lent", "_lock", "_memories", "_arrays"):
            del state[name]
        return state | {"_tree": jax.tree_util.tree_unflatten(self._tree, self._arrays)}  # with keys as leaves

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._tree = jax.tree_util.tree_structure(state["_tree"])
        given = self.core.settings["params"]
        self._own(given)
        given.update(self._arrays)
        self._arrays = given
        self._lend()


def _keyed(leaves: list[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """Leaves with their names in messages and checkpoints: their paths as text, or "0" for a single array."""
    keys = [jax.tree_util.keystr(path, simple=True, separator=".") or "0" for path, _ in leaves]
    if len(set(keys)) < len(keys):
        keys = [jax.tree_util.keystr(path) for path, _ in leaves]
    return zip(keys, [leaf for _, leaf in leaves], strict=True)


def _filled(array: np.ndarray) -> Memory:
    """New memory with a copy of this array."""
    memory = Memory(array.dtype, array.shape)
    memory.array[...] = array
    return memory


def _as_array(name: str, value: Any) -> Any:
    """A NumPy view of a JAX array. Any other value is returned, and checked later as a parameter or gradient."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name}: expected an array, got one that is traced; call step outside of jax.jit and jax.grad")
    if not isinstance(value, jax.Array):
        return value
    [*places] = value.sharding.device_set
    if len(places) > 1 or places[0].platform != "cpu" or places[0].local_hardware_id:  # other CPU devices: number > 0
        where = f"lies on {len(places)} devices" if len(places) > 1 else f"lies on {places[0]}"
        raise TypeError(f"{name} {where}; move it by jax.device_put(…, jax.devices('cpu')[0]), or use optax")
    return np.asarray(value)


def _lending(ours: type[Optimizer]) -> type[Any]:
    """The class of the same name for parameters in a pytree."""
    doc = f"`fastadam.{ours.__name__}` for a pytree of JAX arrays, with the same options and defaults, without `grads`."
    members = {"__doc__": doc, "__module__": __name__}
    return new_class(ours.__name__, (_Lending, ours), {}, lambda body: body.update(members))


globals().update({name: _lending(cls) for name, cls in CLASSES.items()})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Each class that is made above."""
