"""What workers and the scheduler have told, as rows of the journal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable

from skybatch.engine import events
from skybatch.engine.pace import seal_s
from skybatch.formats.masking import masked
from skybatch.journal.rows import FailureRow, GrantRow, Run, Segment
from skybatch.worker.frames import Frame

DEATHS = {
    "timeout": "the batch timeout passed",
    "memory": "out of memory: {death}",
    "preempted": "the worker was told to go by the machine it ran on (SIGTERM)",
    "lost": "{death}",
}
"""What is told of a worker's death, by the class of failure it comes to."""


def granted(grant: events.Grant, epoch: int) -> GrantRow:
    """A grant about to be sent."""
    return GrantRow(
        id=grant.grant,
        epoch=epoch,
        worker=str(grant.worker),
        start=grant.start,
        end=grant.end,
        size=grant.size,
        attempt=grant.attempt,
        at=time.time(),
    )


def grant_frame(grant: events.Grant, workers: int) -> Frame:
    """The grant as its worker gets it, one of so many."""
    return {
        "op": "grant",
        "id": grant.grant,
        "start": grant.start,
        "end": grant.end,
        "size": grant.size,
        "attempt": grant.attempt,
        "seal_s": seal_s(workers),
    }


def segment(frame: Frame, epoch: int, worker: str) -> Segment:
    """A worker's answer: where the results are."""
    return Segment(
        nonce=frame["nonce"],
        start=frame["start"],
        end=frame["end"],
        epoch=epoch,
        worker=worker,
        info={"files": frame["files"]},
    )


def won(decision: events.Won, size: int, code: str) -> Run:
    """Winners of `size` items each."""
    return Run(
        start=decision.start,
        end=decision.end,
        size=size,
        state="won",
        attempt=decision.attempt,
        nonce=decision.nonce,
        code=code,
    )


def dead(decision: events.Dead, code: str) -> Run:
    """An item set aside."""
    return Run(
        start=decision.start,
        end=decision.end,
        size=decision.end - decision.start + 1,
        state="dead",
        attempt=decision.attempt,
        code=code,
    )


def waiting(unit: events.Unit, code: str) -> Run:
    """A range that is to be tried again."""
    return Run(
        start=unit.start,
        end=unit.end,
        size=unit.end - unit.start + 1,
        state="retrying",
        attempt=unit.attempt,
        not_before=time.time() + max(0.0, unit.not_before - time.monotonic()),
        isolated=unit.isolated,
        tries_left=unit.tries_left,
        charges=dict(unit.charges),
        code=code,
    )


def failure(frame: Frame, slot: str) -> FailureRow:
    """What a worker says failed."""
    return FailureRow(
        start=frame["start"],
        end=frame["end"],
        attempt=frame["attempt"],
        kind=frame["kind"],
        message=frame["message"],
        traceback=None if frame.get("expected") else frame["traceback"],  # our own frames tell nobody anything
        item=frame["item"] if frame["item"] is not None else _only(frame["start"], frame["end"]),
        worker=slot,
        at=time.time(),
    )


def storage_failure(grant: events.Grant, frame: Frame, slot: str) -> FailureRow:
    """A worker's storage failed, with this grant in hand; nothing is charged."""
    return FailureRow(
        start=grant.start,
        end=min(grant.start + grant.size - 1, grant.end),
        attempt=grant.attempt - 1,
        kind="storage",
        message=frame["message"],
        worker=slot,
        at=time.time(),
    )


def preemption(grants: Iterable[events.Grant], start: int, end: int, slot: str) -> FailureRow:
    """A preempted worker had this range in hand, of one of these grants; nothing is charged."""
    tries = (grant.attempt - 1 for grant in grants if grant.start <= start and end <= grant.end)
    return FailureRow(
        start=start,
        end=end,
        attempt=next(tries, 0),
        kind="preempted",
        message=DEATHS["preempted"],
        item=_only(start, end),
        worker=slot,
        at=time.time(),
    )


def loss(decision: events.Decision, lost: Frame | None, slot: str) -> FailureRow | None:
    """A worker's death as a failure of the range it was charged to; None when it was charged to none."""
    if isinstance(decision, events.Retry):
        start, end, attempt = decision.unit.start, decision.unit.end, decision.unit.attempt
    elif isinstance(decision, events.Split | events.Dead):
        start, end, attempt = decision.start, decision.end, decision.attempt
    else:
        return None
    kind = decision.kind
    if kind not in DEATHS:
        return None
    return FailureRow(
        start=start,
        end=end,
        attempt=attempt,
        kind=kind,
        message=DEATHS[kind].format(death=death(lost)),
        traceback=stacks(lost),
        item=_only(start, end),
        worker=slot,
        at=time.time(),
    )


def stacks(lost: Frame | None) -> str | None:
    """Where a worker that was killed for being stuck was, by its own account; None when it gave none."""
    told = (lost or {}).get("stacks")
    return masked(told) if told else None


def death(lost: Frame | None) -> str:
    """How a worker died, by what its parent said of it."""
    if lost is None:
        return "the worker's parent was killed"
    if lost.get("reason") == "timeout" and not lost.get("held"):
        return "the mapper took too long to ask for its first batch"
    if lost.get("message"):
        return str(lost["message"])
    status = lost.get("status")
    if status is None:
        return "the worker died"
    if status & 0x7F:
        return f"the worker was killed by {_signal_name(status & 0x7F)}"
    return f"the worker ended with exit code {status >> 8} in the middle of its work"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one


def _only(start: int, end: int) -> int | None:
    return start if start == end else None
