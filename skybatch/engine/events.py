"""What the scheduler is told and what it answers. Plain values: ranges are [start, end], inclusive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BUDGETS = {"mapper": 3, "memory": 3, "timeout": 3, "lost": 3, "storage": 3}
"""How often a range is tried again after failures of a class, by default. Storage's is the workers' together: so many
in a row may fail for it before the job pauses."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one job's scheduling depends on."""

    length: int  # items in the dataset
    batch_size: int  # items per virgin range; the last may be shorter
    budgets: Mapping[str, int] = field(default_factory=BUDGETS.copy)  # see BUDGETS; all classes
    max_dead: int | None = None  # more items set aside than this stop the job; None: any number may be
    fits: int | None = None  # so many items at once fit into a worker's memory; None: not known to be a limit
    speculate: bool = False  # idle workers get second copies of the slowest ranges
    depth: int = 2  # grants in one worker's hands at a time
    target_s: float = 0.5  # how long a grant should keep its worker busy
    tail_s: float = 0.02  # towards the end grants shrink, but not below this much work
    backoff_s: float = 0.1  # wait before the first retry; doubles with each
    backoff_max_s: float = 30.0  # the longest wait

    def __post_init__(self) -> None:
        if self.length < 0 or self.batch_size < 1 or self.depth < 1:
            raise ValueError(f"impossible settings: {self}")


@dataclass(frozen=True, slots=True)
class Unit:
    """A range that is no longer virgin: it failed, is suspected, or came out of a split."""

    start: int
    end: int
    attempt: int  # failures and losses charged so far
    not_before: float = 0.0  # on the scheduler's clock; 0 on resume means now
    isolated: bool = False  # runs alone in its worker, so that a death tells whose fault it is
    tries_left: int | None = None  # 1 for parts of a split; None: the budgets decide
    charges: Mapping[str, int] = field(default_factory=dict)  # what was charged by class, and "suspected"
    signature: str = ""  # of the last failure that was charged; not known after a resume


# Events


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker can take grants. Its number may be used again after it was lost."""

    worker: int


@dataclass(frozen=True, slots=True)
class RangesDone:
    """A consecutive stretch of whole ranges of one grant was mapped and stored under one nonce."""

    worker: int
    grant: int
    start: int
    end: int
    nonce: str
    seconds: float  # the worker was busy with this stretch for so long
    ranges: int  # how many ranges the stretch has


@dataclass(frozen=True, slots=True)
class RangeFailed:
    """One range of a grant failed; the worker lives and goes on."""

    worker: int
    grant: int
    start: int
    end: int
    kind: str  # "mapper", "memory", "read", "write", ...
    signature: str  # error class and place: equal for failures that are alike


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone, with everything it had in hand."""

    worker: int
    reason: str
    """exit: it died; timeout: killed, a batch took too long; memory: killed by the kernel, or it gave up, for want of
    memory; storage: it could not read or write; preempted: its host wanted it gone; gone: closed. The last three are no
    range's fault."""
    held: tuple[tuple[int, int], ...] = ()  # ranges in hand by stage, the one being mapped first


@dataclass(frozen=True, slots=True)
class Drain:
    """Grant nothing any more; answers still count."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `Scheduler.next_wake` has come."""


Event = WorkerReady | RangesDone | RangeFailed | WorkerLost | Drain | Tick


# Decisions


@dataclass(frozen=True, slots=True)
class Grant:
    """Send the ranges of [start, end], each `size` items long (the last may be shorter), to the worker."""

    worker: int
    grant: int
    start: int
    end: int
    size: int
    attempt: int  # 1 for a first try; else 1 + what was charged
    isolated: bool
    copy_of: int | None = None  # the grant whose ranges these are too; the first answer counts


@dataclass(frozen=True, slots=True)
class Won:
    """The results of [start, end] under this nonce are the winners. Final."""

    start: int
    end: int
    nonce: str
    attempt: int
    grant: int


@dataclass(frozen=True, slots=True)
class Late:
    """An answer that changes nothing: [start, end] is won, dead or split, or was answered before."""

    start: int
    end: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The unit waits to be granted (again).

    `kind` is that of the failure charged to it, or, where nothing was charged, "suspected" (its worker died
    with several ranges in hand) or "returned" (it was in a lost worker's grant, but not in hand).
    """

    unit: Unit
    kind: str


@dataclass(frozen=True, slots=True)
class Split:
    """The range is retired, with all its attempts; its parts, two at least, wait instead."""

    start: int
    end: int
    parts: tuple[Unit, ...]
    attempt: int  # what was charged to the retired range
    kind: str  # of the failure that was its last


@dataclass(frozen=True, slots=True)
class Dead:
    """A single item that is out of tries."""

    start: int
    end: int
    attempt: int  # what was charged to it
    kind: str  # of its last failure


@dataclass(frozen=True, slots=True)
class EndGrant:
    """Every range of the grant was answered, or its worker was lost. Ranges neither won nor named by another
    decision are pending again."""

    grant: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Not the items but the mapper is at fault: stop the job. [start, end] is the range that showed it."""

    start: int
    end: int
    signature: str


@dataclass(frozen=True, slots=True)
class Fits:
    """Ranges run out of memory: from now on so many items are mapped at once."""

    items: int


@dataclass(frozen=True, slots=True)
class OverBudget:
    """More items are set aside than the job allows: stop it. Told once."""

    dead: int
    allowed: int


@dataclass(frozen=True, slots=True)
class StorageDown:
    """Workers fail for their storage again and again: the job should wait for better times. Told once."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every item is won or dead. Told once."""


Decision = Grant | Won | Late | Retry | Split | Dead | EndGrant | Broken | Fits | OverBudget | StorageDown | Finished
