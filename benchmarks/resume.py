"""A million ranges, the engine killed half-way: from the resume's exec to the first batch in a mapper's hands.

That is later than the first grant. Once as a job leaves its journal: what is done is a few long runs; once with a
gap behind every tenth of a thousand ranges.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness, state
from benchmarks.harness import Figure, Settings

RANGES, INTERVALS = 1_000_000, 10_000


def run(settings: Settings) -> Iterator[Figure]:
    """Both shapes of the journal, in turn."""
    ranges, intervals = (max(1000, int(number * settings.scale)) for number in (RANGES, INTERVALS))
    killed, scattered = settings.folder / "killed", settings.folder / "scattered"
    for folder in (killed, scattered):
        folder.mkdir()
    job = _killed_half_way(killed, ranges)
    gappy = state._fresh(scattered, ranges)["job"]
    state._scatter(scattered / "home" / "jobs" / gappy, ranges, intervals)
    runs = harness.interleaved(
        settings.repeats, lambda: state._resumed(killed, job), lambda: state._resumed(scattered, gappy)
    )
    for what, times in zip(["killed half-way", f"{intervals:,} gaps"], runs, strict=True):
        yield Figure(
            benchmark="resume",
            what=f"exec of a resume to first batch in a mapper, {what}",
            value=harness.median(times),
            unit="s",
            at_most=1.0,
            details={"ranges": ranges, "engine_mb": harness.median(times, "engine_mb")},
        )


def _killed_half_way(folder: Path, ranges: int) -> str:
    """A job of that many ranges whose engine was killed when half of them were done; its id."""
    from skybatch.engine.folder import JobFolder
    from skybatch.engine.job import Job

    pipe = folder / "pipe"
    process = harness.start_job(
        folder / "home",
        reader=["Counter", {"path": "", "count": ranges, "note": str(folder / "length")}],
        writer=["JsonWriter", {"path": str(folder / "out.jsonl")}],
        mapper="Teller",
        mapper_args={"pipe": str(pipe), "until": ranges * 3 // 4},  # a small job would be done before it is killed
        batch_size=1,
    )
    job = None
    while job is None or job.progress().items_done < ranges // 2:
        time.sleep(0.05)
        names = [name for name in state._jobs(folder) if (folder / "home" / "jobs" / name / "spec.json").exists()]
        job = Job(JobFolder(folder / "home" / "jobs" / names[0])) if names else None
        if process.poll() is not None:
            raise RuntimeError(f"the job ended early: {process.communicate()}")
    process.kill()
    process.communicate()
    os.mkfifo(pipe)  # from now on, the first batch is told
    return job.id


