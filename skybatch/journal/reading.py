"""Questions to the journal, for the engine that writes it and for everyone who looks on.

Every method reads in short transactions of its own; those that may have much to tell go page by page, in
constant memory, and so may see commits made in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from skybatch.errors import JournalError
from skybatch.journal import forking
from skybatch.journal.connection import connect, translated
from skybatch.journal.rows import Counts, FailureRow, GrantRow, JobRow, OutputRow, Run, Segment
from skybatch.journal.schema import VERSION

ADDED = {
    "job": {"fits": "NULL"},
    "runs": {"charges": "NULL"},
    "outputs": {"progress": "NULL", "replaces": "NULL"},
    "splits": {"parts": "2"},
}
"""What migrations added to the tables of version 1, and what it is in rows from before."""
PAGE = 2000
SETTLED_PAGE = 100
JOB = """SELECT id, name, created_at, state, cause, epoch, length, batch_size, code_hash, input_fingerprint,
    spec_hash, finished_at, updated_at, fits FROM job"""
RUN = """runs.start, runs.end, runs.size, runs.state, runs.attempt, runs.nonce, runs.not_before,
    runs.isolated, runs.tries_left, runs.code, runs.charges"""
RUNS = f"SELECT {RUN} FROM runs WHERE start > ? ORDER BY start LIMIT {PAGE}"
WINNERS = f"""SELECT {RUN}, segments.nonce, segments.start, segments.end, segments.epoch, segments.worker,
    segments.info FROM runs JOIN segments ON segments.nonce = runs.nonce
    WHERE runs.state = 'won' AND runs.start > ? ORDER BY runs.start LIMIT {PAGE}"""
SETTLED = f"""SELECT {RUN}, segments.nonce, segments.start, segments.end, segments.epoch, segments.worker,
    segments.info FROM runs LEFT JOIN segments ON segments.nonce = runs.nonce
    WHERE runs.start >= ? ORDER BY runs.start LIMIT {SETTLED_PAGE}"""
COUNTS = """SELECT state, sum(end - start + 1), sum((end - start + size) / size) FROM runs GROUP BY state"""
WON_THOUGH_SPLIT = """SELECT splits.start, splits.end FROM splits JOIN runs
    ON runs.start <= splits.start AND runs.end >= splits.end AND runs.size > splits.end - splits.start
    WHERE runs.state = 'won'"""
RANGES = """SELECT (length + batch_size - 1) / batch_size + (SELECT coalesce(sum(parts - 1), 0) FROM splits)
    FROM job"""


class Queries:
    """The questions; see Reader and Journal for the two that ask them."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection
        forking.register(self)

    def close(self) -> None:
        """Give the connection back; may be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def job(self) -> JobRow:
        """The job itself."""
        return _job(self._all(JOB)[0])

    def runs(self) -> Iterator[Run]:
        """All runs, in order."""
        for row in self._pages(RUNS):
            yield _run(row)

    def winners(self) -> Iterator[tuple[Run, Segment]]:
        """All winners with the segments that hold their results, in order."""
        for row in self._pages(WINNERS):
            yield _run(row), _segment(row[11:])

    def settled(self, first: int, *, dead: bool) -> Iterator[tuple[Run, Segment | None]]:
        """Winners from item `first` on, up to the first item that has none; with `dead`, past what was set aside.

        What was set aside comes without a segment.
        """
        while rows := self._all(SETTLED, (first,)):
            for row in rows:
                run = _run(row)
                if run.start != first or not (run.state == "won" or (dead and run.state == "dead")):
                    return
                yield run, _segment(row[11:]) if run.nonce is not None else None
                first = run.end + 1

    def grants(self) -> list[GrantRow]:
        """What is in the hands of workers, in order."""
        rows = self._all(
            "SELECT id, epoch, worker, start, end, size, attempt, at FROM grants ORDER BY start, id"
        )
        return [
            GrantRow(
                id=id, epoch=epoch, worker=worker, start=start, end=end, size=size, attempt=attempt, at=at
            )
            for id, epoch, worker, start, end, size, attempt, at in rows
        ]

    def splits(self) -> list[tuple[int, int]]:
        """The ranges that their parts took over, in order."""
        return self._all("SELECT start, end FROM splits ORDER BY start, end")

    def faults(self) -> list[str]:
        """What SQLite finds wrong with the file, and rows that refer to what is not there; reads all of it."""
        verdicts = [verdict for (verdict,) in self._all("PRAGMA integrity_check(20)") if verdict != "ok"]
        for table, row, other, _ in self._all("PRAGMA foreign_key_check"):
            verdicts.append(f"row {row} of {table}: what it refers to in {other} is gone")
        return verdicts

    def won_though_split(self) -> list[tuple[int, int]]:
        """Ranges that are won as a whole, though parts took over. There must be none."""
        return self._all(WON_THOUGH_SPLIT)

    def nonces(self) -> set[str]:
        """Of all segments."""
        return {nonce for (nonce,) in self._all("SELECT nonce FROM segments")}

    def failures(self, limit: int | None = None) -> list[FailureRow]:
        """The newest `limit` failures that are kept, oldest first; None for all of them."""
        rows = self._all(
            "SELECT start, end, attempt, kind, message, traceback, item, worker, at FROM failures"
            " ORDER BY id DESC LIMIT ?",
            (-1 if limit is None else limit,),
        )
        return [_failure(row) for row in reversed(rows)]

    def dead_failures(self) -> Iterator[tuple[Run, FailureRow | None]]:
        """Each run set aside for good with its newest failure (None when no longer kept), in order."""
        for run in self.runs():
            if run.state == "dead":
                rows = self._all(
                    "SELECT start, end, attempt, kind, message, traceback, item, worker, at FROM failures"
                    " WHERE start BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
                    (run.start, run.end),
                )
                yield run, _failure(rows[0]) if rows else None

    def outputs(self) -> list[OutputRow]:
        """The outputs, in the order they were given in."""
        rows = self._all("SELECT idx, path, state, token, progress, replaces FROM outputs ORDER BY idx")
        return [
            OutputRow(
                idx=idx,
                path=path,
                state=state,
                token=None if token is None else orjson.loads(token),
                progress=None if progress is None else orjson.loads(progress),
                replaces=None if replaces is None else orjson.loads(replaces),
            )
            for idx, path, state, token, progress, replaces in rows
        ]

    def counts(self) -> Counts:
        """How many items and ranges are in which state; time grows with the rows of `runs`."""
        numbers = {state: (items, ranges) for state, items, ranges in self._all(COUNTS)}
        won, dead, retrying = (numbers.get(state, (0, 0)) for state in ("won", "dead", "retrying"))
        return Counts(
            ranges=self._all(RANGES)[0][0] or 0,
            won_items=won[0],
            won_ranges=won[1],
            dead_items=dead[0],
            dead_ranges=dead[1],
            retrying_items=retrying[0],
            retrying_ranges=retrying[1],
            granted_items=self._all("SELECT coalesce(sum(end - start + 1), 0) FROM grants")[0][0],
        )

    def leave_to_parent(self) -> None:
        """In a forked child: this connection is the parent's, and must not even be closed here."""
        if self._connection is not None:
            forking.never_free(self._connection)
            self._connection = None

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(
                f"{self.path}: the journal is closed here, or this process was forked from its owner"
            )
        return self._connection

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with translated(self.path):
            return self._open.execute(query, values).fetchall()

    def _pages(self, query: str) -> Iterator[tuple[Any, ...]]:
        last = -1
        while rows := self._all(query, (last,)):
            yield from rows
            last = rows[-1][0]


