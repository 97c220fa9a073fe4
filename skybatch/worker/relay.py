"""Reads and writes for a worker elsewhere: a process of the engine's machine, between the two.

To the engine it is the worker: it takes grants, and tells of stretches once they are stored, under nonces of its
own. To the worker it is what `relayed` describes. Row bytes never come near the engine. It has the connection as
descriptors from its parent; when either end goes, it goes.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import zlib
from collections import deque
from typing import Any, NamedTuple

from skybatch.errors import DISK_FULL, ResultError, StorageFailed, is_of_storage
from skybatch.formats.base import Item, SegmentWriter, WindowReader
from skybatch.formats.masking import masked
from skybatch.worker import travelling
from skybatch.worker.fault import describe, describe_fault, kind_of
from skybatch.worker.frames import Bytes, Frame, FrameError, split
from skybatch.worker.loading import load_formats
from skybatch.worker.mark import Mark, NoMark
from skybatch.worker.outbox import Fault, Result, tell_failed, tell_fault
from skybatch.worker.reading import Loaded, Reading
from skybatch.worker.relayed import AHEAD
from skybatch.worker.serve import Channel
from skybatch.worker.shapes import require_sense
from skybatch.worker.storing import Storing

FORWARDED = frozenset({"ready", "broken", "storage", "interrupted", "log"})
SILENCES_MAX = 3


class Row(NamedTuple):
    """One range of a `results` frame."""

    grant: int
    start: int
    end: int
    attempt: int
    size: int
    last: bool
    took: float  # seconds that it was in the worker's hands
    lengths: list[int]  # of its payloads, in bytes
    pickled: int  # bytes of its results as they are
    crcs: list[int]  # of each of these, in this order


class Batch:
    """A range as results are stored by."""

    def __init__(self, grant: int, start: int, end: int, attempt: int, size: int, last: bool, taken_at: float) -> None:
        self.grant, self.start, self.end, self.attempt = grant, start, end, attempt
        self.size, self.last, self.taken_at = size, last, taken_at


class Relay:
    """One worker's relay."""

    def __init__(self, channel: Channel, mark: Mark | NoMark, config: Frame) -> None:
        self._channel, self._config = channel, config
        reader, self._writers = load_formats(config)
        self._encoders = [writer for writer in self._writers if isinstance(writer, SegmentWriter)]
        self._encoded: bool = config["encode"]
        self._as_read: bool = config["decode"] and isinstance(reader, WindowReader)
        reads, writes = config["ends"]
        self._worker = Channel(reads, out=writes)
        self._room = threading.Semaphore(AHEAD)
        self._storing = Storing(channel, mark, config, self._writers)
        self._reading = Reading(channel, mark, config, reader, self._drain, self._storing.heed)
        self._sent: deque[Loaded] = deque(maxlen=AHEAD + 3)  # the last few, should they be wanted once more
        self._heard_at = time.monotonic()
        self._ended = threading.Event()
        mark.begin()

    def run(self) -> None:
        """Until the worker says bye, or is gone."""
        self._worker.send({"op": "relayed"})
        threads = [threading.Thread(target=each, daemon=True) for each in (self._feed, self._beat, self._watch)]
        self._reading.start()
        for thread in threads:
            thread.start()
        self._storing.begin()
        try:
            lost = self._listen()
            self._storing.close()
        except BaseException as error:
            tell_failed(self._channel, error)
            os._exit(0)
        self._ended.set()
        if lost is not None:
            self._channel.send(lost)
            os._exit(0)  # without a bye: the worker is lost

    # To the worker

    def _drain(self) -> None:
        """The engine wants no more than what is in hand, or is gone."""
        self._tell_worker({"op": "drain"})

    def _tell_worker(self, frame: Frame, blob: bytes | None = None) -> None:
        try:
            self._worker.send(frame, None if blob is None else [blob])
        except OSError:
            pass  # its end of file says the rest

    def _feed(self) -> None:
        try:
            while (loaded := self._reading.get()).grant >= 0:
                self._room.acquire()
                self._send_load(loaded)
            self._tell_worker({"op": "stop"})
        except BaseException as error:
            tell_failed(self._channel, error)

    def _send_load(self, loaded: Loaded) -> None:
        if loaded.error is not None:
            self._refuse(loaded, loaded.start, loaded.end, loaded.error)
            self._room.release()
        elif self._as_read:
            self._sent.append(loaded)
            self._load(loaded, loaded.start, loaded.end, "window", loaded._window)
        else:
            self._send_items(loaded, loaded.start, loaded.end)

    def _send_items(self, loaded: Loaded, start: int, end: int) -> None:
        """Decoded, in one load as far as each range can be."""
        window: dict[int, list[Item]] = {}
        begin = low = start
        while low <= end:
            high = min(low + loaded.size - 1, end)
            try:
                window[low] = loaded.items(low, high)
            except BaseException as error:
                if window:
                    self._load(loaded, begin, low - 1, "items", window)
                    self._room.acquire()
                self._refuse(loaded, low, high, error)
                window, begin = {}, high + 1
            low = high + 1
        if window:
            self._load(loaded, begin, end, "items", window)
        else:
            self._room.release()

    def _load(self, loaded: Loaded, start: int, end: int, form: str, window: Any) -> None:
        place = {"start": start, "stop": end, "id": loaded.grant, "attempt": loaded.attempt}
        frame = {"op": "load", "form": form, **place, "end": loaded.grant_end, "size": loaded.size}
        try:
            self._tell_worker(frame, pickle.dumps(window, 5))
        except FrameError as error:
            for low in range(start, end + 1, loaded.size):
                self._refuse(loaded, low, min(low + loaded.size - 1, end), error)
            self._room.release()

    def _refuse(self, loaded: Loaded, start: int, end: int, error: BaseException) -> None:
        """A range that could not be read."""
        if is_of_storage(error, DISK_FULL) or isinstance(error, StorageFailed):
            raise error  # no item is to blame
        last = end == loaded.grant_end
        batch = Batch(loaded.grant, start, end, loaded.attempt, loaded.size, last, time.monotonic())
        tell_fault(self._channel, Fault(batch, kind_of(error, "read"), describe_fault(error, "read")))

    def _beat(self) -> None:
        seconds = self._config["heartbeat_s"]
        while not self._ended.wait(seconds):
            self._tell_worker({"op": "beat"})

    def _watch(self) -> None:
        """Apart from sending, which a connection that was cut may never let end."""
        seconds = self._config["heartbeat_s"]
        while not self._ended.wait(seconds):
            if time.monotonic() - self._heard_at > SILENCES_MAX * seconds:
                self._leave("nothing was heard of the worker for %d s" % (SILENCES_MAX * seconds))

    def _leave(self, why: str) -> None:
        """From another thread: what was stored is told, the rest is lost."""
        try:
            self._channel.send(_parted(why))
        except OSError:
            pass
        os._exit(0)

    # From the worker

    def _listen(self) -> Frame | None:
        """Take what the worker says until it says bye; how it was lost, if it was."""
        while True:
            try:
                frame = self._worker.receive()
                self._heard_at = time.monotonic()
                if frame is None:
                    return _parted("the connection to the worker ended")
                require_sense([frame])
                if frame["op"] == "lost":
                    return frame
                if frame["op"] == "bye":
                    return None
                self._heed(frame)
            except FrameError as error:
                return _parted(f"something else was written where the worker speaks: {error}")

    def _heed(self, frame: Frame) -> None:
        """Raises FrameError for what cannot be."""
        operation = frame["op"]
        if operation == "results":
            self._take(frame)
        elif operation == "more":
            self._room.release()
        elif operation == "again":
            self._send_again(frame)
        elif operation == "failed":
            self._take_failure(frame)
        elif operation in FORWARDED:
            blob = frame.pop("blob", None)
            self._channel.send(frame, None if blob is None else [blob])

    def _take(self, frame: Frame) -> None:
        rows = [Row(*row) for row in frame["rows"]]
        parts = iter(split(frame["blob"], [size for row in rows for size in (*row.lengths, row.pickled)]))
        now = time.monotonic()
        self._storing.take([self._result(row, [next(parts) for _ in row.lengths], next(parts), now) for row in rows])

    def _result(self, row: Row, payloads: list[Bytes], pickled: Bytes, now: float) -> Result | Fault:
        if [*map(zlib.crc32, (*payloads, pickled))] != row.crcs:
            raise FrameError("results were altered on their way")
        batch = Batch(row.grant, row.start, row.end, row.attempt, row.size, row.last, now - row.took)
        crcs: list[int] | None = row.crcs[:-1]
        try:
            results = travelling.loads(pickled) if pickled else None
            if not self._encoded:
                payloads = [_encoded(writer, results, row.start) for writer in self._encoders]
                crcs = None
        except Exception as error:
            return Fault(batch, kind_of(error, "write"), describe(error))
        return Result(batch, payloads, results, crcs)

    def _take_failure(self, frame: Frame) -> None:
        batch = Batch(frame["grant"], frame["start"], frame["end"], frame["attempt"], 1, False, 0.0)
        own = ("op", "kind", "grant", "start", "end", "attempt")
        described = {key: value for key, value in frame.items() if key not in own}
        self._storing.take([Fault(batch, frame["kind"], described)])

    def _send_again(self, frame: Frame) -> None:
        """A range that the worker could not decode, decoded here."""
        start, end = frame["start"], frame["stop"]
        found = (each for each in self._sent if each.grant == frame["id"] and each.start <= start <= end <= each.end)
        sent = next(found, None)
        if sent is None:
            raise FrameError(f"items {start}-{end} are wanted again, and were not sent")
        self._room.acquire(blocking=False)  # one more than agreed upon: it is a small one
        self._send_items(sent, start, end)


def _encoded(writer: SegmentWriter, results: Any, start: int) -> bytes:
    try:
        return writer.encode(results, start)
    except ResultError as error:
        raise ResultError(f"output {masked(writer.path)}: {error}", item=error.item) from error


def _parted(why: str) -> Frame:
    return {"op": "lost", "reason": "link", "message": why, "held": []}
