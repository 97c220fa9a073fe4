"""Files and images as items; the counter."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import skybatch
from skybatch.errors import InputMissing, RecordError, UnknownName, UsageError
from skybatch.formats import files as files_module
from skybatch.formats import source
from skybatch.formats.base import InputReader
from tests.tools.mapping import map_items

Batch = list[dict[str, Any]]
NAMES = ["a.txt", "b-c/d.bin", "b/c.txt", "b/c/d.txt", "b0.txt"]


def write_tree(folder: Path) -> Path:
    """Files named NAMES with their names in them, and some that nobody asked for."""
    for name in [*NAMES, ".hidden", "_underscore", "b/.git/x"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "b/c.txt").write_bytes(b"")
    return folder


def items_of(reader: InputReader) -> Batch:
    """All of them."""
    return reader.download_batch(0, len(reader) - 1, "")


def picture(color: str, format: str = "PNG") -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), color).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [-1, 2.0, "5", True, None])
def test_a_counter_counts_to_a_whole_number(count: Any) -> None:
    with pytest.raises(UsageError, match="count must be a whole number"):
        skybatch.CounterReader(count).check()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("tree", NAMES),
        ("tree/", NAMES),
        ("tree/*.txt", ["a.txt", "b0.txt"]),
        ("tree/**/*.txt", ["a.txt", "b/c.txt", "b/c/d.txt", "b0.txt"]),
        ("tree/b/c.txt", ["c.txt"]),
        ("tree/b*/c.txt", ["b/c.txt"]),
        (["tree/b", "tree/a.txt"], ["b/c.txt", "b/c/d.txt", "a.txt"]),
        (["tree/b0.txt", "tree/a.txt"], ["b0.txt", "a.txt"]),
    ],
)
def test_names_are_relative_to_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str | list[str], names: list[str]
) -> None:
    write_tree(tmp_path / "tree")
    monkeypatch.chdir(tmp_path)
    assert [item["path"] for item in items_of(skybatch.FilesReader(pattern))] == names


def test_a_file_that_changed_or_went_is_its_own_failure(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "tree")
    reader = skybatch.FilesReader(str(folder))
    assert len(reader) == 5
    (folder / "a.txt").unlink()
    (folder / "b0.txt").write_text("longer than it was")
    window = reader.read_window(0, 4)
    assert [item["path"] for item in reader.decode(window, 0, 1, 3)] == NAMES[1:4]
    with pytest.raises(RecordError, match=r"a\.txt: does not exist \(item 0\)") as caught:
        reader.decode(window, 0, 0, 4)
    assert caught.value.item == 0
    with pytest.raises(RecordError, match=r"b0\.txt: has changed .*\(item 4\)") as caught:
        reader.decode(window, 0, 1, 4)
    assert caught.value.item == 4


def test_content_may_be_left_out(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "tree")
    items = items_of(skybatch.FilesReader(f"{folder}/*.txt", content="none"))
    assert items == [{"path": name, "file": str(folder / name)} for name in ("a.txt", "b0.txt")]
    with pytest.raises(UnknownName, match="unknown content 'byte'; did you mean 'bytes'"):
        skybatch.FilesReader(str(folder), content="byte").check()


def test_windows_are_bounded_in_files_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "WINDOW_FILES", 3)
    monkeypatch.setattr(files_module, "WINDOW_BYTES", 100)
    for number, size in enumerate([10, 10, 10, 10, 95, 10, 500, 100, 0, 1]):
        (tmp_path / f"{number}").write_bytes(b"x" * size)
    reader = skybatch.FilesReader(str(tmp_path))
    ends, start = [], 0
    while start < len(reader):
        ends.append(reader.window_end(start, len(reader) - 1))
        start = ends[-1] + 1
    assert ends == [2, 3, 4, 5, 6, 8, 9]
    assert reader.window_end(0, 1) == 1


def test_a_folder_of_other_things_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputMissing, match="no file in this folder is of the kind wanted"):
        skybatch.ImageReader(str(tmp_path)).check()
    with pytest.raises(InputMissing, match="no file matches"):
        skybatch.ImageReader(f"{tmp_path}/*.png").check()
    with pytest.raises(InputMissing, match="list of no files"):
        skybatch.FilesReader([]).check()


def test_what_a_glob_names_is_taken_for_an_image(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(picture("red"))
    assert [item["path"] for item in items_of(skybatch.ImageReader(f"{tmp_path}/pic*"))] == ["picture"]
    (tmp_path / "picture").write_text("not one")
    with pytest.raises(RecordError, match=r"picture: not an image that Pillow knows \(item 0\)"):
        items_of(skybatch.ImageReader(f"{tmp_path}/pic*"))


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n.txt")
    (tmp_path / name).write_text("x")
    assert items_of(skybatch.FilesReader(str(tmp_path))) == [{"path": name, "bytes": b"x"}]


def test_an_error_of_the_store_is_no_items(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [(index, source.InputFile(path=f"s3://bucket/{index}", size=1, version="v")) for index in range(100)]

    def fail(index: int, file: source.InputFile) -> bytes:
        if index == 50:
            raise OSError("no answer")
        return b"%d" % index

    monkeypatch.setattr(files_module, "_content", fail)
    with pytest.raises(OSError, match="no answer"):
        files_module._in_parallel(wanted)
    assert files_module._in_parallel(wanted[:50]) == [b"%d" % index for index in range(50)]


def halved(batch: Batch) -> Batch:
    return [{"name": item["path"], "image": item["image"].resize((2, 1))} for item in batch]


def test_a_job_from_folder_to_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.png").write_bytes(picture("red"))
    (folder / "11.png").write_bytes(b"torn")
    outcome = map_items(
        tmp_path,
        halved,
        reader=skybatch.ImageReader(str(folder)),
        output=skybatch.ImageWriter(str(tmp_path / "out")),
        on_error="skip",
        max_retries=0,
    )
    written = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert written == [f"{number:08d}.png" for number in range(30) if number != 11]
    with PIL.Image.open(tmp_path / "out" / written[0]) as image:
        assert image.size == (2, 1)
    assert {failure.item for failure in outcome.failures} == {11}
    assert "11.png: not an image" in outcome.failures[-1].message


def sizes(batch: Batch) -> Batch:
    return [{"path": item["path"], "size": len(item["bytes"])} for item in batch]


def test_a_job_over_files_and_one_that_counts(tmp_path: Path) -> None:
    reader = skybatch.FilesReader(str(write_tree(tmp_path / "tree")))
    outcome = map_items(tmp_path, sizes, reader=reader, batch_size=2)
    assert outcome.rows == [{"path": name, "size": 0 if name == "b/c.txt" else len(name)} for name in NAMES]
    counted = tmp_path / "counted.jsonl"
    map_items(tmp_path, same, reader=skybatch.CounterReader(10), output=skybatch.JsonWriter(str(counted)))
    assert [json.loads(line)["index"] for line in counted.read_text().splitlines()] == list(range(10))


def same(batch: Batch) -> Batch:
    return batch
