"""The errors for a checkpoint that does not fit. Their messages have a bounded length."""

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: the greatest length of a message, since messages quote the data
_MAX_TEXT = 2000


class Mismatch(ValueError):
    """A checkpoint that does not fit the optimizer."""


def need(condition: bool, message: str) -> None:
    """Refuse a checkpoint unless the condition holds."""
    if not condition:
        raise Mismatch(_cut(message))


def need_same(where: str, came: Any, own: Any) -> None:
    """Refuse a value that differs from the optimizer's own."""
    if type(came) is not type(own) or came != own:  # the text is made only when it is needed: it may be long
        raise Mismatch(_cut(f"{where}: expected {own!r}, got {came!r}"))


def need_names(where: str, came: Collection[Any], own: Collection[str]) -> None:
    """Refuse names that differ from the optimizer's own, and anything that is not a name."""
    if set(came) == set(own) and all(isinstance(name, str) for name in came):
        return  # sorting is slow
    missing = sorted(map(str, set(own) - set(came)))
    unknown = sorted(str(name) for name in came if name not in own or not isinstance(name, str))
    need(not missing and not unknown, f"{where}: missing: {missing[:5]}, unknown: {unknown[:5]}")


def need_ours(is_ours: bool, where: str, what: str) -> None:
    """Refuse a file that is not a checkpoint of this library."""
    need(is_ours, f"{where}: not a checkpoint of fastadam: {what}; expected a file that an optimizer's save() wrote")


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """The value. Refuses what is not a mapping."""
    need(isinstance(value, Mapping), f"{name}: expected a dict, got {type(value).__name__}")
    return value  # type: ignore[no-any-return]


@contextmanager
def saying(where: str) -> Iterator[None]:
    """Put `where` before the message of an error in the block."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else Mismatch
        raise kind(_cut(f"{where}: {error}")) from error


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn any failure on a damaged file into a ValueError that names the file."""
    try:
        yield
    except (MemoryError, ImportError, Mismatch):
        raise
    except Exception as error:  # a damaged or hostile file can fail anywhere: in its records, in json, in NumPy
        # EINVAL is the fault of the file: it names a position before its start. Other OSErrors come from the system.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            if error.errno and error.filename is None:  # of a read, or of a mapping
                error.filename = where
            raise
        what = f"{type(error).__name__}: {error}"
        raise ValueError(_cut(f"{where}: not a complete checkpoint of this optimizer: {what}")) from error


def _cut(message: str) -> str:
    """The message, or its beginning and its end: a long name in the middle must not hide the reason."""
    half = _MAX_TEXT // 2
    return message if len(message) <= _MAX_TEXT else f"{message[:half]}…{message[-half:]}"
