"""Every script in `examples/` runs as its first lines say, and writes what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import PIL.Image
import pytest
import yaml

from skybatch import JsonWriter, demo
from skybatch.engine.dataset import Dataset

ROOT = Path(__file__).parents[1]
JSON_LIBRARY = Path(sysconfig.get_path("stdlib"), "json")


def run(script: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        cwd=folder,
        env={**os.environ, "SKYBATCH_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_census_has_a_row_per_file_and_prints_its_ranking(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "b.py").write_text("def one(): pass\n\ndef two(): pass\n")
    (library / "a.py").write_text("print 'of another Python'\n")
    (library / "site-packages").mkdir()
    (library / "site-packages" / "installed.py").write_text("")
    printed = run(ROOT / "examples" / "stdlib_census.py", str(library), folder=tmp_path)
    broken, good = rows(tmp_path / "census" / "files.jsonl")
    assert (broken["path"], broken["tokens"]) == ("a.py", None)
    assert str(broken["error"]).startswith("SyntaxError")
    tokens = good.pop("tokens")
    assert good == {"path": "b.py", "lines": 3, "longest_line": 15, "functions": 2, "error": None}
    assert printed.split() == [str(tokens), "b.py"]


def test_the_range_becomes_text_files_and_one_yaml_list(tmp_path: Path) -> None:
    run(ROOT / "examples" / "range_to_text_yaml.py", "12", folder=tmp_path)
    facts = yaml.safe_load((tmp_path / "numbers" / "facts.yaml").read_text())
    assert [fact["number"] for fact in facts] == list(range(12))
    assert [fact["number"] for fact in facts if fact["prime"]] == [2, 3, 5, 7, 11]
    texts = sorted((tmp_path / "numbers" / "texts").iterdir())
    assert [text.name for text in texts] == [f"{number:08d}.txt" for number in range(12)]
    assert texts[6].read_text() == "6 is divided by 1, 2, 3, 6"


def test_every_image_gets_its_thumbnail(tmp_path: Path) -> None:
    for name, size in (("a.png", (300, 150)), ("trip/b.jpg", (10, 20)), ("trip/c.png", (64, 64))):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", size, "red").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "torn.png").write_bytes(b"no image")
    run(ROOT / "examples" / "thumbnails.py", "photos", "30", folder=tmp_path)
    made = {path.relative_to(tmp_path / "thumbnails"): path for path in (tmp_path / "thumbnails").rglob("*.jpg")}
    sizes = {}
    for name, path in made.items():
        with PIL.Image.open(path) as image:
            sizes[str(name)] = image.size
    assert sizes == {"a.png.jpg": (30, 15), "trip/b.jpg": (10, 20), "trip/c.png.jpg": (30, 30)}
    table = "path,width,height\na.png,300,150\ntrip/b.jpg,10,20\ntrip/c.png,64,64\n"
    assert (tmp_path / "sizes.csv").read_text() == table


def test_no_example_is_left_untested() -> None:
    tested = {"stdlib_census.py", "range_to_text_yaml.py", "thumbnails.py"}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == tested


def test_the_demo_counts_one_package_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))
    outputs = [JsonWriter(str(tmp_path / "rows.jsonl")), demo.Ranking(str(tmp_path / "best.txt"), "tokens", rows=2)]
    Dataset(demo.SourceReader(str(JSON_LIBRARY))).map(demo.measure, batch_size=2, output=outputs)
    found = rows(tmp_path / "rows.jsonl")
    assert [row["path"] for row in found] == sorted(path.name for path in JSON_LIBRARY.glob("*.py"))
    assert all(row["tokens"] and row["error"] is None for row in found)
    assert len((tmp_path / "best.txt").read_text().splitlines()) == 3


@pytest.mark.full
def test_the_demo_survives_its_own_kill(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(str(JSON_LIBRARY.parent / "idlelib")) == 0
    told = capsys.readouterr().out
    assert "kill -9" in told
    assert told.count("the same bytes") == 2
    assert "DIFFERENT" not in told
