"""Merging segments and batch files into one output file, by copying bytes, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from skybatch.errors import SegmentDamaged
from skybatch.formats import batchfiles, storage
from skybatch.formats.base import SegmentWriter
from skybatch.formats.segment import extents, read_index
from skybatch.formats.stores.base import Piece

_COPY_SIZE = 64 << 20


class Merger:
    """Builds the output file next to its final place. Not durable before `finish`."""

    def __init__(self, path: str, header: bytes) -> None:
        storage.make_folders(os.path.dirname(path))
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = storage.private(os.open(path, flags, 0o666))
        storage.write_all(self._fd, header)

    def add(self, piece: Piece) -> None:
        """Append a piece. Raises SegmentDamaged when the file is not there or too short."""
        try:
            source = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SegmentDamaged(f"{piece.path}: {error.strerror}") from error
        try:
            _copy(source, self._fd, piece)
            storage.start_writeback(self._fd)
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)  # it will hardly be read again
        finally:
            os.close(source)

    def finish(self, footer: bytes) -> os.stat_result:
        """Make the file durable; return its stat."""
        storage.write_all(self._fd, footer)
        os.fsync(self._fd)
        stat = os.fstat(self._fd)
        self.close()
        return stat

    def close(self) -> None:
        """Give up the descriptor; what was written stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _copy(source: int, target: int, piece: Piece) -> None:
    offset, left = piece.offset, piece.length
    while left:
        done = os.copy_file_range(source, target, min(left, _COPY_SIZE), offset)
        if not done:
            raise SegmentDamaged(f"{piece.path}: {left} bytes are missing at its end")
        offset, left = offset + done, left - done


def merge_by_hand(writer: SegmentWriter, job_id: str) -> None:
    """Merge what lies in the temporary folder, without the journal, and put it at the writer's path.

    For a job that cannot be resumed; replaces what is at the path. Raises MissingBatches for gaps.
    """
    storage.local_path(writer.path)
    merger = Merger(f"{batchfiles.folder(writer.path, job_id)}/by-hand.part", writer.header())
    try:
        for piece in _found(writer.path, job_id):
            merger.add(piece)
        merger.finish(writer.footer())
    finally:
        merger.close()
    final = storage.local_path(writer.path)
    os.rename(merger.path, final)
    storage.sync_folder(os.path.dirname(final))


def _found(path: str, job_id: str) -> Iterable[Piece]:
    for start, end, name in batchfiles.cover(path, job_id, "seg"):
        ((offset, length),) = extents(read_index(Path(name)), start, end)
        yield Piece(name, offset, length)


def concatenate(paths: list[str], target: str) -> None:
    """Join whole files into one, published when complete."""
    if not storage.is_local(target):
        storage.write_bytes(target, b"".join(map(storage.read_bytes, paths)))
        return
    final = storage.local_path(target)
    merger = Merger(f"{final}.{os.getpid()}.part", b"")
    try:
        for path in paths:
            merger.add(Piece(path, 0, os.stat(path).st_size))
        merger.finish(b"")
        os.rename(merger.path, final)
    except BaseException:
        storage.unlink_if_there(merger.path)
        raise
    finally:
        merger.close()
    storage.sync_folder(os.path.dirname(final))
