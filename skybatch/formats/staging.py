"""Holding back what a reduce writes to its own output path, so that it can be published atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from skybatch.formats import storage


@dataclass
class Held:
    """One output path whose writes go to `staged` for now."""

    path: str
    staged: str
    written: bool = False
    elsewhere: bool = False  # something was written to another path


_held: Held | None = None


@contextmanager
def held_back(path: str, staged: str) -> Iterator[Held]:
    """While entered, writes through `skybatch.utils` to `path` go to `staged` instead."""
    global _held
    _held = Held(_normal(path), staged)
    try:
        yield _held
    finally:
        _held = None


def target(path: str) -> str:
    """Where a write to `path` goes now."""
    if _held is None:
        return path
    if _normal(path) == _held.path:
        _held.written = True
        return _held.staged
    _held.elsewhere = True
    return path


def _normal(path: str) -> str:
    return storage.local_path(path) if storage.is_local(path) else path
