"""Taking a job up again: with its stored code or the files' current code, under its lock."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skybatch.engine import folder_claims
from skybatch.engine.folder import JobFolder
from skybatch.engine.run import Engine, Formats
from skybatch.engine.run_options import RunOptions
from skybatch.engine.settings import check_failure_limits
from skybatch.engine.spec import ON_ERROR, JobSpec
from skybatch.errors import UnknownName, UsageError
from skybatch.journal.journal import Journal
from skybatch.journal.lock import JobLock

if TYPE_CHECKING:
    from skybatch.engine.progress import ProgressDisplay

CODES = ("stored", "current")


@dataclass(frozen=True, kw_only=True)
class GoOn:
    """What is to be different from now on; None leaves a setting as it is. Raises UsageError for what cannot be."""

    code: str = "stored"  # one of CODES
    on_error: str | None = None
    max_failed_items: int | None = None
    max_failed_fraction: float | None = None
    retry: bool = False  # what was set aside is tried again, and published anew

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise UnknownName("code", self.code, CODES)
        if self.on_error is not None and self.on_error not in ON_ERROR:
            raise UnknownName("on_error policy", self.on_error, ON_ERROR)
        check_failure_limits(self.max_failed_items, self.max_failed_fraction)


def resume_engine(
    folder: JobFolder,
    options: RunOptions | None,
    display: ProgressDisplay | None,
    on_listening: Callable[[], None] = lambda: None,
    how: GoOn = GoOn(),
) -> None:
    """Lock a job and run it to its end.

    `on_listening` is called once the job is this engine's and others can watch it.

    Raises JobLocked when another engine runs it, JournalDamaged, UntrustedFolder, NetworkFilesystem; UsageError when it
    is too late for another policy.
    """
    folder.check_trusted()
    folder.check_filesystem()
    spec = JobSpec.load(folder.spec)
    with JobLock(folder.path):
        journal = Journal.open(folder.journal)
        try:
            if journal.job().state == "cleaned":
                on_listening()
                return
            spec = _with_policies(folder, journal, spec, how)
            journal.take_over()
            code_hash = _choose_code(folder, journal, how.code)
            if how.retry:
                journal.retry()
            formats, options = make_formats(folder, spec, code_hash), options or RunOptions(**spec.run)
            if journal.job().state != "published":
                folder_claims.take(formats.writers, spec.id)
            Engine(folder, spec, journal, formats, options, display).run(on_listening)
        finally:
            journal.close()


def _with_policies(folder: JobFolder, journal: Journal, spec: JobSpec, how: GoOn) -> JobSpec:
    """The spec with these policies for items that fail for good, also for every later resume."""
    asked = {key: getattr(how, key) for key in ("on_error", "max_failed_items", "max_failed_fraction")}
    changed = dataclasses.replace(spec, **{key: value for key, value in asked.items() if value is not None})
    if changed == spec:
        return spec
    put_together = any(output.state != "open" for output in journal.outputs())
    if changed.on_error != spec.on_error and put_together and not how.retry:
        raise UsageError(
            f"job {spec.id}: an output is put together already with on_error={spec.on_error!r}\n"
            f"  to go on with it as it is: skybatch resume {spec.id}"
        )
    changed.save(folder.spec)
    return changed


def _choose_code(folder: JobFolder, journal: Journal, which: str) -> str:
    """The hash of the code to go on with; says so when the user's files differ from it.

    Current code is stored and becomes the job's; ranges done with the old one keep its hash in the journal.
    """
    from skybatch.engine import code

    stored = folder.code / (journal.job().code_hash or JobSpec.load(folder.spec).code)
    changed = code.changed_since(stored)
    if which == "current" and changed:
        captured = code.recapture(stored)
        captured.store(folder.code)
        journal.set_code(captured.hash)
        for note in captured.notes:
            print(f"skybatch: {note}", file=sys.stderr)
        return captured.hash
    for name in changed:
        print(
            f"skybatch: {name} has changed since; the job goes on with the code it has (--code current takes the new)",
            file=sys.stderr,
        )
    return stored.name


def make_formats(folder: JobFolder, spec: JobSpec, code_hash: str) -> Formats:
    """Reader and writers from the job's stored code, for the engine of a resumed job."""
    from skybatch.worker import code, runtime

    refs = {key: ref for key, ref in spec.refs.items() if key != "mapper"}
    with runtime.loading_code():
        objects: dict[str, Any] = code.load(folder.code / code_hash, refs)
    writers = [objects[f"output{k}"](**fields) for k, fields in enumerate(spec.outputs)]
    return Formats(reader=objects["reader"](**spec.reader), writers=writers)
