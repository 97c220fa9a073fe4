"""The most memory that engine and workers take, and whether that grows with the number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import dispatch, harness, jsonl
from benchmarks.harness import Figure, Settings

TIMES = 10
ENGINE_MB, WORKER_MB, GROWTH = 80.0, 120.0, 1.05


def run(settings: Settings) -> Iterator[Figure]:
    """Both workloads, with as many rows as are timed and with ten times as many."""
    small = int(dispatch.BATCHES * dispatch.BATCH_SIZE * settings.scale)
    yield from _workload(settings, "dispatch", harness.small_rows, small, dispatch.BATCH_SIZE, "identity")
    large = int(jsonl.ROWS * settings.scale)
    yield from _workload(settings, "jsonl", harness.large_rows, large, jsonl.BATCH_SIZE, "add_two_fields")


def _workload(
    settings: Settings, name: str, make: harness.RowMaker, rows: int, batch_size: int, mapper: str
) -> Iterator[Figure]:
    inputs = [make(settings.folder / f"{name}-{times}.jsonl", rows * times) for times in (1, TIMES)]
    output = settings.folder / "memory-out.jsonl"

    def peaks(input: Path) -> object:
        measured = harness.job(
            settings.folder / "home",
            **harness.json_lines(input, output),
            mapper=mapper,
            batch_size=batch_size,
            memory=True,
        )
        assert output.stat().st_size >= input.stat().st_size
        output.unlink()
        return measured

    once, more = harness.interleaved(settings.repeats, lambda: peaks(inputs[0]), lambda: peaks(inputs[1]))
    for input in inputs:
        input.unlink()
    for key, limit in (("engine_mb", ENGINE_MB), ("worker_mb", WORKER_MB)):
        who = "engine" if key == "engine_mb" else "a worker with its parent"
        peak, grown = harness.median(once, key), harness.median(more, key)
        yield Figure(benchmark="memory", what=f"{name}: {who}", value=max(peak, grown), unit="MB", at_most=limit)
        yield Figure(
            benchmark="memory",
            what=f"{name}: {who}, {TIMES} times the rows over once",
            value=grown / peak,
            unit="x",
            at_most=GROWTH,
            details={"once_mb": peak, "more_mb": grown},
        )
