"""Batch files of custom writers: many of them, strangers among them, two writers in one folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skybatch
from skybatch import io_formats, utils
from skybatch.formats import batchfiles
from tests.tools.mapping import map_items

Batch = list[dict[str, Any]]


@dataclass
class LinesWriter(io_formats.OutputWriter):
    """As the reference's own: a file per batch, joined at the end."""

    strays: bool = False

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        if self.strays:
            scatter(os.path.dirname(utils.list_batch_files(self.path, job_id)[0]))
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def scatter(folder: str) -> None:
    """Files that do not count: strangers, and what other attempts left."""
    names = [
        "notes.txt",
        "000000000000-000000000003.jsonl",
        "000000000000-000000000003-abc.jsonl.part",
        "000000000000-000000000003-ffffffffffff.jsonl",
        "000000000002-000000000009-ffffffffffff.jsonl",
        "000000000040-000000000043-ffffffffffff.jsonl",
        ".hidden",
    ]
    for name in names:
        Path(folder, name).write_text('{"id": "a stray"}\n')
    os.mkdir(f"{folder}/000000000000-000000000003-eeeeeeeeeeee.jsonl")


def same(batch: Batch) -> Batch:
    return batch


def test_more_than_a_thousand_batch_files_are_joined_in_order(tmp_path: Path) -> None:
    outcome = map_items(
        tmp_path, same, 1100, batch_size=1, workers=2, output=LinesWriter(str(tmp_path / "out.jsonl"))
    )
    assert outcome.ids == list(range(1100))
    assert not (tmp_path / batchfiles.TEMP_NAME).exists()


def test_strays_in_the_temporary_folder_do_not_count(tmp_path: Path) -> None:
    writer = LinesWriter(str(tmp_path / "out.jsonl"), strays=True)
    assert map_items(tmp_path, same, output=writer).ids == list(range(40))
    assert not (tmp_path / batchfiles.TEMP_NAME).exists()


def test_merging_writers_in_one_folder_keep_apart(tmp_path: Path) -> None:
    def out(name: str) -> str:
        return str(tmp_path / name)

    outputs: Any = [
        LinesWriter(out("out.jsonl")),
        LinesWriter(out("other.jsonl")),
        skybatch.JsonWriter(out("ids.jsonl"), column="id"),
        skybatch.JsonWriter(out("more"), column="id"),
    ]
    outcome = map_items(tmp_path, same, workers=2, output=outputs)
    assert outcome.ids == list(range(40))
    others = {Path(out(name)).read_text().replace(" ", "") for name in ("other.jsonl", "ids.jsonl", "more")}
    assert others == {outcome.output.read_text()}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["home", "in.jsonl", "out.jsonl", "other.jsonl", "ids.jsonl", "more"]
    )
