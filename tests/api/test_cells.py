"""Code without a file: the cells of a notebook, run one after the other in a `__main__` that has no `__file__`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = """
import sys, types

main = types.ModuleType("__main__")
sys.modules["__main__"] = main
for number, cell in enumerate(sys.stdin.read().split("# %%")):
    exec(compile(cell, f"<ipython-input-{number}>", "exec"), vars(main))
"""

FORMATS = """
import skybatch
from dataclasses import dataclass
from skybatch import io_formats, registry, utils

@registry.INPUT_READER_REGISTRY.type_register(name="cell")
@dataclass
class Letters(io_formats.InputReader):
    text: str = "abcdef"

    def __len__(self):
        return len(self.text)

    def download_batch(self, start, end, cache_dir):
        return [{"letter": letter} for letter in self.text[start : end + 1]]
"""

MAPPER = """
@skybatch.remote_function
def change():
    for batch in skybatch.load():
        skybatch.save_results([{"letter": item["letter"].upper() * TIMES} for item in batch])
"""

MAP = 'skybatch.Dataset(Letters("")).map(change, batch_size=2, workers=1, output=skybatch.JsonWriter("%s.jsonl"))'


def run_cells(folder: Path, *cells: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        input="# %%\n".join(cells),
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def letters(path: Path) -> list[str]:
    return [json.loads(line)["letter"] for line in path.read_text().splitlines()]


def test_formats_and_mappers_of_cells_travel_as_they_are_when_mapped(tmp_path: Path) -> None:
    redefined = FORMATS.replace("abcdef", "xyz")
    said = run_cells(
        tmp_path, FORMATS, "TIMES = 1", MAPPER, MAP % "first", "TIMES = 3", MAP % "second", redefined, MAP % "third"
    )
    assert letters(tmp_path / "first.jsonl") == list("ABCDEF")
    assert letters(tmp_path / "second.jsonl") == [letter * 3 for letter in "ABCDEF"]
    assert letters(tmp_path / "third.jsonl") == [letter * 3 for letter in "XYZ"]
    assert "by cloudpickle" in said
