"""The worker's parent, as a real process: relay, log, and ends that leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skybatch.worker import parent as parent_file
from skybatch.worker.frames import Decoder, Frame, encode


class Worker:
    """A worker with its parent, spoken to in frames."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "worker.log"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(parent_file.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._decoder = Decoder()
        self._arrived: list[Frame] = []

    def send(self, frame: Frame) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode(frame))
        self.process.stdin.flush()

    def receive(self) -> Frame | None:
        assert self.process.stdout is not None
        while not self._arrived:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                return None
            self._arrived = self._decoder.feed(data)
        return self._arrived.pop(0)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker(tmp_path)
    started.send({"op": "config", "log": str(started.log), "log_cap": 1 << 20})
    yield started
    started.close()


def is_alive(pid: int) -> bool:
    """Whether the process exists; a zombie nobody has reaped yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def started_pid(worker: Worker) -> int:
    frame = worker.receive()
    assert frame is not None and frame["op"] == "started"
    return int(frame["pid"])


def test_stop_is_answered_by_bye(worker: Worker) -> None:
    pid = started_pid(worker)
    worker.send({"op": "stop"})
    assert worker.receive() == {"op": "bye"}
    assert wait_gone(pid)


def test_unknown_operation_is_named(worker: Worker) -> None:
    started_pid(worker)
    worker.send({"op": "dance"})
    frame = worker.receive()
    assert frame is not None and frame["op"] == "broken" and "'dance'" in frame["message"]


def test_killed_worker_is_reported_lost_with_its_signal(worker: Worker) -> None:
    os.kill(started_pid(worker), signal.SIGKILL)
    frame = worker.receive()
    assert frame is not None and frame["op"] == "lost"
    assert os.WTERMSIG(frame["status"]) == signal.SIGKILL


def test_worker_goes_when_the_engine_goes(worker: Worker) -> None:
    pid = started_pid(worker)
    worker.close()
    assert wait_gone(pid)


def test_worker_goes_when_its_parent_is_killed(worker: Worker) -> None:
    pid = started_pid(worker)
    worker.process.kill()
    assert wait_gone(pid)
