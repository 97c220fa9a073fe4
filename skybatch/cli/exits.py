"""The exit codes; docs/cli.md is made from these."""

from __future__ import annotations

DONE, FAILED, USAGE, DONE_WITH_DEAD_LETTERS, CHANGED, LOCKED = range(6)
CONFLICT, DAMAGED, PAUSED = 73, 74, 75

EXIT_CODES = {
    DONE: "done",
    FAILED: "failed; the message has the command that goes on",
    USAGE: "usage: nothing was started",
    DONE_WITH_DEAD_LETTERS: "done, with items set aside; see `skybatch errors`",
    CHANGED: "the input or code has changed since the job began",
    LOCKED: "another engine runs this job",
    CONFLICT: "something else stands at an output's place; it was left untouched",
    DAMAGED: "the journal is damaged, or its folder cannot be trusted",
    PAUSED: "paused or cancelled; resumable",
}

_OF_STATE = {"failed": FAILED, "conflict": CONFLICT, "damaged": DAMAGED}


def of_job(state: str, items_dead: int) -> int:
    """The exit code for a job that stands in this state without an engine."""
    if state in ("published", "cleaned"):
        return DONE_WITH_DEAD_LETTERS if items_dead else DONE
    return _OF_STATE.get(state, PAUSED)
