"""The job's lock: one engine at a time, for as long as its process lives.

`flock` on a file that is never removed, so that there is only ever one file to lock. The kernel lets go of
it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from skybatch.errors import JobLocked
from skybatch.failpoints import reach
from skybatch.journal import forking

PROBES_WAITED_OUT = 5  # is_held() holds the lock for microseconds; an engine holds it for longer than this
PROBE_WAIT_S = 0.01


class JobLock:
    """The lock of the job in `folder`; a context manager that acquires and releases it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._job = folder.name
        self._fd: int | None = None
        forking.register(self)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock, in this process."""
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lock. Raises JobLocked at once when another engine has it; nothing was changed then."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not _try_patiently(fd):
                raise JobLocked(
                    f"job {self._job}: another engine{_note(fd)} runs it; nothing was changed\n"
                    f"  to follow it: skybatch status {self._job} --watch"
                )
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        reach("lock.acquired")

    def release(self) -> None:
        """Let go of the lock; may be called twice."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def leave_to_parent(self) -> None:
        """In a forked child: close the descriptor, so that the lock ends with the parent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        if not self.held:
            self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(folder: Path) -> bool:
    """Whether an engine holds the lock of the job in `folder` now."""
    try:
        fd = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try(fd, fcntl.LOCK_SH)  # shared: probes do not see each other
    finally:
        os.close(fd)


def holder(folder: Path) -> int | None:
    """The process that noted itself as the lock's holder; None when nobody did."""
    try:
        return int((folder / "lock").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_patiently(fd: int) -> bool:
    for _ in range(PROBES_WAITED_OUT):
        if _try(fd, fcntl.LOCK_EX):
            return True
        time.sleep(PROBE_WAIT_S)
    return False


def _note(fd: int) -> str:
    pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return f" (process {pid})" if pid.isdigit() else ""
