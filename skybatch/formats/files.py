"""`FilesReader` and `ImageReader`: every file of a folder is an item."""

from __future__ import annotations

import hashlib
import io
import threading
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from skybatch.errors import InputMissing, RecordError, UnknownName, UsageError
from skybatch.formats import listing, source, storage
from skybatch.formats.base import Item, WindowReader
from skybatch.formats.listing import Listing
from skybatch.formats.masking import masked
from skybatch.formats.source import InputFile

WINDOW_BYTES, WINDOW_FILES = 4 << 20, 128
"""What is read at once, and may wait for the mapper a few times over; or one file where that is larger."""
PARALLEL = 8
"""So many requests at once to a store."""
CONTENTS = ("bytes", "none")
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

Content = bytes | RecordError


@dataclass
class FileReader(WindowReader):
    """What readers have in common for which a file is an item."""

    path: str | list[str]  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self._listing: Listing | None = None

    def check(self) -> None:
        """Raise InputMissing when there is no file."""
        next(self._found())

    def fingerprint(self) -> dict[str, Any]:
        """The number of files, their size in all, and a digest of their names, sizes and versions."""
        digest, count, size = hashlib.sha256(), 0, 0
        for root, file in self._found():
            line = f"{file.path[len(root) :]}\0{file.size}\0{file.version}\n"
            digest.update(line.encode(errors="surrogateescape"))
            count += 1
            size += file.size
        return {"files": count, "size": size, "version": digest.hexdigest()[:32]}

    def build_index(self, folder: str) -> int:
        """List the files."""
        listing.build(self._found(), folder)
        self.open_index(folder)
        return self._ready().count

    def open_index(self, folder: str) -> None:
        """Map the list."""
        self._listing = listing.load(folder)

    def window_end(self, start: int, end: int) -> int:
        """At most WINDOW_FILES files of WINDOW_BYTES together, or one file where that is larger."""
        files = self._ready()
        last, size = start, files.size(start)
        for index in range(start + 1, min(end, start + WINDOW_FILES - 1) + 1):
            size += files.size(index)
            if size > WINDOW_BYTES:
                break
            last = index
        return last

    def read_window(self, start: int, end: int) -> list[Content]:
        """The content of files `start` to `end`; a RecordError where one is not what was listed."""
        files = self._ready()
        wanted = [(index, files.file(index)) for index in range(start, end + 1)]
        if all(storage.is_local(file.path) for _, file in wanted):
            return [_content(index, file) for index, file in wanted]
        return _in_parallel(wanted)

    def decode(self, window: Any, first: int, start: int, end: int) -> list[Item]:
        """The items `start` to `end`. Raises RecordError naming the file."""
        files = self._ready()
        items = []
        for index in range(start, end + 1):
            content = window[index - first]
            if isinstance(content, RecordError):
                raise content
            file = files.file(index)
            items.append(self.item(index, file, files.name(file), content))
        return items

    @abstractmethod
    def item(self, index: int, file: InputFile, name: str, content: bytes) -> Item:
        """One item. Raises RecordError."""

    def wants(self, file: InputFile) -> bool:
        """Whether a file found in a folder is an item."""
        return True

    def _found(self) -> Iterator[tuple[str, InputFile]]:
        """The files, each with the folder that its name is relative to."""
        patterns = [self.path] if isinstance(self.path, str) else self.path
        if not patterns:
            raise InputMissing("the input is a list of no files")
        for pattern in patterns:
            root, nothing = "", True
            for file in source.walk(pattern):
                root = root or source.root_of(pattern, file)
                if self.wants(file) or not _is_folder(pattern, root):
                    nothing = False
                    yield root, file
            if nothing:
                raise InputMissing(f"input {masked(pattern)}: no file in this folder is of the kind wanted")

    def _ready(self) -> Listing:
        assert self._listing is not None, "open_index comes first"
        return self._listing


@dataclass
class FilesReader(FileReader):
    """Each file is an item, `{"path": ..., "bytes": ...}`, sorted by path; a folder means all files below it.

    `path` is a file, a folder, a glob or a list of those, locally or on a store. An item's path is relative to the
    folder, or to what a glob begins with, or to the folder that all of several lie in. `content="none"` leaves the
    bytes out, for mappers that read files themselves, and gives the whole path as well: `"file"`.
    """

    content: str = "bytes"

    def check(self) -> None:
        """Raise InputMissing when there is no file, UnknownName for a content that is not known."""
        if self.content not in CONTENTS:
            raise UnknownName("content", str(self.content), CONTENTS)
        super().check()

    def read_window(self, start: int, end: int) -> list[Content]:
        """The content of files, or nothing of them."""
        return [b""] * (end - start + 1) if self.content == "none" else super().read_window(start, end)

    def item(self, index: int, file: InputFile, name: str, content: bytes) -> Item:
        """A file's path, and what is in it."""
        return {"path": name, "file": file.path} if self.content == "none" else {"path": name, "bytes": content}


@dataclass
class ImageReader(FileReader):
    """Each image is an item, `{"path": ..., "image": PIL.Image}`, of files as FilesReader has them.

    Of a folder, the files are taken that have an ending of images; a glob or a list says itself what is meant. A file
    that Pillow cannot decode is that item's failure. Images are decoded on the mapper's thread, a range at a time.
    """

    requires: ClassVar[dict[str, str]] = {"PIL": "pillow"}

    def check(self) -> None:
        """Raise UsageError when Pillow is not installed, InputMissing when there is no image."""
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise UsageError("ImageReader needs Pillow; install it: pip install 'skybatch[image]'") from None
        super().check()

    def item(self, index: int, file: InputFile, name: str, content: bytes) -> Item:
        """A file's path, and the image in it."""
        import PIL.Image

        try:
            image = PIL.Image.open(io.BytesIO(content))
            image.load()
        except Exception as error:  # Pillow's decoders raise whatever they come across
            what = "not an image that Pillow knows" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
            raise RecordError(f"{masked(file.path)}: {what} (item {index})", item=index) from None
        return {"path": name, "image": image}

    def wants(self, file: InputFile) -> bool:
        """Whether its name ends as images' names do."""
        return file.path.lower().endswith(IMAGE_ENDINGS)


def _is_folder(pattern: str, root: str) -> bool:
    path = storage.local_path(pattern) if storage.is_local(pattern) else pattern
    return root == f"{path.rstrip('/')}/"


def _content(index: int, file: InputFile) -> Content:
    try:
        opened = source.open_file(file)
        try:
            content = opened.read(0, file.size)
        finally:
            opened.close()
    except (InputMissing, PermissionError) as error:
        return RecordError(f"{error} (item {index})", item=index)
    return content


def _in_parallel(wanted: list[tuple[int, InputFile]]) -> list[Content]:
    """As `_content`, several at once. Raises the first error that is no item's."""
    contents: dict[int, Content] = {}
    errors: list[BaseException] = []
    waiting = iter(wanted)
    taking = threading.Lock()

    def work() -> None:
        while not errors:
            with taking:
                index, file = next(waiting, (-1, None))
            if file is None:
                return
            try:
                contents[index] = _content(index, file)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(PARALLEL, len(wanted)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [contents[index] for index, _ in wanted]
