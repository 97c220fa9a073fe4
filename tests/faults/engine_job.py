"""The job whose engine is killed: three kinds of outputs, and a mapper that notes each range it takes up.

Run as a script: `python engine_job.py FOLDER OPTIONS`, options as JSON. The outputs depend on `items` alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skybatch
from skybatch import io_formats, utils


@dataclass
class Counter(io_formats.InputReader):
    """Items from a counter; counting them takes a while."""

    count: int
    seconds: float = 0.0

    def __len__(self) -> int:
        note(self.path, "planning")
        time.sleep(self.seconds)
        return self.count

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        return [{"id": index} for index in range(start_idx, end_idx + 1)]


@dataclass
class YamlWriter(io_formats.OutputWriter):
    """Stores each batch, and merges them into one YAML file at the end."""

    column: str
    seconds: float = 0.0
    notes: str = ""

    def upload_batch(self, results: list[dict[str, Any]], start_idx: int, end_idx: int, job_id: str) -> str:
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        utils.save_jsonl_to_cloud([{self.column: result[self.column]} for result in results], path)
        return path

    def reduce_results(self, job_id: str) -> None:
        import yaml

        note(self.notes, "reducing")
        time.sleep(self.seconds)
        rows: list[dict[str, Any]] = []
        for path in utils.list_batch_files(self.path, job_id):
            rows.extend(utils.load_jsonl_from_cloud(path))
        utils.upload_bytes_to_cloud(yaml.dump(rows, default_flow_style=False).encode(), self.path)

    def cleanup(self, job_id: str) -> None:
        note(self.notes, "cleaning")
        time.sleep(self.seconds)
        utils.delete_batch_files(self.path, job_id)
        utils.delete_input_batch_files(self.path, job_id)


@dataclass
class TextWriter(io_formats.OutputWriter):
    """One file per item, put straight at its final place."""

    column: str

    def upload_batch(self, results: list[dict[str, Any]], start_idx: int, end_idx: int, job_id: str) -> str:
        folder = self.path.rstrip("/")
        for index, result in enumerate(results, start_idx):
            utils.upload_bytes_to_cloud(str(result[self.column]).encode(), f"{folder}/{index:08d}.txt")
        return folder

    def reduce_results(self, job_id: str) -> None:
        pass

    def cleanup(self, job_id: str) -> None:
        pass


def note(path: str, text: str) -> None:
    """Append a line, whole, whoever else does."""
    if path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)


def enrich(batch: list[dict[str, Any]], log: str, seconds: float) -> list[dict[str, Any]]:
    """The mapper: deterministic but for the note of what it was given."""
    note(log, f"{batch[0]['id']}-{batch[-1]['id']}")
    time.sleep(seconds)
    return [{"id": item["id"], "word": f"item {item['id'] ** 2}", "parity": item["id"] % 2} for item in batch]


def stumble(batch: list[dict[str, Any]], log: str, seconds: float) -> list[dict[str, Any]]:
    """As `enrich`, but the first try at the third range fails."""
    first = batch[0]["id"] == 2 * len(batch) and not os.path.exists(f"{log}.stumbled")
    if first:
        note(f"{log}.stumbled", "here")
        raise OSError("a passing weakness")
    return enrich(batch, log, seconds)


def widen(batch: list[dict[str, Any]], log: str, seconds: float) -> list[dict[str, Any]]:
    """As `enrich`, with a further key late in the job, and a number that is whole at first."""
    results = enrich(batch, log, seconds)
    for result in results:
        if result["id"] >= 90:
            result |= {"late": [result["id"]], "parity": result["parity"] / 2}
    return results


def seize(batch: list[dict[str, Any]], log: str, seconds: float) -> list[dict[str, Any]]:
    """A mapper that forks children and grandchildren, then keeps the interpreter's lock in C code."""
    import ctypes

    for apart in (False, True):
        if os.fork() == 0:
            if apart:
                os.setsid()
            if os.fork() == 0:
                note(log, "grandchild")
            time.sleep(1000)
    note(log, "seized")
    ctypes.PyDLL(None).sleep(1000)
    return batch


def reader_of(folder: str, items: int, asked: dict[str, Any]) -> io_formats.InputReader:
    if asked["reader"] == "counter":
        return Counter(f"{folder}/phases.log", items, asked["planning_s"])
    if asked["reader"] == "parquet":
        return parquet_of(folder, items, asked["store"])
    path = f"{folder}/input.jsonl"
    if not os.path.exists(path):
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f'{{"id": {index}}}\n' for index in range(items))
    return io_formats.JsonReader(path)


def parquet_of(folder: str, items: int, store: str) -> io_formats.ParquetReader:
    path = f"{folder}/input.parquet"
    if not os.path.exists(path):
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"id": range(items)}), path, row_group_size=50)
    if store:
        utils.upload_bytes_to_cloud(Path(path).read_bytes(), f"{store}/input.parquet")
    return io_formats.ParquetReader(f"{store or folder}/input.parquet")


def outputs_of(folder: str, asked: dict[str, Any]) -> list[io_formats.OutputWriter]:
    phases = f"{folder}/phases.log"
    writers: dict[str, io_formats.OutputWriter] = {
        "json": io_formats.JsonWriter(f"{folder}/out/rows.jsonl", column=["id", "word"]),
        "yaml": YamlWriter(f"{folder}/out/words.yaml", "word", asked["finishing_s"], phases),
        "parquet": io_formats.ParquetWriter(f"{asked['store'] or folder}/out/rows.parquet", row_group_size=32),
        "shards": io_formats.JsonWriter(f"{folder}/out/shards", column=["id", "word"], shard_size=500),
        "texts": io_formats.TextWriter(f"{folder}/out/texts", column="word"),
        "text": TextWriter(f"{folder}/out/texts/", "word"),
    }
    for number in range(16):
        writers[f"more{number}"] = io_formats.JsonWriter(f"{folder}/out/more{number}.jsonl", column="parity")
    return [writers[name] for name in asked["outputs"]]


def pool_of(asked: str | dict[str, Any] | None) -> Any:
    """A pool by name, or as a mapping."""
    if not isinstance(asked, dict):
        return asked
    from skybatch.engine import pools

    return pools.from_mapping(asked)


DEFAULTS: dict[str, Any] = {
    "items": 120,
    "batch_size": 4,
    "workers": 2,
    "reader": "json",
    "store": "",
    "outputs": ["json", "yaml"],
    "mapper": "enrich",
    "mapping_s": 0.0,
    "planning_s": 0.0,
    "finishing_s": 0.0,
    "stream": True,
    "overwrite": False,
    "linger": False,
    "batch_timeout_s": None,
    "pool": None,
}


def main(folder: str, options: str) -> int:
    asked = {**DEFAULTS, **json.loads(options)}
    try:
        job = skybatch.Dataset(reader_of(folder, asked["items"], asked)).map(
            {"enrich": enrich, "stumble": stumble, "widen": widen, "seize": seize}[asked["mapper"]],
            pool_of(asked["pool"]),
            batch_size=asked["batch_size"],
            workers=None if asked["pool"] else asked["workers"],
            output=outputs_of(folder, asked),
            mapper_args={"log": f"{folder}/ranges.log", "seconds": asked["mapping_s"]},
            stream=asked["stream"],
            overwrite=asked["overwrite"],
            batch_timeout_s=asked["batch_timeout_s"],
        )
        print(job.id, flush=True)
        if asked["linger"]:
            signal.pause()
    except skybatch.SkybatchError as error:
        print(f"skybatch: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
