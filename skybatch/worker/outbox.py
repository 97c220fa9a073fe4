"""The way of results out of a worker: collected on the mapper's thread, taken care of on another beside the mapper."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional, Protocol, Sequence, Union

from skybatch.worker.fault import describe, leave_if_out_of_memory
from skybatch.worker.frames import Bytes
from skybatch.worker.serve import Channel

GROUP_BYTES, GROUP_SECONDS, GROUP_RANGES, GROUPS = 256 << 10, 0.004, 256, 4


class Mapped(Protocol):
    """What is known of one range on its way out."""

    grant: int
    start: int
    end: int
    attempt: int
    size: int  # items per range of its grant
    last: bool  # of its grant
    taken_at: float  # monotonic seconds: when the mapper got it


class Result(NamedTuple):
    """One range, mapped: a payload for each segment output, and the results where they are wanted as they are."""

    batch: Mapped
    payloads: Sequence[Bytes]
    results: Optional[List[Dict[str, Any]]]
    crcs: Optional[Sequence[Optional[int]]] = None  # CRC-32 of each payload, where it is known already


class Fault(NamedTuple):
    """One range that failed."""

    batch: Mapped
    kind: str
    described: Dict[str, Any]


Unfinished = Union[Result, Fault]
_END: List[Unfinished] = []


class Sink(Protocol):
    """Who takes care of results, group by group, all on one thread."""

    def begin(self) -> None:
        """Called first."""

    def take(self, group: List[Unfinished]) -> None:
        """Take care of a group. An exception ends it all: `give_up` is called then, and nothing after that."""

    def close(self) -> None:
        """Everything is taken care of when this returns."""

    def give_up(self, error: BaseException) -> None:
        """No more can be done."""


class Outbox:
    """Collects what the mapper's thread hands over and gives it to a sink on a thread of its own."""

    def __init__(self, sink: Sink) -> None:
        self._lock = threading.Lock()  # an async mapper's batches are taken and handed over by two threads
        self._waiting: list[Unfinished] = []
        self._waiting_bytes = 0
        self._waiting_since = 0.0
        self._queue: queue.Queue[list[Unfinished]] = queue.Queue(GROUPS)
        self._sink = sink
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
        """Have what is left taken care of and end the thread."""
        self.flush()
        self._queue.put(_END)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._sink.begin()
            while (group := self._queue.get()) is not _END:
                self._sink.take(group)
            self._sink.close()
        except BaseException as error:
            self._sink.give_up(error)
            while self._queue.get() is not _END:
                pass


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


def tell_fault(channel: Channel, fault: Fault) -> None:
    """A range failed: the engine decides what becomes of it."""
    batch = fault.batch
    place = {"grant": batch.grant, "start": batch.start, "end": batch.end, "attempt": batch.attempt}
    channel.send({"op": "failed", "kind": fault.kind, **place, **fault.described})
