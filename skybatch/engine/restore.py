"""What is left of an interrupted job."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise

from skybatch.engine.events import Settings, Unit
from skybatch.engine.intervals import Interval, IntervalSet


def remaining(
    settings: Settings, settled: list[IntervalSet], units: list[Unit]
) -> tuple[list[Interval], list[Unit]]:
    """Virgin ranges by range number, and units: those given, and the rest of ranges that are settled in part.

    Raises ValueError when an item is in two of `settled` and `units`.
    """
    held = sorted([*chain(*settled), *((unit.start, unit.end) for unit in units)])
    for before, after in pairwise(held):
        if after[0] <= before[1]:
            raise ValueError(f"items {after[0]}-{min(before[1], after[1])} are held twice")
    virgin, broken_up = left_over(settings, IntervalSet(held))
    pieces = [Unit(*piece, 0) for stretch in broken_up for piece in _cut(stretch, settings.fits)]
    return virgin, [*units, *pieces]


def _cut(stretch: Interval, size: int | None) -> Iterator[Interval]:
    start, end = stretch
    size = size or end - start + 1
    for low in range(start, end + 1, size):
        yield low, min(low + size - 1, end)


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
