"""One job at a time per output folder: a claim beside it, from before the job starts until it has published."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from skybatch.engine.folder import JobFolder, home
from skybatch.engine.placing import is_folder
from skybatch.errors import JobLocked, JournalError, OutputExists
from skybatch.formats import claims, storage
from skybatch.formats.base import OutputWriter
from skybatch.formats.masking import masked
from skybatch.journal.lock import JobLock
from skybatch.journal.reading import Reader


@contextmanager
def taken(writers: Sequence[OutputWriter], job_id: str) -> Iterator[None]:
    """Claim them for a job that comes into being while this is entered; given up if it does not. Raises as `take`."""
    try:
        take(writers, job_id)
        yield
    except BaseException:
        if not JobFolder(home() / "jobs" / job_id).spec.exists():
            release(writers, job_id)
        raise


def take(writers: Sequence[OutputWriter], job_id: str) -> None:
    """Claim every output that is a folder; a job's own claims are found again. Raises OutputExists."""
    for writer in writers:
        if is_folder(writer) or writer.path.endswith("/"):
            _take(writer.path, job_id)


def release(writers: Sequence[OutputWriter], job_id: str) -> None:
    """Give up what the job has claimed."""
    for writer in writers:
        claims.release_folder(writer.path, job_id)


def _take(output: str, job_id: str) -> None:
    path = claims.folder_claim(output)
    if storage.is_local(path):
        storage.make_folders(os.path.dirname(path))
    owner = claims.take(path, job_id)
    if owner == job_id:
        return
    owner = _take_over(path, owner, job_id)
    if owner != job_id:
        raise OutputExists(
            f"output {masked(output)}: job {owner} writes to that folder, and is not done\n"
            f"  to go on with it: skybatch resume {owner}; to give it up: skybatch clean --unfinished {owner}\n"
            f"  or, if no machine has such a job any more: skybatch clean --leftovers {masked(output)} --yes"
        )


def _take_over(path: str, owner: str, job_id: str) -> str:
    """Whose the claim is once one is dropped that is not needed: its job is done, has stored nothing, or never was.

    A job that is not known here may be another machine's.
    """
    folder = JobFolder(home() / "jobs" / owner)
    if not folder.path.is_dir():
        return owner
    try:
        with JobLock(folder.path):  # it cannot start meanwhile
            if folder.spec.exists() and _is_needed(folder):
                return owner
            claims.drop(path)
            return claims.take(path, job_id)
    except (JobLocked, JournalError):
        return owner


def _is_needed(folder: JobFolder) -> bool:
    with Reader(folder.journal) as journal:
        return journal.job().state not in ("published", "cleaned") and journal.counts().won_items > 0
