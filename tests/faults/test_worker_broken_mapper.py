"""A mapper that can never work ends the job at once; one that fails in passing costs its range one try."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import skybatch
from tests.tools.mapping import map_and_fail, map_items

SOON_S = 20.0  # generous: a mapper tried N x 4 times with its back-off would need minutes
Batch = list[dict[str, Any]]
NEEDY = """
import os

if os.environ["TESTED_ENGINE"] != str(os.getpid()):
    raise RuntimeError("no device here")
"""


class NeedsModel:
    """A mapper whose model is not there."""

    def __init__(self) -> None:
        raise RuntimeError("no model at /models/none")

    def __call__(self, batch: Batch) -> Batch:
        return batch


class EndsInConstructor(NeedsModel):
    def __init__(self) -> None:
        os._exit(0)


class SegfaultsInConstructor(NeedsModel):
    def __init__(self) -> None:
        import ctypes

        ctypes.string_at(0)


@skybatch.remote_function
def raises_before_load() -> None:
    raise LookupError("weights are missing")


@skybatch.remote_function
def never_loads() -> None:
    pass


def always_raises(batch: Batch) -> Batch:
    raise ValueError(f"nothing works, least of all {batch[0]['id']}")


def raises_once(batch: Batch, flag: str) -> Batch:
    if batch[0]["id"] == 8 and not os.path.exists(flag):
        open(flag, "x").close()
        raise ValueError("a passing weakness")
    return batch


def unspeakable(batch: Batch, flag: str) -> Batch:
    """Raises once what cannot be shown: a message that is no text, and an error without a message."""
    if batch[0]["id"] == 8 and not os.path.exists(flag):
        open(flag, "x").close()
        raise ValueError("half a character: \ud800, and a \0")
    if batch[0]["id"] == 16 and not os.path.exists(f"{flag}2"):
        open(f"{flag}2", "x").close()

        class Speechless(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        raise Speechless
    return batch


def test_constructor_that_raises_ends_the_job_with_its_traceback(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = map_and_fail(tmp_path, NeedsModel, 4000)
    told = str(outcome.error)
    assert "no model at /models/none" in told and "in __init__" in told
    assert str(outcome.job.folder.logs) in told
    assert b"no model at /models/none" in outcome.log
    assert outcome.failures == [] and time.monotonic() - began < SOON_S


def test_import_that_fails_ends_the_job_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy.py").write_text(NEEDY)
    (tmp_path / "needy_mapper.py").write_text("import needy\n\ndef mapper(batch):\n    return needy.map(batch)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TESTED_ENGINE", str(os.getpid()))
    mapper = importlib.import_module("needy_mapper").mapper
    try:
        outcome = map_and_fail(tmp_path, mapper, 4000)
    finally:
        for name in ("needy", "needy_mapper"):
            sys.modules.pop(name)
    assert "RuntimeError: no device here" in str(outcome.error)
    assert "needy.py" in str(outcome.error)
    assert outcome.failures == []


def test_remote_function_that_raises_before_it_loads_ends_the_job(tmp_path: Path) -> None:
    outcome = map_and_fail(tmp_path, raises_before_load, 4000)
    assert "LookupError: weights are missing" in str(outcome.error)
    assert "raises_before_load" in str(outcome.error)
    assert outcome.failures == []


def test_remote_function_that_never_loads_ends_the_job(tmp_path: Path) -> None:
    outcome = map_and_fail(tmp_path, never_loads)
    assert "never_loads returned without taking a batch from load()" in str(outcome.error)


def test_worker_that_dies_in_the_constructor_ends_the_job_and_says_how(tmp_path: Path) -> None:
    for mapper, death in ((EndsInConstructor, "exit code 0"), (SegfaultsInConstructor, "SIGSEGV")):
        folder = tmp_path / mapper.__name__
        folder.mkdir()
        outcome = map_and_fail(folder, mapper, 400)
        assert death in str(outcome.error), outcome.error
        assert outcome.job.progress().items_done == 0


def test_mapper_that_fails_on_everything_stops_early(tmp_path: Path) -> None:
    outcome = map_and_fail(tmp_path, always_raises, 4000, workers=2)
    assert "the mapper fails on whatever it is given" in str(outcome.error)
    assert "in always_raises" in str(outcome.error) and "--code current" in str(outcome.error)
    assert len(outcome.failures) < 40  # of 1000 ranges, 4 tries each
    assert outcome.job.progress().items_dead == 0


def test_range_that_fails_once_has_two_attempts_and_all_others_one(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, raises_once, 400, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(400))
    assert outcome.attempts == {8: 2}
    assert [(f.start, f.end, f.attempt, f.kind) for f in outcome.failures] == [(8, 11, 1, "mapper")]
    assert "a passing weakness" in outcome.failures[0].message
    assert "in raises_once" in (outcome.failures[0].traceback or "")


def test_errors_that_cannot_be_shown_are_errors_like_others(tmp_path: Path) -> None:
    outcome = map_items(tmp_path, unspeakable, mapper_args={"flag": str(tmp_path / "flag")})
    assert outcome.ids == list(range(40))
    assert outcome.attempts == {8: 2, 16: 2}
    assert [failure.start for failure in outcome.failures] == [8, 16]
    assert "Speechless" in outcome.failures[1].message
