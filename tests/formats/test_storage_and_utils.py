"""Bytes at a path: all of them, or what was there before."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skybatch import utils
from skybatch.errors import UsageError
from skybatch.formats import storage


@pytest.fixture
def tight_umask() -> Iterator[None]:
    before = os.umask(0o777)
    yield
    os.umask(before)


def test_a_write_makes_folders_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    for data in (b"one", b"", b"three" * 100_000):
        storage.write_bytes(str(path), data)
        assert path.read_bytes() == data == storage.read_bytes(f"file://{path}")
    assert os.listdir(path.parent) == ["c"]


def test_failed_write_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    storage.write_bytes(str(path), b"before")

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(str(path), b"after")
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["c"]


def test_unfinished_files_lie_in_the_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    seen: list[list[str]] = []
    write_all = storage.write_all
    monkeypatch.setattr(
        storage, "write_all", lambda fd, data: (seen.append(os.listdir(tmp_path / "scratch")), write_all(fd, data))
    )
    storage.use_scratch(str(tmp_path / "scratch"))
    try:
        storage.write_bytes(str(tmp_path / "out" / "c"), b"x")
    finally:
        storage.use_scratch(None)
    assert len(seen[0]) == 1 and os.listdir(tmp_path / "out") == ["c"] and os.listdir(tmp_path / "scratch") == []


def test_files_and_folders_stay_the_owners_under_any_umask(tmp_path: Path, tight_umask: None) -> None:
    path = tmp_path / "folder" / "file"
    storage.write_bytes(str(path), b"x")
    assert path.parent.stat().st_mode & 0o700 == 0o700
    assert path.stat().st_mode & 0o600 == 0o600


def test_paths_of_other_stores_are_no_local_paths() -> None:
    assert storage.local_path("/a/../b/") == "/b/"
    assert storage.local_path("file:///a/b") == "/a/b"
    assert storage.local_path("~/x") == os.path.expanduser("~/x")
    with pytest.raises(UsageError, match="only local paths"):
        storage.local_path("s3://bucket/x")


def test_private_descriptors_lie_above_what_careless_code_closes(tmp_path: Path) -> None:
    fd = storage.private(os.open(tmp_path, os.O_RDONLY))
    assert fd >= storage.FIRST_PRIVATE_FD and not os.get_inheritable(fd)
    os.close(fd)


def test_private_descriptor_closed_by_others_is_not_soon_another_files(tmp_path: Path) -> None:
    first = storage.private(os.open(tmp_path, os.O_RDONLY))
    os.close(first)
    for _ in range(storage.PRIVATE_FDS // 2):
        fd = storage.private(os.open(tmp_path, os.O_RDONLY))
        assert fd != first
        os.close(fd)


def test_every_store_that_fsspec_knows_can_be_written() -> None:
    utils.save_jsonl_to_cloud([{"a": 1}, {"a": "ä"}], "memory://some/rows.jsonl")
    assert utils.load_jsonl_from_cloud("memory://some/rows.jsonl") == [{"a": 1}, {"a": "ä"}]
    path = utils.get_batch_path("memory://some/out.jsonl", 0, 1, "job")
    utils.save_jsonl_to_cloud([{"a": 1}], path)
    assert utils.list_batch_files("memory://some/out.jsonl", "job") == [path]
    utils.concatenate_batches_to_output("memory://some/out.jsonl", "job")
    assert utils.load_jsonl_from_cloud("memory://some/out.jsonl") == [{"a": 1}]
    utils.delete_batch_files("memory://some/out.jsonl", "job")
    utils.delete_batch_files("memory://some/out.jsonl", "job")
    utils.delete_input_batch_files("memory://some/out.jsonl", "job")


def test_json_lines_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.jsonl")
    utils.upload_bytes_to_cloud(b'{"a":1}\r\n\n{"a":2}', path)
    assert utils.load_jsonl_from_cloud(path) == [{"a": 1}, {"a": 2}]
    with pytest.raises(TypeError):
        utils.save_jsonl_to_cloud([{"a": {1}}], path)
    assert utils.load_jsonl_from_cloud(path) == [{"a": 1}, {"a": 2}]
    with pytest.raises(FileNotFoundError):
        utils.load_jsonl_from_cloud(str(tmp_path / "gone"))
