"""What the journal, the segments and the merge cost a job of 10 ms batches, its start left out."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import harness
from benchmarks.harness import Figure, Settings

BATCHES, STEP_S = 2_000, 0.01


def run(settings: Settings) -> Iterator[Figure]:
    """From the first batch's arrival at a mapper to the published output, against two bare loops of sleeps."""
    batches = max(20, int(BATCHES * settings.scale))
    input = harness.small_rows(settings.folder / "durability.jsonl", batches)
    output, note = settings.folder / "durability-out.jsonl", settings.folder / "first-batches"

    def ours() -> object:
        note.unlink(missing_ok=True)
        found = harness.job(
            settings.folder / "home",
            **harness.json_lines(input, output),
            mapper="Sleeper",
            mapper_args={"seconds": STEP_S, "note": str(note)},
            batch_size=1,
        )
        assert harness.digest(output) == harness.digest(input)
        return {"seconds": found["ended"] - min(map(float, note.read_text().split()))}

    def rival() -> object:
        loops = [
            harness.python("-m", "benchmarks.rivals", "sleep", str(batches // 2), str(STEP_S)) for _ in range(2)
        ]
        answers = [harness.answer(loop) for loop in loops]
        return {"seconds": max(loop["ended"] - loop["began"] for loop in answers)}

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    yield Figure(
        benchmark="durability",
        what="time over a bare loop in two processes",
        value=harness.median(mine) / harness.median(theirs),
        unit="x",
        at_most=1.03,
        details={"ours": harness.median(mine), "bare": harness.median(theirs), "batches": batches},
    )
