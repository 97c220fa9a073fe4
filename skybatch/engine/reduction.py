"""One output being put together of the winners, in order: by copying bytes, or by the writer's assembler."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from skybatch import disk
from skybatch.errors import SegmentDamaged
from skybatch.failpoints import reach
from skybatch.formats import segment as segments
from skybatch.formats import storage, stores
from skybatch.formats.base import SegmentWriter
from skybatch.formats.concatenation import assembler_of
from skybatch.formats.masking import masked
from skybatch.formats.merge import Mark, Merger
from skybatch.formats.stores.base import Composer, Piece
from skybatch.journal.rows import Run, Segment

CHECKPOINT_S, CHECKPOINT_SIZE = 2.0, 256 << 20
"""So much of a merge may be lost by a crash: what was done since these seconds, or these bytes."""

Settled = Iterable[tuple[Run, Segment | None]]
"""Winners in order, without a gap; what was set aside comes without a segment."""

WRITEBACK_SIZE = 4 << 20
"""The disk begins with an assembled output whenever so much more of it is there, so that the last sync finds little."""


class LostResults(SegmentDamaged):
    """Stored results are missing, short or altered: those of `run`, where that is known.

    `output` is the one whose batch files are missing, when they are.
    """

    def __init__(self, run: Run | None, cause: str, *, output: int | None = None) -> None:
        self.run, self.output = run, output
        super().__init__(cause)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Where the winners' results for one output lie."""

    writer: SegmentWriter
    idx: int  # the output's
    folder: str  # of its segments
    index_of: Callable[[str], segments.Index] = field(default_factory=segments.remembering, compare=False)

    def path(self, segment: Segment) -> str:
        """The segment's file or object."""
        return f"{self.folder}/{segment.info['files'][self.idx]['name']}"

    def payloads(self, run: Run, segment: Segment) -> Iterator[bytes]:
        """One range's bytes after the other, checked. Raises SegmentDamaged."""
        path = self.path(segment)
        version = segment.info["files"][self.idx].get("version")
        return segments.payloads(self.index_of(path), run.start, run.end, version)

    def piece(self, run: Run, segment: Segment) -> Piece:
        """The bytes of one winner in an object store. Raises SegmentDamaged."""
        file, path = segment.info["files"][self.idx], self.path(segment)
        offset, length = 0, file["data"]
        if (run.start, run.end) != (segment.start, segment.end):
            offset, length = self.index_of(path).extent(run.start, run.end)
        return Piece(path, offset, length, file.get("version"))

    def check(self, run: Run, segment: Segment) -> None:
        """See whether what a winner has stored is all there. Raises SegmentDamaged.

        Local bytes are read; objects are asked for their size and version.
        """
        path, file = self.path(segment), segment.info["files"][self.idx]
        if storage.is_local(path):
            for _ in self.payloads(run, segment):
                pass
            return
        try:
            found = stores.of(path).info(path)
        except FileNotFoundError:
            raise SegmentDamaged(f"{masked(path)}: not there") from None
        if found.size != file["size"] or file.get("version") not in (None, found.version):
            raise SegmentDamaged(f"{masked(path)}: not what it was when it was stored")
        self.index_of(path)


class Reduction(ABC):
    """Winners go in as they come, in order; `next` is the first item that is not in yet."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.next = 0
        self.bytes_since, self._since = 0, time.monotonic()

    def advance(
        self,
        settled: Settled,
        *,
        on_progress: Callable[[dict[str, Any]], None] = lambda progress: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take in what follows; `on_progress` is told what is durable now, every now and then.

        Raises LostResults, Restart, and what an assembler raises.
        """
        for run, segment in settled:
            if stopping():
                return
            if segment is not None:
                self._take(run, segment)
                reach("merging")
            self.next = run.end + 1
            if self.bytes_since and self._is_due():
                progress = self.checkpoint()
                self.bytes_since, self._since = 0, time.monotonic()
                if progress is not None:
                    on_progress(progress)
                    reach("checkpoint")

    def _take(self, run: Run, segment: Segment) -> None:
        try:
            self.add(run, segment)
        except LostResults:
            raise
        except SegmentDamaged as error:
            raise LostResults(run, str(error)) from error

    def _is_due(self) -> bool:
        return self.bytes_since >= CHECKPOINT_SIZE or time.monotonic() - self._since >= CHECKPOINT_S

    @abstractmethod
    def add(self, run: Run, segment: Segment) -> None:
        """Take in one winner. Raises SegmentDamaged."""

    def checkpoint(self) -> dict[str, Any] | None:
        """Make durable what is there; how to go on from here, where that is possible."""
        return None

    @abstractmethod
    def finish(self) -> None:
        """Everything is in: complete it, and make it durable."""

    def close(self) -> None:
        """Give up what is held; what was written stays."""


