"""Ranges of every size over the same input give the same records; impossible sizes and counts are told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import io_formats
from skybatch.errors import UsageError
from skybatch.formats import json_reader, line_scan
from tests.tools.mapping import map_and_fail, map_items

Batch = list[dict[str, Any]]
SMALL = (
    b'\xef\xbb\xbf{"id":0}\r\n\n{"id":1, "word":"\xc3\xa4"}\n \t\n\r\n'
    b'{"id":2}\n{"id":3,"pad":"xxxxxxxxxxxxxxxx"}\r\n\n{"id":4}'
)


def same(batch: Batch) -> Batch:
    return batch


@dataclass
class Miscounting(io_formats.InputReader):
    """Gives another number of items than asked for: `more` of them."""

    more: int
    always: bool = False

    def __len__(self) -> int:
        return 40

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        off = self.more if self.always or start_idx <= 9 <= end_idx else 0
        return [{"id": index} for index in range(start_idx, end_idx + 1 + off)]


@dataclass
class Claiming(io_formats.InputReader):
    """Claims a length."""

    length: int

    def __len__(self) -> int:
        return self.length

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Batch:
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class Odd(io_formats.InputReader):
    """Gives no list."""

    def __len__(self) -> int:
        return 8

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> Any:
        return ({"id": index} for index in range(start_idx, end_idx + 1))


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("empty", b"", []),
        ("newlines", b"\n\r\n \n\n", []),
        ("one newline", b"\n", []),
        ("a BOM alone", b"\xef\xbb\xbf", []),
        ("no last line end", b'{"id":0}\n{"id":1}', [0, 1]),
        ("blank lines", b'\n\n{"id":0}\n\n \n{"id":1}\n\n', [0, 1]),
        ("CRLF", b'{"id":0}\r\n\r\n{"id":1}\r\n', [0, 1]),
        ("BOM", b'\xef\xbb\xbf{"id":0}\n{"id":1}\n', [0, 1]),
        ("all of it", SMALL, [0, 1, 2, 3, 4]),
    ],
)
def test_every_record_comes_once_whatever_lies_between(
    tmp_path: Path, name: str, content: bytes, ids: list[int]
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    outcome = map_items(tmp_path, same, reader=skybatch.JsonReader(str(path)), batch_size=1)
    assert outcome.ids == ids


def test_checkpoints_and_windows_at_every_byte_give_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(SMALL)
    for step in range(1, len(SMALL) + 2):
        monkeypatch.setattr(json_reader, "WINDOW_SIZE", step)
        monkeypatch.setattr(line_scan, "STEP", step)
        reader = skybatch.JsonReader(str(path))
        assert reader.build_index(str(tmp_path)) == 5
        for size in range(1, 7):
            assert read_by_windows(reader, size) == [0, 1, 2, 3, 4]


def test_a_file_cut_in_two_at_every_line_gives_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the two has a last line without its end, unless it is empty."""
    monkeypatch.setattr(line_scan, "STEP", 8)
    (tmp_path / "in").mkdir()
    cuts = [0, *(at for at in range(len(SMALL)) if SMALL[at : at + 1] == b"\n"), len(SMALL)]
    for cut in cuts:
        (tmp_path / "in" / "0.jsonl").write_bytes(SMALL[:cut])
        (tmp_path / "in" / "1.jsonl").write_bytes(SMALL[cut:].removeprefix(b"\n"))
        reader = skybatch.JsonReader(f"{tmp_path}/in")
        assert reader.build_index(str(tmp_path)) == 5
        for size in range(1, 7):
            assert read_by_windows(reader, size) == [0, 1, 2, 3, 4]


def read_by_windows(reader: skybatch.JsonReader, size: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < 5:
        start = len(ids)
        end = reader.window_end(start, min(start + size - 1, 4))
        window = reader.read_window(start, end)
        ids += [item["id"] for item in reader.decode(window, start, start, end)]
    return ids


def test_record_that_begins_at_any_byte_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_scan, "STEP", 16)
    path = tmp_path / "in.jsonl"
    for pad in range(len(SMALL)):
        path.write_bytes(b" " * pad + b"\n" + b'{"id":0}\n' + b"\n" * pad + b'{"id":1}')
        reader = skybatch.JsonReader(str(path))
        for index in (1, 0):
            assert reader.download_batch(index, index, "") == [{"id": index}]


@pytest.mark.parametrize("batch_size", [1, 39, 40, 41, 10**9])
def test_any_batch_size_gives_the_same_output(tmp_path: Path, batch_size: int) -> None:
    assert map_items(tmp_path, same, batch_size=batch_size).ids == list(range(40))


@pytest.mark.parametrize("batch_size", [0, -1, True, 2.0, "4", None])
def test_impossible_batch_size_is_refused_before_there_is_a_job(tmp_path: Path, batch_size: Any) -> None:
    with pytest.raises(UsageError, match="batch_size must be a whole number, at least 1"):
        map_items(tmp_path, same, batch_size=batch_size)
    assert skybatch.jobs() == []


@pytest.mark.parametrize("more", [-1, 1])
def test_reader_that_miscounts_one_range_is_told_and_loses_nothing_else(tmp_path: Path, more: int) -> None:
    outcome = map_items(tmp_path, same, reader=Miscounting("x", more), on_error="skip", max_retries=0)
    assert outcome.ids == [index for index in range(40) if index != 9]
    assert "the reader gave" in outcome.failures[0].message and "4 were asked for" in outcome.failures[0].message


@pytest.mark.parametrize("more", [-1, 1])
def test_reader_that_always_miscounts_ends_the_job(tmp_path: Path, more: int) -> None:
    outcome = map_and_fail(tmp_path, same, reader=Miscounting("x", more, always=True))
    assert "the reader gave" in str(outcome.error)
    assert len(outcome.failures) < 40


def test_reader_that_gives_no_list_ends_the_job(tmp_path: Path) -> None:
    outcome = map_and_fail(tmp_path, same, reader=Odd("x"))
    assert "the reader gave generator" in str(outcome.error)


def test_custom_reader_without_items_gives_an_empty_output(tmp_path: Path) -> None:
    assert map_items(tmp_path, same, reader=Claiming("x", 0)).rows == []


def test_output_is_one_record_a_line(tmp_path: Path) -> None:
    lines = map_items(tmp_path, same).output.read_bytes().splitlines(keepends=True)
    assert lines == [json.dumps({"id": index}, separators=(",", ":")).encode() + b"\n" for index in range(40)]
