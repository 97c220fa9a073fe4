"""Claims: small files that say whose something is, made in one step, so that of several only one gets it."""

from __future__ import annotations

import os

from skybatch import disk
from skybatch.formats import batchfiles, storage, stores

ENDING = ".claim"


def take(path: str, owner: str) -> str:
    """Whose the claim is now: `owner`'s, or another's who was first. Its folder must be there."""
    if storage.is_local(path):
        try:
            # One that leads nowhere comes into being with its content, which a file does not.
            disk.symlink("claim", owner, path)
        except FileExistsError:
            return os.readlink(path)
        return owner
    store = stores.of(path)
    try:
        store.put(path, owner.encode(), replaces=None, owner=owner)
    except FileExistsError:
        return store.read(path).decode()
    return owner


def holder(path: str) -> str | None:
    """Whose the claim is; None when nobody has it."""
    try:
        return os.readlink(path) if storage.is_local(path) else stores.of(path).read(path).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None


def drop(path: str) -> None:
    """Remove a claim, whoever's it is."""
    if storage.is_local(path):
        storage.unlink_if_there(path)
    else:
        stores.of(path).delete([path])


# A whole folder, for the job that writes to it


def folder_claim(output_path: str) -> str:
    """Where it says which job writes to an output's folder."""
    place, _, name = batchfiles.folder(output_path, "").rpartition("/")
    return f"{place.rstrip('/')}/{name}{ENDING}"


def release_folder(output_path: str, job_id: str) -> None:
    """Give up an output's folder, if the job has it."""
    path = folder_claim(output_path)
    if holder(path) == job_id:
        drop(path)
        if storage.is_local(path):
            batchfiles.remove_empty(os.path.dirname(path))
