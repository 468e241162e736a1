"""A checkpoint that fits in part (strict=False): what fits is loaded bit for bit; the rest stays, and is listed."""

import gzip
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from checkpoint_files import each_suffix, snapshot

import fastadam

Structure = dict[str, np.ndarray]


def run(params: Any, cls: Any = fastadam.Adam, steps: int = 3, **options: Any) -> fastadam.Optimizer:
    """An optimizer after so many steps."""
    opt = cls(params, **options)
    for t in range(steps):
        opt.step({key: np.cos(np.arange(p.size) + t).astype(p.dtype).reshape(p.shape) for key, p in params.items()})
    return opt


def arrays(**sizes: int) -> Structure:
    return {key: np.linspace(-1, 1, n, dtype=np.float32) for key, n in sizes.items()}


def by_dict(old: fastadam.Optimizer, new: fastadam.Optimizer) -> Any:
    return new.load_state_dict(old.state_dict(), strict=False)


def by_file(old: fastadam.Optimizer, new: fastadam.Optimizer, suffix: str = ".npz") -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"state{suffix}"
        old.save(path, params=True)
        return new.load(path, strict=False)


WAYS: dict[str, Callable[..., Any]] = {
    "dict": by_dict,
    "npz": by_file,
    "safetensors": lambda old, new: by_file(old, new, ".safetensors"),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def of(opt: fastadam.Optimizer, key: str) -> tuple[int, list[bytes]]:
    """The steps and the states of a parameter."""
    told = opt.state_dict()
    return told["steps"][key], [array.tobytes() for array in told["state"][key].values()]


def all_of(opt: fastadam.Optimizer, key: str) -> Any:
    return (*of(opt, key), opt.params[key].tobytes())


#: parameters of the new optimizer, the old one having body (4) and head (3); what is missing, unexpected and unfit
SHAPES = [
    (arrays(body=4, head=7), [], [], ["head"]),
    (arrays(body=4, head=3, more=2), ["more"], [], []),
    (arrays(body=4), [], ["head"], []),
    (arrays(head=3, body=4), [], [], []),
    (arrays(body=4, other=3), ["other"], ["head"], []),
    (arrays(body=4) | {"head": np.ones(3)}, [], [], ["head"]),
    (arrays(body=4) | {"head": np.ones((3, 1), np.float32)}, [], [], ["head"]),
    (arrays(other=4), ["other"], ["body", "head"], []),
]  # fmt: skip


@each_way
@pytest.mark.parametrize(("params", "missing", "unexpected", "unfit"), SHAPES, ids=range(len(SHAPES)))
def test_each_parameter_is_taken_or_stays(
    way: Any, params: Structure, missing: list[str], unexpected: list[str], unfit: list[str]
) -> None:
    old, new = run(arrays(body=4, head=3), lr=0.5, seed=9), run({k: p.copy() for k, p in params.items()}, steps=1)
    before = {key: all_of(new, key) for key in params}
    loaded = way(old, new)
    assert loaded[:4] == (missing, unexpected, unfit, [])
    told = all_of if way is not by_dict else of
    taken = params.keys() - {*missing, *unfit}
    for key in params:
        if key in taken:
            assert told(new, key) == told(old, key)
        else:
            assert all_of(new, key) == before[key]
    assert (new.t, new.seed, new.lr) == ((3, 9, 0.5) if taken else (1, 0, 0.001))
    assert loaded.params is (bool(taken) and way is not by_dict)


@each_way
def test_what_is_taken_goes_on_to_the_bit(way: Any) -> None:
    old, new = run(arrays(body=4, head=3)), fastadam.Adam(arrays(body=4, head=7))
    way(old, new)
    new.params["body"][...] = old.params["body"]
    alone = run(arrays(head=7), steps=0)  # which never saw the file
    grads = {"body": np.arange(4, dtype="f4"), "head": np.arange(7, dtype="f4")}
    new.step(grads)
    alone.step({"head": grads["head"]})
    old.step({"body": grads["body"], "head": np.ones(3, "f4")})
    assert all_of(new, "body") == all_of(old, "body")
    assert all_of(new, "head") == all_of(alone, "head")


@each_way
def test_t_is_no_less_than_the_steps_of_a_parameter(way: Any) -> None:
    old, new = run(arrays(body=4, head=3), steps=2), run(arrays(body=4, head=7), steps=5)
    way(old, new)
    assert (new.t, of(new, "body")[0], of(new, "head")[0]) == (5, 2, 5)
    again = fastadam.Adam(arrays(body=4, head=7))
    again.load_state_dict(new.state_dict())
    assert again.t == 5


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "amsgrad": ({}, {"amsgrad": True}),
    "no amsgrad": ({"amsgrad": True}, {}),
    "bfloat16": ({}, {"state_dtype": "bfloat16"}),
    "float32": ({"state_dtype": "bfloat16"}, {}),
    "int8": ({}, {"state_dtype": "int8", "min_8bit_size": 1}),
    "float32 in place of int8": ({"state_dtype": "int8", "min_8bit_size": 1}, {}),
}


