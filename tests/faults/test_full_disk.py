"""A disk that is full pauses the job, whoever was writing; with space again it goes on to the same bytes."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, JsonReader, io_formats, utils
from skybatch.cli.exits import PAUSED
from skybatch.engine.job import find_job
from tests.tools.invariants import nothing_charged

Batch = list[dict[str, Any]]

ITEMS, SIZE = 40, 20_000
SMALL = 1 << 20  # bytes of the disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SMALL bytes; skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    """Make room on a disk."""
    subprocess.run(["mount", "-o", f"remount,size={32 * SMALL}", str(disk)], check=True)


def fill(disk: Path, left: int) -> Path:
    """A file that leaves `left` bytes of a disk."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(SMALL - left))
    return ballast


@dataclass
class Merged(io_formats.OutputWriter):
    """A file for each batch, joined at the end."""

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


@dataclass
class Fetching(io_formats.InputReader):
    """Keeps what it fetches at `path`."""

    def __len__(self) -> int:
        return ITEMS

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        Path(self.path, f"{start_idx}").write_bytes(bytes(10_000))
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


def same(batch: Batch) -> Batch:
    return batch


def widen(batch: Batch) -> Batch:
    return [{"id": item["id"], "text": random.Random(item["id"]).randbytes(SIZE // 2).hex()} for item in batch]


WRITERS: dict[str, Callable[[Path], io_formats.OutputWriter]] = {
    "texts": lambda folder: io_formats.TextWriter(f"{folder}/texts", column="text"),
    "merged": lambda folder: Merged(f"{folder}/rows.jsonl"),
    "json": lambda folder: skybatch.JsonWriter(f"{folder}/rows.jsonl"),
    "parquet": lambda folder: skybatch.ParquetWriter(f"{folder}/rows.parquet"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(tmp_path: Path) -> str:
    """The input."""
    source = tmp_path / "in.jsonl"
    if not source.exists():
        source.write_text("".join(f'{{"id":{index}}}\n' for index in range(ITEMS)))
    return str(source)


def run(tmp_path: Path, name: str, folder: Path, executor: str = "local", **more: Any) -> skybatch.Job:
    return Dataset(JsonReader(numbers(tmp_path))).map(
        widen, output=WRITERS[name](folder), batch_size=5, workers=1, executor=executor, on_error="skip", **more
    )


def unhindered(tmp_path: Path, name: str) -> dict[str, bytes]:
    """What the output is where there is space."""
    run(tmp_path, name, tmp_path / "roomy")
    return contents(tmp_path / "roomy")


@pytest.mark.parametrize("executor", ["inline", pytest.param("local", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("name", "left"),
    [
        pytest.param("texts", 300_000, id="files of items"),
        pytest.param("merged", 300_000, id="batch files"),
        pytest.param("merged", 1_000_000, id="the reduce"),
        pytest.param("json", 300_000, id="segments"),
        pytest.param("json", 1_000_000, id="the merge", marks=pytest.mark.full),
        pytest.param("parquet", 1_000_000, id="an assembler", marks=pytest.mark.full),
    ],
)
def test_a_full_disk_under_the_output_pauses_the_job(
    name: str, left: int, executor: str, disk: Path, tmp_path: Path
) -> None:
    ballast = fill(disk, left)
    with pytest.raises(skybatch.Paused, match=f"No space left on device.*{disk}/out") as caught:
        run(tmp_path, name, disk / "out", executor, max_retries=0)
    assert caught.value.exit_code == PAUSED
    job = find_job(caught.value.job_id)
    assert job.state == "paused" and nothing_charged(job.folder.journal)
    ballast.unlink()
    enlarge(disk)
    skybatch.resume(job.id)
    assert job.state == "cleaned" and nothing_charged(job.folder.journal)
    assert contents(disk / "out") == unhindered(tmp_path, name)


def fill_up(batch: Batch, disk: str) -> Batch:
    """A mapper that leaves no byte of a disk, once."""
    ballast = Path(disk, "ballast")
    if batch[0]["id"] >= ITEMS // 2 and not ballast.exists():
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
    return batch


@pytest.mark.parametrize("executor", ["inline", pytest.param("local", marks=pytest.mark.full)])
def test_a_full_disk_under_the_journal_pauses_the_job(
    executor: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYBATCH_HOME", str(disk / "home"))
    enlarge(disk)
    output = tmp_path / "out" / "rows.jsonl"
    with pytest.raises(skybatch.Paused, match="No space left on device") as caught:
        Dataset(JsonReader(numbers(tmp_path))).map(
            fill_up,
            output=skybatch.JsonWriter(str(output)),
            batch_size=1,
            workers=1,
            executor=executor,
            mapper_args={"disk": str(disk)},
        )
    assert caught.value.exit_code == PAUSED
    with pytest.raises((skybatch.SkybatchError, OSError)):
        skybatch.resume(caught.value.job_id)  # there still is no space
    assert not output.exists()
    (disk / "ballast").write_bytes(b"")
    skybatch.resume(caught.value.job_id)
    assert find_job(caught.value.job_id).state == "cleaned"
    assert output.read_bytes() == Path(numbers(tmp_path)).read_bytes()


@pytest.mark.parametrize("executor", ["inline", pytest.param("local", marks=pytest.mark.full)])
def test_a_full_cache_folder_charges_no_item(executor: str, disk: Path, tmp_path: Path) -> None:
    ballast = fill(disk, 0)
    output = tmp_path / "out" / "rows.jsonl"
    with pytest.raises(skybatch.Paused, match="No space left on device") as caught:
        Dataset(Fetching(str(disk))).map(
            same, output=skybatch.JsonWriter(str(output)), batch_size=5, workers=1, executor=executor, on_error="skip"
        )
    job = find_job(caught.value.job_id)
    assert job.state == "paused" and nothing_charged(job.folder.journal)
    ballast.unlink()
    skybatch.resume(job.id)
    assert output.read_text() == "".join(f'{{"id":{index}}}\n' for index in range(ITEMS))
