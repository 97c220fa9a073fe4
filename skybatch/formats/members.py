"""The files of an output whose manifest lists them: built beside the unfinished manifest, put in place before it.

They lie in `<unfinished manifest>.files/` until then, under their final names, and stay there until the manifest is
published, so that every step can be taken again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from skybatch import disk
from skybatch.formats import storage
from skybatch.formats.stores.base import ANYTHING, ObjectInfo, Store
from skybatch.formats.tokens import Token, is_same, token_of


def folder(staged: str) -> str:
    """Where an assembler that writes to `staged` builds the files that its manifest lists."""
    return f"{staged}.files"


def built(staged: str) -> list[str]:
    """The names of these files, in order."""
    try:
        return sorted(os.listdir(folder(staged)))
    except FileNotFoundError:
        return []


def put(staged: str, place: str, *, ours: Collection[Token], overwrite: bool) -> None:
    """Link them to their names in a local folder, durably.

    Unless `overwrite`, what stands there is replaced only where it is in `ours`: FileExistsError for anything else.
    """
    for name in built(staged):
        source, final = f"{folder(staged)}/{name}", f"{place}/{name}"
        there = token_of(final)
        if there == token_of(source):
            continue  # put there before a crash
        if there is None or not (overwrite or there in ours):
            _link(source, final)
        else:
            again = f"{staged}.again"
            storage.unlink_if_there(again)
            disk.link("member.again", source, again)
            disk.rename("member", again, final)
    storage.sync_folder(place)


def _link(source: str, final: str) -> None:
    try:
        disk.link("member", source, final)
    except FileExistsError:
        if not is_same(source, final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final) from None


def put_in_store(
    staged: str, place: str, store: Store, *, owner: str, ours: Collection[str], overwrite: bool
) -> None:
    """Put them below `place` for `owner`; `ours` are the other owners whose objects may be replaced.

    Raises FileExistsError as `put`. A store without conditions does not keep owners: there, objects are replaced.
    """
    prefixes = tuple(f"{each}." for each in (owner, *ours))
    for name in built(staged):
        path, file = f"{place}/{name}", Path(folder(staged), name)
        stat, found = file.stat(), _found(store, path)
        of_this_file = f"{owner}.{stat.st_ino}-{stat.st_mtime_ns}"
        if found is not None and found.owner == of_this_file:
            continue  # put there before a crash
        replaces = found.version if found is not None and (found.owner or "").startswith(prefixes) else None
        if overwrite or not store.conditional:
            replaces = ANYTHING
        try:
            store.put(path, file, replaces=replaces, owner=of_this_file)
        except FileExistsError:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None


def _found(store: Store, path: str) -> ObjectInfo | None:
    try:
        return store.info(path)
    except FileNotFoundError:
        return None


def remove(staged: str) -> None:
    """Remove what was built."""
    shutil.rmtree(folder(staged), ignore_errors=True)
    storage.unlink_if_there(f"{staged}.again")
    storage.unlink_if_there(f"{staged}.replaced")


# What an older manifest lists and the new one does not


def note_replaced(staged: str, manifest: bytes) -> None:
    """Note the files of the manifest that is to be replaced."""
    storage.write_bytes(f"{staged}.replaced", json.dumps(listed(manifest)).encode())


def replaced(staged: str) -> Iterable[str]:
    """The names noted, without those of files that were built anew."""
    return sorted(set(noted_replaced(staged)) - set(built(staged)))


def noted_replaced(staged: str) -> list[str]:
    """The names of the files that the replaced manifest listed."""
    try:
        names: list[str] = json.loads(Path(f"{staged}.replaced").read_bytes())
    except FileNotFoundError:
        return []
    return names


def listed(manifest: bytes) -> list[str]:
    """The names of the files that a manifest of ours lists; none for anything else."""
    try:
        told = json.loads(manifest)
        if not str(told["format"]).startswith("skybatch."):
            return []
        names = [entry["name"] for entry in told.get("files", [])]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    return [name for name in names if isinstance(name, str) and name == os.path.basename(name) != ""]
