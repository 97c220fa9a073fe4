"""The ranges in hand, written where the worker's death cannot erase them.

A small shared mapping: a slot for the reading thread, one for the writing thread, one for each batch that the
mapper may have in flight; and whether it has asked for a batch at all. The worker's threads write their own slot
when they take a range up and when they put it down; the parent reads all when the worker has died or may be
stuck. Times are CLOCK_MONOTONIC, the same for all processes of a machine.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import List, NamedTuple

READING, WRITING, MAPPING = range(3)
_SLOT = struct.Struct("<qqd")
_EMPTY = _SLOT.pack(-1, -1, 0.0)


def size_for(concurrency: int) -> int:
    """Bytes of the mapping for `concurrency` batches in flight."""
    return (MAPPING + concurrency) * _SLOT.size + 1


class InHand(NamedTuple):
    """A range some thread is at work on."""

    slot: int
    start: int
    end: int
    since: float  # monotonic seconds


class Mark:
    """Both sides' view of the shared mapping behind `fd` (which may be closed afterwards)."""

    def __init__(self, fd: int, concurrency: int = 1) -> None:
        self._slots = MAPPING + concurrency
        self._map = mmap.mmap(fd, size_for(concurrency))

    def clear(self) -> None:
        """Empty all slots."""
        for slot in range(self._slots):
            self.put_down(slot)

    def begin(self) -> None:
        """Say that the mapper is made, and waits for its first batch."""
        self._map[-1] = 1

    def has_begun(self) -> bool:
        """Whether the mapper has ever asked for a batch."""
        return bool(self._map[-1])

    def take_up(self, slot: int, start: int, end: int) -> None:
        """Say that `slot` is at work on `[start, end]` from now on."""
        _SLOT.pack_into(self._map, slot * _SLOT.size, start, end, time.monotonic())

    def put_down(self, slot: int) -> None:
        """Say that `slot` has nothing in hand."""
        offset = slot * _SLOT.size
        self._map[offset : offset + _SLOT.size] = _EMPTY

    def held(self) -> List[InHand]:
        """What is in hand, longest held first."""
        found = []
        for slot in range(self._slots):
            start, end, since = _SLOT.unpack_from(self._map, slot * _SLOT.size)
            if start >= 0:
                found.append(InHand(slot, start, end, since))
        return sorted(found, key=lambda hand: hand.since)


class NoMark:
    """For a worker that shares its process with the engine: nobody survives to read a mark."""

    def begin(self) -> None:
        """Nothing to do."""

    def has_begun(self) -> bool:
        """Nobody knows."""
        return False

    def take_up(self, slot: int, start: int, end: int) -> None:
        """Nothing to do."""

    def put_down(self, slot: int) -> None:
        """Nothing to do."""
