"""After a condition that did not hold: was it our own earlier try, or somebody else?"""

from __future__ import annotations

from skybatch.errors import SegmentDamaged
from skybatch.formats.masking import masked
from skybatch.formats.stores.base import ANYTHING, ObjectInfo, Store
from skybatch.formats.stores.retrying import Kind, Refusal


def own(store: Store, path: str, owner: str | None) -> ObjectInfo | None:
    """What stands at `path` if it bears `owner`'s token."""
    try:
        found = store.info(path)
    except FileNotFoundError:
        return None
    return found if owner is not None and found.owner == owner else None


def looked_first(store: Store, path: str, replaces: str | None, owner: str | None) -> ObjectInfo | None:
    """What stands at `path` if it is `owner`'s; None if the condition holds, for now. Raises FileExistsError."""
    if replaces == ANYTHING:
        return None
    try:
        found = store.info(path)
    except FileNotFoundError:
        if replaces is None:
            return None
        raise _gone(path) from None
    if owner is not None and found.owner == owner:
        return found
    if found.version != replaces:
        raise _taken(path)
    return None


def settled(store: Store, path: str, owner: str | None, refusal: Refusal) -> ObjectInfo:
    """What stands at `path` if it is `owner`'s. Raises FileExistsError for something else; `refusal` for nothing."""
    if refusal.kind not in (Kind.PRECONDITION, Kind.MISSING):
        raise refusal
    try:
        found = store.info(path)
    except FileNotFoundError:
        if refusal.kind is Kind.PRECONDITION or refusal.code == "NoSuchKey":
            raise _gone(path) from None
        raise refusal from None
    if owner is not None and found.owner == owner:
        return found
    raise _taken(path)


def altered(path: str) -> SegmentDamaged:
    """The error of an object that is another one than it was."""
    return SegmentDamaged(f"{masked(path)}: not what it was when it was stored")


def no_such(path: str, refusal: Refusal) -> Exception:
    """FileNotFoundError where a refusal means that; else the refusal itself."""
    if refusal.kind is not Kind.MISSING:
        return refusal
    what = "no such bucket" if refusal.code == "NoSuchBucket" else "no such object"
    return FileNotFoundError(f"{masked(path)}: {what}")


def _taken(path: str) -> FileExistsError:
    return FileExistsError(f"{masked(path)}: something else stands there; it was left as it is")


def _gone(path: str) -> FileExistsError:
    return FileExistsError(f"{masked(path)}: what was to be replaced is not there any more")
