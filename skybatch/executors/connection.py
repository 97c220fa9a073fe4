"""Stdin and stdout of a Python elsewhere, and the local commands that lead to one."""

from __future__ import annotations

import fcntl
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from skybatch.formats.masking import masked

LOADER = "import sys;exec(sys.stdin.buffer.raw.readline())"
"""What a Python elsewhere is started with, as `python3 -S -c LOADER`: no quotes and nothing a shell knows is in it."""
PIPE_SIZE = 256 << 10
"""Of pipes that carry items. What the pipes of one user may hold together is limited, to 64 MB as a rule."""


class Connection(ABC):
    """Stdin and stdout of `python3 -S -c LOADER` somewhere.

    `reads` and `writes` are blocking descriptors, ours to close. The executor that makes it sees to what leads there;
    all calls come from the engine's thread.
    """

    reads: int
    writes: int

    @abstractmethod
    def kill(self) -> None:
        """Cut it at once; what runs at its other end notices the end of its stdin. May be called twice."""

    @abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Wait until what leads there has ended; whether it has. After both descriptors are closed."""

    def words(self) -> str:
        """What was said beside stdout: why it could not be made, or ended."""
        return ""


class ProcessConnection(Connection):
    """Through a local command: ssh, srun, docker run -i, ..."""

    def __init__(self, argv: Sequence[str], errors: Path | None, env: Mapping[str, str] | None = None) -> None:
        self._errors = errors
        self._begin = errors.stat().st_size if errors is not None and errors.exists() else 0
        with errors.open("ab") if errors else open(os.devnull, "wb") as stderr:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=env,
                bufsize=0,
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.writes, self.reads = os.dup(self._process.stdin.fileno()), os.dup(self._process.stdout.fileno())
        self._process.stdin.close()
        self._process.stdout.close()

    def kill(self) -> None:
        """Kill the command."""
        self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the command's end."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def words(self) -> str:
        """What the command said on stderr since it was started, its last 2000 characters, secrets masked."""
        if self._errors is None:
            return ""
        try:
            with self._errors.open("rb") as file:
                file.seek(max(self._begin, file.seek(0, os.SEEK_END) - 2000))
                return masked(file.read().decode(errors="replace").strip())
        except OSError:
            return ""


def enlarge(pipe: int) -> None:
    """Let more wait in it, so that its ends take turns less often; where it may not, or is none, it stays as it is."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass
