"""A census of Python's standard library: one row per source file, and a ranking of the largest.

    python stdlib_census.py            # about 1,800 files into ./census/
    python stdlib_census.py FOLDER     # any other folder with .py files

Kill it at any moment (Ctrl-C, kill -9, pull the plug), then say `skybatch resume`, or run it again with the
line `resume=True` below taken in: it goes on, and what it writes is the same to the byte.
"""

import ast
import heapq
import io
import sys
import sysconfig
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path

import skybatch
from skybatch import InputReader, JsonWriter, OutputWriter, utils


# 1. The input: anything with a length and random access. Its fields travel to the workers, which make their
#    own instance; so they are plain values, and what costs time is done when it is first needed.
@dataclass
class SourceReader(InputReader):
    def __post_init__(self):
        self._files = None

    def files(self):
        if self._files is None:  # the same order in every process: an item is known by its index
            root = Path(self.path)
            paths = (file.relative_to(root) for file in root.rglob("*.py"))
            self._files = sorted(path for path in paths if not {"site-packages", "dist-packages"} & set(path.parts))
        return self._files

    def __len__(self):
        return len(self.files())

    def download_batch(self, start_idx, end_idx, cache_dir):  # both ends included
        chosen = self.files()[start_idx : end_idx + 1]
        return [{"path": str(path), "source": Path(self.path, path).read_bytes()} for path in chosen]


# 2. The mapper: a batch in, as many results out, in the same order. It runs in worker processes, one per
#    core. What it prints goes to a log; what it raises is charged to this batch, which is tried again.
def measure(batch):
    return [measured(item["path"], item["source"]) for item in batch]


def measured(path, source):
    lines = source.splitlines()
    row = {"path": path, "lines": len(lines), "longest_line": max(map(len, lines), default=0)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        tokens = sum(1 for _ in tokenize.tokenize(io.BytesIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        # Expected: the library's tests contain broken files. Such a file is a result like any other.
        return row | {"tokens": None, "functions": None, "error": f"{type(error).__name__}: {error}"}
    functions = sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(tree))
    return row | {"tokens": tokens, "functions": functions, "error": None}


# 3. A second output, by a writer of our own: each batch is stored in a file of its own, in a worker; when all
#    batches are there, `reduce_results` merges them, once. The path from `get_batch_path` is private to this
#    try at this batch, so a batch that is mapped twice cannot be counted twice.
@dataclass
class Ranking(OutputWriter):
    column: str

    def upload_batch(self, results, start_idx, end_idx, job_id):
        path = utils.get_batch_path(self.path, start_idx, end_idx, job_id)
        rows = [{"path": row["path"], "value": row[self.column]} for row in results if row[self.column] is not None]
        utils.save_jsonl_to_cloud(rows, path)
        return path

    def reduce_results(self, job_id):
        batches = map(utils.load_jsonl_from_cloud, utils.list_batch_files(self.path, job_id))
        rows = (row for batch in batches for row in batch)
        best = heapq.nsmallest(10, rows, key=lambda row: (-row["value"], row["path"]))
        text = "".join(f"{row['value']:>9,}  {row['path']}\n" for row in best)
        utils.upload_bytes_to_cloud(text.encode(), self.path)  # appears whole, after this method returns

    def cleanup(self, job_id):
        utils.delete_batch_files(self.path, job_id)


# 4. The job. Eight files are a batch: the unit that is tried again, and that a crash can cost.
if __name__ == "__main__":
    library = sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib")
    skybatch.Dataset(SourceReader(library)).map(
        measure,
        batch_size=8,
        output=[JsonWriter("census/files.jsonl"), Ranking("census/ranking.txt", column="tokens")],
        # resume=True,
    )
    print(Path("census/ranking.txt").read_text(), end="")
