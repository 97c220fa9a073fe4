"""Readers and writers take any `os.PathLike`, alone or in lists, and keep text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skybatch import Dataset, JsonReader, JsonWriter, OutputWriter, utils
from skybatch.errors import UsageError
from skybatch.formats.base import Item
from skybatch.formats.plugin import skybatch_input_readers, skybatch_output_writers

READERS = {name: reader for name, reader in skybatch_input_readers().items() if name != "counter"}
NEEDED: dict[str, dict[str, Any]] = {"text": {"column": "text"}, "images": {"column": "image"}}


@pytest.mark.parametrize("name", READERS)
def test_every_reader(name: str) -> None:
    reader: Any = READERS[name]
    assert reader(Path("in/a")).path == "in/a"
    assert reader([Path("in/a"), "in/b"]).path == ["in/a", "in/b"]
    assert reader((Path("in/a"),)) == reader(["in/a"])


@pytest.mark.parametrize("name", skybatch_output_writers())
def test_every_writer(name: str) -> None:
    writer: Any = skybatch_output_writers()[name]
    assert writer(Path("out"), **NEEDED.get(name, {})) == writer("out", **NEEDED.get(name, {}))


@dataclass
class Copied(OutputWriter):
    """Somebody's own."""

    def upload_batch(self, results: list[Item], start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def same(batch: list[Item]) -> list[Item]:
    return batch


def test_a_job_with_a_writer_of_ones_own(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(json.dumps({"name": name}) + "\n")
    reader: Any = JsonReader([tmp_path / "a", tmp_path / "b"])  # type: ignore[list-item]
    writers: Any = [JsonWriter(tmp_path / "out.jsonl"), Copied(tmp_path / "copied.jsonl")]  # type: ignore[arg-type]
    Dataset(reader).map(same, output=writers, executor="inline")
    for name in ("out.jsonl", "copied.jsonl"):
        assert (tmp_path / name).read_text() == '{"name":"a"}\n{"name":"b"}\n'


def test_a_url_that_pathlib_has_spoiled_is_refused() -> None:
    with pytest.raises(UsageError, match="give it as text"):
        JsonReader(Path("s3://bucket/in.jsonl"))  # type: ignore[arg-type]
