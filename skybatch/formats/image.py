"""`ImageWriter`: one PNG per item in a folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import ClassVar

from skybatch.errors import ResultError, UsageError, nearest
from skybatch.formats import storage
from skybatch.formats.base import Item, OutputWriter

MANIFEST = "manifest.json"


@dataclass
class ImageWriter(OutputWriter):
    """PIL images to `<path>/%08d.png` by item index; `manifest.json`, written last, says the folder is complete."""

    path: str
    column: str = "image"

    requires: ClassVar[dict[str, str]] = {"PIL": "pillow"}

    def check(self) -> None:
        """Raise UsageError when Pillow is not installed."""
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise UsageError("ImageWriter needs Pillow; install it: pip install 'skybatch[image]'") from None

    def upload_batch(self, results: list[Item], start_idx: int, end_idx: int, job_id: str) -> str:
        """Write each image whole under its final name."""
        folder = self.path.rstrip("/")
        for index, result in enumerate(results, start_idx):
            storage.write_bytes(f"{folder}/{index:08d}.png", self._png(result, index))
        return folder

    def _png(self, result: Item, index: int) -> bytes:
        image = result.get(self.column)
        if image is None:
            what = nearest(self.column, map(str, result))
            raise ResultError(f"item {index}: the result has no image under {self.column!r}{what}", item=index)
        if not hasattr(image, "save"):
            raise ResultError(f"item {index}, key {self.column!r}: not an image but {type(image).__name__}", item=index)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()

    def reduce_results(self, job_id: str) -> None:
        """Write the manifest."""
        manifest = {"format": "skybatch.images/1", "names": "%08d.png", "column": self.column}
        storage.write_bytes(f"{self.path.rstrip('/')}/{MANIFEST}", json.dumps(manifest).encode() + b"\n")

    def cleanup(self, job_id: str) -> None:
        """Nothing is temporary."""
