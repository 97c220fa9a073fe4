"""Parquet out: `ParquetWriter`. Batches travel as Arrow arrays; the file is put together from those.

A payload is empty for a batch without results; else the number of rows and the first item (`<QQ`), then an Arrow
IPC stream of one record batch with the batch's own schema.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, ClassVar

from skybatch.errors import ResultError, UnknownName, UsageError, nearest
from skybatch.formats import arrow_types
from skybatch.formats.arrow_types import Conflict
from skybatch.formats.arrow_values import array_of, culprit, names_of, typed_array_of
from skybatch.formats.base import Assembler, Item, Restart, SegmentWriter
from skybatch.formats.columns import check_columns, columns_of, value_of

ROW_GROUP_SIZE = 131_072
ROW_GROUP_BYTES = 64 << 20
"""A row group ends before a row that would take it over this size, uncompressed."""
COMPRESSIONS = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")
_HEAD = struct.Struct("<QQ")


@dataclass
class ParquetWriter(SegmentWriter):
    """One Parquet file. `column` keeps one key, or a list of keys, in that order; else all keys become columns.

    Types come from the values, as `formats.arrow_values` says: null, integers and floats are widened over all
    results; kinds that do not go together are an error. `schema` gives names and types instead, as Arrow spells
    them ({"id": "int64", "tags": "list<string>"}): a key that a result lacks is null, one that is not in it an error.

    A row group has `row_group_size` rows, or fewer where those take more than 64 MB. `compression` is one of none,
    snappy, gzip, brotli, lz4, zstd. Workers encode; the engine needs the memory of about three row groups.
    """

    path: str
    column: str | list[str] | None = None
    schema: dict[str, str] | None = None
    row_group_size: int = ROW_GROUP_SIZE
    compression: str = "zstd"

    requires: ClassVar[dict[str, str]] = {"pyarrow": "pyarrow"}
    accepts_any_count: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._types: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise UsageError for fields that make no sense, and where pyarrow is missing."""
        name = f"ParquetWriter({self.path!r})"
        require_pyarrow(name)
        check_columns(name, self.column)
        if not isinstance(self.row_group_size, int) or self.row_group_size < 1:
            raise UsageError(f"{name}: row_group_size must be a number of rows, not {self.row_group_size!r}")
        if self.compression not in COMPRESSIONS:
            raise UnknownName("Parquet compression", str(self.compression), COMPRESSIONS)
        if self.schema is None:
            return
        if not isinstance(self.schema, dict) or not self.schema:
            raise UsageError(f"{name}: schema must map columns to types, not be {self.schema!r}")
        for column in columns_of(self.column) or self.schema:
            if column not in self.schema:
                what = nearest(column, self.schema)
                raise UsageError(f"{name}: schema has no type for column {column!r}{what}")
        for column, type in self.schema.items():
            try:
                arrow_types.parse(type)
            except (ValueError, AttributeError) as error:
                raise UsageError(f"{name}: schema, column {column!r}: {error}") from None

    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """The results as a payload."""
        if not results:
            return b""
        types = self._schema_types()
        arrays = []
        columns = self._columns(results, start_idx)
        for name, values in columns.items():
            make = partial(typed_array_of, type=types[name]) if types else array_of
            try:
                arrays.append(make(values))
            except (ValueError, TypeError, OverflowError, RecursionError):
                position, trouble = culprit(values, make)
                item = start_idx + position
                raise ResultError(f"item {item}, key {name!r}: {trouble}", item=item) from None
        return _payload(list(columns), arrays, len(results), start_idx)

    def _columns(self, results: list[Item], start: int) -> dict[str, list[Any]]:
        """The values of each column, by name."""
        names = columns_of(self.column)
        if names is None and self.schema:
            self._refuse_unknown(results, start)
            return {name: [result.get(name) for result in results] for name in self.schema}
        same = names is not None or sum(map(len, results)) == len(results) * len(results[0])
        try:
            if same:
                found = {name: [result[name] for result in results] for name in names or results[0]}
                if names or all(isinstance(name, str) for name in found):
                    return found
        except KeyError:
            pass
        if names is not None:
            return {name: [value_of(result, name, start + k) for k, result in enumerate(results)] for name in names}
        return {name: [result.get(name) for result in results] for name in _names(results, start)}

    def _refuse_unknown(self, results: list[Item], start: int) -> None:
        known = (self.schema or {}).keys()
        for index, result in enumerate(results, start):
            for name in result.keys() - known:
                what = nearest(str(name), known)
                raise ResultError(f"item {index}: key {name!r} is not in the schema{what}", item=index)

    def _schema_types(self) -> dict[str, Any] | None:
        if self._types is None and self.schema:
            names = columns_of(self.column) or self.schema
            self._types = {name: arrow_types.parse(self.schema[name]) for name in names}
        return self._types

    def assembler(self, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler:
        """What cuts the rows into row groups."""
        import pyarrow as pa

        if types := self._schema_types():
            return _Assembler(self, sink, [pa.field(name, type) for name, type in types.items()], known=True)
        fields = [pa.field(name, pa.null()) for name in columns_of(self.column) or []]
        for payload in filter(None, survey() if survey else ()):
            fields = _join(fields, _stream(payload).schema, payload)
        return _Assembler(self, sink, fields, known=survey is not None)


def require_pyarrow(name: str) -> None:
    """Raise UsageError where pyarrow cannot be imported."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{name} needs pyarrow ({error}); install it: pip install 'skybatch[parquet]'") from None


def _names(results: list[Item], start: int) -> list[str]:
    """All keys, in order of first appearance."""
    try:
        return names_of(results)
    except TypeError:
        item, name = next(
            (k, name) for k, row in enumerate(results, start) for name in row if not isinstance(name, str)
        )
        raise ResultError(f"item {item}, key {name!r}: a key must be text", item=item) from None


def _payload(names: list[str], arrays: list[Any], rows: int, start: int) -> bytes:
    import pyarrow as pa

    batch = pa.RecordBatch.from_arrays(arrays, names=names)
    sink = pa.BufferOutputStream()
    sink.write(_HEAD.pack(rows, start))
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _stream(payload: bytes) -> Any:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(memoryview(payload)[_HEAD.size :]))


def _join(fields: list[Any], schema: Any, payload: bytes) -> list[Any]:
    try:
        return arrow_types.join_fields(fields, list(schema))
    except Conflict as conflict:
        raise _mismatch(payload, conflict) from None


def _mismatch(payload: bytes, error: Exception) -> ResultError:
    _, start = _HEAD.unpack_from(payload)
    which = f"the batch that begins with item {start} does not go with those before it"
    return ResultError(f"{which}: column {error}; the writer's schema= can say its type")


class _Assembler(Assembler):
    """Cuts rows into row groups, of one schema: known from the start, or that of the first rows."""

    def __init__(self, writer: ParquetWriter, sink: BinaryIO, fields: list[Any], *, known: bool) -> None:
        self._row_group_size, self._compression = writer.row_group_size, writer.compression
        self._sink, self._fields, self._known = sink, fields, known
        self._early: list[bytes] = []  # payloads from before the schema is known
        self._early_rows = self._early_bytes = 0
        self._groups: _RowGroups | None = None

    def add(self, payload: bytes) -> None:
        """The rows of one batch. Raises Restart for what the schema does not hold, ResultError for what none holds."""
        if not payload:
            return
        if self._groups is None and not self._known:
            self._fields = _join(self._fields, _stream(payload).schema, payload)
            self._early.append(payload)
            self._early_rows += _HEAD.unpack_from(payload)[0]
            self._early_bytes += len(payload)
            if self._early_rows >= self._row_group_size or self._early_bytes >= ROW_GROUP_BYTES:
                self._begin()
            return
        self._begin().add(payload)

    def _begin(self) -> _RowGroups:
        if self._groups is None:
            self._groups = _RowGroups(self._sink, self._fields, self._row_group_size, self._compression)
            early, self._early = self._early, []
            for payload in early:
                self._groups.add(payload)
        return self._groups

    def finish(self) -> None:
        """The last row group, and the footer."""
        self._begin().finish()


class _RowGroups:
    """A Parquet file being written. Where a row group ends depends on its rows, not on how they came."""

    def __init__(self, sink: BinaryIO, fields: list[Any], row_group_size: int, compression: str) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._fields = fields
        self._schema = pa.schema([pa.field(field.name, arrow_types.writable(field.type)) for field in fields])
        self._row_group_size = row_group_size
        self._sink = _Sink(sink)
        self._file = parquet.ParquetWriter(
            self._sink, self._schema, compression=compression, use_dictionary=True, write_page_checksum=True
        )
        self._waiting: list[Any] = []
        self._rows = self._bytes = 0
        self._fits: Any = None  # the schema of payloads last seen to fit

    def add(self, payload: bytes) -> None:
        """The rows of one batch. Raises Restart, ResultError; then it is of no use any more."""
        try:
            self._add(payload)
        except BaseException:
            self._sink.leave()
            raise

    def __del__(self) -> None:
        self._sink.leave()

    def _add(self, payload: bytes) -> None:
        stream = _stream(payload)
        if self._fits is None or not stream.schema.equals(self._fits):
            if _join(self._fields, stream.schema, payload) != self._fields:
                raise Restart
            self._fits = stream.schema
        self._cut(self._conformed(stream.read_next_batch(), payload))

    def _conformed(self, batch: Any, payload: bytes) -> Any:
        import pyarrow as pa

        rows, _ = _HEAD.unpack_from(payload)
        if batch.schema.equals(self._schema):
            return batch
        own = {name: index for index, name in enumerate(batch.schema.names)}
        arrays = []
        for field in self._schema:
            array = batch.column(own[field.name]) if field.name in own else pa.nulls(rows)
            try:
                arrays.append(arrow_types.conform(array, field.type))
            except ValueError as error:
                raise _mismatch(payload, ValueError(f"{field.name!r}: {error}")) from None
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _cut(self, batch: Any) -> None:
        start, rows = 0, batch.num_rows
        while start < rows:
            end = min(rows, start + self._row_group_size - self._rows)
            room = ROW_GROUP_BYTES - self._bytes
            full = _size(batch, start, end) > room
            if full:
                end = max(_fitting(batch, start, end, room), start + (not self._rows))
            self._waiting.append(batch.slice(start, end - start))
            self._rows += end - start
            self._bytes += _size(batch, start, end)
            if full or self._rows == self._row_group_size:
                self._write()
            start = end

    def _write(self) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()  # pages would end where chunks do
        self._file.write_table(table, row_group_size=self._row_group_size)
        self._waiting, self._rows, self._bytes = [], 0, 0

    def finish(self) -> None:
        """Write what waits, and the footer."""
        if self._rows:
            self._write()
        self._file.close()
        self._sink.leave()


def _size(batch: Any, start: int, end: int) -> int:
    return sum(arrow_types.size(column, start, end) for column in batch.columns)


def _fitting(batch: Any, start: int, end: int, room: int) -> int:
    """The last end that fits into `room` bytes."""
    low, high = start, end
    while low < high:
        middle = (low + high + 1) // 2
        if _size(batch, start, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low


class _Sink:
    """A file as pyarrow may have it: not closed by it, and left alone by a writer that is given up.

    pyarrow's writers write a footer when they are deleted, into what may be another one's file by then.
    """

    closed = False

    def __init__(self, sink: BinaryIO) -> None:
        self._sink: BinaryIO | None = sink

    def leave(self) -> None:
        """Whatever is written from now on goes nowhere."""
        self._sink = None

    def write(self, data: Any) -> int:
        """All of it."""
        rest = memoryview(data)
        size = len(rest)
        while rest and self._sink is not None:
            rest = rest[self._sink.write(rest) :]
        return size

    def flush(self) -> None:
        """Is the owner's to do."""

    def close(self) -> None:
        """Likewise."""
