"""ParquetWriter: the bytes depend on the rows alone; what a column cannot hold is told by item and key."""

from __future__ import annotations

import datetime
import io
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from skybatch import ParquetWriter
from skybatch.errors import ResultError, UsageError
from skybatch.formats import arrow_types, parquet_assembler
from skybatch.formats.base import Restart
from skybatch.testing import WriterSuite
from tests.tools.assembling import assembled, cut_everywhere, payloads

NAN = float("nan")
NOW = datetime.datetime(2024, 2, 29, 12, 30, 1, 5)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


def table_of(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def file_of(data: bytes) -> Any:
    return pq.ParquetFile(io.BytesIO(data))


class TestParquetWriter(WriterSuite):
    results: ClassVar = [{"n": n, "text": "é" * n or None, "deep": {"list": [n / 2]}} for n in range(11)]
    expected = results
    unwritable: ClassVar = {"n": object(), "text": None, "deep": None}

    def make(self, tmp_path: Path) -> ParquetWriter:
        return ParquetWriter(str(tmp_path / "out.parquet"), row_group_size=4)

    def read(self, path: Path) -> Any:
        return pq.read_table(path).to_pylist()


integers, small = st.integers(-(2**50), 2**50), st.integers(0, 9)
kinds = {
    "number": st.none() | integers | st.floats(width=32),
    "whole": st.none() | small | st.just(2**63),
    "array": st.none() | small.map(lambda n: np.arange(n % 3, dtype=np.float32)) | st.lists(small, max_size=1),
    "list": st.lists(small | st.none() | st.just(0.5), max_size=2),
    "dict": st.dictionaries(st.sampled_from("xyz"), small | st.just(0.5), max_size=2) | st.none(),
    "deep": st.lists(st.dictionaries(st.sampled_from("xy"), st.lists(st.just({}) | st.just({"z": 1}), max_size=1))),
    "decimal": st.decimals(min_value=-1000, max_value=1000, places=3) | st.just(Decimal("1E+5")) | st.none(),
    "text": st.text(max_size=3) | st.none(),
    "clash": st.none() | st.just("") | st.just(b""),
    "time": st.none() | st.just(NOW) | st.just(np.datetime64("2024-01-01")),
}
some_rows = st.lists(st.fixed_dictionaries({}, optional=kinds), max_size=25)


@in_one_folder
@given(rows=some_rows, cuts=cut_everywhere(25), bytes_limit=st.sampled_from([60, 300, 1 << 20]))
def test_bytes_do_not_depend_on_batches(rows: list[Any], cuts: list[int], bytes_limit: int, tmp_path: Path) -> None:
    writer = ParquetWriter("out.parquet", row_group_size=7)
    cuts = [min(cut, len(rows)) for cut in cuts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_assembler, "ROW_GROUP_BYTES", bytes_limit)
        try:
            expected = assembled(writer, payloads(writer, rows, []), tmp_path / "whole")
        except ResultError:
            with pytest.raises(ResultError):
                assembled(writer, payloads(writer, rows, cuts), tmp_path / "cut")
            return
        assert assembled(writer, payloads(writer, rows, cuts), tmp_path / "cut") == expected
    names = file_of(expected).schema_arrow.names
    assert names == list(dict.fromkeys(name for row in rows for name in row))
    assert table_of(expected).num_rows == (len(rows) if names else 0)


def test_row_groups_have_their_size_in_rows(tmp_path: Path) -> None:
    writer = ParquetWriter("out.parquet", row_group_size=10)
    metadata = file_of(assembled(writer, payloads(writer, [{"n": 1}] * 35, [3, 21]), tmp_path / "out")).metadata
    assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [10, 10, 10, 5]


def test_row_groups_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_assembler, "ROW_GROUP_BYTES", 1000)
    writer = ParquetWriter("out.parquet")
    rows = [{"text": "x" * size} for size in (400, 400, 400, 5000, 1, 1)]
    metadata = file_of(assembled(writer, payloads(writer, rows, [2]), tmp_path / "out")).metadata
    assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [2, 1, 1, 2]


