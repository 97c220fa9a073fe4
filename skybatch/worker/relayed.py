"""A worker's side of a relay: items come in frames from the engine's machine, and results go back in frames.

    relay:   load     consecutive ranges of a grant: as the reader read them, or decoded (pickled; the engine's code
                      is run here anyway)
    worker:  more     a load was taken up: another may come
             again    a range of a load could not be decoded here: it is wanted decoded
             results  consecutive results, encoded or pickled, with their checksums
             failed   as to an engine
"""

from __future__ import annotations

import pickle
import queue
import threading
import time
import zlib
from typing import Any, Callable, List, Optional

from skybatch.formats.base import WindowReader
from skybatch.worker.fault import describe
from skybatch.worker.frames import Bytes, Frame, FrameError
from skybatch.worker.outbox import Fault, Result, Unfinished, tell_failed, tell_fault
from skybatch.worker.reading import Loaded
from skybatch.worker.serve import Channel

AHEAD = 3
"""Loads that may be here or on their way besides the one in the mapper's hands."""
SENT_TOGETHER = 64 << 20  # bytes


class RelayedFeed:
    """Loads that a relay sends."""

    def __init__(self, channel: Channel, reader: Optional[WindowReader], on_drain: Callable[[], None]) -> None:
        """`reader` decodes what comes as it was read; None: nothing will."""
        self._channel, self._reader, self._on_drain = channel, reader, on_drain
        self._loads: queue.SimpleQueue[Loaded] = queue.SimpleQueue()

    def start(self) -> None:
        """Start receiving."""
        threading.Thread(target=self._receive, daemon=True, name="skybatch_receive").start()

    def get_now(self) -> Optional[Loaded]:
        """The next load if it is there."""
        try:
            return self._taken(self._loads.get_nowait())
        except queue.Empty:
            return None

    def get(self) -> Loaded:
        """The next load, waiting for it."""
        return self._taken(self._loads.get())

    def _taken(self, loaded: Loaded) -> Loaded:
        if loaded.grant >= 0:
            self._channel.send({"op": "more"})
        return loaded

    def _receive(self) -> None:
        while True:
            frame = self._channel.receive()
            if frame is None or frame["op"] == "drain":
                self._on_drain()
                break
            if frame["op"] == "load":
                self._loads.put(self._loaded(frame))
            elif frame["op"] != "beat":
                break
        self._loads.put(Loaded({"id": -1, "attempt": 0, "end": -1, "size": 1}, 0, -1))

    def _loaded(self, frame: Frame) -> Loaded:
        loaded = Loaded(frame, frame["start"], frame["stop"])
        try:
            loaded._window = pickle.loads(frame["blob"])
        except Exception as error:  # what it is made of is not to be had here
            loaded.error = error
            return loaded
        if frame["form"] == "window" and self._reader is not None:
            loaded._decode, loaded.again = self._reader.decode, self._again
        return loaded

    def _again(self, loaded: Loaded, start: int, end: int) -> None:
        place = {"start": start, "stop": end, "id": loaded.grant, "attempt": loaded.attempt}
        self._channel.send({"op": "again", **place, "end": loaded.grant_end, "size": loaded.size})


class Sending:
    """A sink that sends results to a relay."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begin(self) -> None:
        """Nothing to do."""

    def take(self, group: List[Unfinished]) -> None:
        """Send a group, in order."""
        rows: List[List[Any]] = []
        parts: List[Bytes] = []
        size = 0
        for one in group:
            pickled = b""
            if isinstance(one, Result) and one.results is not None:
                try:
                    pickled = pickle.dumps(one.results, 5)
                except Exception as error:
                    one = Fault(one.batch, "write", describe(error))
            if isinstance(one, Fault):
                self._send(rows, parts)
                rows, parts, size = [], [], 0
                tell_fault(self._channel, one)
                continue
            rows.append(_row(one, pickled))
            parts += [*one.payloads, pickled]
            size += sum(map(len, one.payloads)) + len(pickled)
            if size > SENT_TOGETHER:
                self._send(rows, parts)
                rows, parts, size = [], [], 0
        self._send(rows, parts)

    def _send(self, rows: List[List[Any]], parts: List[Bytes]) -> None:
        if rows:
            try:
                self._channel.send({"op": "results", "rows": rows}, parts)
            except FrameError as error:
                for row in rows:
                    place = {"grant": row[0], "start": row[1], "end": row[2], "attempt": row[3]}
                    self._channel.send({"op": "failed", "kind": "write", **place, **describe(error)})

    def close(self) -> None:
        """All was sent."""

    def give_up(self, error: BaseException) -> None:
        """The relay is gone, or we are at fault."""
        tell_failed(self._channel, error)


def _row(result: Result, pickled: bytes) -> List[Any]:
    """What is told of a range's results, beside them: see `relay.Row`."""
    batch = result.batch
    took = time.monotonic() - batch.taken_at
    lengths = [len(payload) for payload in result.payloads]
    crcs = [zlib.crc32(part) for part in (*result.payloads, pickled)]
    place = [batch.grant, batch.start, batch.end, batch.attempt, batch.size, batch.last]
    return [*place, took, lengths, len(pickled), crcs]
