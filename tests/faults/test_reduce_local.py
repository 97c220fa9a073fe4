"""The merge on local disk: gone on with where it was left, and results that were lost meanwhile mapped again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.bench import SCRIPT, Bench

EVERY_PIECE = """
from skybatch.engine import merge_behind, reduction
reduction.CHECKPOINT_S = merge_behind.TOGETHER_S = 0
"""
PATCHED_RESUME = EVERY_PIECE + "from skybatch.cli.main import main; main()"
PATCHED_SCRIPT = EVERY_PIECE + f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
TELLS_ONE_RESUME = """
from skybatch.engine import revoking
revoking.TOLD_MAX = 1
from skybatch.cli.main import main; main()"""
EXPECTED = b"".join(b'{"id":%d,"word":"item %d"}\n' % (index, index**2) for index in range(120))


def progress(bench: Bench) -> dict[str, Any] | None:
    """What the journal says of the first output's merge."""
    with closing(sqlite3.connect(bench.job_folder / "journal.db")) as sql:
        (text,) = sql.execute("SELECT progress FROM outputs WHERE idx = 0").fetchone()
    return json.loads(text) if text else None


def segments(bench: Bench) -> list[Path]:
    """The first output's segments, by their first items."""
    return sorted((bench.folder / "out").glob(".sky_batch_tmp/*/rows.jsonl/*.seg"))


def span_of(path: Path) -> tuple[int, int]:
    start, end, _ = path.name.split("-")
    return int(start), int(end)


def mapped_but_not_merged(folder: Path, **options: Any) -> Bench:
    """A job all of whose ranges are won; what was merged is forgotten."""
    bench = Bench(folder, outputs=["json"], **options)
    bench.crash(bench.start(failpoint="reducing"))
    assert progress(bench) is None
    return bench


def test_a_merge_goes_on_where_its_journalled_offset_is(tmp_path: Path) -> None:
    """Shown by deleting what had been merged: whoever began anew would miss it."""
    bench = mapped_but_not_merged(tmp_path)
    for _ in range(2):
        before = progress(bench)
        bench.crash(bench.spawn(["-c", PATCHED_RESUME, "resume", bench.job_id], failpoint="checkpoint"))
        after = progress(bench)
        assert after is not None and after["next"] > (before or {"next": 0})["next"]
        with next((bench.folder / "out").glob(".sky_batch_tmp/*/rows.jsonl/output.part")).open("ab") as staged:
            staged.write(b"what was not durable yet")
        for path in segments(bench):
            if span_of(path)[1] < after["next"]:
                path.unlink()
    bench.succeed(bench.start_resume())
    assert bench.outputs()["rows.jsonl"] == EXPECTED
    bench.check(done=True)
    assert set(Counter(bench.ranges_taken_up()).values()) == {1}


def test_a_merge_behind_a_resumed_job_goes_on_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json"], mapping_s=0.1)
    bench.crash(bench.spawn(["-c", PATCHED_SCRIPT, *bench.script[1:]], failpoint="progress-committed"))
    first = progress(bench)
    assert first is not None and 0 < first["next"] < 120
    for path in segments(bench):
        if span_of(path)[1] < first["next"]:
            path.unlink()
    bench.crash(bench.spawn(["-c", PATCHED_RESUME, "resume", bench.job_id], failpoint="progress-committed"))
    second = progress(bench)
    assert second is not None and second["next"] > first["next"]
    bench.succeed(bench.start_resume())
    assert bench.outputs() == {"rows.jsonl": EXPECTED}


