"""A set of whole numbers kept as disjoint intervals: a billion items in a few rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

Interval = tuple[int, int]


class IntervalSet:
    """Whole numbers as inclusive intervals; neighbours that touch are one interval.

    Intervals are kept highest first, so that work at the low end (where a job is granted and won)
    moves nothing: taking the lowest costs O(1), everything else a bisection.
    """

    __slots__ = ("_ends", "_keys", "total")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self.total = 0  # how many numbers the set holds
        self._keys: list[int] = []  # the negated starts, ascending
        self._ends: list[int] = []
        for start, end in sorted(intervals, reverse=True):
            if self._keys and -self._keys[-1] <= end + 1:
                self.add(start, end)
            else:
                self._keys.append(-start)
                self._ends.append(end)
                self.total += end - start + 1

    def __len__(self) -> int:
        """How many intervals there are (not how many numbers: that is `total`)."""
        return len(self._keys)

    def __iter__(self) -> Iterator[Interval]:
        """The intervals, lowest first."""
        return zip(map(int.__neg__, reversed(self._keys)), reversed(self._ends), strict=True)

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any number of [start, end] is in the set."""
        place = bisect_left(self._keys, -end)
        return place < len(self._keys) and self._ends[place] >= start

    def covers(self, start: int, end: int) -> bool:
        """Whether every number of [start, end] is in the set."""
        place = bisect_left(self._keys, -start)
        return place < len(self._keys) and self._ends[place] >= end

    def add(self, start: int, end: int) -> None:
        """Put [start, end] in; what is there already stays."""
        first, stop = self._touching(start - 1, end + 1)
        if first < stop:
            start = min(start, -self._keys[stop - 1])
            end = max(end, self._ends[first])
            self.total -= self._held(first, stop)
        self._keys[first:stop] = [-start]
        self._ends[first:stop] = [end]
        self.total += end - start + 1

    def remove(self, start: int, end: int) -> None:
        """Take [start, end] out; what is not there stays away."""
        first, stop = self._touching(start, end)
        if first == stop:
            return
        left = [(end + 1, self._ends[first]), (-self._keys[stop - 1], start - 1)]
        left = [(low, high) for low, high in left if low <= high]
        self.total -= self._held(first, stop)
        self._keys[first:stop] = [-low for low, _ in left]
        self._ends[first:stop] = [high for _, high in left]
        self.total += sum(high - low + 1 for low, high in left)

    def take_lowest(self, limit: int) -> Interval:
        """Take out and return the lowest interval, at most `limit` numbers of it. IndexError when empty."""
        start, end = -self._keys[-1], self._ends[-1]
        if end - start < limit:
            del self._keys[-1], self._ends[-1]
        else:
            end = start + limit - 1
            self._keys[-1] = -(end + 1)
        self.total -= end - start + 1
        return start, end

    def inside(self, start: int, end: int) -> list[Interval]:
        """What of [start, end] is in the set, lowest first."""
        first, stop = self._touching(start, end)
        places = range(stop - 1, first - 1, -1)
        return [(max(start, -self._keys[place]), min(end, self._ends[place])) for place in places]

    def gaps(self, start: int, end: int) -> list[Interval]:
        """What of [start, end] is not in the set, lowest first."""
        found = []
        for low, high in self.inside(start, end):
            if start < low:
                found.append((start, low - 1))
            start = high + 1
        if start <= end:
            found.append((start, end))
        return found

    def _touching(self, start: int, end: int) -> Interval:
        """The places [first, stop) of the intervals that share a number with [start, end]."""
        ends = self._ends
        first = stop = bisect_left(self._keys, -end)
        while stop < len(ends) and ends[stop] >= start:
            stop += 1
        return first, stop

    def _held(self, first: int, stop: int) -> int:
        return sum(self._ends[first:stop]) + sum(self._keys[first:stop]) + stop - first
