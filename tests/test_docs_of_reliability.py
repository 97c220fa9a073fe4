"""docs/reliability.md names tests that exist, at least one for each fault, and the budgets that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skybatch.engine.events import BUDGETS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
FAULTS = re.findall(r"^\| (.+?) \| (.+?) \| (\[.+\]\(.+\)) \|$", PAGE, re.MULTILINE)


def test_there_are_faults_on_the_page() -> None:
    assert len(FAULTS) > 40


@pytest.mark.parametrize(("fault", "tests"), [(fault, tests) for fault, _, tests in FAULTS])
def test_each_fault_is_shown_by_tests_that_exist(fault: str, tests: str) -> None:
    named = re.findall(r"\[(\w+)\]\(\.\./([\w/.]+)\)", tests)
    assert len(named) == tests.count("](") > 0
    for name, path in named:
        assert re.search(rf"(def |^){name}\b", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_the_budgets_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .+? \| (.+?) \|", PAGE, re.MULTILINE))
    assert rows.keys() == {*BUDGETS, "preempted"}
    assert all(str(tries) in rows[name] for name, tries in BUDGETS.items())
