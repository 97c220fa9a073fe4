"""Lines as items: whatever they end with, whatever is in them, wherever they lie."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import skybatch
from skybatch.errors import InputMissing, RecordError, UsageError
from skybatch.formats import record_reader, record_scan
from tests.tools.mapping import map_items

Batch = list[dict[str, Any]]
BOM = b"\xef\xbb\xbf"

line = st.one_of(
    st.sampled_from([b"", b"\r", b" ", b"plain", b"CRLF\r", b"a\rb", b'"quote', "ä\u2028\x85\x0c".encode(), b"\0"]),
    st.binary(max_size=3).map(lambda data: data.replace(b"\n", b"x") * 40).filter(lambda data: is_text(data)),
)
files = st.builds(
    lambda mark, lines, end: mark + b"\n".join(lines) + end,
    st.sampled_from([b"", BOM]),
    st.lists(line, max_size=12),
    st.sampled_from([b"", b"\n"]),
)


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def trusted(data: bytes) -> list[str]:
    """The lines of a file."""
    lines = data.removeprefix(BOM).decode().split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_by(size: int, reader: Any) -> Batch:
    """Every item, read as workers read: windows of several ranges."""
    items: Batch = []
    while len(items) < len(reader):
        start = len(items)
        end = reader.window_end(start, len(reader) - 1)
        end = min(start + max(1, (end - start + 1) // size) * size, len(reader)) - 1
        window = reader.read_window(start, end)
        for at in range(start, end + 1, size):
            items += reader.decode(window, start, at, min(at + size - 1, end))
    return items


@settings(max_examples=30, deadline=None)
@given(st.lists(files, min_size=1, max_size=3), st.integers(1, 200), st.integers(1, 300), st.integers(1, 5))
def test_windows_of_any_size_have_the_lines_of_all_files(
    contents: list[bytes], step: int, window_size: int, size: int
) -> None:
    expected = [text for content in contents for text in trusted(content)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_scan.Scanner.__init__, "__kwdefaults__", {"start": (0, 0, 0), "step": step})
        patch.setattr(record_reader, "WINDOW_SIZE", window_size)
        patch.setattr(record_reader, "READ_SIZE", 50)
        for number, content in enumerate(contents):
            Path(folder, f"{number}.txt").write_bytes(content)
        reader = skybatch.TextReader(f"{folder}/*.txt")
        assert len(reader) == len(expected)
        assert [item["text"] for item in read_by(size, reader)] == expected
        reader.close()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (BOM, []),
        (BOM + b"a", ["a"]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"a\rb\n", ["a\rb"]),
        (b" a \t\n", [" a \t"]),
    ],
)
def test_every_line_is_an_item(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(content)
    reader = skybatch.TextReader(str(path))
    assert len(reader) == len(lines)
    assert [item["text"] for item in read_by(2, reader)] == lines


def test_a_line_that_is_no_text_is_told_by_file_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(BOM + b"one\n\xc3\xa4\r\n\nbad \xff here\nfive")
    reader = skybatch.TextReader(str(path))
    assert len(reader) == 5
    window = reader.read_window(0, 4)
    assert [item["text"] for item in reader.decode(window, 0, 0, 2)] == ["one", "ä", ""]
    assert reader.decode(window, 0, 4, 4) == [{"text": "five"}]
    with pytest.raises(RecordError) as caught:
        reader.decode(window, 0, 2, 4)
    assert str(caught.value) == f"{path}, line 4, byte 12 (item 3): no UTF-8: invalid start byte at byte 16"
    assert caught.value.item == 3


def test_a_line_that_is_too_long_fails_alone_and_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_reader, "RECORD_LIMIT", 1 << 20)
    path = tmp_path / "in.txt"
    path.write_bytes(b"before\n" * 5 + b"x" * (3 << 20) + b"\nafter\n" + b"y" * (1 << 19) + b"\nlast")
    reader = skybatch.TextReader(str(path))
    assert len(reader) == 9
    window = reader.read_window(0, 8)
    assert sum(len(block.data or b"") for block in window) < 1 << 20
    for index in (0, 4, 6, 7, 8):
        assert len(reader.decode(window, 0, index, index)) == 1
    with pytest.raises(
        RecordError, match=r"line 6, byte 35 \(item 5\): a record of more than 1,048,576 bytes"
    ) as caught:
        reader.decode(window, 0, 0, 8)
    assert caught.value.item == 5


def test_a_window_ends_before_a_long_line_and_has_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"short\n" * 10 + b"x" * (4 << 20) + b"\n" + b"short\n" * 10)
    reader = skybatch.TextReader(str(path))
    assert len(reader) == 21
    assert [reader.window_end(start, 20) for start in (0, 10, 11)] == [9, 10, 20]


def test_lines_may_have_another_key(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("hello")
    assert skybatch.TextReader(str(tmp_path / "in.txt"), column="line").download_batch(0, 0, "") == [{"line": "hello"}]
    with pytest.raises(UsageError, match="column must be a key, not ''"):
        skybatch.TextReader(str(tmp_path / "in.txt"), column="").check()
    with pytest.raises(InputMissing, match="no file matches"):
        skybatch.TextReader(f"{tmp_path}/*.log").check()


def shout(batch: Batch) -> Batch:
    return [{"loud": item["text"].upper()} for item in batch]


def test_a_job_over_the_lines_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_bytes(
            b"".join(b"%s %d\r\n" % (name.encode(), n) for n in range(7)) + b"\xff\n"
        )
    outcome = map_items(
        tmp_path, shout, reader=skybatch.TextReader(["a.txt", "c.txt", "b.txt"]), on_error="skip", max_retries=0
    )
    assert outcome.rows == [{"loud": f"{name} {n}"} for name in "ACB" for n in range(7)]
    assert {failure.item for failure in outcome.failures} == {7, 15, 23}


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_is_read_from_a_copy(tmp_path: Path, ending: str) -> None:
    content = b"".join(b"line %d\n" % n for n in range(50)) + b"\xff\n"
    packed = gzip.compress(content) if ending == ".gz" else zstandard.compress(content)
    (tmp_path / f"a.txt{ending}").write_bytes(packed)
    (tmp_path / "b.txt").write_text("plain")
    outcome = map_items(
        tmp_path, shout, reader=skybatch.TextReader(f"{tmp_path}/*.txt*"), on_error="skip", max_retries=0
    )
    assert outcome.rows == [*({"loud": f"LINE {n}"} for n in range(50)), {"loud": "PLAIN"}]
    assert f"a.txt{ending}, line 51, byte {len(content) - 2} (item 50)" in outcome.failures[-1].message
