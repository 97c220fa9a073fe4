"""Where the files of a job's attempts lie, and which of them count.

Next to the output, in `.sky_batch_tmp/<job id>/<name of the output>/`: two outputs in one folder keep apart.
A file is named `<start>-<end>-<nonce>`, the nonce being the attempt's; files of other names are not ours.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from skybatch.errors import MissingBatches
from skybatch.failpoints import after, before
from skybatch.formats import storage, stores
from skybatch.formats.masking import masked
from skybatch.formats.stores.buckets import is_bucket

TEMP_NAME = ".sky_batch_tmp"
_NAME = re.compile(r"(\d{12})-(\d{12})-([0-9a-z]+)\.(jsonl|seg)")
_current = threading.local()


class Stretch(NamedTuple):
    """Consecutive ranges of `size` items each whose files carry one nonce; `end` is inclusive."""

    start: int
    end: int
    size: int
    nonce: str


Catalogue = Callable[[], Iterable[Stretch]]
_catalogues: dict[str, Catalogue] = {}


def set_attempt(nonce: str, *, overwrite: bool = True) -> None:
    """Say whose files this thread writes from now on, and whether they may replace what is not the job's."""
    _current.nonce, _current.overwrite = nonce, overwrite


def owner(job_id: str) -> str | None:
    """By what files that this thread writes under final names are to be known; None where they replace anything."""
    return None if getattr(_current, "overwrite", True) else f"{job_id}.{_current.nonce}"


def attempt() -> str:
    """The nonce of the attempt whose files this thread writes; `0` without one."""
    nonce: str = getattr(_current, "nonce", "0")
    return nonce


def set_catalogue(job_id: str, catalogue: Catalogue) -> None:
    """Give the winners of a job, in order; without them the folder is listed."""
    _catalogues[job_id] = catalogue


def forget_catalogue(job_id: str) -> None:
    """From now on the job's folder is listed."""
    _catalogues.pop(job_id, None)


def folder(output_path: str, job_id: str) -> str:
    """The folder of one output's temporary files."""
    trimmed = output_path.rstrip("/")
    if storage.is_local(output_path):
        trimmed = storage.local_path(trimmed)
    parent, _, name = trimmed.rpartition("/")
    if is_bucket(trimmed):
        parent = trimmed  # beside a bucket there is nothing of ours
    return f"{parent}/{TEMP_NAME}/{job_id}/{name}"


def scratch(output_path: str, job_id: str) -> str | None:
    """Where unfinished files of one output lie, so that cleaning up removes them; None for stores that need none.

    On the output's filesystem: inside its folder, where that is another one than its parent's (a mount point, a link).
    """
    if not storage.is_local(output_path):
        return None
    output = storage.local_path(output_path).rstrip("/")
    if os.path.isdir(output) and not storage.can_rename(os.path.dirname(output), output):
        inside = _scratch_inside(output, job_id)
        storage.make_folders(inside)
        return inside
    return folder(output_path, job_id)


def _scratch_inside(output: str, job_id: str) -> str:
    return f"{output}/{TEMP_NAME}/{job_id}"


def batch_path(output_path: str, start: int, end: int, job_id: str) -> str:
    """A path for one range's results, unique to the attempt that asks."""
    return f"{folder(output_path, job_id)}/{batch_name(start, end, attempt())}"


def batch_name(start: int, end: int, nonce: str) -> str:
    """The name of one range's file."""
    return f"{start:012d}-{end:012d}-{nonce}.jsonl"


def list_files(output_path: str, job_id: str) -> list[str]:
    """One file per range, in order, without overlap. Raises MissingBatches when items are missing."""
    catalogue = _catalogues.get(job_id)
    if catalogue is None:
        return [path for _, _, path in _cover(output_path, job_id)]
    there, place, paths = frozenset(names(output_path, job_id)), folder(output_path, job_id), []
    for start, end, nonce in ranges(catalogue()):
        name = batch_name(start, end, nonce)
        if name not in there:
            raise MissingBatches(
                f"{masked(place)}/{name}: the results of items {start}-{end} are missing; "
                "upload_batch must store them at the very path that utils.get_batch_path gives"
            )
        paths.append(f"{place}/{name}")
    return paths


