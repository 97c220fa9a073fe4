"""The pages of executors have their keys, and pool files that are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skybatch import plugins
from skybatch.engine import pools
from skybatch.engine.strict_yaml import parse
from tests.tools.pages import PAGES, pool_files

DOCS = Path(__file__).parents[1] / "docs"
HIDDEN = {"files_root"}
COMMON = {"workers"}


def test_every_executor_has_a_page() -> None:
    provided = {name for answer in plugins.manager().hook.skybatch_executors() for name in answer}
    assert provided - {"local", "inline"} == PAGES.keys()
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "executors.md").read_text(), re.MULTILINE)
    assert set(listed) == provided


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_executor_s_keys(name: str) -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGES[name], re.MULTILINE)
    keys = {key.strip("`") for row in rows for key in row.split(", ")}
    assert keys == (plugins.executor(name).keys - HIDDEN) | COMMON


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name in PAGES for text in pool_files(name)],
)
def test_pool_files_are_read(name: str, text: str) -> None:
    assert pools.parse_pool(parse(text, "pool.yaml"), "example").executor == name
