"""JSON Lines in compressed files and in shards: the same bytes however results arrived."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skybatch.errors import UsageError
from skybatch.formats import compressed
from skybatch.formats.base import SegmentWriter
from skybatch.formats.csv_writer import CsvWriter
from skybatch.formats.json_format import JsonWriter
from skybatch.formats.parquet_writer import ParquetWriter
from skybatch.formats.yaml_format import YamlWriter
from tests.tools.assembling import assembled, cut_everywhere, payloads

ROWS = [{"id": index, "text": "word " * (index * 7 % 23)} for index in range(40)]
PLAIN = JsonWriter("x.jsonl").encode(ROWS, 0)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "FRAME_SIZE", 1000)


def unpacked(name: str, data: bytes) -> bytes:
    """What a file of this name holds, by another decompressor than wrote it."""
    if name.endswith(".gz"):
        return gzip.decompress(data)
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.jsonl.zst"])
@in_one_folder
@given(cuts=cut_everywhere(len(ROWS)))
def test_a_compressed_file_does_not_depend_on_batches(
    name: str, cuts: list[int], tmp_path: Path, small_frames: None
) -> None:
    writer = JsonWriter(str(tmp_path / name))
    data = assembled(writer, payloads(writer, ROWS, cuts), tmp_path / "staged")
    assert data == assembled(writer, payloads(writer, ROWS, []), tmp_path / "staged")
    assert unpacked(name, data) == PLAIN


def test_frames_have_one_size_and_carry_no_time(small_frames: None, tmp_path: Path) -> None:
    writer = JsonWriter(str(tmp_path / "out.jsonl.gz"))
    left = assembled(writer, payloads(writer, ROWS, []), tmp_path / "staged")
    sizes = []
    while left:
        assert left[4:8] == bytes(4)
        frame = zlib.decompressobj(wbits=31)
        sizes.append(len(frame.decompress(left)))
        left = frame.unused_data
    assert len(sizes) > 2 and set(sizes[:-1]) == {1000} and sum(sizes) == len(PLAIN)


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.jsonl.zst"])
def test_an_empty_output_is_a_whole_file(name: str, tmp_path: Path) -> None:
    data = assembled(JsonWriter(name), [b""], tmp_path / "staged")
    assert data and unpacked(name, data) == b""


@pytest.mark.parametrize(
    "writer",
    [
        *(JsonWriter("out.jsonl" + ending) for ending in ("", ".gz", ".zst")),
        *(CsvWriter("out.csv" + ending, column=column) for ending in ("", ".gz") for column in (None, ["a"])),
        *(YamlWriter("out.yaml" + ending) for ending in ("", ".gz")),
        JsonWriter("out", shard_size=10),
        ParquetWriter("out.parquet"),
    ],
    ids=repr,
)
def test_writers_know_whether_they_are_assembled(writer: SegmentWriter, tmp_path: Path) -> None:
    with (tmp_path / "sink").open("w+b") as sink:
        assert writer.is_assembled == (writer.assembler(sink, None) is not None)


def test_one_payload_of_many_frames(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(5 << 20).hex()
    writer = JsonWriter("big.jsonl.zst")
    data = assembled(writer, payloads(writer, [{"noise": noise}], []), tmp_path / "staged")
    assert json.loads(unpacked("big.jsonl.zst", data)) == {"noise": noise}


# Shards


def shards(folder: Path, cuts: list[int], rows: list[dict[str, Any]], **fields: Any) -> dict[str, bytes]:
    """Every file of an output of shards, the manifest included, as they are before they are put in place."""
    writer = JsonWriter(str(folder / "out"), **fields)
    writer.check()
    manifest = assembled(writer, payloads(writer, rows, cuts), folder / "job" / "staged")
    assert not (folder / "out").exists()
    assert writer.commit_path() == str(folder / "out" / "manifest.json")
    files = {path.name: path.read_bytes() for path in sorted((folder / "job" / "staged.files").glob("*"))}
    told = json.loads(manifest)
    assert told["rows"] == len(rows)
    assert [(entry["name"], entry["size"]) for entry in told["files"]] == [(n, len(data)) for n, data in files.items()]
    return {**files, "manifest.json": manifest}


@in_one_folder
@given(cuts=cut_everywhere(len(ROWS)), size=st.integers(200, 3000), packed=st.sampled_from([None, "gzip"]))
def test_shards_do_not_depend_on_batches(cuts: list[int], size: int, packed: str | None, tmp_path: Path) -> None:
    """Nor on what an earlier try left there."""
    files = shards(tmp_path, cuts, ROWS, shard_size=size, compression=packed)
    assert files == shards(tmp_path, [], ROWS, shard_size=size, compression=packed)


@pytest.mark.parametrize(("packed", "ending"), [(None, ""), ("gzip", ".gz"), ("zstd", ".zst")])
def test_a_shard_ends_with_the_record_that_reaches_its_size(packed: str | None, ending: str, tmp_path: Path) -> None:
    files = shards(tmp_path, [3, 30], ROWS, shard_size=500, compression=packed)
    manifest = json.loads(files.pop("manifest.json"))
    assert list(files) == [f"part-{number:05d}.jsonl{ending}" for number in range(len(files))]
    parts = [unpacked(name, data) if packed else data for name, data in files.items()]
    assert b"".join(parts) == PLAIN
    assert [entry["rows"] for entry in manifest["files"]] == [part.count(b"\n") for part in parts]
    for part in parts[:-1]:
        assert len(part) >= 500 > len(part) - len(part.splitlines(keepends=True)[-1])


def test_no_results_are_no_shards(tmp_path: Path) -> None:
    assert list(shards(tmp_path, [], [], shard_size=10)) == ["manifest.json"]


def test_shards_that_an_earlier_try_had_more_of_are_removed(tmp_path: Path) -> None:
    many = shards(tmp_path, [], ROWS, shard_size=300)
    few = shards(tmp_path, [], ROWS[:5], shard_size=300)
    assert 1 < len(few) < len(many)
    assert list(shards(tmp_path, [], [], shard_size=300)) == ["manifest.json"]


# Fields


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"shard_size": "lots"}, "shard_size must be a number of bytes"),
        ({"shard_size": 0}, "shard_size must be a number of bytes"),
        ({"shard_size": True}, "shard_size must be a number of bytes"),
        ({"shard_size": "3 MBit"}, "shard_size must be a number of bytes"),
        ({"compression": "gzip"}, "the file's name must end in .gz"),
        ({"shard_size": 1, "compression": "bzip2"}, "compression must be one of gzip, zstd"),
        ({"shard_size": 1, "compression": "zst"}, "not 'zst'; did you mean 'zstd'?"),
        ({"column": ["a", "a"]}, "a key twice"),
    ],
)
def test_fields_that_make_no_sense(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        JsonWriter("out", **fields).check()


@pytest.mark.parametrize(
    ("size", "expected"), [(5, 5), ("7", 7), ("256MB", 256_000_000), ("1.5 GiB", 3 << 29), ("2kb", 2000)]
)
def test_sizes(size: int | str, expected: int) -> None:
    from skybatch.formats.shards import size_in_bytes

    assert size_in_bytes("x", size) == expected
