"""`YamlWriter`: one YAML list of all results."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from skybatch.formats import values
from skybatch.formats.base import Assembler, Item
from skybatch.formats.columns import check_columns, columns_of, select
from skybatch.formats.compressed import CompressibleWriter, Survey
from skybatch.formats.concatenation import Concatenation, Sink


@dataclass
class YamlWriter(CompressibleWriter):
    """One document, a list with an entry per result; keys as given, `column` as for JsonWriter.

    Values are JSON's (see `formats.values`): dates and bytes become text. Written by PyYAML's own emitter, about a
    megabyte a second and worker, because libyaml's lays lines out differently and is not there everywhere.
    """

    path: str
    column: str | list[str] | None = None

    requires: ClassVar[dict[str, str]] = {"orjson": "orjson", "yaml": "pyyaml"}
    accepts_any_count: ClassVar[bool] = True

    def check(self) -> None:
        """Raise UsageError for fields that make no sense."""
        super().check()
        check_columns(f"YamlWriter({self.path!r})", self.column)

    def encode(self, results: list[Item], start_idx: int) -> bytes:
        """The results as entries; entries one after the other are a list again."""
        import yaml

        if not results:
            return b""
        entries = values.plain(select(results, columns_of(self.column), start_idx), start_idx)
        return yaml.dump(entries, Dumper=_dumper(), allow_unicode=True, sort_keys=False, encoding="utf-8")

    @property
    def is_assembled_plain(self) -> bool:
        """Always."""
        return True

    def plain_assembler(self, sink: Sink, survey: Survey | None) -> Assembler | None:
        """The entries as they are; no entry at all is an empty list, which no file would say."""
        return Concatenation(sink, if_empty=b"[]\n")


@functools.cache
def _dumper() -> Any:
    """PyYAML's own, but for U+0085, U+2028 and U+2029, which it reads as line ends unless they are escaped."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """With a way of its own for text."""

    odd = re.compile("[\x85\u2028\u2029]").search

    def represent(dumper: Dumper, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if odd(text) else None)

    Dumper.add_representer(str, represent)
    return Dumper
