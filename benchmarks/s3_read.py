"""How many bytes a job reads from an object store whose input lies there, counted by a proxy before the store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from unittest.mock import patch

from benchmarks import harness
from benchmarks.harness import Figure, Settings
from skybatch.formats import stores

SIZE, ROW_SIZE, BATCH_SIZE, WORKERS = 1_000_000_000, 290, 1024, 4
BUCKET = "benchmark"
PATH = f"s3://{BUCKET}/large.jsonl"


def run(settings: Settings) -> Iterator[Figure]:
    """One whole job over SeaweedFS, the index and four workers; its output is the input."""
    proxy, servers = harness.from_tests("proxy"), harness.from_tests("servers")
    rows = int(SIZE * settings.scale) // ROW_SIZE
    input, output = settings.folder / "large.jsonl", settings.folder / "out.jsonl"
    expected = harness.digest(harness.large_rows(input, rows))
    size = input.stat().st_size
    (settings.folder / "seaweedfs").mkdir()
    with servers.running_seaweedfs(settings.folder / "seaweedfs") as url, proxy.running(url) as between:
        with patch.dict(os.environ, servers.s3_environment(url)):
            stores.forget()  # another benchmark's may be of another server
            store = stores.of(PATH)
            store.call(BUCKET, "create_bucket", Bucket=BUCKET)  # type: ignore[attr-defined]
            store.put(PATH, input)
            stores.forget()
        input.unlink()
        with patch.dict(os.environ, servers.s3_environment(between.url)):
            job = harness.start_job(
                settings.folder / "home",
                reader=["JsonReader", {"path": PATH}],
                writer=["JsonWriter", {"path": str(output)}],
                mapper="identity",
                batch_size=BATCH_SIZE,
                workers=WORKERS,
            )
            measured = harness.answer(job)
        received, requests = between.received["GET"], len(between.requests)
    assert harness.digest(output) == expected
    shutil.rmtree(settings.folder / "home")
    yield Figure(
        benchmark="s3_read",
        what=f"bytes read from the store by the engine and {WORKERS} workers over those of the input",
        value=received / size,
        unit="x",
        at_most=1.1,
        details={"bytes": received, "input": size, "requests": requests, "seconds": measured["seconds"]},
    )
