"""Telling a broken mapper from poison items."""

from __future__ import annotations

from enum import Enum

ALIKE = 3  # ranges that must fail alike before the mapper is suspected; all of them in a smaller job
SINGLES = 2  # single items that must then fail alike too


class Verdict(Enum):
    """What a failure says about the mapper."""

    NOTHING = "treat the range as usual"
    PROBE = "split the range's first item off, and try it alone"
    BROKEN = "stop the job"


class MapperHealth:
    """Watches failures until the first success; from then on the mapper counts as sound.

    The mapper is suspected when several ranges failed with one signature. A suspected range that fails again
    gives its first item as a probe. Two single items that fail with that signature too prove the mapper
    broken. A range of one item is its own probe at its second failure. A job of very few ranges goes the
    usual way of retries and parts, and is stopped when two single items are out of tries.
    """

    def __init__(self, *, ranges: int, batch_size: int, sound: bool = False) -> None:
        self.sound = sound
        self.suspected = False  # several ranges failed alike
        self._batch_size = batch_size
        self._few = ranges < ALIKE
        self._alike = min(ALIKE, ranges)
        self._ranges: dict[str, set[int]] = {}  # signature -> virgin ranges in which it was seen
        self._singles: dict[str, set[int]] = {}  # signature -> single items
        self._probes: set[int] = set()

    def succeeded(self) -> None:
        """Something was won: whatever fails from now on is the items' fault."""
        if not self.sound:
            self.sound = True
            self.suspected = False
            self._ranges.clear()
            self._singles.clear()
            self._probes.clear()

    def failed(self, start: int, end: int, signature: str, *, attempt: int, exhausted: bool) -> Verdict:
        """Judge the failure of [start, end], the `attempt`-th charged to it; `exhausted`: it was its last."""
        if self.sound:
            return Verdict.NOTHING
        suspects = self._ranges.setdefault(signature, set())
        if len(suspects) < self._alike:
            suspects.add(start // self._batch_size)
        again = start in self._probes or exhausted or (attempt > 1 and not self._few)
        self._probes.discard(start)
        if len(suspects) < self._alike:
            return Verdict.NOTHING
        self.suspected = True
        if not again:
            return Verdict.NOTHING
        singles = self._singles.setdefault(signature, set())
        if start == end:
            singles.add(start)
            return Verdict.BROKEN if len(singles) >= SINGLES else Verdict.NOTHING
        if self._few or len(self._probes) + len(singles) >= SINGLES:
            return Verdict.NOTHING
        self._probes.add(start)
        return Verdict.PROBE
