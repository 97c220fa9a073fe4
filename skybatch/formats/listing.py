"""A list of files, made once by the engine and mapped by its workers: it takes memory where it is looked at only."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence

from skybatch import disk
from skybatch.formats import mapped, storage
from skybatch.formats.source import InputFile

_MAGIC = b"SKYBFIL1"


class Listing:
    """Files by their index; `root` is the folder that their names are relative to."""

    def __init__(self, root: str, rows: Sequence[int], text: memoryview) -> None:
        self.root, self._rows, self._text = root, rows, text
        self.count = len(rows) // 2

    def size(self, index: int) -> int:
        """Bytes in a file, when it was listed."""
        return self._rows[2 * index + 1]

    def file(self, index: int) -> InputFile:
        """A file as it was listed."""
        begin = self._rows[2 * index - 2] if index else 0
        version, path = os.fsdecode(bytes(self._text[begin : self._rows[2 * index]])).split("\0", 1)
        return InputFile(path=path, size=self.size(index), version=version)

    def __iter__(self) -> Iterator[InputFile]:
        """All files, in order."""
        return map(self.file, range(self.count))

    def name(self, file: InputFile) -> str:
        """A file's path in the folder that all of them lie in."""
        return file.path[len(self.root) :]


def build(files: Iterable[tuple[str, InputFile]], folder: str) -> None:
    """Write what `load` reads, of files each with the root of its name; one at a time is held."""
    with open(f"{folder}/files.rows", "wb") as rows, open(f"{folder}/files.text", "wb") as text:
        rows.write(_MAGIC)
        text.write(_MAGIC)
        end, common = 0, None
        for root, file in files:
            end += text.write(f"{file.version}\0{file.path}".encode(errors="surrogateescape"))
            rows.write(array("Q", (end, file.size)))
            common = _common(common or root, root)
        for written in (rows, text):
            written.flush()
            disk.fsync("listing", written.fileno())  # the journal says that the index is there, and is durable
    storage.write_bytes(f"{folder}/files.json", json.dumps({"root": common or ""}).encode())


def load(folder: str) -> Listing:
    """What `build` wrote. Raises ValueError for anything else."""
    with open(f"{folder}/files.json") as about:
        root: str = json.load(about)["root"]
    rows, text = (mapped.load(f"{folder}/files.{part}", _MAGIC, "a list of files") for part in ("rows", "text"))
    return Listing(root, rows.cast("Q"), text)


def _common(folder: str, other: str) -> str:
    """The longest folder that both are or lie in; all end with their slash."""
    while not other.startswith(folder):
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
    return folder
