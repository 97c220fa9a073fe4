"""What there is to map: the items of the input, and what of them earlier runs of the job have settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from skybatch.engine import input_changes
from skybatch.engine.events import Unit
from skybatch.engine.folder import JobFolder
from skybatch.engine.spec import JobSpec
from skybatch.engine.stops import Stop
from skybatch.errors import DISK_FULL, CodeChanged, InputMissing, SkybatchError, is_of_storage
from skybatch.failpoints import reach
from skybatch.formats.base import InputReader, WindowReader
from skybatch.journal.journal import Journal
from skybatch.journal.rows import Run
from skybatch.worker.fault import describe

P = ParamSpec("P")
T = TypeVar("T")


class ReaderFailed(Exception):
    """A reader's exception outside of workers: the job fails with its traceback."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop


def plan(folder: JobFolder, spec: JobSpec, journal: Journal, reader: InputReader) -> int:
    """The number of items, journalled; the reader is ready for use, and the job runs.

    Raises ReaderFailed; CodeChanged, having changed nothing, when the input is not what it was.
    """
    reach("planning")
    job = journal.job()
    try:
        fingerprint = _ask(reader.fingerprint)
    except InputMissing as error:
        if job.length is None:
            raise
        raise _changed(spec, reader, str(error)) from None
    if job.length is not None:
        if job.input_fingerprint != fingerprint:
            raise _changed(spec, reader, input_changes.told(reader.path, job.input_fingerprint, fingerprint))
        if isinstance(reader, WindowReader):
            _ask_index(reader.open_index, str(folder.index))
        elif (count := spec.cut(_ask(len, reader))) != job.length:
            raise _changed(spec, reader, f"it has {count} items now, and had {job.length}")
        if job.state != "running":
            journal.set_state("running")
        return job.length
    whole = _ask_index(reader.build_index, str(folder.index)) if isinstance(reader, WindowReader) else _ask(len, reader)
    length = spec.cut(whole)
    journal.set_planned(length, fingerprint)
    journal.set_state("running")
    reach("planned")
    return length


def _changed(spec: JobSpec, reader: InputReader, what: str) -> CodeChanged:
    return CodeChanged(
        f"job {spec.id}: the input {reader.path!r} has changed: {what}\n"
        f"  put the old input back, then: skybatch resume {spec.id}\n"
        f"  or give this job up, and run it anew: skybatch clean --unfinished {spec.id}"
    )


def _ask(question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the user's reader. Raises ReaderFailed; errors of ours, and a full disk, as they are."""
    try:
        return question(*args, **kwargs)
    except Exception as error:
        if isinstance(error, SkybatchError) or is_of_storage(error, DISK_FULL):
            raise
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # without this frame
        told = describe(error)
        cause = f"the input cannot be read: {told['message']}"
        raise ReaderFailed(Stop(state="failed", cause=cause, exit_code=1, traceback=told["traceback"])) from error


def _ask_index(question: Callable[[str], T], folder: str) -> T:
    """The same for an index that is kept in `folder`: there, any failure of the disk is raised as it is."""
    try:
        return _ask(question, folder)
    except ReaderFailed as failed:
        if isinstance(failed.__cause__, OSError) and is_of_storage(failed.__cause__):
            raise failed.__cause__ from None
        raise


# What is settled


def restored(journal: Journal, spec: JobSpec) -> dict[str, Any]:
    """What a scheduler begins with: won and dead stretches of items, and units to be tried again."""
    won: list[tuple[int, int]] = []
    dead: list[tuple[int, int]] = []
    units: list[Unit] = []
    if spec.on_error == "fail":
        journal.retry()  # something was mended, or why resume?
    for run in journal.runs():
        if run.state == "won":
            _join(won, run.start, run.end)
        elif run.state == "dead":
            _join(dead, run.start, run.end)
        else:
            for start in range(run.start, run.end + 1, run.size):
                units.append(_unit(run, start))
    return {"won": won, "dead": dead, "units": units}


def _unit(run: Run, start: int) -> Unit:
    end = min(start + run.size - 1, run.end)
    return Unit(start, end, run.attempt, isolated=run.isolated, tries_left=run.tries_left, charges=run.charges)


def _join(stretches: list[tuple[int, int]], start: int, end: int) -> None:
    """Append a stretch, joined to the one before where it follows."""
    if stretches and stretches[-1][1] + 1 == start:
        stretches[-1] = (stretches[-1][0], end)
    else:
        stretches.append((start, end))
