"""Where records begin in files of text, found piece by piece in bounded memory: lines, or those of CSV.

In CSV a line end within a quoted field ends no record. A quoted field begins with a quote at the beginning of a field
and ends with the next one that is not doubled (RFC 4180); any other quote is text. An empty line is no record there.
`csv.reader` sees the same records.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

STEP = 64 << 10
Row = tuple[int, int, int]
_may_be_blank = re.compile(rb"\n[\r\n]").search


class Record(NamedTuple):
    """One record of a block, without its line end: where it begins, in bytes and in lines before it."""

    offset: int
    lines: int
    data: bytes


class Scanner:
    """Counts the records of a file that is fed to it; keeps checkpoints: byte offset, records and lines before it.

    Without a `delimiter` each line is a record, an empty one too. Between two checkpoints lie at most three steps of
    bytes, or one longer record alone.
    """

    def __init__(
        self, delimiter: str | None, keep: Callable[[Row], object], *, start: Row = (0, 0, 0), step: int = STEP
    ) -> None:
        self._delimiter, self._keep, self._step = delimiter, keep, step
        self._offset, self._records, self._lines = start  # where the record that is being read begins
        self._length = self._inner_lines = 0  # of what was read of it
        self._context = b""  # stands for what was read of it
        keep(start)

    def feed(self, data: bytes) -> None:
        """The next bytes, however many."""
        for start in range(0, len(data), self._step):
            self._scan(data[start : start + self._step])

    def finish(self) -> None:
        """The file ends here, and so does a record that has no line end; the last checkpoint is the end."""
        if self._length:
            is_record = self._delimiter is None or bool(self._context.strip(b"\r"))
            self._mark(self._length, self._inner_lines, int(is_record))

    def _scan(self, data: bytes) -> None:
        flat, open_field = _flatten(self._context + data, self._delimiter)
        before = len(self._context)
        cut = flat.rfind(b"\n") + 1
        first = flat.find(b"\n") + 1 if self._length > self._step else 0  # so that a long record is alone
        at = 0
        for end in sorted({first, cut} - {0}):
            lines = flat[at:end]
            at_data, end_data = max(0, at - before), end - before
            self._mark(
                self._length + end_data - at_data,
                self._inner_lines + data.count(b"\n", at_data, end_data),
                lines.count(b"\n") - (_blank_lines(lines) if self._delimiter else 0),
            )
            at = end
        rest = max(0, at - before)
        self._length += len(data) - rest
        self._inner_lines += data.count(b"\n", rest)
        self._context = open_field or self._stand_in(flat[cut:])

    def _mark(self, length: int, lines: int, records: int) -> None:
        self._offset += length
        self._lines += lines
        self._records += records
        self._length = self._inner_lines = 0
        self._keep((self._offset, self._records, self._lines))

    def _stand_in(self, unfinished: bytes) -> bytes:
        """A byte after which the scan goes on as after the beginning of a record that has no field open."""
        if not unfinished.strip(b"\r"):
            return unfinished[:1]
        ends_field = self._delimiter and unfinished.endswith(self._delimiter.encode())
        return unfinished[-1:] if ends_field else b"x"


def records(text: bytes, delimiter: str | None) -> Iterator[Record]:
    """The records of `text`, which begins where one does."""
    offset = lines = 0
    for line in _flatten(text, delimiter)[0].split(b"\n"):
        data = text[offset : offset + len(line)]
        if line.strip(b"\r") or (delimiter is None and offset < len(text)):
            yield Record(offset, lines, data)
        offset += len(line) + 1
        lines += data.count(b"\n") + 1


def _blank_lines(block: bytes) -> int:
    if block[0] not in b"\r\n" and not _may_be_blank(block):
        return 0
    return sum(1 for line in block.split(b"\n")[:-1] if not line.strip(b"\r"))


def _flatten(text: bytes, delimiter: str | None) -> tuple[bytes, bytes]:
    """`text` with quotes instead of all bytes of quoted fields, so that each record is a line; and what stands for
    a quoted field that the text ends with: it may go on."""
    if delimiter is None or b'"' not in text:
        return text, b""
    parts = _quoted(delimiter).split(text)
    open_field = b""
    if len(parts) > 1 and not parts[-1]:
        open_field = b'"' if parts[-2].count(b'"') % 2 else b'""'
    parts[1::2] = [b'"' * len(field) for field in parts[1::2]]
    return b"".join(parts), open_field


@functools.cache
def _quoted(delimiter: str) -> re.Pattern[bytes]:
    # looking behind comes second, so that the search is one for quotes
    return re.compile(rb'("(?<![^%b\n]")(?:[^"]++|"")*+"?)' % re.escape(delimiter.encode()))
