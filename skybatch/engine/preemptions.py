"""Telling a host that wants its workers gone from a range that has its workers end in the same way."""

from __future__ import annotations

import signal
from collections import Counter

from skybatch.worker.frames import Frame

TERMINATED_MAX = 10
"""So often a range may be in hand when SIGTERM ends its worker alone; from then on it is charged as lost."""


class Preemptions:
    """Counts, for one engine's run, the workers that died of SIGTERM while their parents were not told to go."""

    def __init__(self) -> None:
        self._terminated: Counter[tuple[int, int]] = Counter()

    def reason(self, lost: Frame) -> str:
        """Why a worker was lost, by what its parent said of it; asked once for each."""
        reason: str = lost.get("reason", "exit")
        if reason != "preempted" or lost.get("status") != signal.SIGTERM:
            return reason
        held = [(start, end) for start, end in lost["held"]]
        self._terminated.update(held)
        return "exit" if any(self._terminated[stretch] > TERMINATED_MAX for stretch in held) else reason
