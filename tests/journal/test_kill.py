"""SIGKILL at any instant leaves a whole number of commits, in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skybatch.journal import Journal

COMMIT = """
import sys
from pathlib import Path
from tests.journal.support import new_journal, won
journal = new_journal(Path(sys.argv[1]), length=None)
for start in range(0, 10**9, 10):
    changes = won(start, start + 4, 5)
    second = won(start + 5, start + 9, 5)
    changes.won += second.won
    changes.segments += second.segments
    journal.commit(changes)
    print(start, flush=True)
"""


@pytest.mark.parametrize("commits", [1, 7, 150, 700])
def test_a_killed_writer_leaves_a_prefix_of_its_commits(tmp_path: Path, commits: int) -> None:
    path = tmp_path / "journal.db"
    command = [sys.executable, "-c", COMMIT, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(commits)]
        process.kill()
        told += [int(line) for line in process.stdout if line.endswith("\n")]
    with Journal.open(path) as journal:
        starts = [run.start for run, _ in journal.winners()]
    assert starts == list(range(0, 5 * len(starts), 5))
    assert len(starts) % 2 == 0  # both runs of a commit, or neither
    assert told[-1] <= starts[-1] - 5 <= told[-1] + 10  # all that was told, and at most one more
