"""The merge in S3, here SeaweedFS: how many of the output's bytes pass through the engine, counted at a proxy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import harness
from benchmarks.harness import Figure, Settings
from benchmarks.made_job import RANGES, MadeJob, resume_timed, segment_objects
from skybatch.formats import stores

SEGMENTS, SEGMENT_SIZE = 64, 16_000_000
READ_SIZE = 32 << 20


def run(settings: Settings) -> Iterator[Figure]:
    """One engine that resumes a mapped job: all that it sends and receives, cleaning up behind included."""
    proxy, servers = harness.from_tests("proxy"), harness.from_tests("servers")
    size = max(8_500_000, int(SEGMENT_SIZE * settings.scale))  # smaller ones are gathered by the engine
    count = max(4, int(SEGMENTS * settings.scale))
    folder = settings.folder / "seaweedfs"
    folder.mkdir()
    with servers.running_seaweedfs(folder) as url, _environment(servers.s3_environment(url)):
        store, output = stores.of("s3://"), "s3://benchmark/out.jsonl"
        store.call("benchmark", "create_bucket", Bucket="benchmark")  # type: ignore[attr-defined]
        job = MadeJob.planned(settings.folder / "home", output, items=count * RANGES)
        place = f"s3://benchmark/.sky_batch_tmp/{job.folder.name}/out.jsonl"
        stored, merged = segment_objects(place, count, size)
        job.take(stored, lambda name, path: None)
        with proxy.running(url) as counted:
            measured = resume_timed(job, env=servers.s3_environment(counted.url))
        assert _digest(output) == merged
        assert [info.path for info in store.list("s3://benchmark")] == [output]
    total = sum(one.data for one in stored)
    moved = counted.sent.total() + counted.received.total()
    yield Figure(
        benchmark="reduce_s3",
        what="share of the output's bytes that pass through the engine",
        value=100 * moved / total,
        unit="%",
        at_most=2.0,
        details={
            "bytes": total,
            "segments": len(stored),
            "moved": moved,
            "requests": len(counted.requests),
            "seconds": measured["seconds"],
        },
    )
    yield Figure(
        benchmark="reduce_s3",
        what="growth of the engine's memory in the merge",
        value=max(1e-3, measured["grown_mb"]),
        unit="MB",
        at_most=64.0,
        details={"engine_mb": measured["engine_mb"]},
    )


def _digest(path: str) -> str:
    store, digest = stores.of(path), hashlib.blake2b()
    for start in range(0, store.info(path).size, READ_SIZE):
        digest.update(store.read(path, start, start + READ_SIZE))
    return digest.hexdigest()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    stores.forget()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        stores.forget()
