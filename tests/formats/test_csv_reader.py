"""CSV as items: the records that `csv.reader` finds, whatever lies between, and what is told of those that are none."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skybatch
from skybatch.errors import InputMissing, RecordError, UsageError
from skybatch.formats import record_reader, record_scan
from skybatch.formats.csv_reader import CsvReader
from skybatch.formats.record_scan import Scanner
from tests.formats.test_text_reader import read_by
from tests.tools.mapping import map_items

Batch = list[dict[str, Any]]
BOM = b"\xef\xbb\xbf"
KEYS = ["a", "b", "c"]

characters = st.text(st.sampled_from('ab,;"\n\r\t ä\u2028\0'), max_size=8)
field = st.one_of(characters, characters.map(lambda text: text * 20))
rows = st.lists(st.lists(field, min_size=3, max_size=3), max_size=8)


def written(table: list[list[str]], end: str, quoting: int, delimiter: str) -> bytes:
    """A file as Python writes it."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting, delimiter=delimiter).writerows(table)  # type: ignore[arg-type]
    return text.getvalue().encode()


def reader_of(folder: Path | str, *contents: bytes, **fields: Any) -> CsvReader:
    """A reader of files."""
    for number, content in enumerate(contents):
        Path(folder, f"{number}.csv").write_bytes(content)
    return CsvReader(f"{folder}/*.csv", **fields)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=2),
    st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    st.sampled_from([",", ";", "\t"]),
    st.tuples(st.integers(1, 100), st.integers(1, 400), st.integers(1, 60), st.integers(1, 4)),
    st.sampled_from([b"", BOM]),
)
def test_what_python_writes_comes_back_in_windows_of_any_size(
    tables: list[list[list[str]]],
    style: tuple[str, int],
    delimiter: str,
    sizes: tuple[int, int, int, int],
    mark: bytes,
) -> None:
    step, window_size, read_size, size = sizes
    expected = [dict(zip(KEYS, row, strict=True)) for table in tables for row in table]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scanner.__init__, "__kwdefaults__", {"start": (0, 0, 0), "step": step})
        patch.setattr(record_reader, "WINDOW_SIZE", window_size)
        patch.setattr(record_reader, "READ_SIZE", read_size)
        contents = [mark + written([KEYS, *table], *style, delimiter) for table in tables]
        reader = reader_of(folder, *contents, delimiter=delimiter)
        assert len(reader) == len(expected)
        assert read_by(size, reader) == expected
        reader.close()


@settings(deadline=None)
@given(st.text(st.sampled_from('a,"\n\r;ä'), max_size=60), st.integers(1, 9))
def test_the_scanner_finds_the_records_of_any_text_at_any_cut(text: str, step: int) -> None:
    data = text.encode()
    marks: list[record_scan.Row] = []
    scanner = Scanner(",", marks.append, step=step)
    for at in range(0, len(data), 7):
        scanner.feed(data[at : at + 7])
    scanner.finish()
    found = list(record_scan.records(data, ","))
    assert (marks[-1][0], marks[-1][1]) == (len(data), len(found))
    for (begin, before, lines), (end, after, _) in itertools.pairwise(marks):
        assert lines == data[:begin].count(b"\n")
        assert [record.data for record in record_scan.records(data[begin:end], ",")] == [
            record.data for record in found[before:after]
        ]
        assert end - begin <= 3 * step or after - before <= 1
    try:
        trusted = [row for row in csv.reader(io.StringIO(text, newline="\n")) if row]
    except csv.Error:
        return  # a carriage return within a line: none of its business
    assert [list(csv.reader(io.StringIO(record.data.decode(), newline="\n"))) for record in found] == [
        [row] for row in trusted
    ]


@pytest.mark.parametrize(
    ("content", "table"),
    [
        (b"", []),
        (b"\n\r\n", []),
        (BOM, []),
        (b"a,b", []),
        (b"a,b\n", []),
        (b"\n\na,b\r\n\r\n1,2\r\n\n3,4", [["1", "2"], ["3", "4"]]),
        (BOM + b'"a","b"\n"x,\n""y""",\n', [['x,\n"y"', ""]]),
        (b'a,b\n5" pipe,x"y"\n', [['5" pipe', 'x"y"']]),
        (b'a,"b\nb"\n1,2\n', [["1", "2"]]),
    ],
)
def test_empty_lines_marks_and_line_ends_are_no_records(tmp_path: Path, content: bytes, table: list[list[str]]) -> None:
    reader = reader_of(tmp_path, content)
    reader.check()
    assert len(reader) == len(table)
    assert [list(item.values()) for item in read_by(2, reader)] == table


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"1", "1 fields, and 2 columns"),
        (b"1,2,3", "3 fields, and 2 columns"),
        (b'"1"x,2', "',' expected after '\"'"),
        (b"1,\xff2", "no UTF-8: invalid start byte at byte 27"),
        (b"1\r1,2", "a carriage return in a field without quotes"),
    ],
)
def test_a_malformed_record_is_told_by_file_line_and_byte(tmp_path: Path, bad: bytes, said: str) -> None:
    reader = reader_of(tmp_path, b'a,b\n"0\n0",0\n\n"1",1\nx,"y"\n' + bad + b'\r\n"3,",3\n')
    assert len(reader) == 5
    window = reader.read_window(0, 4)
    assert [item["a"] for item in reader.decode(window, 0, 0, 2)] == ["0\n0", "1", "x"]
    assert reader.decode(window, 0, 4, 4) == [{"a": "3,", "b": "3"}]
    with pytest.raises(RecordError) as caught:
        reader.decode(window, 0, 0, 4)
    assert str(caught.value) == f"{tmp_path}/0.csv, line 7, byte 25 (item 3): {said}"
    assert caught.value.item == 3


