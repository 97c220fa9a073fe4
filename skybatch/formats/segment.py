"""Segments: the encoded batches of consecutive ranges, back to back, with an index at the end.

Layout: the payloads from offset 0; one index record per range, `<QQQQII` (start, end, offset, length,
CRC-32 of the payload, attempt); the trailer, `<QII8s` (number of records, CRC-32 of the index, CRC-32 of all
payloads, magic). On local disk a segment is one file, written under a temporary name, which gets its own when
sealed. On an object store it is two objects: the payloads under its name, put first, and index and trailer under
the same name with `.idx` for `.seg`. A local name, or an `.idx`, that exists is complete.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from skybatch import disk
from skybatch.errors import SegmentDamaged, name_place
from skybatch.failpoints import after, before
from skybatch.formats import storage

RECORD = struct.Struct("<QQQQII")
TRAILER = struct.Struct("<QII8s")
MAGIC = b"SKYBSEG1"
FLUSH_SIZE = 256 << 10
RANGES_MAX = 8192
"""A local segment is sealed at so many ranges: its index, 40 bytes for each, is in memory several times meanwhile."""
OBJECT_SIZE = 32 << 20
"""A segment that goes to an object store is sealed at this size: so much of it is held in memory."""
_BLOCK = 4 << 20
_REMEMBERED = 4  # indexes


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A finished segment; sizes in bytes, `start` and `end` inclusive."""

    name: str
    size: int  # of the object or file called `name`
    data_size: int
    start: int
    end: int
    version: str | None = None  # of the object, as it was when put


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One range of a segment; `offset` and `length` in bytes."""

    start: int
    end: int
    offset: int
    length: int
    crc: int
    attempt: int


class Segment:
    """A segment being written; used by one thread. Ranges must be appended in order, without gaps."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._waiting: list[bytes | memoryview] = []
        self._waiting_size = 0
        self._records = bytearray()
        self._crc = 0
        self._offset = 0
        self._start = self._next = -1

    is_full = False
    """Whether it should be sealed whatever else."""

    def append(self, start: int, end: int, attempt: int, payload: bytes | memoryview, crc: int | None = None) -> None:
        """Add one range's bytes; `crc` is their CRC-32 where that is known already.

        Raises ValueError when the range does not follow the one before.
        """
        if self._next not in (-1, start) or end < start:
            raise ValueError(f"range {start}-{end} does not follow item {self._next - 1}")
        if self._next == -1:
            self._start = start
        self._next = end + 1
        crc = zlib.crc32(payload) if crc is None else crc
        self._records += RECORD.pack(start, end, self._offset, len(payload), crc, attempt)
        self._offset += len(payload)
        self._waiting.append(payload)
        self._waiting_size += len(payload)

    def seal(self) -> Sealed:
        """Make it durable under its own name. Raises ValueError when nothing was appended."""
        raise NotImplementedError

    def abort(self) -> None:
        """Remove what was written; the segment never existed."""

    def _taken(self) -> bytes:
        """What waits, which goes into the checksum and waits no more."""
        data = b"".join(self._waiting)
        self._crc = zlib.crc32(data, self._crc)
        self._waiting.clear()
        self._waiting_size = 0
        return data

    def _index(self) -> bytes:
        count = len(self._records) // RECORD.size
        return b"".join((self._records, TRAILER.pack(count, zlib.crc32(self._records), self._crc, MAGIC)))

    def _name(self) -> str:
        if self._next == -1:
            raise ValueError("a segment needs at least one range")
        return f"{self._start:012d}-{self._next - 1:012d}-{self._nonce}.seg"

    def _sealed(self, size: int, version: str | None = None) -> Sealed:
        return Sealed(
            name=self._name(),
            size=size,
            data_size=self._offset,
            start=self._start,
            end=self._next - 1,
            version=version,
        )


class SegmentFile(Segment):
    """A segment on local disk."""

    def __init__(self, folder: Path, nonce: str) -> None:
        super().__init__(nonce)
        self._folder = folder
        self._temporary = folder / f".{nonce}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = storage.private(os.open(self._temporary, flags, 0o600))
        storage.keep_for_owner(self._fd)

    def append(self, start: int, end: int, attempt: int, payload: bytes | memoryview, crc: int | None = None) -> None:
        """Add one range's bytes; what has come together is written. Raises ValueError for a gap."""
        super().append(start, end, attempt, payload, crc)
        if self._waiting_size >= FLUSH_SIZE:
            self._write(self._taken())
        self.is_full = len(self._records) >= RANGES_MAX * RECORD.size

    def seal(self) -> Sealed:
        """Make it durable under its own name. Raises ValueError when nothing was appended."""
        name = self._name()
        self._write(self._taken())
        index = self._index()
        self._write(index)
        disk.fsync("segment", self._fd)
        os.close(self._fd)
        disk.rename("segment", self._temporary, self._folder / name)
        storage.sync_folder(str(self._folder))
        return self._sealed(self._offset + len(index))

    def abort(self) -> None:
        """Remove what was written; the segment never existed."""
        os.close(self._fd)
        self._temporary.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        try:
            before("segment.write")
            storage.write_all(self._fd, data)
            after("segment.write")
        except OSError as error:
            name_place(error, str(self._temporary))
            raise
        storage.start_writeback(self._fd)


