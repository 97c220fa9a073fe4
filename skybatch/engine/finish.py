"""Reduce, publish, clean up: every step journalled before and after, so that any of them can be taken again.

    open --put together, token journalled--> publishing --put in place--> published --> cleaned

A resumed job that finds its own token at the output's place has published already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from skybatch.engine import folder_claims
from skybatch.engine.merge_behind import MergeBehind
from skybatch.engine.placing import Place, StorePlace, place_of
from skybatch.engine.reducer import ReduceHere, ReduceProcess, fail, refuse_nothing
from skybatch.engine.reduction import Assembling, Composing, Copying, LostResults, Reduction, Results
from skybatch.engine.spec import JobSpec
from skybatch.errors import JournalError, ResultError, SegmentDamaged, SkybatchError, name_place
from skybatch.failpoints import reach
from skybatch.formats import batchfiles, copies, storage
from skybatch.formats.base import Restart, SegmentWriter
from skybatch.formats.stores.base import Composer
from skybatch.formats.tokens import Token
from skybatch.journal.rows import OutputRow
from skybatch.worker.frames import Frame

if TYPE_CHECKING:
    from skybatch.engine.run import Engine


class Finishing:
    """Takes all outputs of a mapped job to the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._journal, self._spec = engine, engine.journal, engine.spec
        self._writers = engine.formats.writers
        self._reducer: ReduceProcess | ReduceHere | None = None
        self._state = self._journal.job().state

    def finish(self) -> None:
        """Go on from wherever the journal says this job is. Raises Conflict, JobFailed, LostResults, StorageFailed."""
        try:
            self._refuse_gaps()
            rows = self._journal.outputs()
            if self._state not in ("published", "cleaned"):
                for row in rows:
                    self._publish(row)
                self._enter("published")
                reach("published")
            folder_claims.release(self._writers, self._spec.id)
            if not self._journal.counts().dead_items:
                for row in rows:
                    self._clean(row)
                copies.remove(str(self._engine.folder.index))
                self._enter("cleaned")
        finally:
            if self._reducer is not None:
                self._reducer.close()

    def _refuse_gaps(self) -> None:
        """Nothing is published unless every item is accounted for, whatever went before."""
        counts, length = self._journal.counts(), self._journal.job().length
        if counts.won_items + counts.dead_items != length:
            missing = f"{counts.won_items} items done and {counts.dead_items} set aside are not all {length}"
            raise JournalError(f"job {self._spec.id}: {missing}; nothing was published")

    def _enter(self, state: str) -> None:
        if self._state != state:
            self._journal.set_state(state)
            self._state = state

    # Publishing

    def _publish(self, row: OutputRow) -> None:
        if row.state in ("published", "cleaned"):
            return
        place = place_of(self._writers[row.idx], self._spec, row.idx, row.replaces)
        staged, token, composer = self._staged(row.idx), row.token, None
        if row.state == "publishing" and (token is None or place.stands(token)):
            place.sweep(staged)
            self._journal.set_output(row.idx, "published")
            return
        if row.state == "open" or token is None or not place.is_staged(staged, token):
            self._enter("reducing")
            reach("reducing")
            token, composer = self._reduce(row, place)
            self._journal.set_output(row.idx, "publishing", token)
        self._enter("publishing")
        if token is not None:
            reach("before-publish")
            place.publish(staged) if composer is None else place.finish(composer)
            reach("after-publish")
            place.sweep(staged)
        self._journal.set_output(row.idx, "published")

    def _reduce(self, row: OutputRow, place: Place) -> tuple[Token | None, Composer | None]:
        """Put one output together: its token, None for nothing to put in place; and who has it, if no file has."""
        staged, writer = self._staged(row.idx), self._writers[row.idx]
        if not isinstance(writer, SegmentWriter):
            storage.make_folders(os.path.dirname(staged))
            storage.unlink_if_there(staged)
            told = self._in_reducer("reduce", row.idx, staged=staged)
            if told["staged"]:
                return place.token_for(staged), None
            if not told["elsewhere"]:
                refuse_nothing(self._engine, row.idx)
            return None, None
        if isinstance(place, StorePlace) and not writer.is_assembled:
            composer = self._compose(row, writer, place)
            return {"owner": place.owner, "handle": composer.handle}, composer
        try:
            self._merge(row, writer)
        except (SkybatchError, OSError) as error:
            name_place(error, staged)
            if isinstance(error, ResultError):
                raise ResultError(f"output {writer.path}: {error}", item=error.item) from error
            raise
        except Exception as error:  # of an assembler
            from skybatch.worker.fault import describe

            fail(self._engine, {"op": "reduce", "output": row.idx}, describe(error))
        return place.token_for(staged), None

    def _merge(self, row: OutputRow, writer: SegmentWriter) -> None:
        behind = self._engine.merging.pop(row.idx, None)
        reduction = behind.take_over() if behind is not None else None
        if behind is not None and (progress := behind.take_progress()) is not None:
            self._journal.set_progress(row.idx, progress)
        if row.state != "open":
            row = OutputRow(idx=row.idx, path=row.path, state="open")  # what it had is not what it was
        try:
            if behind is not None and isinstance(behind.error, Restart):
                raise behind.error
            self._complete(reduction or begin(self._engine, writer, row), row.idx)
        except Restart:
            survey = self._survey(results_of(writer, self._spec, row.idx))
            self._complete(begin(self._engine, writer, row, survey), row.idx)

    def _complete(self, reduction: Reduction, idx: int) -> None:
        try:
            self._take_in_all(reduction, idx)
            reduction.finish()
        finally:
            reduction.close()

    def _compose(self, row: OutputRow, writer: SegmentWriter, place: StorePlace) -> Composer:
        handle = (row.progress or {}).get("handle")
        results = results_of(writer, self._spec, row.idx)
        composer = place.store.composer(
            place.path, scratch=f"{results.folder}/composing", owner=place.owner, handle=handle
        )
        if composer.handle != handle:
            self._journal.set_progress(row.idx, {"owner": place.owner, "handle": composer.handle})
        reach("composing")
        reduction = Composing(results, composer)
        try:
            self._take_in_all(reduction, row.idx)
            reduction.finish()
        except Exception:
            reduction.close()  # else parts arrive in an upload that a revocation has aborted
            raise
        return composer

    def _take_in_all(self, reduction: Reduction, idx: int) -> None:
        reduction.advance(
            self._journal.settled(reduction.next, dead=True),
            on_progress=lambda progress: self._journal.set_progress(idx, progress),
        )
        if reduction.next != self._journal.job().length:
            raise JournalError(f"job {self._spec.id}: item {reduction.next} has no result; nothing was published")

    def _survey(self, results: Results) -> Callable[[], Iterator[bytes]]:
        def payloads() -> Iterator[bytes]:
            for run, segment in self._journal.winners():
                try:
                    yield from results.payloads(run, segment)
                except SegmentDamaged as error:
                    raise LostResults(run, str(error)) from error

        return payloads

    def _staged(self, idx: int) -> str:
        return staged_path(self._engine, idx)

    # Cleaning up

    def _clean(self, row: OutputRow) -> None:
        if row.state == "cleaned":
            return
        writer = self._writers[row.idx]
        reach("cleaning")
        if not isinstance(writer, SegmentWriter):
            self._in_reducer("cleanup", row.idx)
        reach("half-cleaned")
        storage.unlink_if_there(self._staged(row.idx))
        batchfiles.delete(writer.path, self._spec.id)
        self._journal.set_output(row.idx, "cleaned")

    # Custom reduce and cleanup

    def _in_reducer(self, operation: str, idx: int, **values: Any) -> Frame:
        if self._reducer is None:
            self._write_catalogue()
            here = self._engine.runs_here
            self._reducer = (ReduceHere if here else ReduceProcess)(self._engine, self._catalogue)
        return self._reducer.ask({"op": operation, "output": idx, **values})

    @property
    def _catalogue(self) -> str:
        return str(self._engine.folder.path / "catalogue")

    def _write_catalogue(self) -> None:
        with open(self._catalogue, "w", encoding="ascii") as file:
            for run, _ in self._journal.winners():
                file.write(f"{run.start} {run.end} {run.size} {run.nonce}\n")


