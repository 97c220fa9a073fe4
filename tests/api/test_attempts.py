"""What later attempts and later runs may rely on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import skybatch
from tests.api.scripts import command, run, run_well, write
from tests.api.test_inline import Count

Batch = list[dict[str, Any]]

RESUMED = """
    import skybatch, os
    from dataclasses import dataclass
    from skybatch import io_formats, utils

    @dataclass
    class Files(io_formats.InputReader):
        def __len__(self):
            return len(os.listdir(self.path))
        def download_batch(self, start, end, cache_dir):
            return [{"name": name} for name in sorted(os.listdir(self.path))[start : end + 1]]

    @dataclass
    class Texts(io_formats.OutputWriter):
        def upload_batch(self, results, start, end, job_id):
            for index, result in enumerate(results, start):
                utils.upload_bytes_to_cloud(result["name"].encode(), f"{self.path}{index:08d}.txt")
        def reduce_results(self, job_id):
            pass
        def cleanup(self, job_id):
            pass

    def same(batch):
        return batch

    if __name__ == "__main__":
        skybatch.Dataset(Files("files")).map(same, batch_size=2, workers=1, output=Texts("texts/"))
"""


def stumble_once(batch: Batch, folder: str) -> Batch:
    told = skybatch.context()
    row = {"start": told.start, "attempt": told.attempt, "seed": told.seed}
    with open(f"{folder}/seen", "a", encoding="ascii") as file:
        file.write(json.dumps(row) + "\n")
    if told.start == 4 and told.attempt == 1:
        raise ConnectionError("a passing weakness")
    return [row for _ in batch]


def test_the_seed_of_a_range_is_the_same_on_every_attempt(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    job = skybatch.Dataset(Count("")).map(
        stumble_once,
        batch_size=2,
        workers=1,
        output=skybatch.JsonWriter(str(output)),
        mapper_args={"folder": str(tmp_path)},
    )
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    first, second = [row for row in seen if row["start"] == 4]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first["seed"] == second["seed"]
    (failure,) = job.errors()
    assert "a passing weakness" in failure.message
    assert len(output.read_text().splitlines()) == 10


def test_a_custom_input_of_another_length_stops_the_resume(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number in range(8):
        (tmp_path / "files" / str(number)).touch()
    script = write(tmp_path, "script.py", RESUMED)
    assert run(script, SKYBATCH_FAILPOINT="after-commit:2").returncode == -signal.SIGKILL
    (tmp_path / "files" / "8").touch()
    refused = command("resume", cwd=tmp_path)
    assert refused.returncode == 4 and "9 items now, and had 8" in refused.stderr
    os.unlink(tmp_path / "files" / "8")
    assert command("resume", cwd=tmp_path).returncode == 0
    assert [path.read_text() for path in sorted((tmp_path / "texts").iterdir())] == [str(n) for n in range(8)]


def test_what_a_per_item_writer_has_written_needs_no_recovery(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number in range(8):
        (tmp_path / "files" / str(number)).touch()
    script = write(tmp_path, "script.py", RESUMED)
    killed = run(script, SKYBATCH_FAILPOINT="reducing")
    assert killed.returncode == -signal.SIGKILL
    by_hand = "from script import Texts\nimport sys\nTexts('texts/').reduce_results(sys.argv[1])\n"
    run_well(write(tmp_path, "by_hand.py", by_hand), killed.stderr.split()[2])
    assert [path.read_text() for path in sorted((tmp_path / "texts").iterdir())] == [str(n) for n in range(8)]


def test_blank_lines_are_no_items_and_the_last_line_needs_no_end(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('\n{"i":0}\n\n  \r\n{"i":1}\n\n\n{"i":2}')
    job = skybatch.Dataset(skybatch.JsonReader(str(tmp_path / "in.jsonl"))).map(
        same, batch_size=1, workers=1, output=skybatch.JsonWriter(str(tmp_path / "out.jsonl"))
    )
    assert job.progress().items == 3
    assert (tmp_path / "out.jsonl").read_text() == '{"i":0}\n{"i":1}\n{"i":2}\n'


def same(batch: Batch) -> Batch:
    return batch
