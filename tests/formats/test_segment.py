"""Segment files: what goes in comes out, and damage is noticed."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skybatch.errors import SegmentDamaged
from skybatch.formats.segment import RANGES_MAX, TRAILER, SegmentFile, check_payloads, payloads, read_index, remembering

Batches = list[tuple[int, bytes]]  # items, payload


def write(folder: Path, batches: Batches, first: int = 0) -> Path:
    segment = SegmentFile(folder, "abc")
    for count, payload in batches:
        segment.append(first, first + count - 1, 1, payload)
        first += count
    return folder / segment.seal().name


@settings(deadline=None)  # it syncs files
@given(st.lists(st.tuples(st.integers(1, 9), st.binary(max_size=50)), min_size=1), st.integers(0, 1 << 40))
def test_every_range_comes_back(batches: Batches, first: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), batches, first)
        index, data = read_index(path), path.read_bytes()
        entries = index.entries()
        assert list(payloads(index, first, entries[-1].end)) == [payload for _, payload in batches]
    assert [data[e.offset : e.offset + e.length] for e in entries] == [payload for _, payload in batches]
    assert [e.crc for e in entries] == [zlib.crc32(payload) for _, payload in batches]
    assert index.data_size == sum(len(payload) for _, payload in batches)


def test_part_of_a_segment_is_whole_ranges(tmp_path: Path) -> None:
    index = read_index(write(tmp_path, [(2, b"aa"), (2, b"bbb"), (1, b"c")]))
    assert [(entry.offset, entry.length) for entry in index.part(2, 4)] == [(2, 3), (5, 1)]
    assert list(payloads(index, 2, 4)) == [b"bbb", b"c"]
    with pytest.raises(SegmentDamaged, match="not whole ranges"):
        index.part(1, 4)


def test_any_part_is_found_and_nothing_else(tmp_path: Path) -> None:
    index = read_index(write(tmp_path, [(3, b"a"), (1, b""), (2, b"b"), (4, b"c")], first=5))
    starts, ends = [5, 8, 9, 11], [7, 8, 10, 14]
    for start in range(17):
        for end in range(start, 17):
            if start in starts and end in ends:
                found = index.part(start, end)
                assert [entry.start for entry in found] == [at for at in starts if start <= at <= end]
                assert found[-1].end == end
            else:
                with pytest.raises(SegmentDamaged, match="not whole ranges"):
                    index.part(start, end)


def test_an_index_is_read_once_for_winners_that_share_a_segment(tmp_path: Path) -> None:
    path = write(tmp_path, [(1, b"a"), (1, b"b"), (1, b"c")])
    index_of = remembering()
    before = index_of(str(path))
    path.unlink()
    assert index_of(str(path)) is before
    with pytest.raises(SegmentDamaged):
        remembering()(str(path))


def test_every_altered_payload_byte_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, [(2, b"aa"), (2, b"bbb"), (1, b"c")])
    whole, index = path.read_bytes(), read_index(path)
    for place in range(index.data_size):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SegmentDamaged, match="checksum"):
            list(payloads(read_index(path), 0, 4))
        with path.open("rb") as file:
            with pytest.raises(SegmentDamaged, match="checksum"):
                check_payloads(file.fileno(), index, 0, 4)
            for start, end in [(0, 1), (2, 3), (4, 4)]:
                try:
                    check_payloads(file.fileno(), index, start, end)
                except SegmentDamaged:
                    (entry,) = index.part(start, end)
                    assert entry.offset <= place < entry.offset + entry.length


def test_a_segment_of_many_ranges_is_full_however_small_they_are(tmp_path: Path) -> None:
    segment = SegmentFile(tmp_path, "n")
    for item in range(RANGES_MAX):
        assert not segment.is_full
        segment.append(item, item, 1, b"")
    assert segment.is_full
    segment.abort()


def test_gap_is_refused(tmp_path: Path) -> None:
    segment = SegmentFile(tmp_path, "abc")
    segment.append(0, 3, 1, b"x")
    with pytest.raises(ValueError, match="does not follow item 3"):
        segment.append(5, 6, 1, b"y")
    segment.abort()
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, [(1, b"payload"), (1, b"more")])
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(SegmentDamaged, match=path.name):
            read_index(path)


def test_altered_index_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, [(1, b"payload")])
    damaged = bytearray(path.read_bytes())
    damaged[-TRAILER.size - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SegmentDamaged, match="checksum"):
        read_index(path)


def test_missing_segment_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegmentDamaged, match=r"gone\.seg"):
        read_index(tmp_path / "gone.seg")
