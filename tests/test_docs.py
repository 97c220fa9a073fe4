"""The README can be followed line by line, and the pages say what the code has."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest

from skybatch import errors
from skybatch.cli.doctor import EXTRAS
from skybatch.cli.exits import EXIT_CODES
from skybatch.cli.main import VERBS
from skybatch.formats import batchfiles, segment
from skybatch.formats.base import InputReader, OutputWriter
from skybatch.journal.schema import SCHEMA
from tests.tools.following import follow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shell_blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.full
def test_a_stranger_can_follow_the_readme_line_by_line(tmp_path: Path) -> None:
    told = follow(shell_blocks(), tmp_path)
    assert '{"id":2000,"text":"PROMPT NUMBER 2000"}' in told
    assert "running (interrupted: no engine runs it)" in told
    words = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text().splitlines()]
    assert words == [{"id": number, "words": 3} for number in range(1, 2001)]
    assert "2000 words.jsonl" in told
    squares = [json.loads(line)["square"] for line in (tmp_path / "out" / "squares.jsonl").read_text().splitlines()]
    assert squares == [number**2 for number in range(100)]
    assert re.search(r"hello: job \w+ is cleaned", told)


def test_the_plugin_has_five_lines() -> None:
    (block,) = [block for block in shell_blocks() if "hookimpl" in block]
    plugin = block.split("hello.py <<'EOF'\n")[1].split("EOF")[0]
    assert len(plugin.splitlines()) == 5


def test_the_readme_names_every_command() -> None:
    commands = re.findall(r"^\| `skybatch ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == list(VERBS)


def test_the_extras_are_those_of_the_readme_and_of_the_doctor() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"]) - {"servers", "dev"}
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {name: purpose.replace("`", "") for name, purpose in rows} == {
        name: purpose for name, (_, purpose) in EXTRAS.items()
    }
    assert set(EXTRAS) == extras


@pytest.mark.parametrize("source", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(source: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", source.read_text()):
        assert (source.parent / target).exists(), target


def test_the_documented_errors_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (.*) \|$", page("errors-and-exit-codes.md"), re.MULTILINE)
    assert rows == [
        (name, value.__bases__[0].__name__, str(value.exit_code), (inspect.getdoc(value) or "").splitlines()[0])
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.SkybatchError)
    ]


def test_the_documented_exit_codes_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page("errors-and-exit-codes.md"), re.MULTILINE)
    assert rows == [(str(code), meaning) for code, meaning in EXIT_CODES.items()]


def test_the_documented_job_states_are_those_of_the_journal() -> None:
    drawing = page("how-it-works.md").split("```mermaid\n")[1].split("```")[0]
    drawn = set(re.findall(r"\w+", re.sub(r": \w$|stateDiagram-v2", "", drawing, flags=re.MULTILINE)))
    checked = SCHEMA.split("CHECK (state IN (", 1)[1].split(")", 1)[0]
    assert drawn == set(re.findall(r"'(\w+)'", checked))


def test_every_letter_of_the_drawings_is_explained_once() -> None:
    text = page("how-it-works.md")
    drawn = set(re.findall(r": (\w)$", text, re.MULTILINE))
    assert sorted(drawn) == re.findall(r"^- \*\*(\w)\*\*", text, re.MULTILINE)


def test_the_documented_segment_layout_is_that_of_the_code() -> None:
    text = page("formats.md")
    assert f"`{segment.RECORD.format}` ({segment.RECORD.size} bytes)" in text
    assert f"`{segment.TRAILER.format}` ({segment.TRAILER.size} bytes)" in text
    assert f"`{segment.MAGIC.decode()}`" in text
    assert f"`{batchfiles.TEMP_NAME}/<job id>/<name of the output>/`" in text


def test_the_documented_way_to_read_a_segment_reads_one(tmp_path: Path) -> None:
    written = segment.SegmentFile(tmp_path, "abc")
    written.append(4, 5, 1, b"first")
    written.append(6, 6, 2, b"second")
    name = written.seal().name
    names: dict[str, object] = {}
    exec(page("formats.md").split("## Segments\n")[1].split("```python\n")[1].split("```")[0], names)
    ranges = names["ranges"]
    assert callable(ranges)
    assert list(ranges(tmp_path / name)) == [(4, 5, b"first"), (6, 6, b"second")]


@pytest.mark.full
def test_a_stranger_can_follow_the_guide_to_formats_of_their_own(tmp_path: Path) -> None:
    guide = page("formats.md").split("## Temporary files\n")[0]
    commands = []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", guide, re.DOTALL):
        named = re.match(r"# (\w+\.\w+)\n", block)
        if named:
            (tmp_path / named[1]).write_text(block)
        else:
            commands.append(block if language == "sh" else f"python - <<'EOF'\n{block}EOF\n")
    told = follow(commands, tmp_path)
    assert '{"words":8,"text":"A bird in the hand\\nis worth two."}' in told
    assert told.count(" passed") == 3
    assert (tmp_path / "measured.jsonl").read_bytes() == (tmp_path / "words.jsonl").read_bytes()


@pytest.mark.parametrize(("heading", "contract"), [("A reader", InputReader), ("A writer", OutputWriter)])
def test_the_documented_methods_are_those_of_the_contract(heading: str, contract: type) -> None:
    section = page("formats.md").split(f"## {heading} of your own\n")[1].split("\n## ")[0]
    documented = {
        name: tuple(filter(None, arguments.split(", ")))
        for name, arguments in re.findall(r"^\| `(\w+)\(([\w, ]*)\)` \|", section, re.MULTILINE)
    }
    own = {name: value for name, value in vars(contract).items() if inspect.isfunction(value)}
    made = {"__init__", "__repr__", "__eq__"}  # by @dataclass
    expected = {
        name: tuple(inspect.signature(value).parameters)[1:] for name, value in own.items() if name not in made
    }
    assert documented == expected
