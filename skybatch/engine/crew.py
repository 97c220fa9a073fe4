"""The workers as the scheduler knows them: what each has in hand, and who has room for more."""

from __future__ import annotations

from collections.abc import Iterator

from skybatch.engine.events import Unit
from skybatch.engine.intervals import Interval, IntervalSet
from skybatch.engine.pace import Pace


class OpenGrant:
    """A grant that is not answered in full."""

    __slots__ = ("attempt", "end", "number", "open", "since", "size", "start", "twin", "unit", "worker")

    def __init__(
        self,
        number: int,
        worker: int,
        start: int,
        end: int,
        size: int,
        unit: Unit | None = None,
        *,
        since: float = 0.0,
    ) -> None:
        self.number = number
        self.worker = worker
        self.start = start
        self.end = end
        self.size = size  # items per range
        self.unit = unit  # None for virgin ranges
        self.attempt = unit.attempt + 1 if unit else 1
        self.open = IntervalSet([(start, end)])  # items not answered yet
        self.since = since  # when it was given
        self.twin: OpenGrant | None = None  # the other grant of these ranges, if there are two

    @property
    def isolated(self) -> bool:
        """Whether it must be the only thing in its worker's hands."""
        return self.unit is not None and self.unit.isolated

    def ranges(self, start: int, end: int) -> Iterator[Interval]:
        """The ranges of a stretch of this grant."""
        for low in range(start, end + 1, self.size):
            yield low, min(low + self.size - 1, self.end)

    def has_ranges(self, start: int, end: int) -> bool:
        """Whether [start, end] is a stretch of whole ranges of this grant."""
        if not self.start <= start <= end <= self.end or (start - self.start) % self.size:
            return False
        return end == self.end or (end + 1 - self.start) % self.size == 0

    def is_open_elsewhere(self, start: int, end: int, grants: dict[int, OpenGrant]) -> bool:
        """Whether some of [start, end] is in another worker's hands too; `grants` are those in hand."""
        return self.twin is not None and self.twin.number in grants and self.twin.open.overlaps(start, end)

    def is_open(self, start: int, end: int) -> bool:
        """Whether [start, end] is one range of this grant, and not answered."""
        return self.has_ranges(start, end) and end - start < self.size and self.open.covers(start, end)


class Worker:
    """One worker, from ready to lost."""

    __slots__ = ("grants", "last_length", "number", "pace")

    def __init__(self, number: int) -> None:
        self.number = number
        self.grants: dict[int, OpenGrant] = {}
        self.last_length = 0  # ranges in its last grant
        self.pace = Pace()


class Crew:
    """All workers. Those with room are kept apart, the idle from the busy, longest waiting first."""

    def __init__(self, depth: int) -> None:
        self.grants: dict[int, OpenGrant] = {}  # by number
        self.workers: dict[int, Worker] = {}
        self.most = 0  # most workers there ever were at once
        self._depth = depth
        self._idle: dict[int, Worker] = {}
        self._busy: dict[int, Worker] = {}  # fewer than `depth` grants in hand

    def join(self, number: int) -> None:
        """A worker is ready. Told again of one that is known, nothing happens."""
        if number not in self.workers:
            self.workers[number] = self._idle[number] = Worker(number)
            self.most = max(self.most, len(self.workers))

    def leave(self, number: int) -> Worker | None:
        """A worker is lost, and with it its grants; None when it is not known."""
        worker = self.workers.pop(number, None)
        if worker is not None:
            self._idle.pop(number, None)
            self._busy.pop(number, None)
            for grant in worker.grants:
                del self.grants[grant]
        return worker

    def idle(self) -> Worker | None:
        """The worker that has had nothing in hand for longest."""
        return next(iter(self._idle.values()), None)

    def busy_with_room(self) -> Worker | None:
        """A worker that has something in hand and may have more."""
        return next(iter(self._busy.values()), None)

    def give(self, worker: Worker, grant: OpenGrant) -> None:
        """The worker has the grant in hand."""
        self.grants[grant.number] = worker.grants[grant.number] = grant
        self._place(worker)

    def end(self, grant: OpenGrant) -> None:
        """Every range of the grant was answered."""
        worker = self.workers[grant.worker]
        del self.grants[grant.number], worker.grants[grant.number]
        self._place(worker)

    def _place(self, worker: Worker) -> None:
        self._idle.pop(worker.number, None)
        self._busy.pop(worker.number, None)
        if not worker.grants:
            self._idle[worker.number] = worker
        elif len(worker.grants) < self._depth and not any(grant.isolated for grant in worker.grants.values()):
            self._busy[worker.number] = worker
