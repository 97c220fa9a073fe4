"""What results may hold, and how it is written."""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skybatch.errors import ResultError
from skybatch.formats import values

NAN = float("nan")
UTC = datetime.UTC
Pair = namedtuple("Pair", "left right")
unhurried = settings(deadline=None)


class Stamp(datetime.datetime):
    """As pandas' Timestamp: a datetime of another type."""


class Tensor:
    """As torch's: not an array, but it can become a list."""

    def tolist(self) -> list[float]:
        return [1.0]


@dataclass
class Box:
    inner: Any
    _secret: Any = NAN


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (numpy.int64(-3), -3),
        (numpy.uint64(2**64 - 1), 2**64 - 1),
        (numpy.float32(0.1), 0.1),
        (numpy.bool_(True), True),
        (numpy.str_("word"), "word"),
        (numpy.bytes_(b"\xff"), "/w=="),
        (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (numpy.array([[1, 2], [3, 4]])[:, 0], [1, 3]),
        (numpy.array([1, 2], ">i4"), [1, 2]),
        (numpy.array([0.1], "f4"), [0.1]),
        (numpy.array([0.1, 9, 0.3], "f4")[::2], [0.1, 0.3]),
        (numpy.array([0.1, 9], ">f4"), [0.1, 9.0]),
        (numpy.array(5), 5),
        (numpy.array([]), []),
        (numpy.zeros((2, 0)), [[], []]),
        (numpy.array(["a", "b"]), ["a", "b"]),
        (numpy.array([b"a"]), ["YQ=="]),
        (numpy.array([None, {"deep": numpy.arange(2)}], "O"), [None, {"deep": [0, 1]}]),
        (numpy.datetime64("2024-02-29T12:00:00"), "2024-02-29T12:00:00"),
        (numpy.array(["2024-02-29"], "M8[D]"), ["2024-02-29T00:00:00"]),
        (datetime.datetime(2024, 2, 29, 12, 0, 0, 5), "2024-02-29T12:00:00.000005"),
        (datetime.datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
        (Stamp(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.time(12, 30), "12:30:00"),
        (b"\0\xff", "AP8="),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"abcd")[::2], "YWM="),
        (Pair(1, b"x"), [1, "eA=="]),
        (OrderedDict(a=None), {"a": None}),
        ([None, "null", {"a": (None,)}], [None, "null", {"a": [None]}]),
    ],
)
def test_values_are_written(value: Any, written: Any) -> None:
    results = [{"id": 0}, {"id": 1, "value": value, "none": None}]
    expected = [{"id": 0}, {"id": 1, "value": written, "none": None}]
    assert [json.loads(line) for line in values.encode(results, 0).splitlines()] == expected
    assert values.plain(results, 0) == expected


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        ({"a": [{"b": {1}}]}, "bad.a[0].b", "a set cannot be written as JSON (make it a list)"),
        (Decimal("1.1"), "bad", "decimal.Decimal cannot be written as JSON (make it text with str()"),
        (datetime.timedelta(1), "bad", ".total_seconds()"),
        ([Path("x")], "bad[0]", "use str()"),
        (Box([1, 2j]), "bad.inner[1]", "a complex cannot be written"),
        ({"deep": Tensor()}, "bad.deep", "Tensor cannot be written as JSON (use .tolist()"),
        (sys.stdout, "bad", "cannot be written as JSON"),
        (numpy.array([[1.0, 2.0], [3.0, NAN]]), "bad[1][1]", "nan cannot be written"),
        (numpy.array([1.0, NAN, 3.0], ">f8")[1:], "bad[0]", "nan cannot be written"),
        ({"x": [numpy.array([NAN], "f2")]}, "bad.x[0][0]", "nan cannot be written"),
        (numpy.float32("inf"), "bad", "inf cannot be written"),
        (numpy.float64("nan"), "bad", "nan cannot be written"),
        (numpy.array(NAN), "bad", "nan cannot be written"),
        (numpy.array([None, NAN], "O"), "bad[1]", "nan cannot be written"),
        (numpy.array([None, {1}], "O"), "bad[1]", "a set cannot be written"),
        (numpy.array([1j]), "bad", "a numpy.ndarray cannot be written"),
        (numpy.ma.masked_array([1, 2], [True, False]), "bad", "cannot be written"),
        (numpy.array([1], "m8[s]"), "bad", "cannot be written"),
        (numpy.longdouble(1), "bad", "cannot be written"),
        (numpy.datetime64("NaT"), "bad", "cannot be written"),
        (numpy.array(["NaT"], "M8[s]"), "bad", "cannot be written"),
        (Pair(1, [NAN]), "bad[1][0]", "nan cannot be written"),
        (OrderedDict(a=NAN), "bad.a", "nan cannot be written"),
        ({"a": {2: "two"}}, "bad.a", "Dict key must be str"),
    ],
)
def test_what_cannot_be_written_is_told_by_item_and_path(value: Any, key: str, said: str) -> None:
    with pytest.raises(ResultError) as caught:
        values.encode([{"good": None}, {"good": 1, "bad": value}], 6)
    assert str(caught.value).startswith(f"item 7, key {key!r}: ") and said in str(caught.value)
    assert caught.value.item == 7


def test_numpy_is_not_imported_for_values_that_need_none_of_it() -> None:
    code = """
import sys
from skybatch.formats import values
values.encode([{"a": None, "b": b"x", "c": (1.5, None)}], 0)
try:
    values.encode([{"a": 1j}], 0)
except Exception as error:
    assert "complex" in str(error), error
assert "numpy" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@unhurried
@given(st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), max_size=4))
def test_json_values_come_back(results: list[dict[str, Any]]) -> None:
    assert values.plain(results, 0) == results


@unhurried
@given(st.binary(max_size=50))
def test_bytes_come_back(data: bytes) -> None:
    assert base64.b64decode(values.plain([{"data": data}], 0)[0]["data"]) == data


@unhurried
@given(JSON, st.lists(st.sampled_from(["list", "dict", "tuple", "array"]), max_size=4))
def test_nan_is_found_wherever_it_is(beside: Any, wraps: list[str]) -> None:
    value: Any = NAN
    for wrap in wraps:
        value = {"list": [beside, value], "dict": {"k": value}, "tuple": (value,), "array": _object(value)}[wrap]
    with pytest.raises(ResultError, match="nan cannot be written"):
        values.encode([{"value": value, "beside": beside}], 0)


def _object(value: Any) -> Any:
    array = numpy.empty(1, "O")
    array[0] = value
    return array
