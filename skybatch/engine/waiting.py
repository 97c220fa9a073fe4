"""The ranges with a history of their own: which live, which wait, and since when they are due."""

from __future__ import annotations

from heapq import heappop, heappush

from skybatch.engine.events import Unit

Entry = tuple[float, int]  # not_before, start


class Units:
    """Live units by their start. A unit waits until it is granted; units that became due first go first."""

    def __init__(self) -> None:
        self._live: dict[int, Unit] = {}
        self._shared: list[Entry] = []  # heaps; entries whose unit has ended are skipped when met
        self._isolated: list[Entry] = []
        self._innocent: list[Entry] = []  # isolated too, but nothing was charged to them

    def __len__(self) -> int:
        return len(self._live)

    def get(self, start: int) -> Unit | None:
        """The live unit that starts there, waiting or granted."""
        return self._live.get(start)

    def wait(self, unit: Unit) -> None:
        """A new unit, or one that was taken, lives and waits; it replaces the one with the same start."""
        self._live[unit.start] = unit
        isolated = self._isolated if unit.attempt else self._innocent
        heappush(isolated if unit.isolated else self._shared, (unit.not_before, unit.start))

    def end(self, start: int) -> None:
        """The unit that starts there is won, dead or split; without one nothing happens."""
        self._live.pop(start, None)

    def take_shared(self, now: float) -> Unit | None:
        """The next due unit that may share its worker; it waits no more, but lives until `end`."""
        return self._take(self._shared, now)

    def take_isolated(self, now: float, *, charged: bool = True) -> Unit | None:
        """The same for units that must run alone; without `charged`, only those that nothing was charged to."""
        unit = self._take(self._innocent, now)
        return self._take(self._isolated, now) if unit is None and charged else unit

    def isolated_due(self, now: float) -> bool:
        """Whether a unit that must run alone is due."""
        return bool(self._first(self._innocent, now) or self._first(self._isolated, now))

    def next_due(self, now: float) -> float | None:
        """When, after `now`, the next unit becomes due. Those due already wait for a worker, not for time."""
        heaps = (self._shared, self._isolated, self._innocent)
        return min((heap[0][0] for heap in heaps if heap and heap[0][0] > now), default=None)

    def _take(self, heap: list[Entry], now: float) -> Unit | None:
        unit = self._first(heap, now)
        if unit is not None:
            heappop(heap)
        return unit

    def _first(self, heap: list[Entry], now: float) -> Unit | None:
        while heap and heap[0][0] <= now:
            unit = self._live.get(heap[0][1])
            if unit is not None:
                return unit
            heappop(heap)
        return None
