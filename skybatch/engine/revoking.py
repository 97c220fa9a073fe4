"""Winners whose stored results are lost: they are revoked, loudly, and mapped again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from skybatch.engine.finish import results_of
from skybatch.engine.reduction import LostResults, Results
from skybatch.errors import SegmentDamaged
from skybatch.formats import batchfiles, stores
from skybatch.formats.base import SegmentWriter
from skybatch.formats.batchfiles import Stretch
from skybatch.formats.masking import masked
from skybatch.formats.stores import retrying
from skybatch.journal.rows import FailureRow, OutputRow, Run, Segment

if TYPE_CHECKING:
    from skybatch.engine.run import Engine

TOLD_MAX = 10
"""So many lost results are told one by one."""
LOOKED_AT_AT_ONCE, TAKEN_AT_ONCE = 16, 1000


def revoke(engine: Engine, first: LostResults) -> None:
    """Revoke the winner that was found lost, and every other one that is, in one transaction.

    What was put together of outputs that are not published is begun anew: a later attempt may bring other bytes.
    Raises `first` when nothing is found lost any more; SegmentDamaged, after it has revoked them, when a custom
    writer has none of its batch files: its code is to blame, and is not tried on everything once more.
    """
    for merging in engine.merging.values():
        merging.abandon()
    engine.merging.clear()
    unpublished = [row for row in engine.journal.outputs() if row.state in ("open", "publishing")]
    checked = [_stored(engine, row, first) for row in unpublished]
    lost = list(_lost(engine, checked, first))
    if not lost:
        raise first
    for row in unpublished:
        _abort(engine, row)
    failures = [_failure(run, cause) for run, cause in lost]
    has_none = any(isinstance(stored, _BatchFiles) and stored.has_none(engine) for stored in checked)
    engine.journal.revoke([run for run, _ in lost], failures, [row.idx for row in unpublished])
    if has_none:
        raise SegmentDamaged(f"{first}; none of its batch files is there")
    for run, cause in lost[:TOLD_MAX]:
        _say(f"skybatch: {cause}; items {run.start}-{run.end} are mapped again")
    if len(lost) > TOLD_MAX:
        rest = f"{len(lost) - TOLD_MAX} more lost results are mapped again"
        _say(f"skybatch: {rest}; to see them: skybatch errors -n 0 {engine.spec.id}")


@dataclass(frozen=True)
class _BatchFiles:
    """The batch files there are of a custom writer that has missed some."""

    folder: str
    names: frozenset[str]

    def has_none(self, engine: Engine) -> bool:
        """Whether no range of any winner has its file."""
        stretches = (Stretch(run.start, run.end, run.size, segment.nonce) for run, segment in engine.journal.winners())
        return not any(batchfiles.batch_name(*one) in self.names for one in batchfiles.ranges(stretches))

    def check(self, run: Run, segment: Segment) -> None:
        """Raise SegmentDamaged unless every range of a winner has its file."""
        for start, end, nonce in batchfiles.ranges([Stretch(run.start, run.end, run.size, segment.nonce)]):
            name = batchfiles.batch_name(start, end, nonce)
            if name not in self.names:
                raise SegmentDamaged(f"{masked(self.folder)}/{name}: not there")


_Stored = Results | _BatchFiles | None


def _stored(engine: Engine, row: OutputRow, first: LostResults) -> _Stored:
    """What is to be looked through for an output; None for one whose writer keeps its files to itself."""
    writer, job_id = engine.formats.writers[row.idx], engine.spec.id
    if isinstance(writer, SegmentWriter):
        return results_of(writer, engine.spec, row.idx)
    if row.idx != first.output:
        return None
    names = frozenset(batchfiles.names(writer.path, job_id))
    return _BatchFiles(batchfiles.folder(writer.path, job_id), names)


def _lost(engine: Engine, outputs: list[_Stored], first: LostResults) -> Iterator[tuple[Run, str]]:
    """Every winner that is lost, with the cause; many are looked at at a time, for stores take their time to answer."""
    given_up = threading.Event()

    def cause_of(winner: tuple[Run, Segment]) -> str | None:
        run, segment = winner
        if run == first.run:
            return str(first)
        with retrying.unless(given_up):
            return _damage(outputs, run, segment)

    with ThreadPoolExecutor(LOOKED_AT_AT_ONCE, "skybatch_look") as pool:
        try:
            winners = engine.journal.winners()
            while some := list(islice(winners, TAKEN_AT_ONCE)):
                for (run, _), cause in zip(some, pool.map(cause_of, some), strict=True):
                    if cause is not None:
                        yield run, cause
        finally:
            given_up.set()  # a store that does not answer is not asked again


def _damage(outputs: list[_Stored], run: Run, segment: Segment) -> str | None:
    for stored in outputs:
        try:
            if stored is not None:
                stored.check(run, segment)
        except SegmentDamaged as error:
            return str(error)
    return None


def _abort(engine: Engine, row: OutputRow) -> None:
    """Give up the upload that was begun for an output."""
    handle = (row.progress or {}).get("handle")
    if handle is not None:
        path = engine.formats.writers[row.idx].commit_path()
        stores.of(path).abort(path, handle)


def _failure(run: Run, cause: str) -> FailureRow:
    return FailureRow(start=run.start, end=run.end, attempt=run.attempt, kind="storage", message=cause, at=time.time())


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads
