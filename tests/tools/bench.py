"""A place where one job is run, killed and resumed by processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.tools import invariants
from tests.tools.processes import wait_for_none, wait_until

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "faults" / "engine_job.py"
TIMEOUT_S = 60.0
WORKERS_GONE_S = 5.0  # promised
_started: list[subprocess.Popen[str]] = []


class Ended:
    """How a process ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


class Bench:
    """One job in one folder; `folder` has inputs and outputs, `home` is its $SKYBATCH_HOME."""

    def __init__(self, folder: Path, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.home, self.options = folder, folder / "home", options

    # Processes

    @property
    def script(self) -> list[str]:
        """Python's arguments to run the job."""
        return [str(SCRIPT), str(self.folder), json.dumps(self.options)]

    @property
    def resuming(self) -> list[str]:
        """Python's arguments to resume it."""
        return ["-m", "skybatch.cli", "resume", self.job_id]

    def start(self, *, failpoint: str = "", **spawn: Any) -> subprocess.Popen[str]:
        """Run the job's script."""
        return self.spawn(self.script, failpoint, **spawn)

    def start_resume(self, *, failpoint: str = "", **spawn: Any) -> subprocess.Popen[str]:
        """Run `skybatch resume` on the job."""
        return self.spawn(self.resuming, failpoint, **spawn)

    def spawn(self, arguments: list[str], failpoint: str = "", **spawn: Any) -> subprocess.Popen[str]:
        """Run Python on some arguments in this bench's environment."""
        environment = {
            **os.environ,
            "SKYBATCH_HOME": str(self.home),
            "SKYBATCH_FAILPOINT": failpoint,
            "PYTHONPATH": str(ROOT),
            **spawn.pop("env", {}),
        }
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, cwd=self.folder, text=True, **{**pipes, **spawn}
        )
        _started.append(process)
        return process

    def crash(self, process: subprocess.Popen[str]) -> None:
        """See a process die at its failpoint, and its workers after it."""
        ended = end_of(process)
        assert ended.code == -signal.SIGKILL, ended
        self.wait_for_no_process()

    def succeed(self, process: subprocess.Popen[str]) -> Ended:
        """See a process do its work."""
        ended = end_of(process)
        assert ended.code == 0, ended
        self.wait_for_no_process()
        return ended

    def wait_for_no_process(self, timeout_s: float = WORKERS_GONE_S) -> None:
        """Wait until no engine and no worker runs; fail when some stay."""
        wait_for_none(self.home, timeout_s)

    # The job

    @property
    def job_id(self) -> str:
        """The one job's id; folders of jobs that died before they came into being are none."""
        (spec,) = self.home.glob("jobs/*/spec.json")
        return spec.parent.name

    @property
    def job_folder(self) -> Path:
        """The one job's folder."""
        return self.home / "jobs" / self.job_id

    def look(self) -> invariants.Snapshot:
        """The job as journalled now."""
        return invariants.look(self.job_folder / "journal.db")

    def check(self, *, done: bool) -> None:
        """Assert what must hold in the journal."""
        invariants.check(self.job_folder, done=done)

    def wait_for_note(self, name: str, text: str = "\n", count: int = 1) -> None:
        """Wait until a log has `count` of these texts."""
        wait_until(lambda: self.notes(name).count(text) >= count, TIMEOUT_S, f"{count} of {text!r} in {name}")

    def notes(self, name: str) -> str:
        """A log that the job's own code keeps."""
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return ""

    def ranges_taken_up(self) -> list[invariants.Span]:
        """Every range that a mapper began, as often as it did."""
        return [invariants.Span(*map(int, line.split("-"))) for line in self.notes("ranges.log").splitlines()]

    # The outputs

    def outputs(self) -> dict[str, bytes]:
        """Every file under the outputs' folder, hidden ones too, by its path in there."""
        root = self.folder / "out"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def inodes(self) -> dict[str, int]:
        """The files that stand at the outputs' places now."""
        names = ("rows.jsonl", "words.yaml")
        return {name: path.stat().st_ino for name in names if (path := self.folder / "out" / name).exists()}


def end_of(process: subprocess.Popen[str], timeout_s: float = TIMEOUT_S) -> Ended:
    """Wait for a process; one that does not end in time is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"did not end in {timeout_s} s\n{out}\n{err}") from None
    return Ended(process.returncode, out, err)


def bury() -> None:
    """Wait for what benches started and a failed test left: it is dead, or is killed here, or warns in another test."""
    while _started:
        process = _started.pop()
        if process.returncode is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
