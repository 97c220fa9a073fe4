"""The real engine - loop, scheduler, journal, frames - with workers that only say they had worked.

`python -m benchmarks.simulated ARGUMENTS`, a JSON object of `Asked`'s fields; a line of JSON is printed. The players,
processes of their own, have the other ends of the workers' sockets; each plays many workers, and keeps their time.
"""

from __future__ import annotations

import array
import heapq
import json
import multiprocessing
import os
import random
import resource
import secrets
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import peak_mb
from skybatch.engine.events import Settings
from skybatch.engine.loop import Loop
from skybatch.engine.scheduler import Scheduler
from skybatch.engine.workers import LiveWorker, Workers
from skybatch.executors.base import Executor, ExecutorOptions, Slot, WorkerChannel, numbered
from skybatch.journal.journal import Journal
from skybatch.journal.rows import JobRow
from skybatch.worker.frames import Decoder, Frame, encode
from skybatch.worker.storing import SEAL_SECONDS

READ_SIZE = 1 << 16
PASSED_AT_ONCE = 200  # descriptors


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be simulated."""

    folder: str  # for the journal
    workers: int
    ranges: int
    batch_s: float  # on average; half to one and a half of it
    players: int = 2
    hurry: float = 1.0  # batches take this many times less than workers say they took
    warm_s: float = 10.0  # not measured
    measured_s: float = 30.0
    scattered: int = 0  # so many single ranges are done already, far apart


# Players


class _Worker:
    """One worker, played."""

    def __init__(self, number: int, end: socket.socket) -> None:
        self.number, self.end = number, end
        self.decoder = Decoder()
        self.grants: deque[Frame] = deque()
        self.at = 0  # the range in hand of the first grant begins there
        self.free_at = 0.0
        self.stretch = -1  # what is done and not told begins there
        self.began = 0.0


class _Player:
    """Plays workers until their engine is gone."""

    def __init__(self, ends: Sequence[socket.socket], batch_s: float, hurry: float) -> None:
        self._batch_s, self._hurry, self._luck = batch_s / hurry, hurry, random.Random(1)
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int]] = []
        self._workers = [_Worker(number, end) for number, end in enumerate(ends)]
        for worker in self._workers:
            self._selector.register(worker.end, selectors.EVENT_READ, worker)

    def play(self) -> None:
        """Until there is no worker left."""
        due = self._due
        while self._selector.get_map():
            wait = due[0][0] - time.monotonic() if due else None
            for key, _ in self._selector.select(None if wait is None else max(0.0, wait)):
                self._hear(key.data)
            now = time.monotonic()
            while due and due[0][0] <= now:
                at, number = heapq.heappop(due)
                self._mapped(self._workers[number], at)

    def _hear(self, worker: _Worker) -> None:
        try:
            data = worker.end.recv(READ_SIZE)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(worker.end)
            worker.end.close()
            worker.grants.clear()
            return
        for frame in worker.decoder.feed(data):
            if frame["op"] == "config":
                self._say(worker, {"op": "ready"})
            elif frame["op"] == "grant":
                worker.grants.append(frame)
                if len(worker.grants) == 1:
                    self._begin(worker, time.monotonic())

    def _begin(self, worker: _Worker, now: float) -> None:
        worker.at = worker.grants[0]["start"]
        self._map(worker, max(now, worker.free_at))

    def _map(self, worker: _Worker, since: float) -> None:
        heapq.heappush(self._due, (since + self._batch_s * self._luck.uniform(0.5, 1.5), worker.number))

    def _mapped(self, worker: _Worker, at: float) -> None:
        """A range is done. A player that is late makes its workers slow, not busier."""
        if not worker.grants:
            return
        grant, now = worker.grants[0], time.monotonic()
        worker.free_at = now
        if worker.stretch < 0:
            worker.stretch, worker.began = worker.at, at - self._batch_s
        end = min(worker.at + grant["size"] - 1, grant["end"])
        if end == grant["end"] or (now - worker.began) * self._hurry >= grant.get("seal_s", SEAL_SECONDS):
            self._tell(worker, grant, end, now)
        worker.at = end + 1
        if end < grant["end"]:
            self._map(worker, now)
            return
        worker.grants.popleft()
        if worker.grants:
            self._begin(worker, now)

    def _tell(self, worker: _Worker, grant: Frame, end: int, now: float) -> None:
        nonce = secrets.token_hex(6)
        done = {"op": "done", "grant": grant["id"], "start": worker.stretch, "end": end, "nonce": nonce}
        ranges = -(-(end + 1 - worker.stretch) // grant["size"])
        took = {"ranges": ranges, "size": grant["size"], "seconds": (now - worker.began) * self._hurry}
        self._say(worker, {**done, **took, "files": [{"name": f"{nonce}.seg", "size": 4096, "data": 4000}]})
        worker.stretch = -1

    def _say(self, worker: _Worker, frame: Frame) -> None:
        try:
            worker.end.sendall(encode(frame))
        except OSError:
            pass  # the engine is gone


def _play(call: socket.socket, count: int, batch_s: float, hurry: float) -> None:
    ends: list[socket.socket] = []
    while len(ends) < count:
        _, passed, _, _ = socket.recv_fds(call, 1, PASSED_AT_ONCE)
        ends += [socket.socket(fileno=fd) for fd in passed]
    call.close()
    _Player(ends, batch_s, hurry).play()


# The engine


class SocketChannel(WorkerChannel):
    """A worker that is played elsewhere."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._decoder = end, Decoder()

    def fileno(self) -> int:
        """The engine's end."""
        return self._end.fileno()

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        self._end.sendall(encode(frame))

    def receive(self) -> list[Frame] | None:
        """What has come."""
        data = self._end.recv(READ_SIZE)
        return self._decoder.feed(data) if data else None

    def kill(self) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End it."""
        if self._end.fileno() >= 0:
            self._end.shutdown(socket.SHUT_RDWR)

    def wait(self, timeout_s: float) -> bool:
        """It has ended."""
        self._end.close()
        return True


class Stage(Executor):
    """Hands out the workers that are played."""

    def __init__(self, ends: list[socket.socket]) -> None:
        super().__init__(ExecutorOptions())
        self._ends = ends

    def slots(self) -> list[Slot]:
        """One for each."""
        return numbered(len(self._ends))

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        """The worker of that number."""
        channel = SocketChannel(self._ends[int(slot.name)])
        channel.send(config)
        return channel


def _players(asked: Asked) -> tuple[list[socket.socket], list[Any]]:
    """The engine's ends, and the processes that have the others."""
    ends: list[socket.socket] = []
    processes = []
    context = multiprocessing.get_context("spawn")
    for player in range(asked.players):
        count = asked.workers // asked.players + (player < asked.workers % asked.players)
        mine, theirs = socket.socketpair()
        process = context.Process(target=_play, args=(theirs, count, asked.batch_s, asked.hurry), daemon=True)
        process.start()
        theirs.close()
        for first in range(0, count, PASSED_AT_ONCE):
            pairs = [socket.socketpair() for _ in range(min(PASSED_AT_ONCE, count - first))]
            there = array.array("i", [other.fileno() for _, other in pairs])
            socket.send_fds(mine, [b"x"], list(there))
            for one, other in pairs:
                other.close()
                ends.append(one)
        mine.close()
        processes.append(process)
    return ends, processes


