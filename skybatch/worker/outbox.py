"""The writing side of a worker: results in order of their ranges, stored durably beside the mapper, then told."""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from skybatch.errors import is_of_storage, name_place
from skybatch.formats import batchfiles, durability, storage
from skybatch.formats.base import Item, OutputWriter, SegmentWriter
from skybatch.formats.segment import Sealed, Segment, SegmentFile, SegmentObjects
from skybatch.worker.fault import describe, kind_of, leave_if_out_of_memory
from skybatch.worker.frames import Frame
from skybatch.worker.mark import WRITING, Mark, NoMark
from skybatch.worker.serve import Channel

if TYPE_CHECKING:
    from skybatch.worker.session import Batch

GROUP_BYTES, GROUP_SECONDS, GROUP_RANGES, GROUPS = 256 << 10, 0.004, 1024, 8
SEAL_SECONDS = 0.75
"""A stretch is told of after this time even when its grant goes on: so much a crash may cost."""


SEALING, SEALING_IN_MEMORY = 2, 1
"""How many stretches may wait for the disk; for a store, until which a stretch is in memory."""


class Result(NamedTuple):
    """One range, mapped: a payload for each segment output, and the results where a writer uploads them."""

    batch: Batch
    payloads: list[bytes]
    results: list[Item] | None


class Fault(NamedTuple):
    """One range that failed."""

    batch: Batch
    kind: str
    described: dict[str, Any]


Unfinished = Result | Fault
_END: list[Unfinished] = []


class Outbox:
    """Collects what the mapper's thread hands over and stores it on a thread of its own."""

    def __init__(self, channel: Channel, mark: Mark | NoMark, config: Frame, writers: list[OutputWriter]) -> None:
        self._lock = threading.Lock()  # an async mapper's batches are taken and handed over by two threads
        self._waiting: list[Unfinished] = []
        self._waiting_bytes = 0
        self._waiting_since = 0.0
        self._queue: queue.Queue[list[Unfinished]] = queue.Queue(GROUPS)
        self._storing = Storing(channel, mark, config, writers)
        self._thread = threading.Thread(target=self._run, daemon=True, name="skybatch_write")

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def put(self, result: Unfinished) -> None:
        """Take over one range; ranges come in the order they were given out, mostly."""
        with self._lock:
            self._put(result)

    def _put(self, result: Unfinished) -> None:
        waiting = self._waiting
        if not waiting:
            self._waiting_since = result.batch.taken_at
        waiting.append(result)
        if isinstance(result, Result):
            for payload in result.payloads:
                self._waiting_bytes += len(payload)
        if (
            result.batch.last
            or self._waiting_bytes >= GROUP_BYTES
            or len(waiting) >= GROUP_RANGES
            or time.monotonic() - self._waiting_since >= GROUP_SECONDS
        ):
            self._flush()

    def flush(self) -> None:
        """Pass on what was collected; waits while the writing thread is behind."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._queue.put(self._waiting)
            self._waiting, self._waiting_bytes = [], 0

    def close(self) -> None:
        """Store what is left and end the thread."""
        self.flush()
        self._queue.put(_END)
        self._thread.join()

    def _run(self) -> None:
        storing = self._storing
        durability.collect()
        try:
            while (group := self._queue.get()) is not _END:
                storing.take(group)
            storing.close()
        except BaseException as error:
            storing.give_up(error)
            while self._queue.get() is not _END:
                pass


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


def tell_failed(channel: Channel, error: BaseException) -> None:
    """Storage failed, or we did: no item is to blame, the engine decides. When that is gone, so is our process."""
    leave_if_out_of_memory(error, own_process=channel.own_process)
    try:
        if not isinstance(error, BrokenPipeError):
            channel.send({"op": "storage" if isinstance(error, OSError) else "broken", **describe(error)})
            return
    except OSError:
        pass
    if channel.own_process:
        os._exit(0)  # nobody waits for what is left


class Storing:
    """Writes one stretch after the other: consecutive ranges of one grant under one nonce."""

    def __init__(self, channel: Channel, mark: Mark | NoMark, config: Frame, writers: list[OutputWriter]) -> None:
        self._channel, self._mark, self._job_id = channel, mark, config["job_id"]
        self._writers, self._overwrite = writers, config.get("overwrite", True)
        self._folders = [batchfiles.folder(writer.path, self._job_id) for writer in writers]
        self._uploaders = [writer for writer in writers if not isinstance(writer, SegmentWriter)]
        self._made_folders = False
        self._sealer = Sealer(channel, SEALING if all(map(storage.is_local, self._folders)) else SEALING_IN_MEMORY)
        self._sealed_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._grant = -1
        self._start = self._end = -1
        self._ranges = self._size = 0
        self._began = 0.0
        self._nonce = ""
        self._segments: list[Segment | None] = []

    def take(self, group: list[Unfinished]) -> None:
        """Store a group of results. Raises OSError when storage fails."""
        for result in group:
            if isinstance(result, Fault):
                self.seal()
                self._tell_fault(result.batch, result.kind, result.described)
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
        payloads, is_full = iter(result.payloads), False
        for segment in self._segments:
            if segment is not None:
                segment.append(batch.start, batch.end, batch.attempt, next(payloads))
                is_full |= segment.is_full
        if not self._ranges:
            self._start = batch.start
        self._end = batch.end
        self._ranges += 1
        if batch.last or is_full or time.monotonic() - self._began >= SEAL_SECONDS:
            self.seal()

    def _open(self, batch: Batch) -> None:
        if not self._made_folders:
            for folder in filter(storage.is_local, self._folders):
                storage.make_folders(folder)
            self._made_folders = True
        self._grant, self._size, self._nonce = batch.grant, batch.size, secrets.token_hex(6)
        self._began = max(batch.taken_at, self._sealed_at)
        self._segments = [
            _segment(folder, self._nonce) if isinstance(writer, SegmentWriter) else None
            for writer, folder in zip(self._writers, self._folders, strict=True)
        ]
        batchfiles.set_attempt(self._nonce, overwrite=self._overwrite)

    def _upload(self, batch: Batch, results: list[Item]) -> bool:
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
            self._tell_fault(batch, kind_of(error, "write"), describe(error))
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

    def _tell_fault(self, batch: Batch, kind: str, described: dict[str, Any]) -> None:
        place = {"grant": batch.grant, "start": batch.start, "end": batch.end, "attempt": batch.attempt}
        self._channel.send({"op": "failed", "kind": kind, **place, **described})
