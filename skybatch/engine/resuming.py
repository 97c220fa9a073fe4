"""Taking a job up again: with its stored code or the files' current code, under its lock."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skybatch.engine import folder_claims
from skybatch.engine.folder import JobFolder
from skybatch.engine.run import Engine, Formats, RunOptions
from skybatch.engine.spec import JobSpec
from skybatch.errors import UsageError
from skybatch.journal.journal import Journal
from skybatch.journal.lock import JobLock

if TYPE_CHECKING:
    from skybatch.engine.progress import ProgressDisplay


def resume_engine(
    folder: JobFolder,
    options: RunOptions | None,
    display: ProgressDisplay | None,
    on_listening: Callable[[], None] = lambda: None,
    code: str = "stored",
    on_error: str | None = None,
) -> None:
    """Lock a job and run it to its end, with the code it was started with, or the files' `current` code.

    `on_error` is the job's policy from now on; None: as it was.

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
            spec = _with_policy(folder, journal, spec, on_error or spec.on_error)
            journal.take_over()
            code_hash = _choose_code(folder, journal, code)
            formats, options = make_formats(folder, spec, code_hash), options or RunOptions(**spec.run)
            if journal.job().state != "published":
                folder_claims.take(formats.writers, spec.id)
            Engine(folder, spec, journal, formats, options, display).run(on_listening)
        finally:
            journal.close()


def _with_policy(folder: JobFolder, journal: Journal, spec: JobSpec, on_error: str) -> JobSpec:
    """The spec with this policy for items that fail for good, also for every later resume."""
    if on_error == spec.on_error:
        return spec
    if any(output.state != "open" for output in journal.outputs()):
        raise UsageError(
            f"job {spec.id}: an output is put together already with on_error={spec.on_error!r}\n"
            f"  to go on with it as it is: skybatch resume {spec.id}"
        )
    spec = dataclasses.replace(spec, on_error=on_error)
    spec.save(folder.spec)
    return spec


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
