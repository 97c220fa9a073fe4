"""`activate_env`: workers run under another environment's Python, where skybatch need not be installed."""

from __future__ import annotations

import json
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

import skybatch
from skybatch import Dataset, JobFailed, JsonReader, JsonWriter, io_formats, utils
from tests.api import mappers
from tests.api.test_inline import Count

Batch = list[dict[str, Any]]


def prefix(batch: Batch) -> Batch:
    import sys

    return [{"i": item["i"], "prefix": sys.prefix} for item in batch]


@dataclass
class Plain(io_formats.OutputWriter):
    """Needs the standard library alone."""

    def upload_batch(self, results: Batch, start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.upload_bytes_to_cloud("".join(f"{json.dumps(result)}\n" for result in results).encode(), path)
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A fresh one: nothing is installed in it."""
    folder = tmp_path / "an environment"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


def install_orjson(environment: Path) -> None:
    """What skybatch needs in workers, besides itself."""
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "orjson").symlink_to(Path(orjson.__file__).parent)


def test_workers_run_in_the_activated_environment(environment: Path, tmp_path: Path) -> None:
    install_orjson(environment)
    output = tmp_path / "out.jsonl"
    job = Dataset(Count("")).map(
        prefix, batch_size=3, output=Plain(str(output)), activate_env=f"source '{environment}/bin/activate'"
    )
    assert job.state == "cleaned"
    assert {json.loads(line)["prefix"] for line in output.read_text().splitlines()} == {str(environment)}
    assert sys.prefix != str(environment)


def test_what_the_environment_lacks_is_named_with_the_command_that_installs_it(
    environment: Path, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"i": 1}\n')
    with pytest.raises(JobFailed) as failed:
        Dataset(JsonReader(str(numbers))).map(
            mappers.double,
            output=JsonWriter(str(tmp_path / "out.jsonl")),
            activate_env=f"source '{environment}/bin/activate'",
        )
    message = str(failed.value)
    assert "orjson" in message
    assert "-m pip install orjson" in message and str(environment / "bin") in message
    # another environment is chosen for the rest
    skybatch.resume(failed.value.job_id, executor="local")
    assert (tmp_path / "out.jsonl").read_text() == '{"i":1,"twice":2}\n'


@pytest.mark.parametrize("line", ["source nowhere/bin/activate", "exit 3"])
def test_an_environment_that_cannot_be_activated_is_an_error_that_shows_why(line: str, tmp_path: Path) -> None:
    with pytest.raises(JobFailed) as failed:
        Dataset(Count("")).map(prefix, output=Plain(str(tmp_path / "out.jsonl")), activate_env=line)
    assert line in str(failed.value)
