"""`skybatch clean --leftovers`: what is listed, what is removed, and what is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest

import skybatch
from skybatch import Dataset, io_formats
from skybatch.cli.main import invoke
from skybatch.engine.job import find_job
from skybatch.formats import batchfiles, stores
from skybatch.journal import Journal


class Numbers(io_formats.InputReader):
    """Five items."""

    def __len__(self) -> int:
        return 5

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, object]]:
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


def three_fail(batch: list[dict[str, int]]) -> list[dict[str, int]]:
    if batch[0]["id"] == 3:
        raise ValueError("three")
    return batch


def same(batch: list[dict[str, int]]) -> list[dict[str, int]]:
    return batch


def unfinished_job(path: str) -> str:
    with pytest.raises(skybatch.JobFailed) as caught:
        Dataset(Numbers("")).map(
            three_fail, batch_size=1, output=skybatch.JsonWriter(path), executor="inline", max_retries=0
        )
    return caught.value.job_id


def strays(output: Path, job_id: str) -> Path:
    folder = Path(batchfiles.folder(str(output), job_id))
    folder.mkdir(parents=True)
    (folder / "000000000000-000000000003-aa.seg").write_bytes(b"x" * 100)
    return folder


@pytest.mark.parametrize("place", ["rows.jsonl", ""])
def test_files_of_unknown_jobs_are_listed_and_removed_when_that_is_confirmed(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "rows.jsonl"
    unknown = strays(output, "0123456789ab")
    ours = unfinished_job(str(output))
    asked = str(tmp_path / "out" / place)
    assert invoke(["clean", "--leftovers", asked]) == 0
    told = capsys.readouterr()
    assert "0123456789ab" in told.out and "not known here" in told.out and ours not in told.out
    assert f"job {ours} stands unfinished" in told.err and "nothing was removed" in told.err
    assert unknown.exists()
    assert invoke(["clean", "--leftovers", asked, "--yes"]) == 0
    assert not unknown.parent.exists()
    assert Path(batchfiles.folder(str(output), ours)).exists()
    assert invoke(["clean", "--unfinished", ours]) == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_a_finished_job_s_files_are_leftovers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    job = Dataset(Numbers("")).map(same, output=skybatch.JsonWriter(str(output)), executor="inline")
    folder = strays(output, job.id)
    assert invoke(["clean", "--leftovers", str(output), "--yes"]) == 0
    assert "cleaned" in capsys.readouterr().out and not folder.exists()
    assert output.exists() and find_job(job.id).state == "cleaned"


def test_nothing_is_left_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["clean", "--leftovers", str(tmp_path)]) == 0
    assert "nothing is left over" in capsys.readouterr().err
    assert invoke(["clean", "--leftovers", str(tmp_path / "no" / "where")]) == 2
    assert invoke(["clean"]) == 2
    assert invoke(["clean", "x", "--leftovers", str(tmp_path)]) == 2


def test_objects_and_uploads_in_a_store(moto_bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = f"{moto_bucket}/out/rows.jsonl"
    ours = unfinished_job(output)
    store = stores.of(moto_bucket)
    store.put(batchfiles.folder(output, "0123456789ab") + "/x.seg", b"x")
    begun = store.composer(output, scratch=f"{moto_bucket}/scratch", owner="somebody")
    elsewhere = store.composer(f"{moto_bucket}/out/other", scratch=f"{moto_bucket}/scratch", owner="somebody")
    assert invoke(["clean", "--leftovers", f"{moto_bucket}/out"]) == 0
    told = capsys.readouterr()
    assert "0123456789ab" in told.out and "upload" in told.out and f"{moto_bucket}/out/other" not in told.out
    assert invoke(["clean", "--leftovers", f"{moto_bucket}/out", "--yes"]) == 0
    assert (
        dict(store.abandoned(moto_bucket)) == {f"{moto_bucket}/out/other": elsewhere.handle} != {output: begun.handle}
    )
    assert all(f"/{ours}/" in info.path for info in store.list(moto_bucket))
    assert invoke(["clean", "--unfinished", ours]) == 0
    assert list(store.list(moto_bucket)) == []


def test_a_path_that_is_not_there_is_no_clean_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["clean", "--leftovers", str(tmp_path / "no.jsonl")]) == 2
    assert f"{tmp_path}/no.jsonl: there is no such output or folder" in capsys.readouterr().err


def test_an_upload_that_no_job_began_is_somebody_else_s(moto_bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = f"{moto_bucket}/out/rows.jsonl"
    store = stores.of(moto_bucket)
    theirs = store.composer(output, scratch=f"{moto_bucket}/scratch", owner="another tool")
    for path in (output, f"{moto_bucket}/out", moto_bucket):
        assert invoke(["clean", "--leftovers", path, "--yes"]) == 0
        assert "nothing is left over" in capsys.readouterr().err
    assert dict(store.abandoned(moto_bucket)) == {output: theirs.handle}


def test_an_upload_of_a_finished_job_is_left_over_and_one_of_an_unfinished_job_is_not(
    moto_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store, outputs = stores.of(moto_bucket), [f"{moto_bucket}/out/a.jsonl", f"{moto_bucket}/out/b.jsonl"]
    unfinished = find_job(unfinished_job(outputs[0]))
    finished = Dataset(Numbers("")).map(same, output=skybatch.JsonWriter(outputs[1]), executor="inline")
    for job, output in zip([unfinished, finished], outputs, strict=True):
        begun = store.composer(output, scratch=f"{moto_bucket}/scratch", owner="it")
        with Journal.open(job.folder.journal) as journal:
            journal.set_progress(0, {"handle": begun.handle})
    assert invoke(["clean", "--leftovers", f"{moto_bucket}/out", "--yes"]) == 0
    assert [path for path, _ in store.abandoned(moto_bucket)] == [outputs[0]]


@pytest.mark.parametrize("remote", [False, True])
def test_what_a_published_job_with_items_set_aside_has_stored_stays(
    remote: bool, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"{request.getfixturevalue('moto_bucket') if remote else tmp_path / 'out'}/rows.jsonl"
    job = Dataset(Numbers("")).map(
        three_fail,
        batch_size=1,
        output=skybatch.JsonWriter(output),
        executor="inline",
        max_retries=0,
        on_error="skip",
    )
    assert job.state == "published"
    before = sorted(batchfiles.names(output, job.id))
    assert before
    assert invoke(["clean", "--leftovers", output, "--yes"]) == 0
    told = capsys.readouterr()
    assert f"job {job.id}" in told.err and job.id not in told.out
    assert sorted(batchfiles.names(output, job.id)) == before
    assert invoke(["clean", job.id]) == 0
    assert batchfiles.names(output, job.id) == []
