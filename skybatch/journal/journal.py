"""The journal's one writer: every step of a job is one transaction, and each checks the epoch."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import orjson

from skybatch import disk
from skybatch.errors import EpochLost, WinnerConflict
from skybatch.failpoints import after, before
from skybatch.journal import migrations
from skybatch.journal.connection import check_whole, connect, translated
from skybatch.journal.reading import Queries
from skybatch.journal.rows import Changes, FailureRow, JobRow, Run
from skybatch.journal.schema import APPLICATION_ID, SCHEMA, VERSION

FAILURES_KEPT = 10_000
# "published" counts too: what follows is only cleanup
AT_REST = frozenset({"published", "cleaned", "paused", "cancelled", "failed", "conflict"})

PUT_JOB = "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_RUN = "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_SEGMENT = "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)"
PUT_SPLIT = "INSERT INTO splits VALUES (?, ?, ?, ?)"
PUT_GRANT = "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
PUT_FAILURE = """INSERT INTO failures (start, end, attempt, kind, message, traceback, item, worker, at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
OVERLAPPING = """SELECT start, end, size, state, attempt, nonce, not_before, isolated, tries_left, code, charges
    FROM runs WHERE end >= :start
    AND start BETWEEN coalesce((SELECT max(start) FROM runs WHERE start <= :start), :start) AND :end"""
REVOKE = """UPDATE runs SET state = 'retrying', nonce = NULL, attempt = ?, not_before = NULL
    WHERE start = ? AND end = ? AND nonce = ? AND state = 'won'"""
RETRY_RUNS = """UPDATE runs SET state = 'retrying', attempt = 0, not_before = NULL, isolated = 0, tries_left = NULL,
    charges = NULL WHERE state = 'dead'"""
RETRY_OUTPUTS = """UPDATE outputs SET replaces = CASE state WHEN 'open' THEN replaces ELSE token END, state = 'open',
    token = NULL, progress = NULL"""
DROP_SEGMENT = "DELETE FROM segments WHERE nonce = ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE nonce = ?1)"
DROP_FAILURES = """DELETE FROM failures WHERE id <= (SELECT max(id) FROM failures) - ?
    AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.start = failures.start AND state = 'dead')"""
SET_STATE = """UPDATE job SET state = :state, cause = :cause, updated_at = :now,
    finished_at = CASE WHEN :at_rest THEN coalesce(finished_at, :now) END"""


class Journal(Queries):
    """Written by one thread at a time of the process that holds the job's lock.

    A full disk raises OSError(ENOSPC): the transaction is undone and the journal stays usable.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        with translated(path):
            connection.execute("PRAGMA synchronous = FULL")
        self.epoch = self.job().epoch

    @classmethod
    def create(cls, path: Path, job: JobRow, outputs: Sequence[str]) -> Self:
        """A new journal; it appears under its name whole and durable, or not at all.

        Raises FileExistsError when there is one already.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with translated(path):
                _write_new(temporary, job, outputs)
            disk.link("journal", temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)
        return cls(path, connect(path, mode="rw"))

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing journal, migrated to the present schema; the caller holds the job's lock.

        Raises JournalDamaged when the file is missing, empty, not a journal, truncated, damaged, or from a
        newer version; nothing is changed then.
        """
        connection = connect(path, mode="rw")
        try:
            check_whole(connection, path)
            with translated(path):
                if connection.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                    migrations.migrate(connection)
            return cls(path, connection)
        except BaseException:
            connection.close()
            raise

    def take_over(self) -> int:
        """Begin a new epoch: the engine before is shut out, and what it had granted is pending again."""
        with self._transaction("take_over") as sql:
            sql.execute("UPDATE job SET epoch = epoch + 1, updated_at = ?", (time.time(),))
            sql.execute("DELETE FROM grants")
        self.epoch += 1
        return self.epoch

    def set_state(self, state: str, cause: str | None = None) -> None:
        """Move the job to `state`; `cause` says why, where there is something to say."""
        values = {"state": state, "cause": cause, "now": time.time(), "at_rest": state in AT_REST}
        with self._transaction("set_state") as sql:
            sql.execute(SET_STATE, values)

    def set_planned(self, length: int, fingerprint: Any = None) -> None:
        """Record the dataset's length, and a JSON value that tells whether the input has changed."""
        with self._transaction("set_planned") as sql:
            sql.execute(
                "UPDATE job SET length = ?, input_fingerprint = ?, updated_at = ?",
                (length, _json(fingerprint), time.time()),
            )

    def set_code(self, code_hash: str) -> None:
        """New ranges run with this code from now on."""
        with self._transaction("set_code") as sql:
            sql.execute("UPDATE job SET code_hash = ?, updated_at = ?", (code_hash, time.time()))

    def set_progress(self, idx: int, progress: dict[str, Any] | None) -> None:
        """Record what of output `idx` is put together already; None for nothing."""
        with self._transaction("set_progress") as sql:
            sql.execute("UPDATE outputs SET progress = ? WHERE idx = ?", (_json(progress), idx))

    def revoke(self, runs: Sequence[Run], failures: Sequence[FailureRow], reset: Sequence[int]) -> None:
        """Winners whose results are lost: to be mapped again, for the cause that `failures` tell.

        What was put together of the outputs in `reset` is forgotten. Raises WinnerConflict for runs that are not won.
        """
        with self._transaction("revoke") as sql:
            for run in runs:
                done = sql.execute(REVOKE, (max(0, run.attempt - 1), run.start, run.end, run.nonce)).rowcount
                if done != 1:
                    raise WinnerConflict(f"{self.path}: items {run.start}-{run.end} are not won as {run.nonce}")
            sql.executemany(DROP_SEGMENT, [(nonce,) for nonce in {run.nonce for run in runs}])
            sql.executemany("UPDATE outputs SET progress = NULL WHERE idx = ?", [(idx,) for idx in reset])
            _put_failures(sql, failures)

    def retry(self) -> int:
        """Have what was set aside tried again, as if never tried, and published anew; how many items that are.

        What was published stays until then, and may be replaced.
        """
        with self._transaction() as sql:
            (items,) = sql.execute("SELECT coalesce(sum(end - start + 1), 0) FROM runs WHERE state = 'dead'").fetchone()
            if items:
                sql.execute(RETRY_RUNS)
                sql.execute(RETRY_OUTPUTS)
                sql.execute(SET_STATE, {"state": "running", "cause": None, "now": time.time(), "at_rest": False})
        return int(items)

    def set_output(self, idx: int, state: str, token: dict[str, Any] | None = None) -> None:
        """Record how far output `idx` is; a token once given stays until another is given."""
        with self._transaction("set_output") as sql:
            sql.execute(
                "UPDATE outputs SET state = ?, token = coalesce(?, token) WHERE idx = ?",
                (state, _json(token), idx),
            )

    def commit(self, changes: Changes) -> None:
        """Make all of one turn's changes durable, or none of them.

        A run that is put takes the place of what was retrying (or dead, unless the new one has won) there;
        the rest of a longer run stays. Raises WinnerConflict when a winner would be touched, or a result
        comes for a range that is dead or was split; EpochLost when another engine has taken over.
        """
        with self._transaction("commit") as sql:
            if changes.splits:
                now = time.time()
                sql.executemany(PUT_SPLIT, [(start, end, now, parts) for start, end, parts in changes.splits])
            sql.executemany(
                PUT_SEGMENT,
                [
                    (s.nonce, s.start, s.end, s.epoch, s.worker, orjson.dumps(s.info).decode())
                    for s in changes.segments
                ],
            )
            for runs in (changes.dead, changes.retrying, changes.won):
                self._put_runs(sql, runs)
            sql.executemany("DELETE FROM grants WHERE id = ?", [(id,) for id in changes.ended_grants])
            sql.executemany(
                PUT_GRANT,
                [(g.id, g.epoch, g.worker, g.start, g.end, g.size, g.attempt, g.at) for g in changes.grants],
            )
            for idx, progress in changes.progress.items():
                sql.execute("UPDATE outputs SET progress = ? WHERE idx = ?", (_json(progress), idx))
            if changes.fits:
                sql.execute("UPDATE job SET fits = ?", (changes.fits,))
            if changes.failures:
                _put_failures(sql, changes.failures)

    def _put_runs(self, sql: sqlite3.Connection, runs: list[Run]) -> None:
        for run in runs:
            for old in sql.execute(OVERLAPPING, {"start": run.start, "end": run.end}).fetchall():
                self._make_way(sql, old, run)
            sql.execute(PUT_RUN, _run_values(run))

    def _make_way(self, sql: sqlite3.Connection, old: tuple[Any, ...], run: Run) -> None:
        start, end, size, state, *rest = old
        if state == "won" or (state == "dead" and run.state == "won"):
            raise WinnerConflict(
                f"{self.path}: items {run.start}-{run.end} came as {run.state}; {start}-{end} is {state}"
            )
        sql.execute("DELETE FROM runs WHERE start = ?", (start,))
        if state == "dead":  # what was put together has passed over it
            sql.execute("UPDATE outputs SET progress = NULL WHERE state = 'open'")
        if start < run.start:
            sql.execute(PUT_RUN, (start, run.start - 1, size, state, *rest))
        if end > run.end:
            sql.execute(PUT_RUN, (run.end + 1, end, size, state, *rest))

    @contextmanager
    def _transaction(self, step: str = "step") -> Iterator[sqlite3.Connection]:
        sql = self._open
        with translated(self.path):
            sql.execute("BEGIN IMMEDIATE")
            try:
                (epoch,) = sql.execute("SELECT epoch FROM job").fetchone()
                if epoch != self.epoch:
                    raise EpochLost(
                        f"{self.path}: another engine took this job over (epoch {epoch}, not {self.epoch})"
                    )
                yield sql
                before("journal", step)
                sql.execute("COMMIT")
                after("journal", step)
            except BaseException:
                _roll_back(sql)
                raise


def _roll_back(sql: sqlite3.Connection) -> None:
    try:
        if sql.in_transaction:
            sql.execute("ROLLBACK")
    except sqlite3.Error:
        pass  # the first error is the one to tell


def _put_failures(sql: sqlite3.Connection, failures: Sequence[FailureRow]) -> None:
    sql.executemany(
        PUT_FAILURE,
        [
            (f.start, f.end, f.attempt, f.kind, f.message, f.traceback, f.item, f.worker, f.at)
            for f in failures
        ],
    )
    sql.execute(DROP_FAILURES, (FAILURES_KEPT,))


def _write_new(path: Path, job: JobRow, outputs: Sequence[str]) -> None:
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # synced once, below
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION};")
        connection.execute(PUT_JOB, _job_values(job))
        connection.executemany("INSERT INTO outputs VALUES (?, ?, 'open', NULL, NULL, NULL)", list(enumerate(outputs)))
        connection.executemany(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
            [(migrations.SET, name, str(job.created_at)) for name in migrations.NAMES],
        )
        connection.execute("COMMIT")
    finally:
        connection.close()  # moves everything from the WAL into the file
    _sync(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk.fsync("journal", fd)
    finally:
        os.close(fd)


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _job_values(job: JobRow) -> tuple[Any, ...]:
    return (
        job.id,
        job.name,
        job.created_at,
        job.state,
        job.cause,
        job.epoch,
        job.length,
        job.batch_size,
        job.code_hash,
        _json(job.input_fingerprint),
        job.spec_hash,
        job.finished_at,
        job.updated_at or job.created_at,
        job.fits,
    )


def _run_values(run: Run) -> tuple[Any, ...]:
    return (
        run.start,
        run.end,
        run.size,
        run.state,
        run.attempt,
        run.nonce,
        run.not_before,
        run.isolated,
        run.tries_left,
        run.code,
        orjson.dumps(run.charges).decode() if run.charges else None,
    )
