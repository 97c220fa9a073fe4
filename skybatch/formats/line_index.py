"""A sparse index of the records of a file of lines: where every 64 KB of it begin, in bytes, records and lines.

A record is a line that is not blank. Lines end at `\\n` only; a `\\r` before it belongs to the line end.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

STEP = 64 << 10
READ_SIZE = 1 << 20
_BLANK = b" \t\r"
_blank_start = re.compile(rb"\n[ \t\r\n]").search
_BOM = b"\xef\xbb\xbf"
_MAGIC = b"SKYBLIX1"


def _words() -> array[int]:
    return array("Q")


@dataclass(kw_only=True)
class LineIndex:
    """Checkpoints: byte offset, records before it, lines before it; the last one is the end of the file."""

    offsets: array[int] = field(default_factory=_words)
    records: array[int] = field(default_factory=_words)
    lines: array[int] = field(default_factory=_words)

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

    def add(self, offset: int, records: int, lines: int) -> None:
        """Append a checkpoint."""
        self.offsets.append(offset)
        self.records.append(records)
        self.lines.append(lines)

    def save(self, path: str) -> None:
        """Write the index to a file."""
        with open(path, "wb") as file:
            file.write(_MAGIC)
            for column in (self.offsets, self.records, self.lines):
                column.tofile(file)

    @classmethod
    def load(cls, path: str) -> LineIndex:
        """Read what `save` wrote."""
        index = cls()
        with open(path, "rb") as file:
            count = (os.fstat(file.fileno()).st_size - len(_MAGIC)) // 24
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError(f"{path} is not a line index")
            for column in (index.offsets, index.records, index.lines):
                column.fromfile(file, count)
        return index


def build(path: str, *, step: int = STEP, read_size: int = READ_SIZE) -> LineIndex:
    """Index a local file in one pass, at the speed of the disk. Raises OSError."""
    builder = _Builder(step)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(read_size):
            builder.feed(data)
    return builder.finish()


class _Builder:
    """Takes the file piece by piece; a line that crosses pieces is joined, all others are only counted."""

    def __init__(self, step: int) -> None:
        self.index = LineIndex()
        self._step = step
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
        offsets = self.index.offsets
        if len(offsets) > 1 and self._offset - offsets[-2] < self._step:
            for column in (offsets, self.index.records, self.index.lines):
                column.pop()
        self.index.add(self._offset, self._records, self._lines)

    def finish(self) -> LineIndex:
        rest = b"".join(self._tail)
        if self._first:
            self._mark()
        if rest:
            self._offset += len(rest)
            self._records += 1 if rest.strip(_BLANK) else 0
            self._lines += 1
            self.index.add(self._offset, self._records, self._lines)
        return self.index


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
