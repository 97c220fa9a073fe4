"""`skybatch demo`: a job on real files, run undisturbed, then killed half-way and resumed; the bytes must be equal.

Every `.py` file of this Python's standard library is an item. The reader, the mapper and the writer of the
ranking are custom ones, written as a user would write them; the rows go through the built-in JsonWriter.
"""

from __future__ import annotations

import ast
import contextlib
import heapq
import io
import os
import signal
import sys
import sysconfig
import tempfile
import time
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from skybatch import utils
from skybatch.io_formats import InputReader, JsonWriter, OutputWriter

BATCH_SIZE = 8
_NOT_STANDARD = {"site-packages", "dist-packages", "__pycache__"}


@dataclass
class SourceReader(InputReader):
    """The `.py` files under a folder in the order of their names, without what was installed into it."""

    @cached_property
    def files(self) -> list[str]:
        """Their paths, relative to the folder."""
        found = []
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = [name for name in subfolders if name not in _NOT_STANDARD]
            found += [os.path.relpath(f"{folder}/{name}", self.path) for name in names if name.endswith(".py")]
        return sorted(found)

    def __len__(self) -> int:
        return len(self.files)

    def download_batch(self, start_idx: int, end_idx: int, cache_dir: str) -> list[dict[str, Any]]:
        """Path and bytes of some of the files."""
        chosen = self.files[start_idx : end_idx + 1]
        return [{"path": path, "source": Path(self.path, path).read_bytes()} for path in chosen]


def measure(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mapper: one row per file, also for one that is no Python of this version."""
    return [_measured(item["path"], item["source"]) for item in batch]


def _measured(path: str, source: bytes) -> dict[str, Any]:
    lines = source.splitlines()
    row = {"path": path, "lines": len(lines), "longest_line": max(map(len, lines), default=0)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's own tests contain code that is warned of
            tree = ast.parse(source)
        tokens = sum(1 for _ in tokenize.tokenize(io.BytesIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        return {**row, "tokens": None, "functions": None, "error": f"{type(error).__name__}: {error}"}
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))
    return {**row, "tokens": tokens, "functions": functions, "error": None}


@dataclass
class Ranking(OutputWriter):
    """A text table of the rows with the highest numbers in one column."""

    column: str
    rows: int = 10

    def upload_batch(self, results: list[dict[str, Any]], start_idx: int, end_idx: int, job_id: str) -> str:
        """Keep the two columns of one batch."""
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        kept = [{"path": row["path"], "value": row[self.column]} for row in results if row[self.column] is not None]
        utils.save_jsonl_to_cloud(kept, path)
        return path

    def reduce_results(self, job_id: str) -> None:
        """Go through the batches one by one; only the best rows stay in memory."""
        batches = map(utils.load_jsonl_from_cloud, utils.list_batch_files(self.path, job_id))
        best = heapq.nsmallest(
            self.rows, (row for rows in batches for row in rows), key=lambda row: (-row["value"], row["path"])
        )
        lines = [f"{self.column:>9}  file", *(f"{row['value']:>9,}  {row['path']}" for row in best)]
        utils.upload_bytes_to_cloud("".join(f"{line}\n" for line in lines).encode(), self.path)

    def cleanup(self, job_id: str) -> None:
        """Remove the batches."""
        utils.delete_batch_files(self.path, job_id)


def main(library: str | None = None) -> int:
    """Run the demonstration on `library` (default: this Python's standard library); 0 when the bytes are equal."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="skybatch-demo-") as folder, _home(f"{folder}/home"):
        reader = SourceReader(library or sysconfig.get_path("stdlib"))
        _say(f"{len(reader):,} files under {reader.path}, {BATCH_SIZE} to a range")

        _say("1. Undisturbed: parse each file, count, write rows and a ranking.")
        undisturbed = Path(folder, "undisturbed")
        _map(reader, undisturbed)

        _say("2. Again, in an engine of its own, which gets SIGKILL half-way.")
        disturbed = Path(folder, "disturbed")
        job_id = _killed_half_way(reader, disturbed)

        _say(f"3. skybatch resume {job_id}")
        _resume(job_id)

        same = [_compare(undisturbed / name, disturbed / name) for name in ("rows.jsonl", "ranking.txt")]
        _show(disturbed)
        print(f"\n{time.monotonic() - began:.1f} s in all; the temporary files are gone.", flush=True)
    return 0 if all(same) else 1


def _map(reader: SourceReader, folder: Path, *, stream: bool = True) -> Any:
    from skybatch import Dataset

    outputs = [JsonWriter(f"{folder}/rows.jsonl"), Ranking(f"{folder}/ranking.txt", column="tokens")]
    return Dataset(reader).map(measure, batch_size=BATCH_SIZE, output=outputs, stream=stream)


def _killed_half_way(reader: SourceReader, folder: Path) -> str:
    from skybatch.engine import control
    from skybatch.errors import Paused
    from skybatch.journal.lock import holder

    job = _map(reader, folder, stream=False)
    try:
        for event in control.watch(job.folder):
            if event.get("total") and event["done"] * 2 >= event["total"]:
                engine = holder(job.folder.path)
                if engine is not None:
                    os.kill(engine, signal.SIGKILL)
                    print(f"   kill -9 {engine}", flush=True)
                break
        job.wait()
    except Paused as paused:
        print("   " + str(paused).replace("\n", "\n   "), flush=True)
    else:
        print("   It was done before it could be killed: nothing is shown by this.")
    finally:
        if job.engine_running:
            job.cancel()  # interrupted before the kill: leave nothing running
    progress = job.progress()
    print(f"   in its journal: {progress.items_done:,} of {progress.items:,} files done; outputs:", _names(folder))
    return str(job.id)


def _resume(job_id: str) -> None:
    from skybatch import resume
    from skybatch.engine.job import find_job

    before = find_job(job_id).progress().items_done
    progress = resume(job_id).progress()
    print(f"   mapped {progress.items_done - before:,} files more; state: {progress.state}", flush=True)


def _names(folder: Path) -> str:
    visible = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    return ", ".join(visible) or "none visible yet"


def _compare(one: Path, other: Path) -> bool:
    first, second = one.read_bytes(), other.read_bytes()
    verdict = "the same bytes" if first == second else "DIFFERENT"
    print(f"   {one.name}: {len(first):,} bytes undisturbed, {len(second):,} resumed: {verdict}", flush=True)
    return first == second


def _show(folder: Path) -> None:
    import orjson

    rows = [orjson.loads(line) for line in (folder / "rows.jsonl").read_bytes().splitlines()]
    refused = [row for row in rows if row["error"]]
    _say(f"{len(rows):,} rows, {len(refused)} of them files that do not parse; the largest files:")
    print((folder / "ranking.txt").read_text(), end="")


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


@contextlib.contextmanager
def _home(path: str) -> Iterator[None]:
    """Jobs of the demonstration stay out of the user's list."""
    before = os.environ.get("SKYBATCH_HOME")
    os.environ["SKYBATCH_HOME"] = path
    try:
        yield
    finally:
        if before is None:
            del os.environ["SKYBATCH_HOME"]
        else:
            os.environ["SKYBATCH_HOME"] = before


if __name__ == "__main__":
    from skybatch import demo  # so that what is shipped is the module's, not a script's

    sys.exit(demo.main())
