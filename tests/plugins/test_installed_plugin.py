"""`examples/plugin` as its users get it: a distribution of its own, installed by pip into a fresh environment."""

from __future__ import annotations

import json
import os
import shutil
import site
import sqlite3
import subprocess
import sys
import sysconfig
import venv
from contextlib import closing
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DISTRIBUTION = REPOSITORY / "examples" / "plugin"

JOB = """\
input: {type: sqlite, path: library.db, table: books, columns: [id, title]}
mapper: titles.py:shout
batch_size: 3
output:
  - {type: sqlite, path: out/titles.db, table: titles, columns: [id, loud]}
  - {type: json, path: out/titles.jsonl}
"""
MAPPER = "def shout(batch): return [{'id': book['id'], 'loud': book['title'].upper()} for book in batch]\n"

pytestmark = pytest.mark.full


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
    assert (packages / "skybatch_sqlite" / "reader.py").is_file()
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job file, its mapper, and a database with ten books."""
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "titles.py").write_text(MAPPER)
    with closing(sqlite3.connect(tmp_path / "library.db")) as connection, connection:
        connection.execute("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, price REAL)")
        connection.executemany("INSERT INTO books VALUES (?, ?, 1)", [(5 * n, f"book {n}") for n in range(10)])
    return tmp_path


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env={**os.environ, "SKYBATCH_HOME": str(cwd / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_plugin_is_listed_with_its_version_and_place(python: Path, tmp_path: Path) -> None:
    shown = run(python, "-m", "skybatch.cli", "plugins", "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    sqlite = {plugin["name"]: plugin for plugin in json.loads(shown.stdout)}["sqlite"]
    assert (sqlite["version"], sqlite["error"]) == ("0.1.0", None)
    assert sqlite["provides"] == ["executor nice", "reader sqlite", "writer sqlite"]
    assert sqlite["location"].startswith(str(python.parents[1]))
    assert sqlite["location"].endswith("plugin.py")


def test_a_job_file_can_name_its_formats_and_workers_have_them(python: Path, folder: Path) -> None:
    tried = run(python, "-m", "skybatch.cli", "run", "job.yaml", "--dry-run", "--limit", "1", cwd=folder)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout == 'item 0: {"id": 0, "title": "book 0"}\n  -> {"id": 0, "loud": "BOOK 0"}\n'
    ran = run(python, "-m", "skybatch.cli", "run", "job.yaml", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    with closing(sqlite3.connect(folder / "out" / "titles.db")) as connection:
        rows = connection.execute("SELECT id, loud FROM titles").fetchall()
    assert rows == [(5 * n, f"BOOK {n}") for n in range(10)]
    lines = (folder / "out" / "titles.jsonl").read_text().splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == rows


def test_its_own_tests_pass_there(python: Path, tmp_path: Path) -> None:
    tests = shutil.copytree(DISTRIBUTION / "tests", tmp_path / "tests")
    ran = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


def test_where_it_is_not_installed_the_name_is_unknown(folder: Path) -> None:
    ran = run(Path(sys.executable), "-m", "skybatch.cli", "run", "job.yaml", cwd=folder)
    assert ran.returncode == 2
    assert "job.yaml:1: type: unknown input reader 'sqlite'; known: " in ran.stderr
