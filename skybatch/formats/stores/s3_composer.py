"""An S3 object out of others: a multipart upload whose parts the server copies wherever they are large enough."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

from skybatch.errors import SegmentDamaged, StorageFailed
from skybatch.formats.masking import masked
from skybatch.formats.stores import retrying
from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Piece
from skybatch.formats.stores.parts import MIB, Part, PartPlan
from skybatch.formats.stores.retrying import Kind, Refusal
from skybatch.formats.stores.settling import altered, own

if TYPE_CHECKING:
    from skybatch.formats.stores.s3 import S3Store

DIRECT_PARTS = 5_000
"""So many parts go straight into the output's upload. Of those that follow, small ones are bundled first, so that
the 10,000 that S3 allows are enough for as much as an object may hold."""

BUNDLED_PARTS = 1_000  # at most, of one bundle
BUNDLE_SIZE = 4 * 1024 * MIB  # bytes at which one is closed; one copy may have 5 GiB
LARGE_PART = 256 * MIB  # not bundled
IN_FLIGHT = 8  # parts that were begun and are not awaited; bounds memory


class S3Composer(Composer):
    """See Composer. The handle is the upload's id; where that upload is gone, it is another one after `__init__`."""

    def __init__(self, store: S3Store, path: str, *, scratch: str, owner: str, handle: str | None) -> None:
        self._store, self._path, self._owner = store, path, owner
        self._scratch = scratch.rstrip("/")
        self.bytes_through_here = 0
        self._made = None if handle is None else own(store, path, owner)
        known = store.uploaded_parts(path, handle) if handle and not self._made else None
        if known is None and not self._made:
            handle = store.begin_upload(path, owner)
        self.handle = handle or ""
        self._given_up = threading.Event()
        self._upload = _Upload(store, path, self.handle, known=known or {}, given_up=self._given_up)
        self._plan = PartPlan()
        self._bundle: list[Part] = []
        self._last: Part | None = None  # held back: the only one may be too small for an upload
        self._small: bytes | None = None

    def add(self, piece: Piece) -> None:
        with self._ending_together():
            self._place(self._plan.add(piece))

    def add_bytes(self, data: bytes) -> None:
        with self._ending_together():
            self._place(self._plan.add_bytes(data))

    def prepare(self) -> None:
        if not self._made:
            with self._ending_together():
                self._prepare()

    def close(self) -> None:
        self._given_up.set()
        self._upload.end()

    @contextmanager
    def _ending_together(self) -> Iterator[None]:
        """What fails ends the uploads that run; a signal does not even wait for them."""
        try:
            yield
        except Exception:
            self.close()
            raise
        except BaseException:
            self._given_up.set()
            raise

    def _prepare(self) -> None:
        self._place(self._plan.rest())
        last, self._last = self._last, None
        if last is None or (last.size < self._plan.least and not self._upload.begun and not self._bundle):
            self._small = self._gather(last) if last else b""
            self.bytes_through_here += len(self._small)
            return
        self._pass_on(last)
        self._close_bundle()
        self._upload.wait()
        self._upload.check()

    def finish(self, *, replaces: str | None = ANYTHING) -> ObjectInfo:
        if self._made:
            return self._made
        if self._small is None:
            return self._upload.complete(replaces, self._owner)
        made = self._store.put(self._path, self._small, replaces=replaces, owner=self._owner)
        self._store.abort_quietly(self._path, self.handle)
        return made

    def _place(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if not self._made:
                if self._last is not None:
                    self._pass_on(self._last)
                self._last = part

    def _pass_on(self, part: Part) -> None:
        if self._upload.begun < DIRECT_PARTS or part.size >= LARGE_PART:
            self._close_bundle()
            self._send(self._upload, part)
            return
        self._bundle.append(part)
        if len(self._bundle) == BUNDLED_PARTS or sum(one.size for one in self._bundle) >= BUNDLE_SIZE:
            self._close_bundle()

    def _close_bundle(self) -> None:
        """Make one object of what is bundled, then one part of that."""
        bundle, self._bundle = self._bundle, []
        if not bundle:
            return
        size = sum(part.size for part in bundle)
        path = f"{self._scratch}/{self._owner}.{self._upload.begun + 1}"
        part = Part(spans=(Piece(path, 0, size),), size=size, copied=True)
        if len(bundle) == 1:
            part = bundle[0]
        elif not self._upload.has(size):
            begun = self._store.begin_upload(path, self._owner)
            upload = _Upload(self._store, path, begun, known={}, given_up=self._given_up)
            try:
                for one in bundle:
                    self._send(upload, one)
                upload.wait()
            except Exception:
                self._given_up.set()
                upload.end()
                raise
            upload.check()
            upload.complete(ANYTHING, self._owner)
        self._send(self._upload, part)

    def _send(self, upload: _Upload, part: Part) -> None:
        if upload.skip(part.size):
            return
        if part.copied:
            (piece,) = part.spans
            assert isinstance(piece, Piece)
            upload.copy(piece)
        else:
            self.bytes_through_here += part.size
            upload.send(part.size, lambda: self._gather(part))

    def _gather(self, part: Part) -> bytes:
        if len(part.spans) == 1:
            return self._read(part.spans[0])
        return b"".join(self._store.reads.map(self._read_in_pool, part.spans))

    def _read_in_pool(self, span: Piece | bytes) -> bytes:
        with retrying.unless(self._given_up):
            return self._read(span)

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


class _Upload:
    """One multipart upload: parts go up side by side, numbered in the order they were given."""

    def __init__(
        self,
        store: S3Store,
        path: str,
        upload: str,
        *,
        known: dict[int, tuple[int, str]],
        given_up: threading.Event,  # what still runs is not tried again
    ) -> None:
        self._store, self._path, self._id, self._known, self._given_up = store, path, upload, known, given_up
        self._sizes: list[int] = []
        self._etags: list[Future[str] | str] = []
        self._running: deque[Future[str]] = deque()

    @property
    def begun(self) -> int:
        """How many parts there are so far."""
        return len(self._sizes)

    def has(self, size: int) -> bool:
        """Whether an earlier try has sent the next part, and it was this large."""
        return self._known.get(self.begun + 1, (None, ""))[0] == size

    def skip(self, size: int) -> bool:
        """Count the next part as sent if the store has it."""
        if not self.has(size):
            return False
        self._etags.append(self._known[self.begun + 1][1])
        self._sizes.append(size)
        return True

    def send(self, size: int, data: Callable[[], bytes]) -> None:
        """Begin to send the next part."""
        number = self.begun + 1
        self._begin(size, lambda: self._store.upload_part(self._path, self._id, number, data()))

    def copy(self, piece: Piece) -> None:
        """Begin to have the next part copied."""
        number = self.begun + 1
        self._begin(piece.length, lambda: self._copy(piece, number))

    def wait(self) -> None:
        """Until all parts that were begun are there. Raises what one of them failed with."""
        while self._running:
            self._wait_for_one()

    def check(self) -> None:
        """Compare with what the store says it has: a source may have been shorter than its piece."""
        there = self._store.uploaded_parts(self._path, self._id)
        if there is None:
            raise StorageFailed(f"{masked(self._path)}: the upload was aborted by someone else; resume to begin anew")
        for number, size in enumerate(self._sizes, 1):
            if there.get(number, (0, ""))[0] != size:
                found = there.get(number, (0, ""))[0]
                raise SegmentDamaged(f"{masked(self._path)}, part {number}: {found} bytes instead of {size}")

    def complete(self, replaces: str | None, owner: str) -> ObjectInfo:
        """The atomic step."""
        etags = [etag if isinstance(etag, str) else etag.result() for etag in self._etags]
        size = sum(self._sizes)
        return self._store.complete(self._path, self._id, etags, size=size, replaces=replaces, owner=owner)

    def _begin(self, size: int, work: Callable[[], str]) -> None:
        while len(self._running) >= IN_FLIGHT:
            self._wait_for_one()
        future = self._store.uploads.submit(self._in_pool, work)
        self._running.append(future)
        self._etags.append(future)
        self._sizes.append(size)

    def _in_pool(self, work: Callable[[], str]) -> str:
        if self._given_up.is_set():
            raise CancelledError
        with retrying.unless(self._given_up):
            return work()

    def _wait_for_one(self) -> None:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            self._running.remove(future)
            future.result()

    def end(self) -> None:
        """Wait for what still runs, whatever becomes of it."""
        wait(self._running)

    def _copy(self, piece: Piece, number: int) -> str:
        try:
            return self._store.copy_part(self._path, self._id, number, piece)
        except Refusal as refusal:
            if refusal.kind is Kind.PRECONDITION:
                raise altered(piece.path) from None
            if refusal.kind is Kind.MISSING and refusal.code != "NoSuchUpload":
                raise SegmentDamaged(f"{masked(piece.path)}: missing") from None
            if refusal.status in (400, 416) and "Invalid" in refusal.code:
                raise SegmentDamaged(f"{masked(piece.path)}: ends before byte {piece.offset + piece.length}") from None
            raise
