"""The contract of `Executor` and `WorkerChannel` as tests."""

from __future__ import annotations

import importlib
import json
import re
import select
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from skybatch import plugins
from skybatch.engine import pools
from skybatch.engine.run_options import RunOptions
from skybatch.engine.trials import CONFIG
from skybatch.executors.base import Executor, Slot, WorkerChannel
from skybatch.formats.base import Item
from skybatch.worker.frames import Frame

SLOT = re.compile(r"[A-Za-z0-9_.-]+")
PATIENCE_S = 60.0
GONE_S = 10.0


MAPPERS = '''
import os
import signal


def doubled(batch):
    return [{"id": item["id"], "twice": item["id"] * 2} for item in batch]


def deadly(batch):
    if any(item["id"] == 5 for item in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return doubled(batch)
'''
"""A user's module: it travels as source, and dies at item 5 if asked to."""


class ExecutorSuite:
    """What every executor must do. Inherit it; say under which name yours is registered, and with which pool:

        class TestMyExecutor(skybatch.testing.ExecutorSuite):
            pool = {"executor": "mine", "workers": 2, "options": {"queue": "short"}}

    The executor must be installed, or registered before: `skybatch.plugins.manager().register(module)`.
    """

    pool: Mapping[str, Any] = {}
    """A pool, as a pool file has it, that gives one slot at least on machines that are there.

    An autouse fixture may set it where it is known only when tests run.
    """

    # What the tests share

    @pytest.fixture(autouse=True)
    def _home_of_the_suite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[Executor]:
        """The executor, with slots; closed afterwards."""
        pool = pools.from_mapping(self.pool)
        pools.check(pool)
        made: Executor = plugins.executor(pool.executor)(RunOptions.of(pool).for_executor(str(tmp_path)))
        try:
            _slots(made)
            yield made
        finally:
            made.close()

    # Slots

    def test_slots_have_names_of_their_own(self, executor: Executor) -> None:
        """By which logs are called."""
        names = [slot.name for slot in _slots(executor)]
        assert names and len(names) == len(set(names)), f"slots must have different names: {names}"
        assert all(SLOT.fullmatch(name) for name in names), f"a name is letters, digits, `_.-`: {names}"
        assert [slot.name for slot in executor.slots()] == names, "slots that have not changed must keep their names"

    def test_nothing_is_the_matter_with_places_that_work(self, executor: Executor) -> None:
        """What is asked at each failure answers quickly."""
        began = time.monotonic()
        assert [executor.trouble(slot) for slot in _slots(executor)[:1]] == [None]
        assert time.monotonic() - began < 1.0, "trouble() is asked at each failure, and must not take long"
        json.dumps([executor.report(), executor.aside()])

    # Workers

    def test_a_worker_says_that_it_is_ready_and_answers(self, executor: Executor) -> None:
        """`config` is sent by `start`; frames go both ways, whole and in order."""
        channel = _started(executor, _slots(executor)[0])
        try:
            for number in range(5):
                channel.send({"op": "ping", "id": number})
            heard = _heard(channel, 5)
            assert [frame.get("id") for frame in heard] == [0, 1, 2, 3, 4], f"pings were answered by {heard}"
        finally:
            _end(channel)

    def test_a_closed_worker_ends(self, executor: Executor) -> None:
        """By the end of its stream; twice is once; and what it last said can be heard."""
        channel = _started(executor, _slots(executor)[0])
        channel.close()
        channel.close()
        _to_the_end(channel)
        assert channel.wait(GONE_S), f"the worker lived on for {GONE_S} s after its stream was closed"

    def test_a_killed_worker_ends(self, executor: Executor) -> None:
        """At once; its end can be seen at `fileno`; a dead one may be killed."""
        channel = _started(executor, _slots(executor)[0])
        channel.kill()
        channel.kill()
        _to_the_end(channel)
        _end(channel)

    def test_a_slot_is_used_again_when_its_worker_has_gone(self, executor: Executor) -> None:
        """As often as it takes."""
        slot = _slots(executor)[0]
        for _ in range(2):
            channel = _started(executor, slot)
            channel.kill()
            _to_the_end(channel)
            _end(channel)
        channel = _started(executor, slot)
        _end(channel)

    def test_all_slots_have_workers_at_once(self, executor: Executor) -> None:
        """Up to eight are tried."""
        channels = [executor.start(slot, {**CONFIG, "role": "check"}) for slot in _slots(executor)[:8]]
        try:
            for channel in channels:
                _ready(channel)
        finally:
            for channel in channels:
                _end(channel)

    # Jobs

    @pytest.mark.usefixtures("_mappers")
    def test_a_job_is_done(self, tmp_path: Path) -> None:
        """Every item once, in order."""
        assert self._job("doubled", tmp_path) == [{"id": number, "twice": number * 2} for number in range(100)]

    @pytest.mark.usefixtures("_mappers")
    def test_a_deadly_item_is_set_aside_alone(self, tmp_path: Path) -> None:
        """Its worker's death is told by who saw it, with the range in hand."""
        rows = self._job("deadly", tmp_path, on_error="skip")
        assert [row["id"] for row in rows] == [number for number in range(100) if number != 5]

    @pytest.fixture
    def _mappers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mappers_of_the_suite.py").write_text(MAPPERS)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "mappers_of_the_suite", raising=False)

    def _job(self, mapper: str, folder: Path, **how: Any) -> list[Item]:
        from skybatch.engine.dataset import Dataset
        from skybatch.formats.json_format import JsonWriter

        output = folder / "out.jsonl"
        items = [{"id": number} for number in range(100)]
        pool = pools.from_mapping(self.pool)
        found = getattr(importlib.import_module("mappers_of_the_suite"), mapper)
        Dataset.from_items(items).map(found, pool, batch_size=4, output=JsonWriter(str(output)), **how)
        return [json.loads(line) for line in output.read_text().splitlines()]


