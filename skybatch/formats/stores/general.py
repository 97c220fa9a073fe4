"""Every other fsspec filesystem: whole objects by one put, composing by way of a local file.

Conditions are looked at first and do not hold against other writers; how atomic a put is, the filesystem decides.
"""

from __future__ import annotations

import datetime
import functools
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from skybatch.errors import SegmentDamaged, UsageError
from skybatch.formats.masking import masked
from skybatch.formats.stores import retrying
from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Piece, Store
from skybatch.formats.stores.retrying import Kind, Refusal
from skybatch.formats.stores.settling import altered, looked_first, no_such

READ_SIZE = 8 * 1024 * 1024  # bytes at a time while an output is gathered
_VERSION_FIELDS = (
    "ETag",
    "etag",
    "generation",
    "md5",
    "content_md5",
    "checksum",
    "mtime",
    "modified",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)


class GeneralStore(Store):
    """One scheme of fsspec's. Owner tokens are kept in this process's memory: no filesystem has a place for them."""

    conditional = False

    def __init__(self, scheme: str) -> None:
        import fsspec

        try:
            self._fs: Any = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
        except ValueError as error:  # not a scheme
            raise UsageError(f"paths that begin with {scheme}:// cannot be used: {error}") from None
        except ImportError as error:  # its message names what to install
            raise UsageError(f"paths that begin with {scheme}:// cannot be used here: {error}") from None
        self._scheme = scheme
        self._owners: dict[str, tuple[str, str]] = {}  # by path: version, owner
        self._putting = threading.Lock()  # so that conditions hold at least within this process

    def info(self, path: str) -> ObjectInfo:
        try:
            found = retrying.call(path, lambda: self._fs.info(self._name(path)))
        except Refusal as refusal:
            raise no_such(path, refusal) from None
        if found["type"] != "file":
            raise FileNotFoundError(f"{masked(path)}: no such object")
        return self._told(path, found)

    def read(self, path: str, start: int = 0, end: int | None = None, *, version: str | None = None) -> bytes:
        if version is not None and self.info(path).version != version:
            raise altered(path)
        if end is not None and end <= start:
            return b""
        span = {} if not start and end is None else {"start": start, "end": end}
        try:
            return bytes(retrying.call(path, lambda: self._fs.cat_file(self._name(path), **span)))
        except Refusal as refusal:
            if refusal.status == 416:
                return b""
            raise no_such(path, refusal) from None

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        try:
            found = retrying.call(folder, lambda: self._fs.find(self._name(folder.rstrip("/") + "/"), detail=True))
        except Refusal as refusal:
            if refusal.kind is Kind.MISSING:
                return
            raise
        root = self._fs._strip_protocol(folder.rstrip("/")).rstrip("/") + "/"
        for name in sorted(found):
            if name.startswith(root):
                yield self._told(folder.rstrip("/") + "/" + name[len(root) :], found[name])

    def put(
        self, path: str, data: bytes | Path, *, replaces: str | None = ANYTHING, owner: str | None = None
    ) -> ObjectInfo:
        with self._putting:
            if (ours := looked_first(self, path, replaces, owner)) is not None:
                return ours
            name = self._name(path)

            def attempt() -> None:
                self._fs.makedirs(self._fs._parent(name), exist_ok=True)
                if isinstance(data, Path):
                    self._fs.put_file(str(data), name)
                else:
                    self._fs.pipe_file(name, data)

            retrying.change(path, "put", attempt)
            made = self.info(path)
            if owner is not None:
                self._owners[path] = (made.version, owner)
            return self._told_owner(made)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                retrying.change(path, "delete", functools.partial(self._fs.rm_file, self._name(path)))
            except Refusal as refusal:
                if refusal.kind is not Kind.MISSING:
                    raise

    def composer(self, path: str, *, scratch: str, owner: str, handle: str | None = None) -> Composer:
        return GeneralComposer(self, path, owner)

    def _told(self, path: str, found: dict[str, Any]) -> ObjectInfo:
        marks = [str(found["size"]), *(f"{name}={_plain(found[name])}" for name in _VERSION_FIELDS if found.get(name))]
        return self._told_owner(ObjectInfo(path=path, size=found["size"] or 0, version=";".join(marks)))

    def _told_owner(self, info: ObjectInfo) -> ObjectInfo:
        version, owner = self._owners.get(info.path, ("", ""))
        if version != info.version:
            return info
        return ObjectInfo(path=info.path, size=info.size, version=info.version, owner=owner)

    def _name(self, path: str) -> str:
        return str(self._fs._strip_protocol(path))


class GeneralComposer(Composer):
    """Gathers in a local file, which goes up in one put. Nothing of it outlives the process: a resume begins anew."""

    def __init__(self, store: GeneralStore, path: str, owner: str) -> None:
        self._store, self._path, self._owner = store, path, owner
        self.handle = owner
        self.bytes_through_here = 0
        self._file = tempfile.NamedTemporaryFile(prefix="skybatch-")  # noqa: SIM115 - open until it is put
        weakref.finalize(self, self._file.close)

    def add(self, piece: Piece) -> None:
        for start in range(piece.offset, piece.offset + piece.length, READ_SIZE):
            end = min(start + READ_SIZE, piece.offset + piece.length)
            try:
                data = self._store.read(piece.path, start, end, version=piece.version)
            except FileNotFoundError:
                raise SegmentDamaged(f"{masked(piece.path)}: missing") from None
            if len(data) != end - start:
                raise SegmentDamaged(f"{masked(piece.path)}: ends before byte {end}")
            self.add_bytes(data)

    def add_bytes(self, data: bytes) -> None:
        self._file.write(data)
        self.bytes_through_here += len(data)

    def prepare(self) -> None:
        self._file.flush()

    def finish(self, *, replaces: str | None = ANYTHING) -> ObjectInfo:
        made = self._store.put(self._path, Path(self._file.name), replaces=replaces, owner=self._owner)
        self._file.close()
        return made


def _plain(mark: Any) -> Any:
    """A mark of a version; a time is one number however a filesystem tells it."""
    return mark.timestamp() if isinstance(mark, datetime.datetime) else mark
