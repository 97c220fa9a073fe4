"""What user code calls inside a worker: `load`, `save_results`, `context`."""

from __future__ import annotations

import contextvars
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skybatch.worker.session import Batch, Session

_batch: contextvars.ContextVar[Batch] = contextvars.ContextVar("skybatch_batch")
_entry: Entry | None = None
_session: Session | None = None
_loading = False


@dataclass(frozen=True)
class Context:
    """The range being mapped."""

    job_id: str
    start: int  # index of the first item
    end: int  # index of the last item, included
    attempt: int  # 1 for the first try
    seed: int  # the same for this range on every attempt and in every job; 32 bits


class Entry:
    """The state between `load()` and `save_results()` of a remote function."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.taken = 0
        self._batch: Batch | None = None
        self._saved = True

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return self

    def __next__(self) -> list[dict[str, Any]]:
        self._require_saved()
        self._put_down()
        batch = self.session.take()
        if batch is None:
            raise StopIteration
        self.taken += 1
        self._batch, self._saved = batch, False
        return batch.items

    async def __anext__(self) -> list[dict[str, Any]]:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def __aiter__(self) -> Entry:
        return self

    def save(self, results: list[dict[str, Any]]) -> None:
        """Hand over the results of the batch last loaded."""
        if self._batch is None:
            raise RuntimeError("save_results() was called before a batch was taken from load()")
        if self._saved:
            raise RuntimeError(f"save_results() was called twice for items {self._batch.start}-{self._batch.end}")
        self.session.check(self._batch, results)
        payload = self.session.encode(self._batch, results)
        self._saved = True
        self.session.pass_on(self._batch, results, payload)

    def abandon(self, error: BaseException | None) -> None:
        """The function has returned or raised: what it still had in hand has failed."""
        if not self._saved:
            assert self._batch is not None
            self.session.fail(self._batch, error or self._unsaved())
        elif error is not None and self._batch is not None:
            self.session.tell(error)
        self._batch, self._saved = None, True

    def _require_saved(self) -> None:
        if not self._saved:
            raise self._unsaved()

    def _unsaved(self) -> RuntimeError:
        assert self._batch is not None
        return RuntimeError(f"save_results() was never called for items {self._batch.start}-{self._batch.end}")

    def _put_down(self) -> None:
        self._batch = None


@contextmanager
def entered(entry: Entry) -> Iterator[None]:
    """Make `entry` the one that `load` and `save_results` speak of."""
    global _entry
    _entry = entry
    try:
        yield
    finally:
        _entry = None


def set_session(session: Session | None) -> None:
    """Say whose batches this process maps."""
    global _session
    _session = session


def in_worker() -> bool:
    """Whether this process is mapping for a job, or loading a job's code."""
    return _loading or _session is not None


@contextmanager
def loading_code() -> Iterator[None]:
    """While a job's stored code is run for its definitions."""
    global _loading
    _loading = True
    try:
        yield
    finally:
        _loading = False


def set_batch(batch: Batch) -> None:
    """Say which batch this task maps."""
    _batch.set(batch)


def load() -> Entry:
    """Batches, one list of dicts after the other, until none is left. Only inside a remote function."""
    return _require_entry("load")


def save_results(results: list[dict[str, Any]]) -> None:
    """Hand over the results of the batch last taken from `load()`: one dict per item, once per batch.

    Raises ValueError for another number of results than items, TypeError for anything but a list of dicts,
    RuntimeError when called twice, ResultError for a value that no output can write.
    """
    _require_entry("save_results").save(results)


def context() -> Context:
    """Which range is being mapped. Raises RuntimeError outside a mapper."""
    batch = _batch.get(None) or (_session.current if _session else None)
    if batch is None or _session is None:
        raise RuntimeError("skybatch.context() works inside a mapper only")
    seed = zlib.crc32(f"{batch.start}-{batch.end}".encode())
    return Context(job_id=_session.job_id, start=batch.start, end=batch.end, attempt=batch.attempt, seed=seed)


def _require_entry(name: str) -> Entry:
    if _entry is None:
        raise RuntimeError(f"skybatch.{name}() works only inside a @skybatch.remote_function that a job runs")
    return _entry
