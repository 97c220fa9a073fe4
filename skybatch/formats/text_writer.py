"""`TextWriter`: one text file per item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skybatch.errors import ResultError
from skybatch.formats.base import Item
from skybatch.formats.columns import value_of
from skybatch.formats.file_per_item import FilePerItemWriter
from skybatch.formats.names import name_from


@dataclass
class TextWriter(FilePerItemWriter):
    """Text to `<path>/%08d.txt` by item index, or to the file that `name_column` names; UTF-8, as it is.

    Names may have folders in them (`a/b.txt`) and are taken as they are, ending included.
    """

    path: str
    column: str = "text"
    name_column: str | None = None

    def file_of(self, result: Item, index: int) -> tuple[str, bytes]:
        """Name and content of a result's file."""
        text = value_of(result, self.column, index)
        if not isinstance(text, str):
            what = f"not text but {type(text).__name__}"
            raise ResultError(f"item {index}, key {self.column!r}: {what}", item=index)
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ResultError(f"item {index}, key {self.column!r}: {error}", item=index) from None
        return name_from(result, self.name_column, index) if self.name_column else f"{index:08d}.txt", data

    def manifest(self) -> dict[str, Any]:
        """Format, and how files are named."""
        return {"format": "skybatch.texts/1", "names": self.name_column or "%08d.txt", "column": self.column}
