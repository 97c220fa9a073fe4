"""Whether a job may write where its outputs are to be: looked at before there is a job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from skybatch.engine.placing import is_folder, standing
from skybatch.errors import OutputExists, UsageError
from skybatch.formats import batchfiles, storage, stores
from skybatch.formats.base import OutputWriter, SegmentWriter
from skybatch.formats.masking import masked
from skybatch.formats.stores.buckets import is_bucket
from skybatch.formats.stores.retrying import Kind, Refusal
from skybatch.formats.tokens import token_of

_REMEDY = "move it away, or allow it to be replaced: overwrite=True (skybatch run --overwrite)"


def check_stores(writers: Sequence[OutputWriter], *, inline: bool) -> None:
    """Raise UsageError for an output in a store where this job cannot put it, or that cannot be used at all.

    And for a single file whose path is a folder's or a bucket's.
    """
    for writer in writers:
        _check_name(writer)
        if storage.is_local(writer.path):
            continue
        stores.of(writer.path)
        if writer.path.startswith("memory://") and not inline:
            raise UsageError(f"output {writer.path}: memory is not shared with workers; use executor='inline'")


def check_places(writers: Sequence[OutputWriter], *, overwrite: bool) -> None:
    """Raise OutputExists when something stands at an output's place and may not be replaced.

    UsageError for a bucket that does not exist.
    """
    for writer in writers:
        if not storage.is_local(writer.path):
            _check_bucket(writer)
            if not overwrite:
                _check_in_store(writer)
            continue
        path = storage.local_path(writer.path)
        plain = path.rstrip("/")
        if os.path.isdir(plain):
            if os.listdir(plain) and not overwrite:
                raise OutputExists(f"output {path}: a folder with files in it is there; {_REMEDY}")
        elif os.path.lexists(plain):
            if path.endswith("/"):
                raise OutputExists(f"output {path}: a file is there; move it away")
            if not overwrite:
                raise OutputExists(f"output {path} exists; {_REMEDY}")


def stands(writer: OutputWriter, replaced: dict[str, Any] | None) -> bool:
    """Whether an output is at its place: a file that is not the `replaced` one, or anything in a folder."""
    if not storage.is_local(writer.path):
        return standing(writer) not in (None, replaced) or any(stores.of(writer.path).list(writer.path))
    plain = storage.local_path(writer.path).rstrip("/")
    if os.path.isdir(plain):
        return bool(os.listdir(plain))
    return os.path.lexists(plain) and token_of(plain) != replaced


def _check_name(writer: OutputWriter) -> None:
    path, kind = masked(writer.path), type(writer).__name__
    if not isinstance(writer, SegmentWriter) or is_folder(writer):
        return
    if is_bucket(writer.path):
        raise UsageError(f"output {path}: a bucket, and {kind} makes a single object; name one in it")
    if writer.path.endswith("/"):
        raise UsageError(f"output {path}: ends with a slash, and {kind} makes a single file; name one in that folder")


def _check_bucket(writer: OutputWriter) -> None:
    try:
        next(iter(stores.of(writer.path).list(batchfiles.folder(writer.path, "no-job"))), None)
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        raise UsageError(f"output {masked(writer.path)}: there is no such bucket") from None


def _check_in_store(writer: OutputWriter) -> None:
    store, path = stores.of(writer.path), masked(writer.path)
    if writer.path.endswith("/") or writer.commit_path() != writer.path:
        if next(iter(store.list(writer.path)), None) is not None:
            raise OutputExists(f"output {path}: a folder with objects in it is there; {_REMEDY}")
        return
    try:
        store.info(writer.path)
    except FileNotFoundError:
        return
    raise OutputExists(f"output {path} exists; {_REMEDY}")
