import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from skybatch.engine import jobfile
from skybatch.engine.pools import Pool
from skybatch.errors import UnknownName, UsageError

FORMATS = """\
from dataclasses import dataclass
from typing import ClassVar

imported = []

@dataclass
class Words:
    path: str
    column: str = "word"
    limit: int = 0

    def __post_init__(self):
        if self.limit < 0:
            raise ValueError("limit must not be negative")

class NoDataclass: pass

class Undecorated(Words):
    kind: ClassVar[str] = "words"
    _read: int = 0
    suffix: str = ".txt"

def upper(batch): return batch

if __name__ == "__main__":
    raise SystemExit("ran as a script")
"""

JOB = """\
input: {type: own_formats.py:Words, path: in.txt}
mapper: own_formats.py:upper
batch_size: 4
output:
  - {type: own_formats.py:Words, path: out/, column: x}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_formats.py").write_text(FORMATS)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def read(folder: Path, text: str) -> jobfile.JobFile:
    path = folder / "job.yaml"
    path.write_text(text)
    return jobfile.read(path)


def test_reader_mapper_and_writers_come_from_the_file_beside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    arguments = read(folder, JOB).to_map_arguments()
    assert (arguments.reader.path, arguments.reader.limit) == (str(folder / "in.txt"), 0)
    assert arguments.mapper.__module__ == "own_formats"
    [output] = arguments.kwargs["output"]
    assert (output.path, output.column) == (f"{folder}/out/", "x")
    assert {key: value for key, value in arguments.kwargs.items() if key != "output"} == {"batch_size": 4}


def test_every_key_reaches_map(folder: Path) -> None:
    more = dedent("""\
        mapper_args: {style: short, deep: [1, {a: null}]}
        pool: {workers: 2, env: {A: b}}
        on_error: skip
        name: words
        workers: 3
        concurrency: 8
        max_retries: {timeout: 1}
        max_failed_items: 10
        max_failed_fraction: 0.5
        speculate: true
        one_to_one: false
        overwrite: true
        activate_env: source .venv/bin/activate
        batch_timeout_s: 1.5
        limit: 20
        """)
    job = read(folder, JOB + more)
    kwargs = job.to_map_arguments().kwargs
    assert job.to_map_arguments().limit == 20
    assert kwargs["pool_name"] == Pool(name="", workers=2, env={"A": "b"})
    assert kwargs["mapper_args"] == {"style": "short", "deep": [1, {"a": None}]}
    assert (kwargs["max_retries"], kwargs["one_to_one"], kwargs["batch_timeout_s"]) == ({"timeout": 1}, False, 1.5)
    assert set(kwargs) == (jobfile.KEYS - {"input", "mapper", "pool", "limit"}) | {"pool_name"}


def test_nested_values_arrive_as_ordinary_dicts(folder: Path) -> None:
    """Records that hold them are copied by dataclasses.asdict, which makes dicts anew by their type."""
    text = JOB.replace("column: x", "column: {id: [{deep: int64}]}")
    more = "mapper_args: {opts: {a: [{b: 1}]}}\npool: {options: {a: {b: 1}}}\n"
    kwargs = read(folder, text + more).to_map_arguments().kwargs
    nested = [kwargs["output"][0].column, kwargs["mapper_args"], kwargs["pool_name"].options]
    assert nested == [{"id": [{"deep": "int64"}]}, {"opts": {"a": [{"b": 1}]}}, {"a": {"b": 1}}]
    types = [type(nested[0]), type(nested[0]["id"][0]), type(nested[1]["opts"]["a"][0]), type(nested[2]["a"])]
    assert types == [dict] * 4


def test_a_single_output_needs_no_list(folder: Path) -> None:
    text = JOB.replace("\n  - {", " {")
    assert len(read(folder, text).to_map_arguments().kwargs["output"]) == 1


def test_reading_runs_no_user_code(folder: Path) -> None:
    (folder / "own_formats.py").write_text("raise SystemExit('ran')")
    read(folder, JOB)


@pytest.mark.parametrize("path", ["memory://x/in.txt", "s3://bucket/in.txt", "/abs/in.txt", ""])
def test_urls_absolute_and_empty_paths_stay(folder: Path, path: str) -> None:
    assert read(folder, JOB.replace("in.txt", path or '""')).to_map_arguments().reader.path == path


def test_each_path_of_a_list_is_relative_to_the_file(folder: Path) -> None:
    text = JOB.replace("in.txt", "[a.txt, ../b.txt, 's3://bucket/c.txt']")
    expected = [str(folder / "a.txt"), str(folder.parent / "b.txt"), "s3://bucket/c.txt"]
    assert read(folder, text).to_map_arguments().reader.path == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "batch_size",
            "batchsize",
            r"job.yaml:3: unknown key 'batchsize' in a job file; did you mean 'batch_size'\?",
        ),
        (
            "batch_size: 4",
            "batch_size: 0",
            "job.yaml:3: batch_size must be a whole number of at least 1, not 0",
        ),
        ("batch_size: 4", "batch_size: '4'", "batch_size must be a whole number"),
        ("mapper: own_formats.py:upper", "mapper: ''", "mapper is missing"),
        ("mapper: own_formats.py:upper", "name: 3", "mapper is missing"),
        ("type: own_formats.py:Words, path: in.txt", "path: in.txt", "job.yaml:1: type is missing"),
        (
            "batch_size: 4",
            "batch_size: 4\non_error: skipp",
            "on_error must be one of fail, skip; did you mean 'skip'",
        ),
        ("batch_size: 4", "batch_size: 4\nbatch_timeout_s: -1", "job.yaml:4: batch_timeout_s"),
        (
            "batch_size: 4",
            "batch_size: 4\nmapper_args: {a: 2020-01-01}",
            "job.yaml:4: mapper_args must be JSON",
        ),
        ("batch_size: 4", "batch_size: 4\nmapper_args: {a: .nan}", "mapper_args must be JSON"),
        ("batch_size: 4", "batch_size: 4\noverwrite: maybe", "overwrite must be true or false"),
        ("batch_size: 4", "batch_size: 4\npool: nowhere", "job.yaml:4: pool: unknown pool 'nowhere'"),
        ("batch_size: 4", "batch_size: 4\npool: {worker: 1}", "did you mean 'workers'"),
        (
            "  - {type: own_formats.py:Words, path: out/, column: x}",
            "  - out/",
            "output must be a mapping or a list",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_before_any_code_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    monkeypatch.setenv("SKYBATCH_HOME", str(folder / "home"))
    assert old in JOB
    with pytest.raises(UsageError, match=message):
        read(folder, JOB.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "path: in.txt",
            "path: in.txt, colunm: x",
            "job.yaml:1: unknown key 'colunm' in input own_formats.py:Words",
        ),
        (", path: in.txt", "", "job.yaml:1: path is missing: own_formats.py:Words needs it"),
        (
            "path: in.txt",
            "path: in.txt, limit: -1",
            "job.yaml:1: own_formats.py:Words: limit must not be negative",
        ),
        (
            "py:upper",
            "py:uper",
            r"job.yaml:2: mapper: unknown name in own_formats.py 'uper'; did you mean 'upper'\?"
            "; known: NoDataclass, Undecorated, Words, upper$",
        ),
        ("own_formats.py:upper", "other.py:upper", "job.yaml:2: mapper: .*other.py: no such file"),
        ("own_formats.py:upper", "no.such.place:upper", "mapper: no module named 'no'"),
        ("own_formats.py:upper", "upper", "must be file.py:name or package.module:name"),
        ("py:Words, path: in.txt", "py:NoDataclass", "is not a dataclass"),
        (
            "Words, path: in.txt",
            "Undecorated, path: in.txt, suffix: .md",
            r"job.yaml:1: type: own_formats.py:Undecorated: Undecorated has fields \(suffix\) but no @dataclass",
        ),
        (
            "own_formats.py:Words, path: in.txt",
            "jsn, path: x",
            r"job.yaml:1: type: unknown input reader 'jsn'",
        ),
    ],
)
def test_a_mistake_found_with_the_users_code_is_named_with_its_place(
    folder: Path, old: str, new: str, message: str
) -> None:
    assert old in JOB
    job = read(folder, JOB.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        job.to_map_arguments()


def test_a_mapper_in_a_package_beside_the_file_is_found(folder: Path) -> None:
    (folder / "own_package").mkdir()
    (folder / "own_package" / "steps.py").write_text(
        "class Lower:\n    def __call__(self, batch): return batch\n"
    )
    mapper = (
        read(folder, JOB.replace("own_formats.py:upper", "own_package.steps:Lower")).to_map_arguments().mapper
    )
    assert mapper.__qualname__ == "Lower"


def test_a_file_named_like_a_loaded_module_is_refused_not_confused(folder: Path) -> None:
    (folder / "textwrap.py").write_text("def upper(batch): return batch\n")
    job = read(folder, JOB.replace("own_formats.py:upper", "textwrap.py:upper"))
    with pytest.raises(UsageError, match="a module called 'textwrap' is there already"):
        job.to_map_arguments()


def test_a_failing_import_keeps_its_own_error(folder: Path) -> None:
    (folder / "own_formats.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        read(folder, JOB).to_map_arguments()


def test_an_unknown_name_stays_of_its_class(folder: Path) -> None:
    with pytest.raises(UnknownName):
        jobfile.load_reference("own_formats.py:uper", folder)


def test_importing_a_mapper_of_the_standard_library_needs_no_file(folder: Path) -> None:
    assert jobfile.load_reference("os.path:join", folder) is os.path.join


def test_the_module_needs_neither_rich_nor_storage_libraries() -> None:
    code = (
        "import sys, skybatch.engine.jobfile\n"
        "assert not {'rich', 'fsspec', 'sqlite_utils'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