@pytest.mark.parametrize(
    "rows", [[{"a": 1}] * 3 + [{"a": 2.5}], [{"a": 1}] * 3 + [{"b": 1}], [{"a": None}] * 3 + [{"a": ""}]]
)
def test_what_comes_late_and_does_not_fit_restarts(rows: list[dict[str, Any]]) -> None:
    writer = ParquetWriter("out.parquet", row_group_size=2)
    first, second = payloads(writer, rows, [3])
    builder = writer.assembler(io.BytesIO(), None)
    builder.add(first)
    with pytest.raises(Restart):
        builder.add(second)


def test_values_come_back(tmp_path: Path) -> None:
    @dataclass
    class Point:
        x: float
        _y: int = 0

    class Level(Enum):
        LOW = "low"

    identity = uuid.uuid4()
    row = {
        "nan": NAN,
        "big": 2**64 - 1,
        "bool": np.bool_(True),
        "int": np.int32(5),
        "single": np.float32(0.5),
        "array": np.array([[1, 2], [3, 4]], dtype=np.int16),
        "vector": np.array([0.5, 1.5], dtype=np.float32),
        "words": np.array(["a", "bc"]),
        "day": np.datetime64("2024-02-29"),
        "bytes": bytearray(b"\0"),
        "point": Point(1.0),
        "level": Level.LOW,
        "id": identity,
        "tuple": (1, None),
        "ordered": OrderedDict(b=1, a=2),
        "moment": NOW.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        "naive": NOW,
        "date": NOW.date(),
        "time": NOW.time(),
        "span": datetime.timedelta(microseconds=1),
        "decimal": Decimal("-0.010"),
        "empty": {},
    }
    writer = ParquetWriter("out.parquet")
    table = table_of(assembled(writer, payloads(writer, [row], []), tmp_path / "out"))
    (found,) = table.to_pylist()
    assert str(found.pop("nan")) == "nan"
    row.pop("nan")
    assert found == row | {
        "array": [[1, 2], [3, 4]],
        "vector": [0.5, 1.5],
        "words": ["a", "bc"],
        "day": datetime.datetime(2024, 2, 29),
        "point": {"x": 1.0},
        "level": "low",
        "id": str(identity),
        "tuple": [1, None],
        "empty": None,
    }
    types = {field.name: str(field.type) for field in table.schema}
    assert types["vector"] == "list<element: float>"
    assert types["array"] == "list<element: list<element: int16>>"
    assert (types["moment"], types["naive"]) == ("timestamp[us, tz=UTC]", "timestamp[us]")
    assert (types["int"], types["single"], types["big"]) == ("int64", "double", "uint64")


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (1, "one", "int and str do not go together"),
        (None, {1, 2}, "a set has no Parquet form"),
        (None, 2**64, "too large|too big"),
        (2**63, -1, "negative"),
        (0.5, 2**53 + 1, "9007199254740993"),
        ("a", "\ud800", "surrogates"),
        ([1], [1, ["x"]], "int and list do not go together"),
        ({"x": 1}, {"x": "y"}, "int and str do not go together"),
        ({"x": 1}, {7: 1}, "a key must be text, not 7"),
        (NOW, NOW.replace(tzinfo=datetime.UTC), "with and without a time zone"),
        (Decimal(1), Decimal("nan"), "NaN has no Parquet form"),
        (None, np.datetime64(1, "ns"), "nanoseconds"),
        (None, 1j, "a complex has no Parquet form"),
    ],
)
def test_a_value_that_does_not_fit_is_told_by_item_and_key(good: Any, bad: Any, said: str) -> None:
    results = [{"fine": 1, "key": value} for value in (good, None, good, bad, good)]
    with pytest.raises(ResultError, match=f"item 73, key 'key': .*({said})") as caught:
        ParquetWriter("out.parquet").encode(results, 70)
    assert caught.value.item == 73


