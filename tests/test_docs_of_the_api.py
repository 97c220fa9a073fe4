"""The page about the Python API says what the code has."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import skybatch
from skybatch import errors
from skybatch.engine.job import Progress
from skybatch.engine.preview import Previewed
from skybatch.journal.rows import FailureRow

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text()


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_cells(table: str) -> set[str]:
    """The names in the first column of every row."""
    return set(re.findall(r"`(\w+)", "\n".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE))))


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return {name: value for name, value in inspect.signature(function).parameters.items() if name != "self"}


def public(kind: type) -> set[str]:
    names = set(vars(kind)) | set(inspect.signature(kind).parameters)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(("heading", "function"), [("map", skybatch.Dataset.map), ("resume", skybatch.resume)])
def test_every_parameter_is_documented_with_its_default(heading: str, function: Any) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`[^`]*`|required) \|", section(heading), re.MULTILINE)
    expected = {
        name: "required" if value.default is value.empty else f"`{value.default!r}`".replace("'", '"')
        for name, value in parameters(function).items()
    }
    assert dict(rows) == expected
    assert [name for name, _ in rows] == list(expected)


def test_the_number_of_positional_parameters_is_right() -> None:
    positional = [value for value in parameters(skybatch.Dataset.map).values() if value.kind is not value.KEYWORD_ONLY]
    assert len(positional) == 6
    assert "all but the first six are keywords only" in section("map")


def test_preview_has_these_parameters_and_gives_these_attributes() -> None:
    text, table = section("preview").split("| attribute |")
    assert set(re.findall(r"`(\w+)`", text.split(", as `map` has them")[0])) == set(
        parameters(skybatch.Dataset.preview)
    )
    assert first_cells(table) == {field.name for field in dataclasses.fields(Previewed)}


def test_a_dataset_is_made_like_this() -> None:
    text = section("Dataset")
    for call, function in (("Dataset", skybatch.Dataset), ("Dataset.from_items", skybatch.Dataset.from_items)):
        signature = inspect.signature(function)
        bare = signature.replace(
            parameters=[value.replace(annotation=value.empty) for value in signature.parameters.values()],
            return_annotation=signature.empty,
        )
        assert f"`{call}{bare}`" in text


def test_a_job_and_its_progress_have_these_attributes() -> None:
    job, progress = section("Job").split("| of `progress()` |")
    assert first_cells(job) == public(skybatch.Job) - {"folder"}
    assert first_cells(progress) == {field.name for field in dataclasses.fields(Progress)}
    kept = re.search(r"oldest first: (.*) \|$", job, re.MULTILINE)
    assert kept
    assert re.findall(r"`(\w+)`", kept[1]) == [field.name for field in dataclasses.fields(FailureRow)]


def test_the_context_has_these_attributes() -> None:
    (row,) = re.findall(r"^\| `context\(\)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == {field.name for field in dataclasses.fields(skybatch.Context)}


def test_the_errors_named_are_errors() -> None:
    raised = set(re.findall(r"`([A-Z]\w+)`", section("map").split("| raises |")[1]))
    assert {"UsageError", "OutputExists", "JobFailed", "Paused"} <= raised
    assert raised <= set(vars(errors))


def test_every_public_name_but_formats_is_on_the_page() -> None:
    formats = re.compile(r"Reader$|Writer$")
    elsewhere = {"hookimpl", "io_formats", "registry", "utils", "SkybatchError", "Context"}
    named = set(re.findall(r"`@?(?:skybatch\.)?(\w+)", PAGE))
    assert {name for name in skybatch.__all__ if not formats.search(name)} - elsewhere <= named
