"""The line index against a reader that goes line by line."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch.errors import RecordError
from skybatch.formats import line_index
from skybatch.formats.json_format import JsonReader

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
def files(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(line, max_size=25))
    end = draw(st.sampled_from([b"", b"\n", b"\n\n", b"\n \t"]))
    return draw(st.sampled_from([b"", BOM])) + b"\n".join(lines) + end


steps = st.sampled_from([1, 7, 32, 100, line_index.STEP])
read_sizes = st.sampled_from([3, 10, 64, 200, line_index.READ_SIZE])  # a BOM lies within the first piece


def trusted(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(text) for text in data.removeprefix(BOM).split(b"\n") if text.strip()]


@contextmanager
def indexed(data: bytes, step: int, read_size: int) -> Iterator[JsonReader]:
    """A reader of `data` whose index has been through its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input.jsonl")
        path.write_bytes(data)
        line_index.build_file(str(path), f"{folder}/lines.idx", step=step, read_size=read_size)
        reader = JsonReader(str(path))
        reader.open_index(folder)
        yield reader


@given(files(), steps, read_sizes)
def test_every_range_is_what_a_reader_line_by_line_finds(data: bytes, step: int, read_size: int) -> None:
    expected = trusted(data)
    with indexed(data, step, read_size) as reader:
        assert len(reader) == len(expected)
        for start in range(len(expected)):
            for end in range(start, len(expected)):
                assert reader.download_batch(start, end, "") == expected[start : end + 1]


@given(files(), steps, read_sizes)
def test_the_ranges_of_every_batch_size_make_up_the_file(data: bytes, step: int, read_size: int) -> None:
    expected = trusted(data)
    with indexed(data, step, read_size) as reader:
        for size in range(1, len(expected) + 2):
            together: list[dict[str, Any]] = []
            for start in range(0, len(reader), size):
                together += reader.download_batch(start, min(start + size, len(reader)) - 1, "")
            assert together == expected


@given(files(), steps, read_sizes)
def test_windows_go_on_and_end_within_the_file(data: bytes, step: int, read_size: int) -> None:
    expected = trusted(data)
    with indexed(data, step, read_size) as reader:
        start, together = 0, []
        while start < len(expected):
            end = reader.window_end(start, len(expected) - 1)
            assert start <= end < len(expected)
            together += reader.decode(reader.read_window(start, end), start, start, end)
            start = end + 1
        assert together == expected


@given(files(), steps, read_sizes)
def test_checkpoints_lie_at_line_ends_and_rise(data: bytes, step: int, read_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "input.jsonl")
        path.write_bytes(data)
        index = line_index.build(str(path), step=step, read_size=read_size)
    begin = len(BOM) if data.startswith(BOM) else 0
    assert (index.offsets[0], index.records[0], index.lines[0]) == (begin, 0, 0)
    assert index.offsets[-1] == len(data)
    assert list(index.offsets) == sorted(set(index.offsets))
    for offset, records, lines in zip(index.offsets, index.records, index.lines, strict=True):
        before = data[begin:offset]
        assert offset in (begin, len(data)) or before.endswith(b"\n")
        assert records == sum(1 for text in before.split(b"\n") if text.strip())
        assert lines == before.count(b"\n") + (bool(before) and not before.endswith(b"\n"))


@given(
    st.lists(line, max_size=12),
    st.sampled_from([b'{"torn', b"[1]", b"nul", b'{"a": NaN}', b'"\xff"']),
    st.lists(line, max_size=5),
    st.sampled_from([b"", BOM]),
    steps,
    read_sizes,
)
def test_a_malformed_line_is_told_by_file_line_and_byte(
    before: list[bytes], bad: bytes, after: list[bytes], mark: bytes, step: int, read_size: int
) -> None:
    data = mark + b"\n".join([*before, bad, *after])
    item = sum(1 for text in before if text.strip())
    offset = len(mark) + sum(len(text) + 1 for text in before)
    with indexed(data, step, read_size) as reader:
        place = f"{reader.path}, line {len(before) + 1}, byte {offset} (item {item})"
        with pytest.raises(RecordError, match=re.escape(place)) as caught:
            reader.download_batch(0, len(reader) - 1, "")
        assert caught.value.item == item
        if item:
            assert len(reader.download_batch(0, item - 1, "")) == item  # those before it can be read


def test_a_line_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    long = "y" * (line_index.READ_SIZE + 5)
    path.write_text(f'{{"n": 0}}\n\n{{"n": 1, "pad": "{long}"}}\n{{"n": 2}}')
    reader = JsonReader(str(path))
    assert len(reader) == 3
    assert reader.download_batch(1, 2, "") == [{"n": 1, "pad": long}, {"n": 2}]


def test_a_file_of_another_kind_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "lines.idx").write_bytes(b"something else, 32 bytes long...")
    with pytest.raises(ValueError, match="not a line index"):
        line_index.LineIndex.load(str(tmp_path / "lines.idx"))
