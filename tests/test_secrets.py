"""The secret that all tests are given is found where it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skybatch.engine.job import find_job
from tests.conftest import files_with_the_secret
from tests.tools.servers import SECRET_KEY


def tells(batch: list[dict[str, int]]) -> list[dict[str, int]]:
    raise ValueError(f"AWS_SECRET_ACCESS_KEY={os.environ['AWS_SECRET_ACCESS_KEY']}")


def test_a_leak_is_found(tmp_path: Path) -> None:
    leak = tmp_path / "leak"
    leak.write_bytes(b"\0" + SECRET_KEY.encode() + b"\0")
    assert files_with_the_secret(tmp_path) == [str(leak)]
    leak.unlink()
    assert files_with_the_secret(tmp_path) == []


def test_an_error_that_tells_the_secret_is_written_nowhere(tmp_path: Path) -> None:
    from skybatch import Dataset, JobFailed, JsonWriter

    with pytest.raises(JobFailed) as caught:
        Dataset.from_items([{"i": 1}]).map(tells, output=JsonWriter(str(tmp_path / "out.jsonl")), max_retries=0)
    job = find_job(caught.value.job_id)
    assert job.errors() and SECRET_KEY not in str(caught.value)
    assert files_with_the_secret(job.folder.path) == []