class SegmentObjects(Segment):
    """A segment on an object store: held in memory, put when sealed."""

    def __init__(self, folder: str, nonce: str) -> None:
        super().__init__(nonce)
        self._folder = folder

    def append(self, start: int, end: int, attempt: int, payload: bytes | memoryview, crc: int | None = None) -> None:
        """Add one range's bytes. Raises ValueError for a gap."""
        super().append(start, end, attempt, payload, crc)
        self.is_full = self._waiting_size >= OBJECT_SIZE

    def seal(self) -> Sealed:
        """Put both objects. Raises StorageFailed, ValueError when nothing was appended."""
        from skybatch.formats import stores

        path = f"{self._folder}/{self._name()}"
        store = stores.of(path)
        payloads = store.put(path, self._taken())
        store.put(index_path(path), self._index())
        return self._sealed(self._offset, payloads.version)


def store_batch(folder: str, nonce: str, start: int, end: int, payload: bytes) -> str:
    """Store one range as a segment of its own, in a folder that may be anywhere; its path."""
    segment = Segment(nonce)
    segment.append(start, end, 1, payload)
    path = f"{folder}/{segment._name()}"
    data, index = segment._taken(), segment._index()
    if storage.is_local(folder):
        storage.write_bytes(path, data + index)
    else:
        storage.write_bytes(path, data)
        storage.write_bytes(index_path(path), index)
    return path


# Reading


@dataclass(frozen=True, kw_only=True)
class Index:
    """The checked index of the segment at `path`; sizes in bytes."""

    path: str
    data_size: int
    crc: int  # of all payloads
    records: bytes

    def entries(self) -> list[Entry]:
        """All ranges, in order."""
        return self._cut(0, self._count)

    def part(self, start: int, end: int) -> list[Entry]:
        """The ranges of items `start` to `end`. Raises SegmentDamaged when none begins or none ends exactly there."""
        first, last = self._ends(start, end)
        return self._cut(first, last + 1)

    def extent(self, start: int, end: int) -> tuple[int, int]:
        """Offset and length of their payloads, which lie back to back. Raises as `part`."""
        first, last = self._ends(start, end)
        (offset,) = self._cut(first, first + 1)
        (ending,) = self._cut(last, last + 1)
        return offset.offset, ending.offset + ending.length - offset.offset

    def _ends(self, start: int, end: int) -> tuple[int, int]:
        """Which records items `start` and `end` are in."""
        first, last = self._with(start), self._with(end)
        if first < 0 or self._first_item(first) != start or self._cut(last, last + 1)[0].end != end:
            raise SegmentDamaged(f"{self.path}: items {start}-{end} are not whole ranges of this segment")
        return first, last

    @property
    def _count(self) -> int:
        return len(self.records) // RECORD.size

    def _with(self, item: int) -> int:
        """Which record an item is in; -1 when it comes before all of them."""
        return bisect_right(range(self._count), item, key=self._first_item) - 1

    def _first_item(self, record: int) -> int:
        start: int = RECORD.unpack_from(self.records, record * RECORD.size)[0]
        return start

    def _cut(self, first: int, stop: int) -> list[Entry]:
        return [
            Entry(start=start, end=end, offset=offset, length=length, crc=crc, attempt=attempt)
            for start, end, offset, length, crc, attempt in RECORD.iter_unpack(
                self.records[first * RECORD.size : stop * RECORD.size]
            )
        ]


def index_path(path: str) -> str:
    """Where the index of a segment on an object store lies."""
    return f"{path.removesuffix('.seg')}.idx"


