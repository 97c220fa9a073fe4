"""`TextReader`: every line of text files is an item."""

from __future__ import annotations

from dataclasses import dataclass

from skybatch.errors import UsageError
from skybatch.formats.base import Item
from skybatch.formats.record_reader import RecordReader


@dataclass
class TextReader(RecordReader[str]):
    """Each line is an item, `{"text": line}`, an empty line too; `column` is another key for it.

    `path` is a file, a folder, a glob or a list of those, locally or on a store. Text is UTF-8; a byte order mark is
    skipped. Lines end with `\\n` or `\\r\\n`, which are not part of them; the last line needs no end. A line that is no
    UTF-8, or longer than RECORD_LIMIT, is that item's failure.
    """

    column: str = "text"

    def check(self) -> None:
        """Raise InputMissing when there is no file, UsageError for a column that is no key."""
        if not isinstance(self.column, str) or not self.column:
            raise UsageError(f"TextReader: column must be a key, not {self.column!r}")
        super().check()

    def scanned_as(self) -> None:
        """Lines."""

    def parse(self, text: str) -> list[str]:
        """The lines."""
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        return [line.removesuffix("\r") for line in lines] if "\r" in text else lines

    def parse_one(self, text: str) -> str:
        """A line is what it is."""
        return text

    def items(self, raws: list[str], file: int) -> list[Item]:
        """Lines under their key."""
        column = self.column
        return [{column: line} for line in raws]
