"""The command that goes on with a job that stands still: told by its failure, by `status` and by whoever waits."""

from __future__ import annotations

from skybatch.engine.spec import JobSpec
from skybatch.journal.reading import Queries
from skybatch.journal.rows import FailureRow


def command(journal: Queries, spec: JobSpec) -> str:
    """What goes on with this job, which is not done and has no engine.

    A failed one goes on with the files' current code: something in them was mended, or they are as they were and so
    is the code. Where all but some items are mapped, only those are tried again. Two failures no code can mend: items
    that cannot be read or written as reader and writers are set, of some items (then without them) or of all (then the
    job is given up, to be run with other settings).
    """
    if journal.job().state != "failed":
        return f"skybatch resume {spec.id}"
    failure, of_some = _cause(journal, spec)
    if failure is None or not is_of_settings(failure):
        return f"skybatch {'retry' if of_some else 'resume'} {spec.id} --code current"
    return f"skybatch resume {spec.id} --on-error skip" if of_some else f"skybatch clean --unfinished {spec.id}"


def is_of_settings(failure: FailureRow) -> bool:
    """Whether reader or writer refused an item on purpose, so that only input or settings can be mended."""
    return failure.kind in ("read", "write") and failure.traceback is None


def _cause(journal: Queries, spec: JobSpec) -> tuple[FailureRow | None, bool]:
    """The failure that ended the job, if items are to blame; and whether they are but some of them."""
    counts = journal.counts()
    if not counts.won_items:
        return next(iter(journal.failures(1)), None), False
    if counts.dead_items and spec.on_error == "fail":
        return next(iter(journal.dead_failures()))[1], True
    return None, False
