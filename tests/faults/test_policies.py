"""Failure policies on real workers: limits of failed items, second copies, budgets by class."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JsonWriter
from skybatch.engine.job import find_job
from skybatch.errors import UsageError
from tests.tools.processes import wait_until


def numbers(count: int) -> Dataset:
    return Dataset.from_items({"i": i} for i in range(count))


def noted(notes: str, batch: list[dict[str, Any]]) -> int:
    """Note that the batch was taken up; how often it was before."""
    path = Path(notes, f"{batch[0]['i']}")
    with path.open("a") as file:
        file.write(f"{len(batch)}\n")
    return len(path.read_text().splitlines()) - 1


def stumble(batch: list[dict[str, Any]], notes: str, bad: int) -> list[dict[str, Any]]:
    noted(notes, batch)
    if any(item["i"] % bad == bad - 1 for item in batch):
        raise ValueError("bad")
    return batch


def linger(batch: list[dict[str, Any]], notes: str) -> list[dict[str, Any]]:
    """The first try at the second range takes for ever."""
    if not noted(notes, batch) and batch[0]["i"] == 5:
        while True:
            time.sleep(3600)
    return batch


def die_once(batch: list[dict[str, Any]], notes: str) -> list[dict[str, Any]]:
    if noted(notes, batch) < 2 and batch[0]["i"] == 10:
        os._exit(3)
    return batch


def test_too_many_failed_items_stop_a_job_at_once(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(skybatch.JobFailed, match="3 items have failed for good, and 2 may") as caught:
        numbers(2000).map(
            stumble,
            mapper_args={"notes": str(tmp_path), "bad": 10},
            batch_size=5,
            workers=1,
            output=JsonWriter(str(output)),
            max_retries=0,
            on_error="skip",
            max_failed_items=2,
        )
    job = find_job(caught.value.job_id)
    assert "--max-failed-items" in str(caught.value)
    assert job.state == "failed" and job.progress().items_dead == 3 and job.progress().items_done < 2000
    assert not output.exists()


def test_a_share_of_all_items_may_fail(tmp_path: Path) -> None:
    job = numbers(100).map(
        stumble,
        mapper_args={"notes": str(tmp_path), "bad": 10},
        batch_size=5,
        workers=1,
        output=JsonWriter(str(tmp_path / "out.jsonl")),
        max_retries=0,
        on_error="skip",
        max_failed_fraction=0.1,
    )
    assert job.state == "published" and job.progress().items_dead == 10


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_retries": {"maper": 1}}, "did you mean 'mapper'"),
        ({"max_retries": {"lost": -1}}, "max_retries: lost must be a whole number, at least 0"),
        ({"max_failed_items": 1.5}, "max_failed_items must be a whole number"),
        ({"max_failed_fraction": 2}, "max_failed_fraction must be a number from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_there_is_a_job(
    settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        numbers(3).map(linger, output=JsonWriter(str(tmp_path / "out.jsonl")), **settings)
    assert skybatch.jobs() == []


def test_an_idle_worker_takes_over_what_another_lingers_on(tmp_path: Path) -> None:
    output, notes = tmp_path / "out.jsonl", tmp_path / "notes"
    notes.mkdir()
    job = numbers(40).map(
        linger,
        mapper_args={"notes": str(notes)},
        batch_size=5,
        workers=2,
        output=JsonWriter(str(output)),
        speculate=True,
    )
    assert [json.loads(line)["i"] for line in output.read_text().splitlines()] == list(range(40))
    assert len((notes / "5").read_text().splitlines()) == 2
    assert job.errors() == [] and job.state == "cleaned"


def test_a_class_s_budget_is_its_own(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    job = numbers(20).map(
        die_once,
        mapper_args={"notes": str(notes)},
        batch_size=5,
        workers=1,
        output=JsonWriter(str(tmp_path / "out.jsonl")),
        max_retries={"mapper": 0, "lost": 2},
    )
    assert [failure.kind for failure in job.errors()] == ["lost", "lost"]
    assert (notes / "10").read_text() == "5\n5\n5\n"


def test_what_is_charged_is_known_to_the_next_engine(tmp_path: Path) -> None:
    """Two of three tries were used up before the engine was cancelled."""
    notes = tmp_path / "notes"
    notes.mkdir()
    job = numbers(20).map(
        always_dies,
        mapper_args={"notes": str(notes)},
        batch_size=5,
        workers=1,
        output=JsonWriter(str(tmp_path / "out.jsonl")),
        max_retries={"lost": 2},
        on_error="skip",
        stream=False,
    )
    wait_until(lambda: len(job.errors()) == 2, 60, "two lost workers")
    job.cancel()
    assert [failure.kind for failure in job.errors()] == ["lost"] * len(job.errors())
    skybatch.resume(job.id)
    of_whole = [failure for failure in job.errors() if failure.end - failure.start == 4]
    assert [failure.attempt for failure in of_whole] == [1, 2, 3]
    assert job.progress().items_dead == 1


def always_dies(batch: list[dict[str, Any]], notes: str) -> list[dict[str, Any]]:
    noted(notes, batch)
    if any(item["i"] == 12 for item in batch):
        os._exit(3)
    return batch
