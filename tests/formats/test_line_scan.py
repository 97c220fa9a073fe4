"""The index of lines, and what is read by it, against a reader that goes line by line."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skybatch.errors import RecordError
from skybatch.formats import json_reader, line_scan
from skybatch.formats.json_reader import JsonReader
from skybatch.formats.line_scan import Row, Scanner

BOM = b"\xef\xbb\xbf"

record = st.builds(
    lambda number, size, lead, trail: lead + b'{"n": %d, "pad": "%s"}' % (number, b"x" * size) + trail,
    st.integers(0, 10**6),
    st.one_of(st.integers(0, 12), st.integers(150, 400)),  # some are longer than a step and a piece read
    st.sampled_from([b"", b" ", b"\t"]),
    st.sampled_from([b"", b"\r", b" \r", b"  "]),
)
blank = st.sampled_from([b"", b"\r", b" ", b"\t \r", b" " * 200])
line = st.one_of(record, record, blank)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(line, max_size=25))
    end = draw(st.sampled_from([b"", b"\n", b"\n\n", b"\n \t"]))
    return draw(st.sampled_from([b"", BOM])) + b"\n".join(lines) + end


files = st.lists(contents(), min_size=1, max_size=4)
steps = st.sampled_from([1, 3, 7, 32, 100, line_scan.STEP])
windows = st.sampled_from([1, 50, 300, json_reader.WINDOW_SIZE])


def texts(data: bytes) -> list[bytes]:
    return [text for text in data.removeprefix(BOM).split(b"\n") if text.strip()]


def trusted(*parts: bytes) -> list[dict[str, Any]]:
    return [json.loads(text) for data in parts for text in texts(data)]


@contextmanager
def indexed(parts: list[bytes], step: int, window: int = json_reader.WINDOW_SIZE) -> Iterator[tuple[JsonReader, int]]:
    """A reader of several files whose index was made with small steps by another one, and how many items they have."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_scan, "STEP", step)
        patch.setattr(json_reader, "WINDOW_SIZE", window)
        paths = [f"{folder}/in-{number}.jsonl" for number in range(len(parts))]
        for path, data in zip(paths, parts, strict=True):
            Path(path).write_bytes(data)
        count = JsonReader(paths).build_index(folder)
        reader = JsonReader(paths)
        reader.open_index(folder)
        yield reader, count


def read(reader: JsonReader, start: int, end: int) -> list[dict[str, Any]]:
    return reader.decode(reader.read_window(start, end), start, start, end)


