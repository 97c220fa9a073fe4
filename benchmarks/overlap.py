"""Reading, mapping and writing beside each other: the two others should cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import harness
from benchmarks.harness import Figure, Settings

BATCHES, STEP_S = 600, 0.01


def run(settings: Settings) -> Iterator[Figure]:
    """Jobs whose reader, mapper and writer take 10 ms a batch, against ones where the mapper alone does."""
    batches = max(20, int(BATCHES * settings.scale))
    output = settings.folder / "overlap.jsonl"
    expected = b"".join(b'{"id":%d}\n' % number for number in range(batches))

    def measured(seconds: float) -> object:
        found = harness.job(
            settings.folder / "home",
            reader=["Counter", {"path": "", "count": batches, "seconds": seconds}],
            writer=["SlowWriter", {"path": str(output), "seconds": seconds}],
            mapper="Sleeper",
            mapper_args={"seconds": STEP_S},
            batch_size=1,
        )
        assert output.read_bytes() == expected
        return found

    all_three, alone = harness.interleaved(settings.repeats, lambda: measured(STEP_S), lambda: measured(0.0))
    yield Figure(
        benchmark="overlap",
        what="time with reading, mapping, writing over mapping alone",
        value=harness.median(all_three) / harness.median(alone),
        unit="x",
        at_most=1.2,
        details={
            "all": harness.median(all_three),
            "alone": harness.median(alone),
            "sleep_alone": batches * STEP_S / 2,
            "batches": batches,
        },
    )
