"""`JsonReader`: every line of JSON Lines files is an item."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from skybatch.errors import InputMissing, RecordError
from skybatch.formats import copies, line_scan, listing, source, storage
from skybatch.formats.base import Item, WindowReader
from skybatch.formats.compressed import uncompressed_name
from skybatch.formats.json_records import RECORD_LIMIT, NotARecord, Parser
from skybatch.formats.line_scan import BLANK
from skybatch.formats.masking import masked
from skybatch.formats.record_index import Making, RecordIndex
from skybatch.formats.source import InputFile, Source

WINDOW_SIZE = 128 << 10
"""Small enough that a window's lines are still in the processor's cache when they are parsed."""
FAR_WINDOW_SIZE = 4 << 20
"""Large enough that the way to a store and back is a small part of reading one."""
ENDINGS = (".jsonl", ".ndjson", ".json")
"""Names of files that are read of a folder; what they are compressed with may follow."""
OPEN_FILES = 16
TOGETHER = 128
"""Lines that are parsed at once where ranges are smaller: one by one these would cost more than their content."""
_BOM = b"\xef\xbb\xbf"


class Lines:
    """The lines of a window, one text until the first of them is wanted: so they are read, and go to other machines.

    And the items of those that were parsed ahead and are nobody's yet.
    """

    def __init__(self, text: bytes, skip: int = 0, beyond: int = 0) -> None:
        """Those of a text without blank ones, but for `skip` at its beginning and `beyond` at its end."""
        self._text, self._skip, self._beyond = text, skip, beyond + text.endswith(b"\n")
        self._lines: Sequence[bytes | None] | None = None
        self.parsed: list[Item] = []
        self.parsed_from = 0  # the line of the first of them

    @classmethod
    def of(cls, lines: Sequence[bytes | None]) -> Lines:
        """These lines; None for one that is too long."""
        made = cls(b"")
        made._lines = lines
        return made

    def __getitem__(self, part: slice) -> Sequence[bytes | None]:
        text = self._text  # before the question whether it is still needed: it goes after the answer
        if self._lines is None:
            lines = text.split(b"\n")
            self._lines, self._text = lines[self._skip : len(lines) - self._beyond], b""
        return self._lines[part]

    def __reduce__(self) -> tuple[Any, ...]:
        """Lines travel as one text, and no others with them."""
        text = self._text
        if self._lines is None:
            return Lines, (text.split(b"\n", self._skip)[-1].rsplit(b"\n", self._beyond)[0],)
        lines = [line for line in self._lines if line is not None]
        if len(lines) < len(self._lines):
            return Lines.of, (self._lines,)
        return Lines, (b"\n".join(lines),)


@dataclass
class JsonReader(WindowReader):
    """One JSON object per line. Blank lines are no items; the last line of a file needs no line end.

    `path` is a file, a folder, a glob or a list of those, locally or on a store; files come in the order of the list,
    each sorted by name. Files whose names end in .gz or .zst are decompressed once into the job's folder. Objects are
    copied there while they are indexed, where the disk has room; else workers ask the store for the bytes they need.

    A line is that item's failure, told by file, line and byte offset, when it is no JSON object, no UTF-8, or
    longer than RECORD_LIMIT; and when it has NaN, an infinity, half a surrogate pair, or a key twice in one object.
    """

    path: str | list[str]  # type: ignore[assignment]

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson"}
    decodes_anywhere: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._index: RecordIndex | None = None
        self._folder = ""
        self._opened: dict[int, Source] = {}
        self._parser = Parser()

    def check(self) -> None:
        """Raise InputMissing for what is not there, UsageError for what cannot be read here."""
        for file in self._found():
            copies.check(file.path)

    def fingerprint(self) -> dict[str, Any]:
        """Number, sizes and versions of the files, and a checksum of where they begin and end."""
        return source.fingerprint(self._found())

    def build_index(self, folder: str) -> int:
        """Read every file once, to know where its lines are; objects are copied on the way."""
        listing.build((("", file) for file in self._found()), folder)
        files = listing.load(folder)
        if self._in_job:
            copies.fetch(files, folder)
        with Making(folder) as making:
            for file in files:
                making.begin_file()
                _scan(copies.content(file, folder), making.keep)
        self.open_index(folder)
        return self._ready().count

    def open_index(self, folder: str) -> None:
        """Map the index."""
        self._index, self._folder = RecordIndex(folder), folder
        self._opened.clear()

    def window_end(self, start: int, end: int) -> int:
        """A window of WINDOW_SIZE bytes of one file, or one item where that is larger."""
        index = self._ready()
        row = index.before(start)
        far = not storage.is_local(self._source(index.file_of(row)).file.path)
        last = index.records[index.reach(row, FAR_WINDOW_SIZE if far else WINDOW_SIZE)] - 1
        return max(start, min(end, last))

    def read_window(self, start: int, end: int) -> Lines:
        """The lines of items `start` to `end`; None for one that is too long."""
        index = self._ready()
        lines: list[bytes | None] = []
        while start <= end:
            row = index.before(start)
            stop = min(index.after(end), index.end_of(index.file_of(row)))
            found = self._records(row, stop, start, min(end + 1, index.records[stop]))
            start = index.records[stop]
            if not lines and start > end:
                return found
            lines += found[:]
        return Lines.of(lines)

    def decode(self, window: Any, first: int, start: int, end: int) -> list[Item]:
        """Parse the lines of items `start` to `end`. Raises RecordError."""
        at, stop = start - first, end - first + 1
        if stop - at < TOGETHER and self._parse_ahead(window, at, stop):
            return _taken(window, at, stop)
        try:
            return self._parser.parse(window[at:stop])
        except NotARecord as fault:
            item = start + fault.position
            raise RecordError(f"{self._place(item)}: {fault}", item=item) from None

    def _parse_ahead(self, window: Lines, at: int, stop: int) -> bool:
        """Have the lines from `at` parsed, and some that follow; False where one of them is no record."""
        if window.parsed_from <= at and stop <= window.parsed_from + len(window.parsed):
            return True
        try:
            window.parsed_from, window.parsed = at, self._parser.parse(window[at : at + TOGETHER])
        except NotARecord:
            return False
        return True

    def _found(self) -> Iterator[InputFile]:
        """The files; of folders, those that are named like one of JSON Lines."""
        patterns = [self.path] if isinstance(self.path, str) else self.path
        if not patterns:
            raise InputMissing("the input is a list of no files")
        for pattern in patterns:
            place = storage.local_path(pattern) if storage.is_local(pattern) else pattern
            nothing = True
            for file in source.walk(pattern):
                if source.root_of(pattern, file) != f"{place.rstrip('/')}/" or _is_json_lines(file.path):
                    nothing = False
                    yield file
            if nothing:
                raise InputMissing(f"input {masked(pattern)}: no file in this folder ends in {', '.join(ENDINGS)}")

    def _records(self, row: int, stop: int, first: int, last: int) -> Lines:
        """Records `first` to before `last`, which lie between two checkpoints of one file."""
        index = self._ready()
        begin, end = index.offsets[row], index.offsets[stop]
        skip, beyond = first - index.records[row], index.records[stop] - last
        blank = index.lines[stop] - index.lines[row] > index.records[stop] - index.records[row]
        if blank or end - begin > RECORD_LIMIT:
            return Lines.of(self._all_records(row, stop)[skip : skip + last - first])
        return Lines(self._read(index.file_of(row), begin, end), skip, beyond)

    def _all_records(self, row: int, stop: int) -> list[bytes | None]:
        """The records between two checkpoints of one file, among blank lines; None for one that is too long."""
        index = self._ready()
        begin, end = index.offsets[row], index.offsets[stop]
        if end - begin <= RECORD_LIMIT:
            data = self._read(index.file_of(row), begin, end)
            return [line for line in data.split(b"\n") if line and line.strip(BLANK)]
        if stop > row + 1:
            return [line for at in range(row, stop) for line in self._all_records(at, at + 1)]
        return [None] * (index.records[stop] - index.records[row])

    def _place(self, item: int) -> str:
        """File, line (from 1) and byte offset of an item."""
        index = self._ready()
        row = index.before(item)
        file = index.file_of(row)
        offset, end = index.offsets[row], index.offsets[row + 1]
        seen, number = index.records[row], index.lines[row] + 1
        if end - offset <= RECORD_LIMIT:
            for line in self._read(file, offset, end).split(b"\n"):
                if line.strip(BLANK):
                    if seen == item:
                        break
                    seen += 1
                offset += len(line) + 1
                number += 1
        return f"{masked(index.files.file(file).path)}, line {number}, byte {offset} (item {item})"

    def _read(self, number: int, begin: int, end: int) -> bytes:
        """Bytes of a file's content. Raises InputMissing when they are not there any more."""
        data = self._source(number).read(begin, end - begin)
        if len(data) < end - begin:
            file = self._ready().files.file(number)
            raise InputMissing(f"input {masked(file.path)}: has become shorter since the job looked at it first")
        return data

    def _source(self, number: int) -> Source:
        """A file's content, open; one that nobody reads any more closes itself."""
        opened = self._opened.get(number)
        if opened is None:
            for oldest in list(self._opened)[: 1 - OPEN_FILES]:
                self._opened.pop(oldest, None)
            file = copies.content(self._ready().files.file(number), self._folder)
            opened = self._opened[number] = source.open_file(file)
        return opened

    def _ready(self) -> RecordIndex:
        assert self._index is not None, "neither build_index nor open_index was called"
        return self._index


