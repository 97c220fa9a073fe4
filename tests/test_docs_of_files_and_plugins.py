"""The pages about job files, pool files and plugins say what the code has."""

import inspect
import re
from pathlib import Path

import pytest

from skybatch import hookspecs
from skybatch.engine import jobfile, pools, strict_yaml

DOCS = Path(__file__).parents[1] / "docs"


def documented(page: str, heading: str) -> set[str]:
    section = (DOCS / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_every_key_of_a_job_file_is_documented_and_no_other() -> None:
    assert documented("job-files.md", "Job files") == jobfile.KEYS


def test_every_key_of_a_pool_file_is_documented_and_no_other() -> None:
    assert documented("job-files.md", "Pool files") == pools.KEYS


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_are_read(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYBATCH_HOME", str(tmp_path / "home"))
    text = re.findall(r"```yaml\n(.*?)```", (DOCS / "job-files.md").read_text(), re.DOTALL)[number]
    path = tmp_path / "example.yaml"
    path.write_text(text)
    if number == 0:
        assert jobfile.read(path).section["batch_size"] == 32
    else:
        assert pools.parse_pool(strict_yaml.load(path), "x").workers == 2


def test_every_hook_is_documented_with_its_arguments() -> None:
    page = (DOCS / "plugins.md").read_text()
    for name, function in vars(hookspecs).items():
        if name.startswith("skybatch_"):
            assert f"| `{name}({', '.join(inspect.signature(function).parameters)})` |" in page
