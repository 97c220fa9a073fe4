"""How soon the command answers, and how soon the smallest job is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Figure, Settings

JOB = """\
input: {type: json, path: one.jsonl}
mapper: one_item.py:same
batch_size: 1
output: {type: json, path: out.jsonl}
"""


def run(settings: Settings) -> Iterator[Figure]:
    """`skybatch --help` against an empty Python; then `skybatch run` with one item, until its result is there."""
    command = ["-c", "from skybatch.cli.main import main; main()"]
    help, empty = harness.interleaved(
        settings.repeats * 3, lambda: _timed(*command, "--help"), lambda: _timed("-c", "pass")
    )
    yield Figure(
        benchmark="start",
        what="skybatch --help over python -c pass",
        value=harness.median(help) / harness.median(empty),
        unit="x",
        at_most=5.0,
        details={"help": harness.median(help), "python": harness.median(empty)},
    )
    (jobs,) = harness.interleaved(settings.repeats, lambda: _one_item(settings.folder / "one", command))
    yield Figure(
        benchmark="start",
        what="a job of one item, from the command to its result published",
        value=harness.median(jobs),
        unit="s",
        at_most=0.6,
        details={"until_exit": harness.median(jobs, "until_exit")},
    )


def _timed(*arguments: str) -> dict[str, float]:
    began = time.monotonic()
    process = harness.python(*arguments)
    process.communicate()
    assert process.returncode == 0
    return {"seconds": time.monotonic() - began}


def _one_item(folder: Path, command: list[str]) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    (folder / "one.jsonl").write_text('{"id":1}\n')
    (folder / "one_item.py").write_text("def same(batch):\n    return batch\n")
    (folder / "job.yaml").write_text(JOB)
    output = folder / "out.jsonl"
    output.unlink(missing_ok=True)
    began = time.monotonic()
    process = harness.python(
        *command, "run", str(folder / "job.yaml"), env={"SKYBATCH_HOME": str(folder.parent / "home")}
    )
    while not output.exists() and process.poll() is None:
        time.sleep(0.001)
    published = time.monotonic()
    harness.wait_quietly(process)
    ended = time.monotonic()
    assert output.read_bytes() == b'{"id":1}\n'
    return {"seconds": published - began, "until_exit": ended - began}
