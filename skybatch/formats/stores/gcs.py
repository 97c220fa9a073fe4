"""Google Cloud Storage, over gcsfs: the plain calls of its JSON API, through that session and those credentials."""

from __future__ import annotations

import datetime
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from skybatch.errors import UsageError
from skybatch.formats.stores import retrying
from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Store
from skybatch.formats.stores.buckets import OWNER_KEY, slices, split
from skybatch.formats.stores.parts import MIB
from skybatch.formats.stores.retrying import Kind, Refusal
from skybatch.formats.stores.settling import altered, looked_first, no_such, settled

LARGEST_PUT = 64 * MIB  # larger files go up in chunks
CHUNK_SIZE = 16 * MIB  # of those; a multiple of 256 KiB
CALLS_AT_ONCE = 16
DELETES_WAITING = 1000  # paths held, of those that are to be deleted
RESUME_INCOMPLETE = 308  # the status of a chunk that is not the last


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class GCSStore(Store):
    """Buckets of one endpoint. One instance per process; all settings are the environment's and fsspec's own."""

    conditional = True

    def __init__(self) -> None:
        # Else every bucket is asked for its layout, which other servers than Google's answer after 99 s.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            import gcsfs
        except ImportError:
            raise UsageError("paths that begin with gs:// need gcsfs: pip install 'skybatch[gcs]'") from None
        import aiohttp

        self._fs: Any = gcsfs.GCSFileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            requests_timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=retrying.CONNECT_TIMEOUT_S, sock_read=retrying.timeout_s()
            ),
        )
        # gcsfs tries six times by itself, and logs each; what it wraps is the plain request.
        self._request: Any = getattr(type(self._fs)._request, "__wrapped__", type(self._fs)._request)
        self.pool = ThreadPoolExecutor(CALLS_AT_ONCE, "skybatch-gcs")

    def call(self, what: str, method: str, path: str, *names: str, size: int = 0, **arguments: Any) -> Answer:
        """The answer to one call of the API, with patience; `names` fill the `{}` of `path`, quoted.

        `size` is how many bytes go either way. Raises as `retrying.call`.
        """
        return retrying.call(what, lambda: self.attempt(method, path, *names, size=size, **arguments))

    def change(
        self, operation: str, what: str, method: str, path: str, *names: str, size: int = 0, **arguments: Any
    ) -> Answer:
        """As `call`, for what changes something; `operation` as for `retrying.change`."""
        return retrying.change(what, operation, lambda: self.attempt(method, path, *names, size=size, **arguments))

    def attempt(
        self, method: str, path: str, *names: str, size: int = 0, data: bytes | None = None, **arguments: Any
    ) -> Answer:
        """One try of `call`."""
        from fsspec.asyn import sync

        limit = 10 * retrying.timeout_s() + size / retrying.SLOWEST_BYTES_PER_S
        if data is not None:
            arguments["data"] = io.BytesIO(data)  # large bytes as such would block the loop
        status, headers, _, content = sync(
            self._fs.loop, self._request, self._fs, method, path, *names, timeout=limit, **arguments
        )
        return Answer(status, headers, content)

    def info(self, path: str) -> ObjectInfo:
        try:
            answer = self.call(path, "GET", "b/{}/o/{}", *split(path))
        except Refusal as refusal:
            raise no_such(path, refusal) from None
        return told(path, json.loads(answer.content))

    def read(self, path: str, start: int = 0, end: int | None = None, *, version: str | None = None) -> bytes:
        if end is not None and end <= start:
            return b""
        arguments: dict[str, Any] = {"alt": "media"}
        if version is not None:
            arguments["ifGenerationMatch"] = version
        # Objects marked as gzip are sent as they are stored, so that ranges are ranges of that.
        headers = {"Accept-Encoding": "gzip"}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        size = 0 if end is None else end - start
        try:
            answer = self.call(path, "GET", "b/{}/o/{}", *split(path), size=size, headers=headers, **arguments)
        except Refusal as refusal:
            if refusal.status == 416:  # begins at the end of the object or beyond
                return b""
            if refusal.kind is Kind.PRECONDITION:
                raise altered(path) from None
            raise no_such(path, refusal) from None
        if version is not None and answer.headers.get("X-Goog-Generation", version) != version:
            raise altered(path)
        return answer.content

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        bucket, prefix = split(folder.rstrip("/") + "/")
        token: str | None = None
        while True:
            answer = self.call(folder, "GET", "b/{}/o", bucket, prefix=prefix or None, pageToken=token, maxResults=1000)
            page = json.loads(answer.content)
            for entry in page.get("items", ()):
                if not entry["name"].endswith("/"):  # what consoles put there for an empty folder
                    info = told(f"{_scheme(folder)}://{bucket}/{entry['name']}", entry)
                    yield ObjectInfo(path=info.path, size=info.size, version=info.version, modified=info.modified)
            token = page.get("nextPageToken")
            if not token:
                return

    def put(
        self, path: str, data: bytes | Path, *, replaces: str | None = ANYTHING, owner: str | None = None
    ) -> ObjectInfo:
        try:
            if isinstance(data, Path):
                if data.stat().st_size > LARGEST_PUT:
                    if (ours := looked_first(self, path, replaces, owner)) is not None:
                        return ours  # before all of it is sent for nothing
                    return told(path, self._put_in_chunks(path, data, replaces, owner))
                data = data.read_bytes()
            return told(path, self._put_at_once(path, data, replaces, owner))
        except Refusal as refusal:
            return settled(self, path, owner, refusal)

    def delete(self, paths: Iterable[str]) -> None:
        for some in slices(paths, DELETES_WAITING):
            for _ in self.pool.map(self._delete, some):
                pass

    def composer(self, path: str, *, scratch: str, owner: str, handle: str | None = None) -> Composer:
        from skybatch.formats.stores.gcs_composer import GCSComposer

        return GCSComposer(self, path, scratch=scratch, owner=owner, handle=handle)

    def _delete(self, path: str) -> None:
        try:
            self.change("delete", path, "DELETE", "b/{}/o/{}", *split(path))
        except Refusal as refusal:
            if refusal.kind is not Kind.MISSING:
                raise

    def _put_at_once(self, path: str, data: bytes, replaces: str | None, owner: str | None) -> dict[str, Any]:
        bucket, key = split(path)
        head = json.dumps({"name": key, **metadata(owner)})
        boundary = secrets.token_hex(24)  # no data can contain it on purpose
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{head}\r\n".encode(),
                f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
                data,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        answer = self.change(
            "put",
            path,
            "POST",
            f"{self._fs._location}/upload/storage/v1/b/{{}}/o",
            bucket,
            size=len(body),
            data=body,
            headers={"Content-Type": f'multipart/related; boundary="{boundary}"'},
            uploadType="multipart",
            **condition(replaces),
        )
        return dict(json.loads(answer.content))

    def _put_in_chunks(self, path: str, file: Path, replaces: str | None, owner: str | None) -> dict[str, Any]:
        bucket, key = split(path)
        answer = self.change(
            "begin_upload",
            path,
            "POST",
            f"{self._fs._location}/upload/storage/v1/b/{{}}/o",
            bucket,
            json={"name": key, **metadata(owner)},
            headers={"X-Upload-Content-Type": "application/octet-stream"},
            uploadType="resumable",
            name=key,
            **condition(replaces),
        )
        return _Resumable(self, path, answer.headers["Location"], file).send()


