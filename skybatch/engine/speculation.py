"""Second copies of what a worker has had in hand for too long."""

from __future__ import annotations

from skybatch.engine.crew import Crew, OpenGrant
from skybatch.engine.intervals import IntervalSet
from skybatch.engine.pace import Pace

SLOW = 2.0  # times as long as ranges usually take
LEAST_S = 1.0  # less is not worth a second copy


def slowest(crew: Crew, pace: Pace, won: IntervalSet, now: float) -> OpenGrant | None:
    """The grant that has been in hand for longest, when that is too long and it has no copy yet."""
    found = [(at, grant.number) for at, grant in _candidates(crew, pace, won) if at <= now]
    return crew.grants[min(found)[1]] if found else None


def due_at(crew: Crew, pace: Pace, won: IntervalSet) -> float | None:
    """When the next grant will have been in hand for too long; None when there is none to wait for."""
    return min((at for at, _ in _candidates(crew, pace, won)), default=None)


def _candidates(crew: Crew, pace: Pace, won: IntervalSet) -> list[tuple[float, OpenGrant]]:
    """Grants that have no copy and no other winners, each with the time from which it is too slow."""
    usual = pace.seconds_per_range
    if usual is None:
        return []
    return [
        (grant.since + max(LEAST_S, SLOW * usual * -(-grant.open.total // grant.size)), grant)
        for grant in crew.grants.values()
        if grant.twin is None and not won.overlaps(*next(iter(grant.open)))
    ]
