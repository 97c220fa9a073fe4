"""The crew of a run: slots are filled, failing places are tried so often, many workers cost no more than few."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from skybatch.engine.events import Settings
from skybatch.engine.pace import grant_length, seal_s
from skybatch.engine.places import FAILURES_MAX
from skybatch.engine.workers import Workers
from skybatch.executors.base import Executor, ExecutorOptions, Slot, WorkerChannel, by_turns
from skybatch.worker.frames import Frame


class PipeChannel(WorkerChannel):
    """A worker that says nothing, until its end is closed."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.waits = 0

    def fileno(self) -> int:
        return self.reads

    def send(self, frame: Frame) -> None:
        pass

    def receive(self) -> list[Frame] | None:
        return [] if os.read(self.reads, 1) else None

    def kill(self) -> None:
        self.close()

    def close(self) -> None:
        if self.writes >= 0:
            os.close(self.writes)
            self.writes = -1

    def wait(self, timeout_s: float) -> bool:
        self.waits += 1
        if self.reads >= 0:
            os.close(self.reads)
            self.reads = -1
        return True


class Pipes(Executor):
    """Slots of places; those in `refusing` cannot be used."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        super().__init__(ExecutorOptions())
        self._slots = slots
        self.refusing: set[str] = set()
        self.started: list[str] = []
        self.asked = 0

    def slots(self) -> Sequence[Slot]:
        return self._slots

    def start(self, slot: Slot, config: Frame) -> WorkerChannel:
        self.asked += 1
        if slot.place in self.refusing:
            raise OSError(f"{slot.place} does not answer")
        self.started.append(slot.name)
        return PipeChannel()


def slots(places: int, each: int) -> list[Slot]:
    """So many of each place, one place after the other."""
    return [Slot(name=f"p{place}-{number}", place=f"p{place}") for place in range(places) for number in range(each)]


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


def crew(executor: Executor, selector: selectors.BaseSelector) -> Workers:
    """Workers of an executor whose frames nobody hears."""
    return Workers(executor, selector, lambda slot: {"op": "config"}, lambda worker, frames: None)


def test_the_first_workers_are_spread_over_the_places(selector: selectors.BaseSelector) -> None:
    executor = Pipes(slots(3, 2))
    workers = crew(executor, selector)
    workers.fill(4)
    assert executor.started == ["p0-0", "p1-0", "p2-0", "p0-1"]
    workers.close()


def test_slots_of_unequal_places_come_by_turns() -> None:
    unequal = [*slots(1, 3), Slot(name="x", place="x"), Slot(name="y", place="y")]
    assert [slot.name for slot in by_turns(unequal)] == ["p0-0", "x", "y", "p0-1", "p0-2"]


def test_the_only_place_is_tried_a_few_times_at_once(selector: selectors.BaseSelector) -> None:
    executor = Pipes(slots(1, 2))
    executor.refusing = {"p0"}
    workers = crew(executor, selector)
    with pytest.raises(OSError, match="p0 does not answer"):
        workers.fill(2)
    assert executor.asked == FAILURES_MAX
    workers.close()


def test_a_place_that_refuses_is_left_alone_while_others_work(selector: selectors.BaseSelector) -> None:
    executor = Pipes(slots(2, 2))
    executor.refusing = {"p1"}
    workers = crew(executor, selector)
    for _ in range(3):
        workers.fill(4)
    assert executor.started == ["p0-0", "p0-1"]
    assert executor.asked == 3  # one of them at the other place
    assert "p1" in workers.report()["places"][0]["name"]
    workers.close()


def test_a_slot_is_filled_again_when_its_worker_has_gone(selector: selectors.BaseSelector) -> None:
    executor = Pipes(slots(1, 2))
    workers = crew(executor, selector)
    workers.fill(2)
    next(iter(workers.live.values())).channel.kill()
    for key, _ in selector.select(5):
        key.data()
    assert len(workers.live) == 1
    workers.fill(2)
    assert executor.started == ["p0-0", "p0-1", "p0-0"]
    workers.close()


def test_hundreds_of_workers_are_filled_and_let_go_in_no_time(selector: selectors.BaseSelector) -> None:
    executor = Pipes(slots(10, 40))
    workers = crew(executor, selector)
    began = time.process_time()
    workers.fill(400)
    for _ in range(20_000):  # the turns of a loop
        workers.fill(400)
    channels: list[Any] = [worker.channel for worker in workers.live.values()]
    workers.dismiss()
    assert time.process_time() - began < 10
    workers.close()
    assert all(channel.waits in (1, 2) for channel in channels)


def test_many_workers_answer_less_often() -> None:
    settings = Settings(length=10**9, batch_size=1)
    for workers, pace, ranges in ((1, 0.25, 2), (500, 0.25, 2), (2_000, 1.0, 2), (10_000, 1.0, 10)):
        assert grant_length(settings, pace=pace, last=10, pending=10**8, workers=workers) == ranges
        assert seal_s(workers) == max(0.75, workers / 1000)
