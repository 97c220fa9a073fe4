"""Workers that are stuck tell where, before they are killed: in the failure and in the log."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine import run
from tests.tools.mapping import map_and_fail, map_items

Batch = list[dict[str, Any]]
BATCH_TIMEOUT_S = 1.0


def first_time(flag: str) -> bool:
    """Whether this is called for the first time, in whatever process."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def sleeps_in_python() -> None:
    time.sleep(1000)


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def holds_the_interpreters_lock() -> None:
    ctypes.PyDLL(None).sleep(1000)


def spins() -> None:
    while True:
        pass


def waits_deaf_to_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(1000)


HANGS = (sleeps_in_python, waits_for_a_lock, holds_the_interpreters_lock, spins, waits_deaf_to_signals)


def hangs_once(batch: Batch, flag: str, how: str) -> Batch:
    if batch[0]["id"] == 8 and first_time(flag):
        for hang in (sleeps_in_python, waits_for_a_lock, holds_the_interpreters_lock, spins, waits_deaf_to_signals):
            if hang.__name__ == how:
                hang()
    return batch


def hangs_on_one(batch: Batch) -> Batch:
    if any(item["id"] == 17 for item in batch):
        time.sleep(1000)
    return batch


@pytest.mark.parametrize("hang", HANGS, ids=lambda hang: hang.__name__)
def test_stacks_of_a_stuck_worker_name_the_line_in_failure_and_log(tmp_path: Path, hang: Any) -> None:
    arguments = {"flag": str(tmp_path / "flag"), "how": hang.__name__}
    outcome = map_items(tmp_path, hangs_once, batch_timeout_s=BATCH_TIMEOUT_S, mapper_args=arguments)
    assert outcome.ids == list(range(40))
    (failure,) = outcome.failures
    assert (failure.start, failure.end, failure.kind) == (8, 11, "timeout")
    assert failure.traceback is not None
    here, last = hang.__code__.co_filename, hang.__code__.co_firstlineno
    first_frame = next(line for line in failure.traceback.splitlines() if line.startswith("  File"))
    assert here in first_frame and first_frame.endswith(f" in {hang.__name__}")
    assert last < int(first_frame.split("line ")[1].split()[0]) <= last + 4
    assert f" in {hangs_once.__name__}" in failure.traceback
    assert "skybatch/worker/" not in failure.traceback  # our own frames tell nobody anything
    assert b"[the worker was stuck with items 8-11 and was killed" in outcome.log
    assert f" in {hang.__name__}".encode() in outcome.log


def test_job_that_fails_for_hanging_items_shows_where_they_hang(tmp_path: Path) -> None:
    outcome = map_and_fail(tmp_path, hangs_on_one, batch_timeout_s=0.3, max_retries=0)
    assert outcome.error is not None
    assert " in hangs_on_one" in str(outcome.error) and "item 17: the batch timeout passed" in str(outcome.error)


def has_handlers_of_its_own(batch: Batch, flag: str) -> Batch:
    """Takes all signal handlers away, and has faulthandler do other things."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    if batch[0]["id"] == 8 and first_time(flag):
        time.sleep(1000)
    return batch


def is_stopped_once(batch: Batch, flag: str) -> Batch:
    if batch[0]["id"] == 8 and first_time(flag):
        os.kill(os.getpid(), signal.SIGSTOP)
    return batch


@pytest.mark.parametrize("mapper", [has_handlers_of_its_own, is_stopped_once])
def test_worker_that_cannot_tell_its_stacks_is_killed_all_the_same(tmp_path: Path, mapper: Any) -> None:
    flag = {"flag": str(tmp_path / "flag")}
    outcome = map_items(tmp_path, mapper, batch_timeout_s=BATCH_TIMEOUT_S, mapper_args=flag)
    assert outcome.ids == list(range(40))
    assert [(f.start, f.kind, f.traceback) for f in outcome.failures] == [(8, "timeout", None)]
    assert b"(it did not tell)" in outcome.log


class HangsWhenMade:
    """Made once, but in its first life."""

    def __init__(self, flag: str) -> None:
        if first_time(flag):
            time.sleep(1000)

    def __call__(self, batch: Batch) -> Batch:
        return batch


@skybatch.remote_function
def hangs_before_its_first_batch() -> None:
    time.sleep(1000)
    for batch in skybatch.load():
        skybatch.save_results(batch)


def test_mapper_that_hangs_while_it_is_made_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "START_TIMEOUT_S", 2.0)
    flag = {"flag": str(tmp_path / "flag")}
    outcome = map_items(tmp_path, HangsWhenMade, batch_timeout_s=60.0, mapper_args=flag)
    assert outcome.ids == list(range(40)) and outcome.failures == []
    assert b"[the worker was stuck before its first batch" in outcome.log and b" in __init__" in outcome.log


def test_mapper_that_never_takes_a_batch_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "START_TIMEOUT_S", 0.5)
    outcome = map_and_fail(tmp_path, hangs_before_its_first_batch, batch_timeout_s=60.0)
    assert "the mapper took too long to ask for its first batch" in str(outcome.error)
    assert " in hangs_before_its_first_batch" in str(outcome.error)
