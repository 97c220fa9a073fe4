"""Files are found in order by path, glob, folder and list, read at any offset, and told from changed ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from skybatch.errors import InputMissing, UsageError
from skybatch.formats import source, stores

TREE = (
    "a.jsonl",
    "b.jsonl",
    "b.txt",
    ".hidden.jsonl",
    "_part.jsonl",
    "sub/c.jsonl",
    "sub/deep/d.jsonl",
    "sub/.git/e.jsonl",
    "_tmp/f.jsonl",
    "sub2/[1].jsonl",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def found(root: Path, *patterns: str) -> list[str]:
    return [os.path.relpath(file.path, root) for file in source.find([f"{root}/{pattern}" for pattern in patterns])]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.jsonl", ["a.jsonl"]),
        (".hidden.jsonl", [".hidden.jsonl"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("_*.jsonl", ["_part.jsonl"]),
        ("[ab].*", ["a.jsonl", "b.jsonl", "b.txt"]),
        ("*/*.jsonl", ["sub/c.jsonl", "sub2/[1].jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl", "sub2/[1].jsonl"]),
        ("sub/**", ["sub/c.jsonl", "sub/deep/d.jsonl"]),
        ("**/deep/*", ["sub/deep/d.jsonl"]),
        ("s?b/c.jsonl", ["sub/c.jsonl"]),
        ("", ["a.jsonl", "b.jsonl", "b.txt", "sub/c.jsonl", "sub/deep/d.jsonl", "sub2/[1].jsonl"]),
        ("sub/", ["sub/c.jsonl", "sub/deep/d.jsonl"]),
        ("sub2/[1].jsonl", ["sub2/[1].jsonl"]),
    ],
)
def test_paths_globs_and_folders_are_found_sorted(tree: Path, pattern: str, names: list[str]) -> None:
    assert found(tree, pattern) == names


def test_a_list_keeps_its_order_and_its_repetitions(tree: Path) -> None:
    assert found(tree, "b.txt", "*.jsonl", "b.txt") == ["b.txt", "a.jsonl", "b.jsonl", "b.txt"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("none.jsonl", "none.jsonl: does not exist"),
        ("a.jsonl/x", "a.jsonl/x: does not exist"),
        ("*.parquet", r"\*.parquet: no file matches"),
        ("_tmp/.none/*", "no file matches"),
        ("empty", "empty: a folder with no files in it"),
        ("fifo", "fifo: is no regular file"),
    ],
)
def test_what_is_not_there_is_named(tree: Path, pattern: str, said: str) -> None:
    (tree / "empty").mkdir()
    os.mkfifo(tree / "fifo")
    with pytest.raises(InputMissing, match=said):
        found(tree, "a.jsonl", pattern)


def test_a_list_of_nothing_is_refused() -> None:
    with pytest.raises(InputMissing, match="no files"):
        source.find([])


def test_credentials_in_a_path_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        source.find("s3://KEY:SECRETSECRET@bucket/in.jsonl")
    assert "SECRETSECRET" not in str(caught.value)


def test_any_bytes_of_a_file_are_read(tmp_path: Path) -> None:
    data = os.urandom(1000)
    (tmp_path / "in").write_bytes(data)
    opened = source.open_file(source.find(f"file://{tmp_path}/in")[0])
    for offset, length in ((0, 1000), (0, 1), (999, 1), (500, 10_000), (1000, 1), (5000, 1), (3, 0)):
        assert opened.read(offset, length) == data[offset : offset + length]
    opened.close()


def test_a_file_that_was_replaced_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("one")
    (file,) = source.find(str(path))
    path.write_text("two, longer")
    with pytest.raises(InputMissing, match="has changed"):
        source.open_file(file)
    path.unlink()
    with pytest.raises(InputMissing, match="does not exist"):
        source.open_file(file)


def test_a_fingerprint_is_taken_of_files_as_they_come(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}").write_text(f"file {number}")
    for pattern in (str(tmp_path), f"{tmp_path}/1"):
        found = source.find(pattern)
        told = source.fingerprint(source.walk(pattern))
        assert told == source.fingerprint(found)
        assert (told["files"], told["size"]) == (len(found), 6 * len(found))
        assert (told["version"] == found[0].version) == (len(found) == 1)


def test_the_fingerprint_tells_every_change(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("x" * 100)
        os.utime(tmp_path / name, ns=(10**18, 10**18))

    def now() -> dict[str, object]:
        return source.fingerprint(source.find([str(tmp_path / "a"), f"{tmp_path}/b*"]))

    before = now()
    assert before == now()
    (tmp_path / "b").write_text("y" * 100)
    os.utime(tmp_path / "b", ns=(10**18, 10**18))
    assert {key for key, value in now().items() if value != before[key]} == {"sample"}
    (tmp_path / "b").write_text("x" * 100)
    assert {key for key, value in now().items() if value != before[key]} == {"version"}
    (tmp_path / "b2").write_text("z")
    assert {key for key, value in now().items() if value != before[key]} == {"files", "size", "version", "sample"}


def test_objects_are_found_by_path_glob_folder_and_list(moto_bucket: str) -> None:
    store = stores.of(moto_bucket)
    names = [
        "in/a.jsonl",
        "in/b.jsonl",
        "in/_c.jsonl",
        "in/sub/d.jsonl",
        "in/sub/.e",
        "in/sub/deep/f.txt",
        "in2/g.jsonl",
    ]
    for name in names:
        store.put(f"{moto_bucket}/{name}", name.encode())

    def found(*patterns: str) -> list[str]:
        paths = [f"{moto_bucket}/{pattern}" for pattern in patterns]
        return [file.path.removeprefix(f"{moto_bucket}/") for file in source.find(paths)]

    assert found("in/a.jsonl") == ["in/a.jsonl"]
    assert found("in") == found("in/") == ["in/a.jsonl", "in/b.jsonl", "in/sub/d.jsonl", "in/sub/deep/f.txt"]
    assert found("in/*.jsonl") == ["in/a.jsonl", "in/b.jsonl"]
    assert found("in*/*.jsonl") == ["in/a.jsonl", "in/b.jsonl", "in2/g.jsonl"]
    assert found("**/*.jsonl") == ["in/a.jsonl", "in/b.jsonl", "in/sub/d.jsonl", "in2/g.jsonl"]
    assert found("in/sub/d*", "in/_*", "in/a.jsonl") == ["in/sub/d.jsonl", "in/_c.jsonl", "in/a.jsonl"]
    with pytest.raises(UsageError, match="below a bucket"):
        source.find("s3://buck*/in.jsonl")
    for nothing in ("none", "in/*.csv", "in/a.jsonl/"):
        with pytest.raises(InputMissing, match=re.escape(nothing)):
            found(nothing)


def test_an_object_is_read_at_any_offset_in_the_version_that_was_found(moto_bucket: str) -> None:
    data = os.urandom(1000)
    stores.of(moto_bucket).put(f"{moto_bucket}/in", data)
    (file,) = source.find(f"{moto_bucket}/in")
    opened = source.open_file(file)
    for offset, length in ((0, 1000), (0, 1), (999, 1), (500, 10_000), (1000, 1), (5000, 1), (3, 0)):
        assert opened.read(offset, length) == data[offset : offset + length]
    stores.of(moto_bucket).put(f"{moto_bucket}/in", data[::-1])
    with pytest.raises(InputMissing, match="has changed"):
        opened.read(0, 10)
    stores.of(moto_bucket).delete([file.path])
    with pytest.raises(InputMissing, match="does not exist"):
        opened.read(0, 10)


def test_a_web_server_that_gives_ranges_is_read(moto: str, moto_bucket: str) -> None:
    store = stores.of(moto_bucket)
    store.put(f"{moto_bucket}/in.jsonl", b'{"id":0}\n{"id":1}\n')
    name = moto_bucket.removeprefix("s3://")
    store.call(moto_bucket, "put_object_acl", Bucket=name, Key="in.jsonl", ACL="public-read")  # type: ignore[attr-defined]
    (file,) = source.find(f"{moto}/{name}/in.jsonl")
    assert (file.size, source.open_file(file).read(9, 100)) == (18, b'{"id":1}\n')
    with pytest.raises(InputMissing, match="does not exist"):
        source.find(f"{moto}/{name}/none.jsonl")
