"""Compressed outputs: independent frames, each of the same number of uncompressed bytes.

Where a frame ends depends on the output's bytes alone, so the file does not depend on how results arrived. Frames
carry neither time nor name. Any gzip or zstd tool reads the file; frames can be read one by one.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from skybatch.errors import UsageError, nearest
from skybatch.formats.base import Assembler, SegmentWriter
from skybatch.formats.concatenation import Concatenation, Sink

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

FRAME_SIZE = 4 << 20
"""Uncompressed bytes in a frame; the last one has what is left."""
FRAMES_AT_ONCE = 4

ENDINGS = {"gzip": ".gz", "zstd": ".zst"}
_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no time, no name, unknown system

Survey = Callable[[], Iterator[bytes]]


def kind_of(path: str) -> str | None:
    """The compression that a file's name asks for."""
    return next((kind for kind, ending in ENDINGS.items() if path.endswith(ending)), None)


def uncompressed_name(path: str) -> str:
    """A file's name without the ending of its compression."""
    kind = kind_of(path)
    return path.removesuffix(ENDINGS[kind]) if kind else path


def check(writer: str, kind: str | None) -> None:
    """Raise UsageError when this compression is not known here."""
    if kind is not None and kind not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise UsageError(f"{writer}: compression must be one of {known}; not {kind!r}{nearest(str(kind), ENDINGS)}")
    if kind == "zstd":
        try:
            import zstandard  # noqa: F401
        except ImportError:
            raise UsageError(f"{writer}: .zst needs zstandard; install it: pip install 'skybatch[zstd]'") from None


class Frames:
    """A sink that compresses what it is given into another, a few frames at a time, each on a thread."""

    def __init__(self, sink: Sink, kind: str) -> None:
        self._sink = sink
        self._compress = _gzip if kind == "gzip" else _zstd
        self._waiting = bytearray()
        self._threads: ThreadPoolExecutor | None = None
        self._coming: deque[Future[bytes]] = deque()

    def write(self, data: bytes, /) -> int:
        """Take bytes; whole frames are passed on."""
        rest = memoryview(data)
        while rest:
            room = FRAME_SIZE - len(self._waiting)
            self._waiting += rest[:room]
            rest = rest[room:]
            if len(self._waiting) == FRAME_SIZE:
                self._pass_on()
        return len(data)

    def finish(self) -> None:
        """Pass on what is left; nothing at all becomes one empty frame."""
        if self._waiting or self._threads is None:
            self._pass_on()
        while self._coming:
            self._sink.write(self._coming.popleft().result())
        if self._threads is not None:
            self._threads.shutdown()

    def _pass_on(self) -> None:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(FRAMES_AT_ONCE, "skybatch_compress")
        if len(self._coming) == FRAMES_AT_ONCE:
            self._sink.write(self._coming.popleft().result())
        self._coming.append(self._threads.submit(self._compress, bytes(self._waiting)))
        self._waiting.clear()


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = compressor.compress(data) + compressor.flush()
    return _GZIP_HEADER + body + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True, write_content_size=True).compress(data)


class _Compressing(Assembler):
    """Another assembler whose output goes through frames."""

    def __init__(self, inner: Assembler, frames: Frames) -> None:
        self._inner, self._frames = inner, frames

    def add(self, payload: bytes) -> None:
        """Pass a batch on."""
        self._inner.add(payload)

    def finish(self) -> None:
        """Write the last frame."""
        self._inner.finish()
        self._frames.finish()


class CompressibleWriter(SegmentWriter):
    """A segment writer whose file is compressed when its name ends in .gz or .zst."""

    def check(self) -> None:
        """Raise UsageError when the compression cannot be done here."""
        check(f"{type(self).__name__}({self.path!r})", kind_of(self.path))

    @property
    def is_assembled(self) -> bool:
        """Whether it is compressed, or the format needs it."""
        return kind_of(self.path) is not None or self.is_assembled_plain

    @property
    def is_assembled_plain(self) -> bool:
        """As SegmentWriter.is_assembled, compression aside."""
        return False

    def assembler(self, sink: BinaryIO, survey: Survey | None) -> Assembler | None:
        """The format's own assembler, through frames where the name asks for them."""
        kind = kind_of(self.path)
        if kind is None:
            return self.plain_assembler(sink, survey)
        frames = Frames(sink, kind)
        inner = self.plain_assembler(frames, survey)
        return _Compressing(inner or Concatenation(frames, header=self.header(), footer=self.footer()), frames)

    def plain_assembler(self, sink: Sink, survey: Survey | None) -> Assembler | None:
        """As SegmentWriter.assembler, compression aside."""
        return None
