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
@click.argument("jobs", metavar="[JOB...]", nargs=-1)
@click.option(
    "--state",
    type=click.Choice(["failed", "conflict", "cancelled", "paused", "published", "cleaned"]),
    help="Instead of JOB: all jobs that stand in this state, with what they did.",
)
@click.option("--unfinished", is_flag=True, help="Also jobs that could be resumed: what they did is lost.")
@click.option(
    "--leftovers",
    metavar="PATH",
    help="Instead of jobs: list temporary files and abandoned uploads beside an output, or in a folder or bucket.",
)
@click.option("--yes", is_flag=True, help="With --leftovers: remove what is listed.")
def clean(jobs: tuple[str, ...], state: str | None, unfinished: bool, leftovers: str | None, yes: bool) -> None:
    """Remove each JOB's folder, its temporary files beside the outputs, and its uploads. Outputs stay.

    A job that runs is refused, and one that could be resumed is too, unless --unfinished is given.

    With --leftovers, what finished jobs and jobs that are not known here have left around PATH is listed, and removed
    with --yes. A job that is not known here may be another machine's and may run there. Jobs that stand unfinished here
    are never touched.
    """
    from skybatch.engine.job import all_jobs, find_job

    if leftovers is not None:
        if jobs or unfinished or state:
            raise UsageError("--leftovers PATH goes with neither JOB nor --state")
        _clean_leftovers(leftovers, yes)
        return
    if bool(jobs) == bool(state) or yes:
        raise UsageError("say which jobs to remove, or --state STATE, or --leftovers PATH; to see them: skybatch list")
    if state:
        chosen = [job for job in all_jobs() if _state(job) == state]
    else:
        chosen = [find_job(reference) for reference in jobs]
    for job in chosen:
        _clean(job, unfinished or state is not None)
        click.echo(f"skybatch: job {job.id} is removed", err=True)


def _clean_leftovers(path: str, yes: bool) -> None:
    from skybatch.cli.output import table
    from skybatch.engine import leftovers
    from skybatch.formats.masking import masked

    leftovers.check(path)
    found, kept = leftovers.find(path)
    if found:
        rows = [(one.job_id or "-", one.why, one.files or "-", one.size or "-", masked(one.path)) for one in found]
        table(("JOB", "STATE", "FILES", "BYTES", "PATH"), rows)
    for job_id in kept:
        click.echo(f"skybatch: job {job_id} stands unfinished, or has items set aside; what is its own stays", err=True)
    if not found:
        click.echo("skybatch: nothing is left over there", err=True)
    elif not yes:
        click.echo("skybatch: nothing was removed; to remove what is listed: --yes", err=True)
        return
    for one in found:
        leftovers.remove(one)
    if found:
        click.echo(f"skybatch: removed {len(found)}", err=True)


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


def _abort_upload(job: Job, idx: int, path: str) -> None:
    """Give up the upload that the job has begun for an output, if it has."""
    from skybatch.formats import stores
    from skybatch.journal.reading import Reader

    try:
        with Reader(job.folder.journal) as journal:
            handle = (journal.outputs()[idx].progress or {}).get("handle")
    except SkybatchError:
        return
    if handle is not None:
        stores.of(path).abort(path, handle)


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
    from skybatch.formats import batchfiles, claims, storage

    try:
        spec = job.spec
    except SkybatchError:
        return  # damaged: where the outputs were is not known any more
    for idx, output in enumerate(spec.outputs):
        claims.release_folder(output["path"], job.id)
        if storage.is_local(output["path"]):
            ours = os.path.dirname(batchfiles.folder(output["path"], job.id))
            shutil.rmtree(ours, ignore_errors=True)
            batchfiles.remove_empty(os.path.dirname(ours))
        batchfiles.delete(output["path"], job.id)
        if not storage.is_local(output["path"]):
            _abort_upload(job, idx, output["path"])
    note = home() / "unfinished" / spec.identity()
    if note.is_file() and note.read_text() == job.id:
        note.unlink()
