"""A worker's threads in this process, spoken to as the engine does: forms of mappers, reading ahead, stretches."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import io_formats
from skybatch.errors import MapperError
from skybatch.formats.segment import read_index
from skybatch.worker import loading
from skybatch.worker import mapper as mappers
from skybatch.worker.frames import Decoder, Frame, encode
from skybatch.worker.mark import NoMark
from skybatch.worker.serve import Channel, serve

Batch = list[dict[str, Any]]
WAIT_S = 20.0


@dataclass
class Counting(io_formats.InputReader):
    """Tells what it is asked for."""

    def __post_init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.on_read: Callable[[int, int], None] = lambda start, end: None

    def __len__(self) -> int:
        return 1000

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        assert os.path.isdir(cache_dir)
        self.asked.append((start_idx, end_idx))
        self.on_read(start_idx, end_idx)
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


class InThread:
    """One worker served by a thread of this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.reader = Counting("x")
        self.output = folder / "out.jsonl"
        self._decoder = Decoder()
        self._arrived: list[Frame] = []

    def start(self, mapper: Any, **config: Any) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(WAIT_S)
        writer = skybatch.JsonWriter(str(self.output))
        self._monkeypatch.setattr(loading, "load_code", lambda config: (mapper, self.reader, [writer]))
        frame = {
            "job_id": "job",
            "cwd": None,
            "cache_dir": str(self.folder / "cache"),
            "outputs": [{"path": str(self.output)}],
            "mapper_args": {},
            "one_to_one": True,
            **config,
        }

        def run() -> None:
            with theirs:
                serve(Channel(theirs.fileno()), NoMark(), frame)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def send(self, **frame: Any) -> None:
        self._ours.sendall(encode(frame))

    def grant(self, number: int, start: int, end: int, size: int) -> None:
        self.send(op="grant", id=number, start=start, end=end, size=size, attempt=1)

    def hear(self) -> Frame:
        while not self._arrived:
            self._arrived = self._decoder.feed(self._ours.recv(1 << 16))
        return self._arrived.pop(0)

    def finish(self) -> list[Frame]:
        """Stop it; all it still has to say, `bye` last."""
        self.send(op="stop")
        frames = [self.hear()]
        while frames[-1]["op"] not in ("bye", "broken"):
            frames.append(self.hear())
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._ours.close()
        return frames


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InThread]:
    yield InThread(tmp_path, monkeypatch)


def double(batch: Batch, by: int = 2) -> Batch:
    return [{"id": item["id"], "value": item["id"] * by} for item in batch]


class Doubler:
    made = 0

    def __init__(self, by: int = 2) -> None:
        Doubler.made += 1
        self.by = by

    def __call__(self, batch: Batch) -> Batch:
        return double(batch, self.by)


class AsyncDoubler(Doubler):
    async def __call__(self, batch: Batch) -> Batch:  # type: ignore[override]
        await asyncio.sleep(0)
        return double(batch, self.by)


async def async_double(batch: Batch, by: int = 2) -> Batch:
    await asyncio.sleep(0)
    return double(batch, by)


@skybatch.remote_function
def remote_double(by: int = 2) -> None:
    for batch in skybatch.load():
        skybatch.save_results(double(batch, by))


@skybatch.remote_function
async def async_remote_double(by: int = 2) -> None:
    async for batch in skybatch.load():
        skybatch.save_results(double(batch, by))


def rows(worker: InThread, done: list[Frame]) -> bytes:
    """The payloads of these answers, in the order of their items."""
    folder = worker.folder / ".sky_batch_tmp" / "job" / "out.jsonl"
    data = b""
    for frame in sorted(done, key=lambda frame: frame["start"]):
        path = folder / frame["files"][0]["name"]
        data += path.read_bytes()[: read_index(path).data_size]
    return data


