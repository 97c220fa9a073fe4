"""Journals that are lost or damaged are found so, and made anew from what is stored; and what `fsck` finds."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from skybatch.cli.exits import DAMAGED
from skybatch.engine.folder import JobFolder
from skybatch.engine.fsck import fsck
from skybatch.formats import batchfiles
from tests.tools.bench import Bench, end_of
from tests.tools.servers import use_s3

ITEMS = 60


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), items=ITEMS)
    bench.succeed(bench.start())
    return bench.outputs()


def crashed(tmp_path: Path, failpoint: str, **options: object) -> Bench:
    bench = Bench(tmp_path, items=ITEMS, **options)
    bench.crash(bench.start(failpoint=failpoint))
    return bench


def command(bench: Bench, *arguments: str) -> tuple[int, str]:
    ended = end_of(bench.spawn(["-m", "skybatch.cli", *arguments]))
    return ended.code, ended.out + ended.err


def without_wal(journal: Path) -> None:
    """What the engine had not moved into the file when it died is moved now."""
    with sqlite3.connect(journal) as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for ending in ("-wal", "-shm"):
        Path(f"{journal}{ending}").unlink(missing_ok=True)


def newer(journal: Path) -> None:
    with sqlite3.connect(journal) as sql:
        sql.execute("PRAGMA user_version = 99")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: os.truncate(path, 0),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "random bytes": lambda path: path.write_bytes(os.urandom(path.stat().st_size)) and None,
    "from a newer version": newer,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stage", ["after-commit:3", "reducing", "before-publish", "after-publish"])
def test_a_lost_journal_is_made_anew(
    damage: str, stage: str, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    bench = crashed(tmp_path, stage)
    without_wal(bench.job_folder / "journal.db")
    done = {span for won in bench.look().won for span in range(won.start, won.end + 1)}
    DAMAGES[damage](bench.job_folder / "journal.db")
    code, said = command(bench, "resume", bench.job_id)
    assert code == DAMAGED and f"skybatch rebuild {bench.job_id}" in said, said
    code, said = command(bench, "rebuild", str(bench.folder / "out" / "rows.jsonl"))
    assert code == 0, said
    again = bench.look()
    assert again.state == "paused"
    assert {item for won in again.won for item in range(won.start, won.end + 1)} >= done
    assert fsck(JobFolder(bench.job_folder), deep=True).problems == []
    mapped = len(bench.ranges_taken_up())
    bench.succeed(bench.start_resume())
    assert bench.outputs() == undisturbed
    assert len(bench.ranges_taken_up()) - mapped <= (ITEMS - len(done)) // 4 + 1
    assert list(bench.job_folder.glob("journal.db.damaged-1")) or damage == "deleted"


def test_a_whole_journal_is_not_made_anew(tmp_path: Path) -> None:
    bench = crashed(tmp_path, "reducing")
    without_wal(bench.job_folder / "journal.db")
    before = (bench.job_folder / "journal.db").read_bytes()
    code, said = command(bench, "rebuild", bench.job_id)
    assert code == 2 and "is whole; nothing was changed" in said
    assert (bench.job_folder / "journal.db").read_bytes() == before


def test_without_its_spec_or_its_code_no_job_is_rebuilt(tmp_path: Path) -> None:
    bench = crashed(tmp_path, "reducing")
    job_id, folder = bench.job_id, bench.job_folder
    (folder / "journal.db").unlink()
    spec = (folder / "spec.json").rename(bench.folder / "spec.json")
    code, said = command(bench, "rebuild", job_id)
    assert code == DAMAGED and "spec.json: missing" in said, said
    spec.rename(folder / "spec.json")
    (folder / "code").rename(bench.folder / "code")
    code, said = command(bench, "rebuild", job_id)
    assert code == DAMAGED and "never taken from anywhere else" in said, said


def test_an_output_that_no_job_writes_to_is_told(tmp_path: Path) -> None:
    bench = crashed(tmp_path, "reducing")
    code, said = command(bench, "rebuild", "nowhere.jsonl")
    assert code == 2 and "no job of" in said


@pytest.mark.full
@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_job_in_a_store_is_rebuilt(
    damage: str, moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_s3(moto, monkeypatch)
    bench = crashed(tmp_path, "reducing", outputs=["parquet"], store=moto_bucket)
    without_wal(bench.job_folder / "journal.db")
    DAMAGES[damage](bench.job_folder / "journal.db")
    mapped = len(bench.ranges_taken_up())
    assert command(bench, "rebuild", bench.job_id)[0] == 0
    assert fsck(JobFolder(bench.job_folder), deep=True).problems == []
    bench.succeed(bench.start_resume())
    assert len(bench.ranges_taken_up()) == mapped
    bench.check(done=True)


# What fsck finds


def segment_of(bench: Bench) -> Path:
    place = Path(batchfiles.folder(str(bench.folder / "out" / "rows.jsonl"), bench.job_id))
    return min(place.glob("*.seg"))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def sql(bench: Bench, statement: str) -> None:
    with sqlite3.connect(bench.job_folder / "journal.db") as connection:
        connection.execute("DROP TRIGGER runs_are_disjoint")
        connection.execute(statement)


CORRUPTIONS: dict[str, tuple[Callable[[Bench], object], str]] = {
    "a segment is missing": (lambda bench: segment_of(bench).unlink(), "not there"),
    "a segment is truncated": (lambda bench: os.truncate(segment_of(bench), 40), "40 bytes, and had"),
    "a stored byte is flipped": (lambda bench: flip(segment_of(bench), 5), "do not match their checksum"),
    "a byte of an index is flipped": (
        lambda bench: flip(segment_of(bench), segment_of(bench).stat().st_size - 30),
        "does not match its checksum",
    ),
    "runs overlap": (
        lambda bench: sql(bench, "INSERT INTO runs (start, end, size, state, attempt) VALUES (1, 2, 1, 'dead', 1)"),
        "others are journalled for some of them too",
    ),
    "a run lies beyond the dataset": (
        lambda bench: sql(bench, "INSERT INTO runs (start, end, size, state, attempt) VALUES (90, 90, 1, 'dead', 1)"),
        "the dataset has 60 items",
    ),
    "a segment's row is gone": (lambda bench: sql(bench, "DELETE FROM segments"), "is gone"),
    "an output's state is another's": (
        lambda bench: sql(bench, "UPDATE outputs SET state = 'cleaned'"),
        "is cleaned; the job is reducing",
    ),
    "a winner was split": (
        lambda bench: sql(bench, "INSERT INTO splits (start, end, at) VALUES (0, 3, 0)"),
        "were split before",
    ),
    "others may write to the folder": (lambda bench: bench.job_folder.chmod(0o777), "others may write to it"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_every_corruption_is_found(corruption: str, tmp_path: Path) -> None:
    bench = crashed(tmp_path, "reducing")
    without_wal(bench.job_folder / "journal.db")
    assert fsck(JobFolder(bench.job_folder), deep=True).problems == []
    corrupt, told = CORRUPTIONS[corruption]
    corrupt(bench)
    problems = fsck(JobFolder(bench.job_folder), deep=True).problems
    assert any(told in problem.what and problem.remedy for problem in problems), problems


def test_fsck_tells_problems_with_what_mends_them(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    bench = crashed(tmp_path, "reducing")
    assert command(bench, "fsck", bench.job_id)[0] == 0
    segment_of(bench).unlink()
    code, said = command(bench, "fsck", bench.job_id)
    assert code == 1 and "to mend it: skybatch resume" in said, said
    code, said = command(bench, "fsck", bench.job_id, "--json")
    assert json.loads(said)["problems"][0]["remedy"].startswith("skybatch resume")
    bench.succeed(bench.start_resume())
    assert bench.outputs() == undisturbed
    assert command(bench, "fsck", "last")[0] == 0


def test_an_exported_job_tells_what_happened(tmp_path: Path) -> None:
    bench = Bench(tmp_path, items=ITEMS)
    bench.succeed(bench.start())
    code, said = command(bench, "export", "last")
    exported = json.loads(said)
    assert code == 0
    assert exported["job"]["items_done"] == ITEMS and exported["job"]["state"] == "cleaned"
    assert sum(exported["codes"].values()) == sum(exported["attempts"].values()) == ITEMS
    assert command(bench, "export", "last", "-o", str(tmp_path / "job.json"))[0] == 0
    assert json.loads((tmp_path / "job.json").read_text()).keys() == exported.keys()
