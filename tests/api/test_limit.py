"""`limit`: the first items of a dataset, and what a preview shows of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JsonReader, JsonWriter
from skybatch.engine.spec import JobSpec
from skybatch.errors import UnfinishedJob, UsageError
from tests.api import mappers
from tests.tools.mapping import write_items


@pytest.fixture
def numbers(tmp_path: Path) -> JsonReader:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(30)))
    return JsonReader(str(path))


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (7, 7), (30, 30), (100, 30), (None, 30)])
def test_a_job_maps_the_first_items_only(limit: int | None, count: int, numbers: JsonReader, tmp_path: Path) -> None:
    dataset = Dataset(numbers, limit=limit)
    assert (len(dataset), dataset.limit) == (count, limit)
    output = JsonWriter(str(tmp_path / "out.jsonl"))
    job = dataset.map(mappers.double, batch_size=4, output=output, executor="local" if limit == 7 else "inline")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["i"] for row in rows] == list(range(count))
    assert (job.progress().items, job.spec.limit) == (count, limit)


@pytest.mark.parametrize("limit", [0, -1, True, 2.0, "3"])
def test_a_limit_is_a_whole_number(limit: Any, numbers: JsonReader) -> None:
    with pytest.raises(UsageError, match="limit must be a whole number, at least 1"):
        Dataset(numbers, limit=limit)


@pytest.mark.full
def test_another_limit_is_another_job_and_a_resumed_one_keeps_its_own(numbers: JsonReader, tmp_path: Path) -> None:
    def fails_once(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if batch[0]["i"] == 2 and not (tmp_path / "mended").exists():
            raise ValueError("not yet")
        return batch

    output = JsonWriter(str(tmp_path / "out.jsonl"))
    options: dict[str, Any] = {"batch_size": 1, "output": output, "executor": "inline", "max_retries": 0}
    with pytest.raises(skybatch.JobFailed) as caught:
        Dataset(numbers, limit=4).map(fails_once, **options)
    with pytest.raises(UnfinishedJob):
        Dataset(numbers, limit=4).map(fails_once, **options)
    with pytest.raises(skybatch.JobFailed):
        Dataset(numbers, limit=5).map(fails_once, **options)
    (tmp_path / "mended").touch()
    skybatch.resume(caught.value.job_id)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4


def test_a_spec_kept_before_there_were_limits_has_none(numbers: JsonReader, tmp_path: Path) -> None:
    job = Dataset(numbers).map(mappers.double, output=JsonWriter(str(tmp_path / "out.jsonl")), executor="inline")
    values = json.loads(job.folder.spec.read_text())
    del values["limit"]
    job.folder.spec.write_text(json.dumps(values))
    assert JobSpec.load(job.folder.spec).limit is None
    assert JobSpec.load(job.folder.spec).identity() == job.spec.identity()


# Previews


@pytest.mark.parametrize(
    ("mapper", "options"),
    [
        (mappers.double, {}),
        (mappers.scale, {"mapper_args": {"factor": 2}}),
        (mappers.loading, {}),
        (mappers.Scale(2), {}),
        (mappers.double_async, {"concurrency": 3}),
    ],
)
def test_a_preview_maps_a_batch_or_the_limit_without_a_job(
    mapper: Any, options: dict[str, Any], numbers: JsonReader, tmp_path: Path
) -> None:
    writer = JsonWriter(str(tmp_path / "out.jsonl"))
    (batch,) = Dataset(numbers).preview(mapper, batch_size=4, output=writer, **options)
    assert (batch.start, batch.end, batch.error) == (0, 3, None)
    assert batch.results == [{"i": i, "twice": 2 * i} for i in range(4)]
    some = Dataset(numbers, limit=10).preview(mapper, limit=10, batch_size=4, **options)
    assert [(batch.start, batch.end) for batch in some] == [(0, 3), (4, 7), (8, 9)]
    assert len(Dataset(numbers, limit=2).preview(mapper, **options)[0].items or []) == 2
    assert skybatch.jobs() == []
    assert not (tmp_path / "out.jsonl").exists()


def test_a_preview_tells_what_failed_and_goes_on(tmp_path: Path) -> None:
    path = write_items(tmp_path / "in.jsonl", 8)
    path.write_text(path.read_text().replace('{"id": 3}', '{"id": 3'))

    def fails(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if batch[0]["id"] == 4:
            raise ZeroDivisionError("four")
        return [{"id": object() if item["id"] == 1 else item["id"]} for item in batch]

    output = JsonWriter(str(tmp_path / "out.jsonl"))
    told = Dataset(JsonReader(str(path))).preview(fails, limit=8, batch_size=2, output=output)
    assert [(batch.start, batch.stage, batch.item) for batch in told] == [
        (0, "write", 1),
        (2, "read", 3),
        (4, "mapper", None),
        (6, None, None),
    ]
    assert told[2].error == "ZeroDivisionError: four"
    assert "line" in (told[2].traceback or "") and "fails" in (told[2].traceback or "")


def test_a_preview_tries_built_in_writers_somewhere_else(numbers: JsonReader, tmp_path: Path) -> None:
    output = skybatch.ImageWriter(str(tmp_path / "images"))
    (batch,) = Dataset(numbers).preview(mappers.double, limit=2, output=output)
    assert batch.stage == "write"
    assert "no image" in (batch.error or "")
    assert not (tmp_path / "images").exists()


def test_the_items_of_a_preview_are_those_before_the_mapper_changed_them(numbers: JsonReader) -> None:
    def changes(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"i": item.pop("i")} for item in batch]

    (batch,) = Dataset(numbers).preview(changes, limit=2)
    assert (batch.items, batch.results) == ([{"i": 0}, {"i": 1}], [{"i": 0}, {"i": 1}])


def test_the_context_of_a_preview_is_that_of_the_first_attempt(numbers: JsonReader) -> None:
    (first, second) = Dataset(numbers).preview(mappers.seeded, limit=4, batch_size=2)
    for batch in (first, second):
        assert batch.results is not None
        assert (batch.results[0]["start"], batch.results[0]["attempt"]) == (batch.start, 1)


def test_a_preview_raises_what_a_job_would_refuse(numbers: JsonReader, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing a required argument"):
        Dataset(numbers).preview(mappers.scale)
    with pytest.raises(UsageError, match="does not exist"):
        Dataset(JsonReader(str(tmp_path / "none.jsonl"))).preview(mappers.double)
