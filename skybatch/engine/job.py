"""Jobs as their users see them: find them, watch them, wait for them, go on with them."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from skybatch.engine import control, remedies
from skybatch.engine import folder as folders
from skybatch.engine.folder import JobFolder
from skybatch.engine.progress import counted
from skybatch.engine.resuming import GoOn, resume_engine
from skybatch.engine.run import Engine, Formats
from skybatch.engine.run_options import RunOptions
from skybatch.engine.spec import JobSpec
from skybatch.errors import (
    JobFailed,
    JobNotFound,
    JournalError,
    Paused,
    UsageError,
)
from skybatch.formats.masking import masked
from skybatch.journal.journal import Journal
from skybatch.journal.lock import JobLock, is_held
from skybatch.journal.reading import Reader
from skybatch.journal.rows import FailureRow, JobRow

if TYPE_CHECKING:
    from skybatch.engine.progress import ProgressDisplay

DONE = frozenset({"published", "cleaned"})
DAMAGED = "damaged"  # the state of a job whose journal cannot be read
FAILED = frozenset({"failed", "conflict", DAMAGED})  # what stands so waits for someone to mend something
LISTED_MAX = 20


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is, as committed."""

    state: str
    items: int | None  # None until the length is known
    items_done: int
    items_dead: int
    ranges: int
    ranges_done: int
    epoch: int  # how often an engine has taken the job up
    engine_running: bool
    items_per_s: float | None  # since the job was made; None before the first result


