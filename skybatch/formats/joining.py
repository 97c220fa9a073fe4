"""Joining whole files, wherever they are, into one: what writers of batch files do in their reduce."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from skybatch import disk
from skybatch.formats import storage, stores
from skybatch.formats.merge import Merger
from skybatch.formats.stores.base import Piece

_READ_SIZE, _HEAD_SIZE = 8 << 20, 1 << 20
_READS_AHEAD = 16


def concatenate(paths: Sequence[str], target: str) -> None:
    """Join whole files, wherever they are, into one, published when complete; some megabytes are in memory."""
    local = storage.is_local(target)
    final = storage.local_path(target) if local else _temporary()
    merger = Merger(f"{final}.{os.getpid()}.part", b"")
    try:
        for path, head in _begun(paths):
            _add_file(merger, path, head)
        merger.finish(b"")
        if local:
            disk.rename("joined", merger.path, final)
            storage.sync_folder(os.path.dirname(final))
        else:
            stores.of(target).put(target, Path(merger.path))
    finally:
        merger.close()
        storage.unlink_if_there(merger.path)


def _begun(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Each path with what its object begins with; many small ones are on their way at a time."""
    if all(map(storage.is_local, paths)):
        yield from ((path, b"") for path in paths)
        return
    with ThreadPoolExecutor(_READS_AHEAD, "skybatch_read") as pool:
        ahead: deque[Future[bytes]] = deque()
        following = iter(paths)
        for path in paths:
            ahead.extend(pool.submit(_head, name) for name in islice(following, _READS_AHEAD - len(ahead)))
            yield path, ahead.popleft().result()


def _head(path: str) -> bytes:
    return b"" if storage.is_local(path) else stores.of(path).read(path, 0, _HEAD_SIZE)


def _add_file(merger: Merger, path: str, head: bytes) -> None:
    if storage.is_local(path):
        plain = storage.local_path(path)
        merger.add(Piece(plain, 0, os.stat(plain).st_size))
        return
    merger.append(head)
    done, asked = len(head), _HEAD_SIZE
    while len(head) == asked:
        asked = _READ_SIZE
        head = stores.of(path).read(path, done, done + asked)
        merger.append(head)
        done += len(head)


def _temporary() -> str:
    return f"{tempfile.gettempdir()}/skybatch-{secrets.token_hex(8)}"
