"""Length-prefixed frames: what engine, worker parent and worker say to each other.

A frame is a 4-byte little-endian length and that many bytes: UTF-8 JSON, or, where bytes go with it, a zero byte, the
length of the JSON as 4 bytes, the JSON, and those bytes, which are the frame's `blob`. Standard library only: this file
also runs where nothing is installed.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, List, Optional

HEADER = struct.Struct("<I")
MAX_FRAME = 64 << 20
MAX_BLOB_FRAME = 1 << 30
WITH_BLOB = 0

Frame = Dict[str, Any]


class FrameError(Exception):
    """The byte stream is not frames: something else wrote into it."""


def encode(frame: Frame, blob: Optional[bytes] = None) -> bytes:
    """The frame as bytes. Raises FrameError for one that is too large."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    if blob is None:
        return HEADER.pack(len(body)) + body
    size = 1 + HEADER.size + len(body) + len(blob)
    if size > MAX_BLOB_FRAME:
        raise FrameError("%d bytes are too many to send at once; at most %d are" % (size, MAX_BLOB_FRAME))
    return b"".join((HEADER.pack(size), bytes([WITH_BLOB]), HEADER.pack(len(body)), body, blob))


def whole(buffer: bytearray, start: int) -> Optional[int]:
    """Where the frame that begins at `start` ends; None when it is not whole yet. Raises FrameError for no frame."""
    begin = start + HEADER.size
    if len(buffer) <= begin:
        return None
    (length,) = HEADER.unpack_from(buffer, start)
    kind = buffer[begin]
    if length > (MAX_BLOB_FRAME if kind == WITH_BLOB else MAX_FRAME) or kind not in (WITH_BLOB, ord("{")):
        raise FrameError("a frame of %d bytes is announced that begins with byte %d" % (length, kind))
    return begin + length if len(buffer) >= begin + length else None


class Decoder:
    """Collects bytes as they arrive and gives back whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Frame]:
        """Add `data`; return the frames completed by it. Raises FrameError for bytes that are no frames."""
        self._buffer += data
        frames: List[Frame] = []
        at = 0
        while True:
            end = whole(self._buffer, at)
            if end is None:
                break
            frames.append(_decoded(self._buffer, at + HEADER.size, end))
            at = end
        if at:
            del self._buffer[:at]
        return frames


def _decoded(buffer: bytearray, begin: int, end: int) -> Frame:
    with memoryview(buffer) as view:
        if buffer[begin] != WITH_BLOB:
            frame: Frame = json.loads(bytes(view[begin:end]))
            return frame
        (length,) = HEADER.unpack_from(view, begin + 1)
        middle = begin + 1 + HEADER.size + length
        frame = json.loads(bytes(view[begin + 1 + HEADER.size : middle]))
        frame["blob"] = bytes(view[middle:end])
        return frame


def split(data: bytes, lengths: List[int]) -> List[bytes]:
    """A blob's parts, of these lengths in bytes. Raises FrameError when they do not make up the blob."""
    parts, at = [], 0
    for length in lengths:
        parts.append(data[at : at + length])
        at += length
    if at != len(data):
        raise FrameError("%d bytes came where %d were announced" % (len(data), at))
    return parts


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