class Job:
    """A job by its folder. Reads the journal anew at every question, so it works from any process."""

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        """The job's id."""
        return self.folder.id

    @cached_property
    def spec(self) -> JobSpec:
        """What was asked for."""
        return JobSpec.load(self.folder.spec)

    @property
    def name(self) -> str:
        """The name given, or the mapper's."""
        return self.spec.name

    @property
    def output(self) -> str:
        """Where its outputs are, or will be."""
        return ", ".join(masked(fields["path"]) for fields in self.spec.outputs)

    @property
    def state(self) -> str:
        """The state as journalled; `running` may also be a job whose engine has died."""
        return self._row().state

    @property
    def command(self) -> str:
        """The command that goes on with it, when it is not done and no engine runs it."""
        with Reader(self.folder.journal) as reader:
            return remedies.command(reader, self.spec)

    @property
    def engine_running(self) -> bool:
        """Whether an engine runs it now."""
        return is_held(self.folder.path)

    def wait(self, timeout_s: float | None = None) -> Job:
        """Wait until no engine runs the job. Raises JobFailed or Paused when it is not done then, TimeoutError."""
        waiting = threading.Thread(target=self._wait_for_lock, daemon=True)
        waiting.start()
        waiting.join(timeout_s)
        if waiting.is_alive():
            raise TimeoutError(f"job {self.id} still runs after {timeout_s} s")
        self.raise_unless_done()
        return self

    def raise_unless_done(self) -> None:
        """Raise JobFailed or Paused, with the command that goes on, unless the job is done."""
        with Reader(self.folder.journal) as reader:
            row = reader.job()
            if row.state in DONE:
                return
            command = remedies.command(reader, self.spec)
        if row.state in ("failed", "conflict"):
            raise JobFailed(self.id, row.cause or row.state, command, exit_code=73 if row.state == "conflict" else 1)
        raise Paused(self.id, row.cause or f"its engine ended while {row.state}", command)

    def _wait_for_lock(self) -> None:
        fd = os.open(self.folder.lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def progress(self) -> Progress:
        """How far it is."""
        with Reader(self.folder.journal) as reader:
            row, counts = reader.job(), reader.counts()
        until = row.finished_at or row.updated_at
        seconds = max(1e-9, until - row.created_at)
        return Progress(
            state=row.state,
            items=row.length,
            items_done=counts.won_items,
            items_dead=counts.dead_items,
            ranges=counts.ranges,
            ranges_done=counts.won_ranges,
            epoch=row.epoch,
            engine_running=self.engine_running,
            items_per_s=counts.won_items / seconds if counts.won_items else None,
        )

    def cancel(self) -> None:
        """Stop it, resumably: the running engine's workers are killed; what is committed stays."""
        if control.ask_to_cancel(self.folder):
            self._wait_for_lock()  # the socket is closed a moment before the job is let go
            return
        with JobLock(self.folder.path):
            journal = Journal.open(self.folder.journal)
            try:
                if journal.job().state not in DONE:
                    journal.take_over()
                    journal.set_state("cancelled", "cancelled by request")
            finally:
                journal.close()

    def errors(self) -> list[FailureRow]:
        """Failures that are kept, oldest first: also of ranges that worked out later."""
        with Reader(self.folder.journal) as reader:
            return reader.failures()

    def export_errors(self, path: str | os.PathLike[str]) -> int:
        """Write the items that failed for good to a file, as JSON Lines; how many there are.

        Each has index, item, class, message, traceback, attempts and code. The items are read again, by the job's own
        reader in this process. An older file is replaced.
        """
        from skybatch.engine import dead_letters
        from skybatch.engine.resuming import make_formats

        self.folder.check_trusted()
        with Reader(self.folder.journal) as reader:
            code = reader.job().code_hash or self.spec.code
            formats = make_formats(self.folder, self.spec, code)
            return dead_letters.export(Path(path), self.folder, reader, formats.reader)

    def _row(self) -> JobRow:
        with Reader(self.folder.journal) as reader:
            return reader.job()

    def __repr__(self) -> str:
        return f"<skybatch job {self.id}>"


def all_jobs() -> list[Job]:
    """Every job of this $SKYBATCH_HOME, oldest first."""
    return [Job(folder) for folder in folders.job_folders(folders.home()) if folder.spec.exists()]


jobs = all_jobs


def find_job(reference: str | None = None) -> Job:
    """The job with this id, unique prefix, or `last`; None: the one that stands unfinished.

    Of several unfinished ones it is the one that has not failed, if there is just one. Raises JobNotFound, or
    UsageError listing the candidates, newest first, when there are several.
    """
    known = all_jobs()
    if reference is None:
        unfinished = [(job, state) for job in known if (state := _state(job)) not in DONE]
        halted = [job for job, state in unfinished if state not in FAILED]
        return _only(halted if len(halted) == 1 else [job for job, _ in unfinished], "unfinished job")
    if reference == "last":
        if not known:
            raise JobNotFound("there are no jobs yet")
        return known[-1]
    exact = [job for job in known if job.id == reference]
    return _only(exact or [job for job in known if job.id.startswith(reference)], f"job {reference!r}")


def _state(job: Job) -> str:
    try:
        return job.state
    except JournalError:
        return DAMAGED


def _only(found: list[Job], what: str) -> Job:
    if len(found) == 1:
        return found[0]
    if not found:
        raise JobNotFound(f"there is no {what}; see: skybatch list")
    listed = "\n".join(map(_listed, found[: -LISTED_MAX - 1 : -1]))
    raise UsageError(f"more than one {what}; say which:\n{listed}")


def _listed(job: Job) -> str:
    """A job among several: id, state, when it was made, its outputs."""
    try:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.spec.created_at))
        output = job.output
    except JournalError:
        made = output = "-"
    return f"  {job.id}  {_state(job):9}  {made}  {output}"


