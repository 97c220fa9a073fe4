"""What goes wrong with Sky Batch, and must not here. Each test names one trap."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from skybatch import Dataset, ImageWriter, JobFailed, JsonReader, JsonWriter
from skybatch.errors import OutputExists
from tests.api import mappers
from tests.api.scripts import command, run, run_well, write

pytestmark = pytest.mark.full  # whole jobs, scripts and crashes


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(10)))
    return path


CUSTOM = """
    import skybatch
    from dataclasses import dataclass
    from skybatch import io_formats, registry, utils

    @registry.INPUT_READER_REGISTRY.type_register(name="counting")
    @dataclass
    class Count(io_formats.InputReader):
        def __len__(self):
            return 6
        def download_batch(self, start, end, cache_dir):
            return [{"i": i} for i in range(start, end + 1)]

    @registry.OUTPUT_WRITER_REGISTRY.type_register(name="merged")
    @dataclass
    class Merged(io_formats.OutputWriter):
        def upload_batch(self, results, start, end, job_id):
            path = utils.get_batch_path(self.path, start, end, job_id)
            utils.save_jsonl_to_cloud([{"version": VERSION, **r} for r in results], path)
            return path
        def reduce_results(self, job_id):
            utils.concatenate_batches_to_output(self.path, job_id)
        def cleanup(self, job_id):
            utils.delete_batch_files(self.path, job_id)

    VERSION = 1

    def same(batch):
        return batch

    print("the script runs")
    skybatch.Dataset(Count("")).map(same, batch_size=2, workers=1, output=Merged("out.jsonl"), overwrite=True)
