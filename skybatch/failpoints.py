"""Named places where a test may kill this process: `SKYBATCH_FAILPOINT=name` or `name:N` for the N-th passing."""

from __future__ import annotations

import os
import signal

_armed, _, _count = os.environ.get("SKYBATCH_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Die here by SIGKILL, when this failpoint is armed and its turn has come."""
    global _left
    if _armed and name == _armed:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
