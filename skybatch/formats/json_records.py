"""Lines of JSON to dicts, and why a line is no record.

orjson is fast, and forgiving in two ways that lose data: of two equal keys it keeps the last, and an integer beyond 64
bits becomes a float. That neither happened is shown without a second parser: compact lines come out of orjson as they
went in; of others, what was read has as many colons, written again, as the lines have, and no number is that long.
Lines of which this cannot be shown are read by the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skybatch.formats.base import Item

RECORD_LIMIT = 1 << 30
"""Bytes of a record; a longer one is not read. Reading one takes several times its size."""
_BIG = 16 << 20
_STRIDE = 9
_DIGITS = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_LONG = b"0" * 19
_PAUSE = 200
_WIDE = 2.0**63


class NotARecord(ValueError):
    """One line of several cannot be read; `position` says which, the message why."""

    def __init__(self, position: int, why: str) -> None:
        self.position = position
        super().__init__(why)


class Parser:
    """Parses batches of lines; remembers whether they look as if orjson had written them."""

    def __init__(self) -> None:
        self._pause = 0

    def parse(self, lines: Sequence[bytes | None]) -> list[Item]:
        """One dict per line; None stands for a line beyond RECORD_LIMIT. Raises NotARecord for the first at fault."""
        import orjson

        try:
            items: list[Any] = list(map(orjson.loads, lines))  # type: ignore[arg-type]
        except orjson.JSONDecodeError:
            return [_parse_one(line, position) for position, line in enumerate(lines)]
        if set(map(type, items)) - {dict} or not self._as_written(lines, items):  # type: ignore[arg-type]
            return [_parse_one(line, position) for position, line in enumerate(lines)]
        return items

    def _as_written(self, lines: Sequence[bytes], items: list[Item]) -> bool:
        """Whether nothing of the lines is lost in the items; may be False where nothing is."""
        data = lines[0] if len(lines) == 1 else b",".join(lines)
        if self._pause or len(data) > _BIG:
            self._pause = max(0, self._pause - 1)
        elif (_dumped(items) or b"")[1:-1] == data:
            return True
        else:
            self._pause = _PAUSE  # most likely the lines to come are not compact either
        return _same_colons(data, items) and not (_has_long_numbers(data) and _has_wide_floats(items))


def _same_colons(data: bytes, items: list[Item]) -> bool:
    """Whether every key is there: a key has a colon, and a second one of the same name goes lost with its own."""
    keys = sum(map(len, items))
    dense = keys * 50 > len(data)
    colons = _count(data, dense)
    if colons == keys:
        return True
    dumped = _dumped(items)
    if dumped is None or _count(dumped, dense) != colons:
        return False
    # an escaped colon in a string comes out as one, and could stand in for a lost one
    return b"\\" not in data or not (b"\\u003a" in data or b"\\u003A" in data)


def _count(data: bytes, dense: bool) -> int:
    """Colons; `replace` finds them by memchr, which pays where they are rare."""
    return data.count(b":") if dense else len(data) - len(data.replace(b":", b""))


def _dumped(items: list[Item]) -> bytes | None:
    import orjson

    try:
        return orjson.dumps(items)
    except TypeError:  # nested deeper than orjson writes, though not than it reads
        return None


def _has_long_numbers(data: bytes) -> bool:
    """Whether there are 19 digits in a row; before that is looked at, whether two lie _STRIDE bytes apart."""
    return b"00" in data[::_STRIDE].translate(_DIGITS) and _LONG in data.translate(_DIGITS)


def _has_wide_floats(items: list[Item]) -> bool:
    """Whether a float may be an integer of more than 64 bits."""
    waiting: list[Any] = list(items)
    while waiting:
        value = waiting.pop()
        for inner in value.values() if type(value) is dict else value:
            kind = type(inner)
            if kind is float:
                if not -_WIDE < inner < _WIDE:
                    return True
            elif kind is dict or kind is list:
                waiting.append(inner)
    return False


def _parse_one(line: bytes | None, position: int) -> Item:
    import orjson

    if line is None:
        raise NotARecord(position, f"a record of more than {RECORD_LIMIT:,} bytes is not read")
    try:
        value = orjson.loads(line)
        if type(value) is not dict:
            raise ValueError(f"a record must be an object, not {_short(line)}")
        if Parser()._as_written([line], [value]):
            return value
        return _strictly(line)
    except orjson.JSONDecodeError as error:
        raise NotARecord(position, _why(line, error.msg, error.colno)) from None
    except RecursionError:
        raise NotARecord(position, "nested too deeply to be read exactly") from None
    except ValueError as error:
        raise NotARecord(position, str(error)) from None


def _strictly(line: bytes) -> Item:
    """Read by the standard library: integers of any size, no key twice."""
    import json

    value: Item = json.loads(line.decode(), object_pairs_hook=_without_twins)
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"the key {twin[:60]!r} is there twice in one object")
    return found


def _why(line: bytes, what: str, column: int) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start} of the line"
    return f"not JSON: {what} (column {column}): {_short(line)}"


def _short(line: bytes) -> str:
    text = line[:60].decode(errors="replace")
    return repr(text) if len(line) <= 60 else f"{text!r}..."