def _taken(window: Lines, at: int, stop: int) -> list[Item]:
    """Items that were parsed ahead, given away: a mapper may change what it gets, and get it once more unchanged."""
    skipped, end = at - window.parsed_from, stop - window.parsed_from
    items = window.parsed[skipped:end]
    window.parsed_from, window.parsed = stop, window.parsed[end:]
    return items


def _is_json_lines(path: str) -> bool:
    from skybatch.formats.shards import MANIFEST

    return uncompressed_name(path).endswith(ENDINGS) and os.path.basename(path) != MANIFEST


def _scan(file: InputFile, keep: line_scan.Keep) -> None:
    """Keep checkpoints of one file."""
    if not storage.is_local(file.path):
        pieces = copies.blocks(file)
        first = next(pieces, b"")
        scanner = line_scan.Scanner(keep, start=_start(first))
        scanner.feed(first.removeprefix(_BOM))
        for data in pieces:
            scanner.feed(data)
        scanner.finish()
        return
    fd = storage.private(os.open(storage.local_path(file.path), os.O_RDONLY | os.O_CLOEXEC))
    try:
        line_scan.scan(fd, file.size, keep, start=_start(os.pread(fd, len(_BOM), 0)))
    finally:
        os.close(fd)


def _start(head: bytes) -> line_scan.Row:
    return (len(_BOM) if head.startswith(_BOM) else 0, 0, 0)
