"""`skybatch run --dry-run` and `--limit`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.api.scripts import command, write

JOB = """\
input: {type: json, path: in.jsonl}
mapper: work.py:work
batch_size: 4
output: {type: json, path: out.jsonl}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id": {i}}}\n' for i in range(30)))
    (tmp_path / "job.yaml").write_text(JOB)
    mapper(tmp_path, "print('at work') or [{'twice': 2 * i['id']} for i in batch]")
    return tmp_path


def mapper(folder: Path, results: str) -> None:
    write(folder, "work.py", f"def work(batch):\n    return {results}\n")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("run", "job.yaml", *arguments, cwd=folder)


def made(folder: Path) -> list[str]:
    left = {path.name for path in folder.iterdir()} - {"in.jsonl", "job.yaml", "work.py", "__pycache__"}
    return sorted(name for name in left if name != "home" or (folder / "home" / "jobs").exists())


def test_items_and_results_are_shown_and_nothing_is_made(folder: Path) -> None:
    ran = run(folder, "--dry-run", "--limit", "6", "--pool", "local")
    assert "pool and activate_env are not used" in ran.stderr
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[:2] == ['item 0: {"id": 0}', '  -> {"twice": 0}']
    assert lines[-2:] == ['item 5: {"id": 5}', '  -> {"twice": 10}']
    assert "at work" in ran.stderr
    assert "6 items tried; there is no job" in ran.stderr
    assert made(folder) == []


@pytest.mark.full
def test_without_a_limit_one_batch_is_tried_and_existing_outputs_are_no_matter(folder: Path) -> None:
    (folder / "out.jsonl").write_text("here before\n")
    ran = run(folder, "--dry-run", "--json")
    assert ran.returncode == 0, ran.stderr
    (batch,) = json.loads(ran.stdout)
    assert (batch["start"], batch["end"], batch["error"]) == (0, 3, None)
    assert batch["results"] == [{"twice": 2 * i} for i in range(4)]
    assert (folder / "out.jsonl").read_text() == "here before\n"


def test_a_failure_is_shown_with_its_traceback_and_the_others_with_their_results(folder: Path) -> None:
    mapper(folder, "[{'inverse': 1 / i['id']} for i in batch]")
    ran = run(folder, "--dry-run", "--limit", "8")
    assert ran.returncode == 1
    assert "items 0-3, mapper: Traceback" in ran.stderr
    assert "ZeroDivisionError" in ran.stderr and "work.py" in ran.stderr
    assert "1 of their batches failed" in ran.stderr
    assert 'item 4: {"id": 4}\n  -> {"inverse": 0.25}' in ran.stdout


def test_what_cannot_be_written_is_shown(folder: Path) -> None:
    mapper(folder, "[{'odd': {1} if i['id'] == 2 else 'a' * 300} for i in batch]")
    ran = run(folder, "--dry-run")
    assert ran.returncode == 1
    assert "item 2, write: " in ran.stderr and "'odd'" in ran.stderr
    assert '{"odd": "{1}"}' in ran.stdout
    assert f'{{"odd": "{"a" * 200}... 100 more characters"}}' in ran.stdout


def test_a_mapper_that_fails_before_its_first_batch_says_so(folder: Path) -> None:
    broken = """
        class work:
            def __init__(self):
                raise OSError('no model')

            def __call__(self, batch): ...
    """
    write(folder, "work.py", broken)
    ran = run(folder, "--dry-run")
    assert ran.returncode == 1
    assert "OSError: no model" in ran.stderr


def test_a_custom_writer_that_uploads_is_not_tried_and_that_is_said(folder: Path) -> None:
    writer = """
        from dataclasses import dataclass
        from skybatch import OutputWriter

        @dataclass
        class Sender(OutputWriter):
            def upload_batch(self, results, start_idx, end_idx, job_id):
                raise SystemExit("sent")

            def reduce_results(self, job_id): ...

            def cleanup(self, job_id): ...
    """
    write(folder, "sender.py", writer)
    (folder / "job.yaml").write_text(JOB.replace("type: json, path: out", "type: 'sender.py:Sender', path: out"))
    ran = run(folder, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert "Sender.upload_batch() is not tried" in ran.stderr


@pytest.mark.full
@pytest.mark.parametrize("options", ["--json", "--dry-run --detach", "--dry-run --resume", "--limit 0"])
def test_options_that_make_no_sense_together_are_refused(options: str, folder: Path) -> None:
    assert run(folder, *options.split()).returncode == 2
    assert made(folder) == []


@pytest.mark.full
def test_a_limit_on_the_command_line_comes_before_the_files(folder: Path) -> None:
    (folder / "job.yaml").write_text(f"{JOB}limit: 7\n")
    assert run(folder).returncode == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == 7
    assert run(folder, "--limit", "3", "--overwrite").returncode == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == 3
