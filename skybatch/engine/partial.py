"""What a job has finished so far as outputs beside the real ones, `OUTPUT.partial`; the job itself is left as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skybatch.engine.folder import JobFolder
from skybatch.engine.placing import is_folder
from skybatch.engine.resuming import make_formats
from skybatch.engine.spec import JobSpec
from skybatch.errors import UsageError
from skybatch.formats import batchfiles, by_hand, members, storage, stores
from skybatch.formats.base import OutputWriter, SegmentWriter
from skybatch.formats.batchfiles import Stretch
from skybatch.journal.lock import JobLock
from skybatch.journal.reading import Reader

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Partial:
    """What was written; spans of items are inclusive."""

    paths: list[str]
    done: int  # items
    length: int
    missing: list[Span]


def reduce_partially(folder: JobFolder) -> Partial:
    """Write `OUTPUT.partial` for every output, of the finished ranges; an older one is replaced.

    Raises JobLocked while an engine runs the job, UsageError when there is nothing to write or nothing missing.
    """
    folder.check_trusted()
    spec = JobSpec.load(folder.spec)
    with JobLock(folder.path), Reader(folder.journal) as journal:
        row, counts = journal.job(), journal.counts()
        if row.state in ("published", "cleaned"):
            raise UsageError(f"job {spec.id} is {row.state}: its outputs are whole")
        if row.length is None or not counts.won_items:
            raise UsageError(f"job {spec.id} has not finished anything yet; to go on: skybatch resume {spec.id}")
        if counts.won_items == row.length:
            raise UsageError(f"job {spec.id} is mapped; to merge and publish it: skybatch resume {spec.id}")
        writers = make_formats(folder, spec, row.code_hash or spec.code).writers
        paths = [_write(folder, spec, journal, idx, writer) for idx, writer in enumerate(writers)]
        return Partial(
            paths=[path for path in paths if path is not None],
            done=counts.won_items,
            length=row.length,
            missing=list(_gaps(journal, row.length)),
        )


@dataclass(frozen=True)
class _Parts:
    """One output's finished ranges; may be gone through more than once."""

    journal: Reader
    folder: str
    idx: int

    def __iter__(self) -> Iterator[by_hand.Part]:
        for run, found in self.journal.winners():
            yield by_hand.Part(f"{self.folder}/{found.info['files'][self.idx]['name']}", run.start, run.end)


def _write(folder: JobFolder, spec: JobSpec, journal: Reader, idx: int, writer: OutputWriter) -> str | None:
    final, local = _place(writer), storage.is_local(writer.path)
    scratch = batchfiles.scratch(writer.path, spec.id)
    if local and isinstance(writer, SegmentWriter):
        scratch = batchfiles.folder(writer.path, spec.id)  # what it becomes lies beside the output, not in it
    staged = f"{scratch}/partial.part" if local else str(folder.path / "staged" / f"{idx}.partial")
    storage.unlink_if_there(staged)
    try:
        if isinstance(writer, SegmentWriter):
            parts = _Parts(journal, batchfiles.folder(writer.path, spec.id), idx)
            by_hand.put_together(writer, parts, staged)
        elif not _reduced(writer, spec.id, journal, staged):
            return None
        (_put if local else _put_in_store)(staged, final)
    finally:
        storage.unlink_if_there(staged)
        members.remove(staged)
    return final


def _place(writer: OutputWriter) -> str:
    """Beside the output; files that are in its folder already stay there, with a manifest of another name."""
    if isinstance(writer, SegmentWriter) and is_folder(writer):
        return f"{writer.path.rstrip('/')}.partial/{os.path.basename(writer.commit_path())}"
    return f"{writer.commit_path()}.partial"


def _put(staged: str, final: str) -> None:
    path = storage.local_path(final)
    place = os.path.dirname(path)
    if members.built(staged):
        storage.make_folders(place)
        if os.path.exists(path):
            members.note_replaced(staged, storage.read_bytes(path))
        members.put(staged, place, ours=(), overwrite=True)
    os.rename(staged, path)
    for name in members.replaced(staged):
        storage.unlink_if_there(f"{place}/{name}")
    storage.sync_folder(place)


def _put_in_store(staged: str, final: str) -> None:
    store, place = stores.of(final), final.rpartition("/")[0]
    if members.built(staged):
        try:
            members.note_replaced(staged, store.read(final))
        except FileNotFoundError:
            pass
        members.put_in_store(staged, place, store, owner="partial", ours=(), overwrite=True)
    store.put(final, Path(staged))
    store.delete(f"{place}/{name}" for name in members.replaced(staged))


def _reduced(writer: OutputWriter, job_id: str, journal: Reader, staged: str) -> bool:
    """A custom writer's own reduce over the batch files there are; whether it wrote its output."""
    from skybatch.worker.reducing import carry_out

    storage.make_folders(os.path.dirname(staged))
    batchfiles.set_catalogue(
        job_id, lambda: (Stretch(run.start, run.end, run.size, str(run.nonce)) for run, _ in journal.winners())
    )
    try:
        return bool(carry_out(writer, job_id, {"op": "reduce", "staged": staged})["staged"])
    finally:
        batchfiles.forget_catalogue(job_id)


def _gaps(journal: Reader, length: int) -> Iterator[Span]:
    expected = 0
    for run in journal.runs():
        if run.state == "won":
            if run.start > expected:
                yield expected, run.start - 1
            expected = run.end + 1
    if expected < length:
        yield expected, length - 1
