"""The engine's core, simulated: the real loop, scheduler and journal; fake workers, a fake store and a fake clock.

Workers die, fail, run out of memory, lose their storage, answer twice, late and wrongly; the engine dies between any
two turns, and another goes on from its journal.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from skybatch.engine import loop as loops
from skybatch.engine import told
from skybatch.engine.events import Settings
from skybatch.engine.loop import Loop
from skybatch.engine.planning import restored
from skybatch.engine.retries import budgets
from skybatch.engine.scheduler import Scheduler
from skybatch.engine.workers import LiveWorker
from skybatch.executors.base import Slot
from skybatch.journal.journal import Journal
from skybatch.journal.rows import JobRow
from skybatch.worker.frames import Frame


class Clock:
    """Stands in for `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Crew:
    """Stands in for the workers of a run: what is granted is carried out, well or badly, when `work` is called."""

    def __init__(self, core: Core) -> None:
        self.live: dict[int, LiveWorker] = {}
        self._core = core
        self._grants: dict[int, deque[Frame]] = {}

    def fill(self, wanted: int) -> None:
        while len(self.live) < wanted:
            number = next(self._core.numbers)
            channel: Any = SimpleNamespace(last_words=lambda: "")
            self.live[number] = LiveWorker(number=number, slot=Slot(name="0"), channel=channel)
            self._grants[number] = deque()
            self._core.loop.on_frames(self.live[number], [{"op": "ready"}])

    def set_ready(self, worker: LiveWorker) -> None:
        worker.ready = True

    def set_aside_if_troubled(self, worker: LiveWorker) -> bool:
        return False

    def without_hope(self) -> None:
        return None

    def next_look(self) -> None:
        return None

    def send(self, number: int, frame: Frame) -> None:
        if number in self._grants:
            self._grants[number].append(frame)

    def kill(self, worker: LiveWorker) -> bool:
        self._drop(worker.number)
        return True

    def work(self) -> bool:
        """Have one worker carry out one grant; whether any had one."""
        busy = [number for number, grants in self._grants.items() if grants and number in self.live]
        if not busy:
            return False
        number = self._core.luck.choice(busy)
        self._carry_out(self.live[number], self._grants[number].popleft())
        return True

    def _drop(self, number: int) -> None:
        self.live.pop(number, None)
        self._grants.pop(number, None)

    def _carry_out(self, worker: LiveWorker, grant: Frame) -> None:
        core, luck = self._core, self._core.luck
        for start in range(grant["start"], grant["end"] + 1, grant["size"]):
            end = min(start + grant["size"] - 1, grant["end"])
            core.clock.now += luck.random()
            end_of_it = core.fate(start, end)
            if end_of_it == "done":
                frame = core.stored(grant, start, end)
                frames = [frame, frame] if luck.random() < 0.1 else [frame]
                if luck.random() < 0.1:
                    frames.append({**frame, "nonce": f"wrong{frame['nonce']}", "grant": frame["grant"] + 10**6})
                core.loop.on_frames(worker, frames)
            elif end_of_it in ("mapper", "memory"):
                core.loop.on_frames(worker, [core.failed(grant, start, end, end_of_it)])
            elif end_of_it == "storage":
                core.loop.on_frames(worker, [{"op": "storage", "message": "no answer"}])
                return
            else:
                lost = {"op": "lost", "reason": end_of_it, "status": 9, "held": [[start, end]]}
                core.loop.on_frames(worker, [lost])
                self._drop(worker.number)
                core.loop.on_frames(worker, None)
                return


class Core:
    """One seed's job."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.luck = Random(f"core {seed}")
        self.clock, self.numbers, self._nonces = Clock(), itertools.count(1), itertools.count()
        self.length, self.batch_size = self.luck.randrange(1, 120), self.luck.choice([1, 2, 5, 8])
        self.bad = {item for item in range(self.length) if self.luck.random() < 0.03}
        self.memory = self.luck.choice([None, None, 2, 4])
        self.store: dict[str, set[int]] = {}  # by nonce: the items whose results it has
        self.crashes = 0
        self._path = folder / f"{seed}.db"
        row = JobRow(id=f"{seed:012d}", name="", created_at=1.0, batch_size=self.batch_size, state="running")
        with Journal.create(self._path, row, ["out"]) as journal:
            journal.set_planned(self.length)

    def run(self) -> None:
        """To the end, over as many engines as it takes; asserts what must hold."""
        with mock.patch.object(loops, "time", self.clock), mock.patch.object(told, "time", self.clock):
            while not self._engine():
                self.crashes += 1
        self._check()

    def _engine(self) -> bool:
        """One engine, until it dies or everything is settled."""
        with Journal.open(self._path) as journal:
            journal.take_over()
            self.loop = self._loop(journal)
            crew: Any = self.loop._workers
            spec: Any = SimpleNamespace(on_error="skip")
            settings = Settings(
                length=self.length,
                batch_size=self.batch_size,
                budgets=budgets({"mapper": 1, "lost": 2, "timeout": 1, "memory": 1, "storage": 50}),
                fits=journal.job().fits,
                speculate=True,
            )
            scheduler = self.loop.scheduler = Scheduler(settings, **restored(journal, spec))
            lives = self.luck.randrange(2, 40)
            for _ in range(lives):
                crew.fill(3)
                if scheduler.finished or self.loop.stop:
                    break
                if not crew.work():
                    self.clock.now = max(self.clock.now, scheduler.next_wake or self.clock.now) + 0.01
                    self.loop._handle(loops.events.Tick())
                if self.luck.random() < 0.8:  # else more comes before it is committed
                    self.loop._flush()
                    assert not self.loop._changes
            else:
                return False  # what was not committed is lost with it
            self.loop._flush()
            return scheduler.finished

    def _loop(self, journal: Journal) -> Loop:
        nothing: Callable[..., Any] = lambda *args, **more: None  # noqa: E731
        unused: Any = None
        crew: Any = Crew(self)
        return Loop(
            journal=journal,
            executor_workers=crew,
            selector=unused,
            control=unused,
            interrupts=unused,
            batch_timeout_s=None,
            code="code",
            on_progress=nothing,
            before_commit=nothing,
            on_commit=nothing,
            notify=nothing,
        )

    # What becomes of a range

    def fate(self, start: int, end: int) -> str:
        items, chance = range(start, end + 1), self.luck.random()
        if self.memory is not None and len(items) > self.memory:
            return "memory"
        if not self.bad.isdisjoint(items):
            return self.luck.choice(["mapper", "mapper", "exit"])
        others = ["mapper", "exit", "timeout", "storage", "preempted"]
        return others[int(chance * 100)] if chance < 0.05 else "done"

    def stored(self, grant: Frame, start: int, end: int) -> Frame:
        nonce = f"n{next(self._nonces)}"
        self.store[nonce] = set(range(start, end + 1))
        about = {"op": "done", "grant": grant["id"], "start": start, "end": end, "nonce": nonce, "size": grant["size"]}
        return {**about, "seconds": 0.1, "ranges": 1, "files": [{"name": nonce, "size": 1, "data": 1}]}

    def failed(self, grant: Frame, start: int, end: int, kind: str) -> Frame:
        about = {"op": "failed", "grant": grant["id"], "start": start, "end": end, "attempt": grant["attempt"]}
        return {**about, "kind": kind, "message": kind, "traceback": None, "item": None, "signature": kind}

    def _check(self) -> None:
        with Journal.open(self._path) as journal:
            settled: list[int] = []
            for run in journal.runs():
                assert run.state in ("won", "dead"), run
                items = list(range(run.start, run.end + 1))
                settled += items
                if run.state == "won":
                    assert run.nonce is not None and set(items) <= self.store[run.nonce], "a winner without results"
                    assert self.bad.isdisjoint(items)
            assert settled == list(range(self.length)), "lost, or twice"
            assert journal.faults() == [] and journal.won_though_split() == []
