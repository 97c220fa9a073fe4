"""Files of per-item writers: durable together, and before anybody is told of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skybatch.formats import durability, storage
from skybatch.formats.base import OutputWriter
from skybatch.worker.mark import NoMark
from skybatch.worker.outbox import Outbox, Result
from skybatch.worker.reading import Loaded
from skybatch.worker.session import Batch
from skybatch.worker.storing import Storing


class OneFilePerItem(OutputWriter):
    """As per-item writers are."""

    def upload_batch(self, results: list[dict[str, Any]], start_idx: int, end_idx: int, job_id: str) -> str:
        """Each result in a file."""
        for index, _ in enumerate(results, start_idx):
            storage.write_bytes(f"{self.path}/{index}", b"x")
        return self.path

    def reduce_results(self, job_id: str) -> None:
        """Nothing."""

    def cleanup(self, job_id: str) -> None:
        """Nothing."""


class Told:
    """A channel that remembers what was told."""

    own_process = False

    def __init__(self, events: list[Any]) -> None:
        self.events = events

    def send(self, frame: dict[str, Any]) -> None:
        """Remember it."""
        self.events.append(frame)


def store(folder: Path, events: list[Any], grants: int, size: int) -> None:
    """Pass ranges of `size` items through a worker's writing side, one a grant."""
    told: Any = Told(events)
    outbox = Outbox(Storing(told, NoMark(), {"job_id": "job"}, [OneFilePerItem(str(folder / "out"))]))
    outbox.start()
    for grant in range(grants):
        start, end = grant * size, (grant + 1) * size - 1
        loaded = Loaded({"id": grant, "attempt": 1, "end": end, "size": size}, start, end)
        outbox.put(Result(Batch(loaded, start, end, [], 0), [], [{}] * size))
    outbox.close()


def spy(monkeypatch: pytest.MonkeyPatch, events: list[Any]) -> None:
    """Note what is synced, once it is."""
    fsync, syncfs = os.fsync, durability._syncfs()

    def noted_fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        fsync(fd)
        events.append(("fsync", path))

    def noted_syncfs(fd: int) -> int:
        there = set(os.listdir(os.readlink(f"/proc/self/fd/{fd}")))
        assert syncfs is not None
        error = syncfs(fd)
        events.append(("syncfs", there))
        return error

    monkeypatch.setattr(os, "fsync", noted_fsync)
    if syncfs is not None:
        monkeypatch.setattr(durability, "_syncfs", lambda: noted_syncfs)


def done_before(events: list[Any], is_durable: Callable[[list[Any], int], bool]) -> int:
    """See that every file of every `done` was durable before; how many files that were."""
    seen = 0
    for at, event in enumerate(events):
        if isinstance(event, dict):
            assert event["op"] == "done"
            for index in range(event["start"], event["end"] + 1):
                assert is_durable(events[:at], index)
                seen += 1
    return seen


def test_few_files_are_synced_one_by_one_before_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    spy(monkeypatch, events)
    store(tmp_path, events, grants=4, size=3)

    def is_durable(before: list[Any], index: int) -> bool:
        file, folder = ("fsync", str(tmp_path / "out" / str(index))), ("fsync", str(tmp_path / "out"))
        return file in before and folder in before[before.index(file) :]

    assert done_before(events, is_durable) == 12


@pytest.mark.skipif(durability._syncfs() is None, reason="no syncfs here")
def test_many_files_take_one_sync_before_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(durability, "_filesystems", {})  # so that its descriptor is that of the output
    events: list[Any] = []
    spy(monkeypatch, events)
    store(tmp_path, events, grants=5, size=40)

    def is_durable(before: list[Any], index: int) -> bool:
        return any(event[0] == "syncfs" and str(index) in event[1] for event in before if isinstance(event, tuple))

    assert done_before(events, is_durable) == 200
    assert ("fsync", str(tmp_path / "out" / "0")) not in events


def test_without_syncfs_each_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    spy(monkeypatch, events)
    monkeypatch.setattr(durability, "_syncfs", lambda: None)
    store(tmp_path, events, grants=2, size=20)
    assert done_before(events, lambda before, index: ("fsync", str(tmp_path / "out" / str(index))) in before) == 40


def test_a_thread_that_collects_nothing_writes_durably_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    spy(monkeypatch, events)
    storage.write_bytes(str(tmp_path / "a"), b"x")
    assert [kind for kind, _ in events] == ["fsync", "fsync"]  # the file, its folder
    assert durability.collected() == []


def test_a_disk_that_fails_is_told_and_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    monkeypatch.setattr(durability, "_syncfs", lambda: lambda fd: 5)
    store(tmp_path, events, grants=2, size=20)
    assert [event["op"] for event in events] == ["storage"]


def test_a_file_taken_away_again_is_no_error(tmp_path: Path) -> None:
    durability.make_durable([str(tmp_path / "gone")])
