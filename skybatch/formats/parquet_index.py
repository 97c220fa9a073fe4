"""What the footers of Parquet files say: which rows lie where, and whether the files go together."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from skybatch.errors import InputMissing, StorageFailed, UsageError, nearest
from skybatch.formats import source, storage
from skybatch.formats.masking import masked
from skybatch.formats.parquet_writer import require_pyarrow
from skybatch.formats.source import InputFile, Source

PARALLEL = 8
"""So many footers are read at once."""
WHOLE_LOCAL, WHOLE_STORED = 32 << 20, 128 << 20
"""Row groups up to this size are read whole, in few requests; larger ones bit by bit."""
_NAME = "parquet.json"
_LOCAL_BUFFER, _STORED_BUFFER = 1 << 20, 8 << 20


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """One file and its row groups."""

    file: InputFile
    rows: list[int]  # of each row group
    row_bytes: int  # of an average row, uncompressed, 1 at least
    largest: int  # bytes of the largest row group as it lies in the file


@dataclass(frozen=True, kw_only=True)
class ParquetIndex:
    """All files, the columns to read, and the first item of each file; the last start is the number of items."""

    names: list[str]
    files: list[IndexedFile]
    starts: list[int]

    def at(self, item: int) -> int:
        """The number of the file that an item lies in."""
        return bisect_right(self.starts, item) - 1

    def save(self, folder: str) -> None:
        """Write it for `load`."""
        files = [[f.file.path, f.file.size, f.file.version, f.rows, f.row_bytes, f.largest] for f in self.files]
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/{_NAME}", "w", encoding="utf-8", errors="surrogateescape") as target:
            json.dump({"names": self.names, "files": files}, target)

    @classmethod
    def load(cls, folder: str) -> ParquetIndex:
        """As saved."""
        with open(f"{folder}/{_NAME}", encoding="utf-8", errors="surrogateescape") as file:
            saved = json.load(file)
        return _index(
            saved["names"],
            [
                IndexedFile(
                    file=InputFile(path=path, size=size, version=version),
                    rows=rows,
                    row_bytes=row_bytes,
                    largest=largest,
                )
                for path, size, version, rows, row_bytes, largest in saved["files"]
            ],
        )


def _index(names: list[str], files: list[IndexedFile]) -> ParquetIndex:
    starts = [0, *accumulate(sum(file.rows) for file in files)]
    return ParquetIndex(names=names, files=files, starts=starts)


def build(path: str | list[str], columns: list[str] | None) -> ParquetIndex:
    """Read all footers. Raises InputMissing; UsageError for unknown columns and files that do not go together."""
    require_pyarrow(f"ParquetReader({masked(str(path))})")
    files = list(source.find(path))
    with ThreadPoolExecutor(PARALLEL) as pool:
        first = _types(_open(files[0]), files[0])
        _check_columns(columns, first, files[0])
        names = columns or list(first)
        wanted = {name: first[name] for name in names}
        return _index(names, list(pool.map(lambda file: _look(file, columns, wanted, files[0]), files)))


def _check_columns(columns: list[str] | None, types: dict[str, Any], file: InputFile) -> None:
    if columns is None:
        return
    if not (isinstance(columns, list) and columns and all(isinstance(name, str) for name in columns)):
        raise UsageError(f"ParquetReader: columns must be a list of names, not {columns!r}")
    if len(set(columns)) < len(columns):
        raise UsageError(f"ParquetReader: columns has a name twice: {columns!r}")
    for name in columns:
        if name not in types:
            known = ", ".join(types)
            raise UsageError(f"input {masked(file.path)}: no column {name!r}{nearest(name, types)}; it has: {known}")


def _look(file: InputFile, columns: list[str] | None, wanted: dict[str, Any], first: InputFile) -> IndexedFile:
    import pyarrow as pa

    parquet = _open(file)
    types, place = _types(parquet, file), f"input {masked(file.path)}"
    for name, type in wanted.items():
        if name not in types:
            raise UsageError(f"{place}: no column {name!r}, which {masked(first.path)} has")
        if types[name] != type and not {types[name], type} & {pa.null()}:
            raise UsageError(f"{place}: column {name!r} is {types[name]}, and in {masked(first.path)} it is {type}")
    if columns is None and (more := types.keys() - wanted.keys()):
        raise UsageError(f"{place}: column {min(more)!r} is not in {masked(first.path)}; columns= leaves it out")
    metadata = parquet.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    sizes = [_sizes(group, wanted) for group in groups]
    unpacked, rows = sum(size for size, _ in sizes), max(1, metadata.num_rows)
    return IndexedFile(
        file=file,
        rows=[group.num_rows for group in groups],
        row_bytes=max(1, unpacked // rows),
        largest=max((packed for _, packed in sizes), default=0),
    )


def _sizes(group: Any, wanted: dict[str, Any]) -> tuple[int, int]:
    """Bytes of the wanted columns, uncompressed and as they lie in the file."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema in wanted or _top(chunk.path_in_schema) in wanted]
    return sum(chunk.total_uncompressed_size for chunk in chunks), sum(chunk.total_compressed_size for chunk in chunks)


