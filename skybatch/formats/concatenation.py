"""The simplest of assemblers: header, payloads and footer, as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from skybatch.formats.base import Assembler, SegmentWriter


class Sink(Protocol):
    """Where an output is written to, from its beginning to its end."""

    def write(self, data: bytes, /) -> int: ...


class Concatenation(Assembler):
    """Header, payloads and footer as they are; `if_empty` is the output when the payloads have no bytes."""

    def __init__(self, sink: Sink, *, header: bytes = b"", footer: bytes = b"", if_empty: bytes = b"") -> None:
        self._sink, self._footer, self._if_empty = sink, footer, if_empty
        sink.write(header)

    def add(self, payload: bytes) -> None:
        """Append a batch."""
        self._sink.write(payload)
        if payload:
            self._if_empty = b""

    def finish(self) -> None:
        """Append the footer."""
        self._sink.write(self._if_empty + self._footer)


def assembler_of(writer: SegmentWriter, sink: BinaryIO, survey: Callable[[], Iterator[bytes]] | None) -> Assembler:
    """The writer's own assembler, or one that does what copying would."""
    own = writer.assembler(sink, survey)
    return own if own is not None else Concatenation(sink, header=writer.header(), footer=writer.footer())
