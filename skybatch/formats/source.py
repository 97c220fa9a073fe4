"""Reading bytes of input files, wherever they lie: local files by pread, objects by ranged requests."""

from __future__ import annotations

import fnmatch
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from skybatch.errors import InputMissing, SegmentDamaged, UsageError
from skybatch.formats import storage
from skybatch.formats.masking import masked, refuse_secrets

if TYPE_CHECKING:
    from skybatch.formats.stores.base import ObjectInfo, Store

SAMPLE = 64 << 10
_MAGIC = frozenset("*?[")


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

    `**` in a glob stands for any number of folders; a folder means all files in it, at any depth. Names that begin with
    a dot or an underscore are left out of both, unless the pattern spells that first character. A file whose own name
    looks like a glob is that file. Raises InputMissing naming the pattern that matches nothing, UsageError for
    credentials in a path.
    """
    return list(walk(path))


def walk(path: str | Sequence[str]) -> Iterator[InputFile]:
    """What `find` finds, one after the other; of a folder no more is held than one folder's names."""
    patterns = [path] if isinstance(path, str) else path
    if not patterns:
        raise InputMissing("the input is a list of no files")
    for pattern in patterns:
        refuse_secrets(pattern)
        nothing = True
        for file in _find_local(pattern) if storage.is_local(pattern) else _find_stored(pattern):
            nothing = False
            yield file
        if nothing:
            raise InputMissing(f"input {masked(pattern)}: {_no_match(pattern)}")


def root_of(pattern: str, found: InputFile) -> str:
    """The folder, its slash included, that names of files found by a path, a glob or a folder are relative to."""
    local = storage.is_local(pattern)
    path = storage.local_path(pattern) if local else pattern
    if found.path == path:
        return path[: path.rfind("/") + 1]
    if _MAGIC & set(path) and not (local and os.path.isdir(path)):
        return f"{_split(path)[0]}/"
    return f"{path.rstrip('/')}/"


def open_file(file: InputFile) -> Source:
    """Open one file. Raises InputMissing when it is not there, or is another one than `file` was found to be."""
    return _LocalSource(file) if storage.is_local(file.path) else _StoredSource(file)


def fingerprint(files: Iterable[InputFile]) -> dict[str, Any]:
    """What tells these files from changed ones, as JSON of bounded size: number, sizes, versions, head and tail.

    There is one file at least; one at a time is held.
    """
    import hashlib

    digest, count, size = hashlib.sha256(), 0, 0
    files = iter(files)
    first = last = next(files)
    for last in chain([first], files):
        digest.update(f"{os.path.basename(last.path)}\0{last.size}\0{last.version}\n".encode(errors="surrogateescape"))
        count, size = count + 1, size + last.size
    version = first.version if count == 1 else digest.hexdigest()[:32]
    return {"files": count, "size": size, "version": version, "sample": _sample(first, last)}


def _sample(first: InputFile, last: InputFile) -> int:
    """A checksum of the first 64 KB of the first file and the last 64 KB of the last."""
    source = open_file(first)
    try:
        head = source.read(0, SAMPLE)
        if last is not first:
            source.close()
            source = open_file(last)
        return zlib.crc32(source.read(max(0, last.size - SAMPLE), SAMPLE), zlib.crc32(head))
    finally:
        source.close()


class _LocalSource(Source):
    def __init__(self, file: InputFile) -> None:
        self.file, self._fd = file, -1
        try:
            self._fd = storage.private(os.open(storage.local_path(file.path), os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            raise _gone(file) from None
        stat = os.fstat(self._fd)
        if (stat.st_size, str(stat.st_mtime_ns)) != (file.size, file.version):
            self.close()
            raise _changed(file)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]  # the kernel gives 2 GB at most at once
        while data and (length := length - len(data)):
            offset += len(data)
            data = os.pread(self._fd, length, offset)
            pieces.append(data)
        return b"".join(pieces)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class _StoredSource(Source):
    def __init__(self, file: InputFile) -> None:
        self.file, self._store = file, _store(file.path)

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.file.size)
        if end <= offset:
            return b""
        try:
            return self._store.read(self.file.path, offset, end, version=self.file.version)
        except FileNotFoundError:
            raise _gone(self.file) from None
        except SegmentDamaged:
            raise _changed(self.file) from None

    def close(self) -> None:
        """Nothing is held: the store is the process's."""


def _gone(file: InputFile) -> InputMissing:
    return InputMissing(f"input {masked(file.path)}: does not exist")


def _changed(file: InputFile) -> InputMissing:
    return InputMissing(f"input {masked(file.path)}: has changed since the job looked at it first")


