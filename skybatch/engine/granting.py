"""Giving work to whoever has room for it."""

from __future__ import annotations

from skybatch.engine.crew import Crew, OpenGrant, Worker
from skybatch.engine.events import Decision, Grant, Settings, Unit
from skybatch.engine.intervals import IntervalSet
from skybatch.engine.mapper_health import MapperHealth
from skybatch.engine.memory_fit import MemoryFit
from skybatch.engine.pace import Pace, grant_length
from skybatch.engine.speculation import due_at, slowest
from skybatch.engine.waiting import Units


class Granting:
    """Decides what is granted next. Shares its parts with the scheduler, which is told what comes of them."""

    def __init__(
        self,
        settings: Settings,
        *,
        crew: Crew,
        units: Units,
        won: IntervalSet,
        pending: IntervalSet,  # of range numbers
        health: MapperHealth,
        pace: Pace,
        fit: MemoryFit,
    ) -> None:
        self._settings, self._crew, self._units, self._pending = settings, crew, units, pending
        self._won, self._health, self._pace, self._fit = won, health, pace, fit
        self._granted = 0  # number of the last grant

    def next_wake(self, now: float) -> float | None:
        """When something can be granted that cannot now, for all that is known; None: no time is known."""
        due = self._units.next_due(now)
        if self._settings.speculate and self._crew.idle() is not None:
            copy = due_at(self._crew, self._pace, self._won)
            return min((at for at in (due, copy) if at is not None), default=None)
        return due

    def grant_all(self, now: float, decisions: list[Decision]) -> None:
        """Give work to whoever has room, the idle first: what must run alone, other units, virgin ranges.

        Before anything was won virgin ranges go first, to see soon whether all fail alike; when they do, no
        more of them are granted while there are units to prove it on.
        """
        crew, units = self._crew, self._units
        while True:
            worker, unit = crew.idle(), None
            unproven = self._pending.total and not (self._health.sound or self._health.suspected)
            if worker is not None:
                unit = units.take_isolated(now, charged=not unproven)
            elif units.isolated_due(now) or self._scarce():
                return  # whoever gets idle first shall have it
            else:
                worker = crew.busy_with_room()
                if worker is None:
                    return
            if unit is None and not unproven:
                unit = units.take_shared(now)
            if unit is not None:
                self._grant(worker, unit.start, unit.end, unit.end - unit.start + 1, unit, now, decisions)
            elif self._pending.total and not (self._health.suspected and units):
                self._grant_virgin(worker, now, decisions)
            elif not (self._settings.speculate and self._grant_copy(worker, now, decisions)):
                return

    def _scarce(self) -> bool:
        """Whether the last ranges are too few and too slow to queue behind others in a worker's hands."""
        if self._pending.total >= 2 * len(self._crew.workers):
            return False
        pace = self._pace.seconds_per_range
        return pace is None or pace > self._settings.tail_s

    def _grant_virgin(self, worker: Worker, now: float, decisions: list[Decision]) -> None:
        length = grant_length(
            self._settings,
            pace=worker.pace.seconds_per_range or self._pace.seconds_per_range,
            last=worker.last_length,
            pending=self._pending.total,
            workers=len(self._crew.workers),
        )
        batch_size = size = self._settings.batch_size
        if self._fit.size is not None and self._fit.size < batch_size:
            length, size = 1, self._fit.size  # parts of a range are told apart from it by being units
        first, last = self._pending.take_lowest(length)
        worker.last_length = last - first + 1
        end = min((last + 1) * batch_size, self._settings.length) - 1
        self._grant(worker, first * batch_size, end, size, None, now, decisions)

    def _grant(
        self,
        worker: Worker,
        start: int,
        end: int,
        size: int,
        unit: Unit | None,
        now: float,
        decisions: list[Decision],
        twin: OpenGrant | None = None,
    ) -> None:
        self._granted += 1
        grant = OpenGrant(self._granted, worker.number, start, end, size, unit, since=now)
        self._crew.give(worker, grant)
        copy_of = None
        if twin is not None:
            grant.twin, twin.twin, copy_of = twin, grant, twin.number
        decisions.append(
            Grant(worker.number, grant.number, start, end, size, grant.attempt, grant.isolated, copy_of)
        )

    def _grant_copy(self, worker: Worker, now: float, decisions: list[Decision]) -> bool:
        """Have an idle worker try what another has had in hand for too long; whether there is such a thing."""
        grant = slowest(self._crew, self._pace, self._won, now) if not worker.grants else None
        if grant is None:
            return False
        start, end = next(iter(grant.open))
        self._grant(worker, start, end, grant.size, grant.unit, now, decisions, twin=grant)
        return True
