"""Checkpoints, dicts, pickles and folders that cannot be written or read, except those of test_damaged.py."""

import copy
import io
import os
import pickle
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import inside
from numpy import nan, ones

import fastadam
from fastadam import Adam

from . import worlds
from .case import ALL, DTYPE, NORM, RATE, Case
from .worlds import saved


def put(*path: Any, **how: Any) -> Callable[[Any], Any]:
    """Loads the dict with the last of the path at the keys before it."""

    def call(w: Any) -> None:
        *keys, last, value = path
        at = told = copy.deepcopy(w.told)
        for key in keys:
            at = at[key]
        at[last] = value
        w.opt.load_state_dict(told, **how)

    return call


def head(place: int, byte: int) -> Callable[[Any], Any]:
    """Loads the dict with another byte in the second moments of the first parameter."""

    def call(w: Any) -> None:
        told = copy.deepcopy(w.told)
        told["state"]["W"]["v"][place] = byte
        w.opt.load_state_dict(told, convert=True)

    return call


def unpickled(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """Makes an optimizer of what a pickle of another version, or another hand, may hold."""

    def call(w: Any) -> None:
        state = copy.deepcopy(w.opt.__getstate__())
        change(state)
        type(w.opt).__new__(type(w.opt)).__setstate__(state)

    return call


def as_nobody(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The call of a user who may not write here: root could."""

    def as_other(w: Any) -> None:
        mode, user = w.folder.stat().st_mode, os.geteuid()
        w.folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            call(w)
        finally:
            os.seteuid(user)
            w.folder.chmod(mode)

    return as_other


def of_states(*arrays: Any) -> Callable[[dict[str, Any]], None]:
    """Gives the second parameter these states."""

    def change(state: dict[str, Any]) -> None:
        inside.set_pickled_states(state, 1, arrays)

    return change


def of_one_state(state: dict[str, Any]) -> None:
    """Gives the second parameter its first state twice."""
    first, *_ = inside.pickled_states(state, 1)
    inside.set_pickled_states(state, 1, (first, first))


def in_a_file(way: str, made: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Saves into, or loads from, an open file."""

    def call(w: Any) -> None:
        with closing(made(w)) as file:
            getattr(w.opt, way)(file)

    return call


def closed(w: Any) -> Any:
    file = io.BytesIO()
    file.close()
    return file


PATH = "path: expected a path"
CASES = [
    *(
        Case(
            f"{way} {name}",
            saved,
            partial(lambda w, way, path: getattr(w.opt, way)(path), way=way, path=path),
            error,
            text,
        )
        for way in ("save", "load")
        for name, path, error, text in (
            ("None", None, TypeError, f"{PATH}, str or os.PathLike, or an open binary file with …, got None"),
            ("number", 3, TypeError, f"{PATH}, str or os.PathLike, or an open binary file with …, got 3"),
            ("bytes", b"a.npz", TypeError, f"{PATH}, str or os.PathLike, or an open binary file with …, got b'a.npz'"),
            ("empty", "", ValueError, f"{PATH} that is not empty and has no NUL, got ''"),
            ("NUL", "a\0b.npz", ValueError, f"{PATH} that is not empty and has no NUL, got 'a\\x00b.npz'"),
            ("long name", "x" * 300, OSError, "[Errno 36] File name too long: '…xxx'"),
        )
    ),
    *(
        Case(f"save {name}", saved, call, error, text)
        for name, call, error, text in (
            ("to no folder", lambda w: w.opt.save(w.folder / "no" / "a.npz"), FileNotFoundError,
             "[Errno 2] No such file or directory: '{folder}/no/a.npz'"),
            ("to no folder, safetensors", lambda w: w.opt.save(w.folder / "no" / "a.safetensors"), FileNotFoundError,
             "[Errno 2] No such file or directory: '{folder}/no/a.safetensors'"),
            ("below a file", lambda w: w.opt.save(w.folder / "state.npz" / "a.npz"), NotADirectoryError,
             "[Errno 20] Not a directory: '{folder}/state.npz/a.npz'"),
            ("to a folder", lambda w: w.opt.save(w.folder / "folder.npz"), IsADirectoryError,
             "[Errno 21] Is a directory: '{folder}/folder.npz'"),
            ("to a place of others", as_nobody(lambda w: w.opt.save(w.folder / "state.npz")), PermissionError,
             "[Errno 13] Permission denied: '{folder}/state.npz'"),
            ("to a place of others, safetensors", as_nobody(lambda w: w.opt.save(w.folder / "state.safetensors")),
             PermissionError, "[Errno 13] Permission denied: '{folder}/state.safetensors'"),
            ("params=1", lambda w: w.opt.save(w.folder / "a.npz", params=1), TypeError,
             "params: expected True or False, got 1 of type int"),
        )
    ),
    *(
        Case(f"load {name}", saved, partial(lambda w, name: w.opt.load(w.folder / name), name=name), error, text)
        for name, error, text in (
            ("no.npz", FileNotFoundError, "[Errno 2] No such file or directory: '{folder}/no.npz'"),
            ("no.safetensors", FileNotFoundError, "[Errno 2] No such file or directory: '{folder}/no.safetensors'"),
            ("folder.npz", IsADirectoryError, "[Errno 21] Is a directory: '{folder}/folder.npz'"),
            ("cut.npz", ValueError, "{folder}/cut.npz: not a complete zip: it has no end"),
            ("text.safetensors", ValueError,
             "{folder}/text.safetensors: not a checkpoint of fastadam: neither an .npz nor a .safetensors file"),
        )
    ),
    *(
        Case(f"{way} {name}", saved, in_a_file(way, made), error, text)
        for way in ("save", "load")
        for name, made, error, text in (
            ("file of text", lambda w: (w.folder / "text.safetensors").open("r+"), TypeError,
             "path: expected a file that is open in binary mode, got <_io.TextIOWrapper name="),
            ("text in memory", lambda w: io.StringIO("x"), TypeError,
             "path: expected a file that is open in binary mode, got <_io.StringIO object at "),
            ("closed file", closed, ValueError, "path: <_io.BytesIO object at …: I/O operation on closed file"),
        )
    ),
    Case("save into a file for reading", saved,
         in_a_file("save", lambda w: (w.folder / "state.npz").open("rb")), ValueError,
         "path: <_io.BufferedReader name='{folder}/state.npz'>: write"),
    Case("load from a file for writing", saved,
         in_a_file("load", lambda w: (w.folder / "state.npz").open("ab")), ValueError,
         "path: <_io.BufferedWriter name='{folder}/state.npz'>: read"),
    Case("load from the end of a file", saved, lambda w: w.opt.load(io.BytesIO()), ValueError,
         "<_io.BytesIO object at …>: not a checkpoint of fastadam: nothing, from where the file stands; seek(0) first"),
    Case("load params=1", saved, lambda w: w.opt.load(w.folder / "state.npz", params=1), TypeError,
         "params: expected True or False, got 1 of type int"),
    Case("load strict=None", saved, lambda w: w.opt.load(w.folder / "state.npz", strict=None), TypeError,
         "strict: expected True or False, got None of type NoneType"),
    Case("dict strict=0", saved, lambda w: w.opt.load_state_dict(w.told, strict=0), TypeError,
         "strict: expected True or False, got 0 of type int"),
    Case("load convert=1", saved, lambda w: w.opt.load(w.folder / "state.npz", convert=1), TypeError,
         "convert: expected True or False, got 1 of type int"),
    Case("dict convert=None", saved, lambda w: w.opt.load_state_dict(w.told, convert=None), TypeError,
         "convert: expected True or False, got None of type NoneType"),
    Case("load into another class", partial(saved, cls=fastadam.Adamax),
     lambda w: Adam(worlds.params()).load(w.folder / "state.npz"), ValueError,
     "{folder}/state.npz: optimizer: expected 'Adam', got 'Adamax'"),
    *(
        Case(f"dict {name}", saved, call, error, text)
        for name, call, error, text in (
            ("None", lambda w: w.opt.load_state_dict(None), TypeError,
             "state_dict: expected a dict as state_dict() giv"),
            ("empty", lambda w: w.opt.load_state_dict({}), ValueError, "state_dict: version: expected 2, got None"),
            ("of torch", put("optimizer", "SGD"), ValueError, "state_dict: optimizer: expected 'Adam', got 'SGD'"),
            ("t", put("t", -1), ValueError, "state_dict: t: expected a whole number >= 0 and < 2**63, got -1"),
            ("skipped", put("skipped", nan), TypeError,
             "state_dict: skipped: expected a whole number >= 0 and < 2**63, g"),
            ("eps", put("param_groups", 0, "eps", nan), ValueError,
             f"state_dict: param_groups[0]: eps: expected {RATE}"),
            ("betas", put("param_groups", 0, "betas", (0.9, nan)), ValueError,
             "state_dict: param_groups[0]: betas[1]: ex"),
            ("steps", put("steps", "0", 10**9), ValueError,
             "state_dict: steps['0']: expected a whole number >= 0 and <= t = "),
            ("last array", put("state", "2", "v", ones(4, "f4")), ValueError,
             "state_dict: v/2: expected shape (3,), got"),
            ("last dtype", put("state", "2", "v", ones(3)), ValueError,
             "state_dict: v/2: expected dtype float32, got flo"),
            ("last missing", put("state", "2", {"m": ones(3)}), ValueError,
             "state_dict['state']['2']: missing: ['v'], un"),
        )
    ),
    *(
        Case(f"8 bits {name}", worlds.in_blocks, call, ValueError, f"state_dict: {text}")
        for name, call, text in (
            ("of float32", put("state", "W", "m", ones((30, 20), "f4")),
             "m/W: expected dtype int8, in blocks, got float32; convert=True rounds states to what the optimizer"),
            ("of another shape", put("state", "W", "m", ones((20, 30), "f4"), convert=True),
             "m/W: expected dtype int8, in blocks, got float32"),
            ("of integers", put("state", "W", "m", ones((30, 20), int), convert=True),
             "m/W: expected dtype int8, in blocks, got int64"),
            ("of complex numbers", put("state", "W", "m", ones((30, 20), complex), convert=True),
             "m/W: expected dtype int8, in blocks, got complex128"),
            ("cut", put("state", "W", "m", ones(605, "u1"), convert=True), "m/W: expected shape (606,), got (605,)"),
            ("of no exponent", head(258, 254), "v/W: expected blocks of 8-bit codes, got other bytes"),
            ("of no scale", head(0, 200), "v/W: expected blocks of 8-bit codes, got other bytes"),
            ("of no flag", head(259, 5), "v/W: expected blocks of 8-bit codes, got other bytes"),
            ("of two codes", head(259, 0), "v/W: expected blocks of 8-bit codes, got other bytes"),
            ("of signed codes", lambda w: put("state", "W", "v", w.told["state"]["W"]["m"])(w),
             "v/W: expected 8-bit codes of no sign, got signs; convert=True"),
            ("of negative codes", lambda w: put("state", "W", "v", w.told["state"]["W"]["m"], convert=True)(w),
             "v/W: expected no number below zero, whose 8-bit codes have no sign"),
            ("of a negative number", put("state", "b", "v", -ones(300, "f4"), convert=True),
             "v/b: expected no number below zero, whose 8-bit codes have no sign"),
            ("of a large number", put("state", "b", "m", ones(300) * 1e300, convert=True),
             "m/b: expected numbers of float32, got larger ones: an array"),
            ("in another order", put("orders", "W", [0, 1]),
             "m/W: expected 8-bit states in memory order [1, 0] of axes, got [0, 1]; convert=True"),
            ("in no order", put("orders", "W", [0, 0], convert=True), "orders: 'W': not an order of axes"),
            ("in an order of one axis", put("orders", "W", [0], convert=True),
             "m/W: expected 8-bit states in memory order [1, 0] of axes, got [0]"),
            ("of a shape of other axes", put("shapes", "W", [20, 30], convert=True),
             "m/W: expected 8-bit states of the shape (30, 20), got those of (20, 30)"),
            ("of no shape", put("shapes", "W", 600, convert=True), "shapes: 'W': not a shape"),
        )
    ),
    *(
        Case(f"pickle {name}", saved, call, error, text)
        for name, call, error, text in (
            ("cut", lambda w: pickle.loads(w.data[:-100]), pickle.UnpicklingError, "pickle data was truncated"),
            ("empty", lambda w: pickle.loads(b""), EOFError, "Ran out of input"),
            ("of integers",
             unpickled(lambda s: inside.change_pickled_params(s, (ones((2, 3), int), ones(4), ones(3)))),
             TypeError,
             f"params[0]: {DTYPE}int64"),
            ("of another shape", unpickled(of_states(ones(5), ones(4))), ValueError,
             "a state of params[1]: expected shape (4,) like the parameter, got (5,)"),
            ("of another dtype", unpickled(of_states(ones(4, "f4"), ones(4))),
             TypeError, "a state of params[1]: expected dtype float64 like the parameter, got float32"),
            ("of too few states", unpickled(of_states(ones(4))), ValueError,
             "expected 2 states a parameter, got 1"),
            ("of one array twice", unpickled(of_one_state),
             ValueError, "a state of params[1] and a state of params[1] share memory"),
        )
    ),
    Case("folder of another", worlds.in_folder, lambda w: Adam(ones(3), state_dir=w.folder / "others"), ValueError,
     "state_dir: {folder}/others/fastadam.json: optimizer: expected 'Adam', got 'Adamax'"),
    Case("folder that is a file", worlds.in_folder, lambda w: Adam(ones(3), state_dir=w.folder / "file"),
     FileExistsError, "[Errno 17] File exists: '{folder}/file'"),
    Case("folder and a group", worlds.in_folder, lambda w: w.opt.add_param_group({"params": ones(2)}), ValueError,
     "add_param_group: this optimizer's states are kept in a folder; make a new one with all of its groups"),
    Case("folder and a gradient", worlds.in_folder, lambda w: w.opt.step([*w.good[:2], ""], **ALL), TypeError,
     "gradient of params[2]: expected real numbers, got <U1"),
    Case("folder and an option", worlds.in_folder, lambda w: w.opt.step(w.good, max_norm=nan), ValueError,
     f"max_norm: expected {NORM}, got nan"),
    Case("folder and a dict", worlds.in_folder, lambda w: w.opt.load_state_dict({**w.opt.state_dict(), "state": {}}),
     ValueError, "state_dict['state']: missing: ['0', '1', '2'], unknown: []"),
]  # fmt: skip
