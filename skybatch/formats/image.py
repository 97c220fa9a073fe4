"""`ImageWriter`: one image file per item in a folder."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from skybatch.errors import ResultError, UsageError, nearest
from skybatch.formats.base import Item
from skybatch.formats.file_per_item import FilePerItemWriter
from skybatch.formats.names import name_from

if TYPE_CHECKING:
    import PIL.Image

ENDINGS = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}
"""The formats, and how names of their files end; the first is what is appended."""


@dataclass
class ImageWriter(FilePerItemWriter):
    """Images to `<path>/%08d.png` by item index, or to the file that `name_column` names.

    An image is Pillow's, a numpy array of bytes (height x width, or that x 3 or 4 channels), or the bytes of an
    encoded one, which stay as they are when they have the right format. `format` is "png", "jpeg" or "webp"; without
    it, what the name from `name_column` ends in, else PNG. Names that do not end as their format does get its ending.
    `quality` (1 to 100) is for JPEG and WebP. JPEG has no transparency; it is left out.
    """

    path: str
    column: str = "image"
    format: str | None = None
    name_column: str | None = None
    quality: int | None = None

    requires: ClassVar[dict[str, str]] = {"PIL": "pillow"}

    def check(self) -> None:
        """Raise UsageError when Pillow or a format is not there, or fields make no sense."""
        try:
            from PIL import features
        except ImportError:
            raise UsageError("ImageWriter needs Pillow; install it: pip install 'skybatch[image]'") from None
        name = f"ImageWriter({self.path!r})"
        if self.format is not None and self.format not in ENDINGS:
            what = nearest(str(self.format), ENDINGS)
            raise UsageError(f"{name}: format must be one of {', '.join(ENDINGS)}; not {self.format!r}{what}")
        if self.format in ("jpeg", "webp") and not features.check("jpg" if self.format == "jpeg" else "webp"):
            raise UsageError(f"{name}: this Pillow was built without {self.format}")
        if self.quality is not None and (isinstance(self.quality, bool) or self.quality not in range(1, 101)):
            raise UsageError(f"{name}: quality must be 1 to 100; not {self.quality!r}")

    def file_of(self, result: Item, index: int) -> tuple[str, bytes]:
        """Name and content of a result's file."""
        value = result.get(self.column)
        if value is None:
            what = nearest(self.column, map(str, result))
            raise ResultError(f"item {index}: the result has no image under {self.column!r}{what}", item=index)
        name = name_from(result, self.name_column, index) if self.name_column else f"{index:08d}"
        form = self.format or _format_of(name) or "png"
        if not name.lower().endswith(ENDINGS[form]):
            name += ENDINGS[form][0]
        try:
            return name, self._encoded(value, form)
        except (OSError, ValueError, TypeError, SyntaxError) as error:  # Pillow's own
            raise ResultError(f"item {index}, key {self.column!r}: {error}", item=index) from error

    def _encoded(self, value: Any, form: str) -> bytes:
        image = _image(value)
        if isinstance(value, bytes) and image.format == form.upper():
            return value
        if form == "jpeg" and image.mode not in ("RGB", "L", "CMYK"):
            image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
        buffer = io.BytesIO()
        quality = {"quality": self.quality} if self.quality is not None and form != "png" else {}
        image.save(buffer, format=form, **quality)
        return buffer.getvalue()

    def manifest(self) -> dict[str, Any]:
        """Format, and how files are named."""
        names = self.name_column or f"%08d{ENDINGS[self.format or 'png'][0]}"
        return {"format": "skybatch.images/1", "names": names, "column": self.column}


def _format_of(name: str) -> str | None:
    ending = os.path.splitext(name)[1].lower()
    return next((form for form, endings in ENDINGS.items() if ending in endings), None)


def _image(value: Any) -> PIL.Image.Image:
    """A value as an image. Raises ValueError for what is none; what Pillow raises for bytes that are none."""
    import PIL.Image

    if isinstance(value, PIL.Image.Image):
        return value
    if isinstance(value, bytes):
        return PIL.Image.open(io.BytesIO(value))
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype != numpy.uint8:
            raise ValueError(f"an image array must be of uint8, not {value.dtype}: scale it to 0..255 and use astype")
        return PIL.Image.fromarray(value)
    raise ValueError(f"not an image but {type(value).__name__}")
