"""An input that changed since its job began stops the resume, whatever its format; with the old one back it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import CsvReader, Dataset, FilesReader, ImageReader, JsonReader, ParquetReader, TextReader, io_formats
from skybatch.cli.main import invoke
from skybatch.engine.job import find_job
from skybatch.errors import CodeChanged

ITEMS = 30


def table(path: Path, first: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"id": range(first, first + ITEMS)}), path, row_group_size=10)


def lines(head: str) -> Callable[[Path, int], None]:
    def write(path: Path, first: int) -> None:
        path.write_text(head + "".join(f"{index:04d}\n" for index in range(first, first + ITEMS)))

    return write


def records(path: Path, first: int) -> None:
    path.write_text("".join(f'{{"id": {index:4d}}}\n' for index in range(first, first + ITEMS)))


def files(path: Path, first: int) -> None:
    path.mkdir()
    for index in range(ITEMS):
        (path / f"{index:04d}").write_text(f"{index + first:04d}")


def images(path: Path, first: int) -> None:
    from PIL import Image

    path.mkdir()
    for index in range(ITEMS):
        Image.new("RGB", (2, 2), (first + index, 0, 0)).save(path / f"{index:04d}.png")


KINDS: dict[str, tuple[Callable[[str], io_formats.InputReader], Callable[[Path, int], None]]] = {
    "parquet": (ParquetReader, table),
    "csv": (CsvReader, lines("id\n")),
    "text": (TextReader, lines("")),
    "json": (JsonReader, records),
    "files": (FilesReader, files),
    "images": (ImageReader, images),
}


def size_of(batch: list[dict[str, Any]], gate: str) -> list[dict[str, Any]]:
    if not Path(gate).exists():
        raise KeyboardInterrupt
    return [{"size": len(str(sorted(item)))} for item in batch]


def replaced(path: Path, write: Callable[[Path, int], None]) -> None:
    """As many items of the same sizes, and other ones."""
    write(path, 30)


def removed(path: Path, write: Callable[[Path, int], None]) -> None:
    """Nothing."""


def cut_short(path: Path, write: Callable[[Path, int], None]) -> None:
    """What is not all there."""
    write(path, 0)
    if path.is_dir():
        (path / "0007").unlink(missing_ok=True)
        (path / "0007.png").unlink(missing_ok=True)
    else:
        os.truncate(path, path.stat().st_size - 5)


@pytest.mark.parametrize(
    "change", [replaced, *(pytest.param(one, marks=pytest.mark.full) for one in (removed, cut_short))]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_input_stops_the_resume(
    kind: str, change: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, write = KINDS[kind]
    source, away, gate, output = (tmp_path / name for name in ("in", "away", "gate", "out.jsonl"))
    write(source, 0)
    with pytest.raises(skybatch.Paused) as paused:
        Dataset(reader(str(source))).map(
            size_of,
            output=skybatch.JsonWriter(str(output)),
            batch_size=5,
            executor="inline",
            mapper_args={"gate": str(gate)},
        )
    job = find_job(paused.value.job_id)
    gate.touch()
    source.rename(away)
    change(source, write)
    with pytest.raises(CodeChanged, match="has changed"):
        skybatch.resume(job.id)
    assert invoke(["resume", job.id]) == 4
    assert "put the old input back" in capsys.readouterr().err
    assert job.state == "paused" and not output.exists()
    shutil.rmtree(source, ignore_errors=True) if source.is_dir() else source.unlink(missing_ok=True)
    away.rename(source)
    skybatch.resume(job.id)
    assert job.state == "cleaned" and len(output.read_text().splitlines()) == ITEMS
