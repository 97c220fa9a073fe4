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

from skybatch import JsonReader, JsonWriter
from skybatch.engine import code
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


def mapper(batch: list[dict[str, object]]) -> list[dict[str, object]]:
    print("a batch of", len(batch))
    return batch


def configuration(folder: Path) -> Frame:
    """A job's configuration, as the engine sends it first."""
    (folder / "in.jsonl").write_text('{"id": 0}\n{"id": 1}\n')
    captured = code.capture({"mapper": mapper, "reader": JsonReader, "output0": JsonWriter})
    captured.store(folder / "code")
    return {
        "op": "config",
        "log": str(folder / "worker.log"),
        "log_cap": 1 << 20,
        "job_id": "job",
        "code": str(folder / "code" / captured.hash),
        "refs": captured.refs,
        "reader": {"path": str(folder / "in.jsonl")},
        "index": None,
        "cache_dir": str(folder / "cache"),
        "outputs": [{"path": str(folder / "out.jsonl")}],
        "mapper_args": {},
        "one_to_one": True,
    }


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker(tmp_path)
    started.send(configuration(tmp_path))
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
    assert worker.receive() == {"op": "ready"}
    worker.send({"op": "stop"})
    assert worker.receive() == {"op": "bye"}
    assert wait_gone(pid)


def test_incomplete_configuration_is_answered_by_broken(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.send({"op": "config", "log": str(worker.log), "log_cap": 1 << 20})
    started_pid(worker)
    frame = worker.receive()
    assert frame is not None and frame["op"] == "broken" and "job_id" in frame["message"]
    worker.close()
    assert "KeyError: 'job_id'" in worker.log.read_text()


def test_grant_is_answered_by_what_was_done_and_where_it_lies(worker: Worker, tmp_path: Path) -> None:
    started_pid(worker)
    assert worker.receive() == {"op": "ready"}
    worker.send({"op": "grant", "id": 7, "start": 0, "end": 1, "size": 1, "attempt": 1})
    frame = worker.receive()
    assert frame is not None and (frame["op"], frame["grant"], frame["ranges"]) == ("done", 7, 2)
    (file,) = frame["files"]
    (path,) = (tmp_path / ".sky_batch_tmp").rglob("*.seg")
    assert path.name == file["name"] == f"{0:012d}-{1:012d}-{frame['nonce']}.seg"
    assert path.read_bytes().startswith(b'{"id":0}\n{"id":1}\n')
    worker.send({"op": "stop"})
    assert worker.receive() == {"op": "bye"}
    worker.close()
    assert worker.log.read_text() == "a batch of 1\na batch of 1\n"


def test_unknown_operation_is_named(worker: Worker) -> None:
    started_pid(worker)
    assert worker.receive() == {"op": "ready"}
    worker.send({"op": "dance"})
    frame = worker.receive()
    assert frame is not None and frame["op"] == "broken" and "'dance'" in frame["message"]


def test_killed_worker_is_reported_lost_with_its_signal(worker: Worker) -> None:
    pid = started_pid(worker)
    assert worker.receive() == {"op": "ready"}
    os.kill(pid, signal.SIGKILL)
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
