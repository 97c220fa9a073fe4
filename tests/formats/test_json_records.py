"""What is a record, what is not and why, and that nothing of a record is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skybatch.formats import json_records
from skybatch.formats.json_records import NotARecord, Parser

DEEP = b"[" * 100_000 + b"]" * 100_000
GOOD = [b'{"good": 1}', b'{"good":2}', b'{"time": "12:30", "inner": {"a": [1, {"b": 2.5}]}}']

REFUSED = {
    "cut off": (b'{"a":1', "not JSON: unexpected end of data (column 7)"),
    "two in a line": (b'{"a":1}{"a":2}', "not JSON: unexpected content after document (column 8)"),
    "no object": (b"[1]", "a record must be an object, not '[1]'"),
    "text": (b'"a"', "a record must be an object"),
    "null": (b"null", "a record must be an object"),
    "UTF-8": (b'{"a":"\xff"}', "not UTF-8: invalid start byte at byte 6 of the line"),
    "UTF-8 of a surrogate": (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
    "high surrogate": (rb'{"a":"\ud800"}', "not JSON"),
    "low surrogate": (rb'{"a":"\udc00x"}', "not JSON"),
    "NUL in text": (b'{"a":"\0"}', "not JSON: unexpected control character in string"),
    "NUL behind": (b'{"a":1}\0', "not JSON"),
    "NaN": (b'{"a":NaN}', "not JSON"),
    "Infinity": (b'{"a":-Infinity}', "not JSON"),
    "1e400": (b'{"a":1e400}', "number is infinity"),
    "5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", "not JSON: number is infinity"),
    "key twice": (b'{"key":1,"b":2,"key":3}', "the key 'key' is there twice in one object"),
    "key twice, nested": (b'{"a":[{"b":{"c":1,"c":1}}]}', "the key 'c' is there twice in one object"),
    "key twice, escaped": (rb'{"a":"\u003a","key":1,"k\u0065y":2}', "the key 'key' is there twice"),
    "key twice, escaped in capitals": (rb'{"a":"\u003A","key":1,"key":{}}', "the key 'key' is there twice"),
    "100,000 arrays": (b'{"a":' + DEEP + b"}", "depth limit exceeded"),
    "BOM": (b'\xef\xbb\xbf{"a":1}', "byte order mark (BOM) is not supported"),
}


@pytest.mark.parametrize(("line", "why"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("position", range(4))
def test_what_is_no_record_is_told_by_its_position_and_why(line: bytes, why: str, position: int) -> None:
    lines = [*GOOD[:position], line, *GOOD[position:]]
    with pytest.raises(NotARecord) as caught:
        Parser().parse(lines)
    assert caught.value.position == position
    assert why in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"a":18446744073709551615,"b":-9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
        (b'{"a":18446744073709551616}', {"a": 2**64}),
        (b'{"a":-9223372036854775809}', {"a": -(2**63) - 1}),
        (b'{"a":[{"b":[123456789012345678901234567890]}]}', {"a": [{"b": [123456789012345678901234567890]}]}),
        (b'{"a":' + b"7" * 300 + b"}", {"a": int("7" * 300)}),
        (b'{"a":1e300,"b":18446744073709551616.0}', {"a": 1e300, "b": 2.0**64}),
        (b'{"a":0.1000000000000000055511151231257827}', {"a": 0.1}),
        (rb'{"a":"\ud83d\ude00\u0000","":{}}', {"a": "\U0001f600\0", "": {}}),
        (b' {"a": 1, "b": {"a": 1}}\r', {"a": 1, "b": {"a": 1}}),
        (b'{"a":{"a":{"a":":::"}},":":":"}', {"a": {"a": {"a": ":::"}}, ":": ":"}),
        (b"{}", {}),
    ],
)
def test_what_is_a_record_is_read_exactly(line: bytes, record: dict[str, Any]) -> None:
    assert Parser().parse([line]) == [record]
    assert Parser().parse([GOOD[1], line, *GOOD]) == [{"good": 2}, record, *map(json.loads, GOOD)]


def test_integers_stay_integers() -> None:
    (item,) = Parser().parse([b'{"a":18446744073709551616,"b":1.0,"c":100000000000000000000.0}'])
    assert [type(value) for value in item.values()] == [int, float, float]


def test_deep_nesting_is_read_up_to_the_limit() -> None:
    (item,) = Parser().parse([b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"])
    depth, value = 0, item["a"]
    while value:
        depth, value = depth + 1, value[0]
    assert depth == 899


def test_a_record_beyond_the_limit_is_refused() -> None:
    with pytest.raises(NotARecord, match="of more than 1,073,741,824 bytes") as caught:
        Parser().parse([GOOD[0], None])
    assert caught.value.position == 1


keys = st.sampled_from(["a", "b", "key", ":", '"', "a:", "\\", "\u00e9", ""])
numbers = st.one_of(
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**18, 10**19]),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.one_of(numbers, st.text(max_size=8), st.sampled_from([":", '":', "\\u003a"]), st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(keys, values, max_size=5), max_size=6), st.booleans(), st.booleans())
def test_records_come_back_as_they_were(records: list[dict[str, Any]], ascii: bool, compact: bool) -> None:
    separators = (",", ":") if compact else None
    lines = [json.dumps(record, ensure_ascii=ascii, separators=separators).encode() for record in records]
    parser = Parser()
    for _ in range(2):  # the second time it knows how they look
        assert parser.parse(lines) == records


@given(st.lists(st.dictionaries(keys, values, min_size=1, max_size=4), min_size=1, max_size=5), st.data())
def test_a_key_twice_is_always_found(records: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = [json.dumps(record, ensure_ascii=data.draw(st.booleans())) for record in records]
    position = data.draw(st.integers(0, len(records) - 1))
    key = data.draw(st.sampled_from(sorted(records[position])))
    lines[position] = f"{lines[position][:-1]}, {json.dumps(key)}: {json.dumps(data.draw(values))}}}"
    with pytest.raises(NotARecord, match="twice") as caught:
        Parser().parse([line.encode() for line in lines])
    assert caught.value.position == position


def test_large_records_are_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "_BIG", 100)
    text = "x" * 1000
    assert Parser().parse([json.dumps({"a": text, "b": 10**30}).encode()]) == [{"a": text, "b": 10**30}]