class Reader(Queries):
    """Looks on, also while an engine writes; never blocks it and changes nothing.

    Raises JournalDamaged when the file is missing, empty, not a journal, or from a newer version.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, connect(path, mode="ro"))
        with translated(path):
            _show_as_present(self._open)


def _show_as_present(connection: sqlite3.Connection) -> None:
    """Of a journal with an older schema, show the columns that came later too; the file stays as it is."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    for table, columns in ADDED.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        missing = "".join(f", {value} AS {column}" for column, value in columns.items() if column not in there)
        if missing:
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *{missing} FROM main.{table}")


def _job(row: tuple[Any, ...]) -> JobRow:
    (
        id,
        name,
        created,
        state,
        cause,
        epoch,
        length,
        batch_size,
        code,
        fingerprint,
        spec,
        finished,
        updated,
        fits,
    ) = row
    return JobRow(
        id=id,
        name=name,
        created_at=created,
        state=state,
        cause=cause,
        epoch=epoch,
        length=length,
        batch_size=batch_size,
        code_hash=code,
        input_fingerprint=None if fingerprint is None else orjson.loads(fingerprint),
        spec_hash=spec,
        finished_at=finished,
        updated_at=updated,
        fits=fits,
    )


def _run(row: tuple[Any, ...]) -> Run:
    start, end, size, state, attempt, nonce, not_before, isolated, tries_left, code, charges = row[:11]
    return Run(
        start=start,
        end=end,
        size=size,
        state=state,
        attempt=attempt,
        nonce=nonce,
        not_before=not_before,
        isolated=bool(isolated),
        tries_left=tries_left,
        code=code,
        charges=orjson.loads(charges) if charges else {},
    )


def _segment(row: tuple[Any, ...]) -> Segment:
    nonce, start, end, epoch, worker, info = row
    return Segment(nonce=nonce, start=start, end=end, epoch=epoch, worker=worker, info=orjson.loads(info))


def _failure(row: tuple[Any, ...]) -> FailureRow:
    start, end, attempt, kind, message, traceback, item, worker, at = row
    return FailureRow(
        start=start,
        end=end,
        attempt=attempt,
        kind=kind,
        message=message,
        traceback=traceback,
        item=item,
        worker=worker,
        at=at,
    )
