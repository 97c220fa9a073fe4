"""Length-prefixed JSON frames: what engine, worker parent and worker say to each other.

A frame is a 4-byte little-endian length and that many bytes of UTF-8 JSON. Standard library only: this
file also runs where nothing is installed.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, List

HEADER = struct.Struct("<I")
MAX_FRAME = 64 << 20

Frame = Dict[str, Any]


class FrameError(Exception):
    """The byte stream is not frames: something else wrote into it."""


def encode(frame: Frame) -> bytes:
    """The frame as bytes."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    return HEADER.pack(len(body)) + body


class Decoder:
    """Collects bytes as they arrive and gives back whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Frame]:
        """Add `data`; return the frames completed by it. Raises FrameError on an impossible length."""
        self._buffer += data
        frames: List[Frame] = []
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise FrameError(f"frame of {length} bytes announced")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(json.loads(bytes(self._buffer[HEADER.size : end])))
            del self._buffer[:end]
        return frames


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
