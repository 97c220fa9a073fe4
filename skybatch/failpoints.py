"""Named places where a test may kill this process, or hold it up, so that a kill from outside finds it there.

`SKYBATCH_FAILPOINT=name`, or `name:N` for the N-th passing, dies there by SIGKILL. `SKYBATCH_LINGER=name:SECONDS`
waits there each time.
"""

from __future__ import annotations

import os
import signal
import time

_armed, _, _count = os.environ.get("SKYBATCH_FAILPOINT", "").partition(":")
_left = int(_count or 1)
_lingering, _, _seconds = os.environ.get("SKYBATCH_LINGER", "").partition(":")


def reach(name: str) -> None:
    """Die here by SIGKILL, or wait, when this place is the one asked for and its turn has come."""
    global _left
    if _armed and name == _armed:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    if _lingering and name == _lingering:
        time.sleep(float(_seconds))
