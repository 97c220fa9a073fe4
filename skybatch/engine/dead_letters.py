"""Items that failed for good, as JSON Lines: what the journal knows of them, and the items themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from skybatch.engine.folder import JobFolder
from skybatch.engine.interrupts import say
from skybatch.engine.retries import class_of
from skybatch.errors import SkybatchError
from skybatch.formats.base import InputReader, WindowReader
from skybatch.formats.masking import masked
from skybatch.journal.reading import Queries
from skybatch.journal.rows import FailureRow, Run

OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
NAME = "errors.jsonl"
"""In the job's folder, once a job has ended with such items."""


def export(path: Path, folder: JobFolder, journal: Queries, reader: InputReader) -> int:
    """Write them to a file that appears whole, an older one replaced; how many there are. One at a time is in memory.

    The reader is asked for each item once more; one that it cannot give is null, and `unread` says why.
    """
    count, part = 0, path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb", opener=_private) as file:
            for letter in _letters(folder, journal, reader):
                file.write(orjson.dumps(letter, default=repr, option=OPTIONS))
                count += 1
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


def keep(folder: JobFolder, journal: Queries, reader: InputReader) -> None:
    """Put them into the job's folder, for whoever looks there, if there are any; the journal has them in any case."""
    path = folder.path / NAME
    path.unlink(missing_ok=True)
    if journal.counts().dead_items:
        try:
            export(path, folder, journal, reader)
        except (SkybatchError, OSError) as error:
            say(f"{path} was not written: {masked(str(error))}")


def _letters(folder: JobFolder, journal: Queries, reader: InputReader) -> Iterator[dict[str, Any]]:
    opened = False
    for run, failure in journal.dead_failures():
        if not opened and isinstance(reader, WindowReader):
            reader.open_index(str(folder.index))
        opened = True
        for index in range(run.start, run.end + 1):
            yield {**_told(run, failure, index), **_item(folder, reader, index)}


def _told(run: Run, failure: FailureRow | None, index: int) -> dict[str, Any]:
    kind = failure.kind if failure else None
    return {
        "index": index,
        "class": class_of(kind) if kind else None,
        "kind": kind,
        "message": failure.message if failure else None,
        "traceback": failure.traceback if failure else None,
        "attempts": run.attempt,
        "code": run.code,
        "worker": failure.worker if failure else None,
        "at": failure.at if failure else None,
    }


def _item(folder: JobFolder, reader: InputReader, index: int) -> dict[str, Any]:
    try:
        if isinstance(reader, WindowReader):
            (item,) = reader.decode(reader.read_window(index, index), index, index, index)
        else:
            (item,) = reader.download_batch(index, index, str(folder.path / "cache"))
        orjson.dumps(item, default=repr, option=OPTIONS)
        return {"item": item}
    except Exception as error:  # it may be the very reason why it failed
        return {"item": None, "unread": masked(f"{type(error).__name__}: {error}")}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
