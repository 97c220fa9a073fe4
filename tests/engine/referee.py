"""A small trusted model of one job, item by item, that objects to every wrong decision."""

from __future__ import annotations

from itertools import pairwise

from skybatch.engine.events import (
    Broken,
    Dead,
    Decision,
    EndGrant,
    Event,
    Finished,
    Fits,
    Grant,
    Late,
    OverBudget,
    RangeFailed,
    Retry,
    Settings,
    Split,
    StorageDown,
    Unit,
    Won,
    WorkerLost,
    WorkerReady,
)

WON, DEAD = 1, 2
UNCHARGED = {"suspected", "returned"}


class Referee:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 0.0
        self.decisions = 0
        self.broken: Broken | None = None
        self.stopped = False  # for whatever reason
        self.fits = settings.fits
        self.finished = False
        self.state = bytearray(settings.length)  # per item: 0, WON or DEAD
        self.holder = [0] * settings.length  # per item: the grant it is in, or 0
        self.second: dict[int, int] = {}  # items that are in a second grant too
        self.sizes: dict[int, int] = {}  # of all grants there ever were
        self.storage_failures = self.deaths = 0  # since something was last won
        self.open: dict[int, Grant] = {}
        self.in_hand: dict[int, set[int]] = {}  # worker -> its grants
        self.units: dict[tuple[int, int], Unit] = {}  # live ranges with a history
        self.retired: set[tuple[int, int]] = set()

    def event(self, event: Event, now: float) -> None:
        """Before the scheduler is told."""
        assert now >= self.now
        self.now = now
        if isinstance(event, WorkerReady):
            self.in_hand.setdefault(event.worker, set())
        elif isinstance(event, RangeFailed):
            if (event.start, event.end) in self._ranges(event.grant):
                self._let_go(event.grant, event.start, event.end)
        elif isinstance(event, WorkerLost):
            self.storage_failures += event.reason == "storage"
            self.deaths += event.reason not in ("gone", "preempted", "storage")
            for number in self.in_hand.pop(event.worker, ()):
                self._let_go(number, self.open[number].start, self.open[number].end)

    def _ranges(self, number: int) -> set[tuple[int, int]]:
        grant = self.open.get(number)
        if grant is None:
            return set()
        lows = range(grant.start, grant.end + 1, grant.size)
        return {(low, min(low + grant.size - 1, grant.end)) for low in lows}

    def check(self, decisions: list[Decision]) -> None:
        """After the scheduler answered."""
        self.decisions += len(decisions)
        for decision in decisions:
            assert not self.finished or isinstance(decision, Late | EndGrant), "work after Finished"
            check = getattr(self, "_" + type(decision).__name__.lower(), None)
            if check is not None:
                check(decision)

    def _grant(self, grant: Grant) -> None:
        start, end, size = grant.start, grant.end, grant.size
        assert not self.stopped
        assert 0 <= start <= end < self.settings.length
        self.sizes[grant.grant] = size
        if grant.copy_of is not None:
            self._check_copy(grant)
        else:
            assert self.state.count(0, start, end + 1) == end + 1 - start, "granted what is won or dead"
            if size == 1 and start == end:
                assert not self.holder[start], "granted what is in somebody's hands"
            else:
                assert not any(self.holder[start : end + 1]), "granted what is in somebody's hands"
            self.holder[start : end + 1] = [grant.grant] * (end + 1 - start)
            self._check_history(grant)
        grants = self.in_hand[grant.worker]
        grants.add(grant.grant)
        assert len(grants) <= self.settings.depth
        assert len(grants) == 1 or not any(self.open[number].isolated for number in grants - {grant.grant})
        assert not grant.isolated or len(grants) == 1
        assert grant.grant not in self.open
        self.open[grant.grant] = grant

    def _check_copy(self, grant: Grant) -> None:
        assert self.settings.speculate
        assert grant.copy_of is not None and grant.worker not in (self.open[grant.copy_of].worker,)
        first = self.open[grant.copy_of]
        assert (grant.size, grant.attempt, grant.isolated) == (first.size, first.attempt, first.isolated)
        for item in range(grant.start, grant.end + 1):
            assert not self.state[item], "a copy of what is won or dead"
            assert self.holder[item] == grant.copy_of and item not in self.second, "a third copy"
            self.second[item] = grant.grant

    def _check_history(self, grant: Grant) -> None:
        unit = self.units.get((grant.start, grant.end))
        if unit is not None:
            assert grant.size == grant.end - grant.start + 1
            assert grant.attempt == unit.attempt + 1
            assert grant.isolated == unit.isolated
            assert self.now >= unit.not_before
            return
        batch_size = self.settings.batch_size
        assert (grant.attempt, grant.isolated) == (1, False)
        assert grant.size == batch_size or (grant.size == self.fits and grant.end < grant.start + batch_size)
        assert grant.start % batch_size == 0
        assert grant.end + 1 == self.settings.length or (grant.end + 1) % batch_size == 0
        if self.units or self.retired:
            for low in range(grant.start, grant.end + 1, batch_size):
                high = min(low + batch_size, self.settings.length) - 1
                assert (low, high) not in self.units and (low, high) not in self.retired

    def _won(self, won: Won) -> None:
        length = won.end + 1 - won.start
        assert self.state.count(0, won.start, won.end + 1) == length, "winners overlap"
        self.state[won.start : won.end + 1] = bytes([WON]) * length
        self.storage_failures = self.deaths = 0
        assert (won.start, won.end) not in self.retired, "a split range won"
        if self.units:
            size = self.sizes[won.grant]
            for low in range(won.start, won.end + 1, size):
                self.units.pop((low, min(low + size - 1, won.end)), None)

    def _retry(self, retry: Retry) -> None:
        unit = retry.unit
        before = self.units.get((unit.start, unit.end))
        attempt = before.attempt if before else 0
        assert unit.attempt == attempt + (retry.kind not in UNCHARGED)
        self._waits(unit)

    def _waits(self, unit: Unit) -> None:
        assert (unit.start, unit.end) not in self.retired
        assert not any(self.state[unit.start : unit.end + 1])
        self.units[unit.start, unit.end] = unit

    def _split(self, split: Split) -> None:
        before = self.units.pop((split.start, split.end), None)
        assert split.attempt == (before.attempt if before else 0) + 1
        assert len(split.parts) > 1
        assert (split.parts[0].start, split.parts[-1].end) == (split.start, split.end)
        assert all(one.end + 1 == other.start for one, other in pairwise(split.parts))
        self.retired.add((split.start, split.end))
        for part in split.parts:
            assert part.attempt == 0 and part.start <= part.end
            self._waits(part)

    def _dead(self, dead: Dead) -> None:
        assert dead.start == dead.end
        assert self.state[dead.start] == 0
        before = self.units.pop((dead.start, dead.end), None)
        assert dead.attempt == (before.attempt if before else 0) + 1
        self.state[dead.start] = DEAD

    def _endgrant(self, ended: EndGrant) -> None:
        grant = self.open.pop(ended.grant)
        self.in_hand.get(grant.worker, set()).discard(ended.grant)
        self._let_go(ended.grant, grant.start, grant.end)

    def _let_go(self, number: int, start: int, end: int) -> None:
        holder, second = self.holder, self.second
        for item in range(start, end + 1):
            if holder[item] == number:
                holder[item] = second.pop(item, 0)
            elif second and second.get(item) == number:
                del second[item]

    def _fits(self, fits: Fits) -> None:
        assert 0 < fits.items < (self.fits or self.settings.batch_size)
        self.fits = fits.items

    def _overbudget(self, over: OverBudget) -> None:
        assert not self.stopped and self.settings.max_dead is not None
        assert self.state.count(DEAD) == over.dead == self.settings.max_dead + 1
        self.stopped = True

    def _storagedown(self, _: StorageDown) -> None:
        assert not self.stopped and self.storage_failures > self.settings.budgets["storage"]
        self.stopped = True

    def _broken(self, broken: Broken) -> None:
        assert self.broken is None
        assert WON not in self.state or (broken.signature == "lost" and self.deaths > self.settings.budgets["lost"])
        self.broken, self.stopped = broken, True

    def _finished(self, _: Finished) -> None:
        assert 0 not in self.state, "finished before every item ended"
        self.finished = True
