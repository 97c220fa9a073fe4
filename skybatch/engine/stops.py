"""Why mapping ends before everything is mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skybatch.engine import events, told
from skybatch.engine.remedies import is_of_settings
from skybatch.journal.rows import FailureRow
from skybatch.worker.frames import Frame

FAILS = {
    "mapper": "the mapper fails on whatever it is given",
    "read": "the reader fails on whatever it is asked for",
    "write": "no result can be written",
    "lost": "workers die, whatever they are given",
    "timeout": "every batch takes too long",
    "memory": "nothing fits into memory",
}
"""What a failure of this kind comes to when nothing else ever happens."""
OTHER_SETTINGS = "a reader or writer with other settings makes another job: run that, and remove this one"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why mapping ended before everything was mapped."""

    state: str  # the job's state from now on
    cause: str
    exit_code: int
    traceback: str | None = None
    hint: str | None = None  # another way on than the usual one


def of_broken_worker(frame: Frame) -> Stop:
    """A worker that cannot work at all, as the end of the job."""
    cause = frame["message"]
    if frame.get("missing"):
        cause = (
            f"the workers' Python lacks a module: {cause}; install it there: python -m pip install {frame['missing']}"
        )
    traceback = None if frame.get("expected") or frame.get("missing") else frame.get("traceback")
    return Stop(state="failed", cause=cause, exit_code=1, traceback=traceback)


def of_no_worker(reasons: Mapping[str, str]) -> Stop:
    """There is no place left where a worker can be started; `reasons` by place."""
    said = "".join(f"\n  {place or 'here'}: {reason}" for place, reason in sorted(reasons.items()))
    return Stop(state="paused", cause=f"no worker can be started:{said or ' there is no slot'}", exit_code=75)


def of_broken_mapper(decision: events.Broken, last: FailureRow | None, lost: Frame | None) -> Stop:
    """Whatever is mapped fails: the newest failure tells, or else how the last worker died."""
    if last is None:
        cause = f"workers die before they have mapped anything: {told.death(lost)}" if lost else decision.signature
        return Stop(state="failed", cause=cause, exit_code=1, traceback=told.stacks(lost))
    cause = f"{FAILS.get(last.kind, FAILS['mapper'])}: {last.message}"
    hint = OTHER_SETTINGS if is_of_settings(last) else None
    return Stop(state="failed", cause=cause, exit_code=1, traceback=last.traceback, hint=hint)


def of_budget(decision: events.OverBudget, job_id: str) -> Stop:
    """More items have failed for good than the job allows."""
    items = "item has" if decision.dead == 1 else "items have"
    return Stop(
        state="failed",
        cause=f"{decision.dead} {items} failed for good, and {decision.allowed} may (max_failed_items)",
        hint=f"to allow more: skybatch resume {job_id} --max-failed-items N",
        exit_code=1,
    )
