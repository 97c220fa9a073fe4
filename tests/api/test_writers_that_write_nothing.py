"""A custom writer whose reduce makes nothing of its batch files fails the job before anything is lost."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

import skybatch
from skybatch import CounterReader, Dataset, JobFailed, io_formats, utils
from skybatch.formats import batchfiles
from tests.api.scripts import command, run, write

Batch = list[dict[str, Any]]

SCRIPT = """
    import skybatch
    from dataclasses import dataclass
    from skybatch import io_formats, utils

    @dataclass
    class Forgetful(io_formats.OutputWriter):
        def upload_batch(self, results, start_idx, end_idx, job_id):
            path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
            utils.save_jsonl_to_cloud(results, path)
            return path

        def reduce_results(self, job_id):
            pass

        def cleanup(self, job_id):
            utils.delete_batch_files(self.path, job_id)

    def same(batch):
        return batch

    skybatch.Dataset(skybatch.CounterReader(count=6)).map(same, batch_size=2, output=Forgetful("out.jsonl"))
"""


def test_it_fails_resumably_and_mended_code_goes_on(tmp_path: Path) -> None:
    script = write(tmp_path, "forgets.py", SCRIPT)
    ended = run(script)
    assert ended.returncode == 1
    output = tmp_path / "out.jsonl"
    assert f"reduce_results of Forgetful wrote nothing to {output}; its batch files are kept" in ended.stderr
    job_id = ended.stderr.split()[2]
    assert f"skybatch resume {job_id} --code current" in ended.stderr
    assert len(batchfiles.list_files(str(output), job_id)) == 3

    merging = "utils.concatenate_batches_to_output(self.path, job_id)"
    script.write_text(script.read_text().replace("        pass", f"        {merging}"))
    resumed = command("resume", job_id, "--code", "current", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert len(output.read_text().splitlines()) == 6


@dataclass
class Batched(io_formats.OutputWriter):
    """Stores batch files, and writes `written` in the end, `plainly` or through skybatch."""

    written: str = ""
    plainly: bool = False

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        if self.written and self.plainly:
            os.makedirs(os.path.dirname(self.written), exist_ok=True)
            Path(self.written).write_text("merged\n")
        elif self.written:
            utils.upload_bytes_to_cloud(b"merged\n", self.written)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def same(batch: Batch) -> Batch:
    return batch


def mapped(writer: io_formats.OutputWriter, count: int = 4, **options: Any) -> None:
    Dataset(CounterReader(count=count)).map(same, batch_size=2, output=writer, executor="inline", **options)


@pytest.mark.parametrize("plainly", [True, False])
@pytest.mark.parametrize("name", ["out", "out/part", "elsewhere"])
def test_a_file_a_folder_with_files_and_what_is_written_elsewhere_will_do(
    name: str, plainly: bool, tmp_path: Path
) -> None:
    writer = Batched(str(tmp_path / "out"), str(tmp_path / name), plainly)
    if plainly and name == "elsewhere":  # of which nobody knows
        with pytest.raises(JobFailed, match="wrote nothing"):
            mapped(writer)
    else:
        mapped(writer)
    assert (tmp_path / name).read_text() == "merged\n"


def test_an_older_output_is_not_what_was_written(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("older\n")
    with pytest.raises(JobFailed, match="wrote nothing"):
        mapped(Batched(str(output)), overwrite=True)
    assert output.read_text() == "older\n"
    mapped(Batched(str(output), str(output)), overwrite=True)


def test_no_items_are_no_loss(tmp_path: Path) -> None:
    mapped(Batched(str(tmp_path / "out")), count=0)


def test_objects_in_a_store_will_do_and_none_will_not() -> None:
    folder = "memory://writes_nothing_test"
    memory = fsspec.filesystem("memory")
    try:
        with pytest.raises(JobFailed, match="wrote nothing"):
            mapped(Batched(f"{folder}/out"))
        mapped(Batched(f"{folder}/out", f"{folder}/out"))
        mapped(Batched(f"{folder}/parts", f"{folder}/parts/0"))
        assert memory.cat_file("/writes_nothing_test/parts/0") == b"merged\n"
    finally:
        memory.rm("/writes_nothing_test", recursive=True)


@dataclass
class OwnNames(Batched):
    """Its batch files have names of its own."""

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = f"{self.path}.{start_idx}"
        if Path(f"{self.path}.mended").exists():
            path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        with open(f"{self.path}.uploads", "a") as uploads:
            uploads.write(f"{start_idx}-{end_idx}\n")
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.concatenate_batches_to_output(self.path, job_id)


def test_batch_files_of_other_names_fail_the_job_at_once_and_are_written_again_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    uploads = tmp_path / "out.uploads"
    with pytest.raises(JobFailed, match=r"must store them at the very path that utils\.get_batch_path gives") as failed:
        mapped(OwnNames(str(tmp_path / "out")))
    assert uploads.read_text().splitlines() == ["0-1", "2-3"]
    (tmp_path / "out.mended").touch()
    skybatch.resume(failed.value.job_id)
    assert uploads.read_text().splitlines() == ["0-1", "2-3"] * 2
    assert len((tmp_path / "out").read_text().splitlines()) == 4
