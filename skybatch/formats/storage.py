"""Bytes on local disk and, through fsspec, elsewhere: whole, durable, or not at all."""

from __future__ import annotations

import errno
import fcntl
import functools
import itertools
import os
import threading
from collections.abc import Callable
from typing import cast

from skybatch import disk
from skybatch.errors import UsageError
from skybatch.failpoints import after, before
from skybatch.formats import durability, owned
from skybatch.formats.masking import check_path as check_path
from skybatch.formats.masking import masked as masked
from skybatch.formats.masking import refuse_secrets as refuse_secrets

FIRST_PRIVATE_FD = 608
"""Descriptors of our own lie above what careless mappers close with `os.closerange(0, 256)`, those of the worker's
channel, from 600 on, among them."""
PRIVATE_FDS = 256
"""So many numbers are given out in turn: one that a mapper closed under us is bad from then on, not soon another's."""

_turns = itertools.count()

_scratch = threading.local()


def is_local(path: str) -> bool:
    """Whether `path` is on the local disk: no scheme, or `file://`."""
    return "://" not in path or path.startswith(("file://", "local://"))


def local_path(path: str) -> str:
    """`path` as an absolute local path; a trailing slash stays. Raises UsageError for other stores."""
    if not is_local(path):
        raise UsageError(f"{masked(path)}: only local paths are supported here")
    plain = path.split("://", 1)[1] if "://" in path else os.path.expanduser(path)
    return os.path.abspath(plain) + ("/" if plain.endswith("/") and plain != "/" else "")


def write_bytes(path: str, data: bytes, *, owner: str | None = None) -> None:
    """Make `path` hold `data`: atomically and durably locally, by one put elsewhere. Folders are made.

    With an `owner` (`<job>.<attempt>`) what stands there is replaced only where that job has written it, and raises
    FileExistsError elsewhere. Durable when this returns, or together with others: see `durability`.
    """
    if not is_local(path):
        from skybatch.formats import stores

        refuse_secrets(path)
        if owner is None:
            stores.of(path).put(path, data)
        else:
            owned.put(stores.of(path), path, data, owner)
        return
    final = local_path(path)
    folder = os.path.dirname(final)
    make_folders(folder)
    together = durability.announce(folder)
    try:
        _write_by_way_of(getattr(_scratch, "folder", None) or folder, final, data, owner, sync=not together)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _write_by_way_of(folder, final, data, owner, sync=not together)
    if together:
        durability.written(final)
    else:
        sync_folder(folder)


def use_scratch(folder: str | None) -> None:
    """Where this thread's files lie until they are whole: what a kill leaves there is removed with the folder.

    Without one they lie beside what they become. On another filesystem than that, it is left unused.
    """
    _scratch.folder = folder


def _write_by_way_of(folder: str, final: str, data: bytes, owner: str | None, *, sync: bool) -> None:
    temporary = f"{folder}/.{os.urandom(8).hex()}.part"
    fd = private(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        try:
            keep_for_owner(fd)
            before("file.write")
            write_all(fd, data)
            after("file.write")
            if owner is not None:
                owned.mark(fd, owner)
            if sync:
                disk.fsync("file", fd)
        finally:
            os.close(fd)
        if owner is None:
            disk.rename("file", temporary, final)
        else:
            owned.name(temporary, final)
    except BaseException:
        unlink_if_there(temporary)
        raise


def can_rename(one: str, other: str) -> bool:
    """Whether files can be renamed and linked from one local folder to another: both on one mounted filesystem."""
    missing = f"{os.urandom(8).hex()}.missing"
    try:
        os.rename(f"{one}/{missing}", f"{other}/{missing}")
    except OSError as error:
        return error.errno != errno.EXDEV and os.stat(one).st_dev == os.stat(other).st_dev
    return True


def read_bytes(path: str) -> bytes:
    """All of a file. Raises FileNotFoundError."""
    if is_local(path):
        with open(local_path(path), "rb") as file:
            return file.read()
    from skybatch.formats import stores

    refuse_secrets(path)
    return stores.of(path).read(path)


def make_folders(folder: str) -> None:
    """Make `folder` and its parents; those made are durable, and their owner's under any umask."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for made in reversed(missing):
        try:
            disk.mkdir("folder", made)
        except FileExistsError:
            continue
        mode = os.stat(made).st_mode
        if mode & 0o700 != 0o700:
            os.chmod(made, mode & 0o7777 | 0o700)
        sync_folder(os.path.dirname(made))


def sync_folder(folder: str) -> None:
    """Make entries of `folder` durable."""
    fd = private(os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        disk.fsync("folder", fd)
    finally:
        os.close(fd)


def unlink_if_there(path: str) -> None:
    """Remove a file, or nothing."""
    disk.unlink("file", path, missing_ok=True)


def private(fd: int) -> int:
    """Move a descriptor above those that user code may close; where the limit is too low it stays."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE_FD + next(_turns) % PRIVATE_FDS)
    except OSError:
        return fd
    os.close(fd)
    return moved


def keep_for_owner(fd: int) -> None:
    """Let the owner read and write a file just made, whatever umask a mapper has set."""
    mode = os.fstat(fd).st_mode
    if mode & 0o600 != 0o600:
        os.fchmod(fd, mode & 0o7777 | 0o600)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).sync_file_range
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    except (ImportError, AttributeError, OSError):
        return None
    return cast("Callable[[int, int, int, int], int]", call)


def start_writeback(fd: int) -> None:
    """Have the disk begin with what was written, so that a later fsync finds little to do. A hint only."""
    call = _sync_file_range()
    if call is not None:
        call(fd, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
