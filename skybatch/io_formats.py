"""Readers and writers: the contracts to subclass, and the built-in formats. Each is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skybatch.worker import stand_ins

if TYPE_CHECKING:
    from skybatch.formats.base import Assembler, InputReader, OutputWriter, Restart, SegmentWriter, WindowReader
    from skybatch.formats.counter import CounterReader
    from skybatch.formats.csv_reader import CsvReader
    from skybatch.formats.csv_writer import CsvWriter
    from skybatch.formats.files import FilesReader, ImageReader
    from skybatch.formats.image import ImageWriter
    from skybatch.formats.json_format import JsonWriter
    from skybatch.formats.json_reader import JsonReader
    from skybatch.formats.parquet import ParquetReader
    from skybatch.formats.parquet_writer import ParquetWriter
    from skybatch.formats.text_reader import TextReader
    from skybatch.formats.text_writer import TextWriter
    from skybatch.formats.yaml_format import YamlWriter

__all__ = [
    "Assembler",
    "CounterReader",
    "CsvReader",
    "CsvWriter",
    "FilesReader",
    "ImageReader",
    "ImageWriter",
    "InputReader",
    "JsonReader",
    "JsonWriter",
    "OutputWriter",
    "ParquetReader",
    "ParquetWriter",
    "Restart",
    "SegmentWriter",
    "TextReader",
    "TextWriter",
    "WindowReader",
    "YamlWriter",
]

_HOMES = {
    "skybatch.formats.base": ("Assembler", "InputReader", "OutputWriter", "Restart", "SegmentWriter", "WindowReader"),
    "skybatch.formats.counter": ("CounterReader",),
    "skybatch.formats.csv_reader": ("CsvReader",),
    "skybatch.formats.csv_writer": ("CsvWriter",),
    "skybatch.formats.files": ("FilesReader", "ImageReader"),
    "skybatch.formats.image": ("ImageWriter",),
    "skybatch.formats.json_format": ("JsonWriter",),
    "skybatch.formats.json_reader": ("JsonReader",),
    "skybatch.formats.parquet": ("ParquetReader",),
    "skybatch.formats.parquet_writer": ("ParquetWriter",),
    "skybatch.formats.text_reader": ("TextReader",),
    "skybatch.formats.text_writer": ("TextWriter",),
    "skybatch.formats.yaml_format": ("YamlWriter",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = stand_ins.named(_HOME_OF[name], name)
    return value


def __dir__() -> list[str]:
    return __all__
