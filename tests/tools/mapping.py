"""Jobs run in the test's own process, with real workers, and what came of them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine.job import Job, find_job
from skybatch.formats.base import OutputWriter
from skybatch.journal.rows import FailureRow
from tests.tools import invariants


class Outcome:
    """A job that has ended, its output, and how it failed if it did."""

    def __init__(self, job: Job, output: Path, error: skybatch.JobFailed | None = None) -> None:
        self.job, self.output, self.error = job, output, error

    @property
    def failures(self) -> list[FailureRow]:
        """Every failed try that was journalled."""
        return self.job.errors()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The published output."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    @property
    def ids(self) -> list[int]:
        """The `id` of each published row."""
        return [row["id"] for row in self.rows]

    @property
    def attempts(self) -> dict[int, int]:
        """The tries charged to each range before it was won, by its first item, where there were any."""
        with closing(sqlite3.connect(f"file:{self.job.folder.journal}?mode=ro", uri=True)) as sql:
            return dict(sql.execute("SELECT start, attempt FROM ranges WHERE attempt > 1"))

    @property
    def log(self) -> bytes:
        """What all workers printed."""
        return b"".join(path.read_bytes() for path in sorted(self.job.folder.logs.glob("*.log")))


def write_items(path: Path, count: int) -> Path:
    """An input of `count` items with their index under `id`."""
    path.write_text("".join(f'{{"id": {index}}}\n' for index in range(count)))
    return path


def map_items(folder: Path, mapper: Any, count: int = 40, **options: Any) -> Outcome:
    """Map `count` items, four in a batch; the job must be done, though items may have been set aside."""
    output = folder / "out.jsonl"
    if "reader" not in options:
        options["reader"] = skybatch.JsonReader(str(write_items(folder / "in.jsonl", count)))
    dataset = skybatch.Dataset(options.pop("reader"))
    writer: OutputWriter = options.pop("output", None) or skybatch.JsonWriter(str(output))
    job = dataset.map(mapper, output=writer, **{"batch_size": 4, "workers": 1, **options})
    invariants.check(job.folder.path, done=not job.progress().items_dead)
    return Outcome(job, output)


def map_and_fail(folder: Path, mapper: Any, count: int = 40, **options: Any) -> Outcome:
    """Map items; the job must end as failed, with nothing published."""
    with pytest.raises(skybatch.JobFailed) as caught:
        map_items(folder, mapper, count, **options)
    assert not (folder / "out.jsonl").exists()
    assert caught.value.job_id in caught.value.command and caught.value.command in str(caught.value)
    return Outcome(find_job(caught.value.job_id), folder / "out.jsonl", caught.value)
