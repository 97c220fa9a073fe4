"""Object stores: one `Store` per kind, found by the scheme of a path."""

from __future__ import annotations

from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Piece, Store

__all__ = ["ANYTHING", "Composer", "ObjectInfo", "Piece", "Store"]
