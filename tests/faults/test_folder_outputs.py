"""Folders with a manifest: one job at a time, nothing of a stranger's replaced, complete when the manifest is there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import Dataset, io_formats
from skybatch.cli.main import invoke
from skybatch.errors import OutputExists
from skybatch.formats import claims, storage, stores
from tests.faults.test_publish_stores import ROWS, StoreBench
from tests.tools.bench import Bench, end_of

CONFLICT = 73
EITHER = ["shards", pytest.param("texts", marks=pytest.mark.full)]
FAILPOINTS = [
    "half-published",
    *(pytest.param(name, marks=pytest.mark.full) for name in ("before-publish", "after-publish", "")),
]
TEXTS = {f"{index:08d}.txt": f"item {index**2}".encode() for index in range(120)}
WORDS = [{"id": index, "word": f"item {index**2}"} for index in range(120)]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_shards(found: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    """Manifest and shards are all that is there."""
    manifest = json.loads(found["manifest.json"])
    names = [entry["name"] for entry in manifest["files"]]
    assert found.keys() == {"manifest.json", *names} and manifest["rows"] == len(rows)
    assert [json.loads(line) for name in names for line in found[name].splitlines()] == rows


def assert_whole(kind: str, found: dict[str, bytes]) -> None:
    """The bench's output is there, and nothing else."""
    if kind == "shards":
        assert_shards(found, WORDS)
        return
    assert json.loads(found["manifest.json"])["items"] == len(TEXTS)
    assert {name: data for name, data in found.items() if name != "manifest.json"} == TEXTS


def bench_of(folder: Path, kind: str, **options: Any) -> tuple[Bench, Path]:
    bench = Bench(folder, outputs=[kind], **options)
    return bench, folder / "out" / kind


# Jobs that meet


@pytest.mark.parametrize("kind", EITHER)
def test_a_second_job_on_a_folder_is_refused_before_it_starts(kind: str, tmp_path: Path) -> None:
    bench, out = bench_of(tmp_path, kind)
    bench.crash(bench.start(failpoint="before-publish"))
    first, before = bench.job_id, files(tmp_path / "out")
    bench.options |= {"overwrite": True, "batch_size": 5}
    ended = end_of(bench.start())
    assert ended.code == CONFLICT and f"job {first} writes to that folder" in ended.err, ended
    assert bench.job_id == first and files(tmp_path / "out") == before
    bench.succeed(bench.start_resume())
    assert_whole(kind, files(out))
    assert os.listdir(tmp_path / "out") == [kind]


class Numbers(io_formats.InputReader):
    """Six items."""

    def __len__(self) -> int:
        return 6

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


def texts(batch: list[dict[str, Any]], upto: int, meddle: str) -> list[dict[str, Any]]:
    if meddle:
        storage.write_bytes(meddle, b"a stranger's")
    if batch[0]["id"] >= upto:
        raise ValueError("too many")
    return [{"text": str(item["id"])} for item in batch]


def run(output: Any, *, batch_size: int = 2, upto: int = 6, meddle: str = "", **options: Any) -> skybatch.Job:
    return Dataset(Numbers("")).map(
        texts,
        batch_size=batch_size,
        output=output,
        executor="inline",
        max_retries=0,
        mapper_args={"upto": upto, "meddle": meddle},
        **options,
    )


def failed(output: skybatch.OutputWriter, **options: Any) -> str:
    with pytest.raises(skybatch.JobFailed) as caught:
        run(output, **options)
    return caught.value.job_id


def test_a_job_that_has_stored_nothing_does_not_keep_the_folder(tmp_path: Path) -> None:
    writer = skybatch.JsonWriter(str(tmp_path / "out"), shard_size=20)
    failed(writer, upto=0)
    run(writer)
    assert_shards(files(tmp_path / "out"), [{"text": str(index)} for index in range(6)])


@pytest.mark.parametrize("command", ["clean", "leftovers"])
def test_a_claim_goes_with_its_job(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    job = failed(skybatch.JsonWriter(str(out), shard_size=20), upto=4)
    claim = claims.folder_claim(str(out))
    assert claims.holder(claim) == job
    if command == "clean":
        assert invoke(["clean", "--unfinished", job]) == 0
    else:
        assert invoke(["clean", "--leftovers", str(out), "--yes"]) == 0
        assert claims.holder(claim) == job  # it could be resumed
        monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "another home"))
        with pytest.raises(OutputExists, match="clean --leftovers"):
            run(skybatch.JsonWriter(str(out), shard_size=20))
        assert invoke(["clean", "--leftovers", str(out), "--yes"]) == 0
    assert claims.holder(claim) is None and not (tmp_path / ".sky_batch_tmp").exists()
    run(skybatch.JsonWriter(str(out), shard_size=20))


