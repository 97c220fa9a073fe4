"""A folder with a job file whose job stands running, killed, failed or finished; for the tests of the verbs."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skybatch.engine import control
from skybatch.engine.folder import JobFolder
from skybatch.engine.job import Job
from skybatch.journal.lock import holder

STATES = ("running", "killed", "failed", "finished")

MAPPER = """\
import fcntl

def gated(batch, gate):
    print("hello from the mapper")
    if batch[0]["id"] >= 2:
        with open(gate) as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # waits while the test holds it
    return [{"id": item["id"], "doubled": item["id"] * 2} for item in batch]

def failing(batch, gate):
    print("hello from the mapper")
    if batch[0]["id"] >= 4:
        raise ValueError("four is \\x1b[31mtoo much")
    return batch
"""

JOB = """\
input: {{type: json, path: in.jsonl}}
mapper: own_mapper.py:{mapper}
mapper_args: {{gate: {folder}/gate}}
batch_size: 2
workers: 1
max_retries: 0
output: {{type: json, path: out.jsonl}}
"""

WHOLE = b"".join(b'{"id":%d,"doubled":%d}\n' % (i, 2 * i) for i in range(6))


@dataclass(frozen=True)
class Place:
    """Where a job was started from, and the job."""

    folder: Path
    job: Job

    @property
    def jobfile(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def output(self) -> Path:
        return self.folder / "out.jsonl"


def write_files(folder: Path, mapper: str) -> None:
    (folder / "own_mapper.py").write_text(MAPPER)
    (folder / "in.jsonl").write_text("".join(f'{{"id":{i}}}\n' for i in range(6)))
    (folder / "gate").touch()
    (folder / "job.yaml").write_text(JOB.format(mapper=mapper, folder=folder))


def command(*arguments: str | Path, home: Path, standard_input: int | None = None) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "skybatch.cli", *map(str, arguments)],
        env={**os.environ, "SKYBATCH_HOME": str(home)},
        stdin=standard_input,
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def running(folder: Path) -> Iterator[Place]:
    """A job that has committed its first range and is held in its second until the block ends."""
    write_files(folder, "gated")
    with open(folder / "gate") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        started = command("run", folder / "job.yaml", "--detach", home=folder / "home")
        assert started.returncode == 0, started.stderr
        place = Place(folder, Job(JobFolder(folder / "home" / "jobs" / started.stdout.strip())))
        try:
            _wait_for_first_range(place.job)
            yield place
        finally:
            kill_engine(place.job)


def _wait_for_first_range(job: Job) -> None:
    while job.engine_running:
        for event in control.watch(job.folder):
            if event["done"] >= 2:
                return
        os.sched_yield()  # the socket is not there yet
    raise AssertionError((job.folder.logs / "engine.log").read_text())


def kill_engine(job: Job) -> None:
    """SIGKILL the job's engine, if one runs, and wait until its lock is free."""
    pid = holder(job.folder.path) if job.folder.path.exists() and job.engine_running else None
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        job._wait_for_lock()


def make(folder: Path, state: str) -> Place:
    """A job that stands killed, failed or finished."""
    folder.mkdir()
    if state == "killed":
        with running(folder) as place:
            pass
        return place
    write_files(folder, "failing" if state == "failed" else "gated")
    ended = command("run", folder / "job.yaml", home=folder / "home")
    assert ended.returncode == (1 if state == "failed" else 0), ended.stderr
    [job] = (folder / "home" / "jobs").iterdir()
    return Place(folder, Job(JobFolder(job)))


def restore(folder: Path, copy: Path) -> None:
    """Put a folder back as it was; the paths in its journal stay true."""
    shutil.rmtree(folder)
    shutil.copytree(copy, folder, symlinks=True, ignore=shutil.ignore_patterns("control.sock"))


def popen(*arguments: str | Path, home: Path) -> subprocess.Popen[str]:
    """The real command, running."""
    return subprocess.Popen(
        [sys.executable, "-m", "skybatch.cli", *map(str, arguments)],
        env={**os.environ, "SKYBATCH_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
