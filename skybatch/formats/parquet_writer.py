"""Parquet out: `ParquetWriter`. Batches travel as Arrow arrays; the file is put together from those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, ClassVar

from skybatch.errors import ResultError, UnknownName, UsageError, nearest
from skybatch.formats import arrow_types
from skybatch.formats.arrow_values import array_of, culprit, names_of, typed_array_of
from skybatch.formats.base import Assembler, Item, SegmentWriter
from skybatch.formats.columns import check_columns, columns_of, value_of
from skybatch.formats.parquet_assembler import ParquetAssembler, payload_of

ROW_GROUP_SIZE = 131_072
COMPRESSIONS = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")


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
        return payload_of(list(columns), arrays, len(results), start_idx)

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
        return ParquetAssembler(
            sink,
            columns=columns_of(self.column) or [],
            types=self._schema_types(),
            survey=survey,
            row_group_size=self.row_group_size,
            compression=self.compression,
        )


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
