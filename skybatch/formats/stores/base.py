"""What a store of objects does for skybatch: whole objects, put on a condition; ranges of them; composing.

Paths are full ones, scheme included. All methods may be called by several threads at once. What is transient
(throttling, resets, stalls, server errors) is retried inside, with jittered back-off, and ends in StorageFailed;
what credentials do not allow ends in StorageDenied at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

ANYTHING: Final = "*"
"""As `replaces`: whatever is there, or nothing."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object. `version` (ETag, generation) is another one whenever the content is."""

    path: str
    size: int
    version: str
    modified: float | None = None  # seconds since the epoch, where the store says
    owner: str | None = None  # the owner token it was put with; listings leave it out


class Piece(NamedTuple):
    """Bytes of a file or an object, in the order of the output; `version` as it was when stored, if known."""

    path: str
    offset: int
    length: int
    version: str | None = None

    def joined(self, following: Piece) -> Piece | None:
        """Both as one piece, where the other one follows at once in the same object; else None."""
        end = self.offset + self.length
        if (self.path, self.version, end) != (following.path, following.version, following.offset):
            return None
        return self._replace(length=self.length + following.length)


class Store(ABC):
    """One kind of object store."""

    conditional: bool
    """Whether the conditions of `put` and `finish` hold against other writers; else they are only looked at first."""

    @abstractmethod
    def info(self, path: str) -> ObjectInfo:
        """Size, version, owner. Raises FileNotFoundError."""

    @abstractmethod
    def read(self, path: str, start: int = 0, end: int | None = None, *, version: str | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive). Raises FileNotFoundError; SegmentDamaged when `version` is another."""

    @abstractmethod
    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Every object below a folder, at any depth, sorted by path, however many. Nothing for none."""

    @abstractmethod
    def put(
        self, path: str, data: bytes | Path, *, replaces: str | None = ANYTHING, owner: str | None = None
    ) -> ObjectInfo:
        """Make an object of bytes, or of a local file, of any size, in one atomic step.

        `replaces` is ANYTHING, None (nothing may be there) or the version that may be replaced; FileExistsError
        when something else stands there. With `owner`, what stands there and bears that very token is success: an
        earlier try of this call whose reply was lost.
        """

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over."""

    @abstractmethod
    def composer(self, path: str, *, scratch: str, owner: str, handle: str | None = None) -> Composer:
        """Begin to put an object together out of others, or go on with what `handle` names.

        `scratch` is a folder of the same store for intermediate objects, deleted by whoever gave it.
        """

    def abandoned(self, folder: str) -> Iterator[tuple[str, str]]:
        """Path and handle of every upload begun for `folder` or below it and neither finished nor aborted."""
        return iter(())

    def abort(self, path: str, handle: str) -> None:
        """End what `handle` names for `path`; what was uploaded is given up. Nothing there is no error."""


class Composer(ABC):
    """Puts one object together, in order, by the server's own copying where that is possible.

    A composer that went on from a handle must be given the same pieces once more: what the store has of them
    already is not sent again.
    """

    handle: str
    """Names what was begun; journalled by the caller before the first `add`, also when it went on from another one."""

    bytes_through_here: int
    """How many bytes were read or sent by this process."""

    @abstractmethod
    def add(self, piece: Piece) -> None:
        """Append bytes of an object of the same store. Raises SegmentDamaged when it is missing, short or altered."""

    @abstractmethod
    def add_bytes(self, data: bytes) -> None:
        """Append bytes."""

    @abstractmethod
    def prepare(self) -> None:
        """Nothing but the atomic step is left after this; nothing can be added any more."""

    @abstractmethod
    def finish(self, *, replaces: str | None = ANYTHING) -> ObjectInfo:
        """The atomic step; `replaces` and FileExistsError as for `Store.put`, the owner token included."""

    def close(self) -> None:
        """End what still runs, when nothing will be added any more and `finish` is not to come; the handle stays."""
