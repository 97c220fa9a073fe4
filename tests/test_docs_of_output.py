"""The page about writers says what the code has."""

import dataclasses
import re
from pathlib import Path

import skybatch
from skybatch import io_formats
from skybatch.formats.plugin import skybatch_output_writers

PAGE = (Path(__file__).parents[1] / "docs" / "output.md").read_text()
ROW = re.compile(r"^\| `(\w+Writer)` \| `(\w+)` \| [^|]* \| ([^|]*) \|$", re.MULTILINE)


def test_every_writer_is_documented_with_its_name_and_fields() -> None:
    registered = skybatch_output_writers()
    documented = {kind: (name, set(re.findall(r"`(\w+)`", fields))) for kind, name, fields in ROW.findall(PAGE)}
    assert set(documented) == {writer.__name__ for writer in registered.values()}
    for kind, (name, fields) in documented.items():
        writer = getattr(io_formats, kind)
        assert getattr(skybatch, kind) is writer is registered[name]
        assert fields == {field.name for field in dataclasses.fields(writer)} - {"path"}
