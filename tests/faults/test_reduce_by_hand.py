"""Outputs that people make of what a job has so far: by a writer without the journal, and by `skybatch reduce`."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
import yaml

from skybatch import JsonWriter
from skybatch.errors import MissingBatches, OutputExists
from skybatch.formats import batchfiles, storage, stores
from tests.faults.test_publish_stores import ROWS, WORDS, StoreBench
from tests.faults.test_reduce_local import EXPECTED
from tests.tools.bench import Bench, Ended, end_of


def writer(bench: Bench) -> JsonWriter:
    return JsonWriter(str(bench.folder / "out" / "rows.jsonl"), column=["id", "word"])


def command(bench: Bench, *arguments: str) -> Ended:
    return end_of(bench.spawn(["-m", "skybatch.cli", *arguments]))


# By a writer


def test_a_resume_replaces_what_its_own_job_s_manual_reduce_wrote(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json"])
    bench.crash(bench.start(failpoint="reducing"))
    output = tmp_path / "out" / "rows.jsonl"
    for _ in range(2):  # by hand, too, it may be done again
        writer(bench).reduce_results(bench.job_id)
        assert output.read_bytes() == EXPECTED
    by_hand = output.stat().st_ino
    bench.succeed(bench.start_resume())
    assert bench.outputs() == {"rows.jsonl": EXPECTED}
    assert output.stat().st_ino != by_hand
    bench.check(done=True)


def test_what_was_changed_after_a_manual_reduce_is_not_replaced(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json"])
    bench.crash(bench.start(failpoint="reducing"))
    writer(bench).reduce_results(bench.job_id)
    output = tmp_path / "out" / "rows.jsonl"
    output.write_bytes(output.read_bytes() + b"mine\n")
    with pytest.raises(OutputExists, match="not from an earlier reduce of this job"):
        writer(bench).reduce_results(bench.job_id)
    ended = end_of(bench.start_resume())
    assert ended.code == 73
    assert output.read_bytes() == EXPECTED + b"mine\n"


def test_a_manual_reduce_killed_twice_before_its_last_step_may_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, rename = JsonWriter(str(tmp_path / "out.jsonl")), os.rename
    plain.upload_batch([{"id": 0}], 0, 0, "job")
    plain.reduce_results("job")

    def killed(source: str, target: str) -> None:
        if target == plain.path:
            raise KeyboardInterrupt
        rename(source, target)

    plain.upload_batch([{"id": 1}], 1, 1, "job")
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                plain.reduce_results("job")
    assert Path(plain.path).read_text() == '{"id":0}\n'
    plain.reduce_results("job")
    assert Path(plain.path).read_text() == '{"id":0}\n{"id":1}\n'


def test_gaps_are_refused_unless_they_are_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json"])
    bench.crash(bench.start(failpoint="reducing"))
    files = sorted(Path(batchfiles.folder(writer(bench).path, bench.job_id)).glob("*.seg"))
    start, end, _ = files[1].name.split("-")
    files[1].unlink()
    with pytest.raises(MissingBatches, match=f"items {int(start)}-{int(end)} are missing"):
        writer(bench).reduce_results(bench.job_id)
    assert not Path(writer(bench).path).exists()
    writer(bench).reduce_results(bench.job_id, partial=True)
    rows = EXPECTED.splitlines(keepends=True)
    assert Path(writer(bench).path).read_bytes() == b"".join(rows[: int(start)] + rows[int(end) + 1 :])
    bench.succeed(bench.start_resume())
    assert bench.outputs() == {"rows.jsonl": EXPECTED}


def test_segments_of_attempts_that_overlap_are_covered_once(tmp_path: Path) -> None:
    from skybatch.formats.segment import SegmentFile

    plain = JsonWriter(str(tmp_path / "out.jsonl"))
    folder = Path(batchfiles.folder(plain.path, "job"))
    folder.mkdir(parents=True)
    for nonce, starts in (("a", [0, 2, 4]), ("b", [4, 6, 8]), ("c", [2, 4]), ("d", [8, 10])):
        file = SegmentFile(folder, nonce)
        for start in starts:
            file.append(start, start + 1, 1, plain.encode([{"id": start}, {"id": start + 1}], start))
        file.seal()
    plain.reduce_results("job")
    assert [json.loads(line)["id"] for line in Path(plain.path).read_text().splitlines()] == list(range(12))


@pytest.mark.parametrize("place", ["local", "store"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_batches_uploaded_by_hand_are_reduced_by_hand(place: str, name: str, moto_bucket: str, tmp_path: Path) -> None:
    plain = JsonWriter(f"{tmp_path if place == 'local' else moto_bucket}/{name}")
    plain.upload_batch([{"id": 9}], 2, 3, "job")
    for _ in range(2):  # the later one counts
        paths = [plain.upload_batch([{"id": index}], index, index, "job") for index in (1, 0)]
    plain.upload_batch([{"id": 2}], 2, 3, "job")
    plain.reduce_results("job")
    data = storage.read_bytes(plain.path)
    text = gzip.decompress(data) if name.endswith(".gz") else data
    assert [json.loads(line)["id"] for line in text.splitlines()] == [0, 1, 2]
    plain.cleanup("job")
    for path in paths:
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(path)


def test_a_manual_reduce_in_a_store_is_replaced_by_its_job_alone(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = StoreBench(tmp_path, moto_bucket, outputs=["json", "zipped"])
    bench.crash(bench.start(failpoint="composing"))
    monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "elsewhere"))
    plain, zipped = JsonWriter(f"{moto_bucket}/out/rows.jsonl"), f"{moto_bucket}/out/rows.jsonl.gz"
    for _ in range(2):
        plain.reduce_results(bench.job_id)
    store = stores.of(moto_bucket)
    assert store.read(plain.path) == ROWS
    store.put(zipped, b"a stranger's")
    with pytest.raises(OutputExists):
        JsonWriter(zipped, column="word").reduce_results(bench.job_id)
    assert store.read(zipped) == b"a stranger's"
    store.delete([zipped])
    bench.succeed(bench.start_resume())
    objects = bench.objects()
    assert objects.keys() == {"out/rows.jsonl", "out/rows.jsonl.gz"} and objects["out/rows.jsonl"] == ROWS


# `skybatch reduce --partial`


def test_what_is_finished_is_written_beside_the_outputs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json", "yaml"], mapping_s=0.05)
    bench.crash(bench.start(failpoint="before-commit:5"))
    done = [index for span in bench.look().won for index in range(span.start, span.end + 1)]
    assert 0 < len(done) < 120
    (tmp_path / "out" / "rows.jsonl.partial").write_text("an older one")
    for _ in range(2):
        ended = command(bench, "reduce", "--partial", bench.job_id)
        assert ended.code == 0, ended
        assert ended.out.split() == [f"{tmp_path}/out/rows.jsonl.partial", f"{tmp_path}/out/words.yaml.partial"]
        assert f"{len(done)} of 120 items; missing: " in ended.err
        partial = (tmp_path / "out" / "rows.jsonl.partial").read_text().splitlines()
        assert [json.loads(line)["id"] for line in partial] == done
        words = yaml.safe_load((tmp_path / "out" / "words.yaml.partial").read_text())
        assert [row["word"] for row in words] == [f"item {index**2}" for index in done]
    assert not (tmp_path / "out" / "rows.jsonl").exists()
    bench.succeed(bench.start_resume())
    assert bench.outputs()["rows.jsonl"] == EXPECTED
    bench.check(done=True)
    ended = command(bench, "reduce", "--partial", bench.job_id)
    assert ended.code == 2 and "its outputs are whole" in ended.err


def test_reduce_without_partial_says_what_does_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json"])
    bench.crash(bench.start(failpoint="reducing"))
    ended = command(bench, "reduce", bench.job_id)
    assert ended.code == 2 and f"skybatch resume {bench.job_id}" in ended.err
    ended = command(bench, "reduce", "--partial", bench.job_id)
    assert ended.code == 2 and f"skybatch resume {bench.job_id}" in ended.err


def test_a_job_that_runs_is_not_reduced_in_part(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json"], mapping_s=0.3)
    process = bench.start()
    bench.wait_for_note("ranges.log", count=4)
    ended = command(bench, "reduce", "--partial", bench.job_id)
    assert ended.code == 5, ended
    process.kill()
    bench.crash(process)


def test_a_partial_output_in_a_store(moto_bucket: str, tmp_path: Path) -> None:
    bench = StoreBench(tmp_path, moto_bucket, items=400, batch_size=1)
    bench.crash(bench.start(failpoint="before-commit:4"))
    ended = command(bench, "reduce", "--partial", bench.job_id)
    assert ended.code == 0, ended
    objects = bench.objects()
    rows = objects["out/rows.jsonl.partial"]
    assert rows and rows == objects["out/merged.jsonl.partial"]
    assert json.loads(rows.splitlines()[0])["word"] == json.loads(WORDS.splitlines()[0])["word"]
