"""Readers and writers: the contracts to subclass, and the built-in formats."""

from __future__ import annotations

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