def ranges(stretches: Iterable[Stretch]) -> Iterable[tuple[int, int, str]]:
    """Every range of the stretches with its nonce."""
    for stretch in stretches:
        for start in range(stretch.start, stretch.end + 1, stretch.size):
            yield start, min(start + stretch.size - 1, stretch.end), stretch.nonce


def segment_names(output_path: str, job_id: str) -> Iterator[tuple[int, int, str]]:
    """First item, last item and name of every complete segment in the folder, in no order."""
    there = set(names(output_path, job_id))
    for match in map(_NAME.fullmatch, there):
        if match and match[4] == "seg" and (storage.is_local(output_path) or f"{match[0][:-4]}.idx" in there):
            yield int(match[1]), int(match[2]), match[0]


def stretches(output_path: str, job_id: str) -> Iterator[tuple[int, int, str]]:
    """First item, last item and nonce of every batch file that a writer has stored, in no order."""
    for match in map(_NAME.fullmatch, names(output_path, job_id)):
        if match and match[4] == "jsonl":
            yield int(match[1]), int(match[2]), match[3]


def nonces(output_path: str, job_id: str) -> Iterator[str]:
    """The attempt's nonce of every file of ours in the folder; those of an object's index are not counted."""
    for match in map(_NAME.fullmatch, names(output_path, job_id)):
        if match:
            yield match[3]


def _cover(output_path: str, job_id: str) -> list[tuple[int, int, str]]:
    """An ordered cover of the items by batch files, from a listing; `(start, end, path)` each.

    Raises MissingBatches at the first gap. How many items there should be is not known here, so a missing
    end cannot be noticed.
    """
    place = folder(output_path, job_id)
    matches = filter(None, map(_NAME.fullmatch, names(output_path, job_id)))
    found = sorted((int(match[1]), -int(match[2]), match[0]) for match in matches if match[4] == "jsonl")
    chosen: list[tuple[int, int, str]] = []
    expected = 0
    for start, negative_end, name in found:
        if start < expected:
            continue
        if start > expected:
            raise MissingBatches(f"{place}: the results of items {expected}-{start - 1} are missing")
        chosen.append((start, -negative_end, f"{place}/{name}"))
        expected = -negative_end + 1
    if not chosen:
        raise MissingBatches(f"{place}: no batch files of job {job_id}")
    return chosen


def any_written(output_path: str, job_id: str) -> bool:
    """Whether there is a batch file of this output, not counting segments."""
    return any(match[4] == "jsonl" for match in map(_NAME.fullmatch, names(output_path, job_id)) if match)


def delete(output_path: str, job_id: str) -> None:
    """Remove one output's temporary folder, and the folders above it once they are empty."""
    place = folder(output_path, job_id)
    if not storage.is_local(place):
        store = stores.of(place)
        store.delete(found.path for found in store.list(place))
        return
    import shutil  # which workers need not wait for

    inside = _scratch_inside(storage.local_path(output_path).rstrip("/"), job_id)
    for path in (place, inside):
        before("scratch.rmtree")
        shutil.rmtree(path, ignore_errors=True)
        after("scratch.rmtree")
    remove_empty(os.path.dirname(place), os.path.dirname(os.path.dirname(place)))
    remove_empty(os.path.dirname(inside))


def remove_empty(*folders: str) -> None:
    """Remove local folders, each if nothing is in it, up to the first that has something."""
    for path in folders:
        try:
            os.rmdir(path)
        except OSError:
            return


def settled_items(job_id: str) -> int | None:
    """How many items have results, where the winners are known."""
    catalogue = _catalogues.get(job_id)
    return None if catalogue is None else sum(stretch.end - stretch.start + 1 for stretch in catalogue())


def names(output_path: str, job_id: str) -> list[str]:
    """The names of all files in the folder of one output, in no order."""
    place = folder(output_path, job_id)
    if not storage.is_local(place):
        return [found.path.rsplit("/", 1)[-1] for found in stores.of(place).list(place)]
    try:
        return os.listdir(place)
    except FileNotFoundError:
        return []
