"""File names that come out of results: kept within the output's folder, one item's each.

Items claim the names that they use, in the job's temporary folder, before anything is written: across workers and
tries a name belongs to the first item that asked for it, and to no other. Names that some file system takes for the
same one (by case, by Unicode's composed and decomposed forms) are the same.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from skybatch.errors import ResultError
from skybatch.formats import batchfiles, claims, durability, storage, stores
from skybatch.formats.base import Item
from skybatch.formats.columns import value_of
from skybatch.formats.shards import MANIFEST

PUTS_AT_ONCE = 16
PART_BYTES, NAME_BYTES = 250, 800
"""How long a part of a name, and all of it, may be: what disks and object stores take, less the ending of a format."""


def name_from(result: Item, column: str, index: int) -> str:
    """The name that a result asks for: text or a whole number, `/` between folders.

    Raises ResultError naming item and key for one that would leave the output's folder or that a file system does
    not take.
    """
    value = value_of(result, column, index)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    fault = _fault(value)
    if fault:
        raise ResultError(f"item {index}, key {column!r}: {_shown(value)} is no file name: {fault}", item=index)
    return str(value)


def claim(output: str, job_id: str, names: Mapping[int, str], column: str) -> None:
    """Take names, one per item, for good; taking one's own again is no error.

    Raises ResultError for the first item whose name belongs to another.
    """
    folder = f"{batchfiles.folder(output, job_id)}/claims"
    local = storage.is_local(folder)
    if local:
        storage.make_folders(folder)
    together = local and durability.announce(folder)

    def take(index: int) -> None:
        name = names[index]
        path = f"{folder}/{hashlib.sha256(_canonical(name).encode()).hexdigest()[:40]}"
        owner = claims.take(path, str(index))
        if owner != str(index):
            what = f"{_shown(name)} is the name of item {owner}'s file already"
            raise ResultError(f"item {index}, key {column!r}: {what}", item=index)
        if together:
            durability.written(path)

    for_each(folder, take, names)
    if local and not together:
        storage.sync_folder(folder)


def for_each(path: str, act: Callable[[int], None], indices: Iterable[int]) -> None:
    """Do something for each item, by several threads in an object store. Raises what the first item's raised."""
    if storage.is_local(path):
        for index in indices:
            act(index)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
        for _ in pool.map(act, indices):
            pass


def refuse_links(output: str, names: Mapping[int, str], column: str) -> None:
    """Raise ResultError for the first item whose name leads out of a local folder, by a symbolic link in it."""
    if not storage.is_local(output):
        return
    root = os.path.realpath(storage.local_path(output))
    for index, name in names.items():
        folder = os.path.dirname(name)
        if folder and not f"{os.path.realpath(f'{root}/{folder}')}/".startswith(f"{root.rstrip('/')}/"):
            what = f"{_shown(name)} leads out of the output's folder, by a symbolic link"
            raise ResultError(f"item {index}, key {column!r}: {what}", item=index)


def claimed(output: str, job_id: str) -> set[int]:
    """The items that have a name. In object stores each claim is read."""
    folder = f"{batchfiles.folder(output, job_id)}/claims"
    if storage.is_local(folder):
        paths = [entry.path for entry in os.scandir(folder)] if os.path.isdir(folder) else []
    else:
        paths = [found.path for found in stores.of(folder).list(folder)]
    owners: set[int] = set()
    for_each(folder, lambda number: owners.add(int(claims.holder(paths[number]) or -1)), range(len(paths)))
    return owners - {-1}


def _canonical(name: str) -> str:
    """Equal for names that some file system takes for the same one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _fault(name: Any) -> str | None:
    """What is wrong with a name."""
    if not isinstance(name, str):
        return f"it must be text, not {type(name).__name__}"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "it has a control character in it"
    if "\\" in name or "::" in name:
        return "it must have no backslash and no '::' in it"
    if len(name.encode()) > NAME_BYTES:
        return f"it is longer than {NAME_BYTES} bytes"
    if _canonical(name) == MANIFEST:
        return "that file says that the output is complete"
    return next(filter(None, map(_fault_of_part, name.split("/"))), None)


def _fault_of_part(part: str) -> str | None:
    if not part:
        return "it is empty, absolute, or has an empty part"
    if part in (".", "..") or _canonical(part) == batchfiles.TEMP_NAME:
        return f"{part!r} may be no part of it"
    if part != part.strip() or part.endswith("."):
        return "parts must not begin or end with a space, nor end with a dot"
    if len(part.encode()) > PART_BYTES:
        return f"a part of it is longer than {PART_BYTES} bytes"
    return None


def _shown(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."
