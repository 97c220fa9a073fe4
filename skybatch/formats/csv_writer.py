"""`CsvWriter`: values separated by commas or tabs, quoted where they must be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from skybatch.errors import UsageError
from skybatch.formats import values
from skybatch.formats.base import Assembler, Item, Restart
from skybatch.formats.columns import check_columns, columns_of, select
from skybatch.formats.compressed import CompressibleWriter, Survey, uncompressed_name
from skybatch.formats.concatenation import Sink


@dataclass
class CsvWriter(CompressibleWriter):
    r"""One row per result, UTF-8, lines ended by `\n`, cells quoted where they must be.

    Text is written as it is, None as an empty cell, anything else as JSON writes it (see `formats.values`). The
    columns are those of `column`, which every result must have; without it all that results have, in order of first
    appearance, and what a result lacks of these stays empty. A column that comes up late has the output built anew
    at the end of the job. `delimiter` is a tab for names in .tsv, else a comma.
    """

    path: str
    column: str | list[str] | None = None
    delimiter: str | None = None
    include_header: bool = True

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson"}
    accepts_any_count: ClassVar[bool] = True

    def check(self) -> None:
        """Raise UsageError for fields that make no sense."""
        super().check()
        name = f"CsvWriter({self.path!r})"
        check_columns(name, self.column)
        delimiter = self.delimiter
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
            raise UsageError(f"{name}: delimiter must be one ASCII character, no quote or line end; not {delimiter!r}")

    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """The results as rows; without `column`, after a line of the columns that these results have."""
        if not results:
            return b""
        layout = self._layout()
        rows = values.plain(select(results, columns_of(self.column), start_idx), start_idx)
        columns = columns_of(self.column) or list(dict.fromkeys(name for row in rows for name in row))
        lines = [layout.line([layout.cell(row.get(name)) for name in columns]) for row in rows]
        return (b"" if self.column else layout.line(map(layout.cell, columns))) + b"".join(lines)

    def header(self) -> bytes:
        """The line of the columns, where these are known beforehand."""
        columns = columns_of(self.column)
        layout = self._layout()
        return layout.line(map(layout.cell, columns)) if columns and self.include_header else b""

    @property
    def is_assembled_plain(self) -> bool:
        """Whether the columns are to be found."""
        return self.column is None

    def plain_assembler(self, sink: Sink, survey: Survey | None) -> Assembler | None:
        """What finds the columns, where none were given."""
        if not self.is_assembled_plain:
            return None
        return _Union(sink, self._layout(), survey, include_header=self.include_header)

    def _layout(self) -> _Layout:
        tabs = uncompressed_name(self.path).endswith((".tsv", ".tab"))
        return _Layout(self.delimiter or ("\t" if tabs else ","))


class _Layout:
    """How cells become lines, and lines cells again; all as bytes."""

    def __init__(self, delimiter: str) -> None:
        import orjson

        self._dumps = orjson.dumps
        self._delimiter = delimiter.encode()
        mark = re.escape(self._delimiter)
        self._special = re.compile(b'[\r\n"' + mark + b"]").search
        self._cells = re.compile(rb'("[^"]*(?:""[^"]*)*"|[^"\n' + mark + rb"]*)([\n" + mark + rb"])")

    def cell(self, value: Any) -> bytes:
        """A value, quoted if need be."""
        if value is None:
            return b""
        data = value.encode() if isinstance(value, str) else self._dumps(value)
        return b'"' + data.replace(b'"', b'""') + b'"' if self._special(data) else data

    def line(self, cells: Iterable[bytes]) -> bytes:
        """A row; one empty cell alone is quoted, a blank line would be no row to most readers."""
        cells = list(cells)
        return (b'""' if cells == [b""] else self._delimiter.join(cells)) + b"\n"

    def rows(self, payload: bytes) -> Iterator[list[bytes]]:
        """The lines of a payload, as cells that are still quoted where they must be."""
        row: list[bytes] = []
        for found in self._cells.finditer(payload):
            row.append(b"" if found[1] == b'""' else found[1])
            if found[2] == b"\n":
                yield row
                row = []


class _Union(Assembler):
    """Brings payloads, each headed by its own columns, to the columns of all of them."""

    def __init__(self, sink: Sink, layout: _Layout, survey: Survey | None, *, include_header: bool) -> None:
        self._sink, self._layout, self._include_header = sink, layout, include_header
        self._columns: list[bytes] | None = None
        self._head = b""
        if survey is not None:
            found: dict[bytes, None] = {}
            for payload in filter(None, survey()):
                found.update(dict.fromkeys(self._columns_of(payload)))
            self._columns = list(found)
            self._head = layout.line(found)
        self._begun = False

    def add(self, payload: bytes) -> None:
        """Append rows. Raises Restart when they have columns that were not known."""
        if not payload:
            return
        if self._columns is None:
            self._columns = self._columns_of(payload)
            self._head = self._layout.line(self._columns)
        if not self._begun:
            self._begun = True
            self._sink.write(self._head if self._include_header else b"")
        if payload.startswith(self._head):
            self._sink.write(payload[len(self._head) :])
        else:
            self._sink.write(self._rearranged(payload, self._columns))

    def finish(self) -> None:
        """Nothing is left."""

    def _columns_of(self, payload: bytes) -> list[bytes]:
        names = next(self._layout.rows(payload))
        return [] if payload.startswith(b"\n") else names

    def _rearranged(self, payload: bytes, columns: list[bytes]) -> bytes:
        own = self._columns_of(payload)
        if not set(own) <= set(columns):
            raise Restart
        places = [own.index(name) if name in own else None for name in columns]
        rows = self._layout.rows(payload)
        next(rows)
        line = self._layout.line
        return b"".join([line([b"" if place is None else row[place] for place in places]) for row in rows])