class _Resumable:
    """A resumable upload of one local file, chunk by chunk; a try that failed asks how far the store has come."""

    def __init__(self, store: GCSStore, path: str, session: str, file: Path) -> None:
        self._store, self._path, self._session, self._file = store, path, session, file
        self._size = file.stat().st_size
        self._sent = 0
        self._unsure = False  # whether the last try may have arrived

    def send(self) -> dict[str, Any]:
        """All of it; the object that was made."""
        while True:
            made = retrying.change(self._path, "send_part", self._attempt)
            if made is not None:
                return made

    def _attempt(self) -> dict[str, Any] | None:
        if self._unsure and (made := self._chunk(b"", f"bytes */{self._size}")) is not None:
            return made
        with self._file.open("rb") as file:
            file.seek(self._sent)
            data = file.read(CHUNK_SIZE)
        return self._chunk(data, f"bytes {self._sent}-{self._sent + len(data) - 1}/{self._size}")

    def _chunk(self, data: bytes, content_range: str) -> dict[str, Any] | None:
        self._unsure = True
        answer = self._store.attempt(
            "PUT", self._session, size=len(data), data=data, headers={"Content-Range": content_range}
        )
        self._unsure = False
        if answer.status != RESUME_INCOMPLETE:
            return dict(json.loads(answer.content))
        come = answer.headers.get("Range", "")
        self._sent = int(come.rpartition("-")[2]) + 1 if come else 0
        return None


def told(path: str, resource: dict[str, Any]) -> ObjectInfo:
    """What the API tells of an object."""
    updated = resource.get("updated")
    return ObjectInfo(
        path=path,
        size=int(resource.get("size", 0)),
        version=str(resource["generation"]),
        modified=datetime.datetime.fromisoformat(updated).timestamp() if updated else None,
        owner=(resource.get("metadata") or {}).get(OWNER_KEY),
    )


def metadata(owner: str | None) -> dict[str, Any]:
    """The part of an object's resource that bears the owner token."""
    return {"metadata": {OWNER_KEY: owner}} if owner is not None else {}


def condition(replaces: str | None) -> dict[str, Any]:
    """The condition of a put or a compose."""
    if replaces == ANYTHING:
        return {}
    return {"ifGenerationMatch": "0" if replaces is None else replaces}


def _scheme(path: str) -> str:
    return path.partition("://")[0]