def simulate(asked: Asked) -> dict[str, Any]:
    """Run the engine for a while; what it did meanwhile."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ends, processes = _players(asked)
    path = Path(asked.folder, "journal.db")
    row = JobRow(id="simulated-0", name="simulated", created_at=0.0, batch_size=1, length=asked.ranges, state="running")
    journal = Journal.create(path, row, ["out.jsonl"])
    done = _spread(asked.ranges, asked.scattered)
    seen: list[tuple[float, float, int, int, int]] = []  # time, processor time, ranges won, turns, answers
    turns = answers = 0
    with selectors.DefaultSelector() as selector:
        workers = Workers(Stage(ends), selector, lambda slot: {"op": "config"}, lambda w, f: hear(w, f))

        def hear(worker: LiveWorker, frames: list[Frame] | None) -> None:
            nonlocal answers
            answers += len(frames or [])
            loop.on_frames(worker, frames)

        def progress(loop: Loop) -> None:
            nonlocal turns
            turns += 1
            now = time.monotonic()
            assert loop.scheduler is not None
            if not seen or now >= began + asked.warm_s + (asked.measured_s if len(seen) > 1 else 0.0):
                seen.append((now, time.process_time(), loop.scheduler.won_items, turns, answers))
            if len(seen) == 3:
                loop.halt("paused", "measured", 75, kill=True)

        loop = Loop(
            journal=journal,
            executor_workers=workers,
            selector=selector,
            control=SimpleNamespace(),  # type: ignore[arg-type]
            interrupts=SimpleNamespace(raising=False),  # type: ignore[arg-type]
            batch_timeout_s=None,
            code="0" * 8,
            before_commit=lambda changes: None,
            on_commit=lambda changes: None,
            on_progress=progress,
            notify=lambda hook, **values: None,
        )
        began = time.monotonic()
        loop.map(Scheduler(Settings(length=asked.ranges, batch_size=1), won=((at, at) for at in done)), asked.workers)
        workers.close()
    counts = journal.counts()
    rows = sum(1 for _ in journal.runs())
    journal.close()
    assert counts.won_items == seen[-1][2] - len(done), (counts, seen)
    for process in processes:
        process.join()
    (t0, cpu0, won0, turns0, answers0), (t1, cpu1, won1, turns1, answers1) = seen[1:]
    return {
        "busy": (won1 - won0) * asked.batch_s / ((t1 - t0) * asked.workers),
        "ranges_per_s": (won1 - won0) / (t1 - t0),
        "engine_busy": (cpu1 - cpu0) / (t1 - t0),
        "answers_per_s": (answers1 - answers0) / (t1 - t0),
        "commits_per_s": (turns1 - turns0) / (t1 - t0),
        "rows_per_range": rows / max(1, counts.won_items),
        "journal_bytes_per_range": path.stat().st_size / max(1, counts.won_items),
        "engine_mb": peak_mb("self"),
    }


def _spread(length: int, count: int) -> Sequence[int]:
    return range(1, length, length // count) if count else range(0)


if __name__ == "__main__":
    print(json.dumps(simulate(Asked(**json.loads(sys.argv[1])))))
    os._exit(0)
