"""The worker's side of the channel: the configuration first, then grants, until told to stop."""

from __future__ import annotations

import os
from typing import Callable, Dict

from skybatch.worker.frames import Decoder, Frame, encode, write_all
from skybatch.worker.mark import Mark

READ_SIZE = 1 << 16
Handler = Callable[[Frame], None]


class Channel:
    """Frames to and from the engine (relayed by the worker's parent)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = Decoder()
        self._arrived: list[Frame] = []

    def receive(self) -> Frame | None:
        """The next frame, waiting for it; None when the engine is gone."""
        while not self._arrived:
            data = os.read(self._fd, READ_SIZE)
            if not data:
                return None
            self._arrived = self._decoder.feed(data)
        return self._arrived.pop(0)

    def send(self, frame: Frame) -> None:
        """Send one frame whole. Raises OSError when the parent is gone."""
        write_all(self._fd, encode(frame))


def serve_process(channel_fd: int, mark_fd: int) -> None:
    """Serve frames from the engine until `stop` (answered by `bye`) or until the engine is gone.

    Called once, as the whole life of a worker process. A process that ends without `bye` counts as lost.
    """
    channel = Channel(channel_fd)
    mark = Mark(mark_fd)
    os.close(mark_fd)
    mark.clear()
    config = channel.receive()
    if config is None:
        return
    serve(channel, {})


def serve(channel: Channel, handlers: Dict[str, Handler]) -> None:
    """Hand every frame to the handler of its `op`; a frame nobody handles is answered by `broken`."""
    while (frame := channel.receive()) is not None:
        op = frame["op"]
        if op == "stop":
            channel.send({"op": "bye"})
            return
        handler = handlers.get(op)
        if handler is None:
            channel.send({"op": "broken", "message": f"this worker knows no operation {op!r}"})
            return
        handler(frame)
