"""The index of a large file of JSON Lines against `wc -l`, and whether the last batch costs what the first does."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator

from benchmarks import harness
from benchmarks.harness import Figure, Settings
from skybatch import JsonReader

SIZE, ROW_SIZE, BATCH_SIZE, BATCHES = 2_000_000_000, 290, 64, 300


def run(settings: Settings) -> Iterator[Figure]:
    """The index in this process, as an engine makes it; both find the file in the page cache."""
    rows = int(SIZE * settings.scale) // ROW_SIZE
    input = harness.large_rows(settings.folder / "large.jsonl", rows)
    folder = settings.folder / "index"

    def ours() -> object:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        began = time.monotonic()
        count = JsonReader(str(input)).build_index(str(folder))
        seconds = time.monotonic() - began
        assert count == rows
        return {"seconds": seconds}

    def rival() -> object:
        began = time.monotonic()
        counted = subprocess.run(["wc", "-l", str(input)], capture_output=True, check=True)
        seconds = time.monotonic() - began
        assert int(counted.stdout.split()[0]) == rows
        return {"seconds": seconds}

    ours(), rival()  # the file is in the page cache, or as much of it as goes in
    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    yield Figure(
        benchmark="index",
        what="time of the index over that of wc -l",
        value=harness.median(mine) / harness.median(theirs),
        unit="x",
        at_most=1.5,
        details={"ours": harness.median(mine), "wc": harness.median(theirs), "bytes": input.stat().st_size},
    )
    yield _ends(str(input), str(folder), rows)


def _ends(path: str, folder: str, rows: int) -> Figure:
    """Batches from the beginning and from the end by turns, not in the order of the file."""
    reader = JsonReader(path)
    reader.open_index(folder)
    batches = min(BATCHES, rows // BATCH_SIZE // 2)
    first: list[float] = []
    last: list[float] = []
    for number in range(batches):
        begin = (number * 7 % batches) * BATCH_SIZE
        for start, times in ((begin, first), (rows - batches * BATCH_SIZE + begin, last)):
            end = start + BATCH_SIZE - 1
            began = time.perf_counter()
            items = reader.decode(reader.read_window(start, end), start, start, end)
            times.append(time.perf_counter() - began)
            assert items[0]["id"] == start and items[-1]["id"] == end
    return Figure(
        benchmark="index",
        what="time to read and parse one of the last batches over that of one of the first",
        value=statistics.median(last) / statistics.median(first),
        unit="x",
        at_most=1.2,
        details={"first_ms": 1e3 * statistics.median(first), "last_ms": 1e3 * statistics.median(last)},
    )