@pytest.mark.parametrize(
    "mapper",
    [double, Doubler, Doubler(2), remote_double, async_double, AsyncDoubler, AsyncDoubler(2), async_remote_double],
)
def test_every_form_of_mapper_maps_every_range(worker: InThread, mapper: Any) -> None:
    worker.start(mapper)
    assert worker.hear() == {"op": "ready"}
    worker.grant(1, 0, 9, 4)
    worker.grant(2, 10, 13, 4)
    frames = worker.finish()
    assert [frame["op"] for frame in frames] == ["done"] * (len(frames) - 1) + ["bye"]
    expected = b"".join(b'{"id":%d,"value":%d}\n' % (index, 2 * index) for index in range(14))
    assert rows(worker, frames[:-1]) == expected
    assert sum(frame["ranges"] for frame in frames[:-1]) == 4


@pytest.mark.parametrize("mapper", [double, Doubler, remote_double, async_double, AsyncDoubler])
def test_arguments_go_to_the_function_or_the_class(worker: InThread, mapper: Any) -> None:
    worker.start(mapper, mapper_args={"by": 3})
    worker.grant(1, 0, 1, 2)
    frames = worker.finish()
    assert rows(worker, frames[1:-1]) == b'{"id":0,"value":0}\n{"id":1,"value":3}\n'


def test_class_is_made_once_for_all_batches(worker: InThread) -> None:
    Doubler.made = 0
    worker.start(Doubler)
    worker.grant(1, 0, 99, 1)
    worker.grant(2, 100, 199, 1)
    worker.finish()
    assert Doubler.made == 1


def test_reader_runs_ahead_of_the_mapper(worker: InThread) -> None:
    """While the mapper holds its first batch, the next are read."""
    read_ahead = threading.Event()
    worker.reader.on_read = lambda start, end: read_ahead.set() if start > 0 else None

    def waits(batch: Batch) -> Batch:
        assert read_ahead.wait(WAIT_S)
        return batch

    worker.start(waits)
    for number in range(3):
        worker.grant(number, number, number, 1)
    frames = worker.finish()
    assert [frame["op"] for frame in frames[1:]] == ["done"] * 3 + ["bye"]
    assert worker.reader.asked == [(0, 0), (1, 1), (2, 2)]  # each once


def test_reader_does_not_run_away_from_a_slow_mapper(worker: InThread) -> None:
    go = threading.Event()
    held: list[int] = []

    def holds(batch: Batch) -> Batch:
        held.append(batch[0]["id"])
        assert go.wait(WAIT_S)
        return batch

    def slowly(start: int, end: int) -> None:
        threading.Event().wait(0.01)  # so that every range is a load of its own

    worker.reader.on_read = slowly
    worker.start(holds)
    worker.grant(0, 0, 99, 1)
    while len(worker.reader.asked) < 4:
        threading.Event().wait(0.005)
    threading.Event().wait(0.1)
    assert len(worker.reader.asked) <= 4  # one in hand, two waiting, one about to
    go.set()
    worker.finish()
    assert held == list(range(100))


@pytest.mark.parametrize(
    ("fault", "operation"), [(FileNotFoundError("input gone"), "storage"), (ValueError("no index"), "broken")]
)
def test_index_that_cannot_be_opened_is_told_and_ends_the_worker(
    worker: InThread, monkeypatch: pytest.MonkeyPatch, fault: Exception, operation: str
) -> None:
    def fails(reader: skybatch.JsonReader, folder: str) -> None:
        raise fault

    monkeypatch.setattr(skybatch.JsonReader, "open_index", fails)
    worker.reader = skybatch.JsonReader("x")  # type: ignore[assignment]
    worker.start(double, index=str(worker.folder))
    assert worker.hear() == {"op": "ready"}
    worker.grant(1, 0, 3, 2)
    frame = worker.hear()
    assert frame["op"] == operation and str(fault) in frame["message"]
    worker._thread.join(WAIT_S)
    assert not worker._thread.is_alive()
    worker._ours.close()


