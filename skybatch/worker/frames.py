"""Length-prefixed frames: what engine, worker parent and worker say to each other.

A frame is a 4-byte little-endian length and that many bytes: UTF-8 JSON, or, where bytes go with it, a zero byte, the
length of the JSON as 4 bytes, the JSON, and those bytes, which are the frame's `blob`: bytes, or a view of them where
they are many. Standard library only: this file also runs where nothing is installed.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, List, Optional, Sequence, Type, Union

HEADER = struct.Struct("<I")
MAX_FRAME = 64 << 20
MAX_BLOB_FRAME = 1 << 30
LARGE = 64 << 10
READ_SIZE = 256 << 10
WRITTEN_TOGETHER = 512
WITH_BLOB = 0

Frame = Dict[str, Any]
Bytes = Union[bytes, memoryview]


class FrameError(Exception):
    """The byte stream is not frames: something else wrote into it."""


def encode(frame: Frame, blob: Optional[bytes] = None) -> bytes:
    """The frame as bytes. Raises FrameError for one that is too large."""
    return b"".join(pieces(frame, None if blob is None else [blob]))


def pieces(frame: Frame, blob: Optional[Sequence[Bytes]] = None) -> List[Bytes]:
    """The frame as bytes, in pieces; its blob is the parts of `blob`. Raises FrameError for one that is too large."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    if blob is None:
        return [HEADER.pack(len(body)), body]
    size = 1 + HEADER.size + len(body) + sum(map(len, blob))
    if size > MAX_BLOB_FRAME:
        raise FrameError("%d bytes are too many to send at once; at most %d are" % (size, MAX_BLOB_FRAME))
    return [HEADER.pack(size) + bytes([WITH_BLOB]) + HEADER.pack(len(body)) + body, *blob]


def whole(buffer: bytearray, start: int, stop: int) -> Optional[int]:
    """Where the frame that begins at `start` ends; None: not whole by `stop`. Raises FrameError for no frame."""
    begin = start + HEADER.size
    if stop <= begin:
        return None
    (length,) = HEADER.unpack_from(buffer, start)
    kind = buffer[begin]
    if not 0 < length <= (MAX_BLOB_FRAME if kind == WITH_BLOB else MAX_FRAME) or kind not in (WITH_BLOB, ord("{")):
        raise FrameError("a frame of %d bytes is announced that begins with byte %d" % (length, kind))
    return begin + length if stop >= begin + length else None


class Decoder:
    """Collects bytes as they arrive and gives back whole frames.

    A large frame is collected, and by `read` read, in a place of its own, which its blob is a view of.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._large: Optional[bytearray] = None
        self._have = 0  # bytes of the large one
        self._scratch: Optional[bytearray] = None

    def read(self, fd: int) -> Optional[List[Frame]]:
        """Read what has come and return the frames completed by it; None at the end. Raises OSError, FrameError."""
        if self._large is not None:
            count = os.readv(fd, [memoryview(self._large)[self._have :]])
            self._have += count
            return self._whole_large() if count else None
        if self._scratch is None:
            self._scratch = bytearray(READ_SIZE)
        count = os.readv(fd, [self._scratch])
        return self.feed(memoryview(self._scratch)[:count]) if count else None

    def feed(self, data: Bytes) -> List[Frame]:
        """Add `data`; return the frames completed by it. Raises FrameError for bytes that are no frames."""
        frames: List[Frame] = []
        if self._large is not None:
            part = data[: len(self._large) - self._have]
            self._large[self._have : self._have + len(part)] = part
            self._have += len(part)
            frames, data = self._whole_large(), data[len(part) :]
        self._buffer += data
        at = 0
        while True:
            end = whole(self._buffer, at, len(self._buffer))
            if end is None:
                break
            frames.append(_decoded(self._buffer, at + HEADER.size, end, bytes))
            at = end
        if at:
            del self._buffer[:at]
        self._set_large_apart()
        return frames

    def _set_large_apart(self) -> None:
        """What has come of a large frame goes to the place where all of it will be."""
        if len(self._buffer) > HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if LARGE <= length <= MAX_FRAME:
                self._large, self._have = bytearray(HEADER.size + length), len(self._buffer)
                self._large[: self._have] = self._buffer
                self._buffer.clear()

    def _whole_large(self) -> List[Frame]:
        """The large frame, once it is whole."""
        large = self._large
        if large is None or self._have < len(large):
            return []
        self._large = None
        return [_decoded(large, HEADER.size, len(large), memoryview)]


def _decoded(buffer: bytearray, begin: int, end: int, blob: Type[Bytes]) -> Frame:
    """A frame, with its blob as a view or as bytes of their own. Raises FrameError for what is none."""
    view = memoryview(buffer)[begin:end]
    try:
        if view[0] != WITH_BLOB:
            return _object(view)
        (length,) = HEADER.unpack_from(view, 1)
        middle = 1 + HEADER.size + length
        frame = _object(view[1 + HEADER.size : middle])
        frame["blob"] = blob(view[middle:])
        return frame
    except (ValueError, struct.error, RecursionError) as error:
        raise FrameError("a frame that cannot be read: %s" % error) from None


def _object(text: memoryview) -> Frame:
    frame = json.loads(bytes(text))
    if not isinstance(frame, dict):
        raise ValueError("it is no object")
    return frame


def split(data: Bytes, lengths: List[int]) -> List[memoryview]:
    """Views of a blob's parts, of these lengths in bytes. Raises FrameError when they do not make up the blob."""
    view, parts, at = memoryview(data), [], 0
    for length in lengths:
        parts.append(view[at : at + length])
        at += length
    if at != len(data):
        raise FrameError("%d bytes came where %d were announced" % (len(data), at))
    return parts


def write_all(fd: int, data: Bytes) -> None:
    """Write all of `data` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_pieces(fd: int, pieces: Sequence[Bytes]) -> None:
    """Write all pieces, one after the other, to a blocking descriptor."""
    for at in range(0, len(pieces), WRITTEN_TOGETHER):
        some = pieces[at : at + WRITTEN_TOGETHER]
        written = os.writev(fd, some)
        if written < sum(map(len, some)):
            write_all(fd, memoryview(b"".join(some))[written:])
