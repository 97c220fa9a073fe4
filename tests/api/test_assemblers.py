"""Writers whose outputs are put together by an assembler, in real jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import skybatch
from skybatch import Dataset, JobFailed, JsonWriter, io_formats
from skybatch.engine import merge_behind
from skybatch.errors import ResultError
from skybatch.formats.base import Assembler, Restart, SegmentWriter

pytestmark = pytest.mark.full  # whole jobs


@dataclass
class Numbers(io_formats.InputReader):
    """Items from a counter."""

    count: int = 40

    def __len__(self) -> int:
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class Table(SegmentWriter):
    """Tab-separated rows below a line with all keys, which are known when all rows are."""

    refused: int = -1
    notes: str = ""

    def encode(self, results: list[dict[str, Any]], start_idx: int) -> bytes:
        return b"".join(json.dumps(result).encode() + b"\n" for result in results)

    def assembler(self, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler:
        return TableAssembler(self, sink, survey)


class TableAssembler(Assembler):
    """Begins with the keys of the first row, unless it is told of all."""

    def __init__(self, writer: Table, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> None:
        self._writer, self._sink, self._keys = writer, sink, dict[str, None]()
        for payload in survey() if survey else ():
            for row in map(json.loads, payload.splitlines()):
                self._keys |= dict.fromkeys(row)
        self._surveyed, self._begun = survey is not None, False
        if writer.notes:
            with open(writer.notes, "a") as notes:
                notes.write("surveyed\n" if survey else "begun\n")

    def add(self, payload: bytes) -> None:
        for row in map(json.loads, payload.splitlines()):
            if row["id"] == self._writer.refused:
                raise ResultError(f"item {row['id']}: does not fit", item=row["id"])
            if row["id"] == -2:
                raise KeyError("a fault of the assembler's own")
            if not self._begun:
                self._keys = self._keys or dict.fromkeys(row)
                self._begun = True
                self._sink.write("\t".join(self._keys).encode() + b"\n")
            if not row.keys() <= self._keys.keys():
                raise Restart
            self._sink.write("\t".join(str(row.get(key, "")) for key in self._keys).encode() + b"\n")

    def finish(self) -> None:
        self._sink.write(b"the end\n")


def plain(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return batch


def more_keys_at_30(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**item, "more": item["id"] ** 2} if item["id"] >= 30 else item for item in batch]


def unmappable(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": -2} for _ in batch]


def slow_later(batch: list[dict[str, Any]], notes: str) -> list[dict[str, Any]]:
    if batch[0]["id"] >= 40:
        time.sleep(0.01)
    with open(notes, "a") as file:
        file.write("mapped\n")
    return batch


def table(keys: list[str]) -> str:
    lines = [
        "\t".join([str(index), *([str(index**2) if index >= 30 else ""] if len(keys) > 1 else [])])
        for index in range(40)
    ]
    return "\n".join(["\t".join(keys), *lines, "the end\n"])


@pytest.mark.parametrize("executor", ["local", "inline"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_an_assembler_is_given_every_payload_in_order(executor: str, batch_size: int, tmp_path: Path) -> None:
    output = tmp_path / "out.tsv"
    Dataset(Numbers("")).map(plain, output=Table(str(output)), batch_size=batch_size, executor=executor)
    assert output.read_text() == table(["id"])
    assert list(tmp_path.glob(".sky*")) == []


def test_an_assembler_that_meets_something_new_is_made_again_and_told_of_all(tmp_path: Path) -> None:
    output, notes = tmp_path / "out.tsv", tmp_path / "notes"
    Dataset(Numbers("")).map(
        more_keys_at_30, output=Table(str(output), notes=str(notes)), batch_size=3, executor="inline"
    )
    assert output.read_text() == table(["id", "more"])
    assert notes.read_text().splitlines()[-1] == "surveyed"


def test_a_result_that_does_not_fit_fails_the_job_naming_the_output(tmp_path: Path) -> None:
    output = tmp_path / "out.tsv"
    with pytest.raises(JobFailed, match=r"out\.tsv: item 17: does not fit") as caught:
        Dataset(Numbers("")).map(plain, output=Table(str(output), refused=17), batch_size=4, executor="inline")
    assert "skybatch resume" in str(caught.value) and not output.exists()
    with pytest.raises(JobFailed, match="item 17"):
        skybatch.resume(caught.value.job_id)


def test_a_result_that_does_not_fit_is_told_before_all_is_mapped(tmp_path: Path) -> None:
    output, notes = tmp_path / "out.tsv", tmp_path / "notes"
    with pytest.raises(JobFailed, match=r"out\.tsv: item 17: does not fit"):
        Dataset(Numbers("", 2000)).map(
            slow_later,
            output=Table(str(output), refused=17),
            batch_size=1,
            workers=1,
            mapper_args={"notes": str(notes)},
        )
    assert len(notes.read_text().splitlines()) < 2000 and not output.exists()


def test_a_fault_of_an_assembler_is_told_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="fault of the assembler's own") as caught:
        Dataset(Numbers("")).map(unmappable, output=Table(str(tmp_path / "out.tsv")), executor="inline")
    assert "TableAssembler" in str(caught.value) or "in add" in str(caught.value)


def test_lost_results_are_mapped_again_in_this_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(merge_behind, "TOGETHER_S", 60.0)  # nothing is merged before the end
    output = tmp_path / "out.jsonl"
    mapped: list[int] = []

    def damaging(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mapped.append(batch[0]["id"])
        if batch[0]["id"] == 36 and len(mapped) == 10:
            for path in tmp_path.glob(".sky_batch_tmp/*/*/*.seg"):
                path.write_bytes(path.read_bytes()[:-1])
        return batch

    Dataset(Numbers("")).map(damaging, output=JsonWriter(str(output)), batch_size=4, executor="inline")
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == list(range(40))
    assert len(mapped) > 10 and set(mapped) == set(range(0, 40, 4))
    assert "are mapped again" in capsys.readouterr().err
