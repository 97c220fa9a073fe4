"""An exception inside a writer whose output lies in a store: nothing appears at its place, and nothing stays there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import skybatch
from skybatch import CounterReader, Dataset, io_formats, utils
from skybatch.engine.job import find_job
from skybatch.formats import stores
from skybatch.formats.base import Assembler, SegmentWriter

Batch = list[dict[str, Any]]
ITEMS = 20


@dataclass
class Assembled(SegmentWriter):
    """Its assembler fails in the middle, or at the end, until there is a file at `gate`."""

    gate: str
    where: str

    def encode(self, results: Batch, start_idx: int) -> bytes:
        return b"".join(json.dumps(result).encode() + b"\n" for result in results)

    def assembler(self, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler:
        return Lines(self, sink)


class Lines(Assembler):
    def __init__(self, writer: Assembled, sink: BinaryIO) -> None:
        self._writer, self._sink = writer, sink

    def _pass(self, where: str) -> None:
        if self._writer.where == where and not Path(self._writer.gate).exists():
            raise ZeroDivisionError(where)

    def add(self, payload: bytes) -> None:
        if b'"index": 10}' in payload:
            self._pass("middle")
        self._sink.write(payload)

    def finish(self) -> None:
        self._pass("end")


@dataclass
class Merged(io_formats.OutputWriter):
    """Its upload_batch or its reduce fails, half of it done, until there is a file at `gate`."""

    gate: str
    where: str

    def _pass(self, where: str) -> None:
        if self.where == where and not Path(self.gate).exists():
            raise ZeroDivisionError(where)

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        if start_idx == 10:
            self._pass("upload")
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.upload_bytes_to_cloud(b"half of it", self.path)
        self._pass("reduce")
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def same(batch: Batch) -> Batch:
    return batch


@pytest.mark.parametrize("executor", ["inline", pytest.param("local", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("kind", "where"), [(Assembled, "middle"), (Assembled, "end"), (Merged, "upload"), (Merged, "reduce")]
)
def test_a_writer_that_fails_leaves_nothing_at_its_place(
    kind: Any, where: str, executor: str, moto_bucket: str, tmp_path: Path
) -> None:
    store, place, gate = stores.of(moto_bucket), f"{moto_bucket}/out/rows.jsonl", tmp_path / "gate"
    with pytest.raises(skybatch.JobFailed, match=f"ZeroDivisionError: {where}") as failed:
        Dataset(CounterReader(count=ITEMS)).map(
            same, output=kind(place, str(gate), where), batch_size=5, executor=executor, workers=1, max_retries=0
        )
    there = [info.path for info in store.list(moto_bucket)]
    assert there and all("/.sky_batch_tmp/" in path for path in there)
    assert list(store.abandoned(moto_bucket)) == []
    gate.touch()
    skybatch.resume(failed.value.job_id)
    assert find_job(failed.value.job_id).state == "cleaned"
    assert [info.path for info in store.list(moto_bucket)] == [place]
    assert [json.loads(line)["index"] for line in store.read(place).splitlines()] == list(range(ITEMS))
