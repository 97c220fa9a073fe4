"""The keys of results that a writer was asked for: one, several, or whatever there is."""

from __future__ import annotations

from typing import Any

from skybatch.errors import ResultError, UsageError, nearest
from skybatch.formats.base import Item

Column = str | list[str] | None


def columns_of(column: Column) -> list[str] | None:
    """A writer's `column`, one key or several, as a list."""
    return [column] if isinstance(column, str) else column


def check_columns(writer: str, column: Column) -> None:
    """Raise UsageError for a column that is neither a key nor a list of different keys."""
    columns = columns_of(column)
    if columns is None:
        return
    if not (isinstance(columns, list) and columns and all(isinstance(name, str) for name in columns)):
        raise UsageError(f"{writer}: column must be a key or a list of keys, not {column!r}")
    if len(set(columns)) < len(columns):
        raise UsageError(f"{writer}: column has a key twice: {column!r}")


def select(results: list[Item], columns: list[str] | None, start: int) -> list[Item]:
    """The results with these keys alone, in this order. Raises ResultError as `value_of` does."""
    if columns is None:
        return results
    return [{name: value_of(result, name, index) for name in columns} for index, result in enumerate(results, start)]


def value_of(result: Item, name: str, index: int) -> Any:
    """What a result has under a key. Raises ResultError naming the nearest key."""
    try:
        return result[name]
    except KeyError:
        what = nearest(name, map(str, result))
        raise ResultError(f"item {index}: the result has no {name!r}{what}", item=index) from None