def _no_match(pattern: str) -> str:
    if _MAGIC & set(pattern):
        return "no file matches"
    local = storage.is_local(pattern)
    return "a folder with no files in it" if local and os.path.isdir(storage.local_path(pattern)) else "does not exist"


def _find_local(pattern: str) -> Iterator[InputFile]:
    path = storage.local_path(pattern)
    names: Iterable[str]
    if os.path.isdir(path):
        names = _below(path.rstrip("/") or "/")
    elif os.path.lexists(path) or not _MAGIC & set(path):
        names = [path]
    else:
        fixed, parts = _split(path)
        names = sorted(set(_globbed(fixed, parts)))
    return map(_local_file, names)


def _local_file(path: str) -> InputFile:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise InputMissing(f"input {path}: {_cause(error)}") from None
    if not S_ISREG(stat.st_mode):
        raise InputMissing(f"input {path}: is no regular file, and cannot be read at any offset")
    return InputFile(path=path, size=stat.st_size, version=str(stat.st_mtime_ns))


def _cause(error: OSError) -> str:
    missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return "does not exist" if missing else error.strerror or str(error)


def _below(folder: str) -> Iterator[str]:
    """All files in a folder at any depth, sorted; links to folders are not followed."""
    try:
        names = sorted(_names(folder))
    except OSError as error:
        raise InputMissing(f"input {folder}: {_cause(error)}") from None
    for name in names:
        if name.endswith("/"):
            yield from _below(os.path.join(folder, name[:-1]))
        else:
            yield os.path.join(folder, name)


def _names(folder: str) -> Iterator[str]:
    """What a folder has in it; folders with a slash, which has its part in the order of paths."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] in "._":
                continue
            if entry.is_dir(follow_symlinks=False):
                yield f"{entry.name}/"
            elif not entry.is_dir():
                yield entry.name


def _split(path: str) -> tuple[str, list[str]]:
    """The folder of a pattern that has nothing to match in it, and the parts below."""
    parts = path.split("/")
    first = next(k for k, part in enumerate(parts) if _MAGIC & set(part))
    return "/".join(parts[:first]), parts[first:]


def _globbed(folder: str, patterns: list[str]) -> Iterator[str]:
    """The files below a local folder that match; links to folders are followed except for `**`."""
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        yield from _globbed(folder, rest or ["*"])
    try:
        entries = list(os.scandir(folder or "/"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        if not _matches(entry.name, "*" if first == "**" else first):
            continue
        if first == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from _globbed(entry.path, patterns)
        elif rest:
            if entry.is_dir():
                yield from _globbed(entry.path, rest)
        elif not entry.is_dir():
            yield f"{folder}/{entry.name}"


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) and (name[:1] not in "._" or name[:1] == pattern[:1])


def _find_stored(pattern: str) -> Iterator[InputFile]:
    store, is_url = _store(pattern), pattern.startswith(("http://", "https://"))
    if not is_url and _MAGIC & set(pattern.split("/")[2]):
        raise UsageError(f"input {masked(pattern)}: a glob begins below a bucket, and cannot stand for several")
    if is_url or not pattern.endswith("/"):
        try:
            yield _stored_file(store.info(pattern))
        except FileNotFoundError:
            pass
        else:
            return
    if not _MAGIC & set(pattern):
        fixed, parts = pattern.rstrip("/"), ["**"]
    else:
        fixed, parts = _split(pattern)
    length = len(fixed) + 1
    for info in _listed(store, fixed):
        if not info.path.endswith("/") and _all_match(info.path[length:].split("/"), parts):
            yield _stored_file(info)


def _listed(store: Store, folder: str) -> Iterator[ObjectInfo]:
    from skybatch.formats.stores.retrying import Kind, Refusal

    try:
        yield from store.list(folder)
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        raise InputMissing(f"input {masked(folder)}: there is no such bucket") from None


def _all_match(names: list[str], patterns: list[str]) -> bool:
    """Whether the parts of a path match those of a pattern."""
    if not patterns:
        return not names
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        rest_matches = _all_match(names, rest or ["*"])
        return rest_matches or (len(names) > 1 and _matches(names[0], "*") and _all_match(names[1:], patterns))
    return bool(names) and _matches(names[0], first) and _all_match(names[1:], rest)


def _stored_file(info: ObjectInfo) -> InputFile:
    return InputFile(path=info.path, size=info.size, version=info.version)


def _store(path: str) -> Store:
    from skybatch.formats import stores

    return stores.of(path)
