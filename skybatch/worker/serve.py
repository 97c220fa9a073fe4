"""The worker's side of the channel: the configuration first, then grants, until told to stop."""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
import traceback
from collections.abc import Sequence

from skybatch.errors import is_of_storage
from skybatch.failpoints import reach
from skybatch.worker import stand_ins
from skybatch.worker.frames import Bytes, Decoder, Frame, pieces, write_pieces
from skybatch.worker.mark import Mark, NoMark


class Channel:
    """Frames to and from the engine (relayed by the worker's parent). One thread receives, any may send."""

    def __init__(self, fd: int, *, out: int | None = None, own_process: bool = True) -> None:
        """`out` is what is written to, where that is another descriptor."""
        self._fd, self._out = fd, fd if out is None else out
        self.own_process = own_process  # False where the worker shares the engine's
        self._decoder = Decoder()
        self._arrived: list[Frame] = []
        self._sending = threading.Lock()

    def receive(self) -> Frame | None:
        """The next frame, waiting for it; None when the engine is gone."""
        while not self._arrived:
            try:
                frames = self._decoder.read(self._fd)
            except ConnectionResetError:  # the engine left with something of ours unread
                return None
            except OSError as error:
                if self.own_process or error.errno != errno.EBADF:
                    raise
                return None  # the thread that served has ended before this one had its turn
            if frames is None:
                return None
            self._arrived = frames
        frame = self._arrived.pop(0)
        reach("worker.received", frame["op"])
        return frame

    def send(self, frame: Frame, blob: Sequence[Bytes] | None = None) -> None:
        """Send one frame whole, with the parts of its blob. Raises OSError when the parent is gone, FrameError when it
        is too large."""
        data = pieces(frame, blob)
        with self._sending:
            reach("worker.sends", frame["op"])
            write_pieces(self._out, data)
            reach("worker.sent", frame["op"])


def serve_process(channel_fd: int, mark_fd: int) -> None:
    """Serve frames from the engine until `stop` (answered by `bye`) or until the engine is gone.

    Called once, as the whole life of a worker process. A process that ends without `bye` counts as lost.
    """
    channel = Channel(channel_fd)
    config = channel.receive()
    if config is None:
        return
    stand_ins.allowed = bool(config.get("elsewhere"))
    mark = Mark(mark_fd, config.get("concurrency", 1))
    os.close(mark_fd)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    gc.set_threshold(50_000, 20, 50)  # batches come and go whole; looking through them often finds nothing
    serve(channel, mark, config)


def serve(channel: Channel, mark: Mark | NoMark, config: Frame) -> None:
    """Do the work of one worker; what cannot be charged to a range is answered by `storage` or `broken`."""
    try:
        if config.get("role") == "reduce":
            from skybatch.worker.reducing import reduce_outputs

            reduce_outputs(channel, config)
        elif config.get("role") == "relay":
            from skybatch.worker.relay import Relay

            Relay(channel, mark, config).run()
        elif config.get("role") == "check":
            from skybatch.worker.checking import answer

            answer(channel)
        elif config.get("role") == "prepare":
            from skybatch.worker.preparing import prepare

            prepare(channel, config["setup"])
        else:
            from skybatch.worker.session import Session

            Session(channel, mark, config).run()
    except BrokenPipeError:
        pass  # the engine is gone
    except KeyboardInterrupt:
        channel.send({"op": "interrupted"})
    except BaseException as error:
        if mark.has_begun():
            from skybatch.worker.fault import leave_if_out_of_memory

            leave_if_out_of_memory(error, own_process=channel.own_process)
        _tell(channel, error)
    else:
        try:
            channel.send({"op": "bye"})
        except OSError:
            pass  # the engine did not wait for it


def _tell(channel: Channel, error: BaseException) -> None:
    from skybatch.worker.fault import describe

    storage = is_of_storage(error)
    if not storage:
        traceback.print_exception(type(error), error, error.__traceback__)
    channel.send({"op": "storage" if storage else "broken", **describe(error)})
