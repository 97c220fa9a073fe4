"""Arrays in files that the engine writes once and its workers map: they take memory where they are looked at only."""

from __future__ import annotations

import mmap


def load(path: str, magic: bytes, what: str) -> memoryview:
    """A file's bytes behind its magic. Raises ValueError where it does not begin with that, saying what it is not."""
    with open(path, "rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if mapped[: len(magic)] != magic:
        raise ValueError(f"{path} is not {what}")
    return mapped[len(magic) :]
