"""Merging segments and batch files into one output file, by copying bytes, in constant memory."""

from __future__ import annotations

import os
from typing import NamedTuple

from skybatch import disk
from skybatch.errors import SegmentDamaged
from skybatch.formats import segment, storage
from skybatch.formats.stores.base import Piece

_COPY_SIZE = 64 << 20


class Mark(NamedTuple):
    """How far a file is durable."""

    offset: int  # bytes
    inode: int


class Merger:
    """Builds a file next to its final place. Durable up to the last `checkpoint`, and after `finish`."""

    def __init__(self, path: str, header: bytes, mark: Mark | None = None) -> None:
        """Begin with the header; or go on at `mark`, with what is behind it cut off, where the file still is that one.

        `went_on` says which.
        """
        storage.make_folders(os.path.dirname(path))
        self.path = path
        self._index_of = segment.remembering()
        self.went_on = mark is not None and self._go_on(mark)
        if not self.went_on:
            storage.unlink_if_there(path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = storage.private(os.open(path, flags, 0o666))
            storage.write_all(self._fd, header)

    def _go_on(self, mark: Mark) -> bool:
        try:
            self._fd = storage.private(os.open(self.path, os.O_WRONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return False
        stat = os.fstat(self._fd)
        if stat.st_ino != mark.inode or stat.st_size < mark.offset or stat.st_nlink > 1:  # a second name: published
            self.close()
            return False
        os.ftruncate(self._fd, mark.offset)
        os.lseek(self._fd, mark.offset, os.SEEK_SET)
        return True

    def add(self, piece: Piece) -> None:
        """Append a piece. Raises SegmentDamaged when the file is not there or too short."""
        source = _open(piece.path)
        try:
            self._copy(source, piece)
        finally:
            os.close(source)

    def append(self, data: bytes) -> None:
        """Append bytes."""
        storage.write_all(self._fd, data)

    def add_segment(self, path: str, start: int, end: int) -> None:
        """Append the results of items `start` to `end`. Raises SegmentDamaged unless they are as they were sealed."""
        source = _open(path)
        try:
            index = self._index_of(path)
            segment.check_payloads(source, index, start, end)
            self._copy(source, Piece(path, *index.extent(start, end)))
        finally:
            os.close(source)

    def _copy(self, source: int, piece: Piece) -> None:
        _, offset, left, _ = piece
        while left:
            done = os.copy_file_range(source, self._fd, min(left, _COPY_SIZE), offset)
            if not done:
                raise SegmentDamaged(f"{piece.path}: {left} bytes are missing at its end")
            offset, left = offset + done, left - done
        storage.start_writeback(self._fd)
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)  # it will hardly be read again

    def checkpoint(self) -> Mark:
        """Make durable what is there."""
        disk.fsync("merge.checkpoint", self._fd)
        return Mark(os.lseek(self._fd, 0, os.SEEK_CUR), os.fstat(self._fd).st_ino)

    def finish(self, footer: bytes) -> os.stat_result:
        """Make the file durable; return its stat."""
        storage.write_all(self._fd, footer)
        disk.fsync("merge", self._fd)
        stat = os.fstat(self._fd)
        self.close()
        return stat

    def close(self) -> None:
        """Give up the descriptor; what was written stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SegmentDamaged(f"{path}: {error.strerror}") from error
