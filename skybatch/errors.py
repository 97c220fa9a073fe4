"""Every error skybatch raises on purpose.

One base class; each class carries the exit code its cause has on the command line and, where one exists,
the command that goes on. Messages name the thing at fault first, then the cause, then the remedy.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


class SkybatchError(Exception):
    """Base of all expected errors: shown as one line and an exit code, never as a traceback."""

    exit_code: int = 1


class UsageError(SkybatchError):
    """Something asked for makes no sense as it stands; nothing was started."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not known; the message lists the candidates and the nearest one."""

    def __init__(self, kind: str, name: str, candidates: Iterable[str]) -> None:
        known = sorted(candidates)
        listed = ", ".join(known) or "none"
        super().__init__(f"unknown {kind} {name!r}{nearest(name, known)}; known: {listed}")


class MapperError(UsageError):
    """The mapper cannot be shipped or called; found before work starts."""


class JobNotFound(UsageError):
    """No job has this id or prefix."""


class InputMissing(UsageError):
    """The input cannot be found or opened."""


class InputDamaged(UsageError):
    """The input is cut off or altered: what is compressed does not come out whole."""


class OutputExists(SkybatchError):
    """Something that is not this job's stands at an output's place; it is left untouched."""

    exit_code = 73


class JobLocked(SkybatchError):
    """Another engine runs this job; this one stopped at once and changed nothing."""

    exit_code = 5


class UnfinishedJob(SkybatchError):
    """A job with the same input and outputs stands unfinished; it can be resumed."""


class CodeChanged(SkybatchError):
    """Code or input differs from what the job was started with."""

    exit_code = 4


class JournalError(SkybatchError):
    """The journal refused an operation."""

    exit_code = 74


class JournalDamaged(JournalError):
    """The journal is missing, not a journal, truncated, or from a newer version."""


class EpochLost(JournalError):
    """Another engine has taken this job over; this one must stop."""

    exit_code = 5


class WinnerConflict(JournalError):
    """A result arrived for a range that already has a winner or was set aside for good."""


class UntrustedFolder(JournalError):
    """The job folder is a symlink, or others own it or may write to it: resuming would run their code."""


class NetworkFilesystem(JournalError):
    """The job folder lies on a network filesystem, where SQLite's locks cannot be trusted."""


class ItemError(SkybatchError):
    """One item cannot be read or its result not written; `item` is its index where it is known."""

    def __init__(self, message: str, *, item: int | None = None) -> None:
        self.item = item
        super().__init__(message)


class RecordError(ItemError):
    """One input record cannot be read; it is that item's failure."""


class ResultError(ItemError):
    """One result cannot be written; it is that item's failure."""


class StorageFailed(SkybatchError, OSError):
    """A store did not answer as it should for all the time it was given. No item is to blame; the job pauses."""

    exit_code = 75


class StorageDenied(StorageFailed):
    """The store refuses these credentials, or they have expired; waiting does not help, new ones do."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_FAILED = (*DISK_FULL, errno.EROFS, errno.EIO)


def is_of_storage(error: BaseException, errnos: tuple[int, ...] = DISK_FAILED) -> bool:
    """Whether a store or a disk is to blame, rather than an item or the code: the job pauses."""
    return isinstance(error, StorageFailed) or (isinstance(error, OSError) and error.errno in errnos)


def name_place(error: BaseException, path: str) -> None:
    """Have an OSError that names no file name `path`: which disk is full is what its reader must know."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = path


class SegmentDamaged(SkybatchError):
    """A segment file is missing, truncated or altered."""


class MissingBatches(SkybatchError):
    """Batch files do not cover all items; a merge would have gaps."""


class Paused(SkybatchError):
    """The job stopped in a resumable state; `job_id`, `cause` and `command` as in JobFailed."""

    exit_code = 75

    def __init__(self, job_id: str, cause: str, command: str, *, exit_code: int = 75) -> None:
        self.job_id, self.cause, self.command = job_id, cause, command
        self.exit_code = exit_code
        super().__init__(f"job {job_id}: {cause}\n  to go on: {command}")


class JobFailed(SkybatchError):
    """The job failed; `job_id`, `cause` and `command` say which, why, and how to go on."""

    def __init__(self, job_id: str, cause: str, command: str, *, exit_code: int = 1) -> None:
        self.job_id, self.cause, self.command = job_id, cause, command
        self.exit_code = exit_code
        super().__init__(f"job {job_id}: {cause}\n  to go on: {command}")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the candidate nearest to `name`, or nothing."""
    import difflib  # which workers need not wait for

    close = difflib.get_close_matches(name, list(candidates), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
