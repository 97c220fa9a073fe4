"""Readers of users that go wrong outside of workers: before there is a job, or as its failure, with their traceback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import CounterReader, Dataset, InputReader, JsonWriter
from skybatch.errors import UsageError
from skybatch.testing.readers import made_again
from tests.api import mappers


@dataclass
class Failing(InputReader):
    at: str = ""

    def __len__(self) -> int:
        if self.at == "len":
            raise OSError(5, "the length is not known")
        return 3

    def fingerprint(self) -> dict[str, Any]:
        if self.at == "fingerprint":
            raise ZeroDivisionError("no print")
        return {}

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        return [{"i": index} for index in range(start_idx, end_idx)]


@pytest.mark.parametrize("executor", ["local", "inline"])
@pytest.mark.parametrize(("at", "told"), [("len", "the length is not known"), ("fingerprint", "no print")])
def test_the_job_fails_with_the_readers_traceback(at: str, told: str, executor: str, tmp_path: Path) -> None:
    dataset = Dataset(Failing("", at=at))
    with pytest.raises(skybatch.JobFailed) as caught:
        dataset.map(mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl")), executor=executor)
    message = str(caught.value)
    assert "the input cannot be read: " in message and told in message
    assert "test_readers_that_fail.py" in message and "engine/run.py" not in message
    assert f"skybatch resume {caught.value.job_id} --code current" in message


def test_too_few_items_are_told_with_the_likely_cause(tmp_path: Path) -> None:
    with pytest.raises(skybatch.JobFailed, match=r"gave 0 items for .*; 1 were asked for, both ends included"):
        Dataset(Failing("")).map(mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl")), max_retries=0)


class Undecorated(InputReader):
    def __init__(self, path: str, step: int) -> None:
        self.path, self.step = path, step

    def __len__(self) -> int:
        return 3

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        return [{"i": self.step * index} for index in range(start_idx, end_idx + 1)]


def test_a_class_that_cannot_be_made_from_its_fields_is_refused_before_there_is_a_job(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be made anew from its fields \(path\): missing .* 'step'"):
        Dataset(Undecorated("", 2)).map(mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl")))
    assert skybatch.jobs() == []


class Forgotten(CounterReader):
    suffix: str = ".txt"


@pytest.mark.parametrize("role", ["job", "suite"])
def test_fields_without_a_dataclass_of_their_own_are_named(role: str, tmp_path: Path) -> None:
    """Nothing else would be: the class takes its parent's arguments, and its own fields stay at their defaults."""
    with pytest.raises(UsageError, match=r"reader Forgotten: Forgotten has fields \(suffix\) but no @dataclass"):
        if role == "suite":
            made_again(Forgotten(3))
        else:
            Dataset(Forgotten(3)).map(mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl")))
