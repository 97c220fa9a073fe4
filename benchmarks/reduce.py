"""The merge of 200 segments on local disk against `cat`: time, memory, and under a limit of memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figure, Settings
from benchmarks.made_job import RANGES, MadeJob, resume_timed, segment_files

SEGMENTS, SEGMENT_SIZE = 200, 10_000_000
LIMIT_MB = 512


def run(settings: Settings) -> Iterator[Figure]:
    """Whole engines that resume a mapped job; only their merge is timed, from its begin to its last fsync."""
    folder = settings.folder / "reduce"
    segments, output = folder / "segments", folder / "out.jsonl"
    stored, merged = segment_files(segments, SEGMENTS, max(1000, int(SEGMENT_SIZE * settings.scale)))

    def ours(**limits: Any) -> Any:
        output.unlink(missing_ok=True)
        job = MadeJob.planned(folder / "home", str(output), items=len(stored) * RANGES)
        job.take(stored, lambda name, target: os.link(segments / name, target))
        _read_all(segments)
        measured = resume_timed(job, **limits)
        assert harness.digest(output) == merged
        shutil.rmtree(job.folder)
        return measured

    def rival() -> Any:
        _read_all(segments)
        files = " ".join(one.name for one in stored)
        began = time.monotonic()
        subprocess.run(f"cat {files} > ../cat.out && sync ../cat.out", shell=True, cwd=segments, check=True)
        return {"seconds": time.monotonic() - began}

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    size = sum(one.data for one in stored)
    yield Figure(
        benchmark="reduce",
        what="time of the merge over that of cat and sync of the same files",
        value=harness.median(mine) / harness.median(theirs),
        unit="x",
        at_most=1.3,
        details={"ours": harness.median(mine), "cat": harness.median(theirs), "bytes": size, "segments": len(stored)},
    )
    yield Figure(
        benchmark="reduce",
        what="growth of the engine's memory in the merge",
        value=max(1e-3, harness.median(mine, "grown_mb")),
        unit="MB",
        at_most=32.0,
        details={"engine_mb": harness.median(mine, "engine_mb")},
    )
    os.sync()
    limited = ours(limit_mb=LIMIT_MB)
    yield Figure(
        benchmark="reduce",
        what="the same under a limit of the address space, byte for byte",
        value=limited["seconds"] / harness.median(mine),
        unit="x",
        at_most=2.0,
        details={"limit_mb": LIMIT_MB, "bytes": size},
    )


def _read_all(folder: Path) -> None:
    """Have the files in the page cache, for either contender: the merge drops what it has copied from there."""
    subprocess.run("cat * > /dev/null", shell=True, cwd=folder, check=True)