class Copying(Reduction):
    """A local file of header, payloads and footer, which a later engine can go on with."""

    def __init__(self, results: Results, staged: str, progress: dict[str, Any] | None) -> None:
        super().__init__(results)
        mark = Mark(progress["offset"], progress["inode"]) if progress and "inode" in progress else None
        self._merger = Merger(staged, results.writer.header(), mark)
        if progress and self._merger.went_on:
            self.next = progress["next"]

    def add(self, run: Run, segment: Segment) -> None:
        """Copy the bytes of one winner, checked. Raises SegmentDamaged."""
        self._merger.add_segment(self.results.path(segment), run.start, run.end)
        self.bytes_since += segment.info["files"][self.results.idx]["data"]

    def checkpoint(self) -> dict[str, Any]:
        """What is durable now."""
        offset, inode = self._merger.checkpoint()
        return {"next": self.next, "offset": offset, "inode": inode}

    def finish(self) -> None:
        """Write the footer."""
        self._merger.finish(self.results.writer.footer())

    def close(self) -> None:
        """Close the file."""
        self._merger.close()


class Assembling(Reduction):
    """A local file that the writer's assembler builds; a later engine begins it anew."""

    def __init__(self, results: Results, staged: str, survey: Callable[[], Iterator[bytes]] | None) -> None:
        super().__init__(results)
        storage.make_folders(os.path.dirname(staged))
        storage.unlink_if_there(staged)
        self._sink: BinaryIO = open(staged, "x+b", opener=_open_private)  # noqa: SIM115 - closed by close()
        self._assembler = assembler_of(results.writer, self._sink, survey)
        self._begun = 0  # up to here the disk has begun to write

    def add(self, run: Run, segment: Segment) -> None:
        """Pass on one winner's payloads. Raises SegmentDamaged, Restart, ResultError."""
        for payload in self.results.payloads(run, segment):
            self._assembler.add(payload)
        if self._sink.tell() - self._begun >= WRITEBACK_SIZE:
            self._begun = self._sink.tell()
            self._sink.flush()
            storage.start_writeback(self._sink.fileno())

    def finish(self) -> None:
        """Have the rest written. Raises Restart, ResultError."""
        self._assembler.finish()
        self._sink.flush()
        disk.fsync("assembled", self._sink.fileno())
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._sink.close()


class Composing(Reduction):
    """An object that its store puts together; what was sent of it before is not sent again."""

    def __init__(self, results: Results, composer: Composer) -> None:
        super().__init__(results)
        self.composer = composer
        header = results.writer.header()
        if header:
            composer.add_bytes(header)

    def add(self, run: Run, segment: Segment) -> None:
        """Have one winner's bytes copied. Raises LostResults."""
        piece = self.results.piece(run, segment)
        with _some_lost():
            self.composer.add(piece)

    def finish(self) -> None:
        """Have everything but the atomic step done."""
        footer = self.results.writer.footer()
        with _some_lost():
            if footer:
                self.composer.add_bytes(footer)
            self.composer.prepare()

    def close(self) -> None:
        """End what was begun and failed."""
        self.composer.close()


@contextmanager
def _some_lost() -> Iterator[None]:
    """A composer works ahead: what it finds damaged may be of any winner."""
    try:
        yield
    except SegmentDamaged as error:
        raise LostResults(None, str(error)) from error


def _open_private(path: str, flags: int) -> int:
    return storage.private(os.open(path, flags, 0o666))