def test_the_claim_of_several_outputs_is_all_or_nothing(tmp_path: Path) -> None:
    job = failed(skybatch.JsonWriter(str(tmp_path / "b"), shard_size=20), upto=4)
    with pytest.raises(OutputExists, match=job):
        run([skybatch.JsonWriter(str(tmp_path / name), shard_size=20) for name in ("a", "b")])
    assert claims.holder(claims.folder_claim(str(tmp_path / "a"))) is None


def test_a_claim_in_a_store(moto_bucket: str) -> None:
    out = f"{moto_bucket}/out"
    job = failed(skybatch.JsonWriter(out, shard_size=20), upto=4)
    with pytest.raises(OutputExists, match=f"job {job} writes to that folder"):
        run(skybatch.JsonWriter(out, shard_size=20), batch_size=3)
    assert invoke(["clean", "--unfinished", job]) == 0
    assert list(stores.of(moto_bucket).list(moto_bucket)) == []
    run(skybatch.JsonWriter(out, shard_size=20))
    assert "out.claim" not in " ".join(info.path for info in stores.of(moto_bucket).list(moto_bucket))


# What strangers put there meanwhile


def test_a_stranger_s_text_is_the_failure_of_its_item(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stranger = out / "00000005.txt"
    with pytest.raises(skybatch.JobFailed, match="a file of that name is there and is not this job's"):
        run(skybatch.TextWriter(str(out)), meddle=str(stranger))
    assert stranger.read_bytes() == b"a stranger's" and not (out / "manifest.json").exists()
    assert len(files(out)) == 6


@pytest.mark.parametrize(
    ("kind", "meddled"),
    [
        ("shards", "part-00001.jsonl"),
        pytest.param("shards", "manifest.json", marks=pytest.mark.full),
        pytest.param("texts", "manifest.json", marks=pytest.mark.full),
    ],
)
def test_a_stranger_s_file_stays_where_a_folder_is_published(kind: str, meddled: str, tmp_path: Path) -> None:
    bench, out = bench_of(tmp_path, kind)
    bench.crash(bench.start(failpoint="before-publish"))
    storage.write_bytes(str(out / meddled), b"a stranger's")
    for _ in range(2):
        ended = end_of(bench.start_resume())
        assert ended.code == CONFLICT and f"{out / meddled} has come into existence" in ended.err, ended
        assert (out / meddled).read_bytes() == b"a stranger's"
    (out / meddled).unlink()
    bench.succeed(bench.start_resume())
    assert_whole(kind, files(out))


@pytest.mark.full
def test_a_stranger_s_object_stays_where_shards_are_published(moto_bucket: str, tmp_path: Path) -> None:
    bench = StoreBench(tmp_path, moto_bucket, outputs=["shards"])
    bench.crash(bench.start(failpoint="before-publish"))
    assert not any(name.startswith("shards/") for name in bench.objects())
    stranger = f"{moto_bucket}/shards/part-00001.jsonl"
    stores.of(stranger).put(stranger, b"a stranger's")
    ended = end_of(bench.start_resume())
    assert ended.code == CONFLICT and "shards/part-00001.jsonl has come into existence" in ended.err, ended
    assert stores.of(stranger).read(stranger) == b"a stranger's"
    stores.of(stranger).delete([stranger])
    bench.succeed(bench.start_resume())
    found = bench.objects()
    assert b"".join(found[name] for name in sorted(found) if name.startswith("shards/part-")) == ROWS
    assert all(name.startswith("shards/") for name in found)


@pytest.mark.parametrize("bucket", ["", pytest.param("moto_bucket", marks=pytest.mark.full)])
def test_shards_half_put_in_place_are_known_as_the_job_s(
    bucket: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if bucket:
        bench: Bench = StoreBench(tmp_path, request.getfixturevalue(bucket), outputs=["shards"])
    else:
        bench, out = bench_of(tmp_path, "shards")
    bench.crash(bench.start(failpoint="half-published"))
    bench.succeed(bench.start_resume())
    if isinstance(bench, StoreBench):
        found = bench.objects()
        assert b"".join(found[name] for name in sorted(found) if name.startswith("shards/part-")) == ROWS
    else:
        assert_shards(files(out), WORDS)


# Overwriting


def test_a_job_that_fails_leaves_the_shards_it_was_to_replace(tmp_path: Path) -> None:
    out, writer = tmp_path / "out", skybatch.JsonWriter(str(tmp_path / "out"), shard_size=20)
    run(writer)
    before = files(out)
    job = failed(writer, upto=4, overwrite=True)
    assert files(out) == before
    assert invoke(["reduce", "--partial", job]) == 0
    assert files(out) == before
    partial = tmp_path / "out.partial"
    assert_shards(files(partial), [{"text": str(index)} for index in range(4)])
    (partial / "part-00000.jsonl").write_bytes(b"old")
    assert invoke(["reduce", "--partial", job]) == 0
    assert_shards(files(partial), [{"text": str(index)} for index in range(4)])


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_shards_that_only_the_replaced_manifest_lists_are_deleted(failpoint: str, tmp_path: Path) -> None:
    bench, out = bench_of(tmp_path, "shards")
    bench.succeed(bench.start())
    many = files(out)
    (out / "part-00090.jsonl").write_bytes(b"a stranger's")
    other = Bench(tmp_path, outputs=["shards"], items=30, overwrite=True)
    other.home = tmp_path / "home2"
    (tmp_path / "input.jsonl").unlink()
    if failpoint:
        other.crash(other.start(failpoint=failpoint))
        if failpoint == "before-publish":
            assert files(out) == {**many, "part-00090.jsonl": b"a stranger's"}
        assert (out / "manifest.json").exists() == (failpoint != "half-published")
        other.succeed(other.start_resume())
    else:
        other.succeed(other.start())
    assert (out / "part-00090.jsonl").read_bytes() == b"a stranger's"
    (out / "part-00090.jsonl").unlink()
    assert_shards(files(out), WORDS[:30])
    assert len(files(out)) < len(many)


def test_a_folder_of_files_is_not_complete_while_it_is_overwritten(tmp_path: Path) -> None:
    out, writer = tmp_path / "out", skybatch.TextWriter(str(tmp_path / "out"))
    run(writer)
    (out / "00000001.txt").write_bytes(b"from before")
    job = failed(writer, upto=2, overwrite=True)
    assert not (out / "manifest.json").exists() and (out / "00000001.txt").read_bytes() == b"1"
    assert invoke(["clean", "--unfinished", job]) == 0
    run(writer, overwrite=True)
    assert json.loads((out / "manifest.json").read_bytes())["items"] == 6


# Folders on another filesystem


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another filesystem than `tmp_path`."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is but one filesystem here")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.mark.parametrize("kind", EITHER)
def test_a_folder_on_another_filesystem(kind: str, elsewhere: Path, tmp_path: Path) -> None:
    bench, out = bench_of(tmp_path, kind)
    out.parent.mkdir()
    out.symlink_to(elsewhere)
    bench.crash(bench.start(failpoint="before-publish"))
    assert "manifest.json" not in files(elsewhere)
    bench.succeed(bench.start_resume())
    assert_whole(kind, files(elsewhere))
    assert os.listdir(out.parent) == [kind] and ".sky_batch_tmp" not in os.listdir(elsewhere)


def test_a_job_in_a_folder_on_another_filesystem_is_cleaned_away(elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(elsewhere)
    job = failed(skybatch.TextWriter(str(tmp_path / "out")), upto=4)
    assert invoke(["clean", "--unfinished", job]) == 0
    assert sorted(os.listdir(elsewhere)) == [f"{index:08d}.txt" for index in range(4)]


# By hand


@pytest.mark.parametrize("kind", EITHER)
def test_a_resume_replaces_what_its_own_job_s_manual_reduce_wrote(kind: str, tmp_path: Path) -> None:
    bench, out = bench_of(tmp_path, kind)
    bench.crash(bench.start(failpoint="reducing"))
    writers = {
        "shards": skybatch.JsonWriter(str(out), column=["id", "word"], shard_size=500),
        "texts": skybatch.TextWriter(str(out), "word"),
    }
    for _ in range(2):
        writers[kind].reduce_results(bench.job_id)
        assert_whole(kind, files(out))
    bench.succeed(bench.start_resume())
    assert_whole(kind, files(out))
