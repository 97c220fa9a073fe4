"""`Dataset.from_items`: items from memory, kept for workers and for resuming."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JsonWriter
from skybatch.errors import UsageError
from tests.api import mappers
from tests.api.scripts import command, run_well, write

ITEMS = [{"i": i, "nested": {"pair": (1, 2.5), "text": "é\n\u2028"}} for i in range(9)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_items_from_a_list_or_a_generator_are_mapped(tmp_path: Path, skybatch_home: Path) -> None:
    for executor, items in (("local", ITEMS), ("inline", (dict(item) for item in ITEMS))):
        output = tmp_path / f"{executor}.jsonl"
        Dataset.from_items(items).map(mappers.double, batch_size=2, output=JsonWriter(str(output)), executor=executor)
        assert rows(output) == [{"i": i, "twice": 2 * i} for i in range(9)]
    (kept,) = (skybatch_home / "items").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_what_was_put_in_comes_out_and_tuples_as_lists() -> None:
    dataset = Dataset.from_items(ITEMS)
    read = dataset.reader.download_batch(0, 8, "")
    assert read == json.loads(json.dumps(ITEMS))
    assert len(Dataset.from_items(ITEMS, limit=4)) == 4
    assert len(Dataset.from_items([])) == 0


@pytest.mark.parametrize("items", [5, None, {"n": 1}, "text"])
def test_what_has_no_items_is_refused(items: Any) -> None:
    with pytest.raises(UsageError, match=f"a list or a generator of dicts, not {type(items).__name__}"):
        Dataset.from_items(items)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("text", "item 1 must be a dict, not str"),
        ({"n": {1}}, "item 1, key 'n': set"),
        ({"n": float("nan")}, "item 1, key 'n': float nan is not JSON"),
        ({"n": [{"at": datetime.date(2026, 1, 1)}]}, "item 1, key 'n'"),
        ({"n": b"bytes"}, "item 1, key 'n': bytes"),
        ({"n": 1 << 70}, "item 1, key 'n': int"),
        ({3: 4}, "item 1: key 3 is not a string"),
    ],
)
def test_an_item_that_is_not_json_is_named_and_nothing_is_kept(bad: Any, told: str, skybatch_home: Path) -> None:
    with pytest.raises(UsageError, match=told):
        Dataset.from_items([{"n": 1}, bad, {"n": 3}])
    assert list((skybatch_home / "items").iterdir()) == []


def test_a_job_over_items_is_resumed_without_them(tmp_path: Path) -> None:
    def fails_once(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if batch[0]["i"] == 2 and not (tmp_path / "mended").exists():
            raise ValueError("not yet")
        return batch

    output = JsonWriter(str(tmp_path / "out.jsonl"))
    with pytest.raises(skybatch.JobFailed) as caught:
        Dataset.from_items({"i": i} for i in range(4)).map(
            fails_once, batch_size=1, output=output, executor="inline", max_retries=0
        )
    (tmp_path / "mended").touch()
    skybatch.resume(caught.value.job_id)
    assert rows(tmp_path / "out.jsonl") == [{"i": i} for i in range(4)]


@pytest.mark.full
def test_the_same_items_are_the_same_job(tmp_path: Path) -> None:
    script = """
        from skybatch import Dataset, JsonWriter

        def work(batch):
            return batch

        job = Dataset.from_items({"i": i} for i in range(4)).map(work, output=JsonWriter("out.jsonl"), overwrite=True)
        print(job.spec.identity())
    """
    path = write(tmp_path, "script.py", script)
    assert run_well(path).stdout == run_well(path).stdout


def test_clean_removes_items_with_the_last_job_that_reads_them(tmp_path: Path, skybatch_home: Path) -> None:
    jobs = [
        Dataset.from_items(ITEMS).map(mappers.double, output=JsonWriter(str(tmp_path / name)), executor="inline")
        for name in ("a.jsonl", "b.jsonl")
    ]
    kept = skybatch_home / "items"
    for job, left in zip(jobs, (1, 0), strict=True):
        cleaned = command("clean", job.id, cwd=tmp_path)
        assert cleaned.returncode == 0, cleaned.stderr
        assert len(list(kept.iterdir())) == left
