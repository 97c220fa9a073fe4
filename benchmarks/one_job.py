"""One measured job in a process of its own: `python -m benchmarks.one_job JSON`; the last line printed is JSON.

The clock runs from `map()` entered to its return, that is, until the output is published and cleaned up behind;
the workers' start, the index and the merge are in it, the import of skybatch is not.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.harness import peak_mb
from skybatch import Dataset, ImageReader, ImageWriter, JsonReader, JsonWriter, ParquetReader, ParquetWriter
from skybatch.engine import pools

CLASSES: dict[str, Any] = {
    "JsonReader": JsonReader,
    "JsonWriter": JsonWriter,
    "ImageReader": ImageReader,
    "ImageWriter": ImageWriter,
    "ParquetReader": ParquetReader,
    "ParquetWriter": ParquetWriter,
    "Counter": workloads.Counter,
    "SlowWriter": workloads.SlowWriter,
}


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Run it; what was measured."""
    reader, writer = (CLASSES[name](**fields) for name, fields in (asked["reader"], asked["writer"]))
    if isinstance(reader, ParquetReader):
        importlib.import_module("pyarrow.parquet")  # the rivals' imports are not measured either
    watch = _MemoryWatch() if asked.get("memory") else None
    began = time.monotonic()
    Dataset(reader).map(
        getattr(workloads, asked["mapper"]),
        pools.from_mapping(asked["pool"]) if "pool" in asked else None,
        batch_size=asked["batch_size"],
        output=writer,
        workers=None if "pool" in asked else asked.get("workers", 2),
        mapper_args=asked.get("mapper_args"),
    )
    ended = time.monotonic()
    measured: dict[str, Any] = {"seconds": ended - began, "ended": ended, "engine_mb": peak_mb("self")}
    return measured | ({"worker_mb": watch.stop()} if watch else {})


class _MemoryWatch:
    """Peaks of this process's children and theirs, looked at until told to stop. Only in runs that are not timed."""

    def __init__(self) -> None:
        self._peaks: dict[int, dict[int, float]] = {}  # by worker's parent, itself included; since their last exec
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The largest worker together with its parent, in MB."""
        self._over.set()
        self._thread.join()
        return max((sum(family.values()) for family in self._peaks.values()), default=0.0)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            for parent in _children("self"):
                family = self._peaks.setdefault(parent, {})
                for process in (parent, *_children(parent)):
                    family[process] = peak_mb(process) or family.get(process, 0.0)


def _children(process: int | str) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
