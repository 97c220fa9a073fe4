"""Workers reached by ssh: what the connection costs against local workers, and how soon hosts are at work.

The hosts are sshd processes of this machine, so that the network costs nothing, and encryption what it costs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figure, Settings

ROWS, BATCH_SIZE = 10_000_000, 1024
HOSTS, BATCHES, BATCH_S = 4, 800, 0.1
JOB = """\
input: {type: json, path: small.jsonl}
mapper: mapping.py:Paced
mapper_args: {seconds: %s, note: %s}
batch_size: 1
output: {type: json, path: out.jsonl}
pool: boxes
"""


def run(settings: Settings) -> Iterator[Figure]:
    """Local workers, workers that see the files, and workers that do not; then a command with four hosts."""
    hosts = harness.from_tests("sshd").Hosts(settings.folder / "hosts", HOSTS)
    try:
        yield from _throughput(settings, hosts)
        for workers in (1, 2):
            yield from _four_hosts(settings, hosts, workers)
    finally:
        hosts.stop()


def _throughput(settings: Settings, hosts: Any) -> Iterator[Figure]:
    rows = int(ROWS * settings.scale)
    input = harness.large_rows(settings.folder / "large.jsonl", rows)
    output, note = settings.folder / "large-out.jsonl", settings.folder / "first"
    sums: set[str] = set()

    def measured(**pool: Any) -> Any:
        note.unlink(missing_ok=True)
        job = harness.job(
            settings.folder / "home",
            **harness.json_lines(input, output),
            mapper="TwoFields",
            mapper_args={"note": str(note)},
            batch_size=BATCH_SIZE,
            pool=pool,
        )
        sums.add(harness.digest(output))
        assert len(sums) == 1
        return {"seconds": job["ended"] - harness.first_batch(note)}

    local, shared, relayed = harness.interleaved(
        max(1, settings.repeats // 2),
        lambda: measured(workers=2),
        lambda: measured(**_pool(hosts, ["box0"], workers=2)),
        lambda: measured(**_pool(hosts, ["box0"], workers=2), shared=False),
    )
    rate = rows / harness.median(local)
    for name, found, bound in (("shared", shared, 0.9), ("relayed", relayed, 0.5)):
        through = rows / harness.median(found)
        yield Figure(
            benchmark="ssh",
            what=f"rows/s from the first batch on, {name} paths, over local workers'",
            value=through / rate,
            unit="x",
            at_least=bound,
            details={"ssh": through, "local": rate, "rows": rows},
        )


def _pool(hosts: Any, names: list[str], workers: int) -> dict[str, Any]:
    found = [{"host": name, "workers": workers, "python": sys.executable} for name in names]
    return {"executor": "ssh", "ssh_config": str(hosts.config), "hosts": found}


def _four_hosts(settings: Settings, hosts: Any, workers: int) -> Iterator[Figure]:
    batches = max(HOSTS * workers * 3, int(BATCHES * settings.scale))
    folder = settings.folder / f"four-{workers}"
    folder.mkdir()
    harness.small_rows(folder / "small.jsonl", batches)
    (folder / "mapping.py").write_text(Path(__file__).with_name("paced.py").read_text())
    (folder / "job.yaml").write_text(JOB % (BATCH_S, folder / "notes"))
    (folder / "pool.yaml").write_text(json.dumps(_pool(hosts, hosts.names, workers=workers)))
    harness.wait_quietly(_skybatch(folder, "pool", "apply", "pool.yaml", "--pool", "boxes", "-y"))
    cold = _commanded(folder, batches, hosts)
    warm = [_commanded(folder, batches, hosts) for _ in range(settings.repeats)]
    yield Figure(
        benchmark="ssh",
        what=f"{HOSTS} hosts, workers on each: {workers}; from the command to the first results in the journal",
        value=harness.median(warm, "first"),
        unit="s",
        at_most=2.0,
        details={"skybatch_not_there_yet": cold["first"], "connections": harness.median(warm, "connections")},
    )
    yield Figure(
        benchmark="ssh",
        what=f"{HOSTS} hosts, workers on each: {workers}; its time over that of its batches of {BATCH_S * 1000:.0f} ms",
        value=harness.median(warm, "added"),
        unit="x",
        at_most=1.01,
        details={"batches": batches, "workers": harness.median(warm, "workers")},
    )


def _skybatch(folder: Path, *arguments: str) -> Any:
    command = f"import os; os.chdir({str(folder)!r}); from skybatch.cli.main import main; main()"
    return harness.python("-c", command, *arguments, env={"SKYBATCH_HOME": str(folder / "home")})


def _commanded(folder: Path, batches: int, hosts: Any) -> dict[str, float]:
    """`skybatch run`, watched."""
    from skybatch.engine.folder import JobFolder
    from skybatch.engine.job import Job

    jobs, notes = folder / "home" / "jobs", folder / "notes"
    notes.unlink(missing_ok=True)
    (folder / "out.jsonl").unlink(missing_ok=True)
    jobs.mkdir(parents=True, exist_ok=True)
    before = set(jobs.iterdir())
    began = time.monotonic()
    process = _skybatch(folder, "run", "job.yaml")
    first, connections = 0.0, 0
    while not first:
        if process.poll() is not None:
            raise RuntimeError(f"the job ended early: {process.communicate()}")
        new = [path for path in set(jobs.iterdir()) - before if (path / "spec.json").exists()]
        if new and Job(JobFolder(new[0])).progress().items_done:
            first = time.monotonic() - began
            connections = hosts.connections()
        time.sleep(0.005)
    harness.wait_quietly(process)
    assert harness.digest(folder / "out.jsonl") == harness.digest(folder / "small.jsonl")
    spans: dict[str, list[tuple[float, float]]] = {}
    for line in notes.read_text().splitlines():
        worker, start, end = line.split()
        spans.setdefault(worker, []).append((float(start), float(end)))
    assert sum(map(len, spans.values())) == batches
    whole = sum(max(end for _, end in each) - min(start for start, _ in each) for each in spans.values())
    batch_s = sum(end - start for each in spans.values() for start, end in each)
    return {"first": first, "connections": connections, "workers": len(spans), "added": whole / batch_s}
