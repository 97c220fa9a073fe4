"""What travels to other machines: zip files, named by their content, that are kept there between jobs."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from skybatch.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[1]
UNNEEDED = ("cli", "testing")
"""Folders of the package that no worker uses."""
IN_MEMORY = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip file's beginning of time, so that equal content makes equal bytes


@dataclass(frozen=True)
class Part:
    """A folder as one file; `file` may be read by several threads, each from a place of its own."""

    name: str  # what it is and a hash of its content
    size: int  # bytes
    file: IO[bytes]

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of it."""
        return os.pread(self.file.fileno(), size, offset)


@functools.cache
def core() -> Part:
    """skybatch itself, as far as workers need it."""
    return pack("core", PACKAGE.parent, _sources(PACKAGE))


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
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the part is used
    hashed = hashlib.sha256()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in files:
            name = path.relative_to(root).as_posix()
            hashed.update(f"{len(name)} {name} {path.stat().st_size} ".encode())
            with path.open("rb") as source, archive.open(zipfile.ZipInfo(name, _EPOCH), "w", force_zip64=True) as into:
                while data := source.read(IN_MEMORY):
                    hashed.update(data)
                    into.write(data)
    file.flush()
    return Part(f"{kind}-{hashed.hexdigest()[:24]}", file.seek(0, io.SEEK_END), file)


def _sources(package: Path) -> list[Path]:
    found = (path for path in package.rglob("*.py") if not {*path.relative_to(package).parts} & {*UNNEEDED})
    return sorted(found)