def read_index(path: str | Path) -> Index:
    """The index of a sealed segment, wherever it lies.

    Raises SegmentDamaged when it is missing, truncated or was altered. Payloads are not read; each carries its own
    checksum.
    """
    path = str(path)
    if storage.is_local(path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SegmentDamaged(f"{path}: {error.strerror}") from error
        try:
            return _index_of(fd, path)
        finally:
            os.close(fd)
    from skybatch.formats import stores

    try:
        tail = stores.of(path).read(index_path(path))
    except FileNotFoundError:
        raise SegmentDamaged(f"{index_path(path)}: not there") from None
    count, crc, data_crc = _trailer(tail[-TRAILER.size :], path)
    records = tail[: -TRAILER.size]
    if len(records) != count * RECORD.size:
        raise SegmentDamaged(f"{path}: its index is truncated or foreign")
    return _checked(path, records, crc, data_crc, None)


def remembering() -> Callable[[str], Index]:
    """A `read_index` that knows the last few it has read: winners that follow one another may share segments."""
    return lru_cache(maxsize=_REMEMBERED)(read_index)


def _index_of(fd: int, path: str) -> Index:
    size = os.fstat(fd).st_size
    count, crc, data_crc = _trailer(os.pread(fd, TRAILER.size, max(0, size - TRAILER.size)), path)
    data_size = size - TRAILER.size - count * RECORD.size
    if data_size < 0:
        raise SegmentDamaged(f"{path}: it is shorter than its index")
    return _checked(path, os.pread(fd, count * RECORD.size, data_size), crc, data_crc, data_size)


def check_payloads(fd: int, index: Index, start: int, end: int) -> None:
    """Read the payloads of items `start` to `end` of an open segment; SegmentDamaged when one was altered."""
    first, _, offset, _, _, _ = RECORD.unpack_from(index.records)
    last = RECORD.unpack_from(index.records, len(index.records) - RECORD.size)[1]
    if (first, last, offset) == (start, end, 0) and index.crc:
        if _checksum(fd, 0, index.data_size) != index.crc:
            raise SegmentDamaged(f"{index.path}: the results of items {start}-{end} do not match their checksum")
        return
    for entry in index.part(start, end):
        if _checksum(fd, entry.offset, entry.length) != entry.crc:
            raise _altered(index.path, entry)


def payloads(index: Index, start: int, end: int, version: str | None = None) -> Iterator[bytes]:
    """The bytes of each range of items `start` to `end`, in order; a few megabytes are read at a time.

    Raises SegmentDamaged when they are not there or were altered, `version` being what an object's must be.
    """
    for block in _blocks(index.part(start, end)):
        first, last = block[0].offset, block[-1].offset + block[-1].length
        data = memoryview(_read(index.path, first, last, version))
        if len(data) != last - first:
            raise SegmentDamaged(f"{index.path}: {last - first - len(data)} bytes are missing at its end")
        for entry in block:
            payload = data[entry.offset - first : entry.offset - first + entry.length]
            if zlib.crc32(payload) != entry.crc:
                raise _altered(index.path, entry)
            yield bytes(payload)


def _trailer(data: bytes, path: str) -> tuple[int, int, int]:
    if len(data) < TRAILER.size:
        raise SegmentDamaged(f"{path}: {len(data)} bytes are too few for a segment")
    count, crc, data_crc, magic = TRAILER.unpack(data)
    if magic != MAGIC or not count:
        raise SegmentDamaged(f"{path}: does not end as a segment does; it is truncated or foreign")
    return count, crc, data_crc


def _checked(path: str, records: bytes, crc: int, data_crc: int, data_size: int | None) -> Index:
    if zlib.crc32(records) != crc:
        raise SegmentDamaged(f"{path}: the index does not match its checksum")
    _, _, offset, length, _, _ = RECORD.unpack_from(records, len(records) - RECORD.size)
    if data_size not in (None, offset + length):
        raise SegmentDamaged(f"{path}: has {data_size} bytes of results; its index knows {offset + length}")
    return Index(path=path, data_size=offset + length, crc=data_crc, records=records)


def _checksum(fd: int, offset: int, length: int) -> int:
    crc, end = 0, offset + length
    buffer = bytearray(min(length, FLUSH_SIZE))
    while offset < end:
        view = memoryview(buffer)[: end - offset]
        done = os.preadv(fd, [view], offset)
        if not done:
            break
        crc = zlib.crc32(view[:done], crc)
        offset += done
    return crc


def _blocks(entries: list[Entry]) -> Iterator[list[Entry]]:
    block: list[Entry] = []
    for entry in entries:
        if block and entry.offset + entry.length - block[0].offset > _BLOCK:
            yield block
            block = []
        block.append(entry)
    if block:
        yield block


def _read(path: str, first: int, last: int, version: str | None) -> bytes:
    if not storage.is_local(path):
        from skybatch.formats import stores

        try:
            return stores.of(path).read(path, first, last, version=version)
        except FileNotFoundError:
            raise SegmentDamaged(f"{path}: not there") from None
    try:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), last - first, first)
    except OSError as error:
        raise SegmentDamaged(f"{path}: {error.strerror}") from error


def _altered(path: str, entry: Entry) -> SegmentDamaged:
    return SegmentDamaged(f"{path}: the results of items {entry.start}-{entry.end} do not match their checksum")
