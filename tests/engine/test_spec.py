"""What is said of a job's spec that this version cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skybatch.engine.spec import FORMAT, JobSpec
from skybatch.errors import JournalDamaged


def load(folder: Path, values: Any) -> str:
    """What is said when a spec of these values is loaded."""
    path = folder / "spec.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(JournalDamaged) as caught:
        JobSpec.load(path)
    assert caught.value.exit_code == 74 and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"id": "abc", "format": FORMAT + 1}, f"format {FORMAT + 1}, this one knows {FORMAT}"),
        ({"id": "abc", "colour": "blue", "depth": 3}, "this one does not know 'colour', 'depth'"),
    ],
    ids=["format", "fields"],
)
def test_spec_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path, values: Any, what: str) -> None:
    said = load(tmp_path, values)
    assert f"written by a newer skybatch ({what}); nothing was changed" in said
    assert "upgrade skybatch, then: skybatch resume abc" in said


@pytest.mark.parametrize("values", ["", "{", [], 7, {}, {"id": "abc"}, {"format": "new"}], ids=repr)
def test_what_is_no_spec_is_refused(tmp_path: Path, values: Any) -> None:
    assert "not a job's spec of this version" in load(tmp_path, values)
