"""Batches per second on an existing cluster of two nodes: a job's, against the cluster's own way to map batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import harness
from benchmarks.dispatch import BATCH_SIZE, BATCHES
from benchmarks.harness import Figure, Settings

RIVALS = {"ray": "Ray Data's", "dask": "Dask's"}


def run(settings: Settings) -> Iterator[Figure]:
    """From the first batch on, against a connected client whose workers have warmed up; then with all that precedes."""
    batches = max(100, int(BATCHES * settings.scale))
    input = harness.small_rows(settings.folder / "small.jsonl", batches * BATCH_SIZE)
    for kind, whose in RIVALS.items():
        if kind == "ray" and settings.scale < 0.01:
            continue  # half a minute to start, for nothing
        with harness.from_tests("clusters").Cluster(kind) as cluster:
            yield from _measured(settings, kind, whose, cluster.address, input, batches)


def _measured(settings: Settings, kind: str, whose: str, address: str, input: Any, batches: int) -> Iterator[Figure]:
    output, note = settings.folder / "small-out.jsonl", settings.folder / "first"
    count = batches * BATCH_SIZE

    def ours() -> Any:
        note.unlink(missing_ok=True)
        job = harness.job(
            settings.folder / "home",
            **harness.json_lines(input, output),
            mapper="Identity",
            mapper_args={"note": str(note)},
            batch_size=BATCH_SIZE,
            pool={"executor": kind, "address": address},
        )
        assert harness.digest(output) == harness.digest(input)
        return {**job, "running": job["ended"] - harness.first_batch(note)}

    def rival() -> Any:
        call = ("-m", "benchmarks.cluster_rivals", kind, address, str(input), str(BATCH_SIZE))
        measured = harness.answer(harness.python(*call))
        assert measured["sum"] == count * (count - 1) // 2
        return measured

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    for what, own, others, bound in (
        ("from the first batch to the published output, over", "running", "seconds", 5.0),
        ("connecting and the start of actors included, over", "seconds", "whole", 1.0),
    ):
        rates = {"ours": batches / harness.median(mine, own), kind: batches / harness.median(theirs, others)}
        yield Figure(
            benchmark="clusters",
            what=f"batches/s on {kind}, {what} {whose} own",
            value=rates["ours"] / rates[kind],
            unit="x",
            at_least=bound,
            details={**rates, "batches": batches},
        )