def staged_path(engine: Engine, idx: int) -> str:
    """Where an output is put together: on the same filesystem as its place; for objects, in the job's folder."""
    path = engine.formats.writers[idx].path
    if storage.is_local(path):
        return f"{batchfiles.scratch(path, engine.spec.id)}/output.part"
    return str(engine.folder.path / "staged" / str(idx))


def results_of(writer: SegmentWriter, spec: JobSpec, idx: int) -> Results:
    """Where the winners' results for an output lie."""
    return Results(writer=writer, idx=idx, folder=batchfiles.folder(writer.path, spec.id))


def begin(
    engine: Engine, writer: SegmentWriter, row: OutputRow, survey: Callable[[], Iterator[bytes]] | None = None
) -> Reduction:
    """Begin to put an output together in a local file, or go on from where its progress says."""
    results, staged = results_of(writer, engine.spec, row.idx), staged_path(engine, row.idx)
    if writer.is_assembled:
        return Assembling(results, staged, survey)
    return Copying(results, staged, row.progress)


def merge_behind(engine: Engine) -> dict[int, MergeBehind]:
    """Have every output that can be put together behind the running job put together, by its number."""
    merging = {}
    for row in engine.journal.outputs():
        writer = engine.formats.writers[row.idx]
        if row.state != "open" or not isinstance(writer, SegmentWriter):
            continue
        if storage.is_local(writer.path) or writer.is_assembled:
            merging[row.idx] = _behind(engine, writer, row)
    return merging


def _behind(engine: Engine, writer: SegmentWriter, row: OutputRow) -> MergeBehind:
    past_dead = engine.spec.on_error == "skip"
    return MergeBehind(lambda: begin(engine, writer, row), engine.folder.journal, past_dead=past_dead)
