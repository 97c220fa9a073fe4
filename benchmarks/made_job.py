"""A mapped job, made without mapping: its segments are written here, and resuming it merges and publishes them.

`python -m benchmarks.made_job JSON` resumes one and measures its merge; the last line printed is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import peak_mb
from skybatch.engine.folder import JobFolder
from skybatch.formats import batchfiles
from skybatch.formats.segment import SegmentFile, SegmentObjects

RANGES = 100
"""In every segment, one item in each."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One segment; sizes in bytes, of the whole and of the results."""

    name: str
    number: int
    size: int
    data: int
    version: str | None = None


@dataclass(frozen=True)
class MadeJob:
    """A job on its way to be resumed."""

    folder: Path
    output: str

    @classmethod
    def planned(cls, home: Path, output: str, *, items: int, env: dict[str, str] | None = None) -> MadeJob:
        """A job whose engine died as soon as it knew the length."""
        jobs = home / "jobs"
        before = set(jobs.iterdir()) if jobs.exists() else set()
        asked = {
            "reader": ["Counter", {"path": "", "count": items}],
            "writer": ["JsonWriter", {"path": output}],
            "mapper": "identity",
            "batch_size": 1,
        }
        variables = {**(env or {}), "SKYBATCH_HOME": str(home), "SKYBATCH_FAILPOINT": "planned"}
        harness.python("-m", "benchmarks.one_job", json.dumps(asked), env=variables).communicate()
        (folder,) = set(jobs.iterdir()) - before
        return cls(folder, output)

    def take(self, stored: Sequence[Stored], put: Callable[[str, str], None]) -> None:
        """Let these segments have won; `put(name, path)` brings each there."""
        from skybatch.journal.journal import Journal
        from skybatch.journal.lock import JobLock
        from skybatch.journal.rows import Changes, Run, Segment

        place = batchfiles.folder(self.output, self.folder.name)
        if place.startswith("/"):
            os.makedirs(place)
        changes = Changes()
        for one in stored:
            put(one.name, f"{place}/{one.name}")
            start, end, nonce = one.number * RANGES, one.number * RANGES + RANGES - 1, f"n{one.number}"
            file = {"name": one.name, "size": one.size, "data": one.data, "version": one.version}
            changes.segments.append(
                Segment(nonce=nonce, start=start, end=end, epoch=1, worker="0", info={"files": [file]})
            )
            changes.won.append(Run(start=start, end=end, size=1, state="won", attempt=1, nonce=nonce))
        with JobLock(self.folder), Journal.open(JobFolder(self.folder).journal) as journal:
            journal.take_over()
            journal.commit(changes)


def segment_files(folder: Path, count: int, size: int) -> tuple[list[Stored], str]:
    """Segments of about `size` bytes of results each; and the digest of all results, in order."""
    folder.mkdir(parents=True)
    stored, digest = [], hashlib.blake2b()
    for number in range(count):
        segment = SegmentFile(folder, f"n{number}")
        for start, payload in _ranges(number, size):
            segment.append(start, start, 1, payload)
            digest.update(payload)
        sealed = segment.seal()
        stored.append(Stored(name=sealed.name, number=number, size=sealed.size, data=sealed.data_size))
    return stored, digest.hexdigest()


def segment_objects(folder: str, count: int, size: int) -> tuple[list[Stored], str]:
    """As `segment_files`, in an object store."""
    stored, digest = [], hashlib.blake2b()
    for number in range(count):
        segment = SegmentObjects(folder, f"n{number}")
        for start, payload in _ranges(number, size):
            segment.append(start, start, 1, payload)
            digest.update(payload)
        sealed = segment.seal()
        stored.append(
            Stored(name=sealed.name, number=number, size=sealed.size, data=sealed.data_size, version=sealed.version)
        )
    return stored, digest.hexdigest()


def _ranges(number: int, size: int) -> Iterator[tuple[int, bytes]]:
    noise = os.urandom(max(1, size // RANGES // 2)).hex().encode()
    for start in range(number * RANGES, (number + 1) * RANGES):
        yield start, b'{"id":%d,"noise":"%b"}\n' % (start, noise)


def resume_timed(job: MadeJob, *, limit_mb: int | None = None, env: dict[str, str] | None = None) -> Any:
    """Resume it in a process of its own: seconds of the merge, and the engine's memory in it."""
    asked = json.dumps({"folder": str(job.folder), "limit_mb": limit_mb})
    variables = {**(env or {}), "SKYBATCH_HOME": str(job.folder.parent.parent)}
    return harness.answer(harness.python("-m", "benchmarks.made_job", asked, env=variables))


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Resume it here; what was measured."""
    from skybatch.engine.finish import Finishing
    from skybatch.engine.resuming import resume_engine

    if asked["limit_mb"]:
        limit = asked["limit_mb"] * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    measured: dict[str, Any] = {}
    merge = Finishing._reduce

    def timed(self: Finishing, *arguments: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, began = peak_mb("self"), time.monotonic()
        result = merge(self, *arguments)
        measured["seconds"] = time.monotonic() - began
        measured["engine_mb"] = peak_mb("self")
        measured["grown_mb"] = measured["engine_mb"] - before
        return result

    Finishing._reduce = timed  # type: ignore[assignment, method-assign]
    resume_engine(JobFolder(Path(asked["folder"])), None, None)
    return measured


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
