"""Reading bytes of input files, wherever they lie: local files by pread, objects by ranged requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of an input. `version` (mtime in ns, ETag, generation) is another one whenever the content is."""

    path: str
    size: int
    version: str


class Source(ABC):
    """One file, open for reading at any offset; by several threads at once."""

    file: InputFile

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, fewer only at the end of the file. Raises OSError; StorageFailed elsewhere."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is held; reading is over."""


def find(path: str | Sequence[str]) -> list[InputFile]:
    """The files that a path, a glob, a folder or a list of those names, each sorted, in the order of the list.

    Names that begin with a dot or an underscore are left out of globs and folders. Raises InputMissing naming the
    pattern that matches nothing.
    """
    raise NotImplementedError


def open_file(file: InputFile) -> Source:
    """Open one file. Raises InputMissing when it is not there, or is another one than `file` was found to be."""
    raise NotImplementedError


def fingerprint(files: Sequence[InputFile]) -> dict[str, Any]:
    """What tells these files from changed ones, as JSON of bounded size: number, sizes, versions, head and tail."""
    raise NotImplementedError
