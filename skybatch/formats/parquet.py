"""Parquet in: `ParquetReader`. Row groups are decoded into Arrow on the reading thread, and into items on the mapper's.

One row group is decoded at a time, in order; what was decoded last is kept, so that windows that follow each other
cost no row twice. A window from before that begins the row group anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, ClassVar

from skybatch.errors import InputMissing, RecordError, StorageFailed
from skybatch.formats import parquet_index, source
from skybatch.formats.base import Item, WindowReader
from skybatch.formats.masking import masked
from skybatch.formats.parquet_index import IndexedFile, ParquetIndex

WINDOW_BYTES = 4 << 20
DECODED_BYTES, DECODED_ROWS = 4 << 20, 16_384
"""How much of a row group is decoded at once."""
KEPT_BYTES = 64 << 20
"""How much of a row group is kept decoded."""


@dataclass
class ParquetReader(WindowReader):
    """The rows of one or more Parquet files: a path, a glob, a folder, or a list of those; `columns`, or all.

    All files must have the same columns and types; the first one's order counts. Dates, times and timestamps come as
    `datetime`'s objects (nanoseconds are cut off), decimals as Decimal, binary as bytes, nested values as dicts and
    lists, maps as lists of pairs, categories as their values. Page checksums are verified where files have them.
    """

    path: str | list[str]  # type: ignore[assignment]
    columns: list[str] | None = None

    requires: ClassVar[dict[str, str]] = {"pyarrow": "pyarrow"}

    def __post_init__(self) -> None:
        self._index: ParquetIndex | None = None
        self._file: _OpenFile | None = None
        self._group: _RowGroup | None = None

    def check(self) -> None:
        """Read all footers. Raises InputMissing, and UsageError for columns and files that do not go together."""
        self._index = parquet_index.build(self.path, self.columns)

    def fingerprint(self) -> dict[str, Any]:
        """Number, sizes and versions of the files, and a sample of their bytes."""
        return source.fingerprint(source.walk(self.path))

    def build_index(self, folder: str) -> int:
        """Read all footers, unless `check` just has."""
        self._ready().save(folder)
        return len(self)

    def open_index(self, folder: str) -> None:
        """Load what the footers said."""
        self._index, self._file, self._group = ParquetIndex.load(folder), None, None

    def __len__(self) -> int:
        return self._ready().starts[-1]

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Item]:
        """Items `start_idx` to `end_idx`."""
        return self.decode(self.read_window(start_idx, end_idx), start_idx, start_idx, end_idx)

    def window_end(self, start: int, end: int) -> int:
        """About WINDOW_BYTES, by the average row of the file."""
        index = self._ready()
        return min(end, start + max(1, WINDOW_BYTES // index.files[index.at(start)].row_bytes) - 1)

    def read_window(self, start: int, end: int) -> list[Any]:
        """Items `start` to `end` as record batches; what cannot be decoded as Damage."""
        pieces: list[Any] = []
        while start <= end:
            group = self._group_of(start)
            last = min(end, group.end)
            pieces += group.rows(start, last)
            start = last + 1
        return pieces

    def decode(self, window: Any, first: int, start: int, end: int) -> list[Item]:
        """Items `start` to `end` as dicts. Raises RecordError naming file and row group for damaged ones."""
        items: list[Item] = []
        for piece in window:
            last = first + piece.num_rows - 1
            if first <= end and start <= last:
                begin = max(start, first)
                if isinstance(piece, _Damage):
                    raise RecordError(f"item {begin}: {piece.what}", item=begin)
                items += self._items(piece.slice(begin - first, min(end, last) - begin + 1), begin)
            first = last + 1
        return items

    def _items(self, piece: Any, start: int) -> list[Item]:
        make = _row_maker(tuple(piece.schema.names))
        try:
            return make([column.to_pylist() for column in piece.columns])
        except (ValueError, OverflowError) as error:
            return self._one_by_one(piece, start, error)

    def _one_by_one(self, piece: Any, start: int, error: Exception) -> list[Item]:
        for row in range(piece.num_rows):
            for name, column in zip(piece.schema.names, piece.columns, strict=True):
                try:
                    column[row].as_py()
                except (ValueError, OverflowError) as cause:
                    item = start + row
                    what = f"item {item}: column {name!r} has a value that Python cannot hold: {cause}"
                    raise RecordError(what, item=item) from None
        raise error

    def _ready(self) -> ParquetIndex:
        if self._index is None:
            self.check()
        assert self._index is not None
        return self._index

    def _group_of(self, item: int) -> _RowGroup:
        """The row group of an item, taken up where it was left if it is the latest one."""
        group = self._group
        if group is None or not group.start <= item <= group.end:
            index = self._ready()
            number = index.at(item)
            if self._file is None or self._file.number != number:
                self._file = _OpenFile(number, index.files[number], index.starts[number], index.names)
            group = self._group = self._file.group_of(item)
        return group


@dataclass(frozen=True, kw_only=True)
class _Damage:
    """Rows that cannot be decoded."""

    num_rows: int
    what: str


def _is_damage(error: Exception) -> bool:
    """Whether Arrow could not make sense of the bytes, rather than get them."""
    if isinstance(error, (StorageFailed, InputMissing)):
        return False
    return isinstance(error, (ValueError, StopIteration)) or (isinstance(error, OSError) and error.errno is None)


class _OpenFile:
    """A file whose footer has been read."""

    def __init__(self, number: int, indexed: IndexedFile, start: int, names: Sequence[str]) -> None:
        self.number, self._indexed, self._names = number, indexed, list(names)
        self._starts = [start, *accumulate(indexed.rows, initial=start)][1:]
        self._parquet = parquet_index.open_parquet(indexed.file, largest=indexed.largest)

    def group_of(self, item: int) -> _RowGroup:
        """The row group that an item lies in, to be decoded from its start."""
        number = bisect_right(self._starts, item) - 1
        rows = max(1, min(DECODED_ROWS, DECODED_BYTES // self._indexed.row_bytes))

        def decoded() -> Iterator[Any]:
            for batch in self._parquet.iter_batches(rows, [number], self._names, use_threads=False):
                yield parquet_index.plain(batch, self._names)

        place = f"{masked(self._indexed.file.path)}, row group {number}"
        return _RowGroup(place, self._starts[number], self._starts[number + 1] - 1, decoded)


class _RowGroup:
    """One row group, decoded in order as far as was asked for; the latest KEPT_BYTES of it stay."""

    def __init__(self, place: str, start: int, end: int, decode: Callable[[], Iterator[Any]]) -> None:
        self.start, self.end = start, end
        self._place, self._decode = place, decode
        self._begin()

    def _begin(self) -> None:
        self._batches, self._next = self._decode(), self.start
        self._kept: deque[tuple[int, Any]] = deque()  # each with its first item
        self._kept_bytes = 0
        self._damage = ""

    def rows(self, start: int, end: int) -> list[Any]:
        """Items `start` to `end`: record batches, then what cannot be decoded as Damage. Raises OSError."""
        if start < (self._kept[0][0] if self._kept else self._next):
            self._begin()
        while self._next <= end and not self._damage:
            self._decode_more(start)
        found: list[Any] = [
            batch.slice(max(0, start - first), min(end + 1, first + batch.num_rows) - max(start, first))
            for first, batch in self._kept
            if first <= end and start < first + batch.num_rows
        ]
        if self._next <= end:
            found.append(_Damage(num_rows=end - max(start, self._next) + 1, what=self._damage))
        return found

    def _decode_more(self, wanted: int) -> None:
        """Decode some rows; let go of those before `wanted` when much is kept."""
        try:
            batch = next(self._batches)
        except Exception as error:
            self._batches = iter(())
            if not _is_damage(error):
                self._next = self.end + 1  # begin anew, whatever is asked for
                self._kept.clear()
                raise
            self._damage = f"{self._place}, cannot be read from item {self._next} on: {error or 'it has too few rows'}"
            return
        self._kept.append((self._next, batch))
        self._kept_bytes += batch.nbytes
        self._next += batch.num_rows
        while self._kept_bytes > KEPT_BYTES and self._kept[0][0] + self._kept[0][1].num_rows <= wanted:
            self._kept_bytes -= self._kept.popleft()[1].nbytes


@lru_cache
def _row_maker(names: tuple[str, ...]) -> Callable[[list[list[Any]]], list[Item]]:
    """What makes dicts out of columns: a comprehension with the names written out, twice as fast as dict(zip())."""
    if not names:
        return lambda columns: []
    # Names are a stranger's text: they come in as literals, and nothing else of the code is theirs.
    fields = ", ".join(f"{name!r}: v{k}" for k, name in enumerate(names))
    values = "".join(f"v{k}, " for k in range(len(names)))
    return eval(f"lambda columns: [{{{fields}}} for {values} in zip(*columns)]")  # type: ignore[no-any-return]
