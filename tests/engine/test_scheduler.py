"""The scheduler's rules, one by one."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from skybatch.engine.events import (
    Broken,
    Dead,
    Decision,
    Drain,
    EndGrant,
    Finished,
    Grant,
    Late,
    RangeFailed,
    RangesDone,
    Retry,
    Settings,
    Split,
    Tick,
    Unit,
    Won,
    WorkerLost,
    WorkerReady,
)
from skybatch.engine.retries import budgets
from skybatch.engine.scheduler import Scheduler

Kind = TypeVar("Kind")


class Table:
    """A scheduler and what it has decided so far, with short ways to answer its grants."""

    def __init__(self, *, workers: int = 1, sound: bool = True, **options: Any) -> None:
        restored = {name: options.pop(name) for name in ("won", "dead", "units") if name in options}
        self.scheduler = Scheduler(Settings(**options), **restored)
        self.now = 0.0
        self.decisions: list[Decision] = []
        self.last: list[Decision] = []
        if sound:
            self.scheduler._health.succeeded()
        for worker in range(1, workers + 1):
            self.tell(WorkerReady(worker))

    def tell(self, event: Any) -> list[Decision]:
        self.last = self.scheduler.handle(event, self.now)
        self.decisions += self.last
        return self.last

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [decision for decision in self.decisions if isinstance(decision, kind)]

    def new(self, kind: type[Kind]) -> list[Kind]:
        return [decision for decision in self.last if isinstance(decision, kind)]

    def grant(self, start: int) -> Grant:
        """The latest grant that holds the item."""
        return [grant for grant in self.all(Grant) if grant.start <= start <= grant.end][-1]

    def done(self, grant: Grant, *, seconds: float = 1.0, nonce: str = "n") -> list[Decision]:
        """Every range of the grant, each in `seconds`."""
        ranges = -(-(grant.end - grant.start + 1) // grant.size)
        return self.tell(
            RangesDone(grant.worker, grant.grant, grant.start, grant.end, nonce, seconds * ranges, ranges)
        )

    def fail(self, start: int, kind: str = "mapper", signature: str = "E") -> list[Decision]:
        """The one range of the latest grant with the item."""
        grant = self.grant(start)
        return self.tell(RangeFailed(grant.worker, grant.grant, grant.start, grant.end, kind, signature))

    def wake(self) -> list[Decision]:
        assert self.scheduler.next_wake is not None
        self.now = self.scheduler.next_wake
        return self.tell(Tick())


# Grants


def test_the_first_grants_are_single_ranges_in_order_two_for_each_worker() -> None:
    table = Table(length=100, batch_size=4, workers=2)
    assert [(grant.worker, grant.start, grant.end) for grant in table.all(Grant)] == [
        (1, 0, 3),
        (1, 4, 7),
        (2, 8, 11),
        (2, 12, 15),
    ]


def test_a_grant_grows_to_half_a_second_of_work_at_most_64_fold() -> None:
    table = Table(length=10_000_000, batch_size=1)
    table.done(table.grant(0), seconds=0.0001)
    assert [grant.end - grant.start + 1 for grant in table.new(Grant)] == [64]
    table.done(table.grant(1), seconds=0.0001)
    assert [grant.end - grant.start + 1 for grant in table.new(Grant)] == [4096]
    table.done(table.grant(2), seconds=0.0001)
    assert [grant.end - grant.start + 1 for grant in table.new(Grant)] == [5000]


def test_expensive_ranges_are_granted_one_by_one() -> None:
    table = Table(length=100, batch_size=2)
    table.done(table.grant(0), seconds=0.4)
    assert [(grant.start, grant.end) for grant in table.new(Grant)] == [(4, 5)]


def test_grants_shrink_towards_the_end_but_not_below_what_is_worth_a_grant() -> None:
    table = Table(length=1000, batch_size=1, workers=2)
    lengths = []
    while not table.all(Finished):
        grant = next(g for g in table.all(Grant) if EndGrant(g.grant) not in table.decisions)
        lengths.append(grant.end - grant.start + 1)
        table.done(grant, seconds=0.002)
    assert max(lengths) <= 250
    assert lengths[-4:-1] == [10, 10, 10]
    assert sum(lengths) == 1000


def test_the_last_slow_ranges_wait_for_an_idle_worker() -> None:
    table = Table(length=6, batch_size=1, workers=2)
    assert len(table.all(Grant)) == 3  # two for the first, which came alone; one for the second
    table.done(table.grant(2))
    assert [(grant.worker, grant.start) for grant in table.new(Grant)] == [(2, 3)]


def test_the_last_range_may_be_shorter() -> None:
    table = Table(length=5, batch_size=4)
    table.done(table.grant(0))
    assert [(grant.start, grant.end, grant.size) for grant in table.all(Grant)][-1] == (4, 4, 4)
    table.done(table.grant(4))
    assert table.new(Finished)


def test_an_empty_job_is_finished_at_the_first_event() -> None:
    scheduler = Scheduler(Settings(length=0, batch_size=4))
    assert scheduler.finished
    assert scheduler.handle(Tick(), 0.0) == [Finished()]
    assert scheduler.handle(Tick(), 1.0) == []


def test_after_drain_nothing_is_granted_and_answers_count() -> None:
    table = Table(length=100, batch_size=1)
    table.tell(Drain())
    table.fail(0)
    assert table.scheduler.next_wake is None
    table.done(table.grant(1))
    assert table.new(Won)
    assert not table.new(Grant)
    assert table.scheduler.granted() == []


# Answers


def many_in_one_grant(**options: Any) -> tuple[Table, Grant]:
    """A worker with one grant of 64 ranges of 2 items, from item 4."""
    table = Table(length=1000, batch_size=2, depth=1, **options)
    table.done(table.grant(0), seconds=0.0001)
    return table, table.new(Grant)[0]


def part(grant: Grant, start: int, end: int, nonce: str = "n") -> RangesDone:
    return RangesDone(grant.worker, grant.grant, start, end, nonce, 0.1, (end - start + 1) // 2)


def test_a_grant_may_be_answered_in_parts_and_ends_with_the_last() -> None:
    table, grant = many_in_one_grant()
    table.tell(part(grant, grant.start, grant.start + 5, "a"))
    assert not table.new(EndGrant)
    assert (grant.start + 6, grant.end) in table.scheduler.granted()
    table.tell(part(grant, grant.start + 6, grant.end, "b"))
    assert table.new(EndGrant) == [EndGrant(grant.grant)]


def test_an_answer_told_twice_is_late() -> None:
    table, grant = many_in_one_grant()
    first, last = grant.start, grant.start + 3
    assert table.tell(part(grant, first, last, "a"))[0] == Won(first, last, "a", 1, grant.grant)
    assert table.tell(part(grant, first, last, "a")) == [Late(first, last, "a")]
    table.tell(part(grant, first, last + 4, "b"))  # overlaps what was answered
    assert table.new(Won) == [Won(last + 1, last + 4, "b", 1, grant.grant)]
    assert table.new(Late) == [Late(first, last, "b")]


def test_an_answer_that_is_no_stretch_of_whole_ranges_is_late() -> None:
    table, grant = many_in_one_grant()
    start = grant.start
    assert table.tell(part(grant, start, start + 2)) == [Late(start, start + 2, "n")]
    assert table.tell(part(grant, 900, 901)) == [Late(900, 901, "n")]


def test_the_late_answer_of_a_lost_worker_wins_where_nobody_has_won() -> None:
    table = Table(length=100, batch_size=2, workers=2)
    mine, other = table.grant(0), table.grant(2)
    table.tell(WorkerLost(1, "gone"))
    table.tell(WorkerReady(3))
    again = table.grant(0)
    assert again.worker == 3
    table.done(mine, nonce="late")
    assert table.new(Won) == [Won(0, 1, "late", 1, mine.grant)]
    table.done(again, nonce="again")
    assert table.new(Late) == [Late(0, 1, "again")]
    assert table.new(EndGrant) == [EndGrant(again.grant)]
    table.done(other)
    assert table.new(Won)


def test_a_late_answer_for_a_range_that_was_split_is_late() -> None:
    table = Table(length=100, batch_size=2, workers=2, budgets=budgets(0))
    mine = table.grant(0)
    table.tell(WorkerLost(1, "gone"))
    table.tell(WorkerReady(3))
    table.fail(0)
    assert table.new(Split)
    assert table.done(mine, nonce="late") == [Late(0, 1, "late")]


def test_a_late_answer_withdraws_a_waiting_retry() -> None:
    table = Table(length=100, batch_size=2, workers=2)
    mine = table.grant(0)
    table.tell(WorkerLost(1, "timeout", ((0, 1),)))
    assert table.new(Retry)[0].kind == "timeout"
    table.done(mine, nonce="late")
    assert table.new(Won) == [Won(0, 1, "late", 1, mine.grant)]
    grants = len(table.all(Grant))
    table.now = 100.0
    table.tell(Tick())
    assert all(grant.start > 1 for grant in table.all(Grant)[grants:])


# Failures


def test_a_failed_range_is_tried_again_after_a_doubling_wait_then_split() -> None:
    table = Table(length=1000, batch_size=4)
    waits = []
    for attempt in range(1, 4):
        table.fail(0, signature=f"E{attempt}")
        (retry,) = table.new(Retry)
        assert (retry.unit.start, retry.unit.end, retry.unit.attempt) == (0, 3, attempt)
        waits.append(round(retry.unit.not_before - table.now, 6))
        table.done(table.grant(table.all(Grant)[-1].start))  # make room
        table.wake()
        for grant in table.all(Grant):
            if EndGrant(grant.grant) not in table.decisions and grant.start != 0:
                table.done(grant)
        assert table.grant(0).attempt == attempt + 1
    assert waits == [0.1, 0.2, 0.4]
    table.fail(0)
    (split,) = table.new(Split)
    assert [(part.start, part.end, part.attempt, part.tries_left) for part in split.parts] == [
        (item, item, 0, None) for item in range(4)
    ]


def test_a_range_that_fails_twice_alike_is_not_tried_whole_again() -> None:
    table = Table(length=1000, batch_size=50)
    table.fail(0)
    table.done(table.grant(50))
    table.wake()
    for grant in table.all(Grant):
        if EndGrant(grant.grant) not in table.decisions and grant.start != 0:
            table.done(grant)
    table.fail(0)
    (split,) = table.new(Split)
    assert [(part.start, part.end) for part in split.parts] == [(low, min(low + 6, 49)) for low in range(0, 50, 7)]


def test_a_poison_item_ends_alone_and_the_others_win() -> None:
    table = Table(length=8, batch_size=8, depth=1)
    while not table.all(Finished):
        ended = {decision.grant for decision in table.all(EndGrant)}
        waiting = [grant for grant in table.all(Grant) if grant.grant not in ended]
        if not waiting:
            table.wake()
        elif waiting[0].start <= 5 <= waiting[0].end:
            table.fail(5)
        else:
            table.done(waiting[0])
    assert [(dead.start, dead.end, dead.attempt) for dead in table.all(Dead)] == [(5, 5, 4)]
    assert table.scheduler.won_items == 7


def test_out_of_memory_splits_at_once() -> None:
    table = Table(length=100, batch_size=4)
    table.fail(0, "memory")
    assert [(half.start, half.end) for half in table.new(Split)[0].parts] == [(0, 1), (2, 3)]
    assert not table.new(Retry)


def test_a_failure_of_what_was_answered_changes_nothing() -> None:
    table = Table(length=100, batch_size=4)
    grant = table.grant(0)
    table.done(grant)
    failed = RangeFailed(grant.worker, grant.grant, grant.start, grant.end, "mapper", "E")
    assert table.tell(failed) == []


def test_an_answer_after_the_failure_of_the_same_range_is_late() -> None:
    table, grant = many_in_one_grant()
    failed = grant.start, grant.start + 1
    table.tell(RangeFailed(grant.worker, grant.grant, *failed, "mapper", "E"))
    table.tell(part(grant, grant.start, grant.start + 3))
    assert table.new(Late) == [Late(*failed, "n")]
    assert [(won.start, won.end) for won in table.new(Won)] == [(grant.start + 2, grant.start + 3)]


# Lost workers


def test_a_death_is_charged_to_the_only_range_in_hand() -> None:
    table, grant = many_in_one_grant()
    table.tell(part(grant, grant.start, grant.start + 3))
    held = (grant.start + 4, grant.start + 5)
    table.tell(WorkerLost(1, "exit", (held, held)))
    assert [
        (retry.unit.start, retry.unit.end, retry.unit.attempt, retry.kind) for retry in table.new(Retry)
    ] == [(*held, 1, "lost")]
    assert EndGrant(grant.grant) in table.last
    table.tell(WorkerReady(2))
    (again,) = table.new(Grant)
    assert (again.start, again.attempt) == (held[1] + 1, 1)  # uncharged; the charged one waits


def test_a_death_with_several_in_hand_charges_nobody_and_isolates_each() -> None:
    table = Table(length=100, batch_size=2)
    table.tell(WorkerLost(1, "exit", ((0, 1), (2, 3))))
    assert [(retry.kind, retry.unit.attempt, retry.unit.isolated) for retry in table.new(Retry)] == [
        ("suspected", 0, True),
        ("suspected", 0, True),
    ]
    table.tell(WorkerReady(2))
    (alone,) = table.new(Grant)
    assert (alone.start, alone.attempt, alone.isolated) == (0, 1, True)
    table.tell(WorkerLost(2, "exit", ((0, 1),)))
    assert [(retry.kind, retry.unit.attempt) for retry in table.new(Retry)] == [("lost", 1)]


def test_while_one_must_run_alone_no_busy_worker_gets_more() -> None:
    table = Table(length=100, batch_size=2, workers=2)
    table.tell(WorkerLost(1, "exit", ((0, 1), (2, 3))))
    first, second = table.grant(4), table.grant(6)
    assert not table.done(first)[2:]
    table.done(second)
    (alone,) = table.new(Grant)
    assert (alone.worker, alone.start, alone.isolated) == (2, 0, True)


def test_a_timeout_is_charged_to_the_range_being_mapped() -> None:
    table = Table(length=100, batch_size=2)
    table.tell(WorkerLost(1, "timeout", ((0, 1), (2, 3))))
    assert [(retry.kind, retry.unit.start, retry.unit.attempt) for retry in table.new(Retry)] == [
        ("timeout", 0, 1)
    ]
    table.tell(WorkerReady(2))
    assert table.new(Grant)[0].start == 2


def test_a_worker_taken_away_charges_nobody() -> None:
    table = Table(length=100, batch_size=2)
    assert table.tell(WorkerLost(1, "gone", ((0, 1),))) == [EndGrant(1), EndGrant(2)]
    table.tell(WorkerReady(2))
    assert [(grant.start, grant.attempt) for grant in table.new(Grant)] == [(0, 1), (2, 1)]


def test_losses_have_a_budget_of_their_own() -> None:
    table = Table(length=10, batch_size=2, budgets=budgets({"lost": 1, "mapper": 9}), depth=1)
    for worker, kind in [(1, Retry), (2, Split)]:
        table.tell(WorkerLost(worker, "exit", ((0, 1),)))
        assert table.new(kind)
        table.now += 1
        table.tell(WorkerReady(worker + 1))


def test_losses_do_not_use_up_retries() -> None:
    table = Table(length=10, batch_size=2, budgets=budgets({"lost": 3, "mapper": 1}), depth=1)
    for worker in (1, 2):
        table.tell(WorkerLost(worker, "exit", ((0, 1),)))
        table.now += 1
        table.tell(WorkerReady(worker + 1))
    table.fail(0)
    assert [(retry.kind, retry.unit.attempt) for retry in table.new(Retry)] == [("mapper", 3)]


def test_workers_that_keep_dying_with_nothing_in_hand_stop_the_job() -> None:
    table = Table(length=100, batch_size=2)
    for worker in range(1, 20):
        if table.tell(WorkerLost(worker, "exit"))[-1:] and table.new(Broken):
            break
        table.tell(WorkerReady(worker + 1))
    assert worker == 5
    assert not table.tell(WorkerReady(99))


# A broken mapper


def break_it(table: Table, signature: str = "E") -> None:
    """Let everything fail until the job stops."""
    for _ in range(1000):
        if table.all(Broken) or table.all(Finished):
            return
        ended = {decision.grant for decision in table.all(EndGrant)}
        waiting = [grant for grant in table.all(Grant) if grant.grant not in ended]
        if not waiting:
            table.wake()
            continue
        grant = waiting[0]
        table.tell(RangeFailed(grant.worker, grant.grant, grant.start, grant.end, "mapper", signature))


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_mapper_that_fails_on_everything_stops_the_job_early(batch_size: int) -> None:
    table = Table(length=1000 * batch_size, batch_size=batch_size, workers=2, sound=False)
    break_it(table)
    (broken,) = table.all(Broken)
    assert broken.start == broken.end
    assert broken.signature == "E"
    assert not table.all(Dead)
    assert table.now < 1
    assert not table.tell(WorkerReady(9))


@pytest.mark.parametrize(("length", "batch_size"), [(8, 8), (16, 8), (2, 1)])
def test_a_small_job_whose_every_item_fails_stops_too(length: int, batch_size: int) -> None:
    table = Table(length=length, batch_size=batch_size, sound=False)
    break_it(table)
    assert table.all(Broken)


def test_a_single_item_is_no_proof_against_the_mapper() -> None:
    table = Table(length=1, batch_size=8, sound=False)
    break_it(table)
    assert table.all(Dead)
    assert table.all(Finished)


def test_ranges_that_fail_once_each_are_just_tried_again() -> None:
    table = Table(length=40, batch_size=4, sound=False)
    for start in (0, 4, 8, 12):
        table.fail(start)
    table.now = 10.0
    table.tell(Tick())
    assert not table.all(Split)
    assert not table.all(Broken)


def test_a_mapper_that_kills_every_worker_stops_the_job() -> None:
    table = Table(length=1000, batch_size=4, sound=False, depth=1)
    for worker in range(1, 100):
        grants = [grant for grant in table.new(Grant) if grant.worker == worker]
        held = tuple((grant.start, grant.end) for grant in grants)
        table.tell(WorkerLost(worker, "exit", held))
        if table.all(Broken):
            break
        table.now += 1.0
        table.tell(WorkerReady(worker + 1))
    assert worker < 12
    assert table.all(Broken)[0].signature == "lost"


def test_after_one_success_failures_are_the_items_fault() -> None:
    table = Table(length=40, batch_size=4, sound=False, depth=1)
    table.done(table.grant(0))
    break_it(table)
    assert not table.all(Broken)
    assert len(table.all(Dead)) == 36


# Resume


def test_units_are_restored_with_their_history() -> None:
    units = [Unit(4, 7, 2, 5.0), Unit(8, 9, 0, tries_left=1), Unit(10, 11, 0, tries_left=1)]
    table = Table(length=16, batch_size=4, won=[(0, 3)], dead=[(12, 12)], units=units, depth=1)
    assert [(grant.start, grant.end, grant.size, grant.attempt) for grant in table.all(Grant)] == [
        (8, 9, 2, 1)
    ]
    table.fail(8)
    assert table.new(Split)[0].start == 8
    table.now = 5.0
    for grant in list(table.new(Grant)):
        table.done(grant)
    assert table.scheduler.dead_items == 1


def test_what_is_left_of_a_range_is_granted_apart() -> None:
    table = Table(length=14, batch_size=4, won=[(1, 1), (12, 13)], workers=4)
    assert sorted((grant.start, grant.end) for grant in table.all(Grant)) == [(0, 0), (2, 3), (4, 7), (8, 11)]


def test_overlapping_states_are_refused() -> None:
    with pytest.raises(ValueError, match="items 2-2 are held twice"):
        Scheduler(Settings(length=9, batch_size=3), won=[(0, 2)], dead=[(2, 3)])
    with pytest.raises(ValueError, match="items 2-2 are held twice"):
        Scheduler(Settings(length=9, batch_size=3), won=[(0, 2)], units=[Unit(2, 3, 0)])


def test_ten_million_ranges_with_a_hundred_thousand_scattered_winners() -> None:
    won = [(number * 1600, number * 1600 + 15) for number in range(100_000)]
    table = Table(length=160_000_000, batch_size=16, won=won)
    assert table.grant(16).start == 16
    assert table.scheduler.won_items == 1_600_000
    for _ in range(1000):
        table.done(table.all(Grant)[-1], seconds=0.001)
    assert len(table.all(Won)) == 1000
