"""Results that are lost, doubled or malformed; mappers with bad manners; sizes and inputs at the edge."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, InputReader, JsonReader, JsonWriter
from skybatch.engine.run import LOG_CAP
from skybatch.errors import JobFailed, UsageError
from tests.faults import manners

ITEMS = 16
ROWS = [{"i": i, "twice": 2 * i} for i in range(ITEMS)]


def numbers(folder: Path, count: int = ITEMS) -> JsonReader:
    path = folder / "numbers.jsonl"
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(count)))
    return JsonReader(str(path))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder: Path, mapper: Any, **options: Any) -> skybatch.Job:
    options = {"batch_size": 4, "output": JsonWriter(str(folder / "out.jsonl")), **options}
    return Dataset(numbers(folder)).map(mapper, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_break_after_saving_loses_nothing(workers: int, tmp_path: Path) -> None:
    assert run(tmp_path, manners.breaking_off, workers=workers).state == "cleaned"
    assert rows(tmp_path / "out.jsonl") == ROWS


def test_a_refused_save_can_be_made_good(tmp_path: Path) -> None:
    run(tmp_path, manners.saving_after_a_refusal)
    assert rows(tmp_path / "out.jsonl") == ROWS


@pytest.mark.parametrize(
    ("mapper", "said"),
    [
        (manners.saving_never, "RuntimeError: save_results() was never called for items"),
        (manners.breaking_off_unsaved, "RuntimeError: save_results() was never called for items"),
        (manners.saving_too_few, "3 results for 4 items"),
        (manners.saving_a_tuple, "results must be a list of dicts, not tuple"),
        (manners.saving_numbers, "a result must be a dict, not int"),
    ],
)
def test_wrong_results_fail_the_job_with_the_cause(mapper: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(JobFailed):
        run(tmp_path, mapper, max_retries=0, workers=1)
    (job,) = skybatch.jobs()
    assert any(said in row.message for row in job.errors())
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_saved_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    job = run(tmp_path, manners.saving_twice, workers=1)
    assert rows(tmp_path / "out.jsonl") == ROWS
    assert "save_results() was called twice for items" in logs(job)


def logs(job: skybatch.Job) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(job.folder.logs.iterdir()))


@pytest.mark.parametrize(
    "mapper",
    [
        manners.closing,
        manners.forking,
        manners.forking_and_waiting,
        manners.threading_on,
        manners.moving,
        manners.changing_locale,
        manners.masking,
        manners.deaf,
    ],
)
def test_bad_manners_leave_the_results_right(mapper: Any, tmp_path: Path) -> None:
    assert run(tmp_path, mapper).state == "cleaned"
    assert rows(tmp_path / "out.jsonl") == ROWS
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) & 0o400


def test_the_log_of_a_talkative_mapper_is_capped(tmp_path: Path) -> None:
    job = run(tmp_path, manners.talking, workers=1)
    assert rows(tmp_path / "out.jsonl") == ROWS
    sizes = [path.stat().st_size for path in job.folder.logs.iterdir()]
    assert LOG_CAP <= max(sizes) < LOG_CAP + 1000


@pytest.mark.parametrize("batch_size", [1, ITEMS, ITEMS + 1, 10**12])
def test_any_batch_size_gives_the_same_output(batch_size: int, tmp_path: Path) -> None:
    run(tmp_path, manners.plain, batch_size=batch_size)
    assert rows(tmp_path / "out.jsonl") == ROWS


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None])
def test_a_batch_size_that_is_none_is_refused_before_there_is_a_job(batch_size: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size must be a whole number, at least 1"):
        run(tmp_path, manners.plain, batch_size=batch_size)
    assert skybatch.jobs() == []


@pytest.mark.parametrize("more", [-1, 1])
def test_a_reader_that_miscounts_is_told_by_its_range(more: int, tmp_path: Path) -> None:
    with pytest.raises(JobFailed):
        Dataset(manners.Miscounting("counter", more)).map(
            manners.plain, batch_size=4, max_retries=0, output=JsonWriter(str(tmp_path / "out.jsonl"))
        )
    (job,) = skybatch.jobs()
    assert any(f"the reader gave {4 + more} items for items 8-11" in row.message for row in job.errors())
    assert not (tmp_path / "out.jsonl").exists()


@dataclass
class Pairs(InputReader):
    """Its third item is no dict."""

    def __len__(self) -> int:
        return 4

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Any]:
        return [("i", index) if index == 2 else {"i": index} for index in range(start_idx, end_idx + 1)]


def test_a_reader_whose_item_is_no_dict_is_told_by_that_item(tmp_path: Path) -> None:
    output = JsonWriter(str(tmp_path / "out.jsonl"))
    Dataset(Pairs("")).map(
        manners.plain, batch_size=4, max_retries=0, output=output, executor="inline", on_error="skip"
    )
    (job,) = skybatch.jobs()
    (failed,) = {(row.item, row.message.partition(": ")[2]) for row in job.errors()}
    assert failed == (2, "the reader gave tuple as item 2; an item is a dict")


def of_a_row(row: Any) -> Any:
    return {"i": row["i"]}


def test_a_mapper_of_one_item_is_told_what_it_gets(tmp_path: Path) -> None:
    (batch,) = Dataset(Pairs("")).preview(of_a_row, limit=2)
    assert (batch.error or "").endswith("(a mapper gets a list of items)")
    with pytest.raises(JobFailed, match="a mapper gets a list of items"):
        Dataset(Pairs("")).map(of_a_row, max_retries=0, output=JsonWriter(str(tmp_path / "out")), executor="inline")


@pytest.mark.parametrize("content", [b"", b"\n\n\r\n \n", b"\xef\xbb\xbf"])
def test_an_input_without_items_gives_an_empty_output(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    outputs = [JsonWriter(str(tmp_path / "out.jsonl")), manners.MergingWriter(str(tmp_path / "merged"))]
    assert Dataset(JsonReader(str(path))).map(manners.plain, output=outputs).state == "cleaned"
    assert [(tmp_path / name).read_bytes() for name in ("out.jsonl", "merged")] == [b"", b""]


def test_two_merging_writers_and_a_thousand_batch_files_in_one_folder(tmp_path: Path) -> None:
    count = 1100
    names = ("some", "some.more")
    outputs = [
        manners.MergingWriter(str(tmp_path / name), key) for name, key in zip(names, ("i", "twice"), strict=True)
    ]
    Dataset(numbers(tmp_path, count)).map(manners.plain, batch_size=1, output=outputs)
    assert (tmp_path / "some").read_text().split() == [str(i) for i in range(count)]
    assert (tmp_path / "some.more").read_text().split() == [str(2 * i) for i in range(count)]
    assert not (tmp_path / ".sky_batch_tmp").exists()


def test_stray_files_among_the_batch_files_do_no_harm(tmp_path: Path) -> None:
    outputs = [JsonWriter(str(tmp_path / "out.jsonl")), manners.MergingWriter(str(tmp_path / "merged"))]
    run(tmp_path, manners.littering, output=outputs, mapper_args={"folder": str(tmp_path)})
    assert rows(tmp_path / "out.jsonl") == ROWS
    assert (tmp_path / "merged").read_text().split() == [str(i) for i in range(ITEMS)]
