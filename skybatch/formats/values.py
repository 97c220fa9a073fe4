"""What results may hold: the one rule for all formats made of text.

A value is written as orjson writes it: JSON's own values, dataclasses, enums, UUIDs, dates and times (RFC 3339),
numpy scalars and arrays (nested lists). Bytes become base64 text. What has no JSON form, NaN and infinities
included, is refused by item and key. CSV and YAML write what comes back from that JSON.
"""

from __future__ import annotations

import base64
import datetime
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any

from skybatch.errors import ResultError
from skybatch.formats.base import Item

_HARMLESS = frozenset({str, int, bool, type(None), bytes})
_REMEDIES = {
    "set": "make it a list",
    "frozenset": "make it a list",
    "Decimal": "make it text with str(), or a number with float()",
    "timedelta": "use .total_seconds()",
    "complex": "write its .real and .imag",
}


def encode(results: Sequence[Item], start: int) -> bytes:
    """Each result as a line of JSON; the first belongs to item `start`. Raises ResultError naming item and key."""
    import orjson

    options = orjson.OPT_APPEND_NEWLINE
    numpy = orjson.OPT_SERIALIZE_NUMPY if "numpy" in sys.modules else 0  # it would import numpy
    try:
        lines = [orjson.dumps(result, _stand_in, options | numpy) for result in results]
    except TypeError:
        try:  # orjson does not ask what stands in for an array of foreign byte order unless it knows of no arrays
            lines = [orjson.dumps(result, _stand_in, options) for result in results]
        except TypeError:
            raise _unwritable(results, start) from None
    data = b"".join(lines)
    if b"null" in data:  # as which NaN is written too
        for index, line in enumerate(lines):
            if b"null" in line and _may_hold_nan(results[index].values()):
                _refuse_nan(results[index], start + index, "")
    return data


def plain(results: Sequence[Item], start: int) -> list[Item]:
    """The results with nothing but dicts, lists, text, numbers, booleans and None in them. Raises ResultError."""
    import orjson

    return [orjson.loads(line) for line in encode(results, start).split(b"\n")[:-1]]


def _stand_in(value: Any) -> Any:
    """What is written instead of a value that orjson does not know. Raises TypeError for what is not written at all."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, datetime.datetime) and value == value:  # not pandas' NaT
        return datetime.datetime.combine(value.date(), value.timetz())
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _stand_in_of_array(numpy, value)
    raise TypeError(f"no JSON form: {type(value).__name__}")


def _stand_in_of_array(numpy: Any, array: Any) -> Any:
    import orjson

    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("no JSON form: masked array")
    if isinstance(array, numpy.ndarray):
        if array.ndim == 0:
            return array[()]
        if array.dtype.kind in "USO":
            return array.tolist()
        array = numpy.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return orjson.Fragment(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))


def _unwritable(results: Sequence[Item], start: int) -> ResultError:
    for index, result in enumerate(results, start):
        for key, value in result.items():
            error = _refusal({key: value})
            if error is not None:
                path, culprit, error = _culprit(value, key, _refusal(value) or error)
                what = f"a {_kind(culprit)} cannot be written as JSON ({_remedy(culprit) or error})"
                return ResultError(f"item {index}, key {path!r}: {what}", item=index)
    raise AssertionError("no result at fault")


def _culprit(value: Any, path: Any, error: TypeError) -> tuple[Any, Any, TypeError]:
    """The innermost value that is refused, and its path; of what contains itself, the outermost."""
    if "ecursion" not in str(error):
        for step, inner in _inner(value):
            refused = _refusal(inner)
            if refused is not None:
                return _culprit(inner, f"{path}{step}", refused)
    return path, value, error


def _refusal(value: Any) -> TypeError | None:
    import orjson

    try:
        orjson.dumps(value, _stand_in)
    except TypeError as error:
        return error
    return None


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ in ("builtins", "__main__", "_io") else f"{kind.__module__}.{kind.__name__}"


def _remedy(value: Any) -> str | None:
    known = _REMEDIES.get(type(value).__name__)
    if known is None and hasattr(value, "tolist"):
        return "use .tolist(), and leave out what is no number"
    return known or ("use str()" if hasattr(value, "__fspath__") else None)


def _inner(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, each with its step of the path."""
    numpy: Any = sys.modules.get("numpy")
    if isinstance(value, dict):
        yield from ((f".{name}", inner) for name, inner in value.items() if isinstance(name, str))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{position}]", inner) for position, inner in enumerate(value))
    elif isinstance(value, Enum):
        yield "", value.value
    elif hasattr(value, "__dataclass_fields__"):
        names = (name for name in value.__dataclass_fields__ if not name.startswith("_"))
        yield from ((f".{name}", getattr(value, name, None)) for name in names)
    elif numpy is not None and isinstance(value, numpy.ndarray) and value.ndim and value.dtype.kind == "O":
        yield from ((f"[{position}]", inner) for position, inner in enumerate(value.tolist()))


def _may_hold_nan(values: Iterable[Any]) -> bool:
    """A quick look that spares most results, which have None in them, the thorough one."""
    for value in values:
        kind = type(value)
        if kind in _HARMLESS:
            continue
        if kind is float:
            if not math.isfinite(value):
                return True
        elif kind is dict or kind is list:
            if _may_hold_nan(value.values() if kind is dict else value):
                return True
        else:
            return True
    return False


def _refuse_nan(value: Any, index: int, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"item {index}, key {path!r}: {value} cannot be written as JSON", item=index)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.floating)) and value.dtype.kind == "f":
        for place in numpy.argwhere(~numpy.isfinite(value))[:1].tolist():
            steps = "".join(f"[{position}]" for position in place)
            what = f"{value[tuple(place)]} cannot be written as JSON"
            raise ResultError(f"item {index}, key {path + steps!r}: {what}", item=index)
    for step, inner in _inner(value):
        _refuse_nan(inner, index, f"{path}{step}" if path else step.removeprefix("."))