def test_failed_range_parts_the_answers_of_its_grant(worker: InThread) -> None:
    def fails_on_four(batch: Batch) -> Batch:
        if batch[0]["id"] == 4:
            raise ValueError("four")
        return batch

    worker.start(fails_on_four)
    worker.grant(1, 0, 9, 2)
    frames = worker.finish()
    answered = {(f["op"], f["start"], f["end"]) for f in frames if f["op"] in ("done", "failed")}
    assert answered == {("done", 0, 3), ("failed", 4, 5), ("done", 6, 9)}
    (failed,) = (frame for frame in frames if frame["op"] == "failed")
    assert failed["message"] == "ValueError: four" and failed["kind"] == "mapper"
    assert "fails_on_four" in failed["traceback"] and "skybatch/worker" not in failed["traceback"]


def test_stretches_of_two_grants_have_two_nonces(worker: InThread) -> None:
    worker.start(double)
    worker.grant(1, 0, 3, 2)
    worker.grant(2, 4, 7, 2)
    done = [frame for frame in worker.finish() if frame["op"] == "done"]
    assert len({frame["nonce"] for frame in done}) == len(done) >= 2
    assert {frame["grant"] for frame in done} == {1, 2}


def test_drain_ends_after_the_batch_in_hand_and_hands_it_in(worker: InThread) -> None:
    taken, go = threading.Event(), threading.Event()

    def waits(batch: Batch) -> Batch:
        taken.set()
        assert go.wait(WAIT_S)
        return batch

    worker.start(waits)
    worker.grant(1, 0, 99, 2)
    assert taken.wait(WAIT_S)
    worker.send(op="drain")
    threading.Event().wait(0.05)
    go.set()
    frames = worker.finish()
    done = [frame for frame in frames if frame["op"] == "done"]
    assert [(frame["start"], frame["end"]) for frame in done] == [(0, 1)]
    assert frames[-1] == {"op": "bye"}


def test_context_names_the_range_and_a_seed_of_its_own(worker: InThread) -> None:
    seen: list[skybatch.worker.runtime.Context] = []

    def looks(batch: Batch) -> Batch:
        seen.append(skybatch.context())
        return batch

    worker.start(looks)
    worker.grant(1, 0, 3, 2)
    worker.finish()
    assert [(c.start, c.end, c.attempt, c.job_id) for c in seen] == [(0, 1, 1, "job"), (2, 3, 1, "job")]
    assert len({c.seed for c in seen}) == 2


def test_async_mapper_has_as_many_batches_in_flight_as_asked_for(worker: InThread) -> None:
    flying: set[int] = set()
    most = 0

    async def gathers(batch: Batch) -> Batch:
        nonlocal most
        flying.add(batch[0]["id"])
        most = max(most, len(flying))
        for _ in range(1000):
            if len(flying) == 3 or batch[0]["id"] >= 9:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        flying.discard(batch[0]["id"])
        return batch

    worker.start(gathers, concurrency=3)
    worker.grant(1, 0, 11, 1)
    frames = worker.finish()
    assert most == 3
    assert sum(frame["ranges"] for frame in frames if frame["op"] == "done") == 12


@pytest.mark.parametrize(
    ("mapper", "arguments", "told"),
    [
        (double, {"size": 1}, "unexpected keyword argument 'size'"),
        (lambda: None, {}, "did you forget @skybatch.remote_function"),
        (Doubler(), {"by": 2}, "an instance has its state already"),
        (remote_double, {"no": 1}, "unexpected keyword argument 'no'"),
    ],
)
def test_calls_that_cannot_work_are_refused(mapper: Any, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(MapperError, match=told):
        mappers.check_call(mapper, mappers.form_of(mapper), arguments)


def test_what_is_no_mapper_is_refused() -> None:
    class Silent:
        pass

    with pytest.raises(MapperError, match=r"Silent has no __call__"):
        mappers.form_of(Silent)
    with pytest.raises(MapperError, match="not int"):
        mappers.form_of(3)


def test_load_outside_a_job_is_refused() -> None:
    with pytest.raises(RuntimeError, match="works only inside a @skybatch"):
        skybatch.load()
    with pytest.raises(RuntimeError, match="works only inside a @skybatch"):
        skybatch.save_results([])
    with pytest.raises(RuntimeError, match="inside a mapper only"):
        skybatch.context()
