"""`executor="inline"`: the worker is this process, for debuggers and for `memory://`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

import skybatch
from skybatch import Dataset, JobFailed, JsonWriter, io_formats, utils
from skybatch.errors import OutputExists, UsageError
from tests.api.scripts import run_well, write

Batch = list[dict[str, Any]]


@dataclass
class Count(io_formats.InputReader):
    """Numbers from a counter."""

    count: int = 10

    def __len__(self) -> int:
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        return [{"i": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class Merged(io_formats.OutputWriter):
    """A writer as the reference has them: batch files, merged in the end."""

    fails: bool = False

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud([{**result, "pid": os.getpid()} for result in results], path)
        return path

    def reduce_results(self, job_id: str) -> None:
        if self.fails:
            raise RuntimeError("no merge today")
        rows = [row for path in utils.list_batch_files(self.path, job_id) for row in utils.load_jsonl_from_cloud(path)]
        utils.save_jsonl_to_cloud([{**row, "reduced": os.getpid()} for row in rows], self.path)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def same(batch: Batch) -> Batch:
    return batch


def hopeless(batch: Batch) -> Batch:
    raise RuntimeError("never works")


def here(count: int) -> Batch:
    return [{"i": index, "pid": os.getpid(), "reduced": os.getpid()} for index in range(count)]


def test_a_writer_of_the_reference_writes_and_merges_in_this_process(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    Dataset(Count("")).map(same, batch_size=3, output=Merged(str(output)), executor="inline")
    assert [json.loads(line) for line in output.read_text().splitlines()] == here(10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.jsonl"]


def test_outputs_in_memory_work_here_and_nowhere_else() -> None:
    path = "memory://inline_test/out.jsonl"
    memory = fsspec.filesystem("memory")
    try:
        Dataset(Count("")).map(same, batch_size=3, output=Merged(path), executor="inline")
        assert [json.loads(line) for line in memory.cat_file("/inline_test/out.jsonl").splitlines()] == here(10)
        assert memory.find("/inline_test") == ["/inline_test/out.jsonl"]
    finally:
        memory.rm("/inline_test", recursive=True)
    with pytest.raises(UsageError, match="executor='inline'"):
        Dataset(Count("")).map(same, output=Merged(path))


def test_segments_in_memory_are_merged_there(tmp_path: Path) -> None:
    path = "memory://inline_test/out.jsonl"
    memory = fsspec.filesystem("memory")
    rows = [{"i": number} for number in range(10)]
    try:
        Dataset(Count("")).map(same, batch_size=3, output=JsonWriter(path), executor="inline")
        assert [json.loads(line) for line in memory.cat_file("/inline_test/out.jsonl").splitlines()] == rows
        assert memory.find("/inline_test") == ["/inline_test/out.jsonl"]
        with pytest.raises(OutputExists, match="exists"):
            Dataset(Count("")).map(same, output=JsonWriter(path), executor="inline")
        Dataset(Count("")).map(same, output=JsonWriter(path), executor="inline", overwrite=True)
        assert [json.loads(line) for line in memory.cat_file("/inline_test/out.jsonl").splitlines()] == rows
    finally:
        memory.rm("/inline_test", recursive=True)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_mapper_that_always_fails_ends_the_job_and_not_the_process(batch_size: int, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for _ in range(3):
        with pytest.raises(JobFailed, match="never works"):
            Dataset(Count("", count=100)).map(
                hopeless, batch_size=batch_size, output=JsonWriter(str(output)), executor="inline", max_retries=0
            )
    Dataset(Count("")).map(same, output=JsonWriter(str(output)), executor="inline")
    assert output.read_text().startswith('{"i":0}')
    assert threading.current_thread() is threading.main_thread()


def test_a_reduce_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(JobFailed, match="no merge today") as failed:
        Dataset(Count("")).map(same, output=Merged(str(output), fails=True), executor="inline")
    assert "reduce_results" in str(failed.value)
    with pytest.raises(JobFailed, match="no merge today"):
        skybatch.resume(failed.value.job_id)
    assert not output.exists()


def test_a_breakpoint_in_the_mapper_stops_in_the_mapper(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        "debugged.py",
        """
        import skybatch
        from tests.api.test_inline import Count

        def double(batch):
            doubled = [{"twice": 2 * item["i"]} for item in batch]
            breakpoint()
            return doubled

        skybatch.Dataset(Count("", count=3)).map(double, output=skybatch.JsonWriter("out.jsonl"), executor="inline")
        """,
    )
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, str(script)],
        input="p doubled[2]\ndoubled[2]['twice'] = 77\ncontinue\n",
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "{'twice': 4}" in ended.stdout
    assert (tmp_path / "out.jsonl").read_text() == '{"twice":0}\n{"twice":2}\n{"twice":77}\n'


def test_what_the_process_holds_is_seen_by_the_mapper_and_kept(tmp_path: Path) -> None:
    """The mapper is the very object, not a copy made from its source."""
    seen: list[int] = []

    def keep(batch: Batch) -> Batch:
        seen.extend(item["i"] for item in batch)
        return batch

    Dataset(Count("")).map(keep, batch_size=3, output=JsonWriter(str(tmp_path / "out.jsonl")), executor="inline")
    assert seen == list(range(10))


def test_a_resume_in_this_process_leaves_its_modules_alone(tmp_path: Path) -> None:
    """Two failed jobs whose code has the same module names, resumed one after the other in one process."""
    for number in (1, 2):
        folder = tmp_path / f"project{number}"
        folder.mkdir()
        write(folder, "words.py", f"WORD = 'from project {number}'")
        script = write(
            folder,
            "script.py",
            """
            import skybatch
            from dataclasses import dataclass
            from skybatch import io_formats, utils

            @dataclass
            class Two(io_formats.InputReader):
                def __len__(self):
                    return 2
                def download_batch(self, start, end, cache_dir):
                    import words
                    return [{"word": words.WORD} for _ in range(start, end + 1)]

            @dataclass
            class Late(io_formats.OutputWriter):
                def upload_batch(self, results, start, end, job_id):
                    path = utils.get_batch_path(self.path, start, end, job_id)
                    utils.save_jsonl_to_cloud(results, path)
                def reduce_results(self, job_id):
                    import words
                    utils.concatenate_batches_to_output(self.path, job_id)
                    utils.upload_bytes_to_cloud(words.WORD.encode(), self.path + ".word")
                def cleanup(self, job_id):
                    pass

            def same(batch):
                return batch

            skybatch.Dataset(Two("")).map(same, batch_size=1, workers=1, output=Late("out.jsonl"))
            """,
        )
        killed = subprocess.run([sys.executable, str(script)], cwd=folder, env={**os.environ, **KILLED}, timeout=60)
        assert killed.returncode == -9
    resuming = write(
        tmp_path,
        "resume_all.py",
        """
        import skybatch
        for job in skybatch.jobs():
            skybatch.resume(job.id, executor="inline")
        """,
    )
    run_well(resuming)
    for number in (1, 2):
        folder = tmp_path / f"project{number}"
        assert (folder / "out.jsonl.word").read_text() == f"from project {number}"
        assert (folder / "out.jsonl").read_text() == f'{{"word":"from project {number}"}}\n' * 2


KILLED = {"SKYBATCH_FAILPOINT": "after-commit:1"}
