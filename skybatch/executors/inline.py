"""One worker in this very process, in its main thread: for debuggers, and for `memory://` paths."""

from __future__ import annotations

import os
import socket

from skybatch.executors.base import Executor, Slot, WorkerChannel, numbered
from skybatch.worker.frames import Decoder, Frame, encode
from skybatch.worker.mark import NoMark
from skybatch.worker.serve import Channel, serve

READ_SIZE = 1 << 16


class InlineChannel(WorkerChannel):
    """Frames to the worker in the other thread, over a socket pair."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._decoder = Decoder()

    def fileno(self) -> int:
        """The engine's end."""
        return self._socket.fileno()

    def send(self, frame: Frame) -> None:
        """Send one frame whole."""
        self._socket.sendall(encode(frame))

    def receive(self) -> list[Frame] | None:
        """Frames that have arrived."""
        data = self._socket.recv(READ_SIZE)
        return self._decoder.feed(data) if data else None

    def kill(self) -> None:
        """A thread cannot be killed; end of file ends it after the batch in hand."""

    def close(self) -> None:
        """End of file for the worker."""
        self._socket.close()

    def wait(self, timeout_s: float) -> bool:
        """The worker ends in the thread that serves it."""
        return True


class InlineExecutor(Executor):
    """No worker process: `serve` runs the worker where it is called."""

    in_this_process = True

    def slots(self) -> list[Slot]:
        """One."""
        return numbered(1)

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """Prepare the channel; the worker begins when `serve` is called."""
        ours, self._theirs = socket.socketpair()
        self._config = config
        return InlineChannel(ours)

    def serve(self) -> None:
        """Be the worker, until the engine's thread closes the channel."""
        cwd = os.getcwd()
        with self._theirs:
            try:
                serve(Channel(self._theirs.fileno(), own_process=False), NoMark(), self._config)
            except BrokenPipeError:
                pass  # the engine has stopped, and says why
            finally:
                os.chdir(cwd)
