"""Workers behind command lines: a real one-node Slurm, and shells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.bench import Bench, end_of
from tests.tools.pages import shown_pool
from tests.tools.slurm import Slurm, needs_slurm

pytestmark = pytest.mark.full
OUTPUTS = ["json", "yaml", "texts"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), outputs=OUTPUTS)
    bench.succeed(bench.start())
    return bench.outputs()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def pool(command: str, workers: int | None = None, **options: Any) -> dict[str, Any]:
    """A pool of this command."""
    return {"executor": "command", "workers": workers, "options": {"command": command, **options}}


@needs_slurm
def test_slurm_gives_the_workers_their_places(
    slurm: Slurm, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, mapping_s=0.05, pool=shown_pool("command"))
    process = bench.start(env=slurm.environment)
    bench.wait_for_note("ranges.log", count=4)
    words = ["squeue", "--noheader", "--steps"]
    running = subprocess.run(words, env=slurm.environment, capture_output=True, text=True, check=True).stdout
    assert len(running.splitlines()) >= 2
    bench.succeed(process)
    assert bench.outputs() == undisturbed


@needs_slurm
def test_steps_of_slurm_end_with_a_killed_engine(slurm: Slurm, tmp_path: Path) -> None:
    asked = pool(f"srun --quiet --ntasks=1 --cpus-per-task=1 --unbuffered {sys.executable}", 2)
    bench = Bench(tmp_path / "job", mapping_s=0.1, pool=asked)
    process = bench.start(env=slurm.environment)
    bench.wait_for_note("ranges.log", count=4)
    process.kill()
    process.communicate()
    bench.wait_for_no_process(timeout_s=10)
    bench.succeed(bench.start_resume(env=slurm.environment))


def test_each_slot_has_its_name_in_the_command(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    command = f"bash -c 'echo {{slot}} >> {tmp_path}/slots; exec \"$0\" \"$@\"' {sys.executable}"
    bench = Bench(tmp_path / "job", outputs=OUTPUTS, pool=pool(command, slots=["pod-a", "pod-b"], shared=False))
    bench.succeed(bench.start())
    assert bench.outputs() == undisturbed
    assert set((tmp_path / "slots").read_text().split()) == {"pod-a", "pod-b"}


def test_a_command_that_fails_is_told_with_its_own_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "job", pool=pool("bash -c 'echo no such pod: {slot} >&2; exit 1'", slots=["a", "b"]))
    ended = end_of(bench.start())
    assert ended.code == 75, ended
    assert "no such pod: a" in ended.err and "no such pod: b" in ended.err


def test_what_speaks_otherwise_is_not_taken_for_a_worker(tmp_path: Path) -> None:
    asked = pool("bash -c 'echo welcome to {slot}; exec cat'", slots=["a", "b"])
    ended = end_of(Bench(tmp_path / "job", pool=asked).start())
    assert ended.code == 75, ended
    assert "welcome" in ended.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "command: give the command line"),
        ({"command": "python 'x"}, "command: No closing quotation"),
        ({"command": "ssh x python", "slots": ["a", "b"]}, "{slot}"),
        ({"command": "{slot}", "slots": ["a", "-b"]}, "'-b' cannot be the name of a slot"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(json.dumps({"executor": "command", "options": options}))
    bench = Bench(tmp_path / "job")
    ended = end_of(bench.spawn(["-m", "skybatch.cli", "pool", "apply", str(file), "--pool", "x"]))
    assert ended.code == 2
    assert told in ended.err
