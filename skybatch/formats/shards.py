"""One output in several files of about a size, in a folder with a manifest that says they are all there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from skybatch import disk
from skybatch.errors import UsageError
from skybatch.formats import members, storage
from skybatch.formats.base import Assembler
from skybatch.formats.compressed import ENDINGS, Frames

MANIFEST = "manifest.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_BUFFER = 1 << 20


def size_in_bytes(writer: str, size: int | str) -> int:
    """A shard's size: a number of bytes, or text such as "256MB" or "1GiB". Raises UsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size)) if not isinstance(size, bool) else None
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise UsageError(f'{writer}: shard_size must be a number of bytes, or text like "256MB"; not {size!r}')
    return int(float(found[1]) * unit)


class Shards(Assembler):
    """Cuts lines into files: each ends with the line that reaches `size` uncompressed bytes.

    `sink`, which must be a file on disk, gets the manifest; the files lie beside it, durably, as `members` says.
    """

    def __init__(self, sink: BinaryIO, *, size: int, ending: str, compression: str | None) -> None:
        self._sink, self._folder = sink, Path(members.folder(sink.name))
        self._size, self._compression = size, compression
        self._ending = ending + (ENDINGS[compression] if compression else "")
        self._shard: _Shard | None = None
        self._done: list[dict[str, Any]] = []

    def add(self, payload: bytes) -> None:
        """Append whole lines."""
        rest = memoryview(payload)
        while rest:
            if self._shard is None:
                self._shard = self._begin()
            room = self._size - self._shard.length
            end = len(rest)
            if room <= end:
                end = payload.index(b"\n", len(payload) - len(rest) + room - 1) + 1 - len(payload) + len(rest)
            self._shard.write(rest[:end])
            rest = rest[end:]
            if self._shard.length >= self._size:
                self._complete(self._shard)

    def finish(self) -> None:
        """Complete the last file and write the manifest."""
        if self._shard is not None:
            self._complete(self._shard)
        if self._done:
            storage.sync_folder(str(self._folder))
            storage.sync_folder(str(self._folder.parent))
        else:
            members.remove(self._sink.name)
        rows = sum(entry["rows"] for entry in self._done)
        manifest = {"format": "skybatch.shards/1", "rows": rows, "files": self._done}
        self._sink.write(json.dumps(manifest, indent=1).encode() + b"\n")

    def _begin(self) -> _Shard:
        if not self._done:
            members.remove(self._sink.name)  # what an earlier try has left
            disk.mkdir("shards", self._folder)
        return _Shard(self._folder / f"part-{len(self._done):05d}{self._ending}", self._compression)

    def _complete(self, shard: _Shard) -> None:
        shard.finish()
        self._done.append({"name": shard.path.name, "size": shard.path.stat().st_size, "rows": shard.rows})
        self._shard = None


class _Shard:
    """One file being written. It is open only while it is written to: an assembler may be given up at any time."""

    def __init__(self, path: Path, compression: str | None) -> None:
        self.path = path
        self.length = self.rows = 0  # uncompressed bytes; lines
        self._file = _Appended(path)
        self._frames = Frames(self._file, compression) if compression else None

    def write(self, lines: memoryview) -> None:
        """Append whole lines."""
        data = bytes(lines)
        (self._frames or self._file).write(data)
        self.length += len(data)
        self.rows += data.count(b"\n")

    def finish(self) -> None:
        """Write what is left, durably."""
        if self._frames is not None:
            self._frames.finish()
        self._file.finish()


class _Appended:
    """A file that is opened whenever enough has been gathered for it."""

    def __init__(self, path: Path) -> None:
        self._path, self._waiting = path, bytearray()
        path.write_bytes(b"")

    def write(self, data: bytes, /) -> int:
        """Append bytes."""
        self._waiting += data
        if len(self._waiting) >= _BUFFER:
            self._flush(sync=False)
        return len(data)

    def finish(self) -> None:
        """Make the file durable."""
        self._flush(sync=True)

    def _flush(self, *, sync: bool) -> None:
        with self._path.open("ab", buffering=0) as file:
            storage.write_all(file.fileno(), bytes(self._waiting))
            if sync:
                disk.fsync("shard", file.fileno())
        self._waiting.clear()
