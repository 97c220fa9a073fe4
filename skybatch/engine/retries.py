"""What a failure costs a range, and when it is out of tries."""

from __future__ import annotations

from dataclasses import replace

from skybatch.engine.events import Settings, Unit


def charge(settings: Settings, unit: Unit, kind: str, now: float) -> Unit:
    """The unit after a failure of this kind. It waits longer each time; after a lost worker it runs alone."""
    lost = kind == "lost"
    wait_s = settings.backoff_s * 2.0 ** min(unit.attempt, 60)
    return replace(
        unit,
        attempt=unit.attempt + 1,
        not_before=now + min(wait_s, settings.backoff_max_s),
        isolated=lost,
        tries_left=None if unit.tries_left is None else unit.tries_left - 1,
        losses=unit.losses + lost,
    )


def exhausted(settings: Settings, charged: Unit, kind: str) -> bool:
    """Whether the failure just charged was the unit's last. Lost workers have a budget of their own."""
    if charged.tries_left is not None:
        return charged.tries_left <= 0
    if kind == "lost":
        return charged.losses + charged.suspected > settings.max_losses
    return charged.attempt - charged.losses > settings.max_retries


def parts(settings: Settings, unit: Unit, last: int, now: float) -> tuple[Unit, Unit]:
    """The two units that take over from one: up to `last`, and the rest. One try each; a single item more."""

    def part(start: int, end: int) -> Unit:
        tries = 1 if start < end else max(1, settings.max_retries)
        return Unit(start, end, 0, not_before=now, isolated=unit.isolated, tries_left=tries)

    return part(unit.start, last), part(last + 1, unit.end)
