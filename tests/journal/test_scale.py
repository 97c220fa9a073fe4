"""Rows are per run, not per range; memory does not grow with what is streamed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from skybatch.journal import Changes, Journal, Run, Segment
from skybatch.journal.journal import DROP_SEGMENT
from tests.journal.support import new_journal


def _won(starts: range, count: int) -> Changes:
    """A run of `count` items at each start."""
    runs = [Run(start=s, end=s + count - 1, size=10, state="won", attempt=1, nonce=f"{s}") for s in starts]
    segments = [
        Segment(nonce=f"{s}", start=s, end=s + count - 1, epoch=1, worker="w", info={"files": [f"{s}", count]})
        for s in starts
    ]
    return Changes(won=runs, segments=segments)


@pytest.mark.full
def test_a_hundred_thousand_runs_that_cannot_merge_are_streamed_in_constant_memory(tmp_path: Path) -> None:
    with new_journal(tmp_path / "journal.db", length=100_000_000) as journal:
        journal.commit(_won(range(0, 100_000_000, 1000), 10))
    with Journal.open(tmp_path / "journal.db") as journal:
        tracemalloc.start()
        count = sum(1 for _ in journal.winners())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == sum(1 for _ in journal.runs()) == 100_000
        assert peak < 10_000_000
        assert journal.counts().ranges == 10_000_000


def test_a_million_ranges_won_in_long_grants_are_few_rows(tmp_path: Path) -> None:
    with new_journal(tmp_path / "journal.db", length=10_000_000) as journal:
        for first in range(0, 10_000_000, 1_000_000):
            journal.commit(_won(range(first, first + 1_000_000, 50_000), 50_000))
        assert journal.counts().won_ranges == 1_000_000
        assert sum(1 for _ in journal.runs()) == 200
    assert (tmp_path / "journal.db").stat().st_size < 200_000


def test_ten_million_pending_ranges_are_no_rows_and_the_view_is_lazy(tmp_path: Path) -> None:
    with new_journal(tmp_path / "journal.db", length=100_000_000) as journal:
        first = journal._all("SELECT start, end, state FROM ranges LIMIT 2")
        assert first == [(0, 9, "pending"), (10, 19, "pending")]
    assert (tmp_path / "journal.db").stat().st_size < 100_000


def test_whether_a_segment_still_holds_a_winner_is_looked_up_and_not_searched_for(tmp_path: Path) -> None:
    with new_journal(tmp_path / "journal.db", length=1000) as journal:
        plan = journal._all(f"EXPLAIN QUERY PLAN {DROP_SEGMENT}", ("n",))
        assert {row[-1] for row in plan if "runs" in row[-1]} == {
            "SEARCH runs USING COVERING INDEX runs_by_nonce (nonce=?)"
        }
