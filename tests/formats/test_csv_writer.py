"""CSV: what it reads back as, and that it does not depend on how results arrived."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skybatch.errors import ResultError, UsageError
from skybatch.formats.csv_writer import CsvWriter
from tests.tools.assembling import assembled, cut_everywhere, payloads

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TEXT = st.text(st.sampled_from(list("ab,;\t \"\n\r'é\U0001f600\0")), max_size=6)
KEYS = st.sampled_from(["a", "b", "c,d", 'e"', "", "f\ng"])
ROWS = st.lists(st.dictionaries(KEYS, TEXT, max_size=4), max_size=8)


def read(data: bytes, delimiter: str = ",") -> list[list[str]]:
    """Rows by Python's own reader."""
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True))


@in_one_folder
@given(rows=ROWS, data=st.data(), delimiter=st.sampled_from([None, ";", "\t"]), ending=st.sampled_from(["", ".gz"]))
def test_columns_are_those_of_all_results_in_order_of_first_appearance(
    rows: list[dict[str, str]], data: Any, delimiter: str | None, ending: str, tmp_path: Path
) -> None:
    writer = CsvWriter(f"out.csv{ending}", delimiter=delimiter)
    written = assembled(writer, payloads(writer, rows, data.draw(cut_everywhere(len(rows)))), tmp_path / "staged")
    assert written == assembled(writer, payloads(writer, rows, []), tmp_path / "staged")
    written = gzip.decompress(written) if ending else written
    columns = list(dict.fromkeys(name for row in rows for name in row))
    expected = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    assert read(written, delimiter or ",") == (expected if rows else [])


@in_one_folder
@given(rows=ROWS, data=st.data())
def test_given_columns_are_copied_without_an_assembler(rows: list[dict[str, str]], data: Any, tmp_path: Path) -> None:
    rows = [{"a": "", "b": "", **row} for row in rows]
    writer = CsvWriter("out.csv", column=["b", "a"])
    assert writer.assembler(io.BytesIO(), None) is None
    written = assembled(writer, payloads(writer, rows, data.draw(cut_everywhere(len(rows)))), tmp_path / "staged")
    assert read(written) == [["b", "a"], *([row["b"], row["a"]] for row in rows)]


def test_values() -> None:
    row = {"n": None, "t": True, "f": 0.5, "i": -3, "l": [1, "x"], "d": {"k": None}, "b": b"\xff", "s": "1"}
    written = CsvWriter("x.csv", column=list(row)).encode([row], 0)
    assert written == b',true,0.5,-3,"[1,""x""]","{""k"":null}",/w==,1\n'


def test_one_empty_cell_is_a_row(tmp_path: Path) -> None:
    writer = CsvWriter("x.csv")
    assert assembled(writer, [writer.encode([{"a": None}, {"a": "x"}, {}], 0)], tmp_path / "s") == b'a\n""\nx\n""\n'


def test_a_large_cell_is_rearranged(tmp_path: Path) -> None:
    writer, large = CsvWriter("x.csv"), '"\n,' * 200_000
    parts = [writer.encode([{"a": 1, "b": 2}], 0), writer.encode([{"b": large}], 1)]
    assert (
        assembled(writer, parts, tmp_path / "s") == b"a,b\n1,2\n" + b',"' + large.replace('"', '""').encode() + b'"\n'
    )


def test_tabs_headers_and_compression(tmp_path: Path) -> None:
    rows = [{"a": "x,y", "b": 1}]
    for fields, name, expected in [
        ({}, "x.tsv", b"a\tb\nx,y\t1\n"),
        ({}, "x.tsv.gz", b"a\tb\nx,y\t1\n"),
        ({"column": ["b", "a"]}, "x.tsv.gz", b"b\ta\n1\tx,y\n"),
        ({"include_header": False}, "x.csv", b'"x,y",1\n'),
        ({"include_header": False, "column": "b"}, "x.csv", b"1\n"),
        ({"delimiter": "|"}, "x.tsv", b"a|b\nx,y|1\n"),
    ]:
        writer = CsvWriter(name, **fields)  # type: ignore[arg-type]
        writer.check()
        written = assembled(writer, [writer.encode(rows, 0)], tmp_path / "staged")
        assert (gzip.decompress(written) if name.endswith(".gz") else written) == expected


def test_a_column_that_is_missing_names_the_nearest() -> None:
    with pytest.raises(ResultError, match="item 5: the result has no 'wrod'; did you mean 'word'"):
        CsvWriter("x.csv", column="wrod").encode([{"word": 1}], 5)
    with pytest.raises(ResultError, match=r"item 6, key 'x\[1\]': nan cannot be written"):
        CsvWriter("x.csv").encode([{"x": 1}, {"x": [1, float("nan")]}], 5)


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "é"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(UsageError, match="delimiter must be one ASCII character"):
        CsvWriter("x.csv", delimiter=delimiter).check()
