"""Whether the kernel killed for want of memory, by its own count of such kills.

The count is that of the worker's memory cgroup; where there is none to be found, that of the whole machine.
Imported by the worker's parent, which is run as a file: standard library only.
"""

from __future__ import annotations

import time
from typing import Optional, Tuple

EXIT_CODE = 250
"""Of a worker that ran out of memory in code of ours, where no failure of a range can be told any more."""
GENERATION_S = 5.0
OWN_SCORE = 500
"""Added to the worker's badness, so that it is taken before its parent, the engine and whatever else runs here."""


class OomKills:
    """Watches the count from its making on. `look` is called now and then while the worker is well."""

    def __init__(self, files: Optional[Tuple[str, ...]] = None) -> None:
        self._files = counters() if files is None else files
        self._before = self._later = self._count()
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Let kills that are long past, and were others', count no more. Costs nothing when called often."""
        now = time.monotonic()
        if now - self._looked_at >= GENERATION_S:
            self._looked_at = now
            self._before, self._later = self._later, self._count()

    def happened(self) -> bool:
        """Whether something in the worker's cgroup was killed for want of memory, lately."""
        return self._count() > self._before

    def _count(self) -> int:
        for path in self._files:
            count = _count_in(path)
            if count is not None:
                return count
        return 0


def counters() -> Tuple[str, ...]:
    """The files that may have the count for this process, the nearest first."""
    try:
        with open("/proc/self/cgroup") as groups, open("/proc/self/mountinfo") as mounts:
            return (*_of_cgroup(groups.read(), mounts.read()), "/proc/vmstat")
    except OSError:
        return ("/proc/vmstat",)


def _of_cgroup(groups: str, mounts: str) -> Tuple[str, ...]:
    """By the contents of /proc/self/cgroup and /proc/self/mountinfo."""
    found = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        kind, name = ("cgroup", "memory.oom_control") if controllers else ("cgroup2", "memory.events")
        folder = _folder(mounts, kind, path)
        if folder:
            found.append(folder + "/" + name)
    return tuple(found)


def _folder(mounts: str, kind: str, path: str) -> Optional[str]:
    for line in mounts.splitlines():
        mounted, _, source = line.partition(" - ")
        fields, options = mounted.split(), source.split()
        if options[0] != kind or (kind == "cgroup" and "memory" not in options[-1].split(",")):
            continue
        root, place = fields[3], fields[4]
        if root != "/" and (path + "/").startswith(root + "/"):  # a container sees a part of the tree
            path = path[len(root) :]
        return place + path.rstrip("/")
    return None


def _count_in(path: str) -> Optional[int]:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def volunteer() -> None:
    """Have the kernel take this process, and what it starts, before others when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = min(1000, int(file.read()) + OWN_SCORE)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):
        pass  # it is a kindness, no need
