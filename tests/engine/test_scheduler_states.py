"""Whatever workers do, in whatever order, the scheduler agrees with the model and the job can be finished."""

from __future__ import annotations

from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skybatch.engine.events import (
    BUDGETS,
    Drain,
    Event,
    Grant,
    RangeFailed,
    RangesDone,
    Settings,
    Tick,
    Unit,
    WorkerLost,
    WorkerReady,
)
from skybatch.engine.scheduler import Scheduler
from tests.engine.referee import DEAD, WON, Referee

Interval = tuple[int, int]


def ranges_of(grant: Grant) -> list[Interval]:
    return [
        (low, min(low + grant.size - 1, grant.end)) for low in range(grant.start, grant.end + 1, grant.size)
    ]


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        length=st.integers(0, 40),
        batch_size=st.integers(1, 6),
        budgets=st.fixed_dictionaries({name: st.integers(0, 2) for name in BUDGETS}),
        depth=st.integers(1, 3),
        max_dead=st.none() | st.integers(0, 3),
        speculate=st.booleans(),
        won=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 8)), max_size=3),
    )
    def start(self, won: list[Interval], **options: Any) -> None:
        length = options["length"]
        self.settings = Settings(**options)
        self.referee = Referee(self.settings)
        restored = [(low, low + more) for low, more in won if low + more < length]
        self.scheduler = Scheduler(self.settings, won=restored)
        for low, high in restored:
            self.referee.state[low : high + 1] = bytes([WON]) * (high + 1 - low)
        self._expect_left_over_parts()
        self.grants: list[Grant] = []  # all that ever were
        self.told: list[Event] = []
        self.workers: set[int] = set()
        self.now = 0.0

    def _expect_left_over_parts(self) -> None:
        """What is left of ranges that are won in part is granted apart."""
        state, size, length = self.referee.state, self.settings.batch_size, self.settings.length
        for low in range(0, length, size):
            high = min(low + size, length)
            if state.count(0, low, high) == high - low:
                continue
            start = None
            for item in range(low, high + 1):
                free = item < high and not state[item]
                if free and start is None:
                    start = item
                elif not free and start is not None:
                    self.referee.units[start, item - 1] = Unit(start, item - 1, 0)
                    start = None

    def tell(self, event: Event) -> None:
        self.told.append(event)
        self.referee.event(event, self.now)
        decisions = self.scheduler.handle(event, self.now)
        self.referee.check(decisions)
        self.grants += [decision for decision in decisions if isinstance(decision, Grant)]

    @rule(worker=st.integers(1, 4))
    def ready(self, worker: int) -> None:
        self.workers.add(worker)
        self.tell(WorkerReady(worker))

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.001, 0.1, 3.0]))
    def done(self, data: st.DataObject, seconds: float) -> None:
        """Of any grant there ever was, late and double ones too."""
        grant = data.draw(st.sampled_from(self.grants))
        ranges = ranges_of(grant)
        first = data.draw(st.integers(0, len(ranges) - 1))
        last = data.draw(st.integers(first, len(ranges) - 1))
        stretch = ranges[first][0], ranges[last][1]
        nonce = str(len(self.told))
        self.tell(
            RangesDone(
                grant.worker, grant.grant, *stretch, nonce, seconds * (last - first + 1), last - first + 1
            )
        )

    @precondition(lambda self: self.referee.open)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.001]))
    def whole_grant_done(self, data: st.DataObject, seconds: float) -> None:
        grant = self.referee.open[data.draw(st.sampled_from(sorted(self.referee.open)))]
        self._answer_whole(grant, seconds)

    def _answer_whole(self, grant: Grant, seconds: float = 0.0) -> None:
        ranges = len(ranges_of(grant))
        nonce = str(len(self.told))
        self.tell(
            RangesDone(grant.worker, grant.grant, grant.start, grant.end, nonce, seconds * ranges, ranges)
        )

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), kind=st.sampled_from(["mapper", "memory"]), signature=st.sampled_from("ab"))
    def failed(self, data: st.DataObject, kind: str, signature: str) -> None:
        numbers = sorted(self.referee.open)
        recent = [self.referee.open[number] for number in numbers] or self.grants
        grant = data.draw(st.sampled_from(recent) | st.sampled_from(self.grants))
        start, end = data.draw(st.sampled_from(ranges_of(grant)))
        self.tell(RangeFailed(grant.worker, grant.grant, start, end, kind, signature))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), reason=st.sampled_from(["exit", "timeout", "memory", "storage", "preempted", "gone"]))
    def lost(self, data: st.DataObject, reason: str) -> None:
        worker = data.draw(st.sampled_from(sorted(self.workers)))
        numbers = sorted(self.referee.in_hand.get(worker, ()))
        in_hand = [stretch for number in numbers for stretch in ranges_of(self.referee.open[number])]
        held = data.draw(st.lists(st.sampled_from(in_hand), max_size=3)) if in_hand else []
        self.workers.discard(worker)
        self.tell(WorkerLost(worker, reason, tuple(held)))

    @rule(later=st.sampled_from([0.0, 0.05, 0.3, 10.0]))
    def tick(self, later: float) -> None:
        self.now += later
        self.tell(Tick())

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def told_again(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.told))
        if isinstance(event, RangesDone | RangeFailed):
            self.tell(event)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        if hasattr(self, "scheduler"):
            state = self.referee.state
            assert self.scheduler.won_items == state.count(WON)
            assert self.scheduler.dead_items == state.count(DEAD)
            assert self.scheduler.finished == (0 not in state)

    def teardown(self) -> None:
        """From wherever it got to, sound workers finish the job; nothing is granted after a stop."""
        if not hasattr(self, "scheduler"):
            return
        if self.referee.stopped:
            self.tell(WorkerReady(99))
            self.tell(Drain())
            return
        self.tell(WorkerReady(99))
        for _ in range(10_000):
            if self.scheduler.finished:
                assert self.referee.finished
                return
            if self.referee.open:
                self._answer_whole(self.referee.open[min(self.referee.open)])
            else:
                assert self.scheduler.next_wake is not None, "nothing in hand, nothing to wait for"
                self.now = self.scheduler.next_wake
                self.tell(Tick())
        raise AssertionError("the job does not end")


TestSchedulerStates = SchedulerMachine.TestCase
TestSchedulerStates.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
