"""Results made durable: stretch by stretch in segments, and by the writers that store batches themselves; then told."""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skybatch.errors import is_of_storage, name_place
from skybatch.formats import batchfiles, durability, storage
from skybatch.formats.base import Item, OutputWriter, SegmentWriter
from skybatch.formats.segment import Sealed, Segment, SegmentFile, SegmentObjects
from skybatch.worker.fault import describe, kind_of
from skybatch.worker.frames import Frame
from skybatch.worker.mark import WRITING, Mark, NoMark
from skybatch.worker.outbox import Fault, Result, Unfinished, tell_failed, tell_fault
from skybatch.worker.serve import Channel

if TYPE_CHECKING:
    from skybatch.worker.outbox import Mapped

SEAL_SECONDS = 0.75
"""A stretch is told of after this time even when its grant goes on: so much a crash may cost. An engine of many workers
asks for more, in `seal_s` of its grants."""
SEALING, SEALING_IN_MEMORY = 2, 1
"""How many stretches may wait for the disk; for a store, until which a stretch is in memory."""


class Sealer:
    """Makes stretches durable on a thread of its own, so that writing goes on while the disk is waited for."""

    def __init__(self, channel: Channel, waiting: int) -> None:
        """`waiting` stretches may wait besides the one in hand."""
        self._channel = channel
        self._queue: queue.Queue[tuple[list[Segment | None], list[str], Frame] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, daemon=True, name="skybatch_seal")
        self._thread.start()

    def put(self, segments: list[Segment | None], paths: list[str], done: Frame) -> None:
        """Seal the segments, make other files durable, then send `done`; waits while several are being sealed."""
        self._queue.put((segments, paths, done))

    def close(self) -> None:
        """Seal what is left."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        failed = False
        while (work := self._queue.get()) is not None:
            if failed:
                continue
            try:
                self._seal(*work)
            except BaseException as error:
                failed = True
                tell_failed(self._channel, error)

    def _seal(self, segments: list[Segment | None], paths: list[str], done: Frame) -> None:
        durability.make_durable(paths)
        sealed = [None if segment is None else segment.seal() for segment in segments]
        self._channel.send({**done, "files": [None if one is None else _told(one) for one in sealed]})


def _told(sealed: Sealed) -> dict[str, Any]:
    told = {"name": sealed.name, "size": sealed.size, "data": sealed.data_size}
    return told if sealed.version is None else {**told, "version": sealed.version}


def _segment(folder: str, nonce: str) -> Segment:
    return SegmentFile(Path(folder), nonce) if storage.is_local(folder) else SegmentObjects(folder, nonce)


class Storing:
    """Writes one stretch after the other: consecutive ranges of one grant under one nonce. Used by one thread."""

    def __init__(self, channel: Channel, mark: Mark | NoMark, config: Frame, writers: list[OutputWriter]) -> None:
        self._channel, self._mark, self._job_id = channel, mark, config["job_id"]
        self._writers, self._overwrite = writers, config.get("overwrite", True)
        self._folders = [batchfiles.folder(writer.path, self._job_id) for writer in writers]
        self._uploaders = [writer for writer in writers if not isinstance(writer, SegmentWriter)]
        self._made_folders = False
        self._sealer = Sealer(channel, SEALING if all(map(storage.is_local, self._folders)) else SEALING_IN_MEMORY)
        self._sealed_at = 0.0
        self._seal_s = SEAL_SECONDS
        self._reset()

    def heed(self, grant: Frame) -> None:
        """A grant begins to be read; called by another thread. How long its stretches may grow counts from now on."""
        self._seal_s = grant.get("seal_s", SEAL_SECONDS)

    def _reset(self) -> None:
        self._grant = -1
        self._start = self._end = -1
        self._ranges = self._size = 0
        self._began = 0.0
        self._nonce = ""
        self._segments: list[Segment | None] = []

    def begin(self) -> None:
        """On the thread that is to write."""
        durability.collect()

    def take(self, group: list[Unfinished]) -> None:
        """Store a group of results. Raises OSError when storage fails."""
        for result in group:
            if isinstance(result, Fault):
                self.seal()
                tell_fault(self._channel, result)
            else:
                self._store(result)

    def _store(self, result: Result) -> None:
        batch = result.batch
        if self._grant not in (-1, batch.grant) or (self._ranges and batch.start != self._end + 1):
            self.seal()
        if self._grant == -1:
            self._open(batch)
        if result.results is not None and not self._upload(batch, result.results):
            return
        crcs = result.crcs or [None] * len(result.payloads)
        stored = zip(result.payloads, crcs, strict=True)
        is_full = False
        for segment in self._segments:
            if segment is not None:
                segment.append(batch.start, batch.end, batch.attempt, *next(stored))
                is_full |= segment.is_full
        if not self._ranges:
            self._start = batch.start
        self._end = batch.end
        self._ranges += 1
        if batch.last or is_full or time.monotonic() - self._began >= self._seal_s:
            self.seal()

    def _open(self, batch: Mapped) -> None:
        if not self._made_folders:
            for folder in filter(storage.is_local, self._folders):
                storage.make_folders(folder)
            self._made_folders = True
        self._grant, self._size, self._nonce = batch.grant, batch.size, os.urandom(6).hex()
        self._began = max(batch.taken_at, self._sealed_at)
        self._segments = [
            _segment(folder, self._nonce) if isinstance(writer, SegmentWriter) else None
            for writer, folder in zip(self._writers, self._folders, strict=True)
        ]
        batchfiles.set_attempt(self._nonce, overwrite=self._overwrite)

    def _upload(self, batch: Mapped, results: list[Item]) -> bool:
        self._mark.take_up(WRITING, batch.start, batch.end)
        try:
            for writer in self._uploaders:  # there is one at least
                storage.use_scratch(batchfiles.scratch(writer.path, self._job_id))
                writer.upload_batch(results, batch.start, batch.end, self._job_id)
        except BaseException as error:  # sys.exit() too would end no more than this thread, and nobody would notice
            self.seal()
            if is_of_storage(error):
                name_place(error, writer.path)
                raise  # no item is to blame
            tell_fault(self._channel, Fault(batch, kind_of(error, "write"), describe(error)))
            return False
        finally:
            self._mark.put_down(WRITING)
        return True

    def seal(self) -> None:
        """Make the stretch durable and tell the engine of it."""
        if not self._ranges:
            self._abandon()
            return
        now = time.monotonic()
        done = {
            "op": "done",
            "grant": self._grant,
            "start": self._start,
            "end": self._end,
            "nonce": self._nonce,
            "ranges": self._ranges,
            "size": self._size,
            "seconds": now - self._began,
        }
        self._sealer.put(self._segments, durability.collected(), done)
        self._sealed_at = now
        self._reset()

    def close(self) -> None:
        """Seal what is left; everything is told when this returns."""
        self.seal()
        self._sealer.close()

    def give_up(self, error: BaseException) -> None:
        """Nothing more can be stored."""
        tell_failed(self._channel, error)

    def _abandon(self) -> None:
        for segment in self._segments:
            if segment is not None:
                segment.abort()
        self._reset()
