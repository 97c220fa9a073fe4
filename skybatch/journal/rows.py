"""The records that go into and come out of the journal. Times are seconds since 1970, ends inclusive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRow:
    """The job itself."""

    id: str
    name: str
    created_at: float
    batch_size: int
    state: str = "planning"
    cause: str | None = None  # why it is paused, cancelled, failed or in conflict
    epoch: int = 1  # how many engines have taken it up
    length: int | None = None  # items of the dataset; None until planned
    code_hash: str | None = None
    input_fingerprint: Any = None  # any JSON value
    spec_hash: str | None = None
    finished_at: float | None = None
    updated_at: float = 0.0  # set by the journal
    fits: int | None = None  # so many items at once fit into a worker's memory; None: it never ran out


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Consecutive ranges that share everything but their place."""

    start: int
    end: int
    size: int  # items per range; the last range may be shorter
    state: str  # "won", "retrying" or "dead"
    attempt: int  # tries charged to each of these ranges
    nonce: str | None = None  # the segment with the winner's results; None unless won
    not_before: float | None = None
    isolated: bool = False  # granted only to a worker that has nothing else
    tries_left: int | None = None  # None: the job's budget counts
    code: str | None = None  # hash of the code that ran
    charges: dict[str, int] = field(default_factory=dict)  # while retrying: what was charged, by class of failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One answer's stored file, for all outputs."""

    nonce: str
    start: int
    end: int
    epoch: int
    worker: str
    info: dict[str, Any]  # as the worker sent it


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantRow:
    """Ranges in the hands of a worker."""

    id: int
    epoch: int
    worker: str
    start: int
    end: int
    size: int
    attempt: int
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureRow:
    """One failed try at a range."""

    start: int
    end: int
    attempt: int
    kind: str
    message: str
    traceback: str | None = None
    item: int | None = None  # the item at fault, once known
    worker: str | None = None
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputRow:
    """One output and how far its publishing is."""

    idx: int
    path: str
    state: str  # "open", "publishing", "published" or "cleaned"
    token: dict[str, Any] | None = None  # how the published output is recognised as ours
    progress: dict[str, Any] | None = None  # what of it is put together already, and where to go on
    replaces: dict[str, Any] | None = None  # the token of this job's earlier publication, which may be replaced


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many items and ranges are in which state. Granted ones may also count as retrying."""

    ranges: int = 0  # all ranges of the job, a split one as its parts; 0 until planned
    won_items: int = 0
    won_ranges: int = 0
    dead_items: int = 0
    dead_ranges: int = 0
    retrying_items: int = 0
    retrying_ranges: int = 0
    granted_items: int = 0


@dataclass(kw_only=True, slots=True)
class Changes:
    """What one turn of the engine changes; committed as a whole or not at all.

    Applied in this order: splits, dead, retrying, won; so within one turn a winner beats a retry.
    """

    won: list[Run] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    retrying: list[Run] = field(default_factory=list)
    dead: list[Run] = field(default_factory=list)
    splits: list[tuple[int, int, int]] = field(default_factory=list)  # start, end, number of parts
    failures: list[FailureRow] = field(default_factory=list)
    grants: list[GrantRow] = field(default_factory=list)
    ended_grants: list[int] = field(default_factory=list)
    progress: dict[int, dict[str, Any]] = field(default_factory=dict)  # by output; alone no reason to commit
    fits: int | None = None  # the size that fits into memory, where it has changed

    def __bool__(self) -> bool:
        return bool(
            self.won
            or self.segments
            or self.retrying
            or self.dead
            or self.splits
            or self.failures
            or self.grants
            or self.ended_grants
            or self.fits
        )
