"""Ten million ranges: how soon the first is in a mapper's hands, at the start and after a crash."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figure, Settings, peak_mb

RANGES, INTERVALS = 10_000_000, 100_000


def run(settings: Settings) -> Iterator[Figure]:
    """A fresh job, from its length known to the first batch mapped; then resumes of one full of gaps."""
    ranges, intervals = (max(1000, int(number * settings.scale)) for number in (RANGES, INTERVALS))
    folder = settings.folder / "state"
    folder.mkdir()
    (fresh,) = harness.interleaved(settings.repeats, lambda: _fresh(folder, ranges))
    details: dict[str, float] = {"ranges": ranges}
    yield Figure(
        benchmark="state",
        what="length known to first batch in a mapper",
        value=harness.median(fresh),
        unit="s",
        at_most=1.0,
        details=details,
    )
    yield Figure(
        benchmark="state",
        what="engine of a fresh job",
        value=harness.median(fresh, "engine_mb"),
        unit="MB",
        at_most=150.0,
        details=details,
    )
    job_id = fresh[-1]["job"]
    _scatter(folder / "home" / "jobs" / job_id, ranges, intervals)
    (resumed,) = harness.interleaved(settings.repeats, lambda: _resumed(folder, job_id))
    details = {"ranges": ranges, "intervals": intervals, "engine_mb": harness.median(resumed, "engine_mb")}
    yield Figure(
        benchmark="state",
        what="exec of a resume to first batch in a mapper, gaps everywhere",
        value=harness.median(resumed),
        unit="s",
        at_most=5.0,
        details=details,
    )


def _fresh(folder: Path, ranges: int) -> dict[str, Any]:
    note, pipe, output = folder / "length", folder / "pipe", folder / "out.jsonl"
    note.unlink(missing_ok=True)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    before = _jobs(folder)
    process = harness.start_job(
        folder / "home",
        reader=["Counter", {"path": "", "count": ranges, "note": str(note)}],
        writer=["JsonWriter", {"path": str(output)}],
        mapper="Teller",
        mapper_args={"pipe": str(pipe)},
        batch_size=1,
    )
    told, peak = _first_batch(process, pipe)
    known = float(note.read_text().split()[0])
    (job,) = _jobs(folder) - before
    return {"seconds": told - known, "engine_mb": peak, "job": job}


def _resumed(folder: Path, job_id: str) -> dict[str, Any]:
    began = time.monotonic()
    process = harness.python(
        "-c",
        "from skybatch.cli.main import main; main()",
        "resume",
        job_id,
        env={"SKYBATCH_HOME": str(folder / "home")},
    )
    told, peak = _first_batch(process, folder / "pipe")
    return {"seconds": told - began, "engine_mb": peak}


def _first_batch(process: subprocess.Popen[str], pipe: Path) -> tuple[float, float]:
    """When a mapper had its first batch, and the engine's peak by then; the engine is killed."""
    fd = os.open(pipe, os.O_RDWR)  # for writing too: there is no end of it before a mapper has written
    try:
        while not select.select([fd], [], [], 1.0)[0]:
            if process.poll() is not None:
                raise RuntimeError(f"the job ended early: {process.communicate()}")
        told = min(map(float, os.read(fd, 4096).split()))
    finally:
        os.close(fd)
    peak = peak_mb(process.pid)
    process.kill()
    process.communicate()
    return told, peak


def _jobs(folder: Path) -> set[str]:
    jobs = folder / "home" / "jobs"
    return {path.name for path in jobs.iterdir()} if jobs.exists() else set()


def _scatter(folder: Path, ranges: int, intervals: int) -> None:
    """Winners that cannot merge: one range each, far from the next, each in a segment of its own."""
    from skybatch.journal.journal import Journal
    from skybatch.journal.lock import JobLock
    from skybatch.journal.rows import Changes, Run, Segment

    with JobLock(folder):
        journal = Journal.open(folder / "journal.db")
        try:
            epoch = journal.take_over()
            changes = Changes()
            for number in range(intervals):
                at, nonce = number * (ranges // intervals), f"{number:016x}"
                info = {"files": [{"name": f"{nonce}.seg", "size": 100, "data": 10}]}  # not there: nothing is merged
                changes.segments.append(Segment(nonce=nonce, start=at, end=at, epoch=epoch, worker="0", info=info))
                changes.won.append(Run(start=at, end=at, size=1, state="won", attempt=1, nonce=nonce))
            journal.commit(changes)
        finally:
            journal.close()
