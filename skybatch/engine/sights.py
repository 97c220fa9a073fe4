"""Files by which a worker elsewhere can tell whether it sees what the engine sees."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterator
from typing import Any

from skybatch.formats import batchfiles, source, storage
from skybatch.formats.base import InputReader, OutputWriter

NAME = "sight"
Sight = tuple[str, int, int]
"""A path, and what `stat` says there: bytes, and nanoseconds of the last change."""


def sights(reader: InputReader, writers: list[OutputWriter], job_id: str) -> list[Sight]:
    """One for each local input and output; for an output, a file is made beside its batch files. Raises OSError."""
    formats: list[InputReader | OutputWriter] = [reader, *writers]
    found = {path for each in formats for path in _inputs(each)}
    found |= {_marked(writer, job_id) for writer in writers if storage.is_local(writer.path)}
    return [_sight(path) for path in sorted(found)]


def _inputs(format: InputReader | OutputWriter) -> Iterator[str]:
    """What its fields name of files that are there: for folders and globs, the first file in them."""
    for field in dataclasses.fields(format):
        if isinstance(format, OutputWriter) and field.name == "path":
            continue
        for value in _texts(getattr(format, field.name)):
            if not storage.is_local(value):
                continue
            try:
                yield next(source.walk(value)).path
            except Exception:  # whatever it is, it is no file of this machine
                continue


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list):
        yield from (each for each in value if isinstance(each, str) and each)


def _marked(writer: OutputWriter, job_id: str) -> str:
    folder = batchfiles.folder(writer.path, job_id)
    storage.make_folders(folder)
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        storage.write_bytes(path, secrets.token_bytes(secrets.randbelow(1000) + 1))
    return path


def _sight(path: str) -> Sight:
    found = os.stat(path)
    return path, found.st_size, found.st_mtime_ns
