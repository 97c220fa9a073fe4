"""Loop, scheduler and journal together, over engines that die; see `core`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.core import Core


def run(seeds: range, folder: Path) -> int:
    crashes = 0
    for seed in seeds:
        core = Core(seed, folder)
        try:
            core.run()
        except AssertionError as error:
            error.add_note(f"seed {seed}, {core.length} items in batches of {core.batch_size}")
            raise
        crashes += core.crashes
    return crashes


def test_nothing_is_lost_or_doubled_by_engines_that_die(tmp_path: Path) -> None:
    assert run(range(15), tmp_path) > 0


@pytest.mark.full
def test_nor_in_hundreds_of_jobs(tmp_path: Path) -> None:
    crashes = run(range(100, 300), tmp_path)
    print(f"200 jobs over {crashes} crashes of their engines")
    assert crashes > 150
