"""A job whose outputs lie in an object store.

Run as a script: `python store_job.py FOLDER OPTIONS`, options as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import skybatch
from skybatch import io_formats, utils
from skybatch.formats import stores

DEFAULTS: dict[str, Any] = {"items": 60, "batch_size": 4, "outputs": ["json", "zipped", "merged"], "overwrite": False}


@dataclass
class Numbers(io_formats.InputReader):
    """Items from a counter."""

    count: int

    def __len__(self) -> int:
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class Merged(io_formats.OutputWriter):
    """Stores each batch in an object of its own, and puts them together at the end."""

    def upload_batch(self, results: list[dict[str, Any]], start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud(results, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        utils.concatenate_batches_to_output(self.path, job_id)

    def cleanup(self, job_id: str) -> None:
        utils.delete_batch_files(self.path, job_id)


def words(batch: list[dict[str, Any]], log: str, meddle: str | None) -> list[dict[str, Any]]:
    """The mapper. It notes what it is given; with `meddle` it puts something of a stranger's there."""
    with open(log, "a", encoding="ascii") as file:
        file.write(f"{batch[0]['id']}-{batch[-1]['id']}\n")
    if meddle is not None and batch[0]["id"] == 0:
        stores.of(meddle).put(meddle, b"a stranger's")
    return [{"id": item["id"], "word": f"item {item['id'] ** 2}"} for item in batch]


def writers(bucket: str, names: list[str]) -> list[io_formats.OutputWriter]:
    known = {
        "json": io_formats.JsonWriter(f"{bucket}/out/rows.jsonl"),
        "zipped": io_formats.JsonWriter(f"{bucket}/out/rows.jsonl.gz", column="word"),
        "merged": Merged(f"{bucket}/out/merged.jsonl"),
        "shards": io_formats.JsonWriter(f"{bucket}/shards", shard_size=500),
        "texts": io_formats.TextWriter(f"{bucket}/texts/", column="word"),
    }
    return [known[name] for name in names]


def main(folder: str, options: str) -> int:
    asked = {**DEFAULTS, **json.loads(options)}
    try:
        skybatch.Dataset(Numbers("", asked["items"])).map(
            words,
            batch_size=asked["batch_size"],
            workers=1,
            output=writers(asked["bucket"], asked["outputs"]),
            mapper_args={"log": f"{folder}/ranges.log", "meddle": asked.get("meddle")},
            overwrite=asked["overwrite"],
        )
    except skybatch.SkybatchError as error:
        print(f"skybatch: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
