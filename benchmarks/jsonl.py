"""JSON Lines to JSON Lines: what is lost against two bare processes that share the file between them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Figure, Settings

ROWS, BATCH_SIZE = 1_000_000, 1024


def run(settings: Settings) -> Iterator[Figure]:
    """Whole jobs, the start of processes in it on both sides."""
    rows = int(ROWS * settings.scale)
    input = harness.large_rows(settings.folder / "large.jsonl", rows)
    output = settings.folder / "large-out.jsonl"
    halves = [settings.folder / "half-0.jsonl", settings.folder / "half-1.jsonl"]

    def ours() -> object:
        return harness.job(
            settings.folder / "home",
            **harness.json_lines(input, output),
            mapper="add_two_fields",
            batch_size=BATCH_SIZE,
        )

    def rival() -> object:
        for path in halves:
            path.unlink(missing_ok=True)
        began = time.monotonic()
        cut = _middle(input)
        script = str(Path(__file__).with_name("rivals.py"))
        spans = [(0, cut), (cut, input.stat().st_size)]
        processes = [
            harness.python(script, "half", str(input), str(start), str(end), str(half))
            for (start, end), half in zip(spans, halves, strict=True)
        ]
        for process in processes:
            harness.answer(process)
        seconds = time.monotonic() - began
        assert harness.digest(*halves) == harness.digest(output)
        return {"seconds": seconds}

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    yield Figure(
        benchmark="jsonl",
        what="time of a whole job over that of two bare processes",
        value=harness.median(mine) / harness.median(theirs),
        unit="x",
        at_most=1.6,
        details={"ours": harness.median(mine), "bare": harness.median(theirs), "rows": rows},
    )


def _middle(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        file.readline()
        return file.tell()
