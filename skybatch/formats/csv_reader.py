"""`CsvReader`: every record of CSV or TSV files is an item."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from skybatch.errors import UsageError, nearest
from skybatch.formats import record_scan, source, storage
from skybatch.formats.base import Item
from skybatch.formats.compressed import kind_of, uncompressed_name
from skybatch.formats.masking import masked
from skybatch.formats.record_reader import RECORD_LIMIT, RecordReader, skip_mark
from skybatch.formats.record_scan import Row
from skybatch.formats.source import Source

HEADER_LIMIT = 1 << 20
"""Bytes that a header may have, empty lines before it included."""
LARGE = 1 << 20
"""Characters of a text that may be one large record."""


@dataclass
class CsvReader(RecordReader[list[str]]):
    """Each record is an item: keys from the header, values as text. Empty lines are no records.

    `path` is a file, a folder, a glob or a list of those, locally or on a store; the files must have the same columns,
    in any order. `columns` are those wanted, in that order. `delimiter` is one ASCII character: a tab for names that
    end in `.tsv`, else a comma. `header` is True when every file begins with one, or the names where no file has one.

    Quoting is that of RFC 4180 and Python's `csv`: fields with quotes, delimiters or line ends in them are in quotes,
    doubled where one is meant; a quote within a field that does not begin with one is text. Text is UTF-8; a byte order
    mark is skipped. Another number of fields than the header has, text behind a closing quote, a quote that is never
    closed, or a record longer than RECORD_LIMIT is that item's failure.
    """

    columns: list[str] | None = None
    delimiter: str | None = None
    header: bool | list[str] = True

    hint_for_long = "; is a quote not closed?"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._headers: list[list[str]] = []  # different ones
        self._header_of: list[int] = []  # each file's
        self._picks: dict[int, tuple[list[str], list[int] | None]] = {}

    def check(self) -> None:
        """Raise InputMissing when there is no file, UsageError for fields, or a first header, that make no sense."""
        if self.delimiter is not None and not _is_delimiter(self.delimiter):
            raise UsageError(f"CsvReader: delimiter must be one ASCII character, not {self.delimiter!r}")
        if self.header is not True and not isinstance(self.header, list):
            raise UsageError(f"CsvReader: header must be True or a list of names, not {self.header!r}")
        if self.header is not True:
            _check_names(self.header, "CsvReader: header")
        if self.columns is not None:
            if not isinstance(self.columns, list):
                raise UsageError(f"CsvReader: columns must be a list of names, not {self.columns!r}")
            _check_names(self.columns, "CsvReader: columns")
        super().check()
        first = next(source.walk(self.path))
        if kind_of(first.path) is None:
            opened = source.open_file(first)
            try:
                self._names(opened, skip_mark(opened), masked(first.path))
            finally:
                opened.close()

    def build_index(self, folder: str) -> int:
        """Read every file once; the headers are kept with the index."""
        self._headers, self._header_of, self._picks = [], [], {}
        count = super().build_index(folder)
        kept = {"headers": self._headers, "of": self._header_of}
        storage.write_bytes(f"{folder}/headers.json", json.dumps(kept).encode())
        return count

    def open_index(self, folder: str) -> None:
        """Map the index; load the headers."""
        super().open_index(folder)
        if not self._header_of:
            with open(f"{folder}/headers.json") as file:
                kept = json.load(file)
            self._headers, self._header_of = kept["headers"], kept["of"]

    def scanned_as(self) -> str:
        """The delimiter."""
        if self.delimiter is not None:
            return self.delimiter
        first = self.path if isinstance(self.path, str) else self.path[0]
        return "\t" if uncompressed_name(first).lower().endswith(".tsv") else ","

    def skip_head(self, opened: Source, start: Row, name: str) -> Row:
        """Behind the header, which must have the columns of the first."""
        names, behind = self._names(opened, start, name)
        if names is None:
            self._header_of.append(-1)
            return behind
        if self._headers and set(names) != set(self._headers[0]):
            differ = sorted(set(names) ^ set(self._headers[0]))
            raise UsageError(
                f"{name}: its columns are not those of the first file; they differ in {', '.join(map(repr, differ))}"
            )
        if names not in self._headers:
            self._headers.append(names)
        self._header_of.append(self._headers.index(names))
        return behind

    def parse(self, text: str) -> list[list[str]]:
        """All rows. Raises ValueError unless each can be read and has as many fields as the first header."""
        with _long_fields():
            try:
                rows = self._rows(text)
            except csv.Error as error:
                raise ValueError(_explained(error)) from None
        if {*map(len, rows)} != {len(self._headers[0])}:
            raise ValueError("another number of fields")
        return rows

    def _rows(self, text: str) -> list[list[str]]:
        if len(text) > LARGE:
            try:
                return list(csv.reader([text.strip("\r\n")], delimiter=self.scanned_as(), strict=True))
            except csv.Error:
                pass  # it is not one record but several
        lines = io.StringIO(text, newline="\n")  # which takes four times the memory
        return [row for row in csv.reader(lines, delimiter=self.scanned_as(), strict=True) if row]

    def parse_one(self, text: str) -> list[str]:
        """One row."""
        with _long_fields():
            try:
                (row,) = csv.reader([text], delimiter=self.scanned_as(), strict=True)
            except csv.Error as error:
                raise ValueError(_explained(error)) from None
        if len(row) != len(self._headers[0]):
            raise ValueError(f"{len(row)} fields, and {len(self._headers[0])} columns")
        return row

    def items(self, raws: list[list[str]], file: int) -> list[Item]:
        """Rows under their keys."""
        keys, positions = self._pick(self._header_of[file])
        if positions is not None:
            raws = [[row[at] for at in positions] for row in raws]
        return [dict(zip(keys, row, strict=True)) for row in raws]

    def _pick(self, header: int) -> tuple[list[str], list[int] | None]:
        """The keys wanted, and where they are in rows under a header; None when that is their order."""
        if header not in self._picks:
            names, keys = self._headers[header], self.columns or self._headers[0]
            positions = [names.index(key) for key in keys]
            self._picks[header] = keys, None if positions == list(range(len(names))) else positions
        return self._picks[header]

    def _names(self, opened: Source, start: Row, where: str) -> tuple[list[str] | None, Row]:
        """The names of a file's columns, None where it has nothing in it, and where its records begin.

        Raises UsageError naming the file.
        """
        if isinstance(self.header, list):
            names, behind = self.header, start
        else:
            found, behind = self._read_header(opened, start, where)
            if found is None:
                return None, behind
            names = found
            _check_names(names, f"{where}: header")
        for column in self.columns or ():
            if column not in names:
                raise UsageError(f"{where}: there is no column {column!r}{nearest(column, names)}")
        return names, behind

    def _read_header(self, opened: Source, start: Row, where: str) -> tuple[list[str] | None, Row]:
        data = opened.read(start[0], HEADER_LIMIT)
        record = next(record_scan.records(data, self.scanned_as()), None)
        if record is None and len(data) < HEADER_LIMIT:
            return None, start
        if record is None:
            raise UsageError(f"{where}: no header in its first {HEADER_LIMIT:,} bytes")
        end = record.offset + len(record.data) + 1
        if end > len(data) and len(data) == HEADER_LIMIT:
            raise UsageError(f"{where}: the header is longer than {HEADER_LIMIT:,} bytes; is a quote not closed?")
        try:
            (names,) = csv.reader([record.data.decode()], delimiter=self.scanned_as(), strict=True)
        except (csv.Error, ValueError) as error:
            raise UsageError(f"{where}: the header cannot be read: {error}") from None
        offset = min(start[0] + end, start[0] + len(data))
        return names, (offset, 0, start[2] + data.count(b"\n", 0, end))


def _is_delimiter(delimiter: object) -> bool:
    return isinstance(delimiter, str) and len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n'


def _check_names(names: list[Any], what: str) -> None:
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{what}: a list of names is wanted, not {names!r}")
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise UsageError(f"{what}: column {number} has no name")
        if names.index(name) < number - 1:
            raise UsageError(f"{what}: two columns are named {name!r}")


def _explained(error: csv.Error) -> str:
    """What `csv` says, in words of the file."""
    said = str(error)
    if said.startswith("new-line character seen"):
        return "a carriage return in a field without quotes"
    return "a quote is never closed" if said == "unexpected end of data" else said


@contextmanager
def _long_fields() -> Iterator[None]:
    """`csv` reads fields as long as records may be; its limit is the process's, so it is put back."""
    before = csv.field_size_limit(RECORD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
