"""How a run stops before its output is published: what is recorded of it, and what is raised."""

from __future__ import annotations

from typing import Any

from skybatch import plugins
from skybatch.engine import dead_letters, remedies
from skybatch.engine.folder import JobFolder
from skybatch.engine.interrupts import Interrupted
from skybatch.engine.spec import JobSpec
from skybatch.engine.stops import Stop
from skybatch.errors import JobFailed, OutputExists, Paused, StorageFailed, is_of_storage
from skybatch.formats.base import InputReader
from skybatch.journal.journal import Journal


class Endings:
    """Those of one run. Each raises what tells the user, but for `dead_letters`, which says why it has to end."""

    def __init__(self, folder: JobFolder, spec: JobSpec, journal: Journal, reader: InputReader) -> None:
        self._folder, self._spec, self._journal, self._reader = folder, spec, journal, reader

    @property
    def command(self) -> str:
        """What goes on with the job."""
        return f"skybatch resume {self._spec.id}"

    def dead_letters(self, items: int) -> Stop:
        """Items failed for good, and the job is to publish all or nothing."""
        dead_letters.keep(self._folder, self._journal, self._reader)
        first = next(iter(self._journal.dead_failures()), None)
        failure = first[1] if first else None
        what = f"; the first: {_where(failure)}: {failure.message}" if failure else ""
        return Stop(
            state="failed",
            cause=f"{items} item{'s' if items > 1 else ''} failed for good{what}",
            hint=f"to publish without what fails: skybatch resume {self._spec.id} --on-error skip",
            exit_code=1,
            traceback=failure.traceback if failure else None,
        )

    def interrupted(self, interrupted: Interrupted) -> None:
        """A signal has come."""
        cause, code = f"interrupted by {interrupted}", 128 + interrupted.number
        state = self._journal.job().state
        if state in ("published", "cleaned"):
            raise Paused(self._spec.id, f"{cause}; the output is published", self.command, exit_code=code)
        self.end(Stop(state="paused", cause=cause, exit_code=code))

    def storage_failed(self, error: StorageFailed) -> None:
        """A store that does not answer, or refuses, pauses the job."""
        cause = f"storage failed: {error}"
        if self._journal.job().state in ("published", "cleaned"):
            raise Paused(self._spec.id, f"{cause}; the output is published", self.command) from error
        self.end(Stop(state="paused", cause=cause, exit_code=75))

    def disk_failed(self, error: OSError) -> None:
        """A disk that is full, read-only or broken pauses the job; any other error is passed on."""
        if not is_of_storage(error):
            raise error
        cause = f"{error.strerror}: {error.filename or self._folder.path}"
        try:
            self._journal.set_state("paused", cause)
        except OSError:
            pass  # the journal is on that disk; what it says now is resumable too
        raise Paused(self._spec.id, cause, self.command) from error

    def end(self, stop: Stop) -> None:
        """Record why the job stops here, and raise what says so."""
        self._journal.set_state(stop.state, stop.cause)
        plugins.notify("skybatch_job_finished", job_id=self._spec.id, state=stop.state)
        job, command = self._spec.id, self.command
        if stop.state == "conflict":
            raise OutputExists(f"job {job}: {stop.cause}\n  move it away, then: {command}")
        if stop.state in ("paused", "cancelled"):
            raise Paused(job, stop.cause, command, exit_code=stop.exit_code)
        cause = stop.cause
        if stop.traceback:
            cause = f"{stop.traceback.rstrip()}\n{cause}"
        command = remedies.command(self._journal, self._spec)
        hint = f"\n  {stop.hint}" if stop.hint and command not in stop.hint else ""
        raise JobFailed(job, f"{cause}\n  logs: {self._folder.logs}{hint}", command, exit_code=stop.exit_code)


def _where(failure: Any) -> str:
    if failure.item is not None:
        return f"item {failure.item}"
    return f"items {failure.start}-{failure.end}"
