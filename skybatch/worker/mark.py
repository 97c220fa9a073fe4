"""The range in hand, written where the worker's death cannot erase it.

A small shared mapping of three slots, one per stage of the worker. The worker's threads write their own
slot when they take a range up and when they put it down; the parent reads all three when the worker has
died or may be stuck. Times are CLOCK_MONOTONIC, the same for all processes of a machine.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import NamedTuple, Optional

READING, MAPPING, WRITING = range(3)
STAGES = ("reading", "mapping", "writing")
_SLOT = struct.Struct("<qqd")
SIZE = 3 * _SLOT.size
_EMPTY = _SLOT.pack(-1, -1, 0.0)


class InHand(NamedTuple):
    """A range a stage is at work on."""

    start: int
    end: int
    since: float  # monotonic seconds


class Mark:
    """Both sides' view of the shared mapping behind `fd` (which may be closed afterwards)."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)

    def clear(self) -> None:
        """Empty all slots."""
        for stage in range(3):
            self.put_down(stage)

    def take_up(self, stage: int, start: int, end: int) -> None:
        """Say that `stage` is at work on `[start, end]` from now on."""
        _SLOT.pack_into(self._map, stage * _SLOT.size, start, end, time.monotonic())

    def put_down(self, stage: int) -> None:
        """Say that `stage` has nothing in hand."""
        offset = stage * _SLOT.size
        self._map[offset : offset + _SLOT.size] = _EMPTY

    def read(self, stage: int) -> Optional[InHand]:
        """What `stage` has in hand, or None."""
        start, end, since = _SLOT.unpack_from(self._map, stage * _SLOT.size)
        return None if start < 0 else InHand(start, end, since)


class NoMark:
    """For a worker that shares its process with the engine: nobody survives to read a mark."""

    def take_up(self, stage: int, start: int, end: int) -> None:
        """Nothing to do."""

    def put_down(self, stage: int) -> None:
        """Nothing to do."""
