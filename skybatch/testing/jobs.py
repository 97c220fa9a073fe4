"""Real jobs for the writers' suite: a counter for input, and a mapper that hands out prepared results."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skybatch.engine.dataset import Dataset
from skybatch.engine.job import Job
from skybatch.formats.base import InputReader, Item, OutputWriter
from skybatch.worker.runtime import context


@dataclass
class Counter(InputReader):
    """As many items as asked for, with nothing in them."""

    count: int = 0

    def __len__(self) -> int:
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Item]:
        """Empty items."""
        return [{} for _ in range(start_idx, end_idx + 1)]


def prepared(batch: list[Item], path: str, dies_at: int | None = None) -> list[Item]:
    """The results kept in the file at `path` for these items; the worker is killed once at the range `dies_at`."""
    now = context()
    if now.start == dies_at and _first_time(f"{path}.died"):
        os.kill(os.getpid(), signal.SIGKILL)
    results: list[Item] = pickle.loads(Path(path).read_bytes())
    return results[now.start : now.end + 1]


def _first_time(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def run(writer: OutputWriter, results: Sequence[Item], folder: Path, *, executor: str, dies: bool, size: int) -> Job:
    """A job with a result per item, `size` in a batch; with `dies`, the second range kills its worker once."""
    path = folder / "results.pickle"
    path.write_bytes(pickle.dumps(list(results)))
    arguments: dict[str, Any] = {"path": str(path)}
    if dies:
        arguments["dies_at"] = size
    return Dataset(Counter("", len(results))).map(
        prepared,
        batch_size=size,
        output=writer,
        executor=executor,
        workers=2 if executor == "local" else None,
        mapper_args=arguments,
    )
