"""Items that lie in memory, kept in a file: what workers read, and a resumed job reads again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from skybatch import disk
from skybatch.errors import UsageError
from skybatch.formats import storage


def keep(items: Iterable[Any], folder: Path) -> Path:
    """Write items as JSON Lines to `folder`, under a name made of their content; the same items are kept once.

    One item is in memory at a time. Raises UsageError for what has no items, naming the item that is no dict, or the
    key whose value JSON would not give back as it is; nothing is left behind then.
    """
    if isinstance(items, (Mapping, str, bytes)) or not isinstance(items, Iterable):
        raise UsageError(f"from_items takes a list or a generator of dicts, not {type(items).__name__}")
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")  # of mode 0600
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as file:
            for index, item in enumerate(items):
                line = _line(item, index)
                digest.update(line)
                file.write(line)
            file.flush()
            disk.fsync("items", file.fileno())
        path = folder / f"{digest.hexdigest()}.jsonl"
        if path.exists():
            os.unlink(temporary)
        else:
            disk.rename("items", temporary, path)
            storage.sync_folder(str(folder))
    except BaseException:
        storage.unlink_if_there(temporary)
        raise
    return path


def _line(item: Any, index: int) -> bytes:
    import orjson

    if type(item) is not dict:
        raise UsageError(f"from_items: item {index} must be a dict, not {type(item).__name__}")
    try:
        line = orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)
        if orjson.loads(line) == _with_lists(item):
            return line
    except TypeError:
        pass
    raise _fault(item, index)


def _fault(item: dict[Any, Any], index: int) -> UsageError:
    import orjson

    for key, value in item.items():
        if type(key) is not str:
            return UsageError(f"from_items: item {index}: key {key!r} is not a string")
        try:
            if orjson.loads(orjson.dumps({key: value})) == {key: _with_lists(value)}:
                continue
            why = "it would come back as something else"
        except TypeError as error:
            why = str(error)
        found = f"{type(value).__name__} {value!r}"
        return UsageError(f"from_items: item {index}, key {key!r}: {found[:80]} is not JSON: {why}")
    raise AssertionError("no value at fault")


def _with_lists(value: Any) -> Any:
    """The value with lists for its tuples, as JSON gives them back."""
    if isinstance(value, (list, tuple)):
        return [_with_lists(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _with_lists(inner) for key, inner in value.items()}
    return value
