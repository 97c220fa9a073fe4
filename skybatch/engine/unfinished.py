"""Unfinished jobs by what they ask for: `$SKYBATCH_HOME/unfinished/<identity>` holds the id."""

from __future__ import annotations

from pathlib import Path

from skybatch import disk
from skybatch.engine import folder as folders
from skybatch.engine.folder import JobFolder
from skybatch.engine.job import DONE, FAILED, Job
from skybatch.engine.spec import JobSpec
from skybatch.errors import JobLocked, JournalError, UnfinishedJob


def find(home: Path, spec: JobSpec, *, resume: bool) -> Job | None:
    """The unfinished job that `spec` asks for again, when it is to be resumed; notes `spec`'s own id otherwise.

    Raises JobLocked when it runs now, UnfinishedJob when it is not to be resumed and has results.
    """
    note = home / "unfinished" / spec.identity()
    job = _noted(home, note)
    if job is not None:
        if job.engine_running:
            raise JobLocked(f"job {job.id} does the same and runs now; to follow it: skybatch status {job.id} --watch")
        if resume:
            return job
        if job.progress().items_done:
            same = "" if job.state in FAILED else ", or as here with resume=True (skybatch run --resume)"
            raise UnfinishedJob(
                f"job {job.id} does the same and stands {job.state}, with results\n"
                f"  to go on with it: {job.command}{same}\n"
                f"  to begin anew: skybatch clean --unfinished {job.id}"
            )
    note.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = note.with_name(f".{spec.id}")
    fresh.write_text(spec.id)
    disk.rename("unfinished", fresh, note)
    return None


def _noted(home: Path, note: Path) -> Job | None:
    try:
        job = Job(JobFolder(home / "jobs" / note.read_text()))
        return job if job.folder.spec.exists() and job.state not in DONE else None
    except (FileNotFoundError, JournalError):
        return None


def forget_when_done(folder: JobFolder) -> None:
    """Drop the note of a job that is done."""
    job = Job(folder)
    try:
        if job.state in DONE:
            note = folders.home() / "unfinished" / job.spec.identity()
            if note.read_text() == job.id:
                disk.unlink("unfinished", note)
    except (OSError, JournalError):
        pass
