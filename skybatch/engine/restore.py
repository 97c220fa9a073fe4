"""What is left of an interrupted job."""

from __future__ import annotations

from skybatch.engine.events import Settings
from skybatch.engine.intervals import Interval, IntervalSet


def left_over(settings: Settings, taken: IntervalSet) -> tuple[list[Interval], list[Interval]]:
    """What is not taken: virgin ranges by range number, and by item the rest of ranges taken in part."""
    virgin: list[Interval] = []
    parts: list[Interval] = []
    size, length = settings.batch_size, settings.length
    for start, end in taken.gaps(0, length - 1):
        if start % size:
            part_end = min(end, start - start % size + size - 1)
            parts.append((start, part_end))
            start = part_end + 1
        if end + 1 != length and (end + 1) % size and start <= end:
            part_start = end - end % size
            parts.append((part_start, end))
            end = part_start - 1
        if start <= end:
            virgin.append((start // size, end // size))
    return virgin, parts
