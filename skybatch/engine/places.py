"""Which slots may be used now: where workers cannot be started, or a device is lost, none for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skybatch.executors.base import Executor, Slot, by_turns

ASIDE_S, ASIDE_MAX_S = 5.0, 300.0
"""So long a place is set aside after it failed; doubled each time, until a worker is ready there."""
FAILURES_MAX = 3
"""Where there is one place alone, it is tried so often, at once, before the job is given up."""


@dataclass
class _Failures:
    """What went wrong in one place since a worker was ready there."""

    count: int
    reason: str
    until: float  # set aside until then

    def set_aside(self, now: float) -> None:
        """Leave the place alone for a while, the longer the oftener it failed."""
        self.until = now + min(ASIDE_S * 2 ** (self.count - 1), ASIDE_MAX_S)


class Places:
    """The executor's slots, but for those of places that have failed. Time is the caller's, in seconds."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._slots: list[Slot] = list(executor.slots())
        self._failures: dict[str, _Failures] = {}

    def refresh(self) -> set[str]:
        """Ask the executor anew; the names of all its slots."""
        self._slots = list(self._executor.slots())
        return {slot.name for slot in self._slots}

    def usable(self, now: float) -> list[Slot]:
        """The slots that may be used, spread over the places."""
        return [slot for slot in by_turns(self._slots) if not self._is_aside(slot.place, now)]

    def failed(self, place: str, reason: str, now: float) -> bool:
        """No worker could be started in a place. Whether it may be tried again."""
        failures = self._count(place, reason, now)
        if self.is_alone(place):
            return failures.count < FAILURES_MAX
        failures.set_aside(now)
        return True

    def set_aside(self, place: str, reason: str, now: float) -> None:
        """A place is not fit for work."""
        self._count(place, reason, now).set_aside(now)

    def _count(self, place: str, reason: str, now: float) -> _Failures:
        failures = self._failures.setdefault(place, _Failures(0, reason, now))
        failures.count += 1
        failures.reason = reason
        return failures

    def worked(self, place: str) -> None:
        """A worker is ready there."""
        self._failures.pop(place, None)

    def has_returned(self, now: float) -> bool:
        """Whether a place may be tried again that failed, and in which no worker was ready since."""
        return any(failed.until <= now for failed in self._failures.values())

    def next_return(self, now: float) -> float | None:
        """When the next place that was set aside may be tried again."""
        return min((failed.until for failed in self._failures.values() if failed.until > now), default=None)

    def aside(self, now: float) -> Mapping[str, str]:
        """Places that are not used now, and why."""
        ours = {place: self._failures[place].reason for place in self._failures if self._is_aside(place, now)}
        return {**self._executor.aside(), **ours}

    def _is_aside(self, place: str, now: float) -> bool:
        failures = self._failures.get(place)
        return failures is not None and failures.until > now

    def is_alone(self, place: str) -> bool:
        """Whether there is no other place."""
        return not self._executor.aside() and all(slot.place == place for slot in self._slots)
