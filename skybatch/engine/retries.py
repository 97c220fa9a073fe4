"""What a failure costs a range, and when it is out of tries: every class of failure has a budget of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

from skybatch.engine.events import BUDGETS, Settings, Unit
from skybatch.errors import UnknownName, UsageError

OF_ITEMS = ("mapper", "memory", "timeout")
"""The classes that a plain number of retries is for: what the items, or the code that maps them, are to blame for."""


def class_of(kind: str) -> str:
    """The class of a failure of this kind: what cannot be read or written is charged as what cannot be mapped."""
    return kind if kind in BUDGETS else "mapper"


def budgets(max_retries: int | Mapping[str, int]) -> dict[str, int]:
    """Tries after the first, by class of failure. Raises UnknownName or UsageError for what is no such budget."""
    if isinstance(max_retries, Mapping):
        for name, tries in max_retries.items():
            if name not in BUDGETS:
                raise UnknownName("class of failures in max_retries", str(name), BUDGETS)
            _check(f"max_retries: {name}", tries)
        return {**BUDGETS, **max_retries}
    _check("max_retries", max_retries)
    return {**BUDGETS, **dict.fromkeys(OF_ITEMS, max_retries)}


def _check(what: str, tries: object) -> None:
    if isinstance(tries, bool) or not isinstance(tries, int) or tries < 0:
        raise UsageError(f"{what} must be a whole number, at least 0; not {tries!r}")


def charge(settings: Settings, unit: Unit, kind: str, signature: str, now: float) -> Unit:
    """The unit after a failure of this kind. It waits longer each time; after a lost worker it runs alone."""
    wait_s = settings.backoff_s * 2.0 ** min(unit.attempt, 60)
    name = class_of(kind)
    return replace(
        unit,
        attempt=unit.attempt + 1,
        not_before=now + min(wait_s, settings.backoff_max_s),
        isolated=name == "lost",
        charges={**unit.charges, name: unit.charges.get(name, 0) + 1},
        signature=signature,
    )


def suspect(unit: Unit, now: float) -> Unit:
    """The unit after its worker died with several ranges in hand: not charged, and alone the next time."""
    suspected = unit.charges.get(SUSPECTED, 0) + 1
    return replace(unit, isolated=True, not_before=now, charges={**unit.charges, SUSPECTED: suspected})


SUSPECTED = "suspected"
"""Workers lost with this range and others in hand: counted with those lost with it alone, not in its attempts."""


def is_spent(settings: Settings, unit: Unit, kind: str) -> bool:
    """Whether the failure of this kind that was charged last was the unit's last."""
    if unit.tries_left is not None:
        return True
    name = class_of(kind)
    count = unit.charges.get(name, 0)
    if name == "lost":
        count += unit.charges.get(SUSPECTED, 0)
    return count > settings.budgets[name]


def parts(unit: Unit, size: int, now: float) -> tuple[Unit, ...]:
    """The units of `size` items, the last with what is left, that take over from one.

    One try each; a single item all of them.
    """

    def part(start: int) -> Unit:
        end = min(start + size - 1, unit.end)
        tries = 1 if start < end else None
        return Unit(start, end, 0, not_before=now, isolated=unit.isolated, tries_left=tries)

    return tuple(map(part, range(unit.start, unit.end + 1, size)))


def part_size(items: int, kind: str) -> int:
    """Into parts of what size to cut so many items after a failure of this kind.

    One that does not fit into memory is halved. Otherwise one bad item is looked for: parts as long as there are parts
    have fewer items tried again than halves, and fewer workers killed.
    """
    if kind == "memory":
        return (items + 1) // 2
    return isqrt(items) if items > SEARCHED_ONE_BY_ONE else 1


SEARCHED_ONE_BY_ONE = 8
