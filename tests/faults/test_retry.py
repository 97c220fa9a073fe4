"""Items that failed for good are tried again, alone, and take their places in what was published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch.engine.job import Job, find_job
from skybatch.errors import OutputExists
from skybatch.journal.reading import Reader
from tests.tools import invariants
from tests.tools.servers import use_s3

ITEMS, BATCH = 1000, 50
POISON = tuple(range(37, ITEMS, 101))  # ten of them, scattered

MAPPER = """
import os

POISON = {poison}

def mapped(batch, notes):
    with open(notes, "a") as file:
        file.write("".join(f"{{item['i']}}\\n" for item in batch))
    for item in batch:
        if item["i"] in POISON:
            raise ValueError(f"item {{item['i']}} is bad")
    return [{{"i": item["i"], "text": "x" * (item["i"] % 7)}} for item in batch]
"""

JOB = """
import json, sys
import skybatch, enrich

class_, place, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
writer = getattr(skybatch, class_, None) or getattr(skybatch.io_formats, class_)
output = writer(place, **options.pop("writer", {}))
job = skybatch.Dataset(skybatch.JsonReader("in.jsonl")).map(
    enrich.mapped, batch_size=50, workers=2, mapper_args={"notes": "notes"}, output=output, **options
)
sys.exit(3 if job.progress().items_dead else 0)
"""


@dataclass
class Place:
    """A folder with a job of 1,000 items, ten of them bad."""

    folder: Path
    writer: str = "JsonWriter"
    output: str = "out.jsonl"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "in.jsonl").write_text("".join(f'{{"i": {i}}}\n' for i in range(ITEMS)))
        (self.folder / "job.py").write_text(JOB)
        self.mend(POISON)

    def mend(self, poison: tuple[int, ...] = ()) -> None:
        (self.folder / "enrich.py").write_text(MAPPER.format(poison=poison))

    def run(self, on_error: str = "skip") -> subprocess.CompletedProcess[str]:
        return self.python("job.py", self.writer, self.output, json.dumps({"on_error": on_error, **self.options}))

    def skybatch(self, *arguments: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        return self.python("-m", "skybatch.cli", *arguments, failpoint=failpoint)

    def python(self, *arguments: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "SKYBATCH_FAILPOINT": failpoint}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )

    def mapped(self) -> list[int]:
        """The items given to the mapper, in the order in which it got them; forgotten by the next call."""
        notes = self.folder / "notes"
        items = list(map(int, notes.read_text().split()))
        notes.unlink()
        return items

    @property
    def job(self) -> Job:
        return find_job("last")

    def rows(self) -> list[int]:
        return [json.loads(line)["i"] for line in (self.folder / self.output).read_text().splitlines()]

    def files(self) -> dict[str, bytes]:
        """What is published: a file, or all of a folder."""
        place = self.folder / self.output
        if place.is_file():
            return {"": place.read_bytes()}
        return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


def undisturbed(tmp_path: Path, **kind: Any) -> dict[str, bytes]:
    """What a job without bad items publishes."""
    place = Place(tmp_path / "undisturbed", **kind)
    place.mend()
    assert place.run().returncode == 0
    return place.files()


def codes_of(job: Job) -> dict[str | None, int]:
    """Items by the code that mapped them."""
    counted: dict[str | None, int] = {}
    with Reader(job.folder.journal) as reader:
        for run in reader.runs():
            counted[run.code] = counted.get(run.code, 0) + run.end - run.start + 1
    return counted


def test_bad_items_are_isolated_cheaply_and_repaired_in_their_places(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path)
    place = Place(tmp_path / "job")
    ran = place.run()
    assert ran.returncode == 3, ran.stderr
    assert place.rows() == [i for i in range(ITEMS) if i not in POISON]
    mapped = place.mapped()
    single_retries = 4 * len(POISON)
    print(f"{len(mapped)} items mapped for {ITEMS}, {single_retries} of them tries of single bad items")
    assert len(mapped) - single_retries <= 2.1 * ITEMS
    place.mend()
    old_code = codes_of(place.job)
    ran = place.skybatch("retry", "--code", "current")
    assert ran.returncode == 0, ran.stderr
    assert sorted(place.mapped()) == sorted(POISON)
    assert place.files() == whole
    assert place.job.state == "cleaned"
    assert sorted(codes_of(place.job).values()) == [len(POISON), ITEMS - len(POISON)] and len(old_code) == 1
    invariants.check(place.job.folder.path, done=True)


def test_a_job_that_published_nothing_is_repaired_too(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path)
    place = Place(tmp_path / "job")
    ran = place.run("fail")
    assert ran.returncode == 1 and "skybatch retry" in ran.stderr and not (place.folder / "out.jsonl").exists()
    place.mapped()
    place.mend(POISON[:3])
    assert place.skybatch("retry", "--code", "current").returncode == 1
    assert set(place.mapped()) == set(POISON)
    place.mend()
    assert place.skybatch("retry", "--code", "current").returncode == 0
    assert sorted(place.mapped()) == sorted(POISON[:3])
    assert place.files() == whole


def test_what_still_fails_is_set_aside_again(tmp_path: Path) -> None:
    place = Place(tmp_path / "job")
    place.run()
    place.mend(POISON[:3])
    ran = place.skybatch("retry", "--code", "current")
    assert ran.returncode == 3, ran.stderr
    assert place.rows() == [i for i in range(ITEMS) if i not in POISON[:3]]
    place.mend()
    assert place.skybatch("retry", "--code", "current").returncode == 0
    assert place.rows() == list(range(ITEMS))


def test_with_nothing_set_aside_nothing_happens(tmp_path: Path) -> None:
    place = Place(tmp_path / "job")
    place.mend()
    place.run()
    before = os.stat(place.folder / "out.jsonl")
    ran = place.skybatch("retry", "last")
    assert ran.returncode == 0 and "no items that were set aside" in ran.stderr
    assert os.stat(place.folder / "out.jsonl") == before
    ran = place.skybatch("retry")
    assert ran.returncode == 2 and "there is no job with failed items" in ran.stderr


KINDS: dict[str, dict[str, Any]] = {
    "parquet": {"writer": "ParquetWriter", "output": "out.parquet"},
    "gz": {"output": "out.jsonl.gz"},
    "shards": {"output": "out/", "options": {"writer": {"shard_size": "2 KB"}}},
    "texts": {"writer": "TextWriter", "output": "texts/", "options": {"writer": {"column": "text"}}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_output_is_repaired(kind: str, tmp_path: Path) -> None:
    whole = undisturbed(tmp_path, **KINDS[kind])
    place = Place(tmp_path / "job", **KINDS[kind])
    assert place.run().returncode == 3
    assert place.files() != whole
    place.mend()
    ran = place.skybatch("retry", "--code", "current")
    assert ran.returncode == 0, ran.stderr
    assert place.files() == whole


@pytest.mark.parametrize("failpoint", ["before-publish", "after-publish", "after-commit", "reducing"])
@pytest.mark.parametrize("kind", ["jsonl", "shards"])
def test_a_crash_in_a_retry_leaves_what_was_there_or_all_of_the_new(kind: str, failpoint: str, tmp_path: Path) -> None:
    kinds = {"jsonl": {}, **KINDS}
    whole = undisturbed(tmp_path, **kinds[kind])
    place = Place(tmp_path / "job", **kinds[kind])
    place.run()
    before = place.files()
    place.mend()
    assert place.skybatch("retry", "--code", "current", failpoint=failpoint).returncode == -9
    if kind == "jsonl":
        assert place.files() in (before, whole)
    ran = place.skybatch("resume", "last")
    assert ran.returncode == 0, ran.stderr
    assert place.files() == whole


def changed(path: Path) -> None:
    path.write_text("theirs")


@pytest.mark.parametrize("change", [changed, os.unlink])
def test_what_someone_changed_since_is_left_alone(change: Callable[[Path], None], tmp_path: Path) -> None:
    place = Place(tmp_path / "job")
    place.run()
    output = place.folder / "out.jsonl"
    change(output)
    place.mend()
    ran = place.skybatch("retry", "--code", "current")
    if change is changed:
        assert ran.returncode == 73 and output.read_text() == "theirs", ran.stderr
        output.unlink()
        assert place.skybatch("resume", "last").returncode == 0
    assert place.rows() == list(range(ITEMS))


@pytest.mark.parametrize("writer", [{}, {"shard_size": "2 KB"}])
def test_an_object_is_replaced_on_the_condition_that_it_is_ours(
    writer: dict[str, Any], moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skybatch.formats import stores

    use_s3(moto, monkeypatch)
    output = f"{moto_bucket}/out/" if writer else f"{moto_bucket}/out.jsonl"
    place = Place(tmp_path / "job", output=output, options={"writer": writer})
    assert place.run().returncode == 3
    place.mend()
    ran = place.skybatch("retry", "--code", "current")
    assert ran.returncode == 0, ran.stderr
    store = stores.of(output)
    parts = sorted(info.path for info in store.list(output) if info.path.endswith(".jsonl")) if writer else [output]
    rows = [json.loads(line)["i"] for path in parts for line in store.read(path).splitlines()]
    assert rows == list(range(ITEMS))


def test_an_object_that_someone_changed_since_is_left_alone(
    moto: str, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skybatch.formats import stores
    from skybatch.formats.stores.base import ANYTHING

    use_s3(moto, monkeypatch)
    output = f"{moto_bucket}/out.jsonl"
    place = Place(tmp_path / "job", output=output)
    place.run()
    stores.of(output).put(output, b"theirs", replaces=ANYTHING)
    place.mend()
    assert place.skybatch("retry", "--code", "current").returncode == 73
    assert stores.of(output).read(output) == b"theirs"


def test_retry_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "job")
    place.run()
    place.mend()
    monkeypatch.chdir(place.folder)
    assert skybatch.retry(code="current").state == "cleaned"
    assert place.rows() == list(range(ITEMS))
    with pytest.raises(OutputExists):
        skybatch.Dataset(skybatch.JsonReader("in.jsonl")).map(same, output=skybatch.JsonWriter("out.jsonl"))


def same(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return batch


def test_what_failed_for_good_is_exported_with_its_items(tmp_path: Path) -> None:
    place = Place(tmp_path / "job")
    place.run()
    ran = place.skybatch("errors", "last", "--export", "failed.jsonl")
    assert ran.returncode == 0, ran.stderr
    letters = [json.loads(line) for line in (place.folder / "failed.jsonl").read_text().splitlines()]
    assert [letter["index"] for letter in letters] == list(POISON)
    assert all(letter["item"] == {"i": letter["index"]} for letter in letters)
    first = letters[0]
    assert first["class"] == "mapper" and first["attempts"] == 4 and "item 37 is bad" in first["message"]
    assert "enrich.py" in first["traceback"] and first["code"]
    kept = place.job.folder.path / "errors.jsonl"
    assert kept.read_bytes() == (place.folder / "failed.jsonl").read_bytes()
    shown = place.skybatch("errors", "last")
    assert "1 set aside, mapper: ValueError: item 37 is bad" in shown.stderr
    place.mend()
    place.skybatch("retry", "--code", "current")
    assert not kept.exists()
