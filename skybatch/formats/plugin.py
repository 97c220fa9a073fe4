"""The built-in readers and writers, registered like any plugin's."""

from __future__ import annotations

from skybatch.hookspecs import hookimpl


@hookimpl
def skybatch_input_readers() -> dict[str, type]:
    from skybatch.formats.counter import CounterReader
    from skybatch.formats.csv_reader import CsvReader
    from skybatch.formats.files import FilesReader, ImageReader
    from skybatch.formats.json_reader import JsonReader
    from skybatch.formats.parquet import ParquetReader
    from skybatch.formats.text_reader import TextReader

    files = {"files": FilesReader, "images": ImageReader, "image": ImageReader}
    tables = {"csv": CsvReader, "parquet": ParquetReader}
    return {"json": JsonReader, "text": TextReader, "counter": CounterReader, **tables, **files}


@hookimpl
def skybatch_output_writers() -> dict[str, type]:
    from skybatch.formats.csv_writer import CsvWriter
    from skybatch.formats.image import ImageWriter
    from skybatch.formats.json_format import JsonWriter
    from skybatch.formats.parquet_writer import ParquetWriter
    from skybatch.formats.text_writer import TextWriter
    from skybatch.formats.yaml_format import YamlWriter

    images = {"image": ImageWriter, "images": ImageWriter}
    tables = {"csv": CsvWriter, "parquet": ParquetWriter}
    return {"json": JsonWriter, "yaml": YamlWriter, "text": TextWriter, **tables, **images}
