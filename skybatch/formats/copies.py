"""Local copies of input files in a folder of the job, made once: objects as they are, compressed files decompressed."""

from __future__ import annotations

import fcntl
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from skybatch import disk
from skybatch.errors import InputDamaged, UsageError
from skybatch.formats import source, storage
from skybatch.formats.compressed import kind_of
from skybatch.formats.masking import masked
from skybatch.formats.source import InputFile, Source

if TYPE_CHECKING:
    from concurrent.futures import Future

BLOCK = 8 << 20
"""What is asked of a store at once."""
AHEAD = 2
"""Blocks on their way besides the one in hand."""
READ_SIZE = 1 << 20
ZSTD_PIECE = 4 << 10
"""Compressed bytes decompressed at once; they may become 30,000 times as many."""
SHARE = 0.9
"""Of the free space of the disk that a copy may take."""

Write = Callable[[bytes], object]


def content(file: InputFile, folder: str) -> InputFile:
    """What to read instead of `file`: its copy where there is one, itself where there is none.

    A compressed file is decompressed first, by one process of this host while others wait. Raises InputDamaged when it
    is cut off or altered, UsageError where zstandard is missing, OSError.
    """
    copy = _copy_path(file, folder)
    kind = kind_of(file.path)
    if kind is not None and not os.path.exists(copy):
        check(file.path)
        with _locked(copy):
            if not os.path.exists(copy):
                with _made(copy) as fd:
                    _decompress(file, kind, lambda data: storage.write_all(fd, data))
    if os.path.exists(copy):
        return source.find(copy)[0]
    return file


def check(path: str) -> None:
    """Raise UsageError when what this file is compressed with cannot be read here."""
    if kind_of(path) == "zstd":
        try:
            import zstandard  # noqa: F401
        except ImportError:
            raise UsageError(
                f"input {masked(path)}: .zst needs zstandard; install it: pip install 'skybatch[zstd]'"
            ) from None


def fetch(files: Iterable[InputFile], folder: str) -> None:
    """Copy objects that are not compressed, while the disk has room; each is read once. Raises StorageFailed, OSError.

    AHEAD + 1 blocks are on their way and in memory at any time.
    """
    objects = (file for file in files if not (storage.is_local(file.path) or kind_of(file.path)))
    first = next(objects, None)
    if first is not None:
        _fetch(chain([first], objects), folder)


def _fetch(objects: Iterable[InputFile], folder: str) -> None:
    import shutil
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[tuple[_Fetching, Future[None]]] = deque()
    with ThreadPoolExecutor(AHEAD + 1, "skybatch-fetch") as threads:
        try:
            for file in objects:
                copy = _copy_path(file, folder)
                if os.path.exists(copy):
                    continue
                if file.size > SHARE * shutil.disk_usage(folder).free:
                    break
                fetching = _Fetching(file, copy)
                for offset in range(0, max(1, file.size), BLOCK):
                    waiting.append((fetching, threads.submit(fetching.block, offset)))
                    if len(waiting) > AHEAD:
                        waiting[0][1].result()
                        waiting.popleft()
            while waiting:
                waiting[0][1].result()
                waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()
            threads.shutdown()
            for fetching, _ in waiting:
                fetching.give_up()