"""


def versions(path: Path) -> list[int]:
    return [json.loads(line)["version"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("place", ["cleaning", "half-cleaned"])
def test_a_crash_during_cleanup_then_a_resume_leaves_the_output_alone(place: str, tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", CUSTOM)
    assert run(script, SKYBATCH_FAILPOINT=place).returncode == -signal.SIGKILL
    before = (tmp_path / "out.jsonl").stat()
    assert versions(tmp_path / "out.jsonl") == [1] * 6
    assert command("resume", "last", cwd=tmp_path).returncode == 0
    after = (tmp_path / "out.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert not (tmp_path / ".sky_batch_tmp").exists()


def test_the_script_is_not_run_again_in_workers(tmp_path: Path) -> None:
    ended = run_well(write(tmp_path, "script.py", CUSTOM))
    assert ended.stdout == "the script runs\n"
    logs = "".join(path.read_text() for path in (tmp_path / "home" / "jobs").glob("*/logs/*.log"))
    assert "the script runs" not in logs


def test_an_edited_class_is_used_by_the_next_job(tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", CUSTOM)
    run_well(script)
    script.write_text(script.read_text().replace("VERSION = 1", "VERSION = 2"))
    run_well(script)
    assert versions(tmp_path / "out.jsonl") == [2] * 6


def test_a_job_keeps_the_class_it_was_started_with(tmp_path: Path) -> None:
    script = write(tmp_path, "script.py", CUSTOM)
    assert run(script, SKYBATCH_FAILPOINT="after-commit:2").returncode == -signal.SIGKILL
    script.write_text(script.read_text().replace("VERSION = 1", "VERSION = 2"))
    assert command("resume", cwd=tmp_path).returncode == 0
    assert versions(tmp_path / "out.jsonl") == [1] * 6


def test_a_module_beside_the_script_is_found_by_workers(tmp_path: Path) -> None:
    write(tmp_path, "beside.py", "def better(batch):\n    return [{'better': item['i'] + 1} for item in batch]\n")
    text = CUSTOM.replace("return batch\n", "import beside\n        return beside.better(batch)\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = write(tmp_path, "script.py", text)
    assert run(script, cwd=elsewhere).returncode == 0
    assert [json.loads(line)["better"] for line in (elsewhere / "out.jsonl").read_text().splitlines()] == list(
        range(1, 7)
    )


def test_a_mistyped_column_fails_and_names_the_nearest(numbers: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="no 'twise'; did you mean 'twice'"):
        Dataset(JsonReader(str(numbers))).map(
            mappers.double, workers=1, max_retries=0, output=JsonWriter(str(tmp_path / "out.jsonl"), column="twise")
        )
    assert not (tmp_path / "out.jsonl").exists()


def test_a_result_without_an_image_fails_its_item(numbers: Path, tmp_path: Path) -> None:
    def draw(batch: list[dict[str, object]]) -> list[dict[str, object]]:
        from PIL import Image

        return [{"image": Image.new("L", (2, 2)) if item["i"] != 3 else None} for item in batch]

    folder = tmp_path / "images"
    with pytest.raises(JobFailed, match="item 3: the result has no image"):
        Dataset(JsonReader(str(numbers))).map(draw, workers=1, max_retries=0, output=ImageWriter(str(folder)))
    assert not (folder / "manifest.json").exists()


def test_images_are_complete_when_the_manifest_is_there(numbers: Path, tmp_path: Path) -> None:
    def draw(batch: list[dict[str, int]]) -> list[dict[str, object]]:
        from PIL import Image

        return [{"image": Image.new("L", (2, 2), item["i"])} for item in batch]

    from PIL import Image

    folder = tmp_path / "images"
    Dataset(JsonReader(str(numbers))).map(draw, batch_size=3, output=ImageWriter(str(folder)))
    assert sorted(path.name for path in folder.iterdir()) == [f"{i:08d}.png" for i in range(10)] + ["manifest.json"]
    with Image.open(folder / "00000007.png") as image:
        assert image.getpixel((0, 0)) == 7


@pytest.mark.parametrize("output", ["folder/", "folder"])
def test_a_folder_in_the_way_is_seen_and_nothing_is_asked(output: str, numbers: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "theirs.txt").write_text("theirs")
    with pytest.raises(OutputExists, match="folder"):
        Dataset(JsonReader(str(numbers))).map(mappers.double, output=ImageWriter(str(tmp_path / output)))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["theirs.txt"]


def test_a_wrong_number_of_results_is_an_error(numbers: Path, tmp_path: Path) -> None:
    def fewer(batch: list[dict[str, int]]) -> list[dict[str, int]]:
        return batch[1:]

    with pytest.raises(JobFailed, match=r"item \d: 0 results for 1 item .*one_to_one=False"):
        Dataset(JsonReader(str(numbers))).map(
            fewer, batch_size=5, workers=1, max_retries=0, output=JsonWriter(str(tmp_path / "out.jsonl"))
        )


def test_reading_a_range_costs_its_own_bytes(tmp_path: Path) -> None:
    """A range of a large file is read without what lies before and behind it."""
    path = tmp_path / "large.jsonl"
    path.write_text("".join(f'{{"i": {i}, "pad": "{"x" * 100}"}}\n' for i in range(50_000)))
    reader = JsonReader(str(path))
    index = tmp_path / "index"
    index.mkdir()
    assert reader.build_index(str(index)) == 50_000
    reader.open_index(str(index))
    assert reader._index is not None
    first, last = reader._index.before(30_000), reader._index.after(30_009)
    assert reader._index.offsets[last] - reader._index.offsets[first] < 200_000
    assert [item["i"] for item in reader.download_batch(30_000, 30_009, "")] == list(range(30_000, 30_010))


def test_two_jobs_in_one_process_keep_their_own_classes(tmp_path: Path) -> None:
    """Also inline, where the worker shares the process: a name registered again does not reach into another job."""
    script = write(
        tmp_path,
        "twice.py",
        """
        import skybatch
        from dataclasses import dataclass
        from skybatch import io_formats, registry

        def job(number):
            @registry.INPUT_READER_REGISTRY.type_register(name="json")
            @dataclass
            class Reader(io_formats.InputReader):
                number: int
                def __len__(self):
                    return 3
                def download_batch(self, start, end, cache_dir):
                    return [{"n": self.number * 10 + i} for i in range(start, end + 1)]

            def same(batch, number=number):
                return [{**item, "m": number} for item in batch]

            for executor in ("inline", "local"):
                out = skybatch.JsonWriter(f"{executor}-{number}.jsonl")
                skybatch.Dataset(Reader("", number=number)).map(same, executor=executor, workers=1, output=out)

        job(1)
        job(2)
        """,
    )
    run_well(script)
    for executor in ("inline", "local"):
        for number in (1, 2):
            rows = [json.loads(line) for line in (tmp_path / f"{executor}-{number}.jsonl").read_text().splitlines()]
            assert rows == [{"n": number * 10 + i, "m": number} for i in range(3)]


def test_a_map_that_would_run_again_in_workers_is_refused_there(tmp_path: Path) -> None:
    text = CUSTOM.replace("    VERSION = 1\n", "").replace(
        "    skybatch.Dataset(", "    for VERSION in (1,):\n        skybatch.Dataset("
    )
    ended = run(write(tmp_path, "script.py", text))
    assert ended.returncode == 1
    assert "belongs under `if __name__ == '__main__':`" in ended.stderr
