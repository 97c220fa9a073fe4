"""The writers in whole jobs: real workers, kills, retries, a real object store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skybatch import CsvWriter, ImageWriter, JsonWriter, TextWriter, YamlWriter
from skybatch.formats import stores
from skybatch.formats.base import OutputWriter
from tests.api.scripts import command, run, run_well, write
from tests.tools.mapping import map_and_fail, map_items, write_items

Batch = list[dict[str, Any]]

SCRIPT = """
    import sys
    import numpy, skybatch
    from skybatch import CsvWriter, Dataset, ImageWriter, JsonReader, JsonWriter, TextWriter, YamlWriter

    def enrich(batch):
        results = []
        for item in batch:
            number = item["id"]
            result = {"id": number, "vector": numpy.arange(number % 5, dtype="f4"), "text": f"text {number}, long"}
            result["name"] = f"{number % 7}/{number}"
            result["image"] = numpy.full((4, 4), number % 256, "u1")
            if number % 97 == 96:
                result["late"] = b"x"
            results.append(result)
        return results

    if __name__ == "__main__":
        out, keep = sys.argv[1], ["id", "vector", "text"]
        Dataset(JsonReader(sys.argv[2])).map(enrich, batch_size=8, workers=2, output=[
            JsonWriter(f"{out}/packed.jsonl.gz", column=keep),
            JsonWriter(f"{out}/shards", column=keep, shard_size="5KB", compression="zstd"),
            CsvWriter(f"{out}/all.csv"),
            CsvWriter(f"{out}/some.tsv", column=keep),
            YamlWriter(f"{out}/list.yaml", column=["id", "vector"]),
            TextWriter(f"{out}/texts/", name_column="name"),
            ImageWriter(f"{out}/images/", format="webp"),
        ])
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A job with every writer."""
    write_items(tmp_path / "few.jsonl", 40)
    write_items(tmp_path / "many.jsonl", 400)
    return write(tmp_path, "job.py", SCRIPT)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.full
def test_a_job_killed_on_the_way_and_while_publishing_gives_the_same_files(script: Path) -> None:
    run_well(script, "undisturbed", "many.jsonl")
    killed = run(script, "disturbed", "many.jsonl", SKYBATCH_FAILPOINT="after-commit:3")
    assert killed.returncode == -9, killed.stderr
    job_id = killed.stderr.split()[2]
    for failpoint in ("merging:20", "before-publish:2", "after-publish:4"):
        again = command("resume", job_id, cwd=script.parent, SKYBATCH_FAILPOINT=failpoint)
        assert again.returncode == -9, again.stderr
    ended = command("resume", job_id, cwd=script.parent)
    assert ended.returncode == 0, ended.stderr
    expected = tree(script.parent / "undisturbed")
    assert len(expected) > 800 and tree(script.parent / "disturbed") == expected


@pytest.mark.full
def test_an_object_store_gets_the_same_files(script: Path, moto_bucket: str) -> None:
    run_well(script, "local", "few.jsonl")
    run_well(script, f"{moto_bucket}/out", "few.jsonl")
    store = stores.of(moto_bucket)
    found = {info.path.removeprefix(f"{moto_bucket}/out/"): store.read(info.path) for info in store.list(moto_bucket)}
    assert found == tree(script.parent / "local")


def named_alike(batch: Batch) -> Batch:
    return [{"text": str(item["id"]), "name": "../x" if item["id"] == 13 else item["id"] % 30} for item in batch]


def test_twins_and_names_that_will_not_do_are_set_aside_and_all_others_written(tmp_path: Path) -> None:
    """The range of a bad name is halved and tried again: its other items keep the names they have claimed."""
    writer = TextWriter(str(tmp_path / "texts"), name_column="name")
    outcome = map_items(tmp_path, named_alike, workers=2, output=writer, on_error="skip", max_retries=0)
    written = {int(path.name): int(path.read_text()) for path in (tmp_path / "texts").iterdir() if path.suffix == ""}
    assert sorted(written) == [name for name in range(30) if name != 13]
    assert all(item % 30 == name for name, item in written.items())
    assert outcome.job.progress().items_dead == 11
    last = {failure.item: failure.message for failure in outcome.failures}
    assert "key 'name': '../x' is no file name" in last[13]
    for item in range(10):
        loser, winner = sorted((item, item + 30), key=lambda twin: twin == written[item])
        assert f"is the name of item {winner}'s file already" in last[loser]


def plain(batch: Batch) -> Batch:
    return batch


@pytest.mark.parametrize("writer", [JsonWriter, CsvWriter, YamlWriter, TextWriter, ImageWriter])
def test_a_column_that_no_result_has_ends_the_job_at_once(writer: type[OutputWriter], tmp_path: Path) -> None:
    output = writer(str(tmp_path / "out"), column="ids")  # type: ignore[call-arg]
    outcome = map_and_fail(tmp_path, plain, 4000, output=output, max_retries=3)
    assert "did you mean 'id'?" in str(outcome.error)
    assert outcome.job.progress().items_dead <= 2 and len(outcome.failures) < 60


def test_job_files_know_the_writers(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "one"}\n')
    (tmp_path / "own.py").write_text("def same(batch):\n    return batch\n")
    outputs = [
        {"type": "json", "path": "a", "shard_size": "1MB"},
        {"type": "csv", "path": "b.csv", "column": "text", "include_header": False},
        {"type": "yaml", "path": "c.yaml"},
        {"type": "text", "path": "d/"},
    ]
    job = {"input": {"type": "json", "path": "in.jsonl"}, "mapper": "own.py:same", "output": outputs}
    ended = command("run", str(write(tmp_path, "job.yaml", json.dumps(job))), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "a/part-00000.jsonl").read_text() == '{"id":1,"text":"one"}\n'
    assert (tmp_path / "b.csv").read_text() == "one\n"
    assert (tmp_path / "c.yaml").read_text() == "- id: 1\n  text: one\n"
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["00000000.txt", "manifest.json"]
