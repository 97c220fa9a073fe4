"""`skybatch clean`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skybatch.errors import SkybatchError, UsageError

if TYPE_CHECKING:
    from skybatch.engine.job import Job


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.option("--unfinished", is_flag=True, help="Also jobs that could be resumed: what they did is lost.")
def clean(jobs: tuple[str, ...], unfinished: bool) -> None:
    """Remove each JOB's folder and its temporary files beside the outputs. Outputs stay.

    A job that runs is refused, and one that could be resumed is too, unless --unfinished is given.
    """
    from skybatch.engine.job import find_job

    for job in [find_job(reference) for reference in jobs]:
        _clean(job, unfinished)
        click.echo(f"skybatch: job {job.id} is removed", err=True)


def _clean(job: Job, unfinished: bool) -> None:
    from skybatch.journal.lock import JobLock

    with JobLock(job.folder.path):  # no engine may start meanwhile; JobLocked when one runs
        state = _state(job)
        if state not in ("published", "cleaned") and not unfinished:
            raise UsageError(
                f"job {job.id} is {state} and can be resumed: skybatch resume {job.id}\n"
                f"  to remove it all the same: skybatch clean --unfinished {job.id}"
            )
        _remove_leftovers(job)
        _remove_items(job)
        shutil.rmtree(job.folder.path)


def _state(job: Job) -> str:
    try:
        return job.state
    except SkybatchError:
        return "damaged"


def _remove_items(job: Job) -> None:
    """The items that were kept for this job, unless another one reads them too."""
    from skybatch.engine.folder import items_folder
    from skybatch.engine.job import all_jobs

    kept = _input_of(job)
    if kept is None or kept.parent != items_folder():
        return
    if not any(_input_of(other) == kept for other in all_jobs() if other.id != job.id):
        kept.unlink(missing_ok=True)


def _input_of(job: Job) -> Path | None:
    """Where a job's input is; None where that is not one path, or not known any more."""
    try:
        path = job.spec.reader.get("path")
    except SkybatchError:
        return None
    return Path(path) if isinstance(path, str) else None


def _remove_leftovers(job: Job) -> None:
    """The job's temporary files beside its outputs, and the note that it stands unfinished."""
    from skybatch.engine.folder import home
    from skybatch.formats import batchfiles, storage

    try:
        spec = job.spec
    except SkybatchError:
        return  # damaged: where the outputs were is not known any more
    for output in spec.outputs:
        if not storage.is_local(output["path"]):
            continue
        ours = os.path.dirname(batchfiles.folder(output["path"], job.id))
        shutil.rmtree(ours, ignore_errors=True)
        try:
            os.rmdir(os.path.dirname(ours))
        except OSError:
            pass  # not there, or another job's files are in it
    note = home() / "unfinished" / spec.identity()
    if note.is_file() and note.read_text() == job.id:
        note.unlink()
