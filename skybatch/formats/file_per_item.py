"""What writers with a file per item have in common: names, claims, whole files, the manifest."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

from skybatch.errors import ResultError
from skybatch.formats import batchfiles, names, staging, storage
from skybatch.formats.base import Item, OutputWriter
from skybatch.formats.shards import MANIFEST


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
        """Write each result's file; names out of results are claimed first."""
        folder = self.path.rstrip("/")
        files = {index: self.file_of(result, index) for index, result in enumerate(results, start_idx)}
        if self.name_column is not None:
            names.claim(self.path, job_id, {index: name for index, (name, _) in files.items()}, self.name_column)
        names.for_each(folder, lambda index: self._write(f"{folder}/{files[index][0]}", files[index][1], index), files)
        return folder

    def _write(self, path: str, data: bytes, index: int) -> None:
        try:
            storage.write_bytes(path, data)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            what = f"{path!r} needs a folder where a file is, or the other way round"
            raise ResultError(f"item {index}, key {self.name_column!r}: {what}", item=index) from error

    def reduce_results(self, job_id: str) -> None:
        """Write the manifest."""
        storage.write_bytes(staging.target(self.commit_path()), json.dumps(self.manifest()).encode() + b"\n")

    def cleanup(self, job_id: str) -> None:
        """Forget whose the names were."""
        batchfiles.delete(self.path, job_id)

    def commit_path(self) -> str:
        """The manifest."""
        return f"{self.path.rstrip('/')}/{MANIFEST}"
