"""Mappers that raise, crash, exit and hang: each death costs its own range a try, and leaves nothing behind."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine.job import Job, find_job
from skybatch.errors import JobFailed
from skybatch.io_formats import JsonReader, JsonWriter
from skybatch.journal.journal import Journal
from skybatch.journal.reading import Reader
from skybatch.journal.rows import Changes, FailureRow, GrantRow
from tests.tools.processes import wait_for_none

ITEMS, BATCH = 400, 4
BAD = 200  # the first item of a range in the middle of the job
TIMEOUT_S = 1.0
SOON_S = 15.0
GONE_S = 5.0

PREAMBLE = """
import ctypes, os, signal, sys, time
import skybatch

FLAG = {flag!r}
ENGINE = {engine!r}

def note(word):
    fd = os.open(FLAG + "." + word, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, b"x")
    os.close(fd)

def first_time():
    try:
        os.close(os.open(FLAG, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True

def answer(batch):
    return [{{"id": item["id"], "square": item["id"] ** 2}} for item in batch]

def is_bad(batch):
    return batch[0]["id"] <= {bad} <= batch[-1]["id"]
"""

ONCE = """
def mapper(batch):
    if is_bad(batch) and first_time():
        time.sleep(0.1)  # nothing else is in hand by then: earlier results are stored
        {deed}
    return answer(batch)
"""

FORKS = "\n        ".join(
    (
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0: note('grandchild')",
        "    time.sleep(1000)",
        "while not os.path.exists(FLAG + '.grandchild'): time.sleep(0.01)",
    )
)


class Place:
    """One test's input, output and mapper; `run` is a whole job in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.flag = folder, folder / "flag"
        self.input, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self.input.write_text("".join(f'{{"id": {index}}}\n' for index in range(ITEMS)))
        self.name = f"mapper_{os.getpid()}_{time.monotonic_ns()}"
        self.took_s = 0.0
        self.grants: list[GrantRow] = []  # all that were ever given

    def mapper(self, source: str) -> Any:
        """What `source` calls `mapper`, in a module of its own."""
        preamble = PREAMBLE.format(flag=str(self.flag), engine=os.getpid(), bad=BAD)
        (self.folder / f"{self.name}.py").write_text(preamble + source)
        importlib.invalidate_caches()
        return importlib.import_module(self.name).mapper

    def run(self, source: str, **options: Any) -> Job:
        """Run the job, and see that no process is left when it has ended."""
        mapper, began = self.mapper(source), time.monotonic()
        settings = {"batch_size": BATCH, "workers": 2, **options}
        try:
            return skybatch.Dataset(JsonReader(str(self.input))).map(
                mapper, output=JsonWriter(str(self.output)), **settings
            )
        finally:
            self.took_s = time.monotonic() - began
            wait_for_none(self.folder, GONE_S)

    def fail(self, source: str, **options: Any) -> JobFailed:
        """Run the job, which must fail, soon."""
        with pytest.raises(JobFailed) as caught:
            self.run(source, **options)
        assert self.took_s < SOON_S
        assert not self.output.exists()
        return caught.value

    def noted(self, word: str) -> int:
        """How often the mapper noted this."""
        path = self.folder / f"flag.{word}"
        return len(path.read_text()) if path.exists() else 0

    def check_output(self) -> None:
        """The output has every item once, in order."""
        rows = [json.loads(line) for line in self.output.read_text().splitlines()]
        assert rows == [{"id": index, "square": index**2} for index in range(ITEMS)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Place(tmp_path)
    commit = Journal.commit

    def committing(journal: Journal, changes: Changes) -> None:
        made.grants += changes.grants
        commit(journal, changes)

    monkeypatch.setattr(Journal, "commit", committing)
    yield made
    sys.modules.pop(made.name, None)


def attempts(job: Job) -> dict[int, int]:
    """First item of each range -> tries at it."""
    with Reader(job.folder.journal) as journal:
        runs = list(journal.runs())
    assert {run.state for run in runs} == {"won"}
    return {start: run.attempt for run in runs for start in range(run.start, run.end + 1, run.size)}


def failures(job: Job) -> list[FailureRow]:
    with Reader(job.folder.journal) as journal:
        return journal.failures()


def check_only_bad_is_charged(job: Job, place: Place, kind: str) -> FailureRow:
    """One failure, of the range with the bad item; all others came through at the first try."""
    place.check_output()
    assert attempts(job) == {start: 2 if start == BAD else 1 for start in range(0, ITEMS, BATCH)}
    first = next(grant for grant in place.grants if grant.start <= BAD <= grant.end)
    assert first.end - first.start + 1 > 2 * BATCH  # others were in hand with it
    told = failures(job)
    assert [(row.start, row.end, row.kind, row.attempt) for row in told] == [(BAD, BAD + BATCH - 1, kind, 1)]
    return told[0]


# Mappers that do not work at all

ON_IMPORT = """
if os.getpid() != ENGINE:
    note("tries")
    raise RuntimeError("the weights are not there")

def mapper(batch):
    return answer(batch)
"""
IN_CONSTRUCTOR = """
class mapper:
    def __init__(self):
        note("tries")
        raise RuntimeError("the weights are not there")

    def __call__(self, batch):
        return answer(batch)
"""
BEFORE_LOAD = """
@skybatch.remote_function
def mapper():
    note("tries")
    raise RuntimeError("the weights are not there")
"""


@pytest.mark.parametrize("source", [ON_IMPORT, IN_CONSTRUCTOR, BEFORE_LOAD], ids=["import", "constructor", "load"])
def test_a_mapper_that_cannot_begin_ends_the_job_at_once(source: str, place: Place) -> None:
    error = place.fail(source)
    job = find_job(error.job_id)
    assert job.state == "failed"
    told = str(error)
    assert "Traceback (most recent call last)" in told
    assert f'{place.name}.py", line' in told  # its own line
    assert "RuntimeError: the weights are not there" in told
    assert str(job.folder.logs) in told
    assert f"skybatch resume {job.id}" in told
    assert 1 <= place.noted("tries") <= 2  # once in each worker
    assert failures(job) == []


def test_a_mapper_that_raises_on_every_batch_is_stopped_early(place: Place) -> None:
    error = place.fail("def mapper(batch):\n    note('calls')\n    raise ValueError('nothing suits me')\n")
    job = find_job(error.job_id)
    told = str(error)
    assert "the mapper fails on whatever it is given" in told
    assert "ValueError: nothing suits me" in told
    assert f'{place.name}.py", line' in told
    assert str(job.folder.logs) in told and f"skybatch resume {job.id}" in told
    assert place.noted("calls") < ITEMS // BATCH
    assert job.progress().items_dead == 0


# One death

DEATHS: dict[str, tuple[str, str, str]] = {  # name -> what the mapper does, kind, what is told
    "raises": ("raise RuntimeError('a passing weakness')", "mapper", "RuntimeError: a passing weakness"),
    "sys.exit": ("sys.exit(0)", "mapper", "SystemExit"),
    "segfault": ("ctypes.string_at(0)", "lost", "SIGSEGV"),
    "os._exit": ("os._exit(0)", "lost", "exit code 0"),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", "lost", "SIGKILL"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_death_is_charged_to_its_range_alone(name: str, place: Place) -> None:
    deed, kind, words = DEATHS[name]
    job = place.run(ONCE.format(deed=deed))
    assert words in check_only_bad_is_charged(job, place, kind).message


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in DEATHS.items() if kind == "lost"])
def test_an_item_that_always_kills_is_given_up_alone(name: str, place: Place) -> None:
    source = f"def mapper(batch):\n    if is_bad(batch):\n        {DEATHS[name][0]}\n    return answer(batch)\n"
    error = place.fail(source, max_retries=1)
    job = find_job(error.job_id)
    with Reader(job.folder.journal) as journal:
        dead = [(run.start, run.end) for run in journal.runs() if run.state == "dead"]
    assert dead == [(BAD, BAD)]
    assert job.progress().items_done == ITEMS - 1
    assert f"item {BAD}" in str(error)


# Hanging

HANGS = {
    "in Python": "while True: time.sleep(0.01)",
    "busy": "while True: pass",
    "in C with the interpreter's lock": "ctypes.PyDLL(None).sleep(1000)",
}


@pytest.mark.parametrize("name", HANGS)
def test_a_mapper_that_hangs_once_is_killed_with_its_offspring(name: str, place: Place) -> None:
    job = place.run(ONCE.format(deed=f"{FORKS}\n        {HANGS[name]}"), batch_timeout_s=TIMEOUT_S)
    assert place.noted("grandchild") == 1
    assert TIMEOUT_S <= place.took_s < TIMEOUT_S + SOON_S
    check_only_bad_is_charged(job, place, "timeout")


def test_a_stopped_worker_is_replaced(place: Place) -> None:
    job = place.run(ONCE.format(deed="os.kill(os.getpid(), signal.SIGSTOP)"), batch_timeout_s=TIMEOUT_S)
    assert place.took_s < TIMEOUT_S + SOON_S
    check_only_bad_is_charged(job, place, "timeout")


@pytest.mark.full
def test_a_worker_stopped_with_its_parent_is_replaced(place: Place) -> None:
    """Nobody in the worker's slot can tell; the engine waits for the whole grant and a grace on top."""
    both = "os.kill(os.getppid(), signal.SIGSTOP); os.kill(os.getpid(), signal.SIGSTOP)"
    job = place.run(ONCE.format(deed=both), batch_timeout_s=0.1)
    place.check_output()
    assert Counter(attempts(job).values())[1] >= ITEMS // BATCH - 2


def test_a_mapper_that_always_hangs_fails_within_its_tries(place: Place) -> None:
    source = "def mapper(batch):\n    if is_bad(batch):\n        time.sleep(1000)\n    return answer(batch)\n"
    error = place.fail(source, batch_timeout_s=0.3, max_retries=1)
    job = find_job(error.job_id)
    assert {row.kind for row in failures(job)} == {"timeout"}
    assert job.progress().items_done == ITEMS - 1
    assert f"item {BAD}" in str(error)
