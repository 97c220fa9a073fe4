"""A sparse index of the records of several files: where every 64 KB or so of each begin, in bytes, records and lines.

It is written once, by the engine, and mapped by workers, so that only what is looked at takes memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from types import TracebackType

from skybatch import disk
from skybatch.formats import listing, mapped

Row = tuple[int, int, int]
_MAGIC = b"SKYBREC1"


class RecordIndex:
    """Rows of checkpoints: byte offset in its file, records before it in all files, lines before it in its file.

    Each file has one where its records begin, and one at its end.
    """

    def __init__(self, folder: str) -> None:
        self.files = listing.load(folder)
        rows, self._first_rows = _numbers(f"{folder}/records.rows"), _numbers(f"{folder}/records.files")
        self.offsets, self.records, self.lines = rows[0::3], rows[1::3], rows[2::3]
        self.count: int = self.records[-1]

    def before(self, record: int) -> int:
        """The last row at or before a record."""
        return bisect_right(self.records, record, 0, len(self.records) - 1) - 1

    def after(self, record: int) -> int:
        """The first row behind a record; it is one of the same file."""
        return bisect_right(self.records, record)

    def file_of(self, row: int) -> int:
        """The number of a row's file."""
        return bisect_right(self._first_rows, row) - 1

    def end_of(self, file: int) -> int:
        """The row that is a file's end."""
        return (self._first_rows[file + 1] if file + 1 < len(self._first_rows) else len(self.records)) - 1

    def reach(self, row: int, size: int) -> int:
        """The last row of the same file that lies within `size` bytes, but the next one in any case."""
        end = self.end_of(self.file_of(row))
        found = bisect_right(self.offsets, self.offsets[row] + size, row, end + 1) - 1
        return max(found, min(row + 1, end))

    def rows_longer_than(self, size: int, first: int, last: int) -> list[int]:
        """Rows from `first` on, before `last`, up to whose next one it is more than `size` bytes."""
        return [row for row in range(first, last) if self.offsets[row + 1] - self.offsets[row] > size]


class Making:
    """Writes an index, file after file."""

    def __init__(self, folder: str) -> None:
        self._rows = open(f"{folder}/records.rows", "wb")  # noqa: SIM115
        self._files = open(f"{folder}/records.files", "wb")  # noqa: SIM115
        self._rows.write(_MAGIC)
        self._files.write(_MAGIC)
        self._written = 0
        self._before = self._last = 0  # records in the files before, and up to the row last written

    def begin_file(self) -> None:
        """The rows that follow are those of the next file."""
        self._files.write(array("Q", (self._written,)))
        self._before = self._last

    def keep(self, row: Row) -> None:
        """A checkpoint; records counted from the file's beginning."""
        offset, records, lines = row
        self._last = self._before + records
        self._rows.write(array("Q", (offset, self._last, lines)))
        self._written += 1

    def __enter__(self) -> Making:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in (self._rows, self._files):
            file.flush()
            disk.fsync("index", file.fileno())  # the journal says that the index is there, and is durable
            file.close()


def _numbers(path: str) -> Sequence[int]:
    return mapped.load(path, _MAGIC, "an index of records").cast("Q")
