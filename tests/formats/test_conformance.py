"""Every built-in reader and writer passes the suites that third parties inherit."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from PIL import Image

from skybatch import ImageWriter, InputReader, JsonReader, JsonWriter, plugins
from skybatch.io_formats import (
    CounterReader,
    CsvReader,
    CsvWriter,
    FilesReader,
    ImageReader,
    ParquetReader,
    ParquetWriter,
    TextReader,
    TextWriter,
    YamlWriter,
)
from skybatch.testing import ReaderSuite, WriterSuite

ROWS: list[dict[str, Any]] = [{"n": n, "text": "é" * n} for n in range(9)]
JSONL = b"".join(orjson.dumps(row) + b"\n" for row in ROWS)


def text_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestJsonReader(ReaderSuite):
    expected = ROWS

    def make(self, tmp_path: Path) -> JsonReader:
        path = tmp_path / "in.jsonl"
        path.write_text("\n" + text_of(ROWS).replace("\n", "\n\n", 3))
        return JsonReader(str(path))

    def change(self, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_text(path.read_text().replace("8", "7"))

    def malformed(self, tmp_path: Path) -> tuple[JsonReader, int]:
        path = tmp_path / "in.jsonl"
        path.write_text('{"n": 1}\n\n{"n": 2\n{"n": 3}\n')
        return JsonReader(str(path)), 1


class TestTextReader(ReaderSuite):
    expected: ClassVar = [{"line": "first"}, {"line": ""}, {"line": "zwei é"}, {"line": "last"}]

    def make(self, tmp_path: Path) -> TextReader:
        (tmp_path / "a.txt").write_text("first\n\nzwei é\n")
        (tmp_path / "b.txt").write_text("last")
        return TextReader(str(tmp_path / "*.txt"), column="line")

    def change(self, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("one more\n")

    def malformed(self, tmp_path: Path) -> tuple[TextReader, int]:
        (tmp_path / "in.txt").write_bytes(b"good\n\xff\xfe\ngood\n")
        return TextReader(str(tmp_path / "in.txt")), 1


class TestCsvReader(ReaderSuite):
    expected: ClassVar = [{"n": str(n), "text": f'"{n}",\n'} for n in range(6)]

    def make(self, tmp_path: Path) -> CsvReader:
        with open(tmp_path / "in.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["n", "other", "text"])
            writer.writerows([row["n"], "", row["text"]] for row in self.expected)
        return CsvReader(str(tmp_path / "in.csv"), columns=["n", "text"])

    def change(self, tmp_path: Path) -> None:
        with open(tmp_path / "in.csv", "a") as file:
            file.write("6,,x\n")

    def malformed(self, tmp_path: Path) -> tuple[CsvReader, int]:
        (tmp_path / "in.csv").write_text("a,b\n1,2\n3\n5,6\n")
        return CsvReader(str(tmp_path / "in.csv")), 1


class TestParquetReader(ReaderSuite):
    expected = ROWS

    def make(self, tmp_path: Path) -> ParquetReader:
        folder = tmp_path / "table"
        folder.mkdir()
        for name, rows in (("a", ROWS[:5]), ("b", ROWS[5:])):
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=2)
        return ParquetReader(str(folder))

    def change(self, tmp_path: Path) -> None:
        pq.write_table(pa.Table.from_pylist(ROWS[4:]), tmp_path / "table" / "b.parquet")


class TestFilesReader(ReaderSuite):
    expected: ClassVar = [{"path": f"{n}.bin", "bytes": bytes(range(n))} for n in range(5)]

    def make(self, tmp_path: Path) -> FilesReader:
        folder = tmp_path / "files"
        folder.mkdir()
        for item in self.expected:
            (folder / item["path"]).write_bytes(item["bytes"])
        return FilesReader(str(folder))

    def change(self, tmp_path: Path) -> None:
        (tmp_path / "files" / "5.bin").write_bytes(b"")


class TestImageReader(ReaderSuite):
    expected: ClassVar = [{"path": f"{n}.png", "image": Image.new("RGB", (2, 3), (n, 8, 9))} for n in range(5)]

    def make(self, tmp_path: Path) -> ImageReader:
        folder = tmp_path / "images"
        folder.mkdir()
        for item in self.expected:
            item["image"].save(folder / item["path"])
        return ImageReader(str(folder))

    def comparable(self, item: dict[str, Any]) -> Any:
        return item["path"], item["image"].size, item["image"].tobytes()

    def change(self, tmp_path: Path) -> None:
        (tmp_path / "images" / "0.png").unlink()

    def malformed(self, tmp_path: Path) -> tuple[ImageReader, int]:
        reader = self.make(tmp_path)
        (tmp_path / "images" / "2.png").write_bytes(b"no image")
        return reader, 2


class TestCounterReader(ReaderSuite):
    expected: ClassVar = [{"index": index} for index in range(20)]

    def make(self, tmp_path: Path) -> CounterReader:
        return CounterReader(20)


# Writers


class JobsInFull(WriterSuite):
    """For variants: the quick tests run a job for one writer of each kind."""

    @pytest.mark.full
    def test_a_job_with_a_death_gives_what_an_undisturbed_one_gives(self, tmp_path: Path) -> None:
        super().test_a_job_with_a_death_gives_what_an_undisturbed_one_gives(tmp_path)


class TestJsonWriter(WriterSuite):
    results = ROWS
    expected: Any = JSONL
    unwritable: ClassVar = {"n": 1, "text": object()}

    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "out.jsonl"))


class TestJsonWriterOfColumns(JobsInFull, TestJsonWriter):
    expected = b"".join(orjson.dumps({"text": row["text"], "n": row["n"]}) + b"\n" for row in ROWS)

    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "out.jsonl"), column=["text", "n"])


class TestJsonWriterWithGzip(JobsInFull, TestJsonWriter):
    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "out.jsonl.gz"))

    def read(self, path: Path) -> bytes:
        return gzip.decompress(path.read_bytes())


class TestJsonWriterWithZstd(JobsInFull, TestJsonWriter):
    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "out.jsonl.zst"))

    def read(self, path: Path) -> bytes:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes()), read_across_frames=True) as data:
            return data.read()


class TestJsonWriterOfShards(TestJsonWriter):
    def make(self, tmp_path: Path) -> JsonWriter:
        return JsonWriter(str(tmp_path / "shards"), shard_size=50)

    def read(self, path: Path) -> Any:
        names = [entry["name"] for entry in json.loads((path / "manifest.json").read_bytes())["files"]]
        assert len(names) > 2
        return b"".join((path / name).read_bytes() for name in names)


class TestCsvWriter(JobsInFull):
    results = ROWS
    expected: ClassVar = b"n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in ROWS).encode()
    unwritable: ClassVar = {"n": object(), "text": ""}

    def make(self, tmp_path: Path) -> CsvWriter:
        return CsvWriter(str(tmp_path / "out.csv"), column=["n", "text"])


class TestCsvWriterOfAnyColumns(TestCsvWriter):
    results: ClassVar = [{"a": 1}, {"a": 2}, {"a": 3, "b": "x"}, {"c": None, "a": 4}, {"b": "y"}]
    expected: ClassVar = b"a,b,c\n1,,\n2,,\n3,x,\n4,,\n,y,\n"
    unwritable: ClassVar = {"a": object()}

    def make(self, tmp_path: Path) -> CsvWriter:
        return CsvWriter(str(tmp_path / "out.csv"))


class TestYamlWriter(JobsInFull):
    results = ROWS
    expected = ROWS
    unwritable: ClassVar = {"n": object()}

    def make(self, tmp_path: Path) -> YamlWriter:
        return YamlWriter(str(tmp_path / "out.yaml"))

    def read(self, path: Path) -> Any:
        return yaml.safe_load(path.read_bytes())


class TestParquetWriter(WriterSuite):
    results: ClassVar = [{"n": n if n % 3 else None, "x": n / 2 if n > 5 else n, "text": str(n)} for n in range(9)]
    expected: ClassVar = [{**row, "x": float(row["x"])} for row in results]
    unwritable: ClassVar = {"n": object(), "x": 1, "text": ""}

    def make(self, tmp_path: Path) -> ParquetWriter:
        return ParquetWriter(str(tmp_path / "out.parquet"), row_group_size=4)

    def read(self, path: Path) -> Any:
        return pq.read_table(path).to_pylist()


class TestTextWriter(WriterSuite):
    results: ClassVar = [{"body": f"é {n}"} for n in range(6)]
    expected: ClassVar = {f"{n:08d}.txt": f"é {n}".encode() for n in range(6)}
    unwritable: ClassVar = {"body": 3}

    def make(self, tmp_path: Path) -> TextWriter:
        return TextWriter(str(tmp_path / "texts"), column="body")

    def read(self, path: Path) -> Any:
        assert (path / "manifest.json").is_file()
        return {file.name: file.read_bytes() for file in path.glob("*.txt")}


class TestTextWriterWithNames(JobsInFull, TestTextWriter):
    results: ClassVar = [{"body": f"é {n}", "name": f"part/{n}.txt"} for n in range(6)]
    expected: ClassVar = {f"{n}.txt": f"é {n}".encode() for n in range(6)}
    unwritable: ClassVar = {"body": "", "name": "../../escaped.txt"}

    def make(self, tmp_path: Path) -> TextWriter:
        return TextWriter(str(tmp_path / "texts"), column="body", name_column="name")

    def read(self, path: Path) -> Any:
        return super().read(path) | {file.name: file.read_bytes() for file in (path / "part").glob("*.txt")}


class TestImageWriter(JobsInFull):
    results: ClassVar = [{"image": Image.new("RGB", (2, 3), (n, 2 * n, 99))} for n in range(6)]
    expected: ClassVar = {f"{n:08d}.png": ((2, 3), (n, 2 * n, 99)) for n in range(6)}
    unwritable: ClassVar = {"image": "a picture"}

    def make(self, tmp_path: Path) -> ImageWriter:
        return ImageWriter(str(tmp_path / "images"))

    def read(self, path: Path) -> Any:
        assert (path / "manifest.json").is_file()
        images = {file.name: Image.open(io.BytesIO(file.read_bytes())) for file in path.glob("*.png")}
        return {name: (image.size, image.getpixel((0, 0))) for name, image in images.items()}


class TestImageWriterOfJpegs(JobsInFull):
    results: ClassVar = [{"image": Image.new("RGB", (2, 3), (99, 99, 99)), "name": f"{n}.jpg"} for n in range(4)]
    expected: ClassVar = {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}

    def make(self, tmp_path: Path) -> ImageWriter:
        return ImageWriter(str(tmp_path / "images"), name_column="name", quality=80)

    def read(self, path: Path) -> Any:
        return {file.name for file in path.glob("*.jpg") if Image.open(io.BytesIO(file.read_bytes())).format == "JPEG"}


# None is forgotten


def made_by(suite: type) -> set[type]:
    """What the suites in this module are for, by the annotation of their `make`."""
    found = [value for value in globals().values() if isinstance(value, type) and issubclass(value, suite)]
    classes = [globals().get(value.make.__annotations__.get("return", "")) for value in found]
    return {cls for cls in classes if isinstance(cls, type)} - {InputReader}


def test_no_built_in_format_is_without_a_suite() -> None:
    from skybatch.formats import plugin

    assert set(plugin.skybatch_input_readers().values()) == made_by(ReaderSuite)
    assert set(plugin.skybatch_output_writers().values()) == made_by(WriterSuite)
    assert plugins.reader("json") is JsonReader
