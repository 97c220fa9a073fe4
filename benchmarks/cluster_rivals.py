"""The clusters' own ways: `python -m benchmarks.cluster_rivals ray|dask ADDRESS INPUT BATCH_SIZE`; JSON is printed.

`seconds` run when the client is connected and a few batches were mapped, `whole` has the connecting in it too. Neither
keeps a journal or writes an output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP = 100


def of_ray(address: str, path: str, batch_size: int) -> dict[str, Any]:
    """Ray Data: rows in the object store, `map_batches` on dicts of columns."""
    ray: Any = __import__("ray")
    data: Any = __import__("ray.data").data
    rows = _rows(path)
    connecting = time.monotonic()
    ray.init(address=address, log_to_driver=False, logging_level="error")
    connected = time.monotonic()
    data.DataContext.get_current().enable_progress_bars = False

    def identity(batch: Any) -> Any:
        return batch

    def mapped(rows: list[dict[str, Any]]) -> Any:
        return data.from_items(rows, override_num_blocks=2).map_batches(identity, batch_size=batch_size).materialize()

    mapped(rows[: WARM_UP * batch_size])
    began = time.monotonic()
    done = mapped(rows)
    seconds = time.monotonic() - began
    return {"seconds": seconds, "whole": connected - connecting + seconds, "sum": int(done.sum("id"))}


def of_dask(address: str, path: str, batch_size: int) -> dict[str, Any]:
    """Dask's futures: a task for each batch, which goes with it."""
    distributed: Any = __import__("distributed")
    rows = _rows(path)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def identity(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return batch

    connecting = time.monotonic()
    with distributed.Client(address) as client:
        connected = time.monotonic()
        client.gather(client.map(identity, batches[:WARM_UP], pure=False))
        began = time.monotonic()
        done = client.gather(client.map(identity, batches, pure=False))
        seconds = time.monotonic() - began
    whole = connected - connecting + seconds
    return {"seconds": seconds, "whole": whole, "sum": sum(row["id"] for batch in done for row in batch)}


def _rows(path: str) -> list[dict[str, Any]]:
    with open(path) as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    rivals: dict[str, Callable[..., dict[str, Any]]] = {"ray": of_ray, "dask": of_dask}
    print(json.dumps(rivals[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))))