def _slots(executor: Executor) -> list[Slot]:
    """Its slots, waiting for them as an engine does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        slots = list(executor.slots())
        if slots or not executor.expects_slots():
            assert slots, f"there are no slots, and none are to come: {dict(executor.aside())}"
            return slots
        assert time.monotonic() < deadline, f"no slots have come within {PATIENCE_S} s"
        changed = executor.fileno()
        assert changed is not None, "expects_slots() is true, but fileno() gives nothing that could tell of them"
        select.select([changed], [], [], 1.0)


def _started(executor: Executor, slot: Slot) -> WorkerChannel:
    channel = executor.start(slot, {**CONFIG, "role": "check"})
    _ready(channel)
    return channel


def _ready(channel: WorkerChannel) -> None:
    seen = []
    for frame in _frames(channel):
        if frame["op"] == "ready":
            return
        seen.append(frame)
    raise AssertionError(f"the worker ended before it was ready: {seen}; {channel.last_words()}")


def _heard(channel: WorkerChannel, count: int) -> list[Frame]:
    heard: list[Frame] = []
    for frame in _frames(channel):
        if frame["op"] != "log":
            heard.append(frame)
        if len(heard) == count:
            break
    return heard


def _frames(channel: WorkerChannel) -> Iterator[Frame]:
    """What comes, until the end; fails when nothing does for long."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([channel.fileno()], [], [], left)[0]:
            break
        frames = channel.receive()
        if frames is None:
            return
        yield from frames
    raise AssertionError(f"nothing was heard of the worker for {PATIENCE_S} s; {channel.last_words()}")


def _to_the_end(channel: WorkerChannel) -> None:
    for _ in _frames(channel):
        pass


def _end(channel: WorkerChannel) -> None:
    channel.close()
    if not channel.wait(GONE_S):
        channel.kill()
        assert channel.wait(GONE_S), "a killed worker did not end"
