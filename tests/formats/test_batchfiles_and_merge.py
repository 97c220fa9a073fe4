"""Which batch files count, and how they become one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch import JsonWriter
from skybatch.errors import MissingBatches, SegmentDamaged
from skybatch.formats import batchfiles, joining, staging, storage
from skybatch.formats.batchfiles import Stretch
from skybatch.formats.merge import Merger, Piece
from skybatch.formats.segment import SegmentFile


def put(output: Path, start: int, end: int, nonce: str, text: str = "x") -> str:
    batchfiles.set_attempt(nonce)
    path = batchfiles.batch_path(str(output), start, end, "job")
    storage.write_bytes(path, text.encode())
    return path


@pytest.fixture(autouse=True)
def no_catalogue() -> Iterator[None]:
    yield
    batchfiles._catalogues.clear()
    batchfiles.set_attempt("0")


def test_two_attempts_at_a_range_have_two_files(tmp_path: Path) -> None:
    assert put(tmp_path / "out", 0, 3, "aa") != put(tmp_path / "out", 0, 3, "bb")


def test_outputs_and_jobs_in_one_folder_keep_apart(tmp_path: Path) -> None:
    folders = {
        batchfiles.folder(str(tmp_path / "a.jsonl"), "job"),
        batchfiles.folder(str(tmp_path / "b.jsonl"), "job"),
        batchfiles.folder(str(tmp_path / "a.jsonl"), "other"),
    }
    assert len(folders) == 3
    assert batchfiles.folder(str(tmp_path / "a") + "/", "job") == batchfiles.folder(str(tmp_path / "a"), "job")


def test_listing_without_a_catalogue_takes_a_cover_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out"
    want = [put(out, 0, 3, "aa"), put(out, 4, 7, "bb")]
    put(out, 0, 1, "cc")  # a half of the first, before it was won whole
    put(out, 4, 7, "dd")
    (Path(want[0]).parent / "stray.jsonl").write_text("y")
    assert batchfiles.list_files(str(out), "job") == want


def test_gap_and_nothing_at_all_are_errors(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MissingBatches, match="no batch files of job job"):
        batchfiles.list_files(str(out), "job")
    put(out, 0, 3, "aa")
    put(out, 8, 9, "bb")
    with pytest.raises(MissingBatches, match="items 4-7 are missing"):
        batchfiles.list_files(str(out), "job")


def test_catalogue_decides_whatever_lies_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    want = [put(out, 0, 3, "aa"), put(out, 4, 5, "aa"), put(out, 6, 7, "bb")]
    put(out, 0, 7, "cc")
    batchfiles.set_catalogue("job", lambda: [Stretch(0, 5, 4, "aa"), Stretch(6, 7, 4, "bb")])
    assert batchfiles.list_files(str(out), "job") == want
    Path(want[1]).unlink()
    with pytest.raises(MissingBatches, match="items 4-5 are missing"):
        batchfiles.list_files(str(out), "job")


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 9))
def test_a_stretch_is_cut_into_its_ranges(start: int, length: int, size: int) -> None:
    end = start + length - 1
    cut = list(batchfiles.ranges([Stretch(start, end, size, "n")]))
    assert [item for low, high, _ in cut for item in range(low, high + 1)] == list(range(start, end + 1))
    assert all(high - low + 1 == size for low, high, _ in cut[:-1])


def test_delete_removes_the_empty_folders_above_and_no_others(tmp_path: Path) -> None:
    put(tmp_path / "a", 0, 3, "aa")
    put(tmp_path / "b", 0, 3, "aa")
    batchfiles.delete(str(tmp_path / "a"), "job")
    assert (tmp_path / batchfiles.TEMP_NAME / "job" / "b").is_dir()
    batchfiles.delete(str(tmp_path / "b"), "job")
    batchfiles.delete(str(tmp_path / "b"), "job")
    assert list(tmp_path.iterdir()) == []


def test_concatenation_replaces_the_target_only_when_all_files_are_there(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name * 3)
    target = tmp_path / "new" / "out"
    joining.concatenate([str(tmp_path / "a"), str(tmp_path / "b")], str(target))
    assert target.read_text() == "aaabbb"
    with pytest.raises((OSError, SegmentDamaged)):
        joining.concatenate([str(tmp_path / "b"), str(tmp_path / "gone")], str(target))
    assert target.read_text() == "aaabbb"
    assert list(target.parent.iterdir()) == [target]


def test_merger_notices_a_file_that_is_short_or_gone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    merger = Merger(str(tmp_path / "out"), b"<")
    merger.add(Piece(str(tmp_path / "a"), 1, 2))
    with pytest.raises(SegmentDamaged, match="2 bytes are missing"):
        merger.add(Piece(str(tmp_path / "a"), 2, 3))
    with pytest.raises(SegmentDamaged, match="gone"):
        merger.add(Piece(str(tmp_path / "gone"), 0, 1))
    merger.close()
    merger.close()


def test_merging_by_hand_joins_segments_and_refuses_gaps(tmp_path: Path) -> None:
    writer = JsonWriter(str(tmp_path / "out.jsonl"))
    folder = Path(batchfiles.folder(writer.path, "job"))
    folder.mkdir(parents=True)

    def segment(start: int, nonce: str) -> None:
        file = SegmentFile(folder, nonce)
        for at in (start, start + 2):
            file.append(at, at + 1, 1, writer.encode([{"id": at}, {"id": at + 1}], at))
        file.seal()

    segment(4, "bb")
    with pytest.raises(MissingBatches, match="items 0-3 are missing"):
        writer.reduce_results("job")
    assert not Path(writer.path).exists()
    segment(0, "aa")
    writer.reduce_results("job")
    assert Path(writer.path).read_text() == "".join(f'{{"id":{index}}}\n' for index in range(8))
    writer.cleanup("job")
    assert list(tmp_path.iterdir()) == [Path(writer.path)]


def test_only_the_writers_own_path_is_held_back(tmp_path: Path) -> None:
    own, staged, other = (str(tmp_path / name) for name in ("own", "staged", "other"))
    with staging.held_back(f"file://{own}", staged) as held:
        assert staging.target(other) == other and not held.written
        assert staging.target(f"{tmp_path}/./own") == staged and held.written
    assert staging.target(own) == own
