"""JSON Lines: `JsonReader` and `JsonWriter`."""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from skybatch.errors import InputMissing, RecordError, ResultError, UsageError, nearest
from skybatch.formats import line_index, storage
from skybatch.formats.base import Item, SegmentWriter, WindowReader
from skybatch.formats.line_index import LineIndex

WINDOW_SIZE = 512 << 10
"""Small enough that a window's lines are still in the processor's cache when they are parsed."""
_SAMPLE = 64 << 10


@dataclass
class JsonReader(WindowReader):
    """One JSON object per line. Blank lines are no items; the last line needs no line end."""

    path: str

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson"}

    def __post_init__(self) -> None:
        self._index: LineIndex | None = None
        self._fd = -1

    def check(self) -> None:
        """Raise InputMissing when the file is not there, UsageError when it is no local file."""
        path = storage.local_path(self.path)
        if not os.path.isfile(path):
            what = "is a folder" if os.path.isdir(path) else "does not exist"
            raise InputMissing(f"input {self.path}: {what}")

    def fingerprint(self) -> dict[str, Any]:
        """Size, modification time, and a checksum of the first and last 64 KB."""
        self.check()
        with open(storage.local_path(self.path), "rb") as file:
            stat = os.fstat(file.fileno())
            head = file.read(_SAMPLE)
            file.seek(max(0, stat.st_size - _SAMPLE))
            tail = file.read(_SAMPLE)
        return {
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "sample": zlib.crc32(tail, zlib.crc32(head)),
        }

    def build_index(self, folder: str) -> int:
        """Index the file's lines in one pass."""
        self.check()
        line_index.build_file(storage.local_path(self.path), f"{folder}/lines.idx")
        self._index = LineIndex.load(f"{folder}/lines.idx")
        return self._index.count

    def open_index(self, folder: str) -> None:
        """Load the index and open the file."""
        self._index = LineIndex.load(f"{folder}/lines.idx")
        self._open()

    def __len__(self) -> int:
        return self._ready().count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Item]:
        """The items `start_idx` to `end_idx`, read by their own bytes."""
        self._ready()
        return self.decode(self.read_window(start_idx, end_idx), start_idx, start_idx, end_idx)

    def window_end(self, start: int, end: int) -> int:
        """A window of WINDOW_SIZE bytes, or one item where that is larger."""
        index = self._ready()
        limit = index.offsets[index.before(start)] + WINDOW_SIZE
        step = index.after(end)
        low = index.after(start)
        while step > low and index.offsets[step] > limit:
            step -= max(1, (step - low) // 2) if index.offsets[(step + low) // 2] > limit else 1
        return max(start, min(end, index.records[step] - 1))

    def read_window(self, start: int, end: int) -> list[bytes]:
        """The lines of items `start` to `end`."""
        index = self._ready()
        first, last = index.before(start), index.after(end)
        offset = index.offsets[first]
        data = os.pread(self._fd, index.offsets[last] - offset, offset)
        found = line_index.records(data, blanks=index.has_blanks(first, last))
        skip = start - index.records[first]
        return found[skip : skip + end - start + 1]

    def decode(self, window: Any, first: int, start: int, end: int) -> list[Item]:
        """Parse the lines of items `start` to `end`."""
        import orjson

        lines = window[start - first : end - first + 1]
        try:
            items = list(map(orjson.loads, lines))
        except orjson.JSONDecodeError:
            raise self._fault(lines, start) from None
        for item in items:
            if type(item) is not dict:
                raise self._fault(lines, start)
        return items

    def _fault(self, lines: Sequence[bytes], start: int) -> RecordError:
        import orjson

        for index, line in enumerate(lines, start):
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                return RecordError(f"{self._place(index)}: {error}", item=index)
            if type(value) is not dict:
                return RecordError(f"{self._place(index)}: a record must be an object, not {line[:60]!r}", item=index)
        raise AssertionError("no record at fault")

    def _place(self, item: int) -> str:
        """File, line (from 1) and byte offset of an item."""
        index = self._ready()
        first = index.before(item)
        offset = index.offsets[first]
        data = os.pread(self._fd, index.offsets[index.after(item)] - offset, offset)
        seen, number = index.records[first], index.lines[first]
        for line in data.split(b"\n"):
            number += 1
            if line.strip(b" \t\r"):
                if seen == item:
                    break
                seen += 1
            offset += len(line) + 1
        return f"{self.path}, line {number}, byte {offset} (item {item})"

    def _ready(self) -> LineIndex:
        if self._index is None:
            self.check()
            self._index = line_index.build(storage.local_path(self.path))
        if self._fd < 0:
            self._open()
        return self._index

    def _open(self) -> None:
        self._fd = storage.private(os.open(storage.local_path(self.path), os.O_RDONLY | os.O_CLOEXEC))

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)


@dataclass
class JsonWriter(SegmentWriter):
    """One JSON object per line, compact, keys as given. `column` keeps one key, or a list of keys, in that order.

    Values are those of JSON, and what orjson writes natively: dataclasses, enums, UUIDs, dates and times
    (RFC 3339). NaN and infinities are refused, having no JSON form.
    """

    path: str
    column: str | list[str] | None = None

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson"}
    accepts_any_count: ClassVar[bool] = True

    def check(self) -> None:
        """Raise UsageError for a column that is neither a key nor a list of keys."""
        columns = self._columns()
        if columns is not None and not (columns and all(isinstance(name, str) for name in columns)):
            raise UsageError(f"JsonWriter({self.path!r}): column must be a key or a list of keys, not {self.column!r}")

    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """The results as lines."""
        import orjson

        columns = self._columns()
        if columns is not None:
            results = [self._select(result, columns, index) for index, result in enumerate(results, start_idx)]
        try:
            lines = [orjson.dumps(result, None, orjson.OPT_APPEND_NEWLINE) for result in results]
        except TypeError:
            raise _unwritable(results, start_idx) from None
        data = b"".join(lines)
        if b"null" in data:
            for index, result in enumerate(results, start_idx):
                _refuse_nan(result, index)
        return data

    def _columns(self) -> list[str] | None:
        return [self.column] if isinstance(self.column, str) else self.column

    def _select(self, result: Item, columns: list[str], index: int) -> Item:
        try:
            return {name: result[name] for name in columns}
        except KeyError as error:
            name = error.args[0]
            raise ResultError(
                f"item {index}: the result has no {name!r}{nearest(name, map(str, result))}", item=index
            ) from None


def _unwritable(results: list[Item], start: int) -> ResultError:
    import orjson

    for index, result in enumerate(results, start):
        for key, value in result.items():
            try:
                orjson.dumps({key: value})
            except TypeError as error:
                what = f"a {type(value).__name__} cannot be written as JSON ({error})"
                return ResultError(f"item {index}, key {key!r}: {what}", item=index)
    raise AssertionError("no result at fault")


def _refuse_nan(value: Any, index: int, key: str = "") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"item {index}, key {key!r}: {value} cannot be written as JSON", item=index)
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_nan(inner, index, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_nan(inner, index, key)
    elif isinstance(value, Enum):
        _refuse_nan(value.value, index, key)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _refuse_nan(getattr(value, field.name), index, f"{key}.{field.name}")
    elif hasattr(value, "__dataclass_fields__"):
        _refuse_nan({name: getattr(value, name, None) for name in value.__dataclass_fields__}, index, key)
