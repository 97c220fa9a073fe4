"""What is refused before there is a job: places where no output can be; and what is told of missing buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import CounterReader, Dataset, JsonReader, TextWriter, io_formats
from skybatch.engine.job import all_jobs
from skybatch.errors import InputMissing, UsageError
from skybatch.formats import stores


def named(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": f"text {item['index']}"} for item in batch]


def run(output: io_formats.OutputWriter, **options: Any) -> None:
    Dataset(CounterReader(count=4)).map(named, output=output, executor="inline", **options)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_single_file_with_a_folder_s_path_is_refused(overwrite: bool, tmp_path: Path, moto_bucket: str) -> None:
    for folder in (f"{tmp_path}/out/", f"{moto_bucket}/out/"):
        with pytest.raises(UsageError, match="ends with a slash, and JsonWriter makes a single file"):
            run(skybatch.JsonWriter(folder), overwrite=overwrite)
    for bucket in (moto_bucket, f"{moto_bucket}/"):
        with pytest.raises(UsageError, match="a bucket, and JsonWriter makes a single object"):
            run(skybatch.JsonWriter(bucket), overwrite=overwrite)
    assert list(tmp_path.glob("out*")) == []


def test_folders_may_end_with_a_slash(tmp_path: Path) -> None:
    run(skybatch.JsonWriter(f"{tmp_path}/shards/", shard_size=10))
    run(TextWriter(f"{tmp_path}/texts/", column="text"))
    assert (tmp_path / "shards" / "manifest.json").exists() and (tmp_path / "texts" / "manifest.json").exists()


@pytest.mark.parametrize("bucket", ["moto_bucket", pytest.param("gcs_bucket", marks=pytest.mark.full)])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_output_may_be_a_whole_bucket(bucket: str, slash: str, request: pytest.FixtureRequest) -> None:
    place: str = request.getfixturevalue(bucket)
    run(TextWriter(f"{place}{slash}", column="text", name_column="text"))
    found = sorted(info.path.removeprefix(f"{place}/") for info in stores.of(place).list(place))
    assert found == ["manifest.json", *(f"text {index}" for index in range(4))]


@pytest.mark.parametrize("bucket", ["moto_bucket", pytest.param("gcs_bucket", marks=pytest.mark.full)])
def test_a_missing_bucket_is_told_before_there_is_a_job(bucket: str, request: pytest.FixtureRequest) -> None:
    missing = f"{request.getfixturevalue(bucket)}-no-such"
    for writer in (skybatch.JsonWriter(f"{missing}/rows.jsonl"), TextWriter(f"{missing}/texts/", column="text")):
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=f"output {missing}/.*: there is no such bucket"):
                run(writer, overwrite=overwrite)
    for path in (f"{missing}/in.jsonl", f"{missing}/*.jsonl", f"{missing}/in/"):
        with pytest.raises(InputMissing, match=f"input {missing}.*: there is no such bucket"):
            JsonReader(path).fingerprint()
    assert all_jobs() == []
