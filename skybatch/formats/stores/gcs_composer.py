"""A GCS object out of others: whole objects composed by the server, 32 at a time, in a tree."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from skybatch.errors import SegmentDamaged
from skybatch.formats.masking import masked
from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Piece
from skybatch.formats.stores.buckets import split
from skybatch.formats.stores.parts import MIB
from skybatch.formats.stores.retrying import Kind, Refusal
from skybatch.formats.stores.settling import altered, looked_first, own, settled

if TYPE_CHECKING:
    from skybatch.formats.stores.gcs import GCSStore

COMPOSED_AT_ONCE = 32  # GCS's own limit
GATHERED = 8 * MIB  # bytes of an object made here out of what cannot be composed
LOOKED_UP_AT_ONCE = 64


class GCSComposer(Composer):
    """See Composer. The server copies whole objects only: parts of objects, and bytes, are gathered here.

    Intermediate objects lie in `scratch`, named by what they are made of, so that a later try finds them.
    """

    def __init__(self, store: GCSStore, path: str, *, scratch: str, owner: str, handle: str | None) -> None:
        self._store, self._path, self._owner = store, path, owner
        self._scratch = scratch.rstrip("/")
        self.handle = handle or owner
        self.bytes_through_here = 0
        self._made = None if handle is None else own(store, path, owner)
        self._may_have = handle is not None  # intermediate objects of an earlier try
        self._waiting: list[Piece | bytes] = []
        self._spans: list[Piece | bytes] = []  # to be gathered, with `_have` bytes
        self._have = 0
        self._levels: list[list[ObjectInfo]] = [[]]  # what is composed so far; the highest level comes first in order

    def add(self, piece: Piece) -> None:
        if self._made or not piece.length:
            return
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, Piece) and (both := last.joined(piece)) is not None:
            self._waiting[-1] = both
            return
        if len(self._waiting) >= LOOKED_UP_AT_ONCE:
            self._place_waiting()
        self._waiting.append(piece)

    def add_bytes(self, data: bytes) -> None:
        if not self._made and data:
            self._waiting.append(data)
            if sum(len(one) for one in self._waiting if isinstance(one, bytes)) >= GATHERED:
                self._place_waiting()

    def prepare(self) -> None:
        if self._made:
            return
        self._place_waiting()
        self._close()
        left = [info for level in reversed(self._levels) for info in level]
        while len(left) > COMPOSED_AT_ONCE:
            groups = [left[start : start + COMPOSED_AT_ONCE] for start in range(0, len(left), COMPOSED_AT_ONCE)]
            left = [self._intermediate(group) if len(group) > 1 else group[0] for group in groups]
        self._levels = [left]

    def finish(self, *, replaces: str | None = ANYTHING) -> ObjectInfo:
        if self._made:
            return self._made
        (sources,) = self._levels
        if not sources:
            return self._store.put(self._path, b"", replaces=replaces, owner=self._owner)
        # Looked at first as well: emulators compose without looking at the condition.
        ours = looked_first(self._store, self._path, replaces, self._owner)
        return ours or self._compose(self._path, sources, replaces)

    def _place_waiting(self) -> None:
        """Decide for each piece whether the server can copy it: whether it is all of an object."""
        waiting, self._waiting = self._waiting, []
        infos = list(self._store.pool.map(self._look_up, waiting))
        for span, info in zip(waiting, infos, strict=True):
            if info is not None and isinstance(span, Piece) and span.length == info.size:
                self._close()
                self._append(info)
            else:
                for cut in _cuts(span):
                    self._spans.append(cut)
                    self._have += _length(cut)
                    if self._have >= GATHERED:
                        self._close()

    def _look_up(self, span: Piece | bytes) -> ObjectInfo | None:
        if isinstance(span, bytes) or span.offset:
            return None
        try:
            info = self._store.info(span.path)
        except FileNotFoundError:
            raise SegmentDamaged(f"{masked(span.path)}: missing") from None
        if span.version not in (None, info.version):
            raise altered(span.path)
        if info.size < span.length:
            raise SegmentDamaged(f"{masked(span.path)}: ends before byte {span.length}")
        return info

    def _close(self) -> None:
        """Make an object of what was gathered."""
        spans, size = self._spans, self._have
        self._spans, self._have = [], 0
        if not spans:
            return
        path = self._name("gathered", [_told(span) for span in spans])
        info = self._there(path, size)
        if info is None:
            data = b"".join(self._store.pool.map(self._read, spans))
            info = self._store.put(path, data, owner=self._owner)
            self.bytes_through_here += size
        self._append(info)

    def _read(self, span: Piece | bytes) -> bytes:
        if isinstance(span, bytes):
            return span
        try:
            data = self._store.read(span.path, span.offset, span.offset + span.length, version=span.version)
        except FileNotFoundError:
            raise SegmentDamaged(f"{masked(span.path)}: missing") from None
        if len(data) != span.length:
            raise SegmentDamaged(f"{masked(span.path)}: ends before byte {span.offset + span.length}")
        return data

    def _append(self, info: ObjectInfo, level: int = 0) -> None:
        if level == len(self._levels):
            self._levels.append([])
        full = self._levels[level]
        full.append(info)
        if len(full) == COMPOSED_AT_ONCE:
            self._levels[level] = []
            self._append(self._intermediate(full), level + 1)

    def _intermediate(self, sources: list[ObjectInfo]) -> ObjectInfo:
        path = self._name("composed", [[info.path, info.version] for info in sources])
        return self._there(path, sum(info.size for info in sources)) or self._compose(path, sources, ANYTHING)

    def _there(self, path: str, size: int) -> ObjectInfo | None:
        if not self._may_have:
            return None
        found = own(self._store, path, self._owner)
        return found if found is not None and found.size == size else None

    def _name(self, kind: str, made_of: list[list[object]]) -> str:
        """The intermediate's path: made anew only if what it is made of is another."""
        words = json.dumps([kind, self._path, made_of]).encode()
        return f"{self._scratch}/{hashlib.sha256(words).hexdigest()[:40]}"

    def _compose(self, path: str, sources: list[ObjectInfo], replaces: str | None) -> ObjectInfo:
        from skybatch.formats.stores.gcs import condition, metadata, told

        bucket, key = split(path)
        listed = [
            {"name": split(info.path)[1], "objectPreconditions": {"ifGenerationMatch": info.version}}
            for info in sources
        ]
        resource = {"name": key, "contentType": "application/octet-stream", **metadata(self._owner)}
        try:
            answer = self._store.change(
                "compose",
                path,
                "POST",
                "b/{}/o/{}/compose",
                bucket,
                key,
                json={"kind": "storage#composeRequest", "sourceObjects": listed, "destination": resource},
                **condition(replaces),
            )
        except Refusal as refusal:
            if refusal.kind in (Kind.PRECONDITION, Kind.MISSING):
                if (ours := own(self._store, path, self._owner)) is not None:
                    return ours
                self._check(sources)
            return settled(self._store, path, self._owner, refusal)
        made = told(path, json.loads(answer.content))
        size = sum(info.size for info in sources)
        if made.size != size:
            raise SegmentDamaged(f"{masked(path)}: {made.size} bytes were composed instead of {size}")
        return made

    def _check(self, sources: list[ObjectInfo]) -> None:
        """Raise SegmentDamaged if one of them is not what it was."""
        for info in self._store.pool.map(self._look_up, [Piece(i.path, 0, i.size, i.version) for i in sources]):
            assert info is not None


def _cuts(span: Piece | bytes) -> list[Piece | bytes]:
    """A span in spans small enough to be held."""
    starts = range(0, _length(span), GATHERED)
    if isinstance(span, bytes):
        return [span[start : start + GATHERED] for start in starts]
    return [span._replace(offset=span.offset + start, length=min(GATHERED, span.length - start)) for start in starts]


def _length(span: Piece | bytes) -> int:
    return len(span) if isinstance(span, bytes) else span.length


def _told(span: Piece | bytes) -> list[object]:
    return ["bytes", hashlib.sha256(span).hexdigest()] if isinstance(span, bytes) else list(span)
