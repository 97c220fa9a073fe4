"""Batches per second where a batch is nearly nothing: what the engine itself costs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import harness
from benchmarks.harness import Figure, Settings

BATCHES, BATCH_SIZE = 20_000, 8


def run(settings: Settings) -> Iterator[Figure]:
    """Whole jobs against a warm pool that keeps no journal and writes nothing."""
    batches = max(100, int(BATCHES * settings.scale))
    count = batches * BATCH_SIZE
    input = harness.small_rows(settings.folder / "small.jsonl", count)
    output = settings.folder / "small-out.jsonl"

    def ours() -> object:
        measured = harness.job(
            settings.folder / "home", **harness.json_lines(input, output), mapper="identity", batch_size=BATCH_SIZE
        )
        assert harness.digest(output) == harness.digest(input)
        return measured

    def rival() -> object:
        measured = harness.answer(harness.python("-m", "benchmarks.rivals", "pool", str(input), str(BATCH_SIZE)))
        assert measured["sum"] == count * (count - 1) // 2
        return measured

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    rates = [batches / harness.median(found) for found in (mine, theirs)]
    yield Figure(
        benchmark="dispatch",
        what="batches/s, ours over a warm Pool(2)'s",
        value=rates[0] / rates[1],
        unit="x",
        at_least=2.0,
        details={"ours": rates[0], "pool": rates[1], "batches": batches},
    )
