"""Object stores: one `Store` per kind, found by the scheme of a path."""

from __future__ import annotations

import functools
import os

from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Piece, Store

__all__ = ["ANYTHING", "Composer", "ObjectInfo", "Piece", "Store", "forget", "of"]


def of(path: str) -> Store:
    """The store of a path that is not local: one instance per scheme and process.

    Raises UsageError naming the extra to install when what the scheme needs is not there.
    """
    return _store(path.partition("://")[0].lower(), os.getpid())


def forget() -> None:
    """Make stores anew at their next use, of the environment as it is then."""
    _store.cache_clear()


@functools.lru_cache
def _store(scheme: str, _process: int) -> Store:
    if scheme == "s3":
        from skybatch.formats.stores.s3 import S3Store

        return S3Store()
    if scheme in ("gs", "gcs"):
        from skybatch.formats.stores.gcs import GCSStore

        return GCSStore()
    from skybatch.formats.stores.general import GeneralStore

    return GeneralStore(scheme)
