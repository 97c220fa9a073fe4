"""The engine is killed at every place where its work is half done; a resume must make up for it, once and again."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tools import invariants
from tests.tools.bench import ROOT, Bench

# In the order they are passed; "merging" by a thread, behind the mapping.
FIRST = [
    "planning",
    "planned",
    "before-commit",
    "before-commit:3",
    "after-commit",
    "after-commit:4",
    "after-dispatch",
    "after-dispatch:4",
    "after-upload",
    "after-upload:4",
    "merging",
    "merging:3",
    "reducing",
    "reducing:2",
    "before-publish",
    "before-publish:2",
    "after-publish",
    "after-publish:2",
    "published",
    "cleaning",
    "cleaning:2",
    "half-cleaned",
    "half-cleaned:2",
]
SECOND = [
    "planning",
    "planned",
    "before-commit:2",
    "after-commit",
    "after-dispatch",
    "after-upload",
    "reducing",
    "merging:2",
    "reducing:2",
    "before-publish",
    "after-publish",
    "after-publish:2",
    "published",
    "cleaning",
    "half-cleaned",
    "half-cleaned:2",
]
SAMPLED = [
    ("planning", "planned"),
    ("after-commit:4", "merging:2"),
    ("after-upload:4", "before-commit:2"),
    ("before-publish:2", "after-publish"),
    ("after-publish", "cleaning"),
    ("half-cleaned", "half-cleaned"),
]
PUBLISHED = {"after-publish", "after-publish:2", "published", "cleaning", "cleaning:2", "half-cleaned"}


def later(failpoint: str) -> Any:
    """A further passing of a place; left out of the quick suite."""
    return pytest.param(failpoint, marks=pytest.mark.full)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the job puts out when nothing happens to it."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    bench.succeed(bench.start())
    return bench.outputs()


def test_every_failpoint_of_the_source_is_in_these_lists() -> None:
    sources = (ROOT / "skybatch").rglob("*.py")
    named = {name for path in sources for name in re.findall(r'reach\("([a-z-]+)"\)', path.read_text())}
    named -= {"checkpoint", "progress-committed", "composing"}  # see test_reduce_local.py, test_publish_stores.py
    named -= {"half-published"}  # see test_folder_outputs.py
    assert named == {name.partition(":")[0] for name in FIRST + SECOND}


@pytest.mark.parametrize("failpoint", [name if ":" not in name else later(name) for name in FIRST])
def test_a_killed_engine_s_job_is_resumed_to_the_same_bytes(
    failpoint: str, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    bench = Bench(tmp_path)
    bench.crash(bench.start(failpoint=failpoint))
    before, at_risk = bench.inodes(), invariants.uncommitted(bench.look())
    bench.check(done=False)
    if failpoint in PUBLISHED:
        assert before

    bench.succeed(bench.start_resume())

    bench.check(done=True)
    assert bench.outputs() == undisturbed
    assert before.items() <= bench.inodes().items()  # what was published is the same file still
    repeated = {span for span, times in Counter(bench.ranges_taken_up()).items() if times > 1}
    assert repeated <= set(at_risk)


def crash_twice(first: str, second: str, bench: Bench) -> bool:
    """Crash a job, crash its recovery, and recover; whether the recovery came by the second place at all."""
    bench.crash(bench.start(failpoint=first))
    process = bench.start_resume(failpoint=second)
    process.wait(60)
    if process.returncode == 0:
        bench.succeed(process)
        return False
    bench.crash(process)
    bench.check(done=False)
    before = bench.inodes()
    bench.succeed(bench.start_resume())
    assert before.items() <= bench.inodes().items()
    return True


@pytest.mark.parametrize(("first", "second"), SAMPLED)
def test_a_recovery_may_crash_too(first: str, second: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = Bench(tmp_path)
    assert crash_twice(first, second, bench)
    bench.check(done=True)
    assert bench.outputs() == undisturbed


@pytest.mark.full
@pytest.mark.parametrize("first", FIRST)
def test_a_recovery_may_crash_anywhere(first: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Every eleventh place of each recovery, every place in some; all pairs with EVERY_PAIR=1 in the environment."""
    every = 1 if os.environ.get("EVERY_PAIR") else 11
    crashed = 0
    sample = {*SECOND[FIRST.index(first) % every :: every], "half-cleaned"}  # the last place is left for every first
    for second in filter(sample.__contains__, SECOND):
        bench = Bench(tmp_path / second)
        crashed += crash_twice(first, second, bench)
        bench.check(done=True)
        assert bench.outputs() == undisturbed, f"{first}, then {second}"
    assert crashed


def test_an_engine_killed_while_a_custom_reduce_or_cleanup_runs(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Those run in a child process, which must not go on beside the next engine's."""
    bench = Bench(tmp_path, finishing_s=0.5)
    for word, start in (("reducing", bench.start), ("cleaning", bench.start_resume)):
        process = start()
        bench.wait_for_note("phases.log", f"{word}\n")
        process.kill()
        bench.crash(process)
    bench.succeed(bench.start_resume())
    bench.check(done=True)
    assert bench.outputs() == undisturbed
    assert bench.notes("phases.log").split() == ["reducing", "reducing", "cleaning", "cleaning"]


def test_items_in_files_of_their_own_are_written_again_unchanged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json", "text"])
    bench.crash(bench.start(failpoint="after-upload:4"))
    bench.succeed(bench.start_resume())
    bench.check(done=True)
    expected = {f"texts/{index:08d}.txt": f"item {index**2}".encode() for index in range(120)}
    assert {name: data for name, data in bench.outputs().items() if name != "rows.jsonl"} == expected


def test_an_output_that_may_be_replaced_is_replaced_once(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    for failpoint in ("before-publish:2", "after-publish", "published", "half-cleaned"):
        bench = Bench(tmp_path / failpoint, overwrite=True)
        (bench.folder / "out").mkdir(parents=True)
        (bench.folder / "out" / "rows.jsonl").write_bytes(b"old\n")
        (bench.folder / "out" / "words.yaml").write_bytes(b"old\n")
        bench.crash(bench.start(failpoint=failpoint))
        before = bench.inodes()
        whole = {undisturbed["rows.jsonl"], undisturbed["words.yaml"], b"old\n"}
        assert {(bench.folder / "out" / name).read_bytes() for name in before} <= whole
        bench.succeed(bench.start_resume())
        bench.check(done=True)
        assert bench.outputs() == undisturbed
        if failpoint in ("published", "half-cleaned"):
            assert bench.inodes() == before