@pytest.mark.parametrize("change", ["replaced", "shorter"])
def test_an_unfinished_file_that_is_not_the_one_is_begun_anew(change: str, tmp_path: Path) -> None:
    bench = mapped_but_not_merged(tmp_path)
    bench.crash(bench.spawn(["-c", PATCHED_RESUME, "resume", bench.job_id], failpoint="checkpoint:2"))
    staged = next((bench.folder / "out").glob(".sky_batch_tmp/*/rows.jsonl/output.part"))
    if change == "replaced":
        data = staged.read_bytes()
        staged.rename(staged.with_name("elsewhere"))
        staged.write_bytes(b"x" * len(data))
    else:
        staged.write_bytes(b"")
    bench.succeed(bench.start_resume())
    assert bench.outputs()["rows.jsonl"] == EXPECTED


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(place: int) -> Callable[[Path], None]:
    def altered(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

    return altered


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "truncated": cut,
    "a byte of the index": flip(-30),
    "a byte of a result": flip(5),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_lost_results_are_mapped_again_loudly(damage: str, tmp_path: Path) -> None:
    bench = mapped_but_not_merged(tmp_path)
    third, last = segments(bench)[2], segments(bench)[-1]
    for path in {third, last}:
        DAMAGES[damage](path)
    ended = bench.succeed(bench.start_resume())
    assert bench.outputs()["rows.jsonl"] == EXPECTED
    bench.check(done=True)
    again = {(span.start, span.end) for span, times in Counter(bench.ranges_taken_up()).items() if times > 1}
    assert {start for start, _ in again} == {
        start for path in {third, last} for start in range(span_of(path)[0], span_of(path)[1] + 1, 4)
    }
    for path in {third, last}:
        assert f"{path}: " in ended.err and "are mapped again" in ended.err
    with closing(sqlite3.connect(bench.job_folder / "journal.db")) as sql:
        told = sql.execute("SELECT kind, message FROM failures").fetchall()
    assert {kind for kind, _ in told} == {"storage"} and any(third.name in message for _, message in told)


def test_a_job_with_several_outputs_has_lost_ranges_mapped_again_for_all_of_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json", "yaml", "more0"])
    bench.crash(bench.start(failpoint="reducing:3"))  # the first two are published
    before = bench.inodes()
    assert len(before) == 2
    damaged = sorted((tmp_path / "out").glob(".sky_batch_tmp/*/more0.jsonl/*.seg"))[1]
    flip(0)(damaged)
    bench.succeed(bench.start_resume())
    assert bench.inodes() == before
    assert bench.outputs()["more0.jsonl"] == b"".join(b'{"parity":%d}\n' % (index % 2) for index in range(120))
    bench.check(done=True)


def test_a_custom_writer_s_missing_batch_files_are_written_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json", "yaml"])
    bench.crash(bench.start(failpoint="reducing:2"))
    missing = sorted((tmp_path / "out").glob(".sky_batch_tmp/*/words.yaml/*.jsonl"))[7]
    missing.unlink()
    ended = bench.succeed(bench.start_resume())
    assert "are mapped again" in ended.err and missing.name in ended.err
    words = yaml.safe_load((tmp_path / "out" / "words.yaml").read_text())
    assert [row["word"] for row in words] == [f"item {index**2}" for index in range(120)]
    bench.check(done=True)


def test_of_many_lost_results_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, outputs=["json", "yaml"])
    bench.crash(bench.start(failpoint="reducing:2"))
    for path in sorted((tmp_path / "out").glob(".sky_batch_tmp/*/words.yaml/*.jsonl"))[:-1]:
        path.unlink()
    ended = bench.succeed(bench.spawn(["-c", TELLS_ONE_RESUME, "resume", bench.job_id]))
    with closing(sqlite3.connect(bench.job_folder / "journal.db")) as sql:
        (lost,) = sql.execute("SELECT count(*) FROM failures WHERE kind = 'storage'").fetchone()
    assert lost > 1 and ended.err.count("are mapped again\n") == 1
    assert f"skybatch: {lost - 1} more lost results are mapped" in ended.err
    bench.check(done=True)


def test_an_engine_killed_after_the_revocation_does_the_rest(tmp_path: Path) -> None:
    bench = mapped_but_not_merged(tmp_path)
    segments(bench)[2].unlink()
    bench.crash(bench.start_resume(failpoint="before-commit"))
    assert bench.look() is not None
    bench.check(done=False)
    bench.succeed(bench.start_resume())
    assert bench.outputs()["rows.jsonl"] == EXPECTED
    bench.check(done=True)
