"""S3 and what speaks its protocol, over s3fs: the plain calls of the API, through its session and settings."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from skybatch.errors import StorageFailed, UsageError
from skybatch.formats.stores import retrying
from skybatch.formats.stores.base import ANYTHING, Composer, ObjectInfo, Piece, Store
from skybatch.formats.stores.buckets import OWNER_KEY, slices, split
from skybatch.formats.stores.parts import MIB
from skybatch.formats.stores.retrying import Kind, Refusal
from skybatch.formats.stores.settling import altered, looked_first, no_such, settled

LARGEST_PUT = 64 * MIB  # larger files go up in parts
PART_SIZE = 16 * MIB  # of those
MAX_PARTS = 10_000  # S3's own limit
DELETES_AT_ONCE = 1000  # S3's own limit
UPLOADS_AT_ONCE = 4
READS_AT_ONCE = 16
CONDITIONS_SINCE = (1, 36)  # botocore's version
CHANGES = {
    "put_object": "put",
    "create_multipart_upload": "begin_upload",
    "upload_part": "send_part",
    "upload_part_copy": "copy_part",
    "complete_multipart_upload": "complete",
    "abort_multipart_upload": "abort",
}
"""What failpoints call the calls that change something; deleting is a call of its own kind."""


class S3Store(Store):
    """Buckets of one endpoint. One instance per process; all settings are the environment's and fsspec's own."""

    conditional = True

    def __init__(self) -> None:
        try:
            import botocore
            import s3fs
        except ImportError:
            raise UsageError("paths that begin with s3:// need s3fs: pip install 'skybatch[s3]'") from None
        if tuple(map(int, botocore.__version__.split(".")[:2])) < CONDITIONS_SINCE:
            # s3fs leaves out arguments that botocore does not know: conditions would be dropped silently.
            raise UsageError(
                f"botocore {botocore.__version__} knows no conditional writes: pip install -U 'skybatch[s3]'"
            )
        import fsspec.config

        settings = dict(fsspec.config.conf.get("s3", {}).get("config_kwargs", {}))
        self._fs: Any = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": retrying.CONNECT_TIMEOUT_S,
                "read_timeout": retrying.timeout_s(),
                "max_pool_connections": UPLOADS_AT_ONCE + READS_AT_ONCE + 4,
                # Bodies are signed by their SHA-256; checksums as trailers are beyond many servers.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
                **settings,
                "retries": {"total_max_attempts": 1},
            },
        )
        self.uploads = ThreadPoolExecutor(UPLOADS_AT_ONCE, "skybatch-s3-upload")
        self.reads = ThreadPoolExecutor(READS_AT_ONCE, "skybatch-s3-read")

    def call(self, what: str, method: str, *, size: int = 0, **arguments: Any) -> dict[str, Any]:
        """One call of the API, with patience; `size` is how many bytes its body has. Raises as `retrying.call`."""
        from fsspec.asyn import sync

        limit = 10 * retrying.timeout_s() if not size else _time_for(size)
        operation = CHANGES.get(method)

        def attempt() -> dict[str, Any]:
            return dict(sync(self._fs.loop, self._once, method, timeout=limit, **arguments))

        return retrying.change(what, operation, attempt) if operation else retrying.call(what, attempt)

    async def _once(self, method: str, **arguments: Any) -> Any:
        # As s3fs._call_s3, without its own retries and its own reading of errors.
        await self._fs.set_session()
        client = await self._fs.get_s3(arguments.get("Bucket"))
        call = getattr(client, method)
        return await call(**self._fs._get_s3_method_kwargs(call, **arguments))

    def info(self, path: str) -> ObjectInfo:
        bucket, key = split(path)
        try:
            found = self.call(path, "head_object", Bucket=bucket, Key=key)
        except Refusal as refusal:
            raise no_such(path, refusal) from None
        metadata = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
        return ObjectInfo(
            path=path,
            size=found["ContentLength"],
            version=version_of(found),
            modified=found["LastModified"].timestamp(),
            owner=metadata.get(OWNER_KEY),
        )

    def read(self, path: str, start: int = 0, end: int | None = None, *, version: str | None = None) -> bytes:
        from fsspec.asyn import sync

        if end is not None and end <= start:
            return b""
        bucket, key = split(path)
        arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if start or end is not None:
            arguments["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if version is not None:
            arguments["IfMatch"] = quoted(version)
        limit = 10 * retrying.timeout_s() if end is None else _time_for(end - start)
        try:
            return bytes(retrying.call(path, lambda: sync(self._fs.loop, self._get, timeout=limit, **arguments)))
        except Refusal as refusal:
            if refusal.status == 416:  # begins at the end of the object or beyond
                return b""
            if refusal.kind is Kind.PRECONDITION:
                raise altered(path) from None
            raise no_such(path, refusal) from None

    async def _get(self, **arguments: Any) -> bytes:
        found = await self._once("get_object", **arguments)
        async with found["Body"] as body:
            data: bytes = await body.read()
        if len(data) != found.get("ContentLength", len(data)):
            raise ConnectionError(f"{len(data)} bytes came of {found['ContentLength']}")
        return data

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        bucket, prefix = split(folder.rstrip("/") + "/")
        for page in self._pages(folder, "list_objects_v2", {"Bucket": bucket, "Prefix": prefix}, _next_listing):
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # what consoles put there for an empty folder
                    yield ObjectInfo(
                        path=f"s3://{bucket}/{entry['Key']}",
                        size=entry["Size"],
                        version=version_of(entry),
                        modified=entry["LastModified"].timestamp(),
                    )

    def put(
        self, path: str, data: bytes | Path, *, replaces: str | None = ANYTHING, owner: str | None = None
    ) -> ObjectInfo:
        if isinstance(data, Path):
            if data.stat().st_size > LARGEST_PUT:
                return self._put_in_parts(path, data, replaces, owner)
            data = data.read_bytes()
        bucket, key = split(path)
        try:
            made = self.call(
                path,
                "put_object",
                size=len(data),
                Bucket=bucket,
                Key=key,
                Body=data,
                **_metadata(owner),
                **condition(replaces),
            )
        except Refusal as refusal:
            return settled(self, path, owner, refusal)
        return ObjectInfo(path=path, size=len(data), version=version_of(made), owner=owner)

    def delete(self, paths: Iterable[str]) -> None:
        for some in slices(paths, DELETES_AT_ONCE):
            keys: dict[str, list[str]] = {}
            for bucket, key in map(split, some):
                keys.setdefault(bucket, []).append(key)
            for bucket, names in keys.items():
                self._delete(bucket, names)

    def _delete(self, bucket: str, keys: Sequence[str]) -> None:
        def attempt() -> None:
            from fsspec.asyn import sync

            listed = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            answer = sync(
                self._fs.loop,
                self._once,
                "delete_objects",
                timeout=10 * retrying.timeout_s(),
                Bucket=bucket,
                Delete=listed,
            )
            for error in answer.get("Errors", ()):
                if error.get("Code") != "NoSuchKey":
                    raise _NotDeleted(error)

        try:
            retrying.change(f"deleting from s3://{bucket}", "delete", attempt)
        except Refusal as refusal:
            if refusal.kind is not Kind.MISSING:
                raise

    def composer(self, path: str, *, scratch: str, owner: str, handle: str | None = None) -> Composer:
        from skybatch.formats.stores.s3_composer import S3Composer

        return S3Composer(self, path, scratch=scratch, owner=owner, handle=handle)

    def abandoned(self, folder: str) -> Iterator[tuple[str, str]]:
        bucket, key = split(folder.rstrip("/"))
        query = {"Bucket": bucket, "Prefix": key}
        for page in self._pages(folder, "list_multipart_uploads", query, _next_uploads):
            for upload in page.get("Uploads", ()):
                if not key or upload["Key"] == key or upload["Key"].startswith(f"{key}/"):
                    yield f"s3://{bucket}/{upload['Key']}", upload["UploadId"]

    def abort(self, path: str, handle: str) -> None:
        bucket, key = split(path)
        try:
            self.call(path, "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=handle)
        except Refusal as refusal:
            if refusal.kind is not Kind.MISSING:
                raise

    def begin_upload(self, path: str, owner: str | None) -> str:
        """Begin a multipart upload; its id."""
        bucket, key = split(path)
        begun = self.call(path, "create_multipart_upload", Bucket=bucket, Key=key, **_metadata(owner))
        return str(begun["UploadId"])

    def upload_part(self, path: str, upload: str, number: int, data: bytes) -> str:
        """Send one part, numbered from 1; its ETag."""
        bucket, key = split(path)
        sent = self.call(
            f"{path}, part {number}",
            "upload_part",
            size=len(data),
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=data,
        )
        return str(sent["ETag"])

    def copy_part(self, path: str, upload: str, number: int, piece: Piece) -> str:
        """Have the server copy one part, numbered from 1, of the piece's version; its ETag."""
        bucket, key = split(path)
        from_bucket, from_key = split(piece.path)
        copied = self.call(
            f"{piece.path}, copied to {path}, part {number}",
            "upload_part_copy",
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": from_bucket, "Key": from_key},
            CopySourceRange=f"bytes={piece.offset}-{piece.offset + piece.length - 1}",
            **_if_version(piece.version),
        )
        return str(copied["CopyPartResult"]["ETag"])

    def uploaded_parts(self, path: str, upload: str) -> dict[int, tuple[int, str]] | None:
        """Size and ETag of each part by its number; None when there is no such upload any more."""
        bucket, key = split(path)
        query = {"Bucket": bucket, "Key": key, "UploadId": upload}
        try:
            pages = [*self._pages(path, "list_parts", query, _next_parts)]
        except Refusal as refusal:
            if refusal.kind is Kind.MISSING:
                return None
            raise
        return {part["PartNumber"]: (part["Size"], part["ETag"]) for page in pages for part in page.get("Parts", ())}

    def complete(
        self, path: str, upload: str, etags: Sequence[str], *, size: int, replaces: str | None, owner: str | None
    ) -> ObjectInfo:
        """Make the object of its parts, on the condition; as `Store.put` when it cannot be."""
        bucket, key = split(path)
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            made = self.call(
                path,
                "complete_multipart_upload",
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **condition(replaces),
            )
        except Refusal as refusal:
            ours = settled(self, path, owner, refusal)
            self.abort_quietly(path, upload)  # a refused Complete leaves it
            return ours
        return ObjectInfo(path=path, size=size, version=version_of(made), owner=owner)

    def _put_in_parts(self, path: str, file: Path, replaces: str | None, owner: str | None) -> ObjectInfo:
        if (ours := looked_first(self, path, replaces, owner)) is not None:
            return ours  # before all of it is sent for nothing
        size = file.stat().st_size
        part = max(PART_SIZE, math.ceil(size / MAX_PARTS))
        upload = self.begin_upload(path, owner)

        given_up = retrying.until_given_up()  # the parts go up in other threads

        def send(start: int) -> str:
            data = _slice_of(file, start, min(part, size - start))
            with retrying.unless(given_up):
                return self.upload_part(path, upload, start // part + 1, data)

        try:
            etags = [*self.uploads.map(send, range(0, size, part))]
            return self.complete(path, upload, etags, size=size, replaces=replaces, owner=owner)
        except BaseException:
            given_up.set()
            self.abort_quietly(path, upload)
            raise

    def abort_quietly(self, path: str, upload: str) -> None:
        """Abort, in one try; what that leaves `abandoned` will show, and something else matters more."""
        at_once = threading.Event()
        at_once.set()
        try:
            with retrying.unless(at_once):
                self.abort(path, upload)
        except StorageFailed:
            pass

    def _pages(
        self,
        what: str,
        method: str,
        query: dict[str, Any],
        follow: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Iterator[dict[str, Any]]:
        while True:
            page = self.call(what, method, **query)
            yield page
            if not page.get("IsTruncated"):
                return
            query = {**query, **follow(page)}


class _NotDeleted(Exception):
    """One entry of the errors that DeleteObjects lists in an answer that is a success otherwise."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.response = {"Error": error}
        super().__init__(f"{error.get('Key')}: {error.get('Message')}")


def quoted(version: str) -> str:
    """A version as conditions want it."""
    return f'"{version}"'


def version_of(answer: dict[str, Any]) -> str:
    """The version that an answer of the API tells."""
    return str(answer.get("ETag", "")).strip('"')


def condition(replaces: str | None) -> dict[str, Any]:
    """The condition of a put or a Complete."""
    if replaces == ANYTHING:
        return {}
    return {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": quoted(replaces)}


def _if_version(version: str | None) -> dict[str, Any]:
    return {} if version is None else {"CopySourceIfMatch": quoted(version)}


def _metadata(owner: str | None) -> dict[str, Any]:
    return {"Metadata": {OWNER_KEY: owner}} if owner is not None else {}


def _time_for(size: int) -> float:
    return retrying.timeout_s() + size / retrying.SLOWEST_BYTES_PER_S


def _slice_of(file: Path, start: int, length: int) -> bytes:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, length, start)
    finally:
        os.close(fd)
    if len(data) != length:
        raise OSError(f"{file}: became shorter while it was sent")
    return data


def _next_listing(page: dict[str, Any]) -> dict[str, Any]:
    return {"ContinuationToken": page["NextContinuationToken"]}


def _next_uploads(page: dict[str, Any]) -> dict[str, Any]:
    return {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _next_parts(page: dict[str, Any]) -> dict[str, Any]:
    return {"PartNumberMarker": page["NextPartNumberMarker"]}
