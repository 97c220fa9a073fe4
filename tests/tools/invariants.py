"""What must hold in every job's journal, whatever happened to its engine; asked of the database itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from skybatch.formats import batchfiles
from skybatch.formats.segment import read_index


class Span(NamedTuple):
    """Items `start` to `end`, both included."""

    start: int
    end: int


class Snapshot(NamedTuple):
    """A job as its journal tells it now."""

    state: str
    epoch: int
    length: int | None
    batch_size: int
    won: list[Span]
    granted: list[Span]  # ranges in workers' hands, one by one


def look(journal: Path) -> Snapshot:
    """Read the journal without touching it, be an engine at work or dead."""
    with closing(_connect(journal)) as sql:
        sql.execute("BEGIN")
        state, epoch, length, batch_size = sql.execute("SELECT state, epoch, length, batch_size FROM job").fetchone()
        won = [Span(*row) for row in sql.execute("SELECT start, end FROM runs WHERE state = 'won' ORDER BY start")]
        grants = sql.execute("SELECT start, end, size FROM grants ORDER BY start").fetchall()
    granted = [Span(at, min(at + size - 1, end)) for start, end, size in grants for at in range(start, end + 1, size)]
    return Snapshot(state, epoch, length, batch_size, won, granted)


def uncommitted(snapshot: Snapshot) -> list[Span]:
    """Ranges granted and not won: what may be run again when the engine dies now."""
    return [span for span in snapshot.granted if not any(_overlap(span, won) for won in snapshot.won)]


def check(folder: Path, *, done: bool) -> None:
    """Assert the invariants of the job in `folder`; `done`: it has been published and cleaned up."""
    with closing(_connect(folder / "journal.db")) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert sql.execute("PRAGMA foreign_key_check").fetchall() == []
        _check_winners(sql, done=done)
        _check_view(sql)
        _check_grants(sql)
        _check_outputs(sql, done=done)
        _check_segments(sql, folder.name)


def _check_winners(sql: sqlite3.Connection, *, done: bool) -> None:
    length = sql.execute("SELECT length FROM job").fetchone()[0]
    runs = [Span(*row) for row in sql.execute("SELECT start, end FROM runs ORDER BY start")]
    won = [Span(*row) for row in sql.execute("SELECT start, end FROM runs WHERE state = 'won' ORDER BY start")]
    assert _is_disjoint(runs)
    assert all(0 <= span.start <= span.end < length for span in runs)
    if done:
        assert sum(span.end - span.start + 1 for span in won) == length
    lost = sql.execute(
        """SELECT runs.start FROM runs JOIN segments USING (nonce)
        WHERE runs.start < segments.start OR runs.end > segments.end"""
    ).fetchall()
    assert lost == []  # every winner lies within the segment that has its results


def _check_view(sql: sqlite3.Connection) -> None:
    length = sql.execute("SELECT length FROM job").fetchone()[0]
    ranges = [Span(*row) for row in sql.execute("SELECT start, end FROM ranges")]
    if length is None:
        return
    covered = 0
    for span in ranges:
        assert span.start == covered
        covered = span.end + 1
    assert covered == length


def _check_grants(sql: sqlite3.Connection) -> None:
    epoch = sql.execute("SELECT epoch FROM job").fetchone()[0]
    assert {row[0] for row in sql.execute("SELECT epoch FROM grants")} <= {epoch}
    assert _is_disjoint([Span(*row) for row in sql.execute("SELECT start, end FROM grants ORDER BY start")])


def _check_outputs(sql: sqlite3.Connection, *, done: bool) -> None:
    states = {row[0] for row in sql.execute("SELECT state FROM outputs")}
    job = sql.execute("SELECT state FROM job").fetchone()[0]
    if done:
        assert (job, states) == ("cleaned", {"cleaned"})
        assert sql.execute("SELECT count(*) FROM grants").fetchone() == (0,)
    elif job == "published":
        assert states <= {"published", "cleaned"}
    else:
        assert "cleaned" not in states


def _check_segments(sql: sqlite3.Connection, job_id: str) -> None:
    """The segment of every winner is there, with an index that has the winner, until its output is cleaned up."""
    job = sql.execute("SELECT state FROM job").fetchone()[0]
    if job in ("published", "cleaned"):
        return
    outputs = sql.execute("SELECT idx, path FROM outputs").fetchall()
    winners = sql.execute(
        "SELECT runs.start, runs.end, info FROM runs JOIN segments USING (nonce) WHERE runs.state = 'won'"
    ).fetchall()
    for start, end, info in winners:
        for idx, path in outputs:
            stored = json.loads(info)["files"][idx]
            if stored is not None:
                file = Path(batchfiles.folder(path, job_id), stored["name"])
                assert file.stat().st_size == stored["size"]
                entries = [entry for entry in read_index(file).entries() if start <= entry.start and entry.end <= end]
                assert sum(entry.end - entry.start + 1 for entry in entries) == end - start + 1


def _is_disjoint(spans: Iterable[Span]) -> bool:
    last = -1
    for span in spans:
        if span.start <= last:
            return False
        last = span.end
    return True


def _overlap(one: Span, other: Span) -> bool:
    return one.start <= other.end and other.start <= one.end


def _connect(journal: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{journal}?mode=ro", uri=True, isolation_level=None)


def nothing_charged(journal: Path) -> bool:
    """Whether no range was charged anything, whatever storage failed."""
    with closing(_connect(journal)) as sql:
        kinds = {kind for (kind,) in sql.execute("SELECT DISTINCT kind FROM failures")}
        charged = sql.execute("SELECT 1 FROM runs WHERE state = 'dead' OR attempt > (state = 'won')").fetchone()
    return kinds <= {"storage"} and not charged
