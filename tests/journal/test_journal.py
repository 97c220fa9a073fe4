"""One writer, all or nothing, winners disjoint."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from skybatch.errors import EpochLost, JournalError, WinnerConflict
from skybatch.journal import Changes, FailureRow, JobRow, Journal, Reader, Run, Segment
from skybatch.journal.journal import FAILURES_KEPT
from tests.journal.support import dead, failure, grant, new_journal, ranges, retrying, won


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_what_is_created_is_read_back(path: Path) -> None:
    job = JobRow(id="a", name="n", created_at=5.0, batch_size=3, code_hash="c", spec_hash="s")
    with Journal.create(path, job, ["x", "y"]) as journal:
        journal.set_planned(7, {"size": 9})
        journal.set_code("d")
        journal.set_output(1, "publishing", {"inode": 4})
        journal.set_output(1, "published")
    with Reader(path) as reader:
        row = reader.job()
        assert (row.id, row.batch_size, row.length, row.code_hash) == ("a", 3, 7, "d")
        assert row.input_fingerprint == {"size": 9}
        assert [(o.path, o.state, o.token) for o in reader.outputs()] == [
            ("x", "open", None),
            ("y", "published", {"inode": 4}),
        ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_journal_is_not_created_again(path: Path) -> None:
    new_journal(path).close()
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        new_journal(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_state_at_rest_has_a_time_and_work_clears_it(path: Path) -> None:
    with new_journal(path) as journal:
        journal.set_state("paused", "disk full")
        assert journal.job().cause == "disk full"
        assert journal.job().finished_at is not None
        journal.set_state("running")
        assert (journal.job().cause, journal.job().finished_at) == (None, None)
        with pytest.raises(JournalError):
            journal.set_state("asleep")
        assert journal.job().state == "running"


def test_a_winner_takes_its_place_out_of_a_longer_retry(path: Path) -> None:
    with new_journal(path) as journal:
        journal.commit(Changes(retrying=[retrying(0, 59)]))
        journal.commit(won(20, 39))
        assert [(r.start, r.end, r.state) for r in journal.runs()] == [
            (0, 19, "retrying"),
            (20, 39, "won"),
            (40, 59, "retrying"),
        ]


@pytest.mark.parametrize(
    "late", [won(0, 9, nonce="late"), won(15, 24, nonce="late"), won(0, 99, nonce="late")]
)
def test_a_second_winner_is_refused_and_changes_nothing(path: Path, late: Changes) -> None:
    with new_journal(path) as journal:
        journal.commit(won(0, 19))
        late.failures.append(failure(0, 9))
        with pytest.raises(WinnerConflict):
            journal.commit(late)
        assert [r.nonce for r in journal.runs()] == ["0-19"]
        assert journal.failures() == []


@pytest.mark.parametrize("state", ["retrying", "dead"])
def test_nothing_takes_a_winner_away(path: Path, state: str) -> None:
    with new_journal(path) as journal:
        journal.commit(won(0, 19))
        with pytest.raises(WinnerConflict):
            journal.commit(Changes(retrying=[Run(start=10, end=19, size=10, state=state, attempt=1)]))


def test_the_schema_itself_refuses_overlapping_runs(path: Path) -> None:
    with new_journal(path) as journal:
        journal.commit(won(20, 39))
        put = "INSERT INTO runs (start, end, size, state, attempt) VALUES (?, ?, 10, 'dead', 1)"
        for start, end in [(30, 49), (10, 29), (0, 99), (39, 39), (20, 20)]:
            with pytest.raises(WinnerConflict), journal._transaction() as sql:
                sql.execute(put, (start, end))
        assert len(list(journal.runs())) == 1


def test_dead_ranges_stay_dead_until_they_are_retried(path: Path) -> None:
    with new_journal(path) as journal:
        journal.commit(Changes(dead=[dead(0, 9)]))
        with pytest.raises(WinnerConflict):
            journal.commit(won(0, 9))
        journal.commit(Changes(retrying=[retrying(0, 9, attempt=0)]))
        journal.commit(won(0, 9))
        assert [r.state for r in journal.runs()] == ["won"]


@pytest.mark.parametrize("late", [won(0, 9), won(0, 99), won(0, 19)])
def test_a_split_range_can_only_be_won_by_its_halves(path: Path, late: Changes) -> None:
    with new_journal(path) as journal:
        journal.commit(Changes(splits=[(0, 9, 2)]))
        with pytest.raises(WinnerConflict):
            journal.commit(late)
        journal.commit(won(0, 4, 5))
        journal.commit(won(5, 9, 5))
        journal.commit(won(10, 99))
        assert journal.splits() == [(0, 9)]
        assert journal.counts().ranges == 11


def test_of_one_turn_the_winner_beats_the_retry(path: Path) -> None:
    with new_journal(path) as journal:
        changes = won(0, 9)
        changes.retrying.append(retrying(0, 9))
        journal.commit(changes)
        assert [r.state for r in journal.runs()] == ["won"]


def test_a_winner_needs_its_segment(path: Path) -> None:
    with new_journal(path) as journal, pytest.raises(JournalError):
        journal.commit(Changes(won=won(0, 9).won))


def test_a_takeover_drops_grants_and_shuts_the_old_engine_out(path: Path) -> None:
    old = new_journal(path)
    old.commit(Changes(grants=[grant(1, 0, 9)]))
    new = Journal.open(path)
    assert new.take_over() == new.epoch == new.job().epoch == 2
    assert new.grants() == []
    attempts = [
        lambda: old.commit(won(0, 9)),
        lambda: old.set_state("failed"),
        lambda: old.set_planned(1),
        lambda: old.set_code("x"),
        lambda: old.set_output(0, "published"),
        old.take_over,
    ]
    for attempt in attempts:
        with pytest.raises(EpochLost):
            attempt()
    new.commit(won(0, 9))
    old.close()
    new.close()


def test_winners_come_in_order_with_their_segments(path: Path) -> None:
    with new_journal(path) as journal:
        segment = Segment(nonce="n", start=0, end=29, epoch=1, worker="w", info={"files": [["a", 3]]})
        runs = [
            Run(start=start, end=start + 9, size=10, state="won", attempt=1, nonce="n", code="c")
            for start in (20, 0)
        ]
        journal.commit(Changes(segments=[segment], won=runs, dead=[dead(10, 19)]))
        assert list(journal.winners()) == [(runs[1], segment), (runs[0], segment)]


def test_every_field_of_a_run_is_kept(path: Path) -> None:
    run = Run(
        start=0, end=4, size=5, state="retrying", attempt=2, not_before=3.5, isolated=True, tries_left=1
    )
    with new_journal(path) as journal:
        journal.commit(Changes(retrying=[run]))
        assert list(journal.runs()) == [run]


def test_only_the_newest_failures_are_kept(path: Path) -> None:
    with new_journal(path) as journal:
        many = [
            FailureRow(start=i, end=i, attempt=1, kind="mapper", message="m", at=0.0)
            for i in range(FAILURES_KEPT + 5)
        ]
        journal.commit(Changes(failures=many))
        kept = journal.failures()
        assert (len(kept), kept[0].start, kept[-1].start) == (FAILURES_KEPT, 5, FAILURES_KEPT + 4)
        assert [f.start for f in journal.failures(2)] == [FAILURES_KEPT + 3, FAILURES_KEPT + 4]


def test_dead_runs_come_with_their_newest_failure(path: Path) -> None:
    with new_journal(path) as journal:
        journal.commit(Changes(dead=[dead(0, 9), dead(20, 29)], failures=[failure(20, 29), failure(30, 39)]))
        assert list(journal.dead_failures()) == [(dead(0, 9), None), (dead(20, 29), failure(20, 29))]


def test_counts(path: Path) -> None:
    with new_journal(path, length=95) as journal:
        changes = won(80, 94)
        changes.dead.append(dead(0, 9))
        changes.retrying.append(retrying(10, 29))
        changes.grants.append(grant(1, 30, 49))
        journal.commit(changes)
        counts = journal.counts()
        assert (counts.won_items, counts.won_ranges, counts.dead_items, counts.dead_ranges) == (15, 2, 10, 1)
        assert (counts.retrying_items, counts.retrying_ranges, counts.granted_items) == (20, 2, 20)
        assert counts.ranges == 10


def test_the_view_shows_every_range_once_in_order(path: Path) -> None:
    with new_journal(path, length=57) as journal:
        changes = won(10, 29)
        changes.splits.append((40, 49, 2))
        changes.retrying += [retrying(40, 44, 5), retrying(45, 49, 5)]
        changes.grants += [grant(1, 30, 39), grant(2, 45, 49, 5, attempt=2)]
        journal.commit(changes)
        assert ranges(journal) == [
            (0, 9, "pending"),
            (10, 19, "won"),
            (20, 29, "won"),
            (30, 39, "granted"),
            (40, 44, "retrying"),
            (45, 49, "granted"),
            (50, 56, "pending"),
        ]


def test_the_view_is_empty_until_planned_and_for_no_items(path: Path) -> None:
    with new_journal(path, length=None) as journal:
        assert ranges(journal) == []
        journal.set_planned(0)
        assert ranges(journal) == []


def test_a_reader_sees_each_commit_while_the_writer_goes_on(path: Path) -> None:
    with new_journal(path) as journal, Reader(path) as reader:
        with journal._transaction() as sql:
            sql.execute("UPDATE job SET state = 'running'")
            assert reader.job().state == "planning"  # neither waits for the other
        assert reader.job().state == "running"
        journal.commit(won(0, 9))
        assert reader.counts().won_items == 10


def test_a_reader_cannot_write(path: Path) -> None:
    with new_journal(path), Reader(path) as reader, pytest.raises(JournalError):
        reader._all("DELETE FROM job RETURNING id")


def test_a_full_disk_undoes_the_turn_and_leaves_the_journal_usable(path: Path) -> None:
    with new_journal(path) as journal:
        journal._open.execute("PRAGMA max_page_count = 1")  # as full as it is now
        many = Changes(failures=[failure(i, i) for i in range(5000)])
        with pytest.raises(OSError) as caught:
            journal.commit(many)
        assert caught.value.errno == errno.ENOSPC
        journal._open.execute("PRAGMA max_page_count = 100000")
        assert journal.failures() == []
        journal.commit(many)
        assert len(journal.failures()) == 5000


def test_a_closed_journal_says_so(path: Path) -> None:
    journal = new_journal(path)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.job()


def test_changes_are_false_only_when_there_are_none() -> None:
    assert not Changes()
    assert Changes(ended_grants=[1])
    assert Changes(splits=[(0, 1, 2)])
