"""JSON Lines as the input of whole jobs: records that cannot be read, many files, compressed ones, objects."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from skybatch import JsonReader
from skybatch.errors import InputDamaged, InputMissing, UsageError
from skybatch.formats import copies, stores
from skybatch.formats.json_reader import Lines
from tests.api.scripts import command, run, run_well, write
from tests.formats.test_json_records import REFUSED
from tests.tools import proxy
from tests.tools.mapping import map_and_fail, map_items
from tests.tools.servers import use_s3

Batch = list[dict[str, Any]]

SCRIPT = """
    import sys, skybatch

    def same(batch):
        return batch

    if __name__ == "__main__":
        skybatch.Dataset(skybatch.JsonReader(sys.argv[1])).map(
            same, batch_size=2, workers=1, output=skybatch.JsonWriter("out.jsonl")
        )
"""


def same(batch: Batch) -> Batch:
    return batch


def lines(start: int, end: int) -> bytes:
    return b"".join(b'{"id":%d}\n' % number for number in range(start, end))


@given(st.lists(st.none() | st.binary(min_size=1).filter(lambda line: b"\n" not in line), min_size=1))
def test_the_lines_of_a_window_travel_as_they_are(content: list[bytes | None]) -> None:
    there = pickle.loads(pickle.dumps(Lines.of(content), 5))
    assert type(there) is Lines and there[:] == content


SIZES = st.sampled_from([0, 9, 20_000, 40_000, 70_000])  # checkpoints are 64 KB apart


@given(st.lists(SIZES | SIZES | st.none(), min_size=1, max_size=20), st.booleans(), st.data())
def test_any_window_has_the_lines_of_its_items(sizes: list[int | None], ended: bool, data: st.DataObject) -> None:
    written = [b" " if size is None else b'{"n":%d,"text":"%s"}' % (n, b"x" * size) for n, size in enumerate(sizes)]
    records = [line for line in written if line != b" "]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in.jsonl")
        path.write_bytes(b"\n".join(written) + b"\n" * ended)
        reader = JsonReader(str(path))
        assert reader.build_index(folder) == len(records)
        if records:
            start = data.draw(st.integers(0, len(records) - 1))
            end = data.draw(st.integers(start, len(records) - 1))
            window = reader.read_window(start, end)
            assert pickle.loads(pickle.dumps(window, 5))[:] == records[start : end + 1]
            assert window[:] == records[start : end + 1]
            assert pickle.loads(pickle.dumps(window, 5))[:] == records[start : end + 1]


def test_each_record_that_cannot_be_read_fails_alone_and_is_told_by_its_place(tmp_path: Path) -> None:
    path, data, places = tmp_path / "in.jsonl", lines(0, 5), {}
    for name, (line, why) in REFUSED.items():
        item = data.count(b"\n")
        places[item] = (f"{path}, line {item + 1}, byte {len(data)} (item {item}): ", why, name)
        data += line + b"\n" + lines(item + 1, item + 3)
    path.write_bytes(data)
    outcome = map_items(tmp_path, same, reader=JsonReader(str(path)), on_error="skip", max_retries=0, batch_size=16)
    assert outcome.ids == [item for item in range(data.count(b"\n")) if item not in places]
    told = {failure.item: failure.message for failure in outcome.failures if failure.item is not None}
    assert told.keys() == places.keys()
    for item, (place, why, _) in places.items():
        assert place in told[item]
        assert why in told[item]


def test_a_record_that_cannot_be_read_fails_a_job_that_wants_all(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(0, 9) + b'{"id":9,"id":9}\n' + lines(10, 20))
    outcome = map_and_fail(tmp_path, same, reader=JsonReader(str(path)))
    assert "in.jsonl, line 10, byte 81 (item 9): the key 'id' is there twice" in str(outcome.error)


def test_files_of_every_kind_are_one_input(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(0, 10).rstrip())
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(10, 15)) + gzip.compress(lines(15, 20)))
    (folder / "c.json.zst").write_bytes(zstandard.ZstdCompressor().compress(lines(20, 30)))
    (folder / "d.ndjson").write_bytes(b"")
    (folder / "e.ndjson").write_bytes(b"\n\n" + lines(30, 31) + b"\r\n")
    (folder / "manifest.json").write_bytes(b'{"id":"none of the input"}\n')
    (folder / "readme.txt").write_bytes(b"nor this\n")
    outcome = map_items(tmp_path, same, reader=JsonReader(str(folder)))
    assert outcome.ids == list(range(31))
    paths = [str(folder / "c.json.zst"), f"{folder}/*.jsonl*", str(folder / "e.ndjson")]
    outcome = map_items(tmp_path, same, reader=JsonReader(paths), overwrite=True)
    assert outcome.ids == [*range(20, 30), *range(20), 30]


def test_lines_parsed_ahead_are_new_items_for_each_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(0, 300))
    reader = JsonReader(str(path))
    window = reader.read_window(0, len(reader) - 1)
    spans = [(0, 1), (2, 2), (2, 5), (0, 9), (9, 200), (200, 290), (4, 4), (299, 299), (290, 299)]
    for start, end in spans:
        items = reader.decode(window, 0, start, end)
        assert [item["id"] for item in items] == list(range(start, end + 1))
        for item in items:
            item["id"] = None


def test_paths_in_a_list_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_bytes(lines(0, 2))
    Path("b.jsonl").write_bytes(lines(2, 4))
    outcome = map_items(tmp_path, same, reader=JsonReader(["b.jsonl", "a*.jsonl"]))
    spec = json.loads(outcome.job.folder.spec.read_bytes())
    assert spec["reader"]["path"] == [f"{tmp_path}/b.jsonl", f"{tmp_path}/a*.jsonl"]


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("none.jsonl", InputMissing, "none.jsonl: does not exist"),
        ("*.jsonl", InputMissing, r"\*.jsonl: no file matches"),
        ("texts", InputMissing, "texts: no file in this folder ends in .jsonl, .ndjson, .json"),
        ([], InputMissing, "a list of no files"),
        ("s3://KEY:SECRETSECRET@bucket/in.jsonl", UsageError, "credentials"),
    ],
)
def test_what_cannot_be_read_is_refused_before_there_is_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, error: type[Exception], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(error, match=said) as caught:
        map_items(tmp_path, same, reader=JsonReader(path))
    assert "SECRETSECRET" not in str(caught.value)
    assert not list(tmp_path.glob("home/jobs/*"))


def test_a_compressed_file_that_is_cut_off_ends_the_job(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(lines(0, 100))[:-10])
    with pytest.raises(InputDamaged, match=r"in\.jsonl\.gz: cut off"):
        map_items(tmp_path, same, reader=JsonReader(str(path)))


def test_objects_are_read_once_and_copied(
    moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.of(moto_bucket)
    store.put(f"{moto_bucket}/in/a.jsonl", lines(0, 20_000).rstrip())
    store.put(f"{moto_bucket}/in/b.jsonl", lines(20_000, 20_001))
    store.put(f"{moto_bucket}/in/c.jsonl.gz", gzip.compress(lines(20_001, 20_010)))
    size = sum(info.size for info in store.list(f"{moto_bucket}/in"))
    with proxy.running(moto) as between:
        use_s3(between.url, monkeypatch)
        reader = JsonReader(f"{moto_bucket}/in/*.jsonl*")
        outcome = map_items(tmp_path, same, reader=reader, batch_size=500, workers=2)
    assert outcome.ids == list(range(20_010))
    head_and_tail = 2 * (64 << 10)
    assert size <= between.received["GET"] <= size + head_and_tail + 10_000  # listings are in it
    assert not (outcome.job.folder.index / "copies").exists()


def test_without_a_job_objects_are_not_copied(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stores.of(moto_bucket).put(f"{moto_bucket}/in.jsonl", lines(0, 100))
    reader = JsonReader(f"{moto_bucket}/in.jsonl")
    assert len(reader) == 100
    assert reader.download_batch(7, 8, "") == [{"id": 7}, {"id": 8}]
    assert not list(tmp_path.rglob("copies"))


def test_objects_are_read_by_ranges_where_there_is_no_room(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "SHARE", 0)
    stores.of(moto_bucket).put(f"{moto_bucket}/in.jsonl", b"\xef\xbb\xbf" + lines(0, 5000) + b'{"id":}')
    reader = JsonReader(f"{moto_bucket}/in.jsonl")
    outcome = map_items(tmp_path, same, reader=reader, batch_size=50, on_error="skip", max_retries=0)
    assert outcome.ids == list(range(5000))
    assert f"{moto_bucket}/in.jsonl, line 5001, byte 58893 (item 5000): not JSON" in outcome.failures[-1].message


@pytest.mark.full
@pytest.mark.parametrize("kind", ["seaweedfs", "gcs"])
def test_real_stores_are_read(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bucket = request.getfixturevalue(f"{kind}_bucket")
    store = stores.of(bucket)
    store.put(f"{bucket}/in/a.jsonl", lines(0, 5000).rstrip())
    store.put(f"{bucket}/in/b.jsonl.zst", zstandard.ZstdCompressor().compress(lines(5000, 5010)))
    outcome = map_items(tmp_path, same, reader=JsonReader(f"{bucket}/in"), batch_size=500)
    assert outcome.ids == list(range(5010))


@pytest.mark.full
@pytest.mark.parametrize("share", [0.9, 0])
def test_a_store_in_bad_weather_is_slower_only(
    share: float, moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "SHARE", share)
    monkeypatch.setattr(copies, "BLOCK", 100_000)
    stores.of(moto_bucket).put(f"{moto_bucket}/in.jsonl", lines(0, 60_000))
    faults = [proxy.Status(), proxy.Reset(), None, None]
    with proxy.running(moto, lambda request: faults[request.number % 4]) as between:
        use_s3(between.url, monkeypatch)
        outcome = map_items(tmp_path, same, reader=JsonReader(f"{moto_bucket}/in.jsonl"), batch_size=500)
        assert between.faults() > 5
    assert outcome.ids == list(range(60_000))
    assert not outcome.failures


@pytest.mark.parametrize(
    "change", ["replace", *(pytest.param(name, marks=pytest.mark.full) for name in ("append", "delete"))]
)
def test_an_object_that_changed_stops_the_resume(
    change: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = stores.of(moto_bucket), f"{moto_bucket}/in.jsonl"
    store.put(path, lines(0, 10))
    script = write(tmp_path, "script.py", SCRIPT)
    killed = run(script, path, SKYBATCH_FAILPOINT="after-commit:2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if change == "delete":
        store.delete([path])
    else:
        store.put(path, lines(1, 11) if change == "replace" else lines(0, 11))
    resumed = command("resume", cwd=tmp_path)
    assert resumed.returncode == 4, resumed.stderr
    assert path in resumed.stderr
    assert not (tmp_path / "out.jsonl").exists()
    store.put(path, lines(0, 10))
    resumed = command("resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == lines(0, 10)


@pytest.mark.parametrize(
    "change", ["another", *(pytest.param(name, marks=pytest.mark.full) for name in ("fewer", "content"))]
)
def test_a_change_of_one_of_many_files_stops_the_resume(change: str, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_bytes(lines(number * 4, number * 4 + 4))
    script = write(tmp_path, "script.py", SCRIPT)
    killed = run(script, "[0-9].jsonl", SKYBATCH_FAILPOINT="after-commit:2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if change == "another":
        (tmp_path / "3.jsonl").write_bytes(b"")
    elif change == "fewer":
        (tmp_path / "2.jsonl").unlink()
    else:
        (tmp_path / "1.jsonl").write_bytes(lines(4, 8))
        os.utime(tmp_path / "1.jsonl", ns=(1, 1))
    resumed = command("resume", cwd=tmp_path)
    assert resumed.returncode == 4, resumed.stderr
    assert "[0-9].jsonl" in resumed.stderr


def truncating(batch: Batch) -> Batch:
    if batch[0]["id"] == 0:
        os.truncate(batch[0]["path"], 1000)
    return batch


def test_an_input_that_is_cut_off_meanwhile_ends_the_job_and_charges_no_item(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id":0,"path":"%s"}\n' % os.fsencode(path) + b"".join(b"%s\n" % PADDED for _ in range(5000)))
    outcome = map_and_fail(tmp_path, truncating, reader=JsonReader(str(path)), on_error="skip")
    assert "in.jsonl: has become shorter since" in str(outcome.error)
    assert not outcome.failures
    resumed = command("resume", cwd=tmp_path)
    assert resumed.returncode == 4, resumed.stderr


PADDED = b'{"id":1,"pad":"%s"}' % (b"x" * 1000)


@pytest.mark.full
def test_one_record_of_100_mb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        "script.py",
        """
        import skybatch

        def peak_mb():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

        def measure(batch):
            return [{"id": item["id"], "size": len(item["text"]), "peak": peak_mb()} for item in batch]

        if __name__ == "__main__":
            skybatch.Dataset(skybatch.JsonReader("in.jsonl")).map(
                measure, batch_size=1, workers=1, output=skybatch.JsonWriter("out.jsonl")
            )
            print(peak_mb())
        """,
    )
    with (tmp_path / "in.jsonl").open("w") as file:
        for number, size in enumerate([10, 100_000_000, 10]):
            file.write(f'{{"id": {number}, "text": "{"x" * size}"}}\n')
    engine_mb = int(run_well(script).stdout)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["size"]) for row in rows] == [(0, 10), (1, 100_000_000), (2, 10)]
    assert engine_mb < 80
    assert max(row["peak"] for row in rows) < 600
