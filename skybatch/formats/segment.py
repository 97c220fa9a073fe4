"""Segment files: the encoded batches of consecutive ranges, back to back, with an index at the end.

Layout: the payloads from offset 0; one index record per range, `<QQQQII` (start, end, offset, length,
CRC-32 of the payload, attempt); the trailer, `<QI4x8s` (number of records, CRC-32 of the index, magic).
A segment is written under a temporary name and gets its own when sealed: a name that exists is complete.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skybatch.errors import SegmentDamaged
from skybatch.formats.storage import keep_for_owner, private, start_writeback, sync_folder, write_all

RECORD = struct.Struct("<QQQQII")
TRAILER = struct.Struct("<QI4x8s")
MAGIC = b"SKYBSEG1"
FLUSH_SIZE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A finished segment; sizes in bytes, `start` and `end` inclusive."""

    name: str
    size: int
    data_size: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One range of a segment; `offset` and `length` in bytes."""

    start: int
    end: int
    offset: int
    length: int
    crc: int
    attempt: int


class SegmentFile:
    """A segment being written; used by one thread. Ranges must be appended in order, without gaps."""

    def __init__(self, folder: Path, nonce: str) -> None:
        self._folder, self._nonce = folder, nonce
        self._temporary = folder / f".{nonce}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = private(os.open(self._temporary, flags, 0o600))
        keep_for_owner(self._fd)
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._index = bytearray()
        self._offset = 0
        self._start = self._next = -1

    def append(self, start: int, end: int, attempt: int, payload: bytes) -> None:
        """Add one range's bytes. Raises ValueError when the range does not follow the one before."""
        if self._next not in (-1, start) or end < start:
            raise ValueError(f"range {start}-{end} does not follow item {self._next - 1}")
        if self._next == -1:
            self._start = start
        self._next = end + 1
        self._index += RECORD.pack(start, end, self._offset, len(payload), zlib.crc32(payload), attempt)
        self._offset += len(payload)
        self._waiting.append(payload)
        self._waiting_size += len(payload)
        if self._waiting_size >= FLUSH_SIZE:
            self._flush()

    def seal(self) -> Sealed:
        """Make the segment durable under its own name. Raises ValueError when nothing was appended."""
        if self._next == -1:
            raise ValueError("a segment needs at least one range")
        count = len(self._index) // RECORD.size
        self._waiting += (bytes(self._index), TRAILER.pack(count, zlib.crc32(self._index), MAGIC))
        self._flush()
        os.fsync(self._fd)
        os.close(self._fd)
        name = f"{self._start:012d}-{self._next - 1:012d}-{self._nonce}.seg"
        os.rename(self._temporary, self._folder / name)
        sync_folder(str(self._folder))
        size = self._offset + len(self._index) + TRAILER.size
        return Sealed(name=name, size=size, data_size=self._offset, start=self._start, end=self._next - 1)

    def abort(self) -> None:
        """Remove what was written; the segment never existed."""
        os.close(self._fd)
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        write_all(self._fd, b"".join(self._waiting))
        start_writeback(self._fd)
        self._waiting.clear()
        self._waiting_size = 0


def read_index(path: Path) -> list[Entry]:
    """All ranges of a sealed segment, in order.

    Raises SegmentDamaged when the file is missing, truncated, or its index was altered. Payloads are not
    read; each carries its own checksum.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < TRAILER.size:
                raise SegmentDamaged(f"{path}: {size} bytes are too few for a segment")
            file.seek(size - TRAILER.size)
            count, crc, magic = TRAILER.unpack(file.read(TRAILER.size))
            data_size = size - TRAILER.size - count * RECORD.size
            if magic != MAGIC or data_size < 0:
                raise SegmentDamaged(f"{path}: does not end as a segment does; it is truncated or foreign")
            file.seek(data_size)
            index = file.read(count * RECORD.size)
    except OSError as error:
        raise SegmentDamaged(f"{path}: {error.strerror}") from error
    if zlib.crc32(index) != crc:
        raise SegmentDamaged(f"{path}: the index does not match its checksum")
    return list(_entries(index))


def extents(entries: list[Entry], start: int, end: int) -> list[tuple[int, int]]:
    """`(offset, length)` of the bytes of items `start` to `end`, adjacent ranges joined.

    Raises ValueError when the segment's ranges do not begin and end exactly there.
    """
    chosen = [entry for entry in entries if entry.start <= end and entry.end >= start]
    if not chosen or chosen[0].start != start or chosen[-1].end != end:
        raise ValueError(f"items {start}-{end} are not whole ranges of this segment")
    offset = chosen[0].offset
    return [(offset, chosen[-1].offset + chosen[-1].length - offset)]


def _entries(index: bytes) -> Iterator[Entry]:
    for start, end, offset, length, crc, attempt in RECORD.iter_unpack(index):
        yield Entry(start=start, end=end, offset=offset, length=length, crc=crc, attempt=attempt)
