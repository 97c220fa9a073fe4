"""Every form a mapper may have gives the same output."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JsonReader, JsonWriter
from skybatch.errors import MapperError, UsageError
from tests.api import mappers

pytestmark = pytest.mark.full  # a job for every form and executor

ITEMS = 23


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(ITEMS)))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


DOUBLED = [{"i": i, "twice": 2 * i} for i in range(ITEMS)]


@pytest.mark.parametrize(
    ("mapper", "options"),
    [
        (mappers.double, {}),
        (mappers.scale, {"mapper_args": {"factor": 2}}),
        (mappers.loading, {}),
        (mappers.loading_with_arguments, {"mapper_args": {"factor": 2}}),
        (mappers.loading_async, {}),
        (mappers.Scale, {}),
        (mappers.Scale, {"mapper_args": {"factor": 2}}),
        (mappers.Scale(2), {}),
        (mappers.double_async, {}),
        (mappers.double_async, {"concurrency": 3}),
        (functools.partial(mappers.scale, factor=2), {}),
        (lambda batch: mappers.double(batch), {}),
    ],
)
@pytest.mark.parametrize("executor", ["local", "inline"])
def test_the_form_of_the_mapper_does_not_change_the_output(
    mapper: Any, options: dict[str, Any], executor: str, numbers: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    job = Dataset(JsonReader(str(numbers))).map(
        mapper, batch_size=4, output=JsonWriter(str(output)), executor=executor, **options
    )
    assert job.state == "cleaned"
    assert rows(output) == DOUBLED


def test_a_closure_travels_too(numbers: Path, tmp_path: Path) -> None:
    factor = 2

    def closed(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return mappers.scale(batch, factor)

    output = tmp_path / "out.jsonl"
    Dataset(JsonReader(str(numbers))).map(closed, batch_size=4, output=JsonWriter(str(output)), workers=1)
    assert rows(output) == DOUBLED


def test_concurrency_is_how_many_batches_an_async_mapper_has_in_flight(numbers: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    Dataset(JsonReader(str(numbers))).map(
        mappers.Together, batch_size=4, output=JsonWriter(str(output)), workers=1, concurrency=4, batch_timeout_s=30
    )
    assert rows(output) == DOUBLED


def test_the_context_tells_range_and_seed(numbers: Path, tmp_path: Path) -> None:
    seeds = []
    for name in ("a", "b"):
        output = tmp_path / f"{name}.jsonl"
        Dataset(JsonReader(str(numbers))).map(mappers.seeded, batch_size=10, output=JsonWriter(str(output)), workers=1)
        told = rows(output)
        assert [(row["start"], row["end"]) for row in told[::10]] == [(0, 9), (10, 19), (20, 22)]
        assert {row["attempt"] for row in told} == {1}
        seeds.append([row["seed"] for row in told[::10]])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3
    with pytest.raises(RuntimeError, match="inside a mapper"):
        skybatch.context()


def test_any_number_of_results_when_asked_for(numbers: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    Dataset(JsonReader(str(numbers))).map(
        mappers.twice_or_not_at_all, batch_size=4, output=JsonWriter(str(output)), workers=1, one_to_one=False
    )
    assert [row["i"] for row in rows(output)] == [i for i in range(ITEMS) for _ in range(i % 3)]
    with pytest.raises(UsageError, match="one result per item"):
        Dataset(JsonReader(str(numbers))).map(
            mappers.double, output=skybatch.ImageWriter(str(tmp_path / "images")), one_to_one=False
        )


def test_the_inline_executor_maps_in_the_main_thread_of_this_process(numbers: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    Dataset(JsonReader(str(numbers))).map(mappers.where, output=JsonWriter(str(output)), executor="inline")
    assert {(row["pid"], row["main"]) for row in rows(output)} == {(os.getpid(), True)}


@pytest.mark.parametrize(
    ("mapper", "options", "message"),
    [
        (3, {}, "a mapper is a function"),
        (len, {"mapper_args": {"x": 1}}, "cannot be called"),
        (mappers.loading.function, {}, "did you forget @skybatch.remote_function"),
        (mappers.scale, {}, "missing a required argument: 'factor'"),
        (mappers.Scale(2), {"mapper_args": {"factor": 2}}, "an instance has its state"),
        (mappers.Together, {"mapper_args": {"factor": 2}}, "cannot be called"),
    ],
)
def test_a_mapper_that_cannot_be_called_is_refused_before_there_is_a_job(
    mapper: Any, options: dict[str, Any], message: str, numbers: Path, tmp_path: Path
) -> None:
    with pytest.raises(MapperError, match=message):
        Dataset(JsonReader(str(numbers))).map(mapper, output=JsonWriter(str(tmp_path / "out.jsonl")), **options)
    assert skybatch.jobs() == []


def test_a_mapper_typed_at_the_prompt_is_mapped(numbers: Path, tmp_path: Path) -> None:
    session = f"""\
import skybatch
def double(batch):
    return [{{"i": item["i"], "twice": item["i"] * 2}} for item in batch]

skybatch.Dataset(skybatch.JsonReader({str(numbers)!r})).map(double, workers=1, output=skybatch.JsonWriter("out.jsonl"))
"""
    ended = subprocess.run(
        [sys.executable, "-i", "-q"], input=session, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert rows(tmp_path / "out.jsonl") == DOUBLED, ended.stderr
    assert "same Python" in ended.stderr or "3." in ended.stderr  # that it travels by value is said
