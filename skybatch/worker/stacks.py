"""Where a stuck worker is: the stacks of all its threads, written by itself when its parent asks with a signal.

The handler is C code of `faulthandler`, so that it answers while the interpreter's lock is held by C code. It
writes into memory shared with the parent, on a descriptor above those that careless code closes. Imported by
the parent, which is run as a file: standard library only.
"""

from __future__ import annotations

import os
import signal
import time
from typing import List

SIGNAL = signal.SIGRTMIN + 9
"""Nobody's: users and job schedulers have SIGUSR1 and SIGUSR2, the C library the first real-time ones."""
PATIENCE_S = 1.0
SETTLED_S = 0.1  # nothing more was written for so long: it was all
_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_SIZE_MAX = 20_000  # characters that go to the engine
_READ_MAX = 1 << 20
_IDLE = (os.sep + 'threading.py"', os.sep + 'queue.py"')


class Stacks:
    """The parent's side. `fd` is for the worker to write to."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("skybatch-stacks")

    def ask(self, pid: int) -> str:
        """Have process `pid`, a child, write its stacks; what it wrote within PATIENCE_S, or "".

        A stopped process writes nothing, nor one whose mapper has taken the handler away.
        """
        begin = seen = os.fstat(self.fd).st_size
        os.kill(pid, SIGNAL)
        deadline = time.monotonic() + PATIENCE_S
        settled = deadline
        while time.monotonic() < min(deadline, settled) and not _has_ended(pid):
            time.sleep(0.01)
            size = os.fstat(self.fd).st_size
            if size != seen:
                seen, settled = size, time.monotonic() + SETTLED_S
        return os.pread(self.fd, _READ_MAX, begin).decode("utf-8", "replace")


def _has_ended(pid: int) -> bool:
    """Whether the child is dead; it remains to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def of_user_code(text: str) -> str:
    """The stacks without our own frames and idle threads, the mapper's thread first; not over 20,000 characters."""
    blocks = [block for block in text.strip().split("\n\n") if block]
    blocks.sort(key=lambda block: f'"{_OWN_FOLDER}child.py"' not in block)  # the main thread, which is written last
    users = [shown for shown in map(_without_own, blocks) if _tells(shown)]
    return "\n\n".join("\n".join(lines) for lines in users or [b.split("\n") for b in blocks])[:_SIZE_MAX]


def _without_own(block: str) -> List[str]:
    return [line for line in block.split("\n") if f'"{_OWN_FOLDER}' not in line]


def _tells(lines: List[str]) -> bool:
    """Whether a thread is anywhere but waiting for work."""
    return any(not any(place in line for place in _IDLE) for line in lines[1:])
