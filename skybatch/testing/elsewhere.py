"""Reading in another process, as a worker does: the class from its shipped code, the instance from its fields.

Run as a file, so that the process starts without pytest.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skybatch.formats.base import InputReader, Item

TIMEOUT_S = 60.0


def read_elsewhere(reader: InputReader, index: Path | None, folder: Path, size: int) -> list[Item]:
    """All items, read in batches of `size` by a process of its own. Raises AssertionError with what it said."""
    from skybatch.engine import code, spec

    captured = code.capture({"reader": type(reader)})
    stored = folder / "code"
    stored.mkdir(mode=0o700, parents=True)
    captured.store(stored)
    cache = folder / "cache"
    cache.mkdir()
    order: dict[str, Any] = {
        "code": str(stored / captured.hash),
        "refs": captured.refs,
        "fields": spec.fields_of(reader, "reader"),
        "index": str(index) if index is not None else None,
        "cache_dir": str(cache),
        "count": len(reader),
        "size": size,
        "answer": str(folder / "items.pickle"),
    }
    package = Path(__file__).resolve().parents[2]
    search = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-P", __file__],
        input=json.dumps(order),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise AssertionError(
            f"made from its fields in another process, as workers do, the reader failed there:\n{done.stderr}"
        )
    items: list[Item] = pickle.loads(Path(order["answer"]).read_bytes())
    return items


def main() -> None:
    """Be that process; the order comes as JSON on stdin."""
    from skybatch.worker.code import load

    order: dict[str, Any] = json.loads(sys.stdin.read())
    made: Any = load(order["code"], order["refs"])["reader"]
    reader = made(**order["fields"])
    if order["index"] is not None:
        reader.open_index(order["index"])
    items: list[Any] = []
    for start in range(0, order["count"], order["size"]):
        end = min(start + order["size"], order["count"]) - 1
        if order["index"] is None:
            items += reader.download_batch(start, end, order["cache_dir"])
        else:
            items += reader.decode(reader.read_window(start, end), start, start, end)
    Path(order["answer"]).write_bytes(pickle.dumps(items))


if __name__ == "__main__":
    main()
