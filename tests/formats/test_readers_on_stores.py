"""Text, CSV and files in an object store: whole jobs over them, and what is read where nothing was copied."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import skybatch
from skybatch.errors import RecordError
from skybatch.formats import copies, stores
from skybatch.formats.base import WindowReader
from tests.tools.mapping import map_items

Batch = list[dict[str, Any]]
CSV = "n,square\n" + "".join(f'{n},"{n * n}"\n' for n in range(3000))


def same(batch: Batch) -> Batch:
    return batch


def widths(batch: Batch) -> Batch:
    return [{"path": item["path"], "width": item["image"].width} for item in batch]


def put(bucket: str, name: str, data: bytes) -> None:
    """An object."""
    stores.of(bucket).put(f"{bucket}/{name}", data)


def items_of(reader: WindowReader, folder: Path) -> Batch:
    """All of them, read in windows."""
    items: Batch = []
    count = reader.build_index(str(folder))
    while len(items) < count:
        end = reader.window_end(len(items), count - 1)
        items += reader.decode(reader.read_window(len(items), end), len(items), len(items), end)
    return items


@pytest.mark.full
def test_jobs_over_text_and_csv_in_a_bucket(moto_bucket: str, tmp_path: Path) -> None:
    put(moto_bucket, "in/a.txt", b"one\ntwo\n")
    put(moto_bucket, "in/b.txt.gz", gzip.compress(b"three"))
    put(moto_bucket, "table/x.csv", CSV.encode())
    put(moto_bucket, "table/y.csv", b"square,n\n1,-1\n")
    text = skybatch.TextReader(f"{moto_bucket}/in")
    assert map_items(tmp_path / "text", same, reader=text).rows == [{"text": word} for word in ("one", "two", "three")]
    table = skybatch.CsvReader(f"{moto_bucket}/table/*.csv", columns=["n"])
    outcome = map_items(tmp_path / "table", same, reader=table, batch_size=100)
    assert [int(row["n"]) for row in outcome.rows] == [*range(3000), -1]


@pytest.mark.full
def test_without_a_copy_the_store_is_asked_for_ranges(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(moto_bucket, "x.csv", CSV.encode())
    monkeypatch.setattr(copies, "SHARE", 0.0)
    reader = skybatch.CsvReader(f"{moto_bucket}/x.csv")
    items = items_of(reader, tmp_path)
    assert not (tmp_path / "copies").exists()
    assert [int(item["square"]) for item in items] == [n * n for n in range(3000)]
    assert reader.fingerprint()["size"] == len(CSV)


@pytest.mark.full
def test_a_job_over_images_in_a_bucket(moto_bucket: str, tmp_path: Path) -> None:
    for number in range(1, 21):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (number, 1)).save(buffer, "PNG")
        put(moto_bucket, f"photos/{number:02d}.png", buffer.getvalue())
    put(moto_bucket, "photos/manifest.json", b"{}")
    reader = skybatch.ImageReader(f"{moto_bucket}/photos")
    outcome = map_items(tmp_path, widths, reader=reader)
    assert outcome.rows == [{"path": f"{number:02d}.png", "width": number} for number in range(1, 21)]
    stores.of(moto_bucket).delete([f"{moto_bucket}/photos/07.png"])
    reader.build_index(str(tmp_path))
    put(moto_bucket, "photos/09.png", b"other")
    window = reader.read_window(0, 18)
    with pytest.raises(RecordError, match=r"photos/09\.png: has changed .*\(item 7\)"):
        reader.decode(window, 0, 0, 18)
