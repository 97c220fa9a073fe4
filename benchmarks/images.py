"""Small images from folder to folder, resized: what is lost against a pool of processes that keeps nothing."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Figure, Settings

IMAGES, BATCH_SIZE = 50_000, 32
KINDS = 500
"""So many different images there are; copies of them are as good as more."""


def run(settings: Settings) -> Iterator[Figure]:
    """Whole jobs, the start of processes in it on both sides."""
    count = int(IMAGES * settings.scale)
    input = write_images(settings.folder / "images", count)
    output, bare = settings.folder / "images-out", settings.folder / "images-bare"

    def ours() -> object:
        shutil.rmtree(output, ignore_errors=True)
        return harness.answer(
            harness.start_job(
                settings.folder / "home",
                reader=["ImageReader", {"path": str(input)}],
                writer=["ImageWriter", {"path": str(output)}],
                mapper="shrink",
                batch_size=BATCH_SIZE,
            )
        )

    def rival() -> object:
        shutil.rmtree(bare, ignore_errors=True)
        bare.mkdir()
        script = str(Path(__file__).with_name("rivals.py"))
        measured = harness.answer(harness.python(script, "images", str(input), str(bare)))
        names = sorted(path.name for path in output.glob("*.png"))
        assert names == sorted(path.name for path in bare.iterdir())
        assert len(names) == count
        assert harness.digest(*(output / name for name in names)) == harness.digest(*(bare / name for name in names))
        return measured

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    yield Figure(
        benchmark="images",
        what="images/s over those of a bare pool of two",
        value=harness.median(theirs) / harness.median(mine),
        unit="x",
        at_least=0.9,
        details={"ours": count / harness.median(mine), "bare": count / harness.median(theirs), "images": count},
    )


def write_images(folder: Path, count: int) -> Path:
    """Images of 96 x 96 pixels, PNG and JPEG by turns."""
    import PIL.Image

    folder.mkdir()
    random_bytes = random.Random(0).randbytes
    kinds = []
    for number in range(min(count, KINDS)):
        image = PIL.Image.frombytes("RGB", (12, 12), random_bytes(3 * 12 * 12)).resize((96, 96))
        ending, format = (("png", "PNG"), ("jpg", "JPEG"))[number % 2]
        buffer = io.BytesIO()
        image.save(buffer, format)
        kinds.append((ending, buffer.getvalue()))
    for number in range(count):
        ending, data = kinds[number % len(kinds)]
        (folder / f"{number:06d}.{ending}").write_bytes(data)
    return folder