def test_what_contains_itself_and_keys_that_are_no_text_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ResultError, match="item 1, key 'a': it is nested too deeply"):
        ParquetWriter("out.parquet").encode([{"a": []}, {"a": endless}], 0)
    with pytest.raises(ResultError, match="item 1, key 7: a key must be text"):
        ParquetWriter("out.parquet").encode([{"a": 1}, {7: 1}], 0)  # type: ignore[dict-item]


def test_batches_that_do_not_go_together_are_told_by_column_and_types(tmp_path: Path) -> None:
    writer = ParquetWriter("out.parquet")
    said = r"begins with item 2 .*column 'a': 'x': int64 and string do not go together; the writer's schema= can"
    with pytest.raises(ResultError, match=said):
        assembled(writer, payloads(writer, [{"a": {"x": 1}}] * 2 + [{"a": {"x": "y"}}], [2]), tmp_path / "out")


def test_column_keeps_what_was_asked_for(tmp_path: Path) -> None:
    writer = ParquetWriter("out.parquet", column=["b", "a"])
    rows = [{"a": 1, "b": "x", "c": object()}, {"a": 2, "b": "y"}]
    data = assembled(writer, payloads(writer, rows, [1]), tmp_path / "out")
    assert table_of(data).to_pydict() == {"b": ["x", "y"], "a": [1, 2]}
    with pytest.raises(ResultError, match=r"item 5: the result has no 'b'; did you mean 'bb'\?"):
        writer.encode([{"a": 1, "b": 1}, {"a": 1, "bb": 1}], 4)


def test_a_schema_gives_names_and_types(tmp_path: Path) -> None:
    schema = {"id": "int32", "tags": "list<string>", "at": "timestamp[ms, tz=UTC]", "price": "decimal128(10, 2)"}
    schema["deep"] = "struct<a: int64, b: list<float>>"
    writer = ParquetWriter("out.parquet", schema=schema)
    writer.check()
    rows = [{"deep": {"b": np.array([0.5])}, "id": np.int64(1)}, {"tags": ("x",), "price": Decimal("1.5")}, {}]
    table = table_of(assembled(writer, payloads(writer, rows, [1]), tmp_path / "out"))
    assert table.column_names == list(schema)
    assert {name: table.schema.field(name).type for name in schema} == {
        name: arrow_types.parse(text.replace("list<string>", "list<element: string>")) for name, text in schema.items()
    }
    assert table.to_pylist()[0]["deep"] == {"a": None, "b": [0.5]}
    for bad, said in (({"ID": 1}, "key 'ID' is not in the schema"), ({"id": 2**40}, "key 'id'"), ({"id": 1.5}, "'id'")):
        with pytest.raises(ResultError, match=f"item 1.*{said}"):
            writer.encode([{}, bad], 0)


@pytest.mark.parametrize(("column", "names"), [(None, []), ("a", ["a"])])
def test_no_results_make_a_valid_file(column: str | None, names: list[str], tmp_path: Path) -> None:
    writer = ParquetWriter("out.parquet", column=column)
    data = assembled(writer, payloads(writer, [], []), tmp_path / "out")
    assert (table_of(data).column_names, table_of(data).num_rows) == (names, 0)
    typed = ParquetWriter("out.parquet", schema={"a": "int64"})
    assert table_of(assembled(typed, [], tmp_path / "typed")).schema == pa.schema([("a", pa.int64())])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"compression": "zst"}, "did you mean 'zstd'"),
        ({"row_group_size": 0}, "row_group_size must be a number of rows"),
        ({"column": []}, "column must be a key"),
        ({"schema": {"a": "int65"}}, "column 'a': no type is called 'int65'"),
        ({"schema": {"a": "strng"}}, "no type is called 'strng'; did you mean 'string'?"),
        ({"schema": {"a": "list<strin>"}}, "no type is called 'strin'"),
        ({"schema": {"a": "string"}, "column": ["aa"]}, "schema has no type for column 'aa'; did you mean 'a'"),
        ({"schema": {}}, "schema must map columns to types"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ParquetWriter("out.parquet", **fields).check()
