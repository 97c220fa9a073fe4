"""Every benchmark runs, verifies its outputs and reports its figures; how good they are is not asked here."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.harness import Figure, NotHere, Settings

README = Path(__file__).parents[1] / "benchmarks" / "README.md"


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_on_little_data(name: str, tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path, repeats=1, scale=0.005)
    try:
        figures = list(importlib.import_module(f"benchmarks.{name}").run(settings))
    except NotHere as missing:
        pytest.skip(str(missing))
    assert figures
    assert all(figure.benchmark == name and figure.value > 0 for figure in figures)


def test_a_figure_is_held_against_its_bound() -> None:
    assert Figure(benchmark="b", what="w", value=2.0, unit="x", at_least=2.0).met
    assert not Figure(benchmark="b", what="w", value=2.1, unit="x", at_most=2.0).met


def test_the_readme_lists_every_benchmark() -> None:
    assert re.findall(r"^\| `(\w+)` \|", README.read_text(), re.MULTILINE) == list(NAMES)
