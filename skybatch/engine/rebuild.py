"""A new journal for a job whose journal is lost: from its spec, and the indexes of the results it has stored.

Code never comes from where results lie: the job's folder must have it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skybatch import disk
from skybatch.engine.folder import JobFolder, home, job_folders
from skybatch.engine.planning import ReaderFailed, plan
from skybatch.engine.resuming import make_formats
from skybatch.engine.spec import JobSpec, absolute_output
from skybatch.errors import (
    CodeChanged,
    JobFailed,
    JobNotFound,
    JournalDamaged,
    JournalError,
    MissingBatches,
    SegmentDamaged,
    UsageError,
)
from skybatch.formats import batchfiles, by_hand, segment, storage, stores
from skybatch.formats.base import OutputWriter, SegmentWriter
from skybatch.formats.masking import masked
from skybatch.journal.journal import Journal
from skybatch.journal.lock import JobLock
from skybatch.journal.reading import Reader
from skybatch.journal.rows import Changes, JobRow, Run, Segment

TOGETHER = 500  # segments in one transaction


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A journal made anew."""

    job_id: str
    items: int  # of the dataset
    finished: int  # items whose results were found
    aside: str | None  # where the old journal is now; None when there was none


def rebuild(reference: str) -> Rebuilt:
    """Rebuild the journal of the job with this id (or a unique prefix), or of the one that writes to this output.

    Items whose results are not stored whole, for all outputs under one attempt, are to be mapped again, and so are
    those set aside. The input is taken for what the job began with: nothing is left that could tell. An old journal is
    kept beside the new one.

    Raises JobNotFound, UsageError when there are several such jobs or the journal is whole, JobLocked while an engine
    runs it, JournalDamaged without a spec or code, CodeChanged when results are stored for more items than there are.
    """
    folder = _find(reference)
    folder.check_trusted()
    folder.check_filesystem()
    spec = JobSpec.load(folder.spec)
    with JobLock(folder.path):
        _refuse_whole(folder)
        code = _code(folder, spec)
        formats = make_formats(folder, spec, code)
        aside = _set_aside(folder.journal)
        row = JobRow(
            id=spec.id,
            name=spec.name,
            created_at=spec.created_at,
            batch_size=spec.batch_size,
            code_hash=code,
            spec_hash=spec.identity(),
        )
        with Journal.create(folder.journal, row, [fields["path"] for fields in spec.outputs]) as journal:
            try:
                length = plan(folder, spec, journal, formats.reader)
            except ReaderFailed as failed:
                raise JobFailed(spec.id, failed.stop.cause, f"skybatch rebuild {spec.id}") from failed
            finished = _fill(journal, spec, formats.writers, length, code)
            journal.set_state("paused", "its journal was made anew")
    return Rebuilt(job_id=spec.id, items=length, finished=finished, aside=aside)


def _find(reference: str) -> JobFolder:
    folders = job_folders(home())
    by_id = [folder for folder in folders if folder.id.startswith(reference)]
    if len(by_id) == 1:
        return by_id[0]
    wanted = absolute_output(reference).rstrip("/")
    found = [folder for folder in folders if wanted in _outputs(folder)]
    if not found:
        raise JobNotFound(f"no job of {home()} writes to {masked(reference)}, or has such an id; see: skybatch list")
    if len(found) > 1:
        ids = ", ".join(folder.id for folder in found)
        raise UsageError(f"several jobs write to {masked(reference)}: {ids}; say which: skybatch rebuild ID")
    return found[0]


def _outputs(folder: JobFolder) -> list[str]:
    try:
        return [fields["path"].rstrip("/") for fields in JobSpec.load(folder.spec).outputs]
    except JournalDamaged:
        return []


def _refuse_whole(folder: JobFolder) -> None:
    """Raise UsageError when the journal can be used as it is."""
    try:
        Journal.open(folder.journal).close()
        with Reader(folder.journal) as journal:
            if journal.faults():
                return
    except JournalError:
        return
    raise UsageError(
        f"the journal of job {folder.id} is whole; nothing was changed\n"
        f"  to check it: skybatch fsck {folder.id} --deep; to go on with the job: skybatch resume {folder.id}"
    )


def _code(folder: JobFolder, spec: JobSpec) -> str:
    """The code to go on with: a resume with newer code has left it beside the first. Raises JournalDamaged."""
    there = [path for path in folder.code.glob("*") if path.is_dir() and not path.name.startswith(".")]
    if not there:
        raise JournalDamaged(f"{folder.code}: the job's code is missing; it is never taken from anywhere else")
    newest = max(there, key=lambda path: (path.stat().st_mtime_ns, path.name))
    return newest.name if len(there) > 1 or newest.name == spec.code else there[0].name


def _set_aside(journal: Path) -> str | None:
    """Rename what is there of an old journal; to what."""
    number = 1
    while (aside := journal.with_name(f"{journal.name}.damaged-{number}")).exists():
        number += 1
    moved = None
    for ending in ("", "-wal", "-shm"):
        old = Path(f"{journal}{ending}")
        if old.exists():
            disk.rename("journal.aside", old, f"{aside}{ending}")
            moved = str(aside)
    return moved


# What is stored


def _fill(journal: Journal, spec: JobSpec, writers: list[OutputWriter], length: int, code: str) -> int:
    """Journal every winner that can be found; how many items they are."""
    changes, finished = Changes(), 0
    for found, runs in _stored(spec, writers):
        if runs[-1].end >= length:
            raise CodeChanged(
                f"job {spec.id}: results are stored for item {runs[-1].end}, and the input has {length} items\n"
                f"  put back the input that the job began with, then: skybatch rebuild {spec.id}"
            )
        changes.segments.append(found)
        changes.won += (replace(run, code=code) for run in runs)
        finished += sum(run.end - run.start + 1 for run in runs)
        if len(changes.segments) >= TOGETHER:
            journal.commit(changes)
            changes = Changes()
    if changes:
        journal.commit(changes)
    return finished


def _stored(spec: JobSpec, writers: list[OutputWriter]) -> Iterator[tuple[Segment, list[Run]]]:
    """Attempts whose results all outputs have, with the ranges that they are winners of."""
    kept = [idx for idx, writer in enumerate(writers) if isinstance(writer, SegmentWriter)]
    if kept:
        yield from _in_segments(spec, kept)
    else:
        yield from _in_batch_files(spec)


def _in_segments(spec: JobSpec, kept: list[int]) -> Iterator[tuple[Segment, list[Run]]]:
    """What other writers did with a range was done before its segment was sealed."""
    paths = [fields["path"] for fields in spec.outputs]
    folders = {idx: batchfiles.folder(paths[idx], spec.id) for idx in kept}
    waiting: tuple[str, list[by_hand.Part]] = ("", [])
    for part in [*_parts(paths[kept[0]], spec.id), None]:
        if waiting[1] and (part is None or part.path != waiting[0]):
            found = _segment(waiting[0], waiting[1], folders, len(paths))
            if found is not None:
                yield found
            waiting = ("", [])
        if part is not None:
            waiting = (part.path, [*waiting[1], part])


def _parts(output: str, job_id: str) -> list[by_hand.Part]:
    """By segment, and in order within each."""
    try:
        return sorted(by_hand.cover(output, job_id, gaps=True), key=lambda part: (part.path, part.start))
    except MissingBatches:
        return []


def _segment(
    path: str, parts: list[by_hand.Part], folders: dict[int, str], outputs: int
) -> tuple[Segment, list[Run]] | None:
    """A segment's row and its winners; None unless all outputs have it."""
    name = os.path.basename(path)
    files: list[dict[str, Any] | None] = [None] * outputs
    try:
        for idx, folder in folders.items():
            index = segment.read_index(f"{folder}/{name}")
            for part in parts:
                index.extent(part.start, part.end)
            files[idx] = _file(f"{folder}/{name}", index)
    except SegmentDamaged:
        return None
    nonce = name.removesuffix(".seg").rpartition("-")[2]
    index = segment.read_index(path)
    runs: list[Run] = []
    for entry in [entry for part in parts for entry in index.part(part.start, part.end)]:
        size = entry.end - entry.start + 1
        run = Run(start=entry.start, end=entry.end, size=size, state="won", attempt=entry.attempt, nonce=nonce)
        _append(runs, run)
    start, end = int(name[:12]), int(name[13:25])
    return Segment(nonce=nonce, start=start, end=end, epoch=1, worker="", info={"files": files}), runs


def _append(runs: list[Run], run: Run) -> None:
    """Add a range, to the run before where it goes on like that; the last range of a run may be shorter."""
    last = runs[-1] if runs else None
    goes_on = last is not None and last.end + 1 == run.start and last.attempt == run.attempt and run.size <= last.size
    if last is not None and goes_on and (last.end - last.start + 1) % last.size == 0:
        runs[-1] = replace(last, end=run.end)
    else:
        runs.append(run)


def _file(path: str, index: segment.Index) -> dict[str, Any]:
    """As a worker tells of it."""
    if storage.is_local(path):
        return {"name": os.path.basename(path), "size": os.stat(path).st_size, "data": index.data_size}
    try:
        found = stores.of(path).info(path)
    except FileNotFoundError:
        raise SegmentDamaged(f"{masked(path)}: not there") from None
    return {"name": os.path.basename(path), "size": found.size, "data": index.data_size, "version": found.version}


def _in_batch_files(spec: JobSpec) -> Iterator[tuple[Segment, list[Run]]]:
    """Custom writers' batch files; ranges that leave none are mapped again. One attempt may have stored several."""
    paths = [fields["path"] for fields in spec.outputs]
    there = [set(batchfiles.names(path, spec.id)) for path in paths]
    runs: dict[str, list[Run]] = {}
    expected = 0
    for start, end, nonce in sorted(batchfiles.stretches(paths[0], spec.id), key=lambda each: (each[0], -each[1])):
        if start >= expected and all(batchfiles.batch_name(start, end, nonce) in names for names in there):
            run = Run(start=start, end=end, size=end - start + 1, state="won", attempt=1, nonce=nonce)
            _append(runs.setdefault(nonce, []), run)
            expected = end + 1
    for nonce, won in runs.items():
        info = {"files": [None] * len(paths)}
        yield Segment(nonce=nonce, start=won[0].start, end=won[-1].end, epoch=1, worker="", info=info), won
