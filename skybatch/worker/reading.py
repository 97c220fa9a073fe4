"""The reading side of a worker: a thread receives frames, another reads ahead of the mapper."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from skybatch.errors import InputMissing, ResultError, StorageFailed
from skybatch.formats.base import InputReader, Item, WindowReader
from skybatch.worker.fault import describe, leave_if_out_of_memory
from skybatch.worker.frames import Frame
from skybatch.worker.mark import READING, Mark, NoMark
from skybatch.worker.serve import Channel

AHEAD = 2
"""How many loads wait for the mapper, besides the one in its hands."""
GROUP_SECONDS = 0.003


class Loaded:
    """Consecutive ranges of one grant, read; decoded by `items` when the mapper wants them."""

    __slots__ = ("_decode", "_window", "again", "attempt", "end", "error", "grant", "grant_end", "size", "start")

    def __init__(self, grant: Frame, start: int, end: int) -> None:
        self.grant: int = grant["id"]
        self.attempt: int = grant["attempt"]
        self.grant_end: int = grant["end"]
        self.size: int = grant["size"]
        self.start, self.end = start, end
        self.error: BaseException | None = None
        self.again: Callable[[Loaded, int, int], None] | None = None  # asks for a range that cannot be decoded here
        self._window: Any = None
        self._decode: Callable[[Any, int, int, int], list[Item]] | None = None

    def items(self, start: int, end: int) -> list[Item]:
        """The items of one range. Raises RecordError, ResultError for what are no items."""
        decode = self._decode
        items = decode(self._window, self.start, start, end) if decode else self._window[start]
        if type(items) is not list or len(items) != end - start + 1:
            got = f"{len(items)} items" if isinstance(items, list) else type(items).__name__
            asked = f"{end - start + 1} were asked for, both ends included"
            raise ResultError(f"the reader gave {got} for items {start}-{end}; {asked}")
        if set(map(type, items)) != {dict}:
            _refuse_others(items, start)
        return items


def _refuse_others(items: list[Any], start: int) -> None:
    """Raise ResultError for the first item that is no dict, nor of a kind of dict."""
    for index, item in enumerate(items, start):
        if not isinstance(item, dict):
            raise ResultError(f"the reader gave {type(item).__name__} as item {index}; an item is a dict", item=index)


class Reading:
    """Feeds the mapper. `get` gives loads in the order of the grants; one with grant -1 ends the work."""

    def __init__(
        self,
        channel: Channel,
        mark: Mark | NoMark,
        config: Frame,
        reader: InputReader,
        on_drain: Callable[[], None],
        on_grant: Callable[[Frame], None],
    ) -> None:
        self._channel, self._mark, self._reader = channel, mark, reader
        self._on_drain, self._on_grant = on_drain, on_grant
        self._cache_dir: str = config["cache_dir"]
        self._index: str | None = config.get("index")
        self._grants: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._loads: queue.Queue[Loaded] = queue.Queue(AHEAD)

    def start(self) -> None:
        """Start both threads; they end with the process."""
        os.makedirs(self._cache_dir, exist_ok=True)
        for target in (self._receive, self._read_all):
            threading.Thread(target=target, daemon=True, name=f"skybatch{target.__name__}").start()

    def get_now(self) -> Loaded | None:
        """The next load if it is there."""
        try:
            return self._loads.get_nowait()
        except queue.Empty:
            return None

    def get(self) -> Loaded:
        """The next load, waiting for it."""
        return self._loads.get()

    def _receive(self) -> None:
        while True:
            frame = self._channel.receive()
            if frame is None:  # the engine is gone: nobody wants what was granted
                self._on_drain()
                frame = {"op": "stop"}
            if frame["op"] == "drain":
                self._on_drain()
                frame = {"op": "stop"}
            if frame["op"] == "beat":  # of an engine on another machine
                continue
            self._grants.put(frame)
            if frame["op"] != "grant":
                return

    def _read_all(self) -> None:
        try:
            self._read()
        except BaseException as error:
            leave_if_out_of_memory(error, own_process=self._channel.own_process)
            try:
                self._channel.send({"op": "storage" if isinstance(error, OSError) else "broken", **describe(error)})
            except OSError:
                pass  # nobody is there to be told
            self._end()

    def _end(self) -> None:
        self._loads.put(Loaded({"id": -1, "attempt": 0, "end": -1, "size": 1}, 0, -1))

    def _read(self) -> None:
        windows = isinstance(self._reader, WindowReader) and self._index is not None
        opened = not windows
        while (grant := self._grants.get())["op"] == "grant":
            if not opened:
                self._reader.open_index(self._index)  # type: ignore[attr-defined]
                opened = True
            self._on_grant(grant)
            self._read_grant(grant, self._read_window if windows else self._read_ranges)
        if grant["op"] != "stop":
            self._channel.send({"op": "broken", "message": f"this worker knows no operation {grant['op']!r}"})
        self._end()

    def _read_grant(self, grant: Frame, read: Callable[[Frame, int], Loaded]) -> None:
        start = grant["start"]
        while start <= grant["end"]:
            loaded = read(grant, start)
            self._loads.put(loaded)
            start = loaded.end + 1

    def _read_window(self, grant: Frame, start: int) -> Loaded:
        reader, size = self._reader, grant["size"]
        assert isinstance(reader, WindowReader)
        try:
            reach = reader.window_end(start, grant["end"])
            whole = start + max(1, (reach - start + 1) // size) * size - 1
            loaded = Loaded(grant, start, grant["end"] if reach == grant["end"] else min(whole, grant["end"]))
            loaded._window, loaded._decode = reader.read_window(start, loaded.end), reader.decode
        except (StorageFailed, InputMissing):
            raise  # no item is to blame
        except BaseException as error:
            loaded = Loaded(grant, start, min(start + size - 1, grant["end"]))
            loaded.error = error
        return loaded

    def _read_ranges(self, grant: Frame, start: int) -> Loaded:
        """Ranges that are read quickly travel together, so that threads change hands less often."""
        window: dict[int, list[Item]] = {}
        began, at = time.monotonic(), start
        while at <= grant["end"] and time.monotonic() - began < GROUP_SECONDS:
            end = min(at + grant["size"] - 1, grant["end"])
            self._mark.take_up(READING, at, end)
            try:
                window[at] = self._reader.download_batch(at, end, self._cache_dir)
            except (StorageFailed, InputMissing):
                raise  # no item is to blame
            except BaseException as error:  # sys.exit() too would end this thread and nothing else
                if at == start:
                    loaded = Loaded(grant, start, end)
                    loaded.error = error
                    return loaded
                break
            finally:
                self._mark.put_down(READING)
            at = end + 1
        loaded = Loaded(grant, start, at - 1)
        loaded._window = window
        return loaded
