"""Storage helpers for custom formats: bytes and JSON Lines at any path, and the batch files of a job.

The names say "cloud" for the sake of code written for Sky Batch; every path works, local ones first of all.
Writes are atomic and durable: when a call returns, the file is there and whole; when it raises, it is not.
"""

from __future__ import annotations

from typing import Any

from skybatch.formats import batchfiles, staging, storage

__all__ = [
    "concatenate_batches_to_output",
    "delete_batch_files",
    "delete_input_batch_files",
    "get_batch_path",
    "list_batch_files",
    "load_jsonl_from_cloud",
    "save_jsonl_to_cloud",
    "upload_bytes_to_cloud",
]


def upload_bytes_to_cloud(data: bytes, cloud_path: str) -> None:
    """Write bytes to a path. Within `reduce_results`, the writer's own path is published after it returns."""
    storage.write_bytes(staging.target(cloud_path), data)


def save_jsonl_to_cloud(items: list[dict[str, Any]], cloud_path: str) -> None:
    """Write dicts as JSON Lines. Raises TypeError for what JSON cannot express."""
    import orjson

    upload_bytes_to_cloud(b"".join(orjson.dumps(item, None, orjson.OPT_APPEND_NEWLINE) for item in items), cloud_path)


def load_jsonl_from_cloud(cloud_path: str) -> list[dict[str, Any]]:
    """Read a JSON Lines file; blank lines are skipped. Raises FileNotFoundError, ValueError."""
    import orjson

    return [orjson.loads(line) for line in storage.read_bytes(cloud_path).split(b"\n") if line.strip()]


def get_batch_path(output_path: str, start_idx: int, end_idx: int, job_id: str) -> str:
    """A temporary path for one batch's results, unique to the attempt that asks."""
    return batchfiles.batch_path(output_path, start_idx, end_idx, job_id)


def list_batch_files(output_path: str, job_id: str) -> list[str]:
    """The batch files that count, one per range, in order, without overlap.

    Within `reduce_results` these are the accepted attempts'; elsewhere the folder is listed. Files that are not
    batch files are left out. Raises MissingBatches when there is a gap.
    """
    return batchfiles.list_files(output_path, job_id)


def concatenate_batches_to_output(output_path: str, job_id: str) -> None:
    """Merge the batch files into one JSON Lines file at `output_path`, a file at a time in memory."""
    from skybatch.formats import joining

    joining.concatenate(batchfiles.list_files(output_path, job_id), staging.target(output_path))


def delete_batch_files(output_path: str, job_id: str) -> None:
    """Delete the job's batch files of this output. Nothing there is no error."""
    batchfiles.delete(output_path, job_id)


def delete_input_batch_files(output_path: str, job_id: str) -> None:
    """Delete the job's input batch files: there are none, workers read the input itself."""
