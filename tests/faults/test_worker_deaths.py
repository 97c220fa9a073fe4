"""Workers that die, hang or are stopped: only the range in hand is charged, and the job is done all the same."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine import stuck
from tests.tools.mapping import map_items
from tests.tools.processes import wait_until

Batch = list[dict[str, Any]]


def first_time(flag: str) -> bool:
    """Whether this is called for the first time, in whatever process."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "_exit":
        os._exit(0)
    elif how == "exit":
        sys.exit(0)
    elif how == "interrupt":
        raise KeyboardInterrupt
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def dies_once(batch: Batch, flag: str, how: str) -> Batch:
    if batch[0]["id"] == 1000 and first_time(flag):
        die(how)
    return batch


@skybatch.remote_function
def dies_once_between_load_and_save(flag: str, how: str) -> None:
    for batch in skybatch.load():
        if batch[0]["id"] == 1000 and first_time(flag):
            die(how)
        skybatch.save_results(batch)


def always_dies_on_one(batch: Batch) -> Batch:
    if any(item["id"] == 17 for item in batch):
        os._exit(0)
    return batch


def hangs_once(batch: Batch, flag: str, how: str) -> Batch:
    if batch[0]["id"] == 8 and first_time(flag):
        for apart in (False, True):
            if os.fork() == 0:
                if apart:
                    os.setsid()
                if os.fork() == 0:
                    time.sleep(1000)
                time.sleep(1000)
        if how == "lock held":
            ctypes.PyDLL(None).sleep(1000)
        while True:
            pass
    return batch


def is_stopped_once(batch: Batch, note: str) -> Batch:
    """Says once who it is, and waits to be stopped; the second try at the range works."""
    if batch[0]["id"] == 8 and first_time(note + ".flag"):
        with open(note + ".part", "w") as file:
            file.write(f"{os.getpid()} {os.getppid()}")
        os.rename(note + ".part", note)
        time.sleep(3600)
    return batch


@pytest.mark.parametrize("mapper", [dies_once, dies_once_between_load_and_save])
@pytest.mark.parametrize("how", ["segfault", "_exit", "exit", "SIGKILL", "interrupt"])
def test_only_the_range_in_hand_is_charged_in_a_grant_of_many(tmp_path: Path, how: str, mapper: Any) -> None:
    outcome = map_items(tmp_path, mapper, 2000, mapper_args={"flag": str(tmp_path / "flag"), "how": how})
    assert outcome.ids == list(range(2000))
    assert outcome.attempts == {1000: 2}
    (failure,) = outcome.failures
    assert (failure.start, failure.end) == (1000, 1003)
    raised = how in ("exit", "interrupt")  # an exception like others: the worker lives on
    assert failure.kind == ("mapper" if raised else "lost")
    told = {
        "segfault": "SIGSEGV",
        "SIGKILL": "SIGKILL",
        "_exit": "exit code 0",
        "exit": "SystemExit",
        "interrupt": "KeyboardInterrupt",
    }
    assert told[how] in failure.message


def test_item_that_always_kills_its_worker_is_set_aside_alone(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, always_dies_on_one, on_error="skip", workers=2)
    assert outcome.ids == [index for index in range(40) if index != 17]
    assert outcome.job.progress().items_dead == 1
    assert {(failure.start <= 17 <= failure.end) for failure in outcome.failures} == {True}


@pytest.mark.parametrize("how", ["lock held", "lock free"])
def test_hanging_batch_ends_at_its_timeout_with_all_it_started(tmp_path: Path, how: str) -> None:
    """That no child is left is seen to by the fixture of every test."""
    arguments = {"flag": str(tmp_path / "flag"), "how": how}
    outcome = map_items(tmp_path, hangs_once, batch_timeout_s=1.0, mapper_args=arguments)
    assert outcome.ids == list(range(40))
    assert outcome.attempts == {8: 2}
    assert [(f.start, f.end, f.kind) for f in outcome.failures] == [(8, 11, "timeout")]


@pytest.mark.parametrize("whom", ["worker", "worker and parent"])
def test_stopped_worker_is_replaced_and_comes_too_late(
    tmp_path: Path, whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck, "GRACE_S", 0.5)
    note = tmp_path / "pids"

    def stop() -> None:
        wait_until(note.exists, 30.0, "the mapper says who it is")
        worker, parent = map(int, note.read_text().split())
        stopped = [worker] if whom == "worker" else [parent, worker]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), 30.0, "the stopped worker is ended")
        for pid in stopped:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    stopper = threading.Thread(target=stop)
    stopper.start()
    outcome = map_items(tmp_path, is_stopped_once, batch_timeout_s=1.0, mapper_args={"note": str(note)})
    stopper.join()
    assert outcome.ids == list(range(40))
    if whom == "worker":
        assert outcome.attempts == {8: 2}
        assert [(f.start, f.kind) for f in outcome.failures] == [(8, "timeout")]
