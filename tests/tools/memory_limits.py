"""Control groups with little memory, for kills by the real kernel; where none can be made, tests are skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class MemoryLimit:
    """One group; processes that join it may have so much memory together."""

    def __init__(self, folder: Path, count: str) -> None:
        self.folder, self._count = folder, count

    @property
    def joining(self) -> str:
        """A shell line that puts the shell, and what it starts, into the group; its Python is this one."""
        return f"echo $$ > {self.folder}/cgroup.procs; export PATH={Path(sys.executable).parent}:$PATH"

    @property
    def kills(self) -> int:
        """How many processes of the group the kernel has killed for want of memory."""
        lines = (self.folder / self._count).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def memory_limit(size: int) -> Iterator[MemoryLimit]:
    """A group limited to `size` bytes. Skips the test where this machine allows none."""
    v1 = V1.is_dir()
    folder = (V1 if v1 else V2) / f"skybatch-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here, so nothing is killed for want of memory: {error}")
    try:
        try:
            (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(size))
        except OSError as error:
            pytest.skip(f"no memory limit can be set here, so nothing is killed for want of memory: {error}")
        yield MemoryLimit(folder, "memory.oom_control" if v1 else "memory.events")
    finally:
        folder.rmdir()
