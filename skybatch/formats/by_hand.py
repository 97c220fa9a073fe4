"""A segment writer's `reduce_results` called by hand: from any machine that sees the segments, without the journal.

What it publishes is noted, so that a later resume of that very job may replace it: on local disk in the job's
temporary folder, on an object store by the owner that the object is put with.
"""

from __future__ import annotations

import heapq
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from skybatch.errors import MissingBatches, OutputExists, SegmentDamaged
from skybatch.formats import batchfiles, members, segment, storage, tokens
from skybatch.formats.base import OutputWriter, Restart, SegmentWriter
from skybatch.formats.concatenation import assembler_of
from skybatch.formats.masking import masked
from skybatch.formats.tokens import Token


@dataclass(frozen=True)
class Part:
    """Consecutive ranges of one segment."""

    path: str
    start: int
    end: int


def reduce(writer: SegmentWriter, job_id: str, *, partial: bool) -> None:
    """Merge what lies in the temporary folder and put it in its place.

    How many items there should be is not known here, so a missing end cannot be noticed. Raises MissingBatches for
    gaps unless `partial`, OutputExists when something stands there that this call has not put there before.
    """
    parts = cover(writer.path, job_id, gaps=partial)
    place(writer, job_id, lambda staged: put_together(writer, parts, staged))


def place(writer: OutputWriter, job_id: str, build: Callable[[str], None]) -> None:
    """Have `build` write an output to a local file, and put it in its place.

    Raises OutputExists when something stands there that was not put there by hand for this job.
    """
    (_place_locally if storage.is_local(writer.path) else _place_in_store)(writer, job_id, build)


def owner(job_id: str) -> str:
    """The owner token of objects that were put by hand."""
    return f"{job_id}.by-hand"


def cover(output_path: str, job_id: str, *, gaps: bool) -> list[Part]:
    """Every item's results once, in order, by the segments' indexes. Raises MissingBatches at a gap, unless `gaps`."""
    parts: list[Part] = []
    expected = 0
    for index, entry in _in_order(output_path, job_id):
        if entry.start < expected:
            continue  # another attempt has it
        if entry.start > expected and not gaps:
            break
        if parts and parts[-1].path == index.path and parts[-1].end + 1 == entry.start:
            parts[-1] = replace(parts[-1], end=entry.end)
        else:
            parts.append(Part(index.path, entry.start, entry.end))
        expected = entry.end + 1
    else:
        if parts:
            return parts
        raise MissingBatches(f"{batchfiles.folder(output_path, job_id)}: no segments of job {job_id}")
    raise MissingBatches(
        f"{batchfiles.folder(output_path, job_id)}: the results of items {expected}-{entry.start - 1} are missing"
    )


def _in_order(output_path: str, job_id: str) -> Iterator[tuple[segment.Index, segment.Entry]]:
    """The ranges of all segments by their first item, longer ones first; few indexes are in memory at a time."""
    place = batchfiles.folder(output_path, job_id)
    waiting: list[tuple[int, int, str, segment.Index | None, Iterator[segment.Entry]]] = [
        (start, -end, name, None, iter(())) for start, end, name in batchfiles.segment_names(output_path, job_id)
    ]
    heapq.heapify(waiting)
    current: dict[str, segment.Entry] = {}
    while waiting:
        _, _, name, index, rest = heapq.heappop(waiting)
        if index is None:
            try:
                index = segment.read_index(f"{place}/{name}")
            except SegmentDamaged:
                continue  # another attempt may have its items; else they are missing
            rest = iter(index.entries())
        else:
            yield index, current.pop(name)
        following = next(rest, None)
        if following is not None:
            current[name] = following
            heapq.heappush(waiting, (following.start, -following.end, name, index, rest))


# Putting together


def _place_locally(writer: OutputWriter, job_id: str, build: Callable[[str], None]) -> None:
    staged = f"{batchfiles.scratch(writer.path, job_id)}/by-hand.{os.getpid()}.part"
    final, before = storage.local_path(writer.commit_path()), tokens.noted(writer.path, job_id)
    folder = os.path.dirname(final)
    _refuse_foreign(final, before)
    try:
        storage.make_folders(os.path.dirname(staged))
        build(staged)
        built = [f"{members.folder(staged)}/{name}" for name in members.built(staged)]
        tokens.note(writer.path, job_id, [staged, *built])
        storage.make_folders(folder)
        members.put(staged, folder, ours=before, overwrite=False)
        if _refuse_foreign(final, before):
            os.rename(staged, final)
        else:
            os.link(staged, final)
    except FileExistsError as error:
        raise _exists(error.filename2 or error.filename or final) from None
    finally:
        storage.unlink_if_there(staged)
        members.remove(staged)
    storage.sync_folder(folder)


def _refuse_foreign(final: str, ours: list[Token]) -> bool:
    """Whether something that we put there stands there. Raises OutputExists for anything else."""
    there = tokens.token_of(final)
    if there is not None and there not in ours:
        raise _exists(final)
    return there is not None


def _exists(final: str) -> OutputExists:
    return OutputExists(f"output {masked(final)} exists, and is not from an earlier reduce of this job; move it away")


def _place_in_store(writer: OutputWriter, job_id: str, build: Callable[[str], None]) -> None:
    import tempfile

    from skybatch.formats import stores
    from skybatch.formats.stores.base import ObjectInfo

    final, ours = writer.commit_path(), owner(job_id)
    store = stores.of(final)
    there: ObjectInfo | None
    try:
        there = store.info(final)
    except FileNotFoundError:
        there = None
    if there is not None and there.owner != ours:
        raise _exists(final)
    staged = f"{tempfile.gettempdir()}/skybatch-{secrets.token_hex(8)}.part"
    try:
        build(staged)
        members.put_in_store(staged, final.rpartition("/")[0], store, owner=ours, ours=(), overwrite=False)
        store.put(final, Path(staged), replaces=there.version if there else None, owner=ours)
    except FileExistsError as error:
        raise _exists(error.filename or final) from None
    finally:
        storage.unlink_if_there(staged)
        members.remove(staged)


def put_together(writer: SegmentWriter, parts: Iterable[Part], staged: str) -> None:
    """Build a writer's output of parts in a local file, durable when this returns."""
    try:
        _put_together(writer, parts, staged, None)
    except Restart:
        _put_together(writer, parts, staged, lambda: _payloads(parts))


def _put_together(
    writer: SegmentWriter, parts: Iterable[Part], staged: str, survey: Callable[[], Iterator[bytes]] | None
) -> None:
    storage.make_folders(os.path.dirname(staged))
    with open(staged, "w+b") as sink:
        assembler = assembler_of(writer, sink, survey)
        for payload in _payloads(parts):
            assembler.add(payload)
        assembler.finish()
        sink.flush()
        os.fsync(sink.fileno())


def _payloads(parts: Iterable[Part]) -> Iterator[bytes]:
    index_of = segment.remembering()
    for part in parts:
        yield from segment.payloads(index_of(part.path), part.start, part.end)