@settings(max_examples=40, deadline=None)  # an index is synced to the disk
@given(files, steps, windows)
def test_every_range_is_what_a_reader_line_by_line_finds(parts: list[bytes], step: int, window: int) -> None:
    expected = trusted(*parts)
    with indexed(parts, step, window) as (reader, count):
        assert count == len(expected)
        for start in range(0, len(expected), 1 + len(expected) // 12):
            for end in range(start, len(expected), 1 + len(expected) // 12):
                assert read(reader, start, end) == expected[start : end + 1]


@settings(max_examples=40, deadline=None)  # an index is synced to the disk
@given(files, steps, windows)
def test_the_ranges_of_every_batch_size_make_up_the_files(parts: list[bytes], step: int, window: int) -> None:
    expected = trusted(*parts)
    with indexed(parts, step, window) as (reader, count):
        for size in (1, 2, 3, 7, len(expected) + 1):
            together: list[dict[str, Any]] = []
            for start in range(0, count, size):
                together += read(reader, start, min(start + size, count) - 1)
            assert together == expected


@settings(max_examples=40, deadline=None)  # an index is synced to the disk
@given(files, steps, windows)
def test_windows_go_on_and_end_within_the_files(parts: list[bytes], step: int, window: int) -> None:
    expected = trusted(*parts)
    with indexed(parts, step, window) as (reader, _):
        start, together = 0, []
        while start < len(expected):
            end = reader.window_end(start, len(expected) - 1)
            assert start <= end < len(expected)
            together += reader.decode(reader.read_window(start, end), start, start, end)
            start = end + 1
        assert together == expected


def checked(data: bytes, rows: list[Row], begin: int) -> None:
    """Checkpoints rise, lie at line ends, and count what is before them."""
    assert rows[0] == (begin, 0, 0)
    assert rows[-1][0] == max(len(data), begin)
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    for offset, records, lines in rows:
        before = data[begin:offset]
        assert offset in (begin, len(data)) or before.endswith(b"\n")
        assert records == sum(1 for text in before.split(b"\n") if text.strip())
        assert lines == before.count(b"\n") + (bool(before) and not before.endswith(b"\n"))


@given(contents(), steps, st.sampled_from([1, 3, 64, 1000]))
def test_checkpoints_lie_at_line_ends_and_rise(data: bytes, step: int, piece: int) -> None:
    begin = len(BOM) if data.startswith(BOM) else 0
    rows: list[Row] = []
    scanner = Scanner(rows.append, start=(begin, 0, 0), step=step)
    for start in range(begin, len(data), piece):
        scanner.feed(data[start : start + piece])
    scanner.finish()
    checked(data, rows, begin)


@given(contents(), st.integers(1, 100))
def test_a_line_longer_than_a_step_stands_alone(data: bytes, step: int) -> None:
    rows: list[Row] = []
    scanner = Scanner(rows.append, step=step)
    scanner.feed(data)
    scanner.finish()
    for (begin, first, _), (end, last, _) in itertools.pairwise(rows):
        assert end - begin <= 3 * step + 1 or last - first <= 1


@given(st.lists(line, min_size=3, max_size=40), st.sampled_from([b"", b"\n"]), st.integers(30, 400), st.integers(2, 4))
def test_parts_scanned_side_by_side_make_up_the_whole(lines: list[bytes], end: bytes, size: int, count: int) -> None:
    data = b"\n".join(lines) + end
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        file.write(data)
        file.flush()
        patch.setattr(line_scan, "PARTS", count)
        patch.setattr(line_scan, "_processors", lambda: count)
        patch.setattr(line_scan, "_Helper", Within)
        rows: list[Row] = []
        line_scan.scan(file.fileno(), len(data), rows.append, part_size=size)
    checked(data, rows, 0)


class Within:
    """Scans its part in this process; now and then it says that it could not."""

    made = 0

    def __init__(self, fd: int, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self._rows = array("Q")
        scanner = Scanner(self._rows.extend, start=(begin, 0, 0))
        scanner.feed(os.pread(fd, end - begin, begin))
        scanner.finish()
        Within.made += 1

    def rows(self) -> array[int] | None:
        return self._rows if Within.made % 3 else None

    def close(self) -> None:
        pass


@pytest.mark.full
def test_parts_are_scanned_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b'{"n":%d}\n\n' % number for number in range(50_000)) + b'{"n": 1}'
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    monkeypatch.setattr(line_scan, "_processors", lambda: 4)
    rows: list[Row] = []
    with path.open("rb") as file:
        line_scan.scan(file.fileno(), len(data), rows.append, part_size=100_000)
        checked_rows = [rows[0], *rows[-2:]]
        monkeypatch.setattr(line_scan.sys, "executable", "/nowhere/python")
        again: list[Row] = []
        line_scan.scan(file.fileno(), len(data), again.append, part_size=100_000)
    assert rows[-1] == (len(data), 50_001, 100_001)
    assert len(rows) > 4 and checked_rows[0] == (0, 0, 0)
    assert again[-1] == rows[-1]


@settings(max_examples=40, deadline=None)  # an index is synced to the disk
@given(
    files,
    st.lists(line, max_size=12),
    st.sampled_from([b'{"torn', b"[1]", b"nul", b'{"a": NaN}', b'"\xff"', b'{"a":1,"a":2}']),
    st.lists(line, max_size=5),
    st.sampled_from([b"", BOM]),
    steps,
)
def test_a_malformed_line_is_told_by_file_line_and_byte(
    others: list[bytes], before: list[bytes], bad: bytes, after: list[bytes], mark: bytes, step: int
) -> None:
    data = mark + b"\n".join([*before, bad, *after])
    item = len(trusted(*others)) + sum(1 for text in before if text.strip())
    offset = len(mark) + sum(len(text) + 1 for text in before)
    with indexed([*others, data, b'{"n":0}'], step) as (reader, count):
        place = f"{reader.path[len(others)]}, line {len(before) + 1}, byte {offset} (item {item})"
        with pytest.raises(RecordError, match=re.escape(place)) as caught:
            read(reader, 0, count - 1)
        assert caught.value.item == item
        if item:
            assert len(read(reader, 0, item - 1)) == item  # those before it can be read
        assert len(read(reader, item + 1, count - 1)) == count - item - 1


def test_a_line_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    long = "y" * (3 * line_scan.STEP + 5)
    path.write_text(f'{{"n": 0}}\n\n{{"n": 1, "pad": "{long}"}}\n{{"n": 2}}')
    reader = JsonReader(str(path))
    assert len(reader) == 3
    assert reader.download_batch(1, 2, "") == [{"n": 1, "pad": long}, {"n": 2}]


def test_a_record_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input.jsonl"
    long = "y" * (5 * line_scan.STEP)
    path.write_text(f'{{"n": 0}}\n\n{{"n": 1, "pad": "{long}"}}\n{{"n": 2}}\n{" " * 5 * line_scan.STEP}\n{{"n": 3}}')
    monkeypatch.setattr(json_reader, "RECORD_LIMIT", 3 * line_scan.STEP)
    reader = JsonReader(str(path))
    assert len(reader) == 4
    assert reader.download_batch(0, 0, "") == [{"n": 0}]
    assert reader.download_batch(2, 3, "") == [{"n": 2}, {"n": 3}]
    with pytest.raises(RecordError, match=r"line 3, byte 10 \(item 1\): a record of more than") as caught:
        reader.download_batch(0, 3, "")
    assert caught.value.item == 1


def test_compressed_files_are_read_at_any_offset(tmp_path: Path) -> None:
    plain = tmp_path / "b.jsonl"
    plain.write_text('{"n":2}')
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'{"n":0}\n{"n":1}')
    reader = JsonReader(str(tmp_path))
    assert len(reader) == 3
    assert [item["n"] for item in reader.download_batch(0, 2, "")] == [0, 1, 2]
    assert [item["n"] for item in reader.download_batch(1, 1, "")] == [1]
