"""Many small files made durable together: one fsync for each of them costs more than writing them.

A thread that has called `collect` leaves the files it writes to whoever takes over `collected` and calls
`make_durable`; nobody may be told of them before that has returned.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable

from skybatch import disk
from skybatch.failpoints import after, before

FEW = 8
"""So many files are made durable one by one; more of them by one sync of all their filesystem."""

_this_thread = threading.local()
_filesystems: dict[int, int] = {}  # device -> descriptor, open from before the first write so that no error is missed


def collect() -> None:
    """From now on, files that this thread writes through `storage` are collected, not synced one by one."""
    _this_thread.paths, _this_thread.folders = [], set()


def collected() -> list[str]:
    """Files written since the last call, which are not durable yet; collecting goes on."""
    paths: list[str] = getattr(_this_thread, "paths", [])
    if paths:
        _this_thread.paths = []
    return paths


def announce(folder: str) -> bool:
    """Whether files of this thread are collected; said before one is written in `folder`."""
    folders: set[str] | None = getattr(_this_thread, "folders", None)
    if folders is None:
        return False
    if folder not in folders:
        _watch(folder)
        folders.add(folder)
    return True


def written(path: str) -> None:
    """A file has its name and content, and is not durable yet."""
    _this_thread.paths.append(path)


def make_durable(paths: list[str]) -> None:
    """Return once these files, their names included, are on the disk. Raises OSError when the disk failed."""
    folders = {os.path.dirname(path) for path in paths}
    sync = _syncfs()
    if sync is None or len(paths) <= FEW:
        _sync_each(paths, os.O_RDONLY)
        _sync_each(folders, os.O_RDONLY | os.O_DIRECTORY)
        return
    for device in {_watch(folder) for folder in folders}:
        before("batch.syncfs")
        error = sync(_filesystems[device])
        if error:
            raise OSError(error, os.strerror(error), next(iter(folders)))
        after("batch.syncfs")


def _sync_each(paths: Iterable[str], flags: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, flags | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its writer took it away again
        try:
            disk.fsync("batch", fd)
        finally:
            os.close(fd)


def _watch(folder: str) -> int:
    """The device of a folder; errors of writing to it are kept for us from now on."""
    from skybatch.formats.storage import private

    device = os.stat(folder).st_dev
    if device not in _filesystems:
        fd = private(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if _filesystems.setdefault(device, fd) != fd:
            os.close(fd)  # another thread was first
    return device


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    """Linux's syncfs(2), where there is one; it answers with an error number or 0."""
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, AttributeError, OSError):
        return None
    call.argtypes = [ctypes.c_int]
    return lambda fd: ctypes.get_errno() if call(fd) else 0
