"""Into which parts an output is cut when a store puts it together: a pure function of its pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from skybatch.formats.stores.base import Piece

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part: a span the store copies by itself, or several that are gathered here and sent."""

    spans: tuple[Piece | bytes, ...]
    size: int  # bytes
    copied: bool


@dataclass(kw_only=True)
class PartPlan:
    """Takes pieces in order and gives parts in order; every part but the last has at least `least` bytes.

    Pieces that follow one another in the same object become one. One of at least `least` bytes is copied; of
    those that are smaller, and of heads that fill up what was begun, parts of `gather` bytes or a little more are made.
    """

    least: int = 5 * MIB
    gather: int = 8 * MIB
    most: int = 5 * 1024 * MIB
    _held: Piece | None = None  # may go on with the next piece
    _spans: list[Piece | bytes] = field(default_factory=list)
    _have: int = 0  # bytes in _spans

    def add(self, piece: Piece) -> Iterator[Part]:
        """Append a piece; the parts that are certain now."""
        if piece.length == 0:
            return
        if self._held is not None and (both := self._held.joined(piece)) is not None:
            self._held = both
            return
        yield from self._place_held()
        self._held = piece

    def add_bytes(self, data: bytes) -> Iterator[Part]:
        """Append bytes; the parts that are certain now."""
        yield from self._place_held()
        for start in range(0, len(data), self.gather):
            yield from self._gathered(data[start : start + self.gather])

    def rest(self) -> Iterator[Part]:
        """The parts that remain when nothing will be added any more."""
        yield from self._place_held()
        yield from self._close()

    def _place_held(self) -> Iterator[Part]:
        piece, self._held = self._held, None
        if piece is None:
            return
        head = max(0, self.least - self._have) if self._have else 0
        if piece.length - head < self.least:
            yield from self._gathered(piece)
            return
        if head:
            self._take(piece._replace(length=head))
        yield from self._close()
        yield from self._copied(piece._replace(offset=piece.offset + head, length=piece.length - head))

    def _copied(self, piece: Piece) -> Iterator[Part]:
        count = -(-piece.length // self.most)
        size = -(-piece.length // count)
        for start in range(0, piece.length, size):
            length = min(size, piece.length - start)
            span = piece._replace(offset=piece.offset + start, length=length)
            yield Part(spans=(span,), size=length, copied=True)

    def _gathered(self, span: Piece | bytes) -> Iterator[Part]:
        self._take(span)
        if self._have >= self.gather:
            yield from self._close()

    def _take(self, span: Piece | bytes) -> None:
        self._spans.append(span)
        self._have += span.length if isinstance(span, Piece) else len(span)

    def _close(self) -> Iterator[Part]:
        if self._spans:
            yield Part(spans=tuple(self._spans), size=self._have, copied=False)
        self._spans, self._have = [], 0
