"""One worker in every slot of a pool, which maps nothing and tells where it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skybatch.engine.pools import Pool
from skybatch.engine.trials import Trial, Trials
from skybatch.executors.base import Slot
from skybatch.worker.frames import Frame

PINGS = 5


@dataclass(kw_only=True)
class Checked:
    """What was found in one slot, or why no worker could be started in one place."""

    slot: str  # "" where a place has no slots
    place: str
    error: str | None = None
    start_s: float | None = None  # from the start of the worker to its first word
    round_trip_s: float | None = None  # the shortest of a few
    facts: dict[str, Any] = field(default_factory=dict)


def check_pool(pool: Pool, timeout_s: float, on_found: Callable[[Checked], None], log_folder: str = "") -> None:
    """Try every slot there is, all at once; `on_found` hears of each as it is known.

    Slots that have not come within the time, in seconds, or that do not answer, are told as errors. Raises UsageError
    for a pool that cannot be checked.
    """
    _Check(pool, on_found, timeout_s, log_folder).run()


class _Check(Trials):
    def __init__(self, pool: Pool, on_found: Callable[[Checked], None], timeout_s: float, log_folder: str) -> None:
        super().__init__(pool, {"role": "check"}, timeout_s=timeout_s, log_folder=log_folder)
        self._on_found = on_found
        self._found: dict[str, Checked] = {}
        self._pings: dict[str, int] = {}
        self._asked_at: dict[str, float] = {}

    def heed(self, trial: Trial, frame: Frame) -> None:
        name = trial.slot.name
        if frame["op"] == "ready":
            facts = {**trial.channel.facts(), **frame["facts"]}
            start_s = time.monotonic() - trial.began
            self._found[name] = Checked(slot=name, place=trial.slot.place, start_s=start_s, facts=facts)
            self._ping(trial)
        elif frame["op"] == "pong":
            took, found = time.monotonic() - self._asked_at[name], self._found[name]
            found.round_trip_s = min(took, found.round_trip_s or took)
            if self._pings[name] < PINGS:
                self._ping(trial)
            else:
                self.end(trial, None)

    def tell(self, slot: Slot, trial: Trial | None, error: str | None) -> None:
        found = self._found.get(slot.name) or Checked(slot=slot.name, place=slot.place)
        found.error = error
        self._on_found(found)

    def _ping(self, trial: Trial) -> None:
        name = trial.slot.name
        self._pings[name] = self._pings.get(name, 0) + 1
        self._asked_at[name] = time.monotonic()
        trial.channel.send({"op": "ping", "id": self._pings[name]})