def _top(path: str) -> str:
    return path.partition(".")[0]


def _types(parquet: Any, file: InputFile) -> dict[str, Any]:
    """The columns and their types as items get them."""
    schema = parquet.schema_arrow
    types = {field.name: plain_type(field.type) for field in schema}
    if len(types) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise UsageError(f"input {masked(file.path)}: two columns are called {twice!r}")
    return types


def _open(file: InputFile) -> Any:
    """A file with its footer read. Raises UsageError naming it when it is no Parquet file."""
    if not file.size:
        raise UsageError(f"input {masked(file.path)}: is empty, which is no Parquet file")
    try:
        return open_parquet(file, largest=0)
    except (StorageFailed, InputMissing):
        raise
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InputMissing(f"input {masked(file.path)}: {error.strerror}") from None
        raise UsageError(f"input {masked(file.path)}: cannot be read as a Parquet file: {error}") from None


def open_parquet(file: InputFile, *, largest: int) -> Any:
    """A `pyarrow.parquet.ParquetFile`; `largest` is the size of its largest row group."""
    import pyarrow as pa
    from pyarrow import parquet

    local = storage.is_local(file.path)
    whole = largest <= (WHOLE_LOCAL if local else WHOLE_STORED)
    return parquet.ParquetFile(
        pa.PythonFile(_Bytes(source.open_file(file)), mode="r"),
        pre_buffer=whole,
        buffer_size=0 if whole else _LOCAL_BUFFER if local else _STORED_BUFFER,
        page_checksum_verification=True,
    )


class _Bytes:
    """A source as the kind of file that pyarrow reads."""

    closed = False

    def __init__(self, source: Source) -> None:
        self._source, self._at = source, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self._at = offset + (0, self._at, self._source.file.size)[whence]
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        data = self._source.read(self._at, self._source.file.size - self._at if size < 0 else size)
        self._at += len(data)
        return data

    def close(self) -> None:
        """The source closes itself when nobody needs it."""


def plain_type(type: Any) -> Any:
    """The type as which values become items: categories as their values, nanoseconds as microseconds."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_dictionary(type):
        return plain_type(type.value_type)
    if isinstance(type, pa.BaseExtensionType):
        return plain_type(type.storage_type)
    if kinds.is_temporal(type) and getattr(type, "unit", None) == "ns":
        if kinds.is_timestamp(type):
            return pa.timestamp("us", type.tz)
        return pa.duration("us") if kinds.is_duration(type) else pa.time64("us")
    if kinds.is_struct(type):
        return pa.struct([field.with_type(plain_type(field.type)) for field in type])
    if kinds.is_list(type):
        return pa.list_(type.value_field.with_type(plain_type(type.value_type)))
    if kinds.is_large_list(type):
        return pa.large_list(type.value_field.with_type(plain_type(type.value_type)))
    return type


def plain(batch: Any, names: Sequence[str]) -> Any:
    """The columns of these names, in this order, of plain types."""
    import pyarrow as pa

    own = {name: number for number, name in enumerate(batch.schema.names)}
    columns = []
    for name in names:
        column = batch.column(own[name])
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        type = plain_type(column.type)
        columns.append(column if column.type.equals(type) else column.cast(type, safe=False))
    return pa.RecordBatch.from_arrays(columns, names=list(names))
