"""Opening the journal's file, checking what it is, and SQLite's errors in skybatch's words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skybatch.errors import JournalDamaged, JournalError, WinnerConflict
from skybatch.journal.schema import APPLICATION_ID, VERSION

BUSY_TIMEOUT_S = 10.0
REMEDY = "nothing was changed; to make it anew from the results stored so far: skybatch rebuild"


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """A connection to an existing journal; `mode` is "rw" or "ro".

    Raises JournalDamaged when the file is missing, empty, not a journal, or from a newer version.
    """
    _check_file(path)
    with translated(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            _check_identity(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Raise JournalDamaged unless the whole file is there and its pages hang together."""
    with translated(path):
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JournalDamaged(f"{path}: the journal is damaged ({verdict.splitlines()[-1]}); {_remedy(path)}")
        if connection.execute("SELECT count(*) FROM job").fetchone() != (1,):
            raise JournalDamaged(f"{path}: the journal holds no job; {_remedy(path)}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as skybatch's; a full disk becomes OSError(ENOSPC)."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translation(error, path) from error


def _remedy(path: Path) -> str:
    return f"{REMEDY} {path.parent.name}"


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise JournalDamaged(f"{path}: the journal is missing; {_remedy(path)}") from None
    if size == 0:
        raise JournalDamaged(f"{path}: the journal is empty; {_remedy(path)}")


def _check_identity(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or version < 1:
        raise JournalDamaged(f"{path}: not a skybatch journal; {_remedy(path)}")
    if version > VERSION:
        raise JournalDamaged(
            f"{path}: written by a newer skybatch (schema {version}, this one knows {VERSION}); "
            f"upgrade skybatch, or: {_remedy(path)}"
        )


def _translation(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", None) or 0
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if primary == sqlite3.SQLITE_IOERR:
        return OSError(errno.EIO, f"{os.strerror(errno.EIO)} ({error})", str(path))
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JournalDamaged(f"{path}: the journal is damaged ({error}); {_remedy(path)}")
    if str(error) in ("runs overlap", "range was split"):
        return WinnerConflict(f"{path}: {error}")
    return JournalError(f"{path}: {error}")
