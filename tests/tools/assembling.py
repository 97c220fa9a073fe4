"""An output put together as the engine does it, without an engine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skybatch.formats.base import Assembler, Item, Restart, SegmentWriter


def payloads(writer: SegmentWriter, results: Sequence[Item], cuts: Sequence[int]) -> list[bytes]:
    """The results encoded in batches that end at `cuts`, and at the end."""
    edges = [0, *sorted(cuts), len(results)]
    return [writer.encode(list(results[a:b]), a) for a, b in itertools.pairwise(edges)]


def assembled(writer: SegmentWriter, parts: Sequence[bytes], file: Path) -> bytes:
    """What is published of these payloads; `file` is where it is built."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for survey in (None, lambda: iter(parts)):
        with file.open("wb") as sink:
            builder = writer.assembler(sink, survey)
            if builder is None:
                return b"".join([writer.header(), *parts, writer.footer()])
            if _fed(builder, parts):
                builder.finish()
                break
    return file.read_bytes()


def _fed(builder: Assembler, parts: Sequence[bytes]) -> bool:
    try:
        for part in parts:
            builder.add(part)
    except Restart:
        return False
    return True


def cut_everywhere(count: int) -> Any:
    """A strategy for places to cut `count` results at, empty batches included."""
    from hypothesis import strategies

    return strategies.lists(strategies.integers(0, count), max_size=5)
