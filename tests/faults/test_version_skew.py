"""skybatch is upgraded on disk while an engine runs: versions are not mixed, and the job goes on when asked to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import skybatch

PACKAGE = Path(skybatch.__file__).parent
TIMEOUT_S = 60.0
JOB = """
import os, pathlib, sys
from dataclasses import dataclass
import skybatch
from skybatch import io_formats, utils

FILE = {file!r}  # of skybatch's own
OLD, NEW = {old!r}, {new!r}

def upgrade():
    text = pathlib.Path(FILE).read_text()
    pathlib.Path(FILE + ".part").write_text(text.replace(OLD, NEW))
    os.replace(FILE + ".part", FILE)

def upgrading_and_dying(batch):
    if batch[0]["id"] == 8 and NEW not in pathlib.Path(FILE).read_text():
        upgrade()
        os._exit(1)
    return batch

def upgrading(batch):
    if batch[0]["id"] == 8:
        upgrade()
    return batch

@dataclass
class Merging(io_formats.OutputWriter):
    def upload_batch(self, results, start_idx, end_idx, job_id):
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id):
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id):
        utils.delete_batch_files(self.path, job_id)

if __name__ == "__main__":
    writer = {writer}("out.jsonl")
    skybatch.Dataset(skybatch.JsonReader("in.jsonl")).map({mapper}, output=writer, batch_size=4, workers=1)
"""


class Installed:
    """A skybatch of its own, and a job that has it upgraded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PACKAGE, folder / "site" / "skybatch", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "in.jsonl").write_text("".join(f'{{"id": {index}}}\n' for index in range(40)))

    def file(self, name: str) -> str:
        return str(self.folder / "site" / "skybatch" / name)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "site")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def map(self, mapper: str, file: str, old: str, new: str, writer: str = "skybatch.JsonWriter") -> str:
        """Run the job, which must stop as paused; what it says."""
        source = JOB.format(mapper=mapper, file=self.file(file), old=old, new=new, writer=writer)
        (self.folder / "job.py").write_text(source)
        ended = self.run("job.py")
        assert ended.returncode != 0 and "Paused" in ended.stderr, ended.stderr
        return ended.stderr

    def resume(self) -> None:
        ended = self.run("-m", "skybatch.cli", "resume")
        assert ended.returncode == 0, ended.stderr
        rows = [orjson.loads(line) for line in (self.folder / "out.jsonl").read_bytes().splitlines()]
        assert [row["id"] for row in rows] == list(range(40))


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


VERSION = ("__init__.py", f'__version__ = "{skybatch.__version__}"', '__version__ = "99.0"')


def test_engine_starts_no_workers_of_another_version(installed: Installed) -> None:
    said = installed.map("upgrading_and_dying", *VERSION)
    assert f"the engine is skybatch {skybatch.__version__}, workers are skybatch 99.0 now" in said
    assert "to go on: skybatch resume" in said
    installed.resume()


def test_engine_starts_no_workers_of_other_sources(installed: Installed) -> None:
    said = installed.map("upgrading_and_dying", "worker/session.py", "from __future__", "# newer\nfrom __future__")
    assert "the files of skybatch are others now" in said
    installed.resume()


def test_engine_reduces_by_no_process_of_another_version(installed: Installed) -> None:
    said = installed.map("upgrading", *VERSION, writer="Merging")
    assert "workers are skybatch 99.0 now" in said
    assert not (installed.folder / "out.jsonl").exists()
    installed.resume()
