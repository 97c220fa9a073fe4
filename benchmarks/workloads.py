"""What the measured jobs are made of: mappers, readers and writers. They travel to the workers as source."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.parquet_rows import tidy_rows as tidy_rows
from skybatch import utils
from skybatch.io_formats import InputReader, OutputWriter

Batch = list[dict[str, Any]]


def identity(batch: Batch) -> Batch:
    """Hand the batch back."""
    return batch


def add_two_fields(batch: Batch) -> Batch:
    """Change every row in place."""
    for row in batch:
        row["length"] = len(row["text"])
        row["even"] = row["id"] % 2 == 0
    return batch


class Identity:
    """Hands the batch back; notes in a file when the first one came."""

    def __init__(self, note: str) -> None:
        self._note = note

    def __call__(self, batch: Batch) -> Batch:
        if self._note:
            with open(self._note, "a") as file:
                file.write(f"{time.monotonic()}\n")
            self._note = ""
        return batch


class TwoFields(Identity):
    """Changes every row in place."""

    def __call__(self, batch: Batch) -> Batch:
        return add_two_fields(super().__call__(batch))


def shrink(batch: Batch) -> Batch:
    """Images of 32 x 32 pixels."""
    return [{"image": item["image"].resize((32, 32))} for item in batch]


class Sleeper:
    """Takes `seconds` for each batch; notes in a file when the first one came."""

    def __init__(self, seconds: float, note: str | None = None) -> None:
        self._seconds, self._note = seconds, note

    def __call__(self, batch: Batch) -> Batch:
        if self._note is not None:
            with open(self._note, "a") as file:
                file.write(f"{time.monotonic()}\n")
            self._note = None
        time.sleep(self._seconds)
        return batch


class Teller:
    """Tells a named pipe when the first batch comes, and waits to be killed; without such a pipe it works.

    But not on items from `until` on: there too it waits to be killed.
    """

    def __init__(self, pipe: str, until: int | None = None) -> None:
        self._pipe = pipe if os.path.exists(pipe) else None
        self._until = until

    def __call__(self, batch: Batch) -> Batch:
        if self._pipe is not None:
            with open(self._pipe, "a") as file:
                file.write(f"{time.monotonic()}\n")
        elif self._until is None or batch[0]["id"] < self._until:
            return batch
        time.sleep(3600)
        return batch


@dataclass
class Counter(InputReader):
    """Numbers; `seconds` for each batch. Notes in a file when its length was asked for."""

    count: int
    seconds: float = 0.0
    note: str | None = None

    def __len__(self) -> int:
        if self.note is not None:
            with open(self.note, "a") as file:
                file.write(f"{time.monotonic()}\n")
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        """The numbers from start to end."""
        time.sleep(self.seconds)
        return [{"id": number} for number in range(start_idx, end_idx + 1)]


@dataclass
class SlowWriter(OutputWriter):
    """A writer as the reference has them: `seconds` for each batch, the writing of its file included."""

    seconds: float = 0.0

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        """Store a batch; return when `seconds` have passed."""
        until = time.monotonic() + self.seconds
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        time.sleep(max(0.0, until - time.monotonic()))
        return path

    def reduce_results(self, job_id: str) -> None:
        """Join the batches."""
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        """Remove the batches."""
        utils.delete_batch_files(self.path, job_id)
