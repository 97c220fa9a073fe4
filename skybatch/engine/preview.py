"""Mapping a few items in this process without a job: to see what comes in, what comes out, and what fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skybatch.formats.base import InputReader, Item, OutputWriter, SegmentWriter
from skybatch.worker import mapper as mappers
from skybatch.worker import runtime
from skybatch.worker.fault import describe_fault
from skybatch.worker.reading import Loaded
from skybatch.worker.session import Batch, Session

JOB_ID = "preview"


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """One batch that was mapped for a look."""

    start: int  # index of its first item
    end: int  # index of its last item, included
    items: list[Item] | None  # None when they could not be read
    results: list[Item] | None  # None when it failed before there were any
    stage: str | None  # what failed: `read`, `mapper` or `write`; None: nothing did
    item: int | None  # the item at fault, where that is known
    error: str | None
    traceback: str | None


class Preview(Session):
    """A worker's session without a channel: batches come straight from the reader, results stay here."""

    def __init__(
        self, reader: InputReader, writers: Sequence[OutputWriter], scratch: str, *, length: int, size: int, **how: Any
    ) -> None:
        self._reader, self._scratch, self._length, self._size = reader, scratch, length, size
        self._one_to_one = how["one_to_one"]
        self._encoders = [writer for writer in writers if isinstance(writer, SegmentWriter)]
        self._uploaders = [_elsewhere(writer, k, scratch) for k, writer in enumerate(writers) if _is_tried(writer)]
        self.job_id = JOB_ID
        self.current: Batch | None = None
        self.ended = False
        self.done: list[Previewed] = []
        self._next = 0
        self._pid = os.getpid()
        self._given: dict[int, list[Item]] = {}  # as read: mappers may change what they get

    def take(self, slot: int = 0) -> Batch | None:
        """The next batch that can be read."""
        while self._next < self._length:
            start, end = self._next, min(self._next + self._size, self._length) - 1
            self._next = end + 1
            grant = {"id": 0, "attempt": 1, "end": end, "size": self._size}
            loaded = Loaded(grant, start, end)
            try:
                loaded._window = {start: self._reader.download_batch(start, end, self._scratch)}
                items = loaded.items(start, end)
            except Exception as error:
                self._keep(start, end, None, "read", error)
                continue
            self._given[start] = [dict(item) for item in items]
            self.current = batch = Batch(loaded, start, end, items, slot)
            return batch
        self.ended = True
        return None

    def hand_over(self, batch: Batch, results: Any) -> None:
        """What the mapper returned: checked and encoded as in a job."""
        try:
            self.check(batch, results)
        except Exception as error:
            self._keep(batch.start, batch.end, None, "mapper", error)
            return
        try:
            payloads = self.encode(batch, results)
        except Exception as error:
            self._keep(batch.start, batch.end, results, "write", error)
        else:
            self.pass_on(batch, results, payloads)

    def pass_on(self, batch: Batch, results: list[Item], payloads: list[bytes]) -> None:
        """Checked and encoded; writers that have no encoding write into a folder that is thrown away."""
        try:
            for writer in self._uploaders:
                writer.upload_batch(results, batch.start, batch.end, JOB_ID)
        except Exception as error:
            self._keep(batch.start, batch.end, results, "write", error)
        else:
            self._keep(batch.start, batch.end, results, None, None)

    def fail(self, batch: Batch, error: BaseException, stage: str = "mapper") -> None:
        """The mapper failed on `batch`, or its results cannot be written."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._keep(batch.start, batch.end, None, stage, error)

    def _keep(
        self,
        start: int,
        end: int,
        results: list[Item] | None,
        stage: str | None,
        error: BaseException | None,
    ) -> None:
        told = describe_fault(error, stage) if error is not None else {}
        self.done.append(
            Previewed(
                start=start,
                end=end,
                items=self._given.get(start),
                results=results,
                stage=stage,
                item=told.get("item"),
                error=told.get("message"),
                traceback=None if told.get("expected") else told.get("traceback"),
            )
        )


def preview(
    reader: InputReader,
    mapper: Any,
    writers: Sequence[OutputWriter],
    *,
    length: int,
    batch_size: int,
    mapper_args: dict[str, Any],
    concurrency: int,
    one_to_one: bool,
) -> list[Previewed]:
    """Map the first `length` items here; every batch, also those that failed. What the mapper prints goes to stderr.

    Raises what the mapper raises before it has taken a batch.
    """
    cwd = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="skybatch-") as scratch, contextlib.redirect_stdout(sys.stderr):
        session = Preview(reader, writers, scratch, length=length, size=batch_size, one_to_one=one_to_one)
        runtime.set_session(session)
        try:
            mappers.drive(session, mapper, mapper_args, concurrency)
        finally:
            runtime.set_session(None)
            os.chdir(cwd)
    return sorted(session.done, key=lambda batch: batch.start)


def untried(writers: Sequence[OutputWriter]) -> list[OutputWriter]:
    """Writers that a preview leaves alone: nobody knows where a stranger's `upload_batch` writes."""
    return [writer for writer in writers if not isinstance(writer, SegmentWriter) and not _is_tried(writer)]


def _is_tried(writer: OutputWriter) -> bool:
    return type(writer).__module__.startswith("skybatch.") and not isinstance(writer, SegmentWriter)


def _elsewhere(writer: OutputWriter, number: int, scratch: str) -> OutputWriter:
    return dataclasses.replace(writer, path=f"{scratch}/output{number}/{os.path.basename(writer.path.rstrip('/'))}")
