"""Signals while an engine runs: the first drains, the second kills the workers, the third leaves at once."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal came in a phase that can be left at any point, since every step of it can be taken again."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def say(text: str) -> None:
    """A line on stderr past its buffer, where a signal may have interrupted somebody; nothing when nobody reads."""
    if sys.stderr is None:
        return  # descriptor 2 is then another file's
    try:
        os.write(2, f"skybatch: {text}\n".encode())
    except OSError:
        pass


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns signals into calls from the engine's loop. Does nothing outside the main thread."""

    def __init__(
        self, selector: selectors.BaseSelector, on_signal: Callable[[int, int], None], farewell: str = ""
    ) -> None:
        self.received: int | None = None
        self.raising = True  # whether a signal raises Interrupted, rather than waiting for the loop
        self._selector, self._on_signal, self._farewell = selector, on_signal, farewell
        self._count = self._told = 0
        self._before: dict[int, Any] = {}
        self._wakeup: tuple[socket.socket, socket.socket] | None = None

    def install(self) -> None:
        """Take the signals over; a SIGHUP that is ignored (nohup) stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wakeup = (ours, theirs)
        self._old_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._selector.register(ours, selectors.EVENT_READ, self._woken)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self._wakeup is not None:
            ours, theirs = self._wakeup
            self._selector.unregister(ours)
            signal.set_wakeup_fd(self._old_fd)
            ours.close()
            theirs.close()
            self._wakeup = None

    def raise_missed(self) -> None:
        """From now on a signal raises; so does one that came too late for the loop to be told of it."""
        self.raising = True
        if self._told < self._count and self.received is not None:
            self._told, self.raising = self._count, False
            raise Interrupted(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._count += 1
        if self._count >= 3:
            say(self._farewell)
            os._exit(128 + number)
        if self.raising:
            self.raising = False
            raise Interrupted(number)

    def _woken(self) -> None:
        assert self._wakeup is not None
        try:
            self._wakeup[0].recv(64)
        except BlockingIOError:
            pass
        while self._told < self._count and self.received is not None:
            self._told += 1
            self._on_signal(self._told, self.received)
