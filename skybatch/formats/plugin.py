"""The built-in readers and writers, registered like any plugin's."""

from __future__ import annotations

from skybatch.hookspecs import hookimpl


@hookimpl
def skybatch_input_readers() -> dict[str, type]:
    from skybatch.formats.json_format import JsonReader

    return {"json": JsonReader}


@hookimpl
def skybatch_output_writers() -> dict[str, type]:
    from skybatch.formats.image import ImageWriter
    from skybatch.formats.json_format import JsonWriter

    return {"json": JsonWriter, "image": ImageWriter}
