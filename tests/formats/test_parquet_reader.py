"""ParquetReader: files that go together, windows that cost no row twice, and what is damaged told by its place."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from skybatch import ParquetReader
from skybatch.errors import InputMissing, RecordError, StorageFailed, UsageError
from skybatch.formats import parquet, parquet_index, source
from skybatch.testing import ReaderSuite

ROWS: list[dict[str, Any]] = [
    {"n": n, "text": "é" * n or None, "nested": {"list": [n, None], "deep": {"b": b"\0" * n}}} for n in range(23)
]


HOSTILE = ["'", '"', "': 1}, exit(), {'", "{names}", "{0!r}", "\\", "\\'", "\n", "\r", "a\0b", "#", "é", "\u2028", "v0"]


def write(path: Path, rows: list[dict[str, Any]] | pa.Table, row_group_size: int = 4, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    pq.write_table(table, path, row_group_size=row_group_size, **options)
    return path


class TestParquetReader(ReaderSuite):
    expected = ROWS

    def make(self, tmp_path: Path) -> ParquetReader:
        write(tmp_path / "in" / "a.parquet", ROWS[:13])
        write(tmp_path / "in" / "b.parquet", pa.Table.from_pylist(ROWS).slice(0, 0))
        write(tmp_path / "in" / "c.parquet", pa.Table.from_pylist(ROWS[13:]).select(["text", "nested", "n"]), 100)
        return ParquetReader(str(tmp_path / "in"))

    def change(self, tmp_path: Path) -> None:
        write(tmp_path / "in" / "b.parquet", ROWS[:1])


class TestParquetReaderOfAList(TestParquetReader):
    def make(self, tmp_path: Path) -> ParquetReader:
        super().make(tmp_path)
        return ParquetReader([str(tmp_path / "in" / "[ab].parquet"), str(tmp_path / "in" / "c.parquet")])


class TestParquetReaderOfColumns(ReaderSuite):
    expected: ClassVar = [{"text": row["text"], "n": row["n"]} for row in ROWS]

    def make(self, tmp_path: Path) -> ParquetReader:
        return ParquetReader(str(write(tmp_path / "in.parquet", ROWS)), columns=["text", "n"])

    def malformed(self, tmp_path: Path) -> tuple[ParquetReader, int]:
        years = pa.array([0, 300_000_000_000, 0], pa.timestamp("s"))  # one is after the year 9999
        path = write(tmp_path / "years.parquet", pa.table({"n": [0, 1, 2], "text": years}))
        return ParquetReader(str(path), columns=["text", "n"]), 1


def small(reader: ParquetReader, tmp_path: Path) -> ParquetReader:
    """A reader as a worker has it."""
    reader.build_index(str(tmp_path))
    fresh = ParquetReader(reader.path, reader.columns)
    fresh.open_index(str(tmp_path))
    return fresh


@settings(max_examples=30, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40)), min_size=1, max_size=8),
    kept=st.integers(1, 3000),
    decoded=st.integers(1, 9),
)
def test_windows_in_any_order_have_their_rows_however_little_is_kept(
    spans: list[tuple[int, int]], kept: int, decoded: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "windows"
    rows = [{"n": n, "text": "x" * n} for n in range(100)]
    if not folder.exists():
        write(folder / "in.parquet", rows, 37)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "KEPT_BYTES", kept)
        patch.setattr(parquet, "DECODED_ROWS", decoded)
        reader = small(ParquetReader(str(folder / "in.parquet")), folder)
        for start, count in spans:
            end = min(99, start + count - 1)
            assert reader.download_batch(start, end, "") == rows[start : end + 1]


def test_windows_in_order_decode_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "DECODED_ROWS", 8)
    monkeypatch.setattr(parquet, "KEPT_BYTES", 1)
    reader = small(ParquetReader(str(write(tmp_path / "in.parquet", [{"n": n} for n in range(100)], 50))), tmp_path)
    decoded: list[int] = []
    plain = parquet_index.plain
    monkeypatch.setattr(
        parquet_index, "plain", lambda batch, names: decoded.append(batch.num_rows) or plain(batch, names)
    )
    for start in range(0, 100, 5):
        assert len(reader.read_window(start, start + 4)) <= 2
    assert sum(decoded) == 100


def test_a_window_is_bounded_by_the_size_of_its_rows(tmp_path: Path) -> None:
    rows = [{"text": f"{n:05d}" * 20_000} for n in range(50)]  # 100 KB each
    reader = small(ParquetReader(str(write(tmp_path / "in.parquet", rows, compression="none"))), tmp_path)
    assert 20 <= reader.window_end(0, 49) <= 48
    assert reader.window_end(0, 3) == 3


def test_types_come_as_the_standard_library_has_them(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 2, 29, 12, 30, 1, 5)
    nano = int(moment.replace(tzinfo=datetime.UTC).timestamp() * 1_000_000) * 1000 + 7
    table = pa.table(
        {
            "ns": pa.array([nano], pa.timestamp("ns")),
            "zone": pa.array([moment], pa.timestamp("us", "UTC")),
            "nested_ns": pa.array([[{"t": nano}]], pa.list_(pa.struct([("t", pa.timestamp("ns"))]))),
            "day": pa.array([moment.date()]),
            "time": pa.array([moment.time()], pa.time64("us")),
            "span": pa.array([datetime.timedelta(seconds=3)], pa.duration("ns")),
            "number": pa.array([Decimal("1.50")]),
            "kind": pa.array(["a"]).dictionary_encode(),
            "pairs": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "bytes": pa.array([b"\0\1"]),
            "vector": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        }
    )
    (item,) = ParquetReader(str(write(tmp_path / "in.parquet", table))).download_batch(0, 0, "")
    assert item == {
        "ns": moment,
        "zone": moment.replace(tzinfo=datetime.UTC),
        "nested_ns": [{"t": moment}],
        "day": moment.date(),
        "time": moment.time(),
        "span": datetime.timedelta(seconds=3),
        "number": Decimal("1.50"),
        "kind": "a",
        "pairs": [("k", 1)],
        "bytes": b"\0\1",
        "vector": [1.0, 2.0],
    }
    assert {type(value).__module__ for value in item.values()} <= {"builtins", "datetime", "decimal"}


def without_b(path: Path) -> None:
    write(path, pa.table({"a": [1]}))


def another_b(path: Path) -> None:
    write(path, pa.table({"a": [1], "b": ["text"]}))


def one_more(path: Path) -> None:
    write(path, pa.table({"a": [1], "b": [1], "c": [1]}))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def foreign(path: Path) -> None:
    path.write_text("a,b\n1,2\n" * 10)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_b, "no column 'b', which .*1.parquet has"),
        (another_b, "column 'b' is string, and in .*1.parquet it is int64"),
        (one_more, "column 'c' is not in .*1.parquet; columns= leaves it out"),
        (truncated, "cannot be read as a Parquet file"),
        (foreign, "cannot be read as a Parquet file"),
        (empty, "is empty, which is no Parquet file"),
    ],
)
def test_a_file_that_does_not_go_with_the_others_is_refused_by_name(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    for name in ("1.parquet", "2.parquet", "3.parquet"):
        write(tmp_path / name, pa.table({"a": [1], "b": [2]}))
    spoil(tmp_path / "2.parquet")
    with pytest.raises(UsageError, match=f"{tmp_path}/2.parquet: {said}"):
        ParquetReader(str(tmp_path)).check()


def test_other_columns_of_files_may_differ_where_they_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", pa.table({"a": [1], "b": [2]}))
    write(tmp_path / "2.parquet", pa.table({"c": ["x"], "a": [3]}))
    assert ParquetReader(str(tmp_path), columns=["a"]).download_batch(0, 1, "") == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["texd"], "no column 'texd'; did you mean 'text'\\?; it has: n, text, nested"),
        (["n", "n"], "columns has a name twice"),
        ([], "columns must be a list of names"),
        ("n", "columns must be a list of names, not 'n'"),
    ],
)
def test_columns_that_make_no_sense_are_refused(columns: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        ParquetReader(str(write(tmp_path / "in.parquet", ROWS)), columns=columns).check()


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(UsageError, match="two columns are called 'a'"):
        ParquetReader(str(write(tmp_path / "in.parquet", table))).check()


@given(names=st.lists(st.text(max_size=20) | st.sampled_from(HOSTILE), unique=True, min_size=1, max_size=6))
def test_names_of_columns_are_only_names(names: list[str]) -> None:
    """They become part of code that makes the items."""
    rows = parquet._row_maker(tuple(names))([[k, None] for k in range(len(names))])
    assert rows == [{name: k for k, name in enumerate(names)}, dict.fromkeys(names)]


def test_hostile_names_of_columns_come_back(tmp_path: Path) -> None:
    rows = [dict.fromkeys(HOSTILE, 7)]
    path = write(tmp_path / "in.parquet", pa.Table.from_arrays([pa.array([7])] * len(HOSTILE), names=HOSTILE))
    reader = ParquetReader(str(path))
    reader.build_index(str(tmp_path))
    assert reader.decode(reader.read_window(0, 0), 0, 0, 0) == rows


def test_files_without_rows_are_an_empty_input(tmp_path: Path) -> None:
    reader = ParquetReader(str(write(tmp_path / "in.parquet", pa.table({"a": pa.array([], pa.int64())}))))
    reader.check()
    assert len(reader) == 0


def damaged(path: Path) -> Path:
    """Three row groups of two pages each; a bit of the second page of the middle one is flipped."""
    options = {"use_dictionary": False, "data_page_size": 1, "write_batch_size": 5, "write_page_checksum": True}
    write(path, [{"n": n, "text": f"{n:04d}" * 10} for n in range(30)], 10, compression="none", **options)
    data = bytearray(path.read_bytes())
    data[data.index(b"0017" * 10)] ^= 1  # in the middle, and so not in statistics
    path.write_bytes(data)
    return path


def test_a_damaged_page_is_the_failure_of_its_row_groups_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "DECODED_ROWS", 5)
    reader = small(ParquetReader(str(damaged(tmp_path / "in.parquet"))), tmp_path)
    window = reader.read_window(0, 29)
    assert [item["n"] for item in reader.decode(window, 0, 0, 14)] == list(range(15))
    assert [item["n"] for item in reader.decode(window, 0, 20, 29)] == list(range(20, 30))
    for start, end, item in ((0, 29, 15), (15, 15, 15), (19, 19, 19), (17, 22, 17)):
        with pytest.raises(RecordError, match=rf"item {item}: .*in.parquet, row group 1, cannot be read") as caught:
            reader.decode(window, 0, start, end)
        assert caught.value.item == item
    with pytest.raises(RecordError, match=r"item 16: .*row group 1"):
        reader.download_batch(16, 16, "")
    assert [item["n"] for item in reader.download_batch(10, 14, "")] == [10, 11, 12, 13, 14]
    assert [item["n"] for item in reader.download_batch(28, 29, "")] == [28, 29]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StorageFailed("s3: no answer")])
def test_a_store_that_fails_is_no_damage_and_is_asked_again(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = small(ParquetReader(str(write(tmp_path / "in.parquet", ROWS))), tmp_path)
    reader.download_batch(0, 0, "")
    with monkeypatch.context() as patch:

        def fail(self: object, offset: int, length: int) -> bytes:
            raise error

        patch.setattr(source._LocalSource, "read", fail)
        with pytest.raises(type(error)):
            reader.download_batch(9, 9, "")
    assert reader.download_batch(8, 9, "") == ROWS[8:10]


def test_a_file_replaced_after_the_index_was_made_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", ROWS)
    reader = small(ParquetReader(str(path)), tmp_path)
    write(path, ROWS[::-1] * 2)
    with pytest.raises(InputMissing, match="has changed since the job looked at it first"):
        reader.download_batch(0, 3, "")


@pytest.mark.full
def test_files_on_s3_are_read_by_ranged_requests(moto_bucket: str, tmp_path: Path) -> None:
    from skybatch.formats import stores

    for name, rows in (("a", ROWS[:13]), ("b", ROWS[13:])):
        path = write(tmp_path / f"{name}.parquet", rows)
        stores.of(moto_bucket).put(f"{moto_bucket}/in/{name}.parquet", path)
    reader = small(ParquetReader(f"{moto_bucket}/in/*.parquet"), tmp_path)
    assert reader.download_batch(0, 22, "") == ROWS
    assert reader.download_batch(12, 14, "") == ROWS[12:15]
    with pytest.raises(InputMissing):
        ParquetReader(f"{moto_bucket}/out/*.parquet").check()
