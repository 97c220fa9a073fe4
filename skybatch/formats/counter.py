"""`CounterReader`: numbers, for work that needs no input but how often it is to be done."""

from __future__ import annotations

from dataclasses import dataclass, field

from skybatch.errors import UsageError
from skybatch.formats.base import InputReader, Item


@dataclass
class CounterReader(InputReader):
    """`count` items, `{"index": 0}` to `{"index": count - 1}`. There is no file: `path` is empty."""

    count: int
    path: str = field(default="", kw_only=True)

    def check(self) -> None:
        """Raise UsageError unless `count` is a whole number, at least 0."""
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 0:
            raise UsageError(f"CounterReader: count must be a whole number, at least 0; not {self.count!r}")
        if self.path:
            raise UsageError(f"CounterReader reads no file; path must be empty, not {self.path!r}")

    def __len__(self) -> int:
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[Item]:
        """The numbers from start to end."""
        return [{"index": index} for index in range(start_idx, end_idx + 1)]
