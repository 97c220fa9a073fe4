"""The rivals, each in a process of its own: `python -m benchmarks.rivals NAME ARGUMENTS`; a line of JSON is printed."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def identity(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hand the batch back."""
    return batch


def pool(path: str, batch_size: str) -> dict[str, Any]:
    """A warm multiprocessing.Pool(2) that gets the same dicts, one batch a task; no journal and no output."""
    import orjson

    with open(path, "rb") as file:
        rows = [orjson.loads(line) for line in file]
    size = int(batch_size)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with multiprocessing.get_context("fork").Pool(2) as workers:
        workers.map(identity, batches[:100], chunksize=1)
        began = time.monotonic()
        total = sum(row["id"] for batch in workers.imap_unordered(identity, batches, chunksize=1) for row in batch)
        seconds = time.monotonic() - began
    return {"seconds": seconds, "sum": total}


def half(path: str, start: str, end: str, output: str) -> None:
    """Read a byte range of a file of lines, map, write, fsync: the least that half of the work takes."""
    import orjson

    dumps, option = orjson.dumps, orjson.OPT_APPEND_NEWLINE
    with open(output, "wb") as target:
        for lines in _lines(path, int(start), int(end)):
            rows = list(map(orjson.loads, lines))
            for row in rows:
                row["length"] = len(row["text"])
                row["even"] = row["id"] % 2 == 0
            target.write(b"".join([dumps(row, None, option) for row in rows]))
        target.flush()
        os.fsync(target.fileno())


def _lines(path: str, start: int, end: int) -> Iterator[list[bytes]]:
    with open(path, "rb") as source:
        source.seek(start)
        while start < end:
            lines = source.readlines(min(1024 * 290, end - start) - 1)  # it stops once it has more than that
            start = source.tell()
            yield lines


def sleep(count: str, seconds: str) -> dict[str, Any]:
    """A bare loop of sleeps."""
    began = time.monotonic()
    for _ in range(int(count)):
        time.sleep(float(seconds))
    return {"began": began, "ended": time.monotonic()}


def shrink(task: tuple[str, str]) -> None:
    """Read an image, resize it, write it."""
    import PIL.Image

    source, target = task
    with PIL.Image.open(source) as image:
        image.resize((32, 32)).save(target)


def images(input: str, output: str) -> dict[str, Any]:
    """A multiprocessing.Pool(2) that gets the names; nothing is made durable, and nothing remembered."""
    began = time.monotonic()
    names = sorted(os.listdir(input))
    tasks = [(f"{input}/{name}", f"{output}/{number:08d}.png") for number, name in enumerate(names)]
    with multiprocessing.get_context("fork").Pool(2) as workers:
        for _ in workers.imap_unordered(shrink, tasks, chunksize=64):
            pass
    return {"seconds": time.monotonic() - began}


if __name__ == "__main__":
    rivals: dict[str, Callable[..., object]] = {"pool": pool, "half": half, "sleep": sleep, "images": images}
    print(json.dumps(rivals[sys.argv[1]](*sys.argv[2:])))
