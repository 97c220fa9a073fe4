"""Who maps what, and what becomes of the answers: a pure state machine.

Events in, decisions out; no clock, no I/O, no threads. Time is whatever the caller says it is, as long as
it does not run backwards. A range that was never tried is *virgin* and costs nothing: only intervals of
them are kept. A range that failed, or came out of a split, is a `Unit`.

    virgin --granted--> in hand --done--> won
      ^                  |   |--failed, lost in hand--> waiting unit --granted--> in hand ...
      |                  |                                |--out of tries, several items--> split: two units
      +-lost, not in hand+                                +--out of tries, one item--> dead
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from skybatch.engine.crew import Crew, OpenGrant, Worker
from skybatch.engine.events import (
    Broken,
    Dead,
    Decision,
    Drain,
    EndGrant,
    Event,
    Finished,
    Fits,
    Late,
    OverBudget,
    RangeFailed,
    RangesDone,
    Retry,
    Settings,
    Split,
    StorageDown,
    Tick,
    Unit,
    Won,
    WorkerLost,
    WorkerReady,
)
from skybatch.engine.granting import Granting
from skybatch.engine.intervals import Interval, IntervalSet
from skybatch.engine.mapper_health import MapperHealth, Verdict
from skybatch.engine.memory_fit import MemoryFit
from skybatch.engine.pace import Pace
from skybatch.engine.restore import remaining
from skybatch.engine.retries import charge, class_of, is_spent, part_size, parts, suspect
from skybatch.engine.waiting import Units

REMEMBERED_LOST_GRANTS = 4096  # answers to older ones are late without being looked at
UNBLAMED = frozenset({"gone", "link", "preempted", "storage"})  # ways of being lost that are no range's fault


class Scheduler:
    """Schedules one job.

    `won`, `dead` and `units` restore an interrupted job; they must be disjoint, or ValueError is raised.
    Items in none of them are pending.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        won: Iterable[Interval] = (),
        dead: Iterable[Interval] = (),
        units: Iterable[Unit] = (),
    ) -> None:
        self.next_wake: float | None = None  # when a Tick is wanted; None: only events matter
        self._settings = settings
        self._won = IntervalSet(won)
        self._dead = IntervalSet(dead)
        self._units = Units()
        self._crew = Crew(settings.depth)
        self._pace = Pace()
        self._lost: dict[int, OpenGrant] = {}  # of lost workers, oldest first; may still be answered
        self._deaths = 0  # workers that died with nothing in hand, since something was last won
        self._storage_failures = 0  # workers whose storage failed, since something was last won
        self._stopped = False
        self._told_finished = False
        ranges = -(-settings.length // settings.batch_size)
        self._health = MapperHealth(
            ranges=ranges, batch_size=settings.batch_size, sound=bool(self._won.total)
        )
        self._fit = MemoryFit(settings.batch_size, settings.fits)
        virgin, waiting = remaining(settings, [self._won, self._dead], list(units))
        self._pending = IntervalSet(virgin)  # of range numbers
        for unit in waiting:
            self._units.wait(unit)
        self._granting = Granting(
            settings,
            crew=self._crew,
            units=self._units,
            won=self._won,
            pending=self._pending,
            health=self._health,
            pace=self._pace,
            fit=self._fit,
        )
        self._handlers = {
            WorkerReady: self._worker_ready,
            RangesDone: self._ranges_done,
            RangeFailed: self._range_failed,
            WorkerLost: self._worker_lost,
            Drain: self._drain,
            Tick: self._tick,
        }

    @property
    def won_items(self) -> int:
        """Items whose winner is known."""
        return self._won.total

    @property
    def dead_items(self) -> int:
        """Items that were set aside."""
        return self._dead.total

    @property
    def outstanding_items(self) -> int:
        """Items in workers' hands."""
        return sum(grant.open.total for grant in self._crew.grants.values())

    @property
    def finished(self) -> bool:
        """Whether every item is won or dead."""
        return self._won.total + self._dead.total == self._settings.length

    def granted(self) -> list[Interval]:
        """The stretches in workers' hands, lowest first."""
        return sorted(stretch for grant in self._crew.grants.values() for stretch in grant.open)

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take in one event; what is to be done about it, in this order.

        `now` is in seconds and never runs backwards. An event that says nothing new (told twice, or about a
        worker or grant that is not known) changes nothing.
        """
        decisions: list[Decision] = []
        self._handlers[type(event)](event, now, decisions)  # type: ignore[operator]
        if not self._stopped:
            self._granting.grant_all(now, decisions)
        self.next_wake = None if self._stopped else self._granting.next_wake(now)
        if not self._told_finished and self.finished:
            self._told_finished = True
            decisions.append(Finished())
        return decisions

    # Events

    def _worker_ready(self, event: WorkerReady, now: float, decisions: list[Decision]) -> None:
        self._crew.join(event.worker)

    def _drain(self, event: Drain, now: float, decisions: list[Decision]) -> None:
        self._stopped = True

    def _tick(self, event: Tick, now: float, decisions: list[Decision]) -> None:
        pass  # what became due is granted after every event

    def _ranges_done(self, event: RangesDone, now: float, decisions: list[Decision]) -> None:
        grant = self._crew.grants.get(event.grant)
        if grant is not None and grant.unit is None:
            self._pace.measured(event.seconds, event.ranges)
            self._crew.workers[grant.worker].pace.measured(event.seconds, event.ranges)
        known = grant or self._lost.get(event.grant)
        if known is None or not known.has_ranges(event.start, event.end):
            decisions.append(Late(event.start, event.end, event.nonce))
            return
        self._answer(known, event, decisions)
        if grant is not None:
            self._end_if_answered(grant, decisions)
        elif not known.open.total:
            del self._lost[known.number]

    def _range_failed(self, event: RangeFailed, now: float, decisions: list[Decision]) -> None:
        grant = self._crew.grants.get(event.grant)
        if grant is None or not grant.is_open(event.start, event.end):
            return
        grant.open.remove(event.start, event.end)
        elsewhere = grant.is_open_elsewhere(event.start, event.end, self._crew.grants)
        if not elsewhere and not self._won.overlaps(event.start, event.end):
            self._charge(self._unit_of(event.start, event.end), event.kind, event.signature, now, decisions)
        self._end_if_answered(grant, decisions)

    def _worker_lost(self, event: WorkerLost, now: float, decisions: list[Decision]) -> None:
        worker = self._crew.leave(event.worker)
        if event.reason == "storage":
            self._storage_failed(decisions)
        if worker is None:
            return
        held = [] if event.reason in UNBLAMED else self._really_held(worker, event.held)
        if event.reason == "timeout":
            held = [stretch for stretch in held if stretch == event.held[0]]
        elif event.reason == "memory":
            held = held[:1]
        if event.reason == "exit" and len(held) > 1:
            for start, end in held:
                self._suspect(self._unit_of(start, end), now, decisions)
        elif held:
            kind = event.reason if event.reason in ("timeout", "memory") else "lost"
            self._charge(self._unit_of(*held[0]), kind, kind, now, decisions)
        elif event.reason not in UNBLAMED and worker.grants:
            self._died_for_nothing(worker, decisions)
        for grant in worker.grants.values():
            self._give_back(grant, held, decisions)
            decisions.append(EndGrant(grant.number))

    def _storage_failed(self, decisions: list[Decision]) -> None:
        self._storage_failures += 1
        down = self._storage_failures > self._settings.budgets["storage"]
        if down and not self._stopped and not self.finished:
            self._stopped = True
            decisions.append(StorageDown())

    # Answers

    def _answer(self, grant: OpenGrant, event: RangesDone, decisions: list[Decision]) -> None:
        start, end = event.start, event.end
        if (
            grant.number in self._crew.grants
            and grant.open.covers(start, end)
            and not self._won.overlaps(start, end)
        ):
            self._win(grant, start, end, event.nonce, decisions)
        else:
            self._answer_range_by_range(grant, event, decisions)
        grant.open.remove(start, end)

    def _answer_range_by_range(self, grant: OpenGrant, event: RangesDone, decisions: list[Decision]) -> None:
        accepted = IntervalSet()
        for start, end in grant.ranges(event.start, event.end):
            if grant.open.covers(start, end) and self._lives(start, end):
                accepted.add(start, end)
        for start, end in accepted:
            self._win(grant, start, end, event.nonce, decisions)
        for start, end in accepted.gaps(event.start, event.end):
            decisions.append(Late(start, end, event.nonce))

    def _lives(self, start: int, end: int) -> bool:
        """Whether the range has no winner and is not dead or split (then a part of it is among the units)."""
        unit = self._units.get(start)
        if unit is not None and unit.end != end:
            return False
        return not self._won.overlaps(start, end) and not self._dead.overlaps(start, end)

    def _win(self, grant: OpenGrant, start: int, end: int, nonce: str, decisions: list[Decision]) -> None:
        if grant.number in self._lost:
            self._withdraw(grant, start, end)
        elif grant.unit is not None:
            self._units.end(start)
        self._won.add(start, end)
        self._health.succeeded()
        self._deaths = self._storage_failures = 0
        if self._fit.learning:
            self._fit.worked(start, min(start + grant.size - 1, end))
        decisions.append(Won(start, end, nonce, grant.attempt, grant.number))

    def _withdraw(self, grant: OpenGrant, start: int, end: int) -> None:
        """A late answer won: nobody needs to be granted these ranges any more."""
        for low, _ in grant.ranges(start, end):
            self._units.end(low)
        if self._is_virgin(grant):
            self._pending.remove(start // self._settings.batch_size, end // self._settings.batch_size)

    def _is_virgin(self, grant: OpenGrant) -> bool:
        """Whether what comes back of it is pending: whole ranges that nothing is known of."""
        return grant.unit is None and grant.size == self._settings.batch_size

    def _end_if_answered(self, grant: OpenGrant, decisions: list[Decision]) -> None:
        if not grant.open.total:
            self._crew.end(grant)
            decisions.append(EndGrant(grant.number))

    # Lost workers

    def _really_held(self, worker: Worker, held: Iterable[Interval]) -> list[Interval]:
        """What the worker had in hand of what is still wanted of it, each range once."""
        return [
            (start, end)
            for start, end in dict.fromkeys(held)
            if not self._won.overlaps(start, end)
            and any(
                grant.is_open(start, end) and not grant.is_open_elsewhere(start, end, self._crew.grants)
                for grant in worker.grants.values()
            )
        ]

    def _give_back(self, grant: OpenGrant, held: list[Interval], decisions: list[Decision]) -> None:
        """Make pending again what a lost worker had not in hand; its late answers may still win."""
        back = IntervalSet(grant.open)
        twin = grant.twin.open if grant.twin and grant.twin.number in self._crew.grants else ()
        for start, end in [*self._won.inside(grant.start, grant.end), *held, *twin]:
            back.remove(start, end)
        for start, end in back:
            if self._is_virgin(grant):
                self._pending.add(start // self._settings.batch_size, end // self._settings.batch_size)
                continue
            for low, high in grant.ranges(start, end):
                self._wait(self._unit_of(low, high), "returned", decisions)
        self._lost[grant.number] = grant
        if len(self._lost) > REMEMBERED_LOST_GRANTS:
            del self._lost[next(iter(self._lost))]

    def _died_for_nothing(self, worker: Worker, decisions: list[Decision]) -> None:
        """Nobody to charge; but workers that keep dying before anything is won would go on for ever."""
        self._deaths += 1
        if self._deaths > self._settings.budgets["lost"] + self._crew.most:
            grant = min(worker.grants.values(), key=lambda grant: grant.start)
            self._break(grant.start, min(grant.start + grant.size - 1, grant.end), "lost", decisions)

    def _suspect(self, unit: Unit, now: float, decisions: list[Decision]) -> None:
        """Its worker died with several ranges in hand: each runs alone next time."""
        unit = suspect(unit, now)
        if is_spent(self._settings, replace(unit, tries_left=None), "lost"):
            self._charge(unit, "lost", "lost", now, decisions)
        else:
            self._wait(unit, "suspected", decisions)

    # Failures

    def _unit_of(self, start: int, end: int) -> Unit:
        return self._units.get(start) or Unit(start, end, 0)

    def _charge(self, unit: Unit, kind: str, signature: str, now: float, decisions: list[Decision]) -> None:
        charged = charge(self._settings, unit, kind, signature, now)
        single = unit.start == unit.end
        alike = unit.signature == signature and class_of(kind) == "mapper" and not single
        last_try = alike or is_spent(self._settings, charged, kind)
        if kind == "memory" and self._fit.ran_out(unit.start, unit.end):
            assert self._fit.size is not None
            decisions.append(Fits(self._fit.size))
        verdict = self._health.failed(
            unit.start, unit.end, signature, attempt=charged.attempt, exhausted=last_try
        )
        if verdict is Verdict.BROKEN:
            self._wait(replace(charged, tries_left=1) if last_try else charged, kind, decisions)
            self._break(unit.start, unit.end, signature, decisions)
        elif verdict is Verdict.PROBE:
            self._split(charged, kind, self._probe(charged, now), decisions)
        elif not last_try and (kind != "memory" or single):
            self._wait(charged, kind, decisions)
        elif single:
            self._units.end(unit.start)
            self._dead.add(unit.start, unit.end)
            decisions.append(Dead(unit.start, unit.end, charged.attempt, kind))
            self._keep_to_budget(decisions)
        else:
            size = part_size(unit.end - unit.start + 1, kind)
            self._split(charged, kind, parts(charged, size, now), decisions)

    def _keep_to_budget(self, decisions: list[Decision]) -> None:
        allowed = self._settings.max_dead
        if allowed is not None and self._dead.total > allowed and not self._stopped:
            self._stopped = True
            decisions.append(OverBudget(self._dead.total, allowed))

    def _probe(self, unit: Unit, now: float) -> tuple[Unit, ...]:
        """The unit's first item, and the rest."""
        first = replace(unit, end=unit.start)
        rest = replace(unit, start=unit.start + 1)
        return parts(first, 1, now) + parts(rest, rest.end - rest.start + 1, now)

    def _split(self, unit: Unit, kind: str, pieces: tuple[Unit, ...], decisions: list[Decision]) -> None:
        """Retire the unit; its parts take over at once."""
        decisions.append(Split(unit.start, unit.end, pieces, unit.attempt, kind))
        for piece in pieces:
            self._units.wait(piece)

    def _wait(self, unit: Unit, kind: str, decisions: list[Decision]) -> None:
        self._units.wait(unit)
        decisions.append(Retry(unit, kind))

    def _break(self, start: int, end: int, signature: str, decisions: list[Decision]) -> None:
        if not self._stopped:
            self._stopped = True
            decisions.append(Broken(start, end, signature))
