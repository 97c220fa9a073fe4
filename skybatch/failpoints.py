"""Boundaries: named places between two steps, where a test has a process killed, or an operation failed.

SKYBATCH_FAILPOINT=NAME[:N[:ERROR]]: at the N-th passing (the first, unless said) of a boundary of that name, in which
`*` stands for anything, the process dies by SIGKILL; with an error's name, as ENOSPC, the operation there fails with
that instead. So `*:7` dies at the seventh boundary of whatever name, `store.*:2:EIO` fails the second step of a store.
SKYBATCH_FAILPOINT_ONCE=FILE: only for the one process that makes this file.
SKYBATCH_FAILPOINT_TRACE=FILE: the name of each boundary passed is appended, a line each.
SKYBATCH_LINGER=NAME:SECONDS: wait there each time, so that a kill from outside finds the process there.
SKYBATCH_WORKER_FAILPOINT, ..._ONCE and ..._TRACE are the same for the job's workers.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import signal
import threading
import time
from collections.abc import Mapping

_OURS, _WORKERS = "SKYBATCH_FAILPOINT", "SKYBATCH_WORKER_FAILPOINT"
_PARTS = ("", "_ONCE", "_TRACE")


class Failpoints:
    """What is to happen at the boundaries of this process. Any thread may pass them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        asked, self._once, self._trace = (environment.get(f"{_OURS}{part}", "") for part in _PARTS)
        self._pattern, count, error = [*asked.split(":"), "", ""][:3]
        self._left = int(count or 1)
        self._error = getattr(errno, error) if error else None
        self._lingering, _, self._seconds = environment.get("SKYBATCH_LINGER", "").partition(":")
        self._counting = threading.Lock()
        self.armed = bool(self._pattern or self._trace or self._lingering)

    def reach(self, name: str, detail: str = "") -> None:
        """A boundary that is no operation of a disk or store; `detail` is a further part of its name."""
        self._pass(f"{name}.{detail}" if detail else name, fails=False)

    def before(self, operation: str, detail: str = "") -> None:
        """An operation of a disk or store that changes something comes next. Raises OSError if it is to fail."""
        self._pass(f"{operation}.{detail}.before" if detail else f"{operation}.before", fails=True)

    def after(self, operation: str, detail: str = "") -> None:
        """It has worked. Raises OSError if nobody is to learn that."""
        self._pass(f"{operation}.{detail}.after" if detail else f"{operation}.after", fails=True)

    def _pass(self, name: str, *, fails: bool) -> None:
        if self._trace:
            _append(self._trace, f"{name}\n")
        if self._pattern and (fails or self._error is None) and self._is_turn(name):
            if self._error is not None:
                raise OSError(self._error, f"{os.strerror(self._error)} (at {name})")
            os.kill(os.getpid(), signal.SIGKILL)
        if name == self._lingering:
            time.sleep(float(self._seconds))

    def _is_turn(self, name: str) -> bool:
        if name != self._pattern and not fnmatch.fnmatchcase(name, self._pattern):
            return False
        with self._counting:
            self._left -= 1
            return self._left == 0 and self._is_first()

    def _is_first(self) -> bool:
        """Whether no other process has come to its boundary before."""
        try:
            if self._once:
                os.close(os.open(self._once, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        return True


def _append(path: str, line: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(fd, line.encode())
        os.close(fd)
    except OSError:
        pass  # a mapper closes descriptors that it does not know


def _pass_by(name: str, detail: str = "") -> None:
    """Nothing is armed."""


def for_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: what is asked of this process is not asked of that."""
    ours = {f"{_OURS}{part}" for part in _PARTS}
    theirs = {f"{_OURS}{part}": environment.get(f"{_WORKERS}{part}") for part in _PARTS}
    kept = {name: value for name, value in environment.items() if name not in ours}
    return kept | {name: value for name, value in theirs.items() if value}


_here = Failpoints(os.environ)
reach, before, after = (_here.reach, _here.before, _here.after) if _here.armed else (_pass_by, _pass_by, _pass_by)
