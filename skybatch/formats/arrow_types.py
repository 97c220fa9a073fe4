"""Arrow types: as text, joined into one that holds both, and arrays taken from one to the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from skybatch.errors import nearest

COMMON = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"),
    *("string", "large_string", "binary", "date32", "timestamp[us]", "timestamp[us, tz=UTC]", "duration[us]"),
    *("decimal128(10, 2)", "list<string>", "struct<a: int64>"),
)
"""What is proposed for a type that is not known."""


class Conflict(TypeError):
    """No type holds both."""


def parse(text: str) -> Any:
    """A type from what Arrow prints for it: "int64", "timestamp[us, tz=UTC]", "list<float>", "struct<a: int64>".

    Also "decimal128(10, 2)", "float32", "float64". Raises ValueError naming what is not known.
    """
    import pyarrow as pa

    text = text.strip()
    if text.startswith("list<") and text.endswith(">"):
        return pa.list_(parse(_unnamed(text[5:-1])))
    if text.startswith("struct<") and text.endswith(">"):
        fields = [part.partition(":") for part in _split(text[7:-1])]
        return pa.struct([(name.strip(), parse(type)) for name, _, type in fields])
    if found := re.fullmatch(r"decimal(?:128|256)?\((\d+), *(\d+)\)", text):
        return decimal(int(found[1]) - int(found[2]), int(found[2]))
    if found := re.fullmatch(r"timestamp\[(s|ms|us|ns), *tz=([^\]]+)\]", text):
        return pa.timestamp(found[1], found[2])
    try:
        return pa.type_for_alias(text)
    except ValueError:
        raise ValueError(f"no type is called {text!r}{nearest(text, COMMON)}") from None


def _unnamed(text: str) -> str:
    return re.sub(r"^(?:item|element): ", "", text.strip())


def _split(text: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "<([") - (letter in ">)]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def decimal(before: int, behind: int) -> Any:
    """The type of decimals with so many digits before the point, and behind it. Raises ValueError for over 76."""
    import pyarrow as pa

    precision = max(1, before + behind)
    return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, behind)


def join(one: Any, other: Any) -> Any:
    """The narrowest type that holds values of both; the order in which many are joined makes no difference.

    Raises Conflict where there is none.
    """
    import pyarrow as pa

    kinds = pa.types
    if one.equals(other) or kinds.is_null(other):
        return one
    if kinds.is_null(one):
        return other
    if kinds.is_struct(one) and kinds.is_struct(other):
        return pa.struct(join_fields(list(one), list(other)))
    if kinds.is_list(one) and kinds.is_list(other):
        return pa.list_(join(one.value_type, other.value_type))
    if kinds.is_decimal(one) and kinds.is_decimal(other):
        before = max(one.precision - one.scale, other.precision - other.scale)
        return decimal(before, max(one.scale, other.scale))
    if _is_number(one) and _is_number(other):
        return _join_numbers(one, other)
    raise Conflict(f"{one} and {other} do not go together")


def join_fields(one: list[Any], other: list[Any]) -> list[Any]:
    """Fields by name, in order of first appearance. Raises Conflict naming the field."""
    import pyarrow as pa

    joined = {field.name: field.type for field in one}
    for field in other:
        try:
            joined[field.name] = join(joined.get(field.name, pa.null()), field.type)
        except Conflict as conflict:
            raise Conflict(f"{field.name!r}: {conflict}") from None
    return [pa.field(name, type) for name, type in joined.items()]


def _is_number(type: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(type) or pa.types.is_floating(type))


def _join_numbers(one: Any, other: Any) -> Any:
    import pyarrow as pa

    kinds = pa.types
    wider, narrower = (one, other) if one.bit_width >= other.bit_width else (other, one)
    if kinds.is_floating(one) or kinds.is_floating(other):
        return wider if kinds.is_floating(one) and kinds.is_floating(other) else pa.float64()
    if kinds.is_signed_integer(one) == kinds.is_signed_integer(other):
        return wider
    return pa.uint64() if pa.uint64() in (wider, narrower) else pa.int64()


def writable(type: Any) -> Any:
    """The type that stands for it in a Parquet file, which knows no structs without fields: these are nulls there."""
    import pyarrow as pa

    if pa.types.is_struct(type):
        fields = [pa.field(field.name, writable(field.type)) for field in type]
        return pa.struct(fields) if fields else pa.null()
    return pa.list_(writable(type.value_type)) if pa.types.is_list(type) else type


def has_integers(type: Any) -> bool:
    """Whether integers are in it, at any depth."""
    import pyarrow as pa

    inner = [type.field(k).type for k in range(type.num_fields)] if pa.types.is_nested(type) else []
    return bool(pa.types.is_integer(type) or any(map(has_integers, inner)))


def text_leaves(path: str, type: Any) -> Iterator[str]:
    """The paths, as Parquet spells them, of text and bytes in a column."""
    import pyarrow as pa

    if pa.types.is_struct(type):
        for field in type:
            yield from text_leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_list(type):
        yield from text_leaves(f"{path}.list.element", type.value_type)
    elif _is_text(type):
        yield path


def conform(array: Any, type: Any) -> Any:
    """An array that begins at the start of its buffers, as one of a type that holds its own. Raises ValueError."""
    import pyarrow as pa

    kinds = pa.types
    if array.type.equals(type):
        return array
    if kinds.is_null(array.type) or kinds.is_null(type):
        return pa.nulls(len(array), type)
    if kinds.is_struct(type):
        own = {field.name: index for index, field in enumerate(array.type)}
        nulls = pa.nulls(len(array))
        fields = [conform(array.field(own[f.name]) if f.name in own else nulls, f.type) for f in type]
        return pa.StructArray.from_arrays(fields, fields=list(type), mask=array.is_null())
    if kinds.is_list(type):
        items = conform(array.values, type.value_type)
        return pa.ListArray.from_arrays(array.offsets, items, type=type, mask=array.is_null())
    if _is_text(array.type) and not _is_text(type):
        raise ValueError(f"{array.type} does not go into {type}")
    return array.cast(type)


def _is_text(type: Any) -> bool:
    return str(type).removeprefix("large_") in ("string", "binary")


def size(array: Any, start: int, end: int) -> int:
    """About how many bytes the rows from `start` to before `end` take; those of two parts add up to those of both."""
    import pyarrow as pa

    kinds, type, rows = pa.types, array.type, end - start
    if kinds.is_struct(type):
        return sum(size(array.field(index), start, end) for index in range(type.num_fields))
    if kinds.is_fixed_size_list(type):
        return size(array.values, (array.offset + start) * type.list_size, (array.offset + end) * type.list_size)
    if kinds.is_list(type) or kinds.is_large_list(type):
        first, last = (array.offsets[at].as_py() for at in (start, end))
        return 4 * rows + size(array.values, first, last)
    if kinds.is_string(type) or kinds.is_binary(type):
        return 4 * rows + _span(array, "i", start, end)
    if kinds.is_large_string(type) or kinds.is_large_binary(type):
        return 4 * rows + _span(array, "q", start, end)
    return 0 if kinds.is_null(type) else rows * max(1, type.bit_width // 8)


def _span(array: Any, code: Literal["i", "q"], start: int, end: int) -> int:
    offsets = array.buffers()[1]
    if not offsets:
        return 0
    words = memoryview(offsets).cast("B").cast(code)
    return int(words[array.offset + end] - words[array.offset + start])
