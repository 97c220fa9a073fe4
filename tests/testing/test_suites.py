"""The suites find what they are for: readers and writers that break one rule each fail the test of that rule."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skybatch import CounterReader, JsonWriter
from skybatch.testing import ReaderSuite, WriterSuite

BROKEN = Path(__file__).with_name("broken.py")
ROOT = Path(__file__).parents[2]
CHOSEN = "not job and (not another_process or TestLocalGlobal)"  # what takes long is tried once


@pytest.fixture(scope="module")
def failed() -> dict[str, set[str]]:
    """The tests that failed, by class."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-k", CHOSEN, str(BROKEN)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found: dict[str, set[str]] = {}
    for suite, test in re.findall(r"^FAILED \S+::(\w+)::(\w+)", done.stdout, re.MULTILINE):
        found.setdefault(suite, set()).add(test)
    assert found, done.stdout + done.stderr
    return found


RULES = re.findall(r'^class (\w+)\(\w+\):\n(?:    """Fails: (\w+)\.""")?', BROKEN.read_text(), re.MULTILINE)


@pytest.mark.full
@pytest.mark.parametrize(("suite", "rule"), [(suite, rule) for suite, rule in RULES if suite.startswith("Test")])
def test_a_broken_rule_fails_its_test_and_a_good_one_fails_none(
    suite: str, rule: str, failed: dict[str, set[str]]
) -> None:
    if rule:
        assert rule in failed.get(suite, set())
    else:
        assert suite not in failed


COUNTER = CounterReader(count=3)


@pytest.mark.parametrize("made", [None, COUNTER, (1, COUNTER), (COUNTER, "1")])
def test_what_malformed_must_return_is_said(made: object, tmp_path: Path) -> None:
    suite = ReaderSuite()
    suite.malformed = lambda _: made  # type: ignore[assignment, return-value]
    with pytest.raises(pytest.fail.Exception, match="must return a tuple"):
        suite.test_a_malformed_record_is_that_items_failure(tmp_path, "")


def test_what_unwritable_must_be_is_said(tmp_path: Path) -> None:
    suite = WriterSuite()
    suite.unwritable = [{}]  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="one result, a dict"):
        suite.test_what_cannot_be_written_is_that_items_failure(JsonWriter(str(tmp_path / "out")))


def test_importing_skybatch_does_not_import_pytest() -> None:
    code = "import sys, skybatch; skybatch.Dataset, skybatch.JsonReader; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
