"""What jobs have left beside their outputs: temporary files, and uploads that were begun and never finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skybatch.engine.folder import JobFolder, home, job_folders
from skybatch.errors import JournalError, UsageError
from skybatch.formats import batchfiles, claims, storage, stores
from skybatch.formats.batchfiles import TEMP_NAME
from skybatch.journal.lock import is_held
from skybatch.journal.reading import Reader

FINISHED = ("published", "cleaned")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """The temporary files of one job in one place, its claim to a folder, or one upload."""

    path: str
    job_id: str | None  # None for an upload
    why: str  # what is known of its job
    files: int
    size: int  # bytes; 0 for an upload, which does not tell
    upload: str | None = None  # the handle


def find(path: str) -> tuple[list[Leftover], list[str]]:
    """What may be removed around `path`, an output or a folder of outputs; and the unfinished jobs whose files stay.

    A job that stands unfinished in this $SKYBATCH_HOME is never touched. One that is not known here may be another
    machine's, and may run there: whoever removes its files must know.
    """
    found, kept, outputs = [], [], set[str]()
    for place, names in _temporary(path):
        for name in names:
            folder = f"{place}/{name}"
            job_id = (claims.holder(folder) or "?") if name.endswith(claims.ENDING) else name
            why = _why(job_id)
            if why is None:
                kept.append(job_id)
                continue
            files, size, own = _contents(folder)
            found.append(Leftover(path=folder, job_id=job_id, why=why, files=files, size=size))
            outputs |= {f"{place.removesuffix(TEMP_NAME).rstrip('/')}/{name}" for name in own}
    if not storage.is_local(path):
        found += _uploads(path, outputs, set(kept))
    return found, sorted(set(kept))


def remove(leftover: Leftover) -> None:
    """Delete the files, or abort the upload."""
    if leftover.upload is not None:
        stores.of(leftover.path).abort(leftover.path, leftover.upload)
    elif leftover.path.endswith(claims.ENDING):
        claims.drop(leftover.path)
    elif not storage.is_local(leftover.path):
        store = stores.of(leftover.path)
        store.delete(info.path for info in store.list(leftover.path))
    else:
        shutil.rmtree(leftover.path, ignore_errors=True)
    if storage.is_local(leftover.path):
        batchfiles.remove_empty(os.path.dirname(leftover.path))


def _temporary(path: str) -> Iterator[tuple[str, set[str]]]:
    """The folders of temporary files in and beside a path, each with the ids of the jobs in it."""
    trimmed = (storage.local_path(path) if storage.is_local(path) else path).rstrip("/")
    parent = trimmed.rpartition("/")[0]
    for folder in (trimmed, parent):
        place = f"{folder}/{TEMP_NAME}"
        if storage.is_local(place):
            names = set(os.listdir(place)) if os.path.isdir(place) else set()
        elif folder.endswith(":/"):
            continue  # beside a bucket there is nothing
        else:
            names = {info.path[len(place) + 1 :].partition("/")[0] for info in stores.of(place).list(place)}
        if names:
            yield place, names


def _contents(folder: str) -> tuple[int, int, set[str]]:
    """Number of files, bytes, and the outputs' names."""
    if folder.endswith(claims.ENDING):
        return 1, 0, set()
    if storage.is_local(folder):
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        own = {file.relative_to(folder).parts[0] for file in files}
        return len(files), sum(file.stat().st_size for file in files), own
    objects = list(stores.of(folder).list(folder))
    own = {info.path[len(folder) + 1 :].partition("/")[0] for info in objects}
    return len(objects), sum(info.size for info in objects), own


def _uploads(path: str, outputs: set[str], kept: set[str]) -> Iterator[Leftover]:
    """Uploads for temporary files, for outputs whose temporary files are left over, and those that a job here began.

    Any other, be it for `path` itself, is somebody else's.
    """
    begun = _begun_here()
    root = path.rstrip("/").rpartition("/")[0]
    for place in dict.fromkeys([path.rstrip("/"), path.rstrip("/") if root.endswith(":/") else root]):
        for target, handle in stores.of(place).abandoned(place):
            job_id = target.partition(f"/{TEMP_NAME}/")[2].partition("/")[0]
            ours = target in outputs or (job_id != "" and job_id not in kept and _why(job_id) is not None)
            if begun.get(handle, ours):
                yield Leftover(path=target, job_id=None, why="upload", files=0, size=0, upload=handle)


def _begun_here() -> dict[str, bool]:
    """Handles of the uploads that jobs of this $SKYBATCH_HOME have begun; whether each is of no use to its job."""
    begun: dict[str, bool] = {}
    for folder in job_folders(home()):
        try:
            with Reader(folder.journal) as journal:
                finished = journal.job().state in FINISHED
                handles = [(row.progress or {}).get("handle") for row in journal.outputs()]
        except JournalError:
            continue
        begun |= {handle: finished for handle in handles if handle}
    return begun


def _why(job_id: str) -> str | None:
    """Why a job's temporary files may go; None when they may not: those of items set aside are kept with their job."""
    folder = JobFolder(home() / "jobs" / job_id)
    if not folder.path.is_dir():
        return "not known here"
    if is_held(folder.path):
        return None
    try:
        with Reader(folder.journal) as journal:
            state, dead = journal.job().state, journal.counts().dead_items
    except JournalError:
        return None  # it may be put right yet
    return state if state in FINISHED and not dead else None


def check(path: str) -> None:
    """Raise UsageError for a local path that is not there, and has nothing temporary beside it either."""
    if not storage.is_local(path):
        return
    place = storage.local_path(path).rstrip("/")
    if not os.path.lexists(place) and not os.path.isdir(f"{os.path.dirname(place)}/{TEMP_NAME}"):
        raise UsageError(f"{path}: there is no such output or folder, and nothing temporary beside it")
