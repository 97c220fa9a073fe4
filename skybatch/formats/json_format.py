"""JSON Lines: `JsonReader` and `JsonWriter`."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from skybatch.errors import InputMissing, RecordError, UsageError
from skybatch.formats import compressed, line_index, shards, storage, values
from skybatch.formats.base import Assembler, Item, WindowReader
from skybatch.formats.columns import check_columns, columns_of, select
from skybatch.formats.compressed import CompressibleWriter
from skybatch.formats.line_index import LineIndex
from skybatch.formats.shards import MANIFEST

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
class JsonWriter(CompressibleWriter):
    """One JSON object per line, compact, keys as given. `column` keeps one key, or a list of keys, in that order.

    One file, compressed when its name ends in .gz or .zst. With `shard_size` (bytes, or "256MB"), `path` is a
    folder of files `part-00000.jsonl`, each ended by the record that reaches that size before `compression`
    ("gzip" or "zstd"), and of `manifest.json`, published last. Values are those that `formats.values` describes.
    """

    path: str
    column: str | list[str] | None = None
    shard_size: int | str | None = None
    compression: str | None = None

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson"}
    accepts_any_count: ClassVar[bool] = True

    def check(self) -> None:
        """Raise UsageError for fields that make no sense."""
        name = f"JsonWriter({self.path!r})"
        check_columns(name, self.column)
        compressed.check(name, self._compression())
        if self.shard_size is not None:
            shards.size_in_bytes(name, self.shard_size)
        elif self.compression not in (None, compressed.kind_of(self.path)):
            ending = compressed.ENDINGS[str(self.compression)]
            raise UsageError(f"{name}: without shard_size the file's name must end in {ending} for this compression")

    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """The results as lines."""
        return values.encode(select(results, columns_of(self.column), start_idx), start_idx)

    def assembler(self, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler | None:
        """None for one plain file; else what makes frames or shards."""
        if self.shard_size is None:
            return super().assembler(sink, survey)
        size = shards.size_in_bytes("JsonWriter", self.shard_size)
        return shards.Shards(sink, self.path, size=size, ending=".jsonl", compression=self.compression)

    def commit_path(self) -> str:
        """The file, or the manifest of the shards."""
        return self.path if self.shard_size is None else f"{self.path.rstrip('/')}/{MANIFEST}"

    def _compression(self) -> str | None:
        return self.compression or (compressed.kind_of(self.path) if self.shard_size is None else None)
