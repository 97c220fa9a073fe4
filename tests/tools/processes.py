"""The processes that belong to a test: all that carry its SKYBATCH_HOME, workers and their offspring included."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.001


def wait_until(is_so: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait for something that other processes do and do not tell of. Fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"after {timeout_s} s still not so: {what}"
        time.sleep(POLL_S)


def belonging_to(home: Path) -> list[int]:
    """Processes, this one and zombies aside, that were started with a SKYBATCH_HOME that is or is within `home`."""
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
    return [pid for pid in others if _is_within(home, pid)]


def wait_for_none(home: Path, timeout_s: float) -> None:
    """Wait until nothing of this SKYBATCH_HOME runs any more; fails the test with what still does."""
    deadline = time.monotonic() + timeout_s
    while left := belonging_to(home):
        assert time.monotonic() < deadline, f"after {timeout_s} s these still run: {list(map(describe, left))}"
        time.sleep(POLL_S)


def describe(pid: int) -> str:
    """A process's number and command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        words = b"(ended)"
    return f"{pid} {words.decode(errors='replace')}"


def _is_within(home: Path, pid: int) -> bool:
    begin = f"SKYBATCH_HOME={home}".encode()
    return any(entry == begin or entry.startswith(begin + b"/") for entry in _environment(pid))


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