def test_a_quote_that_is_never_closed_is_one_record(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b'a,b\n0,0\n1,"1\n2,2\n3,3\n')
    assert len(reader) == 2
    assert reader.download_batch(0, 0, "") == [{"a": "0", "b": "0"}]
    with pytest.raises(RecordError, match=r"line 3, byte 8 \(item 1\): a quote is never closed") as caught:
        reader.download_batch(0, 1, "")
    assert caught.value.item == 1


def test_of_a_long_record_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_reader, "RECORD_LIMIT", 1 << 20)
    reader = reader_of(tmp_path, b'a,b\n0,0\n1,"' + b"1\n" * (1 << 20))
    assert len(reader) == 2
    (first, second) = reader.read_window(0, 1)
    assert (first.data, second.data) == (b"0,0\n", None)
    with pytest.raises(RecordError, match=r"line 3, byte 8 \(item 1\): .*is a quote not closed\?"):
        reader.download_batch(0, 1, "")


def test_a_field_longer_than_python_reads_by_itself(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "y" * 1_000_000
    reader = reader_of(tmp_path, f'a,b\n1,"{long}"\n2,x\n'.encode())
    assert [len(item["b"]) for item in reader.download_batch(0, 1, "")] == [1_000_000, 1]
    assert csv.field_size_limit() == before


def test_columns_are_chosen_and_put_in_order(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b"a,b,c\n1,2,3\n", columns=["c", "a"])
    reader.check()
    (item,) = reader.download_batch(0, 0, "")
    assert list(item.items()) == [("c", "3"), ("a", "1")]
    with pytest.raises(UsageError, match=r"0\.csv: there is no column 'prcie'; did you mean 'price'"):
        reader_of(tmp_path, b"id,price\n", columns=["prcie"]).check()


def test_files_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b"a,b\n1,2\n", b"", b"b,a\n4,3\n", b"a,b\n")
    assert [list(item.items()) for item in read_by(5, reader)] == [[("a", "1"), ("b", "2")], [("a", "3"), ("b", "4")]]
    with pytest.raises(
        UsageError, match=r"1\.csv: its columns are not those of the first file; they differ in 'b', 'c'"
    ):
        len(reader_of(tmp_path, b"a,b\n", b"a,c\n"))


def test_names_may_be_given_where_files_have_none(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b"1,2\n3,4", b"5,6\n", header=["x", "y"])
    reader.check()
    assert [item["y"] for item in read_by(2, reader)] == ["2", "4", "6"]


def test_compressed_files_have_headers_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.tsv.gz").write_bytes(gzip.compress(f"x\ty\n{name}\t2\n".encode()))
    reader = CsvReader(f"{tmp_path}/*.gz")
    reader.path = sorted(str(path) for path in tmp_path.iterdir())
    reader.check()
    assert read_by(1, reader) == [{"x": "a", "y": "2"}, {"x": "b", "y": "2"}]
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"x\tz\n"))
    with pytest.raises(UsageError, match=r"b\.tsv\.gz: its columns are not those"):
        len(CsvReader(reader.path))


def test_tsv_has_tabs(tmp_path: Path) -> None:
    (tmp_path / "in.TSV").write_text('a\tb\n1,1\t"2\t2"\n')
    assert CsvReader(str(tmp_path / "in.TSV")).download_batch(0, 0, "") == [{"a": "1,1", "b": "2\t2"}]


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (b"a,a\n", {}, "two columns are named 'a'"),
        (b"a,,c\n", {}, "column 2 has no name"),
        (b"a, \n", {}, "column 2 has no name"),
        (b'"a"b,c\n', {}, "the header cannot be read"),
        (b"\xff,c\n", {}, "the header cannot be read"),
        (b'a,"b\n' + b"x" * (1 << 20), {}, "the header is longer than 1,048,576 bytes; is a quote not closed?"),
        (b"\n" * (1 << 20), {}, "no header in its first"),
        (b"a\n", {"delimiter": ",,"}, "delimiter must be one ASCII character"),
        (b"a\n", {"delimiter": '"'}, "delimiter must be one ASCII character"),
        (b"a\n", {"header": False}, "header must be True or a list of names"),
        (b"a\n", {"header": []}, "a list of names is wanted"),
        (b"a\n", {"columns": ["a", "a"]}, "columns: two columns are named 'a'"),
        (b"a\n", {"columns": "a"}, "columns must be a list of names"),
    ],
)
def test_what_makes_no_sense_is_refused_before_there_is_a_job(
    tmp_path: Path, content: bytes, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        reader_of(tmp_path, content, **fields).check()
    assert said in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="does not exist"):
        CsvReader(str(tmp_path / "none.csv")).check()


def total(batch: Batch) -> Batch:
    return [{"name": item["name"], "total": float(item["price"]) * int(item["count"])} for item in batch]


def test_a_job_over_csv(tmp_path: Path) -> None:
    lines = [f'"item ""{n}"",\n{n}",{n}.5,{n}\n' for n in range(50)]
    lines[20] = "short,1\n"
    (tmp_path / "in.csv").write_text("name,price,count\n" + "".join(lines))
    reader = skybatch.CsvReader(str(tmp_path / "in.csv"))
    outcome = map_items(tmp_path, total, reader=reader, on_error="skip", max_retries=0)
    assert outcome.rows == [{"name": f'item "{n}",\n{n}', "total": n * (n + 0.5)} for n in range(50) if n != 20]
    assert {failure.item for failure in outcome.failures} == {20}
    assert "in.csv, line 42, byte" in outcome.failures[-1].message
