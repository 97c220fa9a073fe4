"""Copies of inputs: whole, made once, and refused when what is compressed is not whole."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from skybatch.errors import InputDamaged, InputMissing, UsageError
from skybatch.formats import copies, source, stores
from skybatch.formats.source import InputFile

DATA = b"".join(b'{"n":%d}\n' % number for number in range(5000))
KINDS = {"gz": lambda data: gzip.compress(data), "zst": lambda data: zstandard.ZstdCompressor().compress(data)}


def write(path: Path, data: bytes) -> InputFile:
    path.write_bytes(data)
    return source.find(str(path))[0]


def content(file: InputFile, folder: Path) -> bytes:
    return Path(copies.content(file, str(folder)).path).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_file_has_one_decompressed_copy(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path / f"in.jsonl.{kind}", KINDS[kind](DATA))
    copy = copies.content(file, str(tmp_path / "job"))
    assert Path(copy.path).read_bytes() == DATA
    assert os.stat(copy.path).st_mode & 0o777 == 0o600
    assert copies.content(file, str(tmp_path / "job")) == copy  # its time is the same: it was not made again
    assert b"".join(copies.stream(file, str(tmp_path / "job"))) == DATA


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=5), size=st.sampled_from([1, 2, 7, 10_000]))
def test_members_and_frames_follow_each_other(kind: str, parts: list[bytes], size: int) -> None:
    data = b"".join(map(KINDS[kind], parts))
    out: list[bytes] = []
    decompress = copies._gunzip if kind == "gz" else copies._unzstd
    assert decompress((data[at : at + size] for at in range(0, len(data), size)), out.append)
    assert b"".join(out) == b"".join(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_much_out_of_little_is_written_piece_by_piece(kind: str) -> None:
    size = 64 << 20
    largest = total = 0

    def write(data: bytes) -> None:
        nonlocal largest, total
        largest, total = max(largest, len(data)), total + len(data)

    decompress = copies._gunzip if kind == "gz" else copies._unzstd
    assert decompress(iter([KINDS[kind](bytes(size))]), write)
    assert total == size
    assert kind == "zst" or largest <= copies.READ_SIZE


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_refused_and_leaves_no_copy(tmp_path: Path, kind: str) -> None:
    whole = KINDS[kind](b"some text\n" * 5)
    for size in range(len(whole)):
        file = write(tmp_path / f"in.{kind}", whole[:size])
        with pytest.raises(InputDamaged, match=rf"in\.{kind}: (cut off|damaged)"):
            copies.content(file, str(tmp_path / "job"))
    assert not [name for name in os.listdir(tmp_path / "job" / "copies") if not name.endswith(".lock")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_altered_is_refused(tmp_path: Path, kind: str) -> None:
    whole = bytearray(
        gzip.compress(DATA) if kind == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(DATA)
    )
    random.seed(7)
    for _ in range(20):
        altered = bytearray(whole)
        altered[random.randrange(20, len(whole))] ^= 1 << random.randrange(8)
        file = write(tmp_path / f"in.{kind}", bytes(altered))
        with pytest.raises(InputDamaged, match=r"damaged|cut off"):
            copies.content(file, str(tmp_path / "job"))


def test_zeros_behind_a_gzip_file_are_passed_over(tmp_path: Path) -> None:
    assert content(write(tmp_path / "in.gz", gzip.compress(DATA) + bytes(1000)), tmp_path / "job") == DATA
    with pytest.raises(InputDamaged):
        content(write(tmp_path / "in.gz", gzip.compress(DATA) + b"more"), tmp_path / "job")


def test_without_zstandard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    file = write(tmp_path / "in.zst", b"")
    with pytest.raises(UsageError, match=r"skybatch\[zstd\]"):
        copies.content(file, str(tmp_path))


@pytest.mark.full
def test_processes_that_want_the_same_copy_make_it_once(tmp_path: Path) -> None:
    file = write(tmp_path / "in.gz", gzip.compress(os.urandom(10 << 20), 1))
    script = (
        "import os, sys; from skybatch.formats import copies, source\n"
        "copy = copies.content(source.find(sys.argv[1])[0], sys.argv[2])\n"
        "print(os.stat(copy.path).st_ino)"
    )
    command = [sys.executable, "-c", script, file.path, str(tmp_path / "job")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)


def test_objects_are_copied_while_there_is_room(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.of(moto_bucket)
    monkeypatch.setattr(copies, "BLOCK", 1000)
    contents = {"a": DATA, "b": b"", "c": DATA[:1000], "d": DATA[:1001]}
    for name, data in contents.items():
        store.put(f"{moto_bucket}/in/{name}", data)
    store.put(f"{moto_bucket}/in/e.gz", gzip.compress(DATA))
    files = source.find(f"{moto_bucket}/in/")
    assert [file.path.rsplit("/", 1)[1] for file in files] == ["a", "b", "c", "d", "e.gz"]
    monkeypatch.setattr(copies, "SHARE", 0)
    copies.fetch(files, str(tmp_path))
    assert copies.content(files[0], str(tmp_path)) == files[0]
    assert b"".join(copies.stream(files[0], str(tmp_path))) == DATA
    monkeypatch.setattr(copies, "SHARE", 0.9)
    copies.fetch(files, str(tmp_path))
    for file, data in zip(files, [*contents.values(), DATA], strict=True):
        assert content(file, tmp_path) == data


def test_an_object_that_changes_meanwhile_is_not_copied(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "BLOCK", 1000)
    stores.of(moto_bucket).put(f"{moto_bucket}/in", DATA)
    files = source.find(f"{moto_bucket}/in")
    stores.of(moto_bucket).put(f"{moto_bucket}/in", DATA[::-1])
    with pytest.raises(InputMissing, match="has changed"):
        copies.fetch(files, str(tmp_path))
    assert not os.listdir(tmp_path / "copies")
