"""A Parquet file put together from batches. Where its row groups end depends on the rows, not on how they came.

A payload is empty for a batch without results; else the number of rows and the first item (`<QQ`), then an Arrow
IPC stream of one record batch with the batch's own schema.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from skybatch.errors import ResultError
from skybatch.formats import arrow_types
from skybatch.formats.arrow_types import Conflict
from skybatch.formats.base import Assembler, Restart

ROW_GROUP_BYTES = 64 << 20
"""A row group ends before a row that would take it over this size, uncompressed."""
_HEAD = struct.Struct("<QQ")


def payload_of(names: list[str], arrays: list[Any], rows: int, start: int) -> bytes:
    """One batch; the first row belongs to item `start`."""
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


class ParquetAssembler(Assembler):
    """Cuts rows into row groups, of one schema: known from the start, or that of the first rows.

    `types` are all columns and their types, where the user gave them; else `columns` come first, and others as they
    appear. Without either, or a `survey` of all payloads, the schema is that of the first row group's batches.
    """

    def __init__(
        self,
        sink: BinaryIO,
        *,
        columns: list[str],
        types: dict[str, Any] | None,
        survey: Callable[[], Iterator[bytes]] | None,
        row_group_size: int,
        compression: str,
    ) -> None:
        import pyarrow as pa

        self._sink, self._row_group_size, self._compression = sink, row_group_size, compression
        self._known = types is not None or survey is not None
        known = types or dict.fromkeys(columns, pa.null())
        self._fields = [pa.field(name, type) for name, type in known.items()]
        if types is None and survey is not None:
            for payload in filter(None, survey()):
                self._fields = _join(self._fields, _stream(payload).schema, payload)
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

        self._sink = _Sink(sink)
        self._fields = fields
        self._schema = pa.schema([pa.field(field.name, arrow_types.writable(field.type)) for field in fields])
        self._row_group_size = row_group_size
        dictionaries = [path for field in self._schema for path in arrow_types.text_leaves(field.name, field.type)]
        self._file = parquet.ParquetWriter(
            self._sink,
            self._schema,
            compression=compression,
            use_dictionary=dictionaries or False,  # of numbers they are slower to make, and larger once compressed
            write_page_checksum=True,
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
