"""The wall clock jumps a day ahead and a day back: nothing in a job goes by it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.tools.bench import Bench

DAY_S = 86_400


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that moves the wall clock of a process."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here (`cc`): jumps of the wall clock are NOT tested")
    library = tmp_path_factory.mktemp("shim") / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A file whose text is the offset of the wall clock, in seconds."""
    path = tmp_path / "clock"
    path.write_text("0")
    return path


@pytest.fixture
def moved(clock: Path, shim: Path) -> dict[str, str]:
    """The environment that has processes live by that clock."""
    return {"LD_PRELOAD": str(shim), "WALL_CLOCK_OFFSET": str(clock)}


def jump(clock: Path, seconds: int) -> None:
    fresh = clock.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.rename(clock)


def times(bench: Bench) -> tuple[float, float]:
    with closing(sqlite3.connect(bench.job_folder / "journal.db")) as sql:
        begun, finished = sql.execute("SELECT created_at, finished_at FROM job").fetchone()
    return begun, finished


@pytest.mark.parametrize("offsets", [[DAY_S, -DAY_S], [-DAY_S, DAY_S]])
def test_the_clock_jumps_while_a_job_runs(
    offsets: list[int], tmp_path: Path, clock: Path, moved: dict[str, str]
) -> None:
    bench = Bench(tmp_path, mapper="stumble", mapping_s=0.1, batch_timeout_s=20.0)
    engine = bench.start(env=moved)
    for count, offset in zip((3, 12), offsets, strict=True):
        bench.wait_for_note("ranges.log", count=count)
        jump(clock, offset)
    bench.succeed(engine)
    bench.check(done=True)
    assert set(Counter(bench.ranges_taken_up()).values()) == {1}
    begun, finished = times(bench)
    assert abs(abs(finished - begun) - DAY_S) < DAY_S / 2  # the clock did jump


@pytest.mark.parametrize("offset", [DAY_S, -DAY_S])
def test_the_clock_jumps_between_a_crash_and_the_resume(
    offset: int, tmp_path: Path, clock: Path, moved: dict[str, str]
) -> None:
    undisturbed = Bench(tmp_path / "undisturbed")
    undisturbed.succeed(undisturbed.start())
    bench = Bench(tmp_path / "jumping", mapper="stumble")
    bench.crash(bench.start(failpoint="after-commit:3", env=moved))
    jump(clock, offset)
    bench.succeed(bench.start_resume(env=moved))
    bench.check(done=True)
    assert bench.outputs() == undisturbed.outputs()
