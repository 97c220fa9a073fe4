"""Every built-in reader and writer passes the suites that third parties inherit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import orjson
from PIL import Image

from skybatch import ImageWriter, JsonReader, JsonWriter
from skybatch.testing import ReaderSuite, WriterSuite

LINES = [{"n": n, "text": "é" * n} for n in range(9)]


def lines_of(items: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


class TestJsonReader(ReaderSuite):
    expected = LINES

    def make(self, tmp_path: Path) -> JsonReader:
        path = tmp_path / "in.jsonl"
        path.write_text("\n" + lines_of(LINES).replace("\n", "\n\n", 3))
        return JsonReader(str(path))

    def change(self, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_text(path.read_text().replace("8", "7"))

    def malformed(self, tmp_path: Path) -> tuple[JsonReader, int]:
        path = tmp_path / "in.jsonl"
        path.write_text('{"n": 1}\n\n{"n": 2\n{"n": 3}\n')
        return JsonReader(str(path)), 1


class TestJsonWriter(WriterSuite):
    results = LINES
    expected = b"".join(orjson.dumps(line) + b"\n" for line in LINES)
    unwritable: ClassVar = {"n": 1, "text": object()}

    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "out.jsonl"))


class TestJsonWriterOfColumns(TestJsonWriter):
    expected = b"".join(orjson.dumps({"text": line["text"], "n": line["n"]}) + b"\n" for line in LINES)

    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "out.jsonl"), column=["text", "n"])


class TestImageWriter(WriterSuite):
    results: ClassVar = [{"image": Image.new("RGB", (2, 3), (n, 2 * n, 99))} for n in range(6)]
    expected: ClassVar = {f"{n:08d}.png": ((2, 3), (n, 2 * n, 99)) for n in range(6)}
    unwritable: ClassVar = {"image": "a picture"}

    def make(self, tmp_path: Path) -> ImageWriter:
        return ImageWriter(str(tmp_path / "images"))

    def read(self, path: Path) -> dict[str, Any]:
        assert (path / "manifest.json").is_file()
        images = {file.name: Image.open(file) for file in path.glob("*.png")}
        return {name: (image.size, image.getpixel((0, 0))) for name, image in images.items()}
