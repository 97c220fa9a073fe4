"""What readers of records in text files have in common: finding them, windows of them, naming one at fault."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from skybatch.errors import RecordError
from skybatch.formats import copies, listing, record_scan, source, storage
from skybatch.formats.base import Item, WindowReader
from skybatch.formats.masking import masked
from skybatch.formats.record_index import Making, RecordIndex
from skybatch.formats.record_scan import Record, Row, Scanner
from skybatch.formats.source import InputFile, Source

Raw = TypeVar("Raw")

WINDOW_SIZE, FAR_WINDOW_SIZE = 512 << 10, 4 << 20
"""Bytes read at once, of files and of objects: there, each time costs a way to the store and back."""
READ_SIZE = 1 << 20
RECORD_LIMIT = 128 << 20
"""A longer record is not read: that item fails. Reading one takes three times its size, of CSV eight times."""
BOM = b"\xef\xbb\xbf"


@dataclass(kw_only=True)
class Block:
    """Consecutive records of one file as they were read, from a checkpoint on."""

    file: int
    first: int  # its first record's number in all files
    end: int  # its last record's
    offset: int  # in the file
    lines: int  # before it in the file
    data: bytes | None  # None: a record too long to be read
    parsed: list[Any] | None = None
    faults: list[RecordError] = field(default_factory=list)  # of records that `parsed` has None for


@dataclass
class RecordReader(WindowReader, Generic[Raw]):
    """A reader of text files with records in them."""

    path: str | list[str]  # type: ignore[assignment]

    hint_for_long: ClassVar[str] = ""
    """What may be wrong when a record is longer than RECORD_LIMIT."""

    def __post_init__(self) -> None:
        self._index: RecordIndex | None = None
        self._folder = ""
        self._open: tuple[int, Source] | None = None

    # What kinds of records differ in

    @abstractmethod
    def scanned_as(self) -> str | None:
        """The delimiter that the scanner must know of; None where each line is a record."""

    def skip_head(self, opened: Source, start: Row, name: str) -> Row:
        """Where the records of a file begin; `start` is behind a byte order mark. In the engine, once per file.

        `opened` may be a copy of the file that has this name.
        """
        return start

    @abstractmethod
    def parse(self, text: str) -> list[Raw]:
        """All records of a text. Raises ValueError when one cannot be read; then each is parsed alone."""

    @abstractmethod
    def parse_one(self, text: str) -> Raw:
        """One record. Raises ValueError saying why it cannot be read."""

    @abstractmethod
    def items(self, raws: list[Raw], file: int) -> list[Item]:
        """Records of one file as the mapper gets them."""

    # The contract

    def check(self) -> None:
        """Raise InputMissing when there is no file, UsageError when it is compressed as cannot be read here."""
        copies.check(next(source.walk(self.path)).path)

    def fingerprint(self) -> dict[str, Any]:
        """Number, sizes and versions of the files, and a checksum of where they begin and end."""
        return source.fingerprint(source.walk(self.path))

    def build_index(self, folder: str) -> int:
        """Read every file once, to know where its records are; see `copies` for what is kept of them."""
        listing.build((("", file) for file in source.walk(self.path)), folder)
        files = listing.load(folder)
        if self._in_job:
            copies.fetch(files, folder)
        with Making(folder) as making:
            for file in files:
                making.begin_file()
                self._scan(file, folder, making.keep)
        self.open_index(folder)
        return self._ready().count

    def open_index(self, folder: str) -> None:
        """Map the index."""
        self._index, self._folder = RecordIndex(folder), folder

    def window_end(self, start: int, end: int) -> int:
        """A window of WINDOW_SIZE bytes of one file, or one item where that is larger."""
        index = self._ready()
        row = index.before(start)
        near = storage.is_local(self._opened(index.file_of(row)).file.path)
        last = index.records[index.reach(row, WINDOW_SIZE if near else FAR_WINDOW_SIZE)] - 1
        return max(start, min(end, last))

    def read_window(self, start: int, end: int) -> list[Block]:
        """Blocks that hold the items `start` to `end`."""
        index = self._ready()
        blocks: list[Block] = []
        while start <= end:
            row = index.before(start)
            stop = min(index.after(end), index.end_of(index.file_of(row)))
            blocks += self._blocks(row, stop)
            start = index.records[stop]
        return blocks

    def decode(self, window: Any, first: int, start: int, end: int) -> list[Item]:
        """The items `start` to `end`. Raises RecordError naming file, line and byte offset."""
        items: list[Item] = []
        blocks: list[Block] = window
        for block in blocks:
            if block.first <= end and block.end >= start:
                raws = self._parsed(block)[max(0, start - block.first) : end - block.first + 1]
                for fault in block.faults:
                    if start <= (fault.item or 0) <= end:
                        raise fault
                items += self.items(raws, block.file)
        return items

    # How it is done

    def _scan(self, file: InputFile, folder: str, keep: Callable[[Row], object]) -> None:
        opened = source.open_file(copies.content(file, folder))
        try:
            start = self.skip_head(opened, skip_mark(opened), masked(file.path))
            scanner = Scanner(self.scanned_as(), keep, start=start)
            for data in _pieces(opened, start[0]):
                scanner.feed(data)
            scanner.finish()
        finally:
            opened.close()

    def _blocks(self, row: int, stop: int) -> Iterator[Block]:
        """From one checkpoint to another of the same file; a record that is too long is a block of its own."""
        index = self._ready()
        for long in [*index.rows_longer_than(RECORD_LIMIT, row, stop), None]:
            if row < (end := stop if long is None else long):
                yield self._block(row, end, read=True)
            if long is not None:
                yield self._block(long, long + 1, read=False)
                row = long + 1

    def _block(self, row: int, stop: int, *, read: bool) -> Block:
        index = self._ready()
        file, offset = index.file_of(row), index.offsets[row]
        return Block(
            file=file,
            first=index.records[row],
            end=index.records[stop] - 1,
            offset=offset,
            lines=index.lines[row],
            data=self._opened(file).read(offset, index.offsets[stop] - offset) if read else None,
        )

    def _parsed(self, block: Block) -> list[Any]:
        if block.parsed is None:
            block.parsed = self._parse(block)
            block.data = None
        return block.parsed

    def _parse(self, block: Block) -> list[Any]:
        count = block.end - block.first + 1
        if block.data is None:
            what = f"a record of more than {RECORD_LIMIT:,} bytes cannot be read{self.hint_for_long}"
            block.faults.append(self._fault(block, Record(0, 0, b""), block.first, what))
            return [None]
        try:
            parsed = self.parse(block.data.decode())
            if len(parsed) == count:
                return parsed
        except ValueError:
            pass  # told below, by the record that is at fault
        found = record_scan.records(block.data, self.scanned_as())
        return [self._try(block, record, index) for index, record in enumerate(found, block.first)]

    def _try(self, block: Block, record: Record, index: int) -> Raw | None:
        try:
            return self.parse_one(record.data.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            at = block.offset + record.offset + error.start
            what = f"no UTF-8: {error.reason} at byte {at}"
        except ValueError as error:
            what = str(error)
        block.faults.append(self._fault(block, record, index, what))
        return None

    def _fault(self, block: Block, record: Record, index: int, what: str) -> RecordError:
        path = masked(self._ready().files.file(block.file).path)
        line, offset = block.lines + record.lines + 1, block.offset + record.offset
        return RecordError(f"{path}, line {line}, byte {offset} (item {index}): {what}", item=index)

    def _opened(self, file: int) -> Source:
        """The file read last stays open."""
        if self._open is None or self._open[0] != file:
            self.close()
            self._open = file, source.open_file(copies.content(self._ready().files.file(file), self._folder))
        return self._open[1]

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _ready(self) -> RecordIndex:
        assert self._index is not None, "open_index comes first"
        return self._index


def skip_mark(opened: Source) -> Row:
    """Where a file's text begins: behind a byte order mark."""
    return len(BOM) if opened.read(0, len(BOM)) == BOM else 0, 0, 0


def _pieces(opened: Source, offset: int) -> Iterator[bytes]:
    while data := opened.read(offset, READ_SIZE):
        yield data
        offset += len(data)
