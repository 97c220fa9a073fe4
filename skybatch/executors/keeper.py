"""A connection to a host that carries no work: it takes over what workers need, tells of the host, and of its loss."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from typing import Any

from skybatch.errors import SkybatchError
from skybatch.executors import parts
from skybatch.executors.connection import Connection
from skybatch.executors.remote import PIECE, READ_SIZE, Boot, first_line
from skybatch.worker.frames import Decoder, Frame, FrameError, encode, write_all
from skybatch.worker.shapes import require_sense

PING_S, SILENCE_S = 5.0, 15.0
PINGS = 3


class Keeper:
    """All calls but `close` come from the one thread that keeps the host, and may block."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self._arrived: list[Frame] = []
        self._leaving, self._leave = os.pipe()
        self._closed = False
        self.hello: dict[str, Any] = {}
        self.round_trip_s = 0.0

    def begin(self, boot: Boot) -> None:
        """Have what workers need taken over. Raises SkybatchError, saying why the host is not fit."""
        core = parts.core()
        self._send(first_line() + encode(boot.frame([core], keep=True)))
        hello = self._expect("hello")
        for name in hello["needed"]:
            assert name == core.name
            for offset in range(0, core.size, PIECE):
                self._send(core.read(offset, min(PIECE, core.size - offset)))
        self.hello = {**hello, **self._expect("present")}
        self.round_trip_s = min(self._ping(number) for number in range(PINGS))

    def watch(self) -> str:
        """Ask every few seconds whether the host is there, until it is not, or `close` is called; why it ended."""
        while True:
            if select.select([self._leaving], [], [], PING_S)[0]:
                return "it is wanted no more"
            try:
                self._ping(0)
            except (OSError, SkybatchError) as error:
                return str(error)

    def facts(self) -> Mapping[str, Any]:
        """What the host is, and how far away, in seconds."""
        told = ("host", "python", "executable", "cpus", "disk_free", "gpus")
        return {**{key: self.hello[key] for key in told if key in self.hello}, "round_trip_s": self.round_trip_s}

    def close(self) -> None:
        """End the connection, and with it what shares it. From any thread; may be called twice."""
        if not self._closed:
            self._closed = True
            os.write(self._leave, b"-")
            os.close(self._connection.writes)
            if not self._connection.wait(1.0):
                self._connection.kill()
                self._connection.wait(1.0)
            os.close(self._connection.reads)

    def _ping(self, number: int) -> float:
        began = time.monotonic()
        self._send(encode({"op": "ping", "id": number}))
        self._expect("pong", SILENCE_S)
        return time.monotonic() - began

    def _send(self, data: bytes) -> None:
        try:
            write_all(self._connection.writes, data)
        except OSError:
            self._expect("")  # which says why

    def _expect(self, operation: str, timeout_s: float | None = None) -> Frame:
        while not self._arrived:
            if not select.select([self._connection.reads], [], [], timeout_s)[0]:
                raise SkybatchError(f"nothing was heard of it for {timeout_s:.0f} s")
            data = os.read(self._connection.reads, READ_SIZE)
            if not data:
                self._connection.wait(2.0)
                raise SkybatchError(self._connection.words() or "the connection ended without a word")
            try:
                self._arrived = require_sense(self._decoder.feed(data))
            except FrameError:
                raise SkybatchError(f"something else answers than our Python: {data[:100]!r}") from None
        frame = self._arrived.pop(0)
        if frame["op"] == "unfit":
            raise SkybatchError(frame["message"])
        if frame["op"] != operation:
            raise SkybatchError(f"it said {frame['op']!r} instead of {operation!r}")
        return frame
