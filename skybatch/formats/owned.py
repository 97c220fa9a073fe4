"""Files that replace only what the same job has put: whose a file is, is told by the file itself.

An owner is `<job>.<attempt>`. Objects carry it in their metadata. Of a local file, the fraction of a second of its
modification time says which job wrote it: that costs nothing, and is there when the name is.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from typing import TYPE_CHECKING

from skybatch import disk

if TYPE_CHECKING:
    from skybatch.formats.stores.base import Store

_SECOND = 10**9
_STEP = 100  # ns: what filesystems that keep fractions keep at least


@functools.lru_cache
def _fraction(job: str) -> int:
    """Nanoseconds, never 0."""
    return (int.from_bytes(hashlib.sha256(job.encode()).digest()[:8]) % (_SECOND // _STEP - 1) + 1) * _STEP


def mark(fd: int, owner: str) -> None:
    """Write into a file just written which job has."""
    now = time.time_ns()
    marked = now - now % _SECOND + _fraction(_job(owner))
    os.utime(fd, ns=(now, marked if marked <= now else marked - _SECOND))


def name(marked: str, final: str) -> None:
    """Give a marked file its name. Raises FileExistsError when something stands there that has not the same mark.

    Where the filesystem keeps whole seconds only, what stands there is taken for the job's.
    """
    try:
        disk.link("owned", marked, final)
    except FileExistsError:
        there = os.lstat(final)
        if os.path.isdir(final):
            raise IsADirectoryError(final) from None
        if there.st_mtime_ns % _SECOND != os.stat(marked).st_mtime_ns % _SECOND:
            raise
        disk.rename("owned", marked, final)
    else:
        disk.unlink("owned", marked)


def put(store: Store, path: str, data: bytes, owner: str) -> None:
    """Put an object. Raises FileExistsError when something stands there that is not the same job's.

    A store without conditions keeps no owners: there, whatever stands there is replaced.
    """
    if not store.conditional:
        store.put(path, data)
        return
    try:
        store.put(path, data, replaces=None, owner=owner)
    except FileExistsError:
        found = store.info(path)
        if _job(found.owner or "") != _job(owner):
            raise
        store.put(path, data, replaces=found.version, owner=owner)


def _job(owner: str) -> str:
    return owner.partition(".")[0]
