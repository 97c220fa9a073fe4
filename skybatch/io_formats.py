"""Readers and writers: the contracts to subclass, and the built-in formats."""

from __future__ import annotations

from skybatch.formats.base import InputReader, OutputWriter, SegmentWriter, WindowReader
from skybatch.formats.image import ImageWriter
from skybatch.formats.json_format import JsonReader, JsonWriter

__all__ = [
    "ImageWriter",
    "InputReader",
    "JsonReader",
    "JsonWriter",
    "OutputWriter",
    "SegmentWriter",
    "WindowReader",
]
