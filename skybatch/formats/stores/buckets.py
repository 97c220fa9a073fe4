"""What stores of buckets have in common: paths, the mark of an object's owner, and many paths in slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

OWNER_KEY = "skybatch-owner"
"""Under which an object's metadata names who put it."""

WITH_BUCKETS = ("s3://", "gs://", "gcs://")


def split(path: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key


def is_bucket(path: str) -> bool:
    """Whether a path names a whole bucket, and nothing in it."""
    return path.startswith(WITH_BUCKETS) and not split(path)[1].strip("/")


def slices(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    """All paths, `size` at most at a time; no more than that are held."""
    rest = iter(paths)
    while some := list(islice(rest, size)):
        yield some
