"""What JsonWriter writes, and how it refuses what has no JSON form."""

from __future__ import annotations

import datetime
import json
import re
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from skybatch.errors import ResultError, UsageError
from skybatch.formats.json_format import JsonWriter

NAN, INF = float("nan"), float("inf")


@dataclass
class Point:
    x: float


class Level(Enum):
    LOW = 1
    NONE = NAN


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        ({1, 2}, "bad", "a set cannot be written as JSON"),
        (2**64, "bad", "64-bit"),
        (-(2**63) - 1, "bad", "64-bit"),
        ("\ud800", "bad", "surrogates"),
        ({"inner": ["\udfff"]}, "bad.inner[0]", "surrogates"),
        ({1: 2}, "bad", "Dict key must be str"),
        (NAN, "bad", "nan cannot be written as JSON"),
        (INF, "bad", "inf cannot be written as JSON"),
        (-INF, "bad", "-inf cannot be written as JSON"),
        ([1, [NAN]], "bad[1][0]", "nan"),
        ((1, NAN), "bad[1]", "nan"),
        ({"deep": [{"er": INF}]}, "bad.deep[0].er", "inf"),
        (Point(NAN), "bad.x", "nan"),
        ([Point(INF)], "bad[0].x", "inf"),
        (Level.NONE, "bad", "nan"),
    ],
)
def test_a_value_without_a_json_form_is_told_by_item_and_key(value: Any, key: str, said: str) -> None:
    results = [{"good": 1}, {"good": None}, {"good": 2, "bad": value}, {"good": 3}]
    with pytest.raises(ResultError, match=rf"^item 72, key '{re.escape(key)}': .*{re.escape(said)}") as caught:
        JsonWriter("out.jsonl").encode(results, 70)
    assert caught.value.item == 72


def test_an_open_file_and_a_key_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with (
        open(tmp_path / "file", "w") as file,
        pytest.raises(ResultError, match="item 0, key 'file': a TextIOWrapper cannot be written"),
    ):
        JsonWriter("out.jsonl").encode([{"file": file}], 0)
    with pytest.raises(ResultError, match=r"item 5, key 7: .*Dict key must be str"):
        JsonWriter("out.jsonl").encode([{7: "seven"}], 5)  # type: ignore[dict-item]


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ResultError, match="item 0, key 'endless'"):
        JsonWriter("out.jsonl").encode([{"endless": endless}], 0)


def test_values_that_have_a_json_form_come_back() -> None:
    results: list[dict[str, Any]] = [
        {"none": None, "deep": [None, {"none": None}]},
        {"big": 2**64 - 1, "small": -(2**63), "text": "null NaN\n\u2028\U0001f600\0"},
        {},
    ]
    data = JsonWriter("out.jsonl").encode(results, 0)
    assert [json.loads(line) for line in data.split(b"\n")[:-1]] == results
    assert data.startswith(b'{"none":null,"deep":[null,{"none":null}]}\n')


def test_what_orjson_writes_natively_is_written() -> None:
    number, day = uuid.UUID(int=1), datetime.date(2024, 2, 29)
    results = [{"point": Point(1.5), "level": Level.LOW, "uuid": number, "day": day, "none": None}]
    assert json.loads(JsonWriter("out.jsonl").encode(results, 0)) == {
        "point": {"x": 1.5},
        "level": 1,
        "uuid": str(number),
        "day": "2024-02-29",
        "none": None,
    }


RESULTS = [{"id": 1, "word": "one", "more": {9}}, {"more": {8}, "word": "two", "id": None}]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("word", b'{"word":"one"}\n{"word":"two"}\n'),
        (["word", "id"], b'{"word":"one","id":1}\n{"word":"two","id":null}\n'),
    ],
)
def test_columns_are_kept_in_their_order(column: str | list[str], expected: bytes) -> None:
    assert JsonWriter("out.jsonl", column=column).encode(RESULTS, 0) == expected


def test_a_missing_column_names_the_nearest() -> None:
    with pytest.raises(ResultError, match="item 31: the result has no 'wrod'; did you mean 'word'") as caught:
        JsonWriter("out.jsonl", column=["id", "wrod"]).encode([{"id": 0, "wrod": 1}, *RESULTS], 30)
    assert caught.value.item == 31
    with pytest.raises(ResultError, match=r"item 0: the result has no 'word'$"):
        JsonWriter("out.jsonl", column="word").encode([{7: 1}], 0)  # type: ignore[dict-item]


@pytest.mark.parametrize("column", [[], [1], ["word", None]])
def test_a_column_is_a_key_or_keys(column: Any) -> None:
    with pytest.raises(UsageError, match="column must be a key or a list of keys"):
        JsonWriter("out.jsonl", column=column).check()
