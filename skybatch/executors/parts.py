"""What travels to other machines: zip files, named by their content, that are kept there between jobs."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import tempfile
import weakref
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from skybatch.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[1]
IN_MEMORY = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip file's beginning of time, so that equal content makes equal bytes


class Part:
    """A folder as one file; closed when nobody has it any more. It may be read by several threads."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name  # what it is and a hash of its content
        self.size = file.seek(0, io.SEEK_END)  # bytes
        self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of it."""
        return os.pread(self._fd, size, offset)


@functools.cache
def core() -> Part:
    """skybatch itself, whole: a mapper's module may import any of it."""
    return pack("core", PACKAGE.parent, sorted(PACKAGE.rglob("*.py")))


@functools.lru_cache(maxsize=4)
def folder(kind: str, path: str) -> Part:
    """All files of a folder that is written no more."""
    root = Path(path)
    return pack(kind, root, sorted(each for each in root.rglob("*") if each.is_file()))


def brought(root: str, paths: Iterable[str]) -> Part:
    """The files and folders that a pool brings along, under their paths below `root`. Raises UsageError."""
    files: list[Path] = []
    for path in paths:
        place = Path(root, path)
        if not place.exists():
            raise UsageError(f"files: {path}: there is no such file or folder in {root}")
        files += [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file())
    return pack("files", Path(root), files)


def pack(kind: str, root: Path, files: Iterable[Path]) -> Part:
    """These files under their paths below `root`. Raises OSError."""
    hashed = hashlib.sha256()
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path in files:
                name = path.relative_to(root).as_posix()
                hashed.update(f"{len(name)} {name} {path.stat().st_size} ".encode())
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_STORED if kind == "files" else zipfile.ZIP_DEFLATED
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as into:
                    while data := source.read(IN_MEMORY):
                        hashed.update(data)
                        into.write(data)
        file.flush()
        return Part(f"{kind}-{hashed.hexdigest()[:24]}", file)
