"""YAML: one list of all results, however they arrived."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skybatch.formats.yaml_format import YamlWriter
from tests.tools.assembling import assembled, cut_everywhere, payloads

NASTY = st.text(st.sampled_from(list("a \x85\u2028\n\t-:#'\"é\ufeff\0\U0001f600~&*[")), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | NASTY
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=6), data=st.data())
def test_a_list_comes_back_and_does_not_depend_on_batches(
    rows: list[dict[str, Any]], data: Any, tmp_path: Path
) -> None:
    writer = YamlWriter("out.yaml")
    written = assembled(writer, payloads(writer, rows, data.draw(cut_everywhere(len(rows)))), tmp_path / "staged")
    assert written == assembled(writer, payloads(writer, rows, []), tmp_path / "staged")
    assert yaml.safe_load(written) == rows


def test_no_results_are_an_empty_list(tmp_path: Path) -> None:
    assert assembled(YamlWriter("out.yaml"), [], tmp_path / "staged") == b"[]\n"
    assert gzip.decompress(assembled(YamlWriter("out.yaml.gz"), [b"", b""], tmp_path / "staged")) == b"[]\n"


def test_it_is_pleasant_to_read() -> None:
    shared = [1, 2]
    result = {"z": "é", "day": datetime.date(2024, 2, 29), "bytes": b"\xff", "one": shared, "other": shared}
    assert YamlWriter("x.yaml").encode([{"no": 1, **result}], 0).decode() == (
        "- 'no': 1\n  z: é\n  day: '2024-02-29'\n  bytes: /w==\n  one:\n  - 1\n  - 2\n  other:\n  - 1\n  - 2\n"
    )
    assert YamlWriter("x.yaml", column=["z"]).encode([result], 0).decode() == "- z: é\n"
