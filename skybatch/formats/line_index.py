"""A sparse index of the records of a file of lines: where every 64 KB of it begin, in bytes, records and lines.

A record is a line that is not blank. Lines end at `\\n` only; a `\\r` before it belongs to the line end.
"""

from __future__ import annotations

import mmap
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEP = 64 << 10
READ_SIZE = 1 << 20
_BLANK = b" \t\r"
_blank_start = re.compile(rb"\n[ \t\r\n]").search
_BOM = b"\xef\xbb\xbf"
Row = tuple[int, int, int]
_NOTHING: Row = (-1, -1, -1)
_MAGIC = b"SKYBLIX1"


def _words() -> array[int]:
    return array("Q")


@dataclass(kw_only=True)
class LineIndex:
    """Checkpoints: byte offset, records before it, lines before it; the last one is the end of the file."""

    offsets: Sequence[int]
    records: Sequence[int]
    lines: Sequence[int]

    @property
    def count(self) -> int:
        """Number of records."""
        return self.records[-1]

    def before(self, record: int) -> int:
        """The number of the last checkpoint at or before `record`."""
        return bisect_right(self.records, record, 0, len(self.records) - 1) - 1

    def after(self, record: int) -> int:
        """The number of the first checkpoint behind `record`."""
        return bisect_right(self.records, record)

    def has_blanks(self, first: int, last: int) -> bool:
        """Whether blank lines lie between two checkpoints."""
        return self.lines[last] - self.lines[first] != self.records[last] - self.records[first]

    @classmethod
    def load(cls, path: str) -> LineIndex:
        """An index written by `build_file`; it is mapped, so that only what is looked at takes memory."""
        with open(path, "rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if mapped[: len(_MAGIC)] != _MAGIC:
            raise ValueError(f"{path} is not a line index")
        words = mapped[len(_MAGIC) :].cast("Q")
        return cls(offsets=words[0::3], records=words[1::3], lines=words[2::3])


def build(path: str, *, step: int = STEP, read_size: int = READ_SIZE) -> LineIndex:
    """Index a local file in one pass, in memory. Raises OSError."""
    rows = _words()
    _build(path, rows.extend, step, read_size)
    return LineIndex(offsets=rows[0::3], records=rows[1::3], lines=rows[2::3])


def build_file(path: str, index_path: str, *, step: int = STEP, read_size: int = READ_SIZE) -> None:
    """Index a local file in one pass, at the speed of the disk, into a file for `LineIndex.load`. Raises OSError."""
    with open(index_path, "wb") as file:
        file.write(_MAGIC)
        _build(path, lambda row: file.write(array("Q", row)), step, read_size)


def _build(path: str, keep: Callable[[Row], object], step: int, read_size: int) -> None:
    builder = _Builder(step, keep)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(read_size):
            builder.feed(data)
    builder.finish()


class _Builder:
    """Takes the file piece by piece; a line that crosses pieces is joined, all others are only counted."""

    def __init__(self, step: int, keep: Callable[[Row], object]) -> None:
        self._step, self._keep = step, keep
        self._kept = self._latest = _NOTHING  # the last checkpoint kept, and one that may yet be joined to the next
        self._offset = self._records = self._lines = 0
        self._tail: list[bytes] = []
        self._first = True

    def feed(self, data: bytes) -> None:
        if self._first:
            self._first = False
            if data.startswith(_BOM):
                self._offset, data = len(_BOM), data[len(_BOM) :]
            self._mark()
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._tail.append(data)
            return
        if self._tail:
            head = data.find(b"\n") + 1
            self._take(b"".join([*self._tail, data[:head]]))
        else:
            head = 0
        start, step = head, self._step
        while start < cut:
            stop = cut if cut - start <= step else data.rfind(b"\n", start, start + step) + 1
            if stop <= start:
                stop = data.find(b"\n", start) + 1
            self._take(data[start:stop])
            start = stop
        self._tail = [data[cut:]] if cut < len(data) else []

    def _take(self, block: bytes) -> None:
        """Count a block that ends with a line end."""
        lines = block.count(b"\n")
        blank = _blank_lines(block) if block[0] in b"\n \t\r" or _blank_start(block) else 0
        self._offset += len(block)
        self._records += lines - blank
        self._lines += lines
        self._mark()

    def _mark(self) -> None:
        """A checkpoint here, instead of the latest one where that left less than a step behind it."""
        if self._latest is not _NOTHING and (self._kept is _NOTHING or self._offset - self._kept[0] >= self._step):
            self._keep_latest()
        self._latest = (self._offset, self._records, self._lines)

    def _keep_latest(self) -> None:
        self._keep(self._latest)
        self._kept = self._latest

    def finish(self) -> None:
        rest = b"".join(self._tail)
        if self._first:
            self._mark()
        self._keep_latest()
        if rest:
            self._offset += len(rest)
            self._records += 1 if rest.strip(_BLANK) else 0
            self._lines += 1
            self._keep((self._offset, self._records, self._lines))


def _blank_lines(block: bytes) -> int:
    return sum(1 for line in block.split(b"\n")[:-1] if not line.strip(_BLANK))


def records(data: bytes, *, blanks: bool) -> list[bytes]:
    """The lines of `data` that are records; `blanks` says that some may not be."""
    lines = data.split(b"\n")
    if blanks:
        return [line for line in lines if line.strip(_BLANK)]
    if not lines[-1]:
        lines.pop()
    return lines