def resume(
    job_id: str | None = None,
    *,
    pool: str | None = None,
    executor: str | None = None,
    workers: int | None = None,
    code: str = "stored",
    on_error: str | None = None,
    max_failed_items: int | None = None,
    max_failed_fraction: float | None = None,
    stream: bool = True,
) -> Job:
    """Go on with a job from where its journal stands, with the code it was started with.

    `code="current"` takes the mapper and custom classes from the user's files as they are now; which ranges ran
    with which code is in the journal. `on_error="skip"` publishes without the items that fail, or have failed, for
    good; "fail" tries those again and publishes nothing while there are any. `max_failed_items` and
    `max_failed_fraction` are as in `Dataset.map`. None leaves these as they are.

    Without `pool`, `executor` or `workers` it runs as it was started. Returns when the job is done, or with
    `stream=False` once a detached engine holds its lock. Raises as `Dataset.map` does, and JobLocked when an
    engine runs it already.
    """
    limits = {"max_failed_items": max_failed_items, "max_failed_fraction": max_failed_fraction}
    how = GoOn(code=code, on_error=on_error, **limits)  # type: ignore[arg-type]
    job = find_job(job_id)
    return run_engine(job.folder, _run_options(job, pool, executor, workers), stream, how)


def retry(
    job_id: str | None = None,
    *,
    pool: str | None = None,
    executor: str | None = None,
    workers: int | None = None,
    code: str = "stored",
    on_error: str | None = None,
    max_failed_items: int | None = None,
    max_failed_fraction: float | None = None,
    stream: bool = True,
) -> Job:
    """Try only the items again that a job has set aside, and publish it with their results in their places.

    What is published already stays until then; nothing that was mapped is mapped again. Without `job_id` it is the one
    job with such items. Where the job is not done otherwise, the rest of it is mapped too; where nothing was set aside,
    nothing happens. Arguments and errors are those of `resume`; OutputExists when an output was changed since.
    """
    limits = {"max_failed_items": max_failed_items, "max_failed_fraction": max_failed_fraction}
    how = GoOn(code=code, on_error=on_error, retry=True, **limits)  # type: ignore[arg-type]
    job = find_job(job_id) if job_id else _only([job for job in all_jobs() if _dead(job)], "job with failed items")
    dead = _dead(job)
    if not dead:
        announce(job.id, f"has no items that were set aside; it is {job.state}")
        return job
    announce(job.id, f"tries {counted(dead)} again")
    return run_engine(job.folder, _run_options(job, pool, executor, workers), stream, how)


def _dead(job: Job) -> int:
    try:
        return job.progress().items_dead
    except JournalError:
        return 0


def _run_options(job: Job, pool: str | None, executor: str | None, workers: int | None) -> RunOptions | None:
    """None: as the job was started."""
    from skybatch.engine.dataset import run_options

    if pool or executor:
        return run_options(pool, executor, workers, None)
    return RunOptions(**{**job.spec.run, "workers": workers}) if workers else None


def run_engine(
    folder: JobFolder,
    options: RunOptions | None,
    stream: bool,
    how: GoOn = GoOn(),  # noqa: B008 - frozen
    *,
    fresh: tuple[JobSpec, Journal, Formats, JobLock] | None = None,
) -> Job:
    """Run a job's engine here, or detached; `fresh` is a job just made whose lock the caller holds."""
    job = Job(folder)
    if not stream:
        from skybatch.engine import detached

        detached.start(folder, options, how)
        return job
    from skybatch.engine import unfinished

    display = _display()
    try:
        if fresh is None:
            resume_engine(folder, options, display, how=how)
        else:
            spec, journal, formats, _ = fresh
            Engine(folder, spec, journal, formats, options or RunOptions(), display).run()
    finally:
        unfinished.forget_when_done(folder)
    _announce_end(job)
    return job


def _announce_end(job: Job) -> None:
    """Say where a done job's outputs are, and what is not in them."""
    dead = job.progress().items_dead
    were, them = ("was", "it") if dead == 1 else ("were", "them")
    without = (
        f"; {counted(dead)} {were} set aside\n"
        f"  to see {them}: skybatch errors {job.id}; to try {them} again: skybatch retry {job.id} --code current"
        if dead
        else ""
    )
    announce(job.id, f"is done: {job.output}{without}")


def _display() -> ProgressDisplay:
    from skybatch.engine.progress import ProgressDisplay

    return ProgressDisplay(sys.stderr)


def announce(job_id: str, what: str) -> None:
    """Say a job's id, first of all."""
    try:
        print(f"skybatch: job {job_id} {what}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads
