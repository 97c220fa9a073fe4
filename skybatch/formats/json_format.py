"""`JsonWriter`: results as JSON Lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from skybatch.errors import UsageError
from skybatch.formats import compressed, shards, values
from skybatch.formats.base import Assembler, Item
from skybatch.formats.columns import check_columns, columns_of, select
from skybatch.formats.compressed import CompressibleWriter
from skybatch.formats.shards import MANIFEST


@dataclass
class JsonWriter(CompressibleWriter):
    """One JSON object per line, compact, keys as given. `column` keeps one key, or a list of keys, in that order.

    One file, compressed when its name ends in .gz or .zst. With `shard_size` (bytes, or "256MB"), `path` is a
    folder of files `part-00000.jsonl`, each ended by the record that reaches that size before `compression`
    ("gzip" or "zstd"), and of `manifest.json`, published last. Values are those that `formats.values` describes.
    """

    path: str
    column: str | list[str] | None = None
    shard_size: int | str | None = None
    compression: str | None = None

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson"}
    accepts_any_count: ClassVar[bool] = True

    def check(self) -> None:
        """Raise UsageError for fields that make no sense."""
        name = f"JsonWriter({self.path!r})"
        check_columns(name, self.column)
        compressed.check(name, self._compression())
        if self.shard_size is not None:
            shards.size_in_bytes(name, self.shard_size)
        elif self.compression not in (None, compressed.kind_of(self.path)):
            ending = compressed.ENDINGS[str(self.compression)]
            raise UsageError(f"{name}: without shard_size the file's name must end in {ending} for this compression")

    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """The results as lines."""
        return values.encode(select(results, columns_of(self.column), start_idx), start_idx)

    @property
    def is_assembled(self) -> bool:
        """Whether it is shards, or compressed."""
        return self.shard_size is not None or super().is_assembled

    def assembler(self, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler | None:
        """None for one plain file; else what makes frames or shards."""
        if self.shard_size is None:
            return super().assembler(sink, survey)
        size = shards.size_in_bytes("JsonWriter", self.shard_size)
        return shards.Shards(sink, size=size, ending=".jsonl", compression=self.compression)

    def commit_path(self) -> str:
        """The file, or the manifest of the shards."""
        return self.path if self.shard_size is None else f"{self.path.rstrip('/')}/{MANIFEST}"

    def _compression(self) -> str | None:
        return self.compression or (compressed.kind_of(self.path) if self.shard_size is None else None)
