"""Python values as Arrow arrays, by rules of our own: types depend on the values alone, not on how they are grouped.

Text, bytes, booleans, integers (int64; uint64 where larger), floats, dates, times, datetimes (microseconds; those with
a time zone in UTC), timedeltas, decimals, None; dicts become structs, lists and tuples lists; numpy scalars become
Python's, arrays nested lists of their own element type; dataclasses structs, enums their values, UUIDs text.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from enum import Enum
from itertools import accumulate, chain
from types import NoneType
from typing import Any

from skybatch.formats import arrow_types
from skybatch.formats.arrow_types import Conflict


def array_of(values: Sequence[Any]) -> Any:
    """An Arrow array of these values. Raises Conflict, TypeError, ValueError, OverflowError for what cannot be one."""
    import pyarrow as pa

    kinds = set(map(type, values))
    kinds.discard(NoneType)
    if not kinds:
        return pa.nulls(len(values))
    if len(kinds) == 1 and (make := _MAKERS.get(next(iter(kinds)))):
        return make(values) if not isinstance(make, str) else pa.array(values, type=getattr(pa, make)())
    if kinds == {int, float}:
        return pa.array(values, type=pa.float64())
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and numpy.ndarray in kinds and any(type(v) is numpy.ndarray and v.ndim for v in values):
        return _arrays(values, numpy)
    if kinds <= _MAKERS.keys():
        raise Conflict(f"{_names(kinds)} do not go together in one column")
    return array_of([plain(value) for value in values])


def typed_array_of(values: Sequence[Any], type: Any) -> Any:
    """An Arrow array of the given type. Raises as `array_of`."""
    import pyarrow as pa

    if arrow_types.has_integers(type):  # pyarrow would cut fractions off
        return arrow_types.conform(array_of(values), type)
    try:
        return pa.array(values, type=type)
    except (ValueError, TypeError, OverflowError):
        return pa.array([_deeply_plain(value) for value in values], type=type)


def culprit(values: Sequence[Any], make: Callable[[Sequence[Any]], Any]) -> tuple[int, str]:
    """Position and trouble of the first value that cannot go with those before it."""
    low, high = 0, len(values)
    trouble = ""
    while low < high:  # the shortest prefix that fails
        middle = (low + high) // 2
        try:
            make(values[: middle + 1])
        except RecursionError:
            high, trouble = middle, "it is nested too deeply, or contains itself"
        except (ValueError, TypeError, OverflowError) as error:
            high, trouble = middle, str(error)
        else:
            low = middle + 1
    return low, trouble


def plain(value: Any) -> Any:
    """A value of a kind that `array_of` knows, for one it does not. Raises TypeError."""
    if type(value) in _MAKERS or value is None:
        return value
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _plain_numpy(value, numpy)
    if isinstance(value, Enum):
        return plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not f.name.startswith("_")}
    if isinstance(value, datetime.datetime):
        return _plain_datetime(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    for kind in _BASES:
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a {type(value).__name__} has no Parquet form")


def _plain_datetime(value: Any) -> datetime.datetime | None:
    if value != value:  # pandas' NaT
        return None
    if getattr(value, "nanosecond", 0):
        raise ValueError("it has nanoseconds; round it to microseconds")
    return datetime.datetime.combine(value.date(), value.timetz())


def _plain_numpy(value: Any, numpy: Any) -> Any:
    if value.dtype.kind in "mM":
        fine = value.astype(f"{value.dtype.kind}8[us]")
        if not numpy.array_equal(fine.astype(value.dtype), value, equal_nan=True):
            raise ValueError("it has nanoseconds; round it to microseconds")
        return fine.tolist()
    if value.dtype.kind not in "biufSUO":
        raise TypeError(f"a {type(value).__name__} of {value.dtype} has no Parquet form")
    return value.tolist()


def _deeply_plain(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, dict):
        return {key: _deeply_plain(inner) for key, inner in value.items()}
    return [_deeply_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _integers(values: Sequence[int | None]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, type=pa.int64())
    except (OverflowError, ValueError):
        return pa.array(values, type=pa.uint64())


def _datetimes(values: Sequence[datetime.datetime | None]) -> Any:
    import pyarrow as pa

    naive = {value.utcoffset() is None for value in values if value is not None}
    if len(naive) > 1:
        raise Conflict("datetimes with and without a time zone do not go together in one column")
    return pa.array(values, type=pa.timestamp("us", None if naive == {True} else "UTC"))


def _decimals(values: Sequence[Decimal | None]) -> Any:
    import pyarrow as pa

    return pa.array(values, type=arrow_types.decimal(*_digits(value for value in values if value is not None)))


def _digits(values: Iterable[Decimal]) -> tuple[int, int]:
    """How many digits stand before the point, and behind it, at most."""
    before, behind = 0, 0
    for value in values:
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            raise ValueError(f"Decimal {value} has no Parquet form")
        before = max(before, len(digits) + exponent)
        behind = max(behind, -exponent)
    return before, behind


def _lists(values: Sequence[Sequence[Any] | None]) -> Any:
    lengths = [None if value is None else len(value) for value in values]
    return _nested(lengths, array_of([*chain.from_iterable(filter(None, values))]))


def _nested(lengths: Sequence[int | None], items: Any) -> Any:
    import pyarrow as pa

    offsets = pa.array([0, *accumulate(length or 0 for length in lengths)], type=pa.int32())
    mask = pa.array([length is None for length in lengths]) if None in lengths else None
    return pa.ListArray.from_arrays(offsets, items, mask=mask)


def _structs(values: Sequence[dict[str, Any] | None]) -> Any:
    import pyarrow as pa

    names = names_of([value for value in values if value is not None])
    if not names:
        return pa.array(values, type=pa.struct([]))
    fields = [array_of([value.get(name) if value is not None else None for value in values]) for name in names]
    mask = pa.array([value is None for value in values]) if None in values else None
    return pa.StructArray.from_arrays(fields, names=names, mask=mask)


def names_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """All keys, in order of first appearance. Raises TypeError for one that is no text."""
    names: dict[str, None] = {}
    for row in rows:
        if row.keys() - names.keys():
            names.update(dict.fromkeys(row))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a key must be text, not {name!r}")
    return list(names)


def _arrays(values: Sequence[Any], numpy: Any) -> Any:
    """Arrays of any dimensions, and lists among them; elements keep the arrays' own type where it holds all of them."""
    import pyarrow as pa

    arrays = [value for value in values if isinstance(value, numpy.ndarray)]
    simple = {(value.dtype.str, value.ndim) for value in arrays}
    if len(simple) == 1 and arrays[0].ndim == 1 and arrays[0].dtype.kind in "biuf":
        others = [value for value in values if value is not None and not isinstance(value, numpy.ndarray)]
        if not others:
            return _nested([None if v is None else len(v) for v in values], pa.array(numpy.concatenate(arrays)))
    type = array_of([None if isinstance(v, numpy.ndarray) and _keeps_type(v) else plain(v) for v in values]).type
    for value in arrays:
        if _keeps_type(value):
            type = arrow_types.join(type, _type_of(value))
    return pa.array([_deeply_plain(value) for value in values], type=type)


def _keeps_type(array: Any) -> bool:
    return array.ndim > 0 and array.dtype.kind in "biuf"


def _type_of(array: Any) -> Any:
    import pyarrow as pa

    type = pa.from_numpy_dtype(array.dtype)
    for _ in range(array.ndim):
        type = pa.list_(type)
    return type


def _names(kinds: set[type]) -> str:
    return " and ".join(sorted(kind.__name__ for kind in kinds))


_MAKERS: dict[type, str | Callable[[Any], Any]] = {
    str: "string",
    int: _integers,
    float: "float64",
    bool: "bool_",
    bytes: "binary",
    datetime.datetime: _datetimes,
    datetime.date: "date32",
    datetime.time: lambda values: _of_microseconds("time64", values),
    datetime.timedelta: lambda values: _of_microseconds("duration", values),
    Decimal: _decimals,
    list: _lists,
    tuple: _lists,
    dict: _structs,
}
"""How a column of one kind is made: by the name of its type, or by a function of its values."""

_BASES: tuple[Any, ...] = (str, int, float, bytes, list, tuple, dict, Decimal)
"""Kinds whose subclasses are taken for them."""


def _of_microseconds(name: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, type=getattr(pa, name)("us"))
