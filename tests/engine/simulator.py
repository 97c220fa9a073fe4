"""A job on simulated workers that are slow, fail, die, answer late, twice and wrongly, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random

from skybatch.engine.events import (
    Event,
    Grant,
    Late,
    RangeFailed,
    RangesDone,
    Settings,
    Tick,
    Won,
    WorkerLost,
    WorkerReady,
)
from skybatch.engine.scheduler import Scheduler
from tests.engine.referee import DEAD, Referee

WARM_UP_S = 0.01


@dataclass(frozen=True, kw_only=True)
class World:
    """What the simulated machines are like: probabilities per range unless said otherwise."""

    workers: int = 1000
    range_s: float = 1.0  # what a range takes on a usual worker
    poison: float = 0.001  # of items: every range with one fails
    killers: float = 0.0002  # of items: every range with one kills its worker
    flake: float = 0.005  # fails for no reason
    death: float = 0.002  # the worker dies for no reason
    hang: float = 0.0005  # runs into the batch timeout; the worker answers all the same, later
    gone: float = 0.002  # per grant: the executor takes the worker away; its answers still come
    double: float = 0.01  # per answer: told twice
    slow_workers: float = 0.02  # of workers: a hundred times slower
    storage: float = 0.001  # the worker's storage fails
    preempted: float = 0.001  # the worker's machine wants it gone
    wrong: float = 0.01  # per grant: an answer that no grant asked for
    memory: int | None = None  # ranges of more items than this run out of it
    fat: float = 0.0  # of items: no range with one fits into memory


class Simulator:
    def __init__(self, seed: int, settings: Settings, world: World) -> None:
        self.random = Random(seed)
        self.settings = settings
        self.world = world
        self.scheduler = Scheduler(settings)
        self.referee = Referee(settings)
        self.late = 0
        self.won = 0
        self.now = 0.0
        self._agenda: list[tuple[float, int, Event]] = []
        self._order = count()
        self._worker_numbers = count()
        self._free_at: dict[int, float] = {}  # living workers
        self._slowness: dict[int, float] = {}
        draw = self.random.random
        sure = settings.batch_size * 3  # the first items are sound, or the mapper might count as broken
        self.poison = {item for item in range(sure, settings.length) if draw() < world.poison}
        self.killers = {item for item in range(sure, settings.length) if draw() < world.killers}
        self.fat = {item for item in range(sure, settings.length) if draw() < world.fat}

    def run(self) -> None:
        """Until every item ended, or workers kept dying. Raises AssertionError at the first wrong decision."""
        for _ in range(self.world.workers):
            self._hire()
        while not self.scheduler.finished:
            self._step()
            if self.referee.broken and self.referee.broken.signature == "lost":
                return
            assert not self.referee.stopped, self.referee.broken
        state = self.referee.state
        assert self.referee.finished
        assert all(state[item] == DEAD for item in self.poison | self.killers | self.fat)
        assert self.scheduler.dead_items == state.count(DEAD)
        assert self.scheduler.won_items + self.scheduler.dead_items == self.settings.length

    def _step(self) -> None:
        wake = self.scheduler.next_wake
        if wake is not None and (not self._agenda or wake <= self._agenda[0][0]):
            self.now = max(wake, self.now)
            event: Event = Tick()
        else:
            assert self._agenda, "nothing left to wait for, and yet not finished"
            self.now, _, event = heappop(self._agenda)
        if isinstance(event, WorkerLost):
            if event.worker not in self._free_at:
                return
            del self._free_at[event.worker]
            self._hire()
        self.referee.event(event, self.now)
        decisions = self.scheduler.handle(event, self.now)
        self.referee.check(decisions)
        for decision in decisions:
            kind = type(decision)
            if kind is Grant:
                self._work(decision)  # type: ignore[arg-type]
            elif kind is Late:
                self.late += 1
            elif kind is Won:
                self.won += 1

    def _at(self, time: float, event: Event) -> None:
        heappush(self._agenda, (time, next(self._order), event))

    def _hire(self) -> None:
        worker = next(self._worker_numbers)
        ready = self.now + self.random.random() * WARM_UP_S
        self._free_at[worker] = ready
        self._slowness[worker] = 100.0 if self.random.random() < self.world.slow_workers else 1.0
        self._at(ready, WorkerReady(worker))

    def _work(self, grant: Grant) -> None:
        """What the worker will answer to the grant, and when. It may die on the way."""
        draw, world = self.random.random, self.world
        time = max(self.now, self._free_at[grant.worker])
        first, since = grant.start, time
        for start in range(grant.start, grant.end + 1, grant.size):
            end = min(start + grant.size - 1, grant.end)
            time += world.range_s * self._slowness[grant.worker] * (0.5 + draw())
            chance = draw()
            if self._runs_out(start, end):
                self._done(grant, first, start - 1, since, time)
                if chance < 0.5:
                    self._at(time, WorkerLost(grant.worker, "memory", ((start, end),)))
                    break
                self._at(time, RangeFailed(grant.worker, grant.grant, start, end, "memory", "MemoryError"))
                first, since = end + 1, time
                continue
            if chance < world.storage + world.preempted:
                reason = "storage" if chance < world.storage else "preempted"
                self._at(time, WorkerLost(grant.worker, reason, ((start, end),)))
                self._done(grant, first, start - 1, since, time)
                break
            chance -= world.storage + world.preempted
            if self._holds(self.killers, start, end) or chance < world.death:
                self._done(grant, first, start - 1, since, time - world.range_s / 4)
                self._at(time, WorkerLost(grant.worker, "exit", self._held(grant, start, end)))
                break
            chance -= world.death
            poisoned = self._holds(self.poison, start, end)
            if chance < world.hang and not poisoned and not self._holds(self.fat, start, end):
                self._at(time, WorkerLost(grant.worker, "timeout", ((start, end),)))
                time += 5 * world.range_s
            elif poisoned or chance < world.hang + world.flake:
                self._done(grant, first, start - 1, since, time)
                self._at(time, RangeFailed(grant.worker, grant.grant, start, end, "mapper", "ValueError"))
                first, since = end + 1, time
        else:
            self._done(grant, first, grant.end, since, time)
        if draw() < world.gone:
            self._at(self.now + draw() * (time - self.now), WorkerLost(grant.worker, "gone"))
        if draw() < world.wrong:
            self._at(time, self._wrong_answer(grant))
        self._free_at[grant.worker] = time

    def _runs_out(self, start: int, end: int) -> bool:
        memory = self.world.memory
        return (memory is not None and end - start + 1 > memory) or self._holds(self.fat, start, end)

    def _wrong_answer(self, grant: Grant) -> Event:
        """Of a grant that never was, of items beyond it, of part of a range, or backwards."""
        end = min(grant.end + grant.size, self.settings.length - 1)
        start, number = grant.start, grant.grant
        wrong = [
            (number + 10**9, start, grant.end),
            (number, start, end + (end == grant.end)),
            (number, start + 1, start) if grant.size == 1 else (number, start + 1, grant.end),
            (number, grant.end + 1, start),
        ]
        number, start, end = wrong[self.random.randrange(len(wrong))]
        if self.random.random() < 0.5:
            return RangeFailed(grant.worker, number, start, end, "mapper", "wrong")
        return RangesDone(grant.worker, number, start, end, f"wrong{next(self._order)}", 0.0, 1)

    def _holds(self, bad: set[int], start: int, end: int) -> bool:
        if start == end:
            return start in bad
        return not bad.isdisjoint(range(start, end + 1))

    def _held(self, grant: Grant, start: int, end: int) -> tuple[tuple[int, int], ...]:
        """Mostly the range being mapped; now and then the next one is being read already, or nobody knows."""
        chance = self.random.random()
        if chance < 0.1 and not self._holds(self.killers, start, end):
            return ()
        if chance < 0.3 and end < grant.end:
            return (start, end), (end + 1, min(end + grant.size, grant.end))
        return ((start, end),)

    def _done(self, grant: Grant, start: int, end: int, since: float, time: float) -> None:
        if start > end:
            return
        nonce = f"{next(self._order):x}"
        ranges = -(-(end - start + 1) // grant.size)
        seconds = max(time - since, 0.0)
        done = RangesDone(grant.worker, grant.grant, start, end, nonce, seconds, ranges)
        self._at(time, done)
        if self.random.random() < self.world.double:
            self._at(time + self.random.random() * 10, done)
