"""Workers that hold a grant for too long and whose parents do not see to it: those are stopped, or out of reach."""

from __future__ import annotations

import time

from skybatch.engine.workers import START_TIMEOUT_S, LiveWorker, Workers

GRACE_S = 10.0
"""A worker's parent, which counts the batch timeout itself, has so much longer."""


class StuckWatch:
    """Kills workers that have said nothing for as long as all that is in their hands may take."""

    def __init__(self, workers: Workers, batch_timeout_s: float | None) -> None:
        self._workers, self._timeout_s = workers, batch_timeout_s
        self._next_look = 0.0  # nobody can be found stuck before

    def next_look(self) -> float | None:
        """When a look is due; None where batches may take for ever."""
        return None if self._timeout_s is None else self._next_look

    def look(self) -> None:
        """Kill who is stuck, if a look is due."""
        now = time.monotonic()
        if self._timeout_s is None or now < self._next_look:
            return
        self._next_look = now + self._timeout_s + GRACE_S  # whoever is heard of from now on has that long at least
        for worker in [worker for worker in self._workers.live.values() if worker.grants]:
            at = _stuck_at(worker, self._timeout_s)
            if at <= now:
                self._workers.kill(worker)
            else:
                self._next_look = min(self._next_look, at)


def _stuck_at(worker: LiveWorker, batch_timeout_s: float) -> float:
    start_s = 0.0 if worker.answered else START_TIMEOUT_S
    return worker.heard_at + start_s + batch_timeout_s * (max(worker.grants.values()) + 1) + GRACE_S