class _Fetching:
    """One object on its way; the block that comes last completes the copy."""

    def __init__(self, file: InputFile, copy: str) -> None:
        self._opened, self._copy = source.open_file(file), copy
        self._missing = max(1, -(-file.size // BLOCK))
        self._lock = threading.Lock()
        self._fd = _create(f"{copy}.part")
        os.ftruncate(self._fd, 0)

    def block(self, offset: int) -> None:
        """Fetch one block."""
        data = memoryview(self._opened.read(offset, BLOCK))
        while data:
            written = os.pwrite(self._fd, data, offset)
            offset, data = offset + written, data[written:]
        storage.start_writeback(self._fd)
        with self._lock:
            self._missing -= 1
            if not self._missing:
                fd, self._fd = self._fd, -1
                _complete(fd, self._copy)

    def give_up(self) -> None:
        """Remove what there is of a copy that will not be whole."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            storage.unlink_if_there(f"{self._copy}.part")


def remove(folder: str) -> None:
    """Delete all copies; they are made anew when they are wanted again."""
    import shutil

    shutil.rmtree(f"{folder}/copies", ignore_errors=True)


def stream(file: InputFile, folder: str) -> Iterator[bytes]:
    """The content of a file from its beginning to its end."""
    return blocks(content(file, folder))


def blocks(file: InputFile) -> Iterator[bytes]:
    """A file's bytes as they are, in order; of a remote one the next blocks are on their way."""
    opened = source.open_file(file)
    try:
        if storage.is_local(file.path):
            yield from _one_by_one(opened)
        else:
            yield from _read_ahead(opened)
    finally:
        opened.close()


def _one_by_one(opened: Source) -> Iterator[bytes]:
    offset = 0
    while data := opened.read(offset, READ_SIZE):
        yield data
        offset += len(data)


def _read_ahead(opened: Source) -> Iterator[bytes]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AHEAD, "skybatch-read") as threads:
        waiting: deque[Future[bytes]] = deque()
        try:
            for offset in range(0, opened.file.size, BLOCK):
                waiting.append(threads.submit(opened.read, offset, BLOCK))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _copy_path(file: InputFile, folder: str) -> str:
    import hashlib

    name = hashlib.sha256(f"{file.path}\0{file.size}\0{file.version}".encode(errors="surrogateescape")).hexdigest()
    return f"{storage.local_path(folder)}/copies/{name[:32]}"


@contextmanager
def _locked(copy: str) -> Iterator[None]:
    """While entered, no other process or thread makes this copy."""
    fd = _create(f"{copy}.lock")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _made(copy: str) -> Iterator[int]:
    """A descriptor for what becomes `copy`, whole and durable, when nothing is raised."""
    fd = _create(f"{copy}.part")
    try:
        os.ftruncate(fd, 0)
        yield fd
    except BaseException:
        os.close(fd)
        storage.unlink_if_there(f"{copy}.part")
        raise
    _complete(fd, copy)


def _create(path: str) -> int:
    storage.make_folders(os.path.dirname(path))
    fd = storage.private(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    storage.keep_for_owner(fd)
    return fd


def _complete(fd: int, copy: str) -> None:
    try:
        disk.fsync("copy", fd)
    finally:
        os.close(fd)
    disk.rename("copy", f"{copy}.part", copy)
    storage.sync_folder(os.path.dirname(copy))


def _decompress(file: InputFile, kind: str, write: Write) -> None:
    try:
        whole = (_gunzip if kind == "gzip" else _unzstd)(blocks(file), write)
    except (zlib.error, ValueError) as error:
        raise InputDamaged(f"input {masked(file.path)}: damaged: {error}") from None
    if not whole:
        raise InputDamaged(f"input {masked(file.path)}: cut off: the last part of what is compressed is missing")


def _gunzip(pieces: Iterator[bytes], write: Write) -> bool:
    """Decompress any number of members, which zero bytes may follow; False when the last one has no end."""
    member, ended = None, False
    for data in pieces:
        while data:
            if member is None:
                data = data.lstrip(b"\0") if ended else data
                if not data:
                    break
                member = zlib.decompressobj(31)
            out = member.decompress(data, READ_SIZE)
            write(out)
            while len(out) == READ_SIZE and not member.eof:
                out = member.decompress(member.unconsumed_tail, READ_SIZE)
                write(out)
            data = member.unused_data if member.eof else b""
            member, ended = (None, True) if member.eof else (member, ended)
    return member is None and ended


def _unzstd(pieces: Iterator[bytes], write: Write) -> bool:
    """Decompress any number of frames; False when the last one has no end."""
    import zstandard

    frame, ended = None, False
    decompressor = zstandard.ZstdDecompressor()
    try:
        for piece in pieces:
            for start in range(0, len(piece), ZSTD_PIECE):
                data = piece[start : start + ZSTD_PIECE]
                while data:
                    frame = frame or decompressor.decompressobj()
                    write(frame.decompress(data))
                    data = b""
                    if frame.eof:
                        data, frame, ended = frame.unused_data, None, True
    except zstandard.ZstdError as error:
        raise ValueError(error) from None
    return frame is None and ended
