"""One engine and thousands of workers: the real engine, and workers that only say they had worked."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figure, Settings

WORKERS, RANGES, GAPS = 10_000, 100_000_000, 100_000
WARM_S, MEASURED_S = 30.0, 60.0


def run(settings: Settings) -> Iterator[Figure]:
    """Batches of a second; then with gaps in what is done; then as many answers as one engine takes."""
    scale = min(1.0, settings.scale)
    common: dict[str, Any] = {
        "workers": max(10, int(WORKERS * scale)),
        "ranges": RANGES,
        "batch_s": 1.0,
        "warm_s": WARM_S * scale,
        "measured_s": max(2.0, MEASURED_S * scale),
    }
    busy, gappy, flooded = harness.interleaved(
        max(1, settings.repeats // 2),
        lambda: _simulated(settings, **common),
        lambda: _simulated(settings, **common, scattered=int(GAPS * scale)),
        lambda: _simulated(settings, **{**common, "workers": max(10, int(1000 * scale)), "hurry": 50.0, "warm_s": 5.0}),
    )
    for what, found in [("", busy), (f", {GAPS:,} gaps in what is done", gappy)]:
        details = {"workers": common["workers"], "ranges": RANGES, **_medians(found)}
        for key, name, bound in [("busy", "workers busy with batches of 1 s", 0.9), ("engine_mb", "engine", None)]:
            yield Figure(
                benchmark="scale",
                what=name + what,
                value=details.pop(key),
                unit="of the time" if bound else "MB",
                at_least=bound,
                at_most=None if bound else 400.0,
                details=details if bound else {},
            )
    most = _medians(flooded)
    yield Figure(
        benchmark="scale",
        what="answers/s taken in, each journalled and a grant sent for it",
        value=most.pop("answers_per_s"),
        unit="/s",
        at_least=1000.0,
        details=most,
    )


def _simulated(settings: Settings, **asked: Any) -> Any:
    for left in settings.folder.glob("journal.db*"):
        left.unlink()
    call = json.dumps({"folder": str(settings.folder), **asked})
    return harness.answer(harness.python("-m", "benchmarks.simulated", call))


def _medians(found: list[Any]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}