@each_way
@pytest.mark.parametrize("kind", OTHERS)
def test_other_states_are_unfit(kind: str, way: Any) -> None:
    before, after = OTHERS[kind]
    old, new = run(arrays(body=4), **before), run(arrays(body=4), steps=1, **after)
    kept = snapshot(new)
    assert way(old, new) == ([], [], ["body"], [], False)
    assert snapshot(new) == kept


@each_way
def test_master_weights_that_were_not_saved_are_unfit(way: Any) -> None:
    half = {"body": np.ones(4, np.float16), "full": np.ones(3, np.float32)}
    old = run({key: p.copy() for key, p in half.items()})
    new = run({key: p.copy() for key, p in half.items()}, steps=1, master_weights=True)
    assert way(old, new).unfit == ["body"]
    assert of(new, "full")[0] == 3


@each_way
def test_a_master_of_an_array_that_was_exchanged_and_not_taken_is_its_own(way: Any) -> None:
    params = {"a": np.ones(3, np.float16), "b": np.ones(2, np.float32)}
    new = run(params, master_weights=True)
    params["a"] = np.full(3, 5, np.float16)
    way(run(arrays(b=2)), new)
    new.step({"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)})
    assert params["a"].min() > 4


@each_way
def test_groups_take_the_options_of_the_group_that_their_parameters_were_in(way: Any) -> None:
    def made(*groups: tuple[Structure, float], **options: Any) -> fastadam.Optimizer:
        return fastadam.Adam([{"params": p, "lr": lr} for p, lr in groups], **options)

    old = made((arrays(a=4), 0.5), (arrays(b=3), 0.25), (arrays(c=3), 0.125))
    new = made((arrays(a=4), 0.1), (arrays(b=5), 0.2))
    assert way(old, new)[:4] == ([], ["2.c"], ["1.b"], [])
    assert [group["lr"] for group in new.param_groups] == [0.5, 0.2]
    one = fastadam.Adam(arrays(a=4), lr=0.3)
    kept = snapshot(one)
    assert way(old, one)[:4] == (["a"], ["0.a", "1.b", "2.c"], [], [])  # keys begin with the group's number
    assert snapshot(one) == kept


@each_suffix
def test_options_that_cannot_be_taken_are_told(suffix: str) -> None:
    old, new = run(arrays(body=4), lr=lambda t: 0.5, eps=1e-3), run(arrays(body=4), lr=0.25)
    assert by_file(old, new, suffix).options == ["param_groups[0]['lr']"]  # a file keeps no function
    assert (new.lr, new.eps) == (0.25, 1e-3)
    ada = [run(arrays(body=4), fastadam.Adagrad, initial_accumulator_value=value) for value in (0.1, 0.0)]
    assert by_file(*ada, suffix).options == ["param_groups[0]['initial_accumulator_value']"]
    assert of(ada[1], "body") == of(ada[0], "body")


def changed(**more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda told: {**told, **more}


DAMAGED = [
    (changed(version=3), "version: expected 2, got 3"),
    (changed(optimizer="AdamW"), "optimizer: expected 'Adam', got 'AdamW'"),
    (changed(t=2), "steps['body']: expected a whole number >= 0 and <= t = 2, got 3"),
    (changed(steps={"body": 3}), "state_dict['state']: missing: [], unknown: ['head']"),
    (changed(state={"body": {}, "head": {}, 0: {}}, steps={"body": 3, "head": 3, 0: 3}), "unknown: ['0']"),
    (changed(state={"body": {"m": [0.0] * 4}, "head": {}}), "m/body: expected a numpy array, got list"),
    (changed(state={"body": {"params": np.ones(4)}, "head": {}}), "unknown: ['params']"),
    (changed(param_groups=[]), "param_groups: params: missing: ['body', 'head']"),
    (changed(param_groups=None), "param_groups: expected a list, got NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_damaged_is_refused(change: Any, text: str) -> None:
    old, new = run(arrays(body=4, head=3)), run(arrays(body=4, head=7), steps=1)
    kept = snapshot(new)
    with pytest.raises(ValueError, match="state_dict") as raised:
        new.load_state_dict(change(old.state_dict()), strict=False)
    assert text in str(raised.value)
    assert snapshot(new) == kept


@each_suffix
def test_a_damaged_array_is_refused_where_it_would_not_be_taken(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"state{suffix}"
    old, new = run(arrays(body=4, head=3)), run(arrays(body=4, head=7), steps=1)
    old.save(path, params=True)
    kept, data = snapshot(new), path.read_bytes()
    part = inside.named_arrays(old, params=True)["v/head"].tobytes()
    path.write_bytes(data.replace(part, part[:-1] + bytes([part[-1] ^ 1])))
    with pytest.raises(ValueError, match=r"state\.(npz|safetensors): "):
        new.load(path, strict=False)
    assert snapshot(new) == kept


def test_read_only_parameters_are_refused_where_they_would_be_written(tmp_path: Path) -> None:
    old, new = run(arrays(body=4, head=3)), run(arrays(body=4, head=7), steps=1)
    old.save(tmp_path / "state.npz", params=True)
    new.params["head"].flags.writeable = False
    assert new.load(tmp_path / "state.npz", strict=False).unfit == ["head"]
    new.params["body"].flags.writeable = False
    with pytest.raises(ValueError, match="params/body: the optimizer's array is read-only"):
        new.load(tmp_path / "state.npz", strict=False)


# ---------------------------------------------------------------- open files


class Writer:
    """What has `write` alone, takes little at a time, and keeps what it was given."""

    def __init__(self, tells: bool) -> None:
        self.parts: list[bytes] = []
        self.tells = tells

    def write(self, data: bytes) -> int | None:
        self.parts.append(data[:1000] if self.tells else data)
        return len(self.parts[-1]) if self.tells else None


class Reader:
    """What has `read` alone."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


def big() -> fastadam.Optimizer:
    return run(arrays(W=3000, b=4))


@pytest.mark.parametrize("tells", [False, True])
def test_anything_that_writes_and_reads(tells: bool) -> None:
    opt, file, again = big(), Writer(tells), fastadam.Adam(arrays(W=3000, b=4))
    opt.save(file, params=True)  # type: ignore[arg-type]
    assert again.load(Reader(b"".join(file.parts))) == ([], [], [], [], True)  # type: ignore[arg-type]
    assert snapshot(again) == snapshot(opt)


OPEN: dict[str, Callable[[Path], Any]] = {  # each is entered where it is used
    "open": lambda path: path.open("w+b"),
    "unbuffered": lambda path: path.open("w+b", buffering=0),
    "safetensors": lambda path: path.with_suffix(".safetensors").open("w+b"),
    "memory": lambda path: io.BytesIO(),
    "temporary": lambda path: tempfile.TemporaryFile(),  # noqa: SIM115
    "named": lambda path: tempfile.NamedTemporaryFile(dir=path.parent),  # noqa: SIM115
    "spooled": lambda path: tempfile.SpooledTemporaryFile(max_size=2000),  # noqa: SIM115
}


@pytest.mark.parametrize("kind", OPEN)
def test_open_files_are_used_from_where_they_stand_and_left_open(kind: str, tmp_path: Path) -> None:
    opt, again = big(), fastadam.Adam(arrays(W=3000, b=4))
    with OPEN[kind](tmp_path / "state.bin") as file:
        file.write(b"before")
        opt.save(file, params=True)
        end = file.tell()
        file.seek(6)
        assert (file.read(2) == b"PK") is (kind != "safetensors")
        file.seek(6)
        again.load(file)
        assert (file.closed, file.tell()) == (False, end)
    assert snapshot(again) == snapshot(opt)


def test_gzip(tmp_path: Path) -> None:
    path, opt, again = tmp_path / "state.npz.gz", big(), fastadam.Adam(arrays(W=3000, b=4))
    with gzip.open(path, "wb") as file:
        opt.save(file, params=True)  # type: ignore[arg-type]
    with gzip.open(path, "rb") as file:
        again.load(file)  # type: ignore[arg-type]
    assert snapshot(again) == snapshot(opt)
    path.write_bytes(path.read_bytes()[:-100])
    with (
        gzip.open(path, "rb") as file,
        pytest.raises(ValueError, match="not a complete checkpoint of this optimizer: EOF"),
    ):
        again.load(file)  # type: ignore[arg-type]


def test_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    opt, again = big(), fastadam.Adam(arrays(W=3000, b=4))
    opt.save(tmp_path / "a.safetensors", params=True)
    (tmp_path / "a.safetensors").rename(tmp_path / "a.npz")
    again.load(tmp_path / "a.npz")
    assert snapshot(again) == snapshot(opt)


def test_two_in_one_file_are_refused() -> None:
    file, opt = io.BytesIO(), big()
    opt.save(file)
    first = file.tell()
    opt.save(file, params=True)
    file.seek(0)
    with pytest.raises(ValueError, match="give each checkpoint its own file"):
        opt.load(file)
    file.seek(first)
    opt.load(file)


def test_a_write_that_fails_is_the_callers_error() -> None:
    class Full(Writer):
        def write(self, data: bytes) -> int | None:
            if data:
                raise OSError(28, "No space left on device")
            return 0

    opt = big()
    kept = snapshot(opt)
    with pytest.raises(OSError, match="No space left"):
        opt.save(Full(True))  # type: ignore[arg-type]
    assert snapshot(opt) == kept


def test_a_dict_from_which_a_user_took_parameters() -> None:
    old, new = run(arrays(body=4, head=3)), run(arrays(body=4, head=3), steps=1)
    told = old.state_dict()
    del told["state"]["head"]
    assert new.load_state_dict(told, strict=False)[:3] == (["head"], [], [])
    assert of(new, "body") == of(old, "body")
    assert of(new, "head") != of(old, "head")
