"""Merging an output behind the running job, so that little is left to do when the last range is done.

Winners are final, so what has been appended stays right. Only the prefix without gaps is merged; the reduce
goes on from there. Not journalled: a resumed job merges from the start.
"""

from __future__ import annotations

import heapq
import queue
import threading

from skybatch.errors import SegmentDamaged
from skybatch.formats.merge import Merger
from skybatch.formats.stores.base import Piece

_STOP = (-1, -1, Piece("", 0, 0))


class MergeBehind:
    """One output's merge on a thread of its own."""

    def __init__(self, path: str, header: bytes) -> None:
        self._merger = Merger(path, header)
        self._queue: queue.SimpleQueue[tuple[int, int, Piece]] = queue.SimpleQueue()
        self._next = 0
        self._failed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="skybatch_merge")
        self._thread.start()

    def add(self, start: int, end: int, piece: Piece) -> None:
        """A winner, committed; in any order."""
        self._queue.put((start, end, piece))

    def take_over(self) -> tuple[Merger, int] | None:
        """End the thread; the merger, and the first item it does not have. None when merging failed.

        What failed is found again by the reduce, which says so.
        """
        self._queue.put(_STOP)
        self._thread.join()
        if self._failed:
            self._merger.close()
            return None
        return self._merger, self._next

    def abandon(self) -> None:
        """End the thread soon; what was merged is of no use."""
        self._failed = True
        self._queue.put(_STOP)
        self._thread.join()
        self._merger.close()

    def _run(self) -> None:
        waiting: list[tuple[int, int, Piece]] = []
        while (won := self._queue.get()) is not _STOP:
            if self._failed:
                continue
            heapq.heappush(waiting, won)
            while waiting and waiting[0][0] == self._next and not self._failed:
                _, end, piece = heapq.heappop(waiting)
                try:
                    self._merger.add(piece)
                except (OSError, SegmentDamaged):
                    self._failed = True
                self._next = end + 1
