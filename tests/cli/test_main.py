"""The command itself: quick help, errors in one line, the page about it."""

import subprocess
import sys
from pathlib import Path

import pytest

from skybatch import errors
from skybatch.cli import exits, main
from skybatch.cli.main import VERBS, invoke
from skybatch.cli.output import cell, inert
from skybatch.cli.reference import document

HEAVY = {"rich", "yaml", "sqlite_utils", "pluggy", "fsspec", "orjson", "sqlite3", "importlib.metadata", "tenacity"}


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["run", "--help"], ["status", "--help"]])
def test_help_imports_nothing_that_takes_time(arguments: list[str]) -> None:
    code = f"import sys\nfrom skybatch.cli.main import invoke\ninvoke({arguments})\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(ran.stdout.splitlines()[-1].split()) == set()


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n  {verb} " not in shown] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([verb, "--help"]) == 0
    assert f"Usage: skybatch {verb}" in capsys.readouterr().out


def test_a_mistyped_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["resum"]) == 2
    assert "did you mean 'resume'?" in capsys.readouterr().err


def test_an_expected_error_is_one_line_an_unexpected_one_a_traceback(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    command = [sys.executable, "-m", "skybatch.cli", "run", str(job)]
    expected = subprocess.run(command, capture_output=True, text=True)
    assert (expected.returncode, expected.stdout) == (2, "")
    assert expected.stderr == f"skybatch: {job}: No such file or directory\n"
    job.write_text("{input: {type: json, path: x}, mapper: own.py:f, batch_size: 1, output: {type: json, path: y}}")
    (tmp_path / "own.py").write_text("import no_such_driver\n")
    unexpected = subprocess.run(command, capture_output=True, text=True)
    assert unexpected.returncode == 1
    assert "Traceback" in unexpected.stderr and "own.py" in unexpected.stderr


def test_ctrl_c_outside_a_job_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.Verbs, "get_command", interrupt)
    assert invoke(["list"]) == 130
    assert capsys.readouterr().err.strip() == "skybatch: interrupted"


def test_the_page_about_the_command_is_what_the_code_says() -> None:
    """Made anew by: python -m skybatch.cli.reference > docs/cli.md"""
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text() == document()


def test_every_errors_exit_code_is_a_documented_one() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert {each.exit_code for each in classes if issubclass(each, errors.SkybatchError)} <= set(exits.EXIT_CODES)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\rb\x9b1m", "a\\x0db\\x9b1m"),
        ("\u202eevil", "\\u202eevil"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_text_of_strangers_cannot_command_a_terminal(text: str, shown: str) -> None:
    assert inert(text) == shown
    assert "\n" not in cell(text) and "\t" not in cell(text)
