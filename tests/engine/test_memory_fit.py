"""The size that fits into memory, as it is learnt from ranges that ran out of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skybatch.engine.events import Fits, Grant, RangeFailed, RangesDone, Settings, WorkerReady
from skybatch.engine.memory_fit import MemoryFit
from skybatch.engine.scheduler import Scheduler


def test_one_range_that_runs_out_says_nothing_of_others() -> None:
    fit = MemoryFit(32)
    for start, end in [(0, 31), (0, 15), (0, 7), (0, 3), (0, 1), (0, 0)]:
        assert not fit.ran_out(start, end)
    assert fit.size is None


def test_a_second_one_has_the_largest_part_that_worked_remembered() -> None:
    fit = MemoryFit(32)
    fit.ran_out(0, 31)
    fit.ran_out(0, 15)
    fit.worked(0, 7)
    fit.worked(64, 95)  # no part of what ran out
    assert fit.ran_out(32, 63) and fit.size == 8


def test_or_half_of_it_while_nothing_has_worked() -> None:
    fit = MemoryFit(32)
    fit.ran_out(0, 31)
    assert fit.ran_out(32, 63) and fit.size == 16
    assert not fit.ran_out(64, 79)
    assert fit.ran_out(96, 111) and fit.size == 8


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8), st.booleans())))
def test_the_size_only_shrinks_and_never_to_nothing(told: list[tuple[int, int, bool]]) -> None:
    fit, before = MemoryFit(8), 9
    for place, items, ran_out in told:
        stretch = place * 8, place * 8 + items - 1
        if not ran_out:
            fit.worked(*stretch)
        elif fit.ran_out(*stretch):
            assert fit.size is not None and 0 < fit.size < before
            before = fit.size


def mapped_in_memory_for(limit: int, *, length: int, batch_size: int) -> tuple[int, list[int], Scheduler]:
    """How often one worker ran out of memory, the sizes in which it mapped the second half, and the scheduler."""
    scheduler = Scheduler(Settings(length=length, batch_size=batch_size, depth=1))
    ran_out, sizes, now = 0, [], 0.0
    decisions = scheduler.handle(WorkerReady(1), now)
    while not scheduler.finished:
        (grant,) = [decision for decision in decisions if isinstance(decision, Grant)]
        decisions = []
        for low in range(grant.start, grant.end + 1, grant.size):
            high, now = min(low + grant.size - 1, grant.end), now + 100
            if high - low + 1 > limit:
                ran_out += 1
                decisions += scheduler.handle(RangeFailed(1, grant.grant, low, high, "memory", "MemoryError"), now)
            else:
                sizes += [high - low + 1] if low >= length // 2 else []
                decisions += scheduler.handle(RangesDone(1, grant.grant, low, high, f"n{low}", 1.0, 1), now)
    return ran_out, sizes, scheduler


@given(st.integers(1, 64))
def test_a_job_runs_out_of_memory_a_few_times_and_then_no_more(limit: int) -> None:
    ran_out, sizes, scheduler = mapped_in_memory_for(limit, length=6400, batch_size=64)
    assert scheduler.won_items == 6400
    assert ran_out <= 3 * 63  # the ranges that were begun before anything had worked, halved down to single items
    assert max(sizes) <= limit


def test_what_fits_is_told_once_for_the_journal() -> None:
    scheduler = Scheduler(Settings(length=64, batch_size=8, depth=1))
    told = [*scheduler.handle(WorkerReady(1), 0.0), *scheduler.handle(WorkerReady(2), 0.0)]
    for grant in [decision for decision in told if isinstance(decision, Grant)]:
        event = RangeFailed(grant.worker, grant.grant, grant.start, grant.end, "memory", "MemoryError")
        told += scheduler.handle(event, 0.0)
    assert [decision.items for decision in told if isinstance(decision, Fits)] == [4]


def test_what_fits_is_remembered_by_the_next_engine() -> None:
    scheduler = Scheduler(Settings(length=64, batch_size=8, fits=3), won=[(0, 7)])
    (grant, *_) = [one for one in scheduler.handle(WorkerReady(1), 0.0) if isinstance(one, Grant)]
    assert (grant.start, grant.end, grant.size) == (8, 15, 3)
