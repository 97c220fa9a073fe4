"""How long a range takes, and how many of them make a good grant."""

from __future__ import annotations

from math import ceil

from skybatch.engine.events import Settings

MAX_GROWTH = 64  # a grant is at most this many times longer than its worker's last
MEMORY = 0.5  # what older measurements count for, at each new one
SHORTEST_S = 1e-9  # where the clock saw no time pass
SEAL_S = 0.75  # a stretch in progress is told of after this time
ANSWERS_PER_S = 1000
"""With more workers than can answer so often together, grants and stretches get longer: an engine takes in a few
thousand answers a second, and a store is spared small files."""


class Pace:
    """Seconds per range as measured of late: stretches of many ranges weigh more, old ones fade."""

    __slots__ = ("_ranges", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._ranges = 0.0

    def measured(self, seconds: float, ranges: int) -> None:
        """Note that `ranges` ranges took `seconds` seconds."""
        self._seconds = MEMORY * self._seconds + max(seconds, 0.0)
        self._ranges = MEMORY * self._ranges + ranges

    @property
    def seconds_per_range(self) -> float | None:
        """None before anything was measured."""
        if not self._ranges:
            return None
        return max(self._seconds / self._ranges, SHORTEST_S)


def seal_s(workers: int) -> float:
    """How long a worker may collect results before it tells of them, in seconds: what its death may cost."""
    return max(SEAL_S, workers / ANSWERS_PER_S)


def grant_length(settings: Settings, *, pace: float | None, last: int, pending: int, workers: int) -> int:
    """How many ranges to grant at once, at least 1.

    As many as keep the worker busy for `target_s`, or until all `workers` have answered in turn, at `pace` seconds per
    range (None: not known yet, so one), not much more than its `last` grant had, and less when few ranges are
    `pending`, so that all `workers` end together.
    """
    if pace is None:
        return 1
    target_s = max(settings.target_s, workers / ANSWERS_PER_S)
    wanted = min(target_s / pace, MAX_GROWTH * max(last, 1))
    fair = max(ceil(pending / (2 * workers)), settings.tail_s / pace)
    return max(1, int(min(wanted, fair)))
