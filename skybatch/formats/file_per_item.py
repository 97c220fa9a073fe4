"""What writers with a file per item have in common: names, claims, whole files, the manifest."""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from typing import Any

from skybatch.errors import MissingBatches, ResultError
from skybatch.formats import batchfiles, by_hand, names, staging, storage, stores
from skybatch.formats.base import Item, OutputWriter
from skybatch.formats.masking import masked
from skybatch.formats.shards import MANIFEST

_BY_INDEX = re.compile(r"(\d{8,})\.\w+")


class FilePerItemWriter(OutputWriter):
    """Each result's file gets its final name whole; `manifest.json`, published last, says that all are there."""

    name_column: str | None

    @abstractmethod
    def file_of(self, result: Item, index: int) -> tuple[str, bytes]:
        """Name, below the output's folder, and content of a result's file. Raises ResultError."""

    @abstractmethod
    def manifest(self) -> dict[str, Any]:
        """What the manifest says."""

    def upload_batch(self, results: list[Item], start_idx: int, end_idx: int, job_id: str) -> str:
        """Write each result's file; names out of results are claimed first.

        In a job that may not overwrite, a file that stands there and is not that job's is the item's ResultError.
        """
        folder, owner = self.path.rstrip("/"), batchfiles.owner(job_id)
        files = {index: self.file_of(result, index) for index, result in enumerate(results, start_idx)}
        if self.name_column is not None:
            wanted = {index: name for index, (name, _) in files.items()}
            names.claim(self.path, job_id, wanted, self.name_column)
            names.refuse_links(self.path, wanted, self.name_column)

        def write(index: int) -> None:
            name, data = files[index]
            self._write(f"{folder}/{name}", index, data, owner)

        names.for_each(folder, write, files)
        return folder

    def _write(self, path: str, index: int, data: bytes, owner: str | None) -> None:
        try:
            storage.write_bytes(path, data, owner=owner)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            what = "a file of that name is there and is not this job's; move it away"
            if not isinstance(error, FileExistsError):
                what = "it needs a folder where a file is, or the other way round"
            key = "" if self.name_column is None else f", key {self.name_column!r}"
            raise ResultError(f"item {index}{key}: {masked(path)}: {what}", item=index) from error

    def reduce_results(self, job_id: str, *, partial: bool = False) -> None:
        """Write the manifest.

        By hand, it is put in place by the rules of `by_hand.place`; the items are counted by their files, or by the
        claims of their names. Raises MissingBatches when some before the last are missing, unless `partial`, and
        OutputExists.
        """
        staged = staging.target(self.commit_path())
        if staged != self.commit_path():
            self._write_manifest(staged, batchfiles.settled_items(job_id))
            return
        items = self._written(job_id)
        missing = next((index for index in range(max(items, default=-1) + 1) if index not in items), None)
        if not items or (missing is not None and not partial):
            what = "nothing was written" if not items else f"the file of item {missing} is missing"
            raise MissingBatches(f"{masked(self.path)}: {what} (job {job_id})")
        by_hand.place(self, job_id, lambda staged: self._write_manifest(staged, len(items)))

    def _write_manifest(self, path: str, items: int | None) -> None:
        storage.write_bytes(path, json.dumps({**self.manifest(), "items": items}).encode() + b"\n")

    def _written(self, job_id: str) -> set[int]:
        """The items that have a file, or a claim to one."""
        if self.name_column is not None:
            return names.claimed(self.path, job_id)
        if storage.is_local(self.path):
            path = storage.local_path(self.path)
            found = os.listdir(path) if os.path.isdir(path) else []
        else:
            found = [info.path.rpartition("/")[2] for info in stores.of(self.path).list(self.path)]
        return {int(match[1]) for match in map(_BY_INDEX.fullmatch, found) if match}

    def cleanup(self, job_id: str) -> None:
        """Forget whose the names were."""
        batchfiles.delete(self.path, job_id)

    def commit_path(self) -> str:
        """The manifest."""
        return f"{self.path.rstrip('/')}/{MANIFEST}"
