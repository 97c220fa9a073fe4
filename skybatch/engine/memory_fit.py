"""How many items at once fit into a worker's memory, learnt from ranges that ran out of it."""

from __future__ import annotations


class MemoryFit:
    """Remembers a size once two ranges ran out of memory; one alone may hold one huge item, and says nothing of others.

    `size` is None until then. What is learnt is the largest part of such ranges that worked, or half of what did not.
    """

    def __init__(self, batch_size: int, size: int | None = None) -> None:
        self.size = size
        self._batch_size = batch_size
        self._out: set[int] = set()  # ranges of the whole batch size that ran out since the size was last learnt
        self._worked = 0  # the largest part of them that did not

    @property
    def learning(self) -> bool:
        """Whether it matters what works."""
        return bool(self._out)

    def ran_out(self, start: int, end: int) -> bool:
        """Items [start, end] at once did not fit; whether that changed the size."""
        items = end - start + 1
        self._out.add(start // self._batch_size)
        if len(self._out) < 2 or items == 1 or (self.size is not None and items > self.size):
            return False
        self.size = self._worked if 0 < self._worked < items else items // 2
        self._out.clear()
        self._worked = 0
        return True

    def worked(self, start: int, end: int) -> None:
        """Items [start, end] at once did fit."""
        if start // self._batch_size in self._out:
            self._worked = max(self._worked, end - start + 1)
