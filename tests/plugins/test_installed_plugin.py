"""A plugin as its users get it: a distribution of its own, installed by pip into a fresh environment."""

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

DISTRIBUTION = Path(__file__).parent / "tiny_reader"
REPOSITORY = Path(__file__).parents[2]

JOB = """\
input: {type: letters, path: "", word: skybatch}
mapper: shout.py:shout
batch_size: 3
output: {type: json, path: out.jsonl}
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the plugin installed, offline.

    This environment's packages (skybatch's dependencies, pip, setuptools) are on its path, after its own.
    """
    root = tmp_path_factory.mktemp("environment")
    venv.create(root / "venv", symlinks=True)
    made = root / "venv" / "bin" / "python"
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    [packages] = (root / "venv" / "lib").glob("python*/site-packages")
    lines = [f"import site; site.addsitedir({folder!r})" for folder in dict.fromkeys(folders)]
    (packages / "outer.pth").write_text("\n".join([str(REPOSITORY), *lines]) + "\n")
    source = shutil.copytree(DISTRIBUTION, root / "source")
    install = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", str(source)]
    done = subprocess.run([made, *install], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (packages / "skybatch_letters.py").is_file()
    return made


def skybatch(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "skybatch.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "SKYBATCH_HOME": str(cwd / "home")},
        capture_output=True,
        text=True,
    )


@pytest.mark.full
def test_the_plugin_is_listed_with_its_version_and_place(python: Path, tmp_path: Path) -> None:
    shown = skybatch(python, "plugins", "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    letters = {plugin["name"]: plugin for plugin in json.loads(shown.stdout)}["letters"]
    assert (letters["version"], letters["provides"], letters["error"]) == ("0.3", ["reader letters"], None)
    assert letters["location"].startswith(str(python.parents[1]))
    assert letters["location"].endswith("skybatch_letters.py")


@pytest.mark.full
def test_a_job_file_can_name_the_plugins_reader_and_workers_have_it(python: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "shout.py").write_text("def shout(batch): return [{'big': i['letter'].upper()} for i in batch]\n")
    ran = skybatch(python, "run", "job.yaml", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert "".join(json.loads(line)["big"] for line in lines) == "SKYBATCH"


@pytest.mark.full
def test_where_it_is_not_installed_the_name_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "shout.py").write_text("def shout(batch): return batch\n")
    ran = skybatch(Path(sys.executable), "run", "job.yaml", cwd=tmp_path)
    assert ran.returncode == 2
    assert "job.yaml:1: type: unknown input reader 'letters'; known: json" in ran.stderr
